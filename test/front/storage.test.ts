/**
 * etcd frozen behind a living API server: what a cut may answer is answered,
 * soon; what it may not goes on waiting for the API server's own word.
 */
import { expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
const POD = "/api/v1/namespaces/shop/pods/web-0";
const TOKEN = "/api/v1/namespaces/shop/serviceaccounts/shopkeeper/token";
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const JSON_BODY = { "Content-Type": "application/json" };
const pod = {
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name: "web-0", namespace: "shop" },
  spec: { nodeName: NODE, serviceAccountName: "shopkeeper", containers: [{ name: "app", image: "app" }] },
};

async function startNode() {
  const apiServer = await startApiServer({
    objects: [
      { kind: "ServiceAccount", apiVersion: "v1", metadata: { name: "shopkeeper", namespace: "shop" } },
      { kind: "Node", apiVersion: "v1", metadata: { name: NODE } },
      pod,
    ],
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig });
  const client = edge.clientWith(keyPair);
  for (const path of [PODS, `/api/v1/nodes?fieldSelector=metadata.name%3D${NODE}`, POD])
    expect((await client.get(path)).status).toBe(200);
  return {
    apiServer,
    edge,
    client,
    post: (path: string, body: object) =>
      client.request("POST", path, { headers: JSON_BODY, body: JSON.stringify(body) }),
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

const metrics = async ({ healthUrl }: Edge) => (await fetch(`${healthUrl}/metrics`)).text();
const hasCondition = async (edge: Edge) => (await metrics(edge)).includes('holdfast_condition{type="StorageFrozen"} 1');

async function timed<T>(what: Promise<T>): Promise<[T, number]> {
  const startedMs = performance.now();
  return [await what, performance.now() - startedMs];
}

test("kubelet's token, lease and reads are answered in two seconds, then at once, while the link stands", async () => {
  await using world = await startNode();
  const { apiServer, client, edge, post } = world;
  const { uid } = (await client.get(POD)).json().metadata;
  const request = {
    kind: "TokenRequest",
    apiVersion: "authentication.k8s.io/v1",
    spec: { audiences: ["shop"], expirationSeconds: 3600, boundObjectRef: { kind: "Pod", name: "web-0", uid } },
  };
  const had = await post(TOKEN, request);
  expect(had.status).toBe(201);
  const lease = { kind: "Lease", apiVersion: "coordination.k8s.io/v1", metadata: { name: NODE }, spec: {} };
  const made = (await post(LEASES, lease)).json();

  apiServer.freezeStorage();
  const [token, tookMs] = await timed(post(TOKEN, request));
  expect([token.status, token.json().status.token]).toEqual([201, had.json().status.token]);
  expect(tookMs).toBeLessThan(2_500);
  await eventually(() => hasCondition(edge));
  const renewal = client.request("PUT", `${LEASES}/${NODE}`, { headers: JSON_BODY, body: JSON.stringify(made) });
  for (const [reply, ms] of [await timed(renewal), await timed(post(TOKEN, request)), await timed(client.get(POD))]) {
    expect(reply.status).toBeLessThan(300);
    expect(ms).toBeLessThan(800);
  }
  expect(await metrics(edge)).toContain("holdfast_upstream_up 1");
  // What the API server can say it goes on saying.
  expect((await client.get("/version")).json().major).toBe("1");

  await apiServer.heal();
  await eventually(async () => !(await hasCondition(edge)));
  const renewed = await post(TOKEN, request);
  expect(renewed.json().status.token).not.toBe(had.json().status.token);
});

test("kubelet's status, event and registration are answered as in a cut, and all of it ends when storage is back", async () => {
  await using world = await startNode();
  const { apiServer, client, edge, post } = world;
  const event = { kind: "Event", apiVersion: "v1", metadata: { name: "pulled", namespace: "shop" }, reason: "Pulled" };
  const patch = (message: string) =>
    client.request("PATCH", `${POD}/status`, {
      headers: { "Content-Type": "application/strategic-merge-patch+json" },
      body: JSON.stringify({ status: { message } }),
    });
  apiServer.freezeStorage();
  const [first, tookMs] = await timed(patch("first"));
  expect([first.status, first.json().status.message]).toEqual([200, "first"]);
  // What leaves a mark waits for the verdict: a copy's patience, and three seconds for the API server to say it.
  expect(tookMs).toBeLessThan(6_000);
  await eventually(() => hasCondition(edge));
  const register = post("/api/v1/nodes", { kind: "Node", apiVersion: "v1", metadata: { name: NODE } });
  const asked = [timed(patch("second")), timed(post("/api/v1/namespaces/shop/events", event)), timed(register)];
  for (const [at, [reply, ms]] of (await Promise.all(asked)).entries()) {
    expect([at, reply.status]).toEqual([at, [200, 201, 409][at]!]);
    expect(ms).toBeLessThan(800);
  }
  expect((await client.get(POD)).json().status.message).toBe("second");

  await apiServer.heal();
  await eventually(() => apiServer.object("Event", "shop", "pulled"));
  await eventually(
    async () => Number((await client.get(`${PODS}&resourceVersion=0`)).json().metadata.resourceVersion) < 5e15,
  );
  const last = await patch("third");
  expect(Number(last.json().metadata.resourceVersion)).toBeLessThan(5e15);
  expect((apiServer.object("Pod", "shop", "web-0") as any).status.message).toBe("third");
});

test("what no copy can answer waits for the API server's own word", async () => {
  await using world = await startNode();
  const { apiServer, client, edge } = world;
  apiServer.freezeStorage();
  const unseen = client.get("/api/v1/namespaces/shop/configmaps/a");
  expect((await client.get(POD)).status).toBe(200);
  await eventually(() => hasCondition(edge));
  await apiServer.heal();
  expect((await unseen).status).toBe(404);
});

test("kubelet's write that nothing here answers is refused at once and not sent up; another's waits", async () => {
  await using world = await startNode();
  const { apiServer, client, edge, post } = world;
  apiServer.addToken("person", { name: "person", groups: [] });
  const person = edge.clientWith({ token: "person" });
  expect((await person.get(POD)).status).toBe(200);
  apiServer.freezeStorage();
  expect((await client.get(POD)).status).toBe(200);
  await eventually(() => hasCondition(edge));
  const mirror = { ...pod, metadata: { name: "static", namespace: "shop" } };
  const [refused, tookMs] = await timed(post("/api/v1/namespaces/shop/pods", mirror));
  expect([refused.status, refused.json().message]).toEqual([
    503,
    'Cannot create pods in namespace "shop": the API server\'s storage does not answer, and nothing is queued; try again when it does',
  ]);
  expect(tookMs).toBeLessThan(2_000);
  const body = JSON.stringify({ kind: "ConfigMap", apiVersion: "v1", metadata: { name: "late", namespace: "shop" } });
  const waiting = person.request("POST", "/api/v1/namespaces/shop/configmaps", { headers: JSON_BODY, body });
  await apiServer.heal();
  expect((await waiting).status).toBe(201);
  expect(apiServer.object("Pod", "shop", "static")).toBeUndefined();
  await eventually(async () => !(await hasCondition(edge)));
  expect((await post("/api/v1/namespaces/shop/pods", mirror)).status).toBe(201);
});

test("kubelet's write that had gone up when storage fell silent is refused once that is known", async () => {
  await using world = await startNode();
  const { apiServer, edge, post } = world;
  apiServer.freezeStorage();
  const mirror = { ...pod, metadata: { name: "static", namespace: "shop" } };
  const refused = await post("/api/v1/namespaces/shop/pods", mirror);
  expect([refused.status, refused.json().message]).toEqual([
    503,
    expect.stringContaining("storage does not answer, and nothing is queued; whether it was carried out is not known"),
  ]);
  expect(await hasCondition(edge)).toBe(true);
});

test("5xx from storage: a kept token answers", async () => {
  await using world = await startNode();
  const { apiServer, client, post } = world;
  const { uid } = (await client.get(POD)).json().metadata;
  const spec = { audiences: ["shop"], boundObjectRef: { kind: "Pod", name: "web-0", uid } };
  const request = { kind: "TokenRequest", apiVersion: "authentication.k8s.io/v1", spec };
  const had = await post(TOKEN, request);
  apiServer.nextStatus({ code: 500, message: "etcdserver: request timed out" }, { subresource: "token" });
  const again = await post(TOKEN, request);
  expect([again.status, again.json().status.token]).toEqual([201, had.json().status.token]);
});

test("a slow answer with a copy at hand renews no connection and loses no link", async () => {
  await using world = await startNode();
  const { apiServer, client, edge } = world;
  const others = () =>
    Promise.all([..."abcdefgh"].map((name) => client.get(`/api/v1/namespaces/shop/secrets/${name}`)));
  // The first verdict after start renews them once.
  await eventually(async () => (await metrics(edge)).includes("holdfast_upstream_up 1"));
  // All at once, so that as many connections are kept, however busy the machine is.
  apiServer.slow(300, { resource: "secrets" });
  await others();
  apiServer.slow(0, { resource: "secrets" });
  const kept = apiServer.link.connections;
  expect(kept).toBeGreaterThanOrEqual(8);
  apiServer.slow(2_600, { verb: "get", resource: "pods" });
  const [slow, tookMs] = await timed(client.get(POD));
  expect(slow.status).toBe(200);
  expect(tookMs).toBeLessThan(2_500);
  const isLookedAt = ({ path, status }: { path: string; status: number }) => path === "/livez" && status === 200;
  await eventually(() => apiServer.requests.some(isLookedAt));
  // The one that was given up may be gone; the others were left standing.
  expect(apiServer.link.connections).toBeGreaterThanOrEqual(kept - 1);
  expect(await hasCondition(edge)).toBe(false);
  expect(await metrics(edge)).toContain("holdfast_upstream_up 1");
});
