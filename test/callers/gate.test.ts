/**
 * Strangers leave no mark and push nobody out; who is accepted is learned from
 * with the first answer; who was refused is nobody while cut.
 */
import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, sign } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import type { Client } from "../support/client.ts";
import { eventually } from "../support/client.ts";
import { configMap, linkOf, startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

const pod = (name: string, nodeName = NODE) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, namespace: "shop" },
  spec: { nodeName, serviceAccountName: "web", containers: [{ name: "app", image: "app" }] },
});

interface World extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  readonly kubelet: Client;
  with(token: string): Client;
  /** A token of the account "web", bound to a pod or to nothing. */
  token(podName?: string, seconds?: number): string;
  cut(): Promise<void>;
  heal(): Promise<void>;
  metric(name: string): Promise<number>;
}

async function startNode(config = "", tokens: readonly string[] = ["person"]): Promise<World> {
  const apiServer = await startApiServer({
    objects: [
      { kind: "Node", apiVersion: "v1", metadata: { name: NODE } },
      pod("web-0"),
      pod("web-1"),
      configMap("a"),
      { kind: "Secret", apiVersion: "v1", metadata: { name: "s", namespace: "shop" } },
    ] as never,
    tokens: Object.fromEntries(tokens.map((name) => [name, { name, groups: [] }])),
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig, config });
  const kubelet = edge.clientWith(keyPair);
  expect((await kubelet.get(PODS)).status).toBe(200);
  return {
    apiServer,
    edge,
    kubelet,
    with: (token) => edge.clientWith({ token }),
    token(podName, seconds = 3600) {
      if (podName === undefined) return apiServer.serviceAccountToken("shop", "web", seconds);
      const { uid = "" } = (apiServer.object("Pod", "shop", podName)?.["metadata"] ?? {}) as { uid?: string };
      return apiServer.serviceAccountToken("shop", "web", seconds, { pod: { name: podName, uid } });
    },
    ...linkOf(apiServer, kubelet),
    async metric(name) {
      const text = await (await fetch(`${edge.healthUrl}/metrics`)).text();
      return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)$`, "gm"))].reduce(
        (sum, [, n]) => sum + Number(n),
        0,
      );
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** Runs tasks, some at once. */
async function many(count: number, task: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const run = async () => {
    for (let index = next++; index < count; index = next++) await task(index);
  };
  await Promise.all(Array.from({ length: 16 }, run));
}

describe("a stranger", () => {
  test("whose made-up tokens list, watch and get leaves no commit, no scope and no line", async () => {
    await using world = await startNode();
    const before = {
      commits: await world.metric("holdfast_store_commits_total"),
      scopes: await world.metric("holdfast_scopes"),
    };
    const lines = world.edge.log.length;
    const asked = [LIST, `${LIST}?resourceVersion=0`, `${LIST}?${STREAM}`, `${LIST}/a`, "/apis"];
    const seen = new Set<number>();
    await many(200, async (i) =>
      seen.add(
        (await world.edge.client.get(asked[i % asked.length]!, { Authorization: `Bearer made-up-${i}` })).status,
      ),
    );
    expect([...seen]).toEqual([401]);
    expect(await world.metric("holdfast_scopes")).toBe(before.scopes);
    expect(await world.metric("holdfast_store_commits_total")).toBe(before.commits);
    expect(world.edge.log.slice(lines)).toEqual([]);
  });

  test("and 4,200 others while cut push out no credential: the watch of a real caller goes on after the return", async () => {
    await using world = await startNode();
    const watch = await world.with("person").watch(`${LIST}?${STREAM}`);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    await world.cut();
    const nobody = world.edge.clientWith({});
    await many(4_200, (i) => nobody.get(`${LIST}?resourceVersion=0`, { Authorization: `Bearer made-up-${i}` }));
    await world.heal();
    world.apiServer.put(configMap("later"));
    await watch.until((events) => events.some(({ object }) => object.metadata?.name === "later"));
  }, 60_000);

  test.each([
    ["a list", LIST],
    ["a list from the cache", `${LIST}?resourceVersion=0`],
    ["a get", `${LIST}/a`],
    ["discovery", "/apis"],
  ])("that is accepted is learned from with its first answer: %s", async (_, path) => {
    await using world = await startNode();
    expect((await world.with("person").get(path)).status).toBe(200);
    await world.cut();
    expect((await world.with("person").get(path)).status).toBe(200);
    await world.edge.restart();
    expect((await world.with("person").get(path)).status).toBe(200);
  });

  test("that begins with a streaming list keeps its watch open over a cut", async () => {
    await using world = await startNode();
    const watch = await world.with("person").watch(`${LIST}?${STREAM}`);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    await world.cut();
    await world.heal();
    world.apiServer.put(configMap("later"));
    await watch.until((events) => events.some(({ object }) => object.metadata?.name === "later"));
    expect(watch.isOpen).toBe(true);
  });

  test("known from a former life and met while cut is followed again after the return", async () => {
    await using world = await startNode();
    expect((await world.with("person").get(LIST)).status).toBe(200);
    await world.cut();
    await world.edge.restart();
    const watch = await world.with("person").watch(`${LIST}?${STREAM}`);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    await world.heal();
    world.apiServer.put(configMap("later"));
    await watch.until((events) => events.some(({ object }) => object.metadata?.name === "later"));
  });
});

test("one list right and 2,100 refused selectors drop nothing of kubelet's", async () => {
  await using world = await startNode();
  const { apiServer, kubelet } = world;
  apiServer.authorize = (user, { resource }) => user.name !== "person" || resource === "configmaps" || resource === "";
  const own = Array.from(
    { length: 20 },
    (_, i) => `/api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Ds-${i}`,
  );
  for (const path of own) expect((await kubelet.get(path)).status).toBe(200);
  const person = world.with("person");
  expect((await person.get(LIST)).status).toBe(200);
  await many(2_100, (i) => person.get(`/api/v1/secrets?resourceVersion=0&labelSelector=a%3D${i}`));
  await world.cut();
  for (const path of [...own, PODS]) expect((await kubelet.get(path)).status).toBe(200);
  expect((await person.get(LIST)).status).toBe(200);
}, 60_000);

describe("the cluster's keys", () => {
  const forged = (token: string) => {
    const [head = "", body = ""] = token.split(".");
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const signature = sign("sha256", Buffer.from(`${head}.${body}`), { key: privateKey, dsaEncoding: "ieee-p1363" });
    return `${head}.${body}.${signature.toString("base64url")}`;
  };

  test("are fetched for others though a forged pod's token came first", async () => {
    await using world = await startNode();
    expect((await world.with(forged(world.token("web-0"))).get(LIST)).status).toBe(401);
    expect(world.apiServer.count({ path: "/openid/v1/jwks" })).toBe(0);
    expect((await world.with(world.token("web-0")).get(LIST)).status).toBe(200);
    await world.cut();
    // A renewed token, never seen: only its account can have read this.
    expect((await world.with(world.token("web-0")).get(LIST)).status).toBe(200);
  });

  test("that one account may not read are asked for with the next one's token", async () => {
    await using world = await startNode();
    const other = world.apiServer.serviceAccountToken("shop", "other");
    world.apiServer.nextStatus({ code: 403, reason: "Forbidden" }, { path: "/openid/v1/jwks" });
    expect((await world.with(other).get(LIST)).status).toBe(200);
    expect((await world.with(world.token("web-0")).get(LIST)).status).toBe(200);
    await world.cut();
    expect((await world.with(world.token("web-0")).get(LIST)).status).toBe(200);
  });
});

describe("while cut", () => {
  const reads = (world: World, token: string) =>
    world
      .with(token)
      .get(`${LIST}?resourceVersion=0`)
      .then(({ status }) => status);

  test.each([
    ["a get", (client: Client) => client.get("/api/v1/namespaces/shop/secrets/s")],
    ["a list", (client: Client) => client.get("/api/v1/namespaces/shop/secrets")],
    [
      "a write",
      (client: Client) =>
        client.request("POST", LIST, {
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(configMap("b")),
        }),
    ],
    ["discovery", (client: Client) => client.get("/apis")],
  ])(
    "a token that the API server has just refused reads nothing, though its pod is listed: refused by %s",
    async (_, ask) => {
      await using world = await startNode();
      const token = world.token("web-0");
      expect(await reads(world, token)).toBe(200);
      world.apiServer.nextStatus(
        { code: 401 },
        ({ path }) => !path.startsWith("/version") && !path.includes("nodes"),
        3,
      );
      expect((await ask(world.with(token))).status).toBe(401);
      await world.cut();
      expect(await reads(world, token)).toBe(401);
      await world.edge.restart();
      expect(await reads(world, token)).toBe(401);
    },
  );

  test("an unbound token counts for its account, and no longer than it says", async () => {
    await using world = await startNode();
    const first = world.token(undefined, 2);
    expect(await reads(world, first)).toBe(200);
    const renewed = world.token(undefined, 3600);
    await world.cut();
    await world.edge.restart();
    expect(await reads(world, renewed)).toBe(200);
    await eventually(
      () => reads(world, first),
      (status) => status === 401,
    );
    expect(await reads(world, renewed)).toBe(200);
  });

  test("an unbound token of an account that never used one reads nothing", async () => {
    await using world = await startNode();
    expect(await reads(world, world.token("web-0"))).toBe(200);
    await world.cut();
    expect(await reads(world, world.token())).toBe(503);
  });

  test("ended tokens are served for listed pods, for named accounts, and for nobody else", async () => {
    const served = async (config: string) => {
      await using world = await startNode(config);
      const [listed, unbound] = [world.token("web-0", 2), world.token(undefined, 2)];
      const endsAtMs = Date.now() + 3_000;
      expect([await reads(world, listed), await reads(world, unbound)]).toEqual([200, 200]);
      await world.cut();
      // By their own word, of whole seconds.
      await eventually(() => Date.now() > endsAtMs);
      return [await reads(world, listed), await reads(world, unbound)];
    };
    expect(await served("")).toEqual([200, 401]);
    expect(await served("expiredTokensFor: [system:serviceaccount:shop:web]\n")).toEqual([200, 200]);
  });
});

test("a client's certificate must have the organisations of the credential configured for its name", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  const folder = mkdtempSync(join(tmpdir(), "holdfast-test-"));
  const pair = apiServer.cluster.clientCertificate("proxy", ["system:node-proxier"]);
  const kubeconfig = join(folder, "proxy.kubeconfig");
  writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "proxy", groups: ["system:node-proxier"], keyPair: pair }));
  await using edge = await startEdge({ apiServer, config: `clients: [{name: proxy, kubeconfig: ${kubeconfig}}]\n` });
  const as = (...groups: string[]) => edge.clientWith(apiServer.cluster.clientCertificate("proxy", groups)).get(LIST);
  expect((await as("system:node-proxier")).status).toBe(200);
  for (const groups of [[], ["system:masters"], ["system:node-proxier", "system:masters"]])
    expect((await as(...groups)).status).toBe(403);
});
