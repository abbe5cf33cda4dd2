/**
 * Pods' tokens are renewed all day: whoever shows one is its service account,
 * online and offline, and nobody else is.
 */
import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, sign } from "node:crypto";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually, type Client } from "../support/client.ts";
import { linkOf, startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
const SERVICES = "/api/v1/services";
const REVIEWS = { path: "/apis/authentication.k8s.io/v1/selfsubjectreviews" };

const pod = (name: string, nodeName = NODE) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, namespace: "kube-system" },
  spec: { nodeName, serviceAccountName: "kube-proxy", containers: [{ name: "app", image: "app" }] },
  status: { phase: "Running" },
});
const service = (name: string) => ({
  kind: "Service",
  apiVersion: "v1",
  metadata: { name, namespace: "shop" },
  spec: { clusterIP: "10.96.0.10", ports: [{ port: 80 }] },
});

interface World extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  /** A new token for a pod of the service account, as kubelet would get it. */
  token(name: string, audiences?: readonly string[]): string;
  cut(): Promise<void>;
  heal(): Promise<void>;
}

async function startNode(): Promise<World> {
  const apiServer = await startApiServer({
    objects: [
      { kind: "Namespace", apiVersion: "v1", metadata: { name: "kube-system" } },
      { kind: "Node", apiVersion: "v1", metadata: { name: NODE } },
      pod("kube-proxy-a"),
      pod("kube-proxy-b"),
      pod("kube-proxy-elsewhere", "edge2"),
      service("web"),
    ] as never,
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig });
  const kubelet = edge.clientWith(keyPair);
  Object.assign(edge, { client: kubelet });
  expect((await kubelet.get(PODS)).status).toBe(200);
  return {
    apiServer,
    edge,
    token(name, audiences) {
      const { uid = "" } = (apiServer.object("Pod", "kube-system", name)?.["metadata"] ?? {}) as { uid?: string };
      return apiServer.serviceAccountToken("kube-system", "kube-proxy", 3600, {
        pod: { name, uid },
        ...(audiences === undefined ? {} : { audiences }),
      });
    },
    ...linkOf(apiServer, kubelet),
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** Lists and follows, as an informer does. @returns where it stands. */
async function follow(client: Client): Promise<{ readonly version: string; readonly names: string[] }> {
  const list = (await client.get(`${SERVICES}?resourceVersion=0`)).json();
  return {
    version: list.metadata.resourceVersion,
    names: list.items.map((item: any) => item.metadata.name),
  };
}

describe("a renewed token of a pod", () => {
  test("costs one question and no list, and the watch goes on where it stood", async () => {
    await using world = await startNode();
    const { apiServer, edge } = world;
    const { version } = await follow(edge.clientWith({ token: world.token("kube-proxy-a") }));
    // The copy's own list, if it needs one, is over when its watch is open.
    await eventually(() => apiServer.count({ verb: "watch", resource: "services" }) > 0);
    const since = apiServer.requests.length;

    const renewed = edge.clientWith({ token: world.token("kube-proxy-a") });
    const watch = await renewed.watch(`${SERVICES}?watch=true&resourceVersion=${version}`);
    apiServer.put(service("late") as never);
    await watch.until((events) => events.length > 0);
    await renewed.get(`${SERVICES}?resourceVersion=0`);

    expect(watch.events.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual(["ADDED late"]);
    expect(apiServer.count({ verb: "list", resource: "services" }, since)).toBe(0);
    expect(apiServer.count(REVIEWS, since)).toBe(1);
    watch.close();
  });

  test("reads after a restart while cut what its predecessor read, though it never spoke before", async () => {
    await using world = await startNode();
    const { edge } = world;
    await follow(edge.clientWith({ token: world.token("kube-proxy-a") }));
    const unseen = world.token("kube-proxy-a");

    await world.cut();
    await edge.restart();

    expect((await follow(edge.clientWith({ token: unseen }))).names).toEqual(["web"]);
    // Another pod of the node with the same service account is the same user.
    expect((await follow(edge.clientWith({ token: world.token("kube-proxy-b") }))).names).toEqual(["web"]);
  });
});

describe("offline nobody reads with", () => {
  const KEYS = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const cases: readonly (readonly [string, (world: World) => string])[] = [
    ["a token of a pod that is not on this node", (world) => world.token("kube-proxy-elsewhere")],
    ["a token for another audience", (world) => world.token("kube-proxy-a", ["vault"])],
    ["a token without a pod", ({ apiServer }) => apiServer.serviceAccountToken("kube-system", "kube-proxy")],
    [
      "a token signed with another key under the cluster's key id",
      (world) => {
        const [head = "", body = ""] = world.token("kube-proxy-a").split(".");
        const signature = sign("sha256", Buffer.from(`${head}.${body}`), {
          key: KEYS.privateKey,
          dsaEncoding: "ieee-p1363",
        });
        return `${head}.${body}.${signature.toString("base64url")}`;
      },
    ],
    [
      "a token without a signature",
      (world) => `${encoded({ alg: "none" })}.${world.token("kube-proxy-a").split(".")[1]}.`,
    ],
    [
      "a token whose claims were changed",
      (world) => {
        const [head, body = "", signature] = world.token("kube-proxy-elsewhere").split(".");
        const claims = JSON.parse(Buffer.from(body, "base64url").toString());
        const mine = JSON.parse(Buffer.from(world.token("kube-proxy-a").split(".")[1]!, "base64url").toString());
        claims["kubernetes.io"].pod = mine["kubernetes.io"].pod;
        return `${head}.${encoded(claims)}.${signature}`;
      },
    ],
  ];
  test.each(cases)("%s", async (_, tokenOf) => {
    await using world = await startNode();
    const first = world.edge.clientWith({ token: world.token("kube-proxy-a") });
    await follow(first);
    const token = tokenOf(world);
    await world.cut();

    const reply = await world.edge.clientWith({ token }).get(`${SERVICES}?resourceVersion=0`);

    expect(reply.status).toBe(503);
    expect((await follow(first)).names).toEqual(["web"]);
  });
});

describe("a token dies with its pod", () => {
  test("online at once, and what the others of its service account read stays", async () => {
    await using world = await startNode();
    const { apiServer, edge } = world;
    const a = edge.clientWith({ token: world.token("kube-proxy-a") });
    const b = edge.clientWith({ token: world.token("kube-proxy-b") });
    await follow(b);
    await follow(a);
    apiServer.remove("Pod", "kube-system", "kube-proxy-a");

    expect((await a.get(SERVICES)).status).toBe(401);
    expect((await a.get(`${SERVICES}?resourceVersion=0`)).status).toBe(401);
    const since = apiServer.requests.length;
    expect((await follow(b)).names).toEqual(["web"]);
    expect(apiServer.count({ verb: "list", resource: "services" }, since)).toBe(0);
    // The watch that a's token opened is opened anew with b's.
    apiServer.endWatches();
    apiServer.put(service("late") as never);
    await eventually(
      () => follow(b),
      ({ names }) => names.includes("late"),
    );

    await world.cut();
    expect((await a.get(SERVICES)).status).toBe(401);
    expect((await follow(b)).names).toEqual(["late", "web"]);
  });

  test("also when the pod went just before the cut, and its token did not come in between", async () => {
    await using world = await startNode();
    const { apiServer, edge } = world;
    const a = edge.clientWith({ token: world.token("kube-proxy-a") });
    const b = edge.clientWith({ token: world.token("kube-proxy-b") });
    await follow(a);
    await follow(b);
    const pods = await edge.client.watch(`${PODS}&watch=true&resourceVersion=0`);
    apiServer.remove("Pod", "kube-system", "kube-proxy-a");
    await pods.until((events) => events.some(({ type }) => type === "DELETED"));
    await world.cut();

    expect((await a.get(`${SERVICES}?resourceVersion=0`)).status).toBe(503);
    expect((await follow(b)).names).toEqual(["web"]);
    pods.close();
  });

  test("and when the last of a service account is refused, nothing of it is kept", async () => {
    await using world = await startNode();
    const { apiServer, edge } = world;
    const a = edge.clientWith({ token: world.token("kube-proxy-a") });
    await follow(a);
    apiServer.remove("Pod", "kube-system", "kube-proxy-a");
    expect((await a.get(SERVICES)).status).toBe(401);

    await world.cut();

    expect(
      (await edge.clientWith({ token: world.token("kube-proxy-b") }).get(`${SERVICES}?resourceVersion=0`)).status,
    ).toBe(503);
  });
});

describe("where service accounts cannot be told", () => {
  test.each([
    ["the keys are not readable", { path: "/openid/v1/jwks" }, 403],
    ["the question is unknown", REVIEWS, 404],
  ] as const)("each token is on its own: %s", async (_, match, code) => {
    await using world = await startNode();
    world.apiServer.nextStatus({ code, reason: "Forbidden", message: "no" }, match, 100);
    const token = world.token("kube-proxy-a");
    const client = world.edge.clientWith({ token });
    expect((await follow(client)).names).toEqual(["web"]);
    await world.cut();

    expect((await follow(client)).names).toEqual(["web"]);
    expect((await world.edge.clientWith({ token: world.token("kube-proxy-a") }).get(SERVICES)).status).toBe(503);
  });
});
