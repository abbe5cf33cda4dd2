import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { certificateBlocks } from "../../src/certificates/pem.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { holdfast } from "../cli/holdfast.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const YEAR_MS = 365 * 86_400_000;

test("over thirty years the serving certificate and its CA are renewed without a restart, and a client that read the CA at the start finds its way", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  const clock = new ShiftedClock();
  const keyPair = apiServer.cluster.clientCertificate("admin", ["system:masters"], {
    notAfterMs: Date.UTC(2200, 0, 1),
  });
  const kubeconfig = apiServer.kubeconfig({ user: "admin", keyPair });
  await using edge = await startEdge({ apiServer, clock, kubeconfig });
  const pki = (name: string) => readFileSync(join(edge.stateDir, "pki", name), "utf8");
  const client = edge.clientWith(keyPair);
  const served = new Set([pki("serving.crt")]);
  for (let at = 0; at < 9; at++) {
    clock.forward(3 * YEAR_MS);
    served.add(pki("serving.crt"));
    client.close();
    // Three years without a word of the API server are a cut: it is over at the next look.
    await eventually(async () => (await client.get(LIST)).status === 200);
  }
  expect(served.size).toBeGreaterThanOrEqual(4);
  expect(certificateBlocks(pki("local-ca.crt"))).toHaveLength(2);
  const [leaf] = certificateBlocks(pki("serving.crt"));
  expect(new X509Certificate(leaf!).validToDate.getTime()).toBeGreaterThan(clock.nowMs() + 2 * YEAR_MS);
  expect(edge.log.filter((line) => line.includes("the local CA is renewed"))).toHaveLength(1);
}, 60_000);

interface Churn {
  readonly answered: number;
  /** @returns what went wrong. */
  end(): Promise<string[]>;
}

/** Requests without a pause, half of them on new connections. */
function churn(client: Client): Churn {
  const failures: string[] = [];
  let answered = 0;
  let isOver = false;
  const ask = async (isNew: boolean) => {
    while (!isOver) {
      try {
        const reply = await client.request("GET", LIST, isNew ? { agent: false } : {});
        if (reply.status !== 200) failures.push(`${reply.status} ${reply.body.toString()}`);
        answered++;
      } catch (error) {
        failures.push(`${String(isNew)} ${(error as Error).message}`);
      }
    }
  };
  const asking = [ask(true), ask(false)];
  return {
    get answered() {
      return answered;
    },
    async end() {
      isOver = true;
      await Promise.all(asking);
      return failures;
    },
  };
}

async function act(edge: Edge, action: string, name: string): Promise<string> {
  const response = await fetch(`http://holdfast/v1/certificates/${action}/${name}`, {
    method: "POST",
    unix: join(edge.stateDir, "admin.sock"),
  } as RequestInit);
  return `${response.status} ${((await response.json()) as { message: string }).message}`;
}

