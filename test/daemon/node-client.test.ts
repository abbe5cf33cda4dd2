import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer, type ApiServer, type ApiServerOptions } from "../../src/demo/api-server/api-server.ts";
import type { KeyPair, Validity } from "../../src/demo/api-server/mint.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const CONFIG = "certificates: {rotateNodeClient: true}\n";
const CSR = "CertificateSigningRequest";
const HOUR_MS = 3_600_000;
/** A year that is nearly over by whichever draw. */
const DUE: Validity = { notBeforeMs: Date.now() - 19 * HOUR_MS, notAfterMs: Date.now() + HOUR_MS };

interface Bench extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  readonly given: KeyPair;
  readonly path: string;
  readonly clock: ShiftedClock;
  conditions(): Promise<string[]>;
}

async function start(signing: ApiServerOptions["signing"] & {}, validity: Validity = DUE): Promise<Bench> {
  const apiServer = await startApiServer({ objects: [configMap("a")], signing });
  const given = apiServer.cluster.clientCertificate("system:node:edge-1", ["system:nodes"], validity);
  const kubeconfig = apiServer.kubeconfig({ user: "node", keyPair: given });
  const clock = new ShiftedClock();
  const edge = await startEdge({ apiServer, kubeconfig, config: CONFIG, clock });
  return {
    apiServer,
    edge,
    given,
    clock,
    path: join(edge.stateDir, "pki", "node-client.pem"),
    async conditions() {
      const answer = await askStatus(join(edge.stateDir, "admin.sock"));
      if (!answer.isFine) throw new Error(answer.problem);
      return answer.report.conditions.map(
        ({ type, reason, message, next }) => `${type} ${reason}: ${message}. ${next}`,
      );
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

describe("a node's client certificate that is due", () => {
  test("is renewed by a request that the signer takes, is on disk for its owner alone, and is what the API server sees", async () => {
    await using bench = await start({ verdict: "approve" });
    const { apiServer, edge, given, path } = bench;
    await eventually(() => existsSync(path));
    const [request] = apiServer.objects(CSR) as any[];
    expect(request.spec.signerName).toBe("kubernetes.io/kube-apiserver-client-kubelet");
    expect(request.spec.usages).toEqual(["digital signature", "client auth"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const leaf = new X509Certificate(readFileSync(path, "utf8"));
    expect(leaf.subject).toBe("O=system:nodes\nCN=system:node:edge-1");
    expect(leaf.publicKey.asymmetricKeyDetails?.namedCurve).toBe("prime256v1");
    expect(leaf.subjectAltName).toBeUndefined();
    expect(existsSync(join(edge.stateDir, "pki", "node-client-request.json"))).toBe(false);
    const status = async () => {
      const answer = await askStatus(join(edge.stateDir, "admin.sock"));
      return answer.isFine ? answer.report.certificates.find(({ name }) => name === "upstream")?.notAfterMs : undefined;
    };
    expect(await status()).toBe(leaf.validToDate.getTime());
    // A restart goes on with it: the kubeconfig's is older.
    await edge.restart();
    expect(await status()).toBe(leaf.validToDate.getTime());
    expect((await edge.clientWith(given).get(LIST)).status).toBe(200);
    expect(apiServer.objects(CSR)).toHaveLength(1);
  });

  // As kube-controller-manager's signer does it: beside the kubeconfig's young pair each of ours looks older.
  test.each([0, 5 * 60_000])(
    "that lives for seconds, dated back by %p ms, is renewed again and again, each time before its end, under requests that all succeed",
    async (backdateMs) => {
      const SECONDS: Validity = { notBeforeMs: Date.now() - 1_000, notAfterMs: Date.now() + 6_000 };
      await using bench = await start({ verdict: "approve", lifeMs: 6_000, backdateMs }, SECONDS);
      const { apiServer, edge } = bench;
      // Asks as itself on a certificate that outlives the test; what goes up goes with ours.
      const client = edge.clientWith(apiServer.cluster.clientCertificate("system:node:edge-1", ["system:nodes"]));
      const ends = new Set<string>();
      const statuses = new Set<number>();
      await eventually(
        async () => {
          statuses.add((await client.get(LIST)).status);
          if (existsSync(bench.path)) ends.add(new X509Certificate(readFileSync(bench.path, "utf8")).validTo);
          return ends.size === 2;
        },
        Boolean,
        25_000,
      );
      expect([...statuses]).toEqual([200]);
      expect(apiServer.requests.filter(({ status }) => status === 401)).toEqual([]);
      expect(edge.log.filter((line) => line.includes("link to the API server lost"))).toEqual([]);
    },
    30_000,
  );

  test("that is denied is a condition with the command to see why, is used on, and is asked for again with another key", async () => {
    await using bench = await start({ verdict: "deny" });
    const { apiServer, edge, clock, given, path } = bench;
    const isFound = (text: string) => text.startsWith("CertificateNotRenewed");
    const found = (await eventually(bench.conditions, (all) => all.some(isFound))).find(isFound);
    const [first] = apiServer.objects(CSR) as any[];
    expect(found).toMatch(/^CertificateNotRenewed Denied: .*NotWanted: not this one/);
    expect(found).toContain(`kubectl describe csr ${first.metadata.name}`);
    expect((await edge.clientWith(given).get(LIST)).status).toBe(200);
    apiServer.behaviour.signing = { verdict: "approve" };
    await eventually(() => {
      clock.forward(30_000);
      return existsSync(path);
    });
    const names = new Set((apiServer.objects(CSR) as any[]).map(({ spec }) => spec.request));
    expect(names.size).toBe(2);
    await eventually(bench.conditions, (all) => !all.some((text) => text.startsWith("CertificateNot")));
  });

  test("waits for hours for a person, over a restart, with one request; then is there", async () => {
    await using bench = await start({ verdict: "wait" });
    const { apiServer, edge, clock, path } = bench;
    await eventually(() => apiServer.objects(CSR).length === 1);
    await eventually(async () => {
      clock.forward(60_000);
      return (await bench.conditions()).some((text) =>
        /^CertificateNotRenewed Pending: .* waited \d+ minutes/.test(text),
      );
    });
    await edge.restart();
    const posts = () => apiServer.count({ verb: "create", resource: "certificatesigningrequests" });
    await eventually(() => posts() === 2);
    expect(apiServer.objects(CSR)).toHaveLength(1);
    const [request] = apiServer.objects(CSR) as any[];
    const certificate = apiServer.cluster.signClientRequest(
      Buffer.from(request.spec.request, "base64").toString("utf8"),
      { notBeforeMs: Date.now() - 60_000 },
    );
    apiServer.put({ ...request, kind: CSR, status: { certificate: Buffer.from(certificate).toString("base64") } });
    await eventually(() => {
      clock.forward(10_000);
      return existsSync(path);
    });
  });

  test.each([
    [
      "another key",
      (apiServer: ApiServer) => apiServer.cluster.clientCertificate("system:node:edge-1", ["system:nodes"]),
    ],
    [
      "another subject",
      (apiServer: ApiServer) => apiServer.cluster.clientCertificate("system:node:edge-2", ["system:nodes"]),
    ],
  ])("is not replaced by a certificate for %s", async (_, mint) => {
    await using bench = await start({ verdict: "wait" });
    const { apiServer, clock, path } = bench;
    await eventually(() => apiServer.objects(CSR).length === 1);
    const [request] = apiServer.objects(CSR) as any[];
    const certificate = Buffer.from(mint(apiServer).cert).toString("base64");
    apiServer.put({ ...request, kind: CSR, status: { certificate } });
    await eventually(async () => {
      clock.forward(1_000);
      return (await bench.conditions()).some((text) => text.startsWith("CertificateNotRenewed Unusable"));
    });
    expect(existsSync(path)).toBe(false);
  });

  test("and expires while cut: what is kept is served on, nothing ends, and the return renews it while it is good", async () => {
    await using bench = await start(
      { verdict: "approve", lifeMs: 1_000 * 24 * HOUR_MS },
      { notBeforeMs: Date.now() - HOUR_MS },
    );
    const { apiServer, clock, edge, given, path } = bench;
    const client = edge.clientWith(given);
    expect((await client.get(LIST)).status).toBe(200);
    await apiServer.cut();
    await eventually(() => edge.log.some((line) => line.includes("link to the API server lost")));
    clock.forward(400 * 24 * HOUR_MS);
    await eventually(async () =>
      (await bench.conditions()).some((text) => text.startsWith("CertificateExpiring Expired")),
    );
    expect((await client.get(LIST)).status).toBe(200);
    expect(existsSync(path)).toBe(false);
    await apiServer.heal();
    await eventually(() => {
      clock.forward(1_000);
      return existsSync(path);
    });
  });
});