async function startNode(options: { readonly config?: string } = {}) {
  const apiServer = await startApiServer({ objects: [configMap("a")], signing: { verdict: "approve", backdateMs: 0 } });
  const keyPair = apiServer.cluster.clientCertificate("system:node:edge-1", ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: "node", keyPair });
  const edge = await startEdge({ apiServer, kubeconfig, ...options });
  const client = edge.clientWith(keyPair);
  await eventually(async () => (await client.get(LIST)).status === 200);
  return {
    apiServer,
    edge,
    client,
    pair: keyPair,
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

test("ten rotations of client, serving and CA under requests and an open watch: no error that a client sees, no relist", async () => {
  await using bench = await startNode({ config: "certificates: {rotateNodeClient: true}\n" });
  const { apiServer, edge, client, pair } = bench;
  const { metadata } = (await client.get(LIST)).json();
  const watch = await client.watch(`${LIST}?watch=true&resourceVersion=${metadata.resourceVersion}`);
  const failures: string[] = [];
  let requests = churn(client);
  const pki = (name: string) => readFileSync(join(edge.stateDir, "pki", name), "utf8");
  const seen = { client: new Set<string>(), serving: new Set<string>(), ca: new Set<string>() };
  for (let at = 0; at < 10; at++) {
    const before = requests.answered;
    for (const name of ["node-client", "serving", "local-ca"])
      expect(await act(edge, "rotate", name)).toStartWith("200 ");
    seen.client.add(pki("node-client.pem"));
    seen.serving.add(pki("serving.crt"));
    seen.ca.add(pki("local-ca.crt"));
    apiServer.put(configMap(`b-${at}`));
    await watch.until((events) => events.some(({ object }) => object.metadata.name === `b-${at}`));
    await eventually(() => requests.answered > before + 4);
    // A process reads the CA at its start: four renewals later what it read then is still good.
    if (at % 4 === 3) {
      failures.push(...(await requests.end()));
      requests = churn(edge.clientWith(pair));
    }
    failures.push(...(await verdictOfNewClient(edge)));
  }
  failures.push(...(await requests.end()));
  expect(failures).toEqual([]);
  expect(watch.isOpen).toBe(true);
  expect(watch.events.filter(({ type }) => type === "ADDED")).toHaveLength(10);
  expect(Object.values(seen).map(({ size }) => size)).toEqual([10, 10, 10]);
  // The client's own lists ask for the newest and go up; of ours there is none, and one watch all along.
  const ours = apiServer.requests.filter(
    ({ resource, headers }) => resource === "configmaps" && headers["user-agent"]?.startsWith("holdfast/") === true,
  );
  expect(ours.map(({ verb }) => verb)).toEqual(["watch"]);
  watch.close();
}, 60_000);

test("cert status names what ends and who renews it; rotate and revoke say what came of it, and what is not ours is not touched", async () => {
  await using bench = await startNode();
  const { edge, apiServer, client } = bench;
  const where = ["--state-dir", edge.stateDir];
  const status = await holdfast("cert", "status", ...where);
  expect(status.code).toBe(0);
  expect(status.stdout).toMatch(
    /^node-client +O=system:nodes, CN=system:node:edge-1 +in 36[45]d\S* +who writes the kubeconfig's files$/m,
  );
  expect(status.stdout).toMatch(/^local-ca .* this node$/m);
  expect(status.stdout).toContain("This node survives 364 more days offline: the node certificate ends then");
  expect((await holdfast("status", ...where)).stdout).toContain("This node survives 364 more days offline");
  const notOurs = await holdfast("cert", "rotate", "node-client", ...where);
  expect([notOurs.code, notOurs.stderr]).toEqual([1, expect.stringContaining("is not Holdfast's to renew")]);
  expect(apiServer.objects("CertificateSigningRequest")).toEqual([]);
  expect((await holdfast("cert", "rotate", "serving", ...where)).code).toBe(0);
  client.close();
  expect((await client.get(LIST)).status).toBe(200);
  const revoked = await holdfast("cert", "revoke", "local-ca", ...where);
  expect([revoked.code, revoked.stdout]).toEqual([0, expect.stringContaining("systemctl restart kubelet")]);
  client.close();
  expect(client.get(LIST)).rejects.toThrow();
  expect(await verdictOfNewClient(edge)).toEqual([]);
  for (const [args, words] of [
    [["rotate"], "Say which"],
    [["rotate", "ca"], "Unknown certificate 'ca'"],
    [["renew"], "Unknown action 'renew'"],
  ] as const) {
    const wrong = await holdfast("cert", ...args, ...where);
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining(words)]);
  }
}, 30_000);

/** What goes wrong for a client that begins now. */
async function verdictOfNewClient(edge: Edge): Promise<string[]> {
  const fresh = edge.clientWith({});
  try {
    const { status } = await fresh.get(LIST);
    return status === 401 ? [] : [`a client without a credential gets ${status}`];
  } catch (error) {
    return [(error as Error).message];
  } finally {
    fresh.close();
  }
}
