import { describe, expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { linkOf, startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const SLICES = "/apis/discovery.k8s.io/v1/endpointslices";
const POD = "/api/v1/namespaces/shop/pods/web-0";
const LEASE = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${NODE}`;
const STRATEGIC = { "Content-Type": "application/strategic-merge-patch+json" };
const JSON_BODY = { "Content-Type": "application/json" };

const pod = (name: string, nodeName = NODE) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, namespace: "shop", labels: { app: "web" } },
  spec: { nodeName, serviceAccountName: "shopkeeper", containers: [{ name: "app", image: "app" }] },
  status: {
    phase: "Running",
    podIP: "10.244.1.5",
    podIPs: [{ ip: "10.244.1.5" }],
    conditions: [{ type: "Ready", status: "True" }],
  },
});
const node = (name: string) => ({
  kind: "Node",
  apiVersion: "v1",
  metadata: { name },
  status: { conditions: [{ type: "Ready", status: "True", reason: "KubeletReady" }] },
});
const namespace = (name: string) => ({ kind: "Namespace", apiVersion: "v1", metadata: { name } });
const account = { kind: "ServiceAccount", apiVersion: "v1", metadata: { name: "shopkeeper", namespace: "shop" } };

interface World extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  cut(): Promise<void>;
  heal(): Promise<void>;
}

/** A node that has read what kubelet reads. */
async function startNode(
  extra: readonly object[] = [],
  options: Partial<Parameters<typeof startApiServer>[0]> & {
    readonly before?: (edge: Edge, apiServer: ApiServer) => Promise<void>;
  } = {},
): Promise<World> {
  const apiServer = await startApiServer({
    ...options,
    objects: [
      namespace("shop"),
      namespace("kube-node-lease"),
      account,
      node(NODE),
      pod("web-0"),
      pod("job-0"),
      ...extra,
    ] as never,
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig });
  const client = edge.clientWith(keyPair);
  Object.assign(edge, { client });
  await options.before?.(edge, apiServer);
  for (const path of [PODS, `/api/v1/nodes?fieldSelector=metadata.name%3D${NODE}`, SLICES]) {
    expect((await edge.client.get(path)).status).toBe(200);
  }
  return {
    apiServer,
    edge,
    ...linkOf(apiServer, edge.client),
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** A number as it is spelled. */
const digits = (text: string) => (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(text);
const status = (changes: object) => ({ headers: STRATEGIC, body: JSON.stringify({ status: changes }) });
const names = (events: readonly { readonly type: string; readonly object: any }[]) =>
  events.map(({ type, object }) => `${type} ${object.metadata?.name ?? object.code}`);

describe("a status written while cut", () => {
  test("is read by who has kept the pod as protobuf too, newer than the JSON copy and heard last", async () => {
    await using world = await startNode();
    const { apiServer, edge } = world;
    const both = { Accept: "application/vnd.kubernetes.protobuf,application/json" };
    const alone = { Accept: "application/vnd.kubernetes.protobuf" };
    const wider = "/api/v1/namespaces/shop/pods";
    await edge.client.get(wider, alone);
    apiServer.put({ ...pod("web-0"), metadata: { name: "web-0", namespace: "shop", labels: { app: "web", x: "2" } } });
    await edge.client.get(wider, alone);
    await world.cut();
    const written = await edge.client.request("PATCH", `${POD}/status`, status({ message: "one" }));
    expect(written.status).toBe(200);
    expect((await edge.client.get(POD, both)).json()).toEqual(written.json());
    const listed = (await edge.client.get(wider.concat(`?fieldSelector=spec.nodeName%3D${NODE}`), both)).json();
    expect(listed.items.find((item: any) => item.metadata.name === "web-0").status.message).toBe("one");
  });

  test("is answered and shows in reads, lists and open watches, with growing decimal resourceVersions", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const watch = await client.watch(`${PODS}&${STREAM}`);
    await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
    const before = (await client.get(POD)).json();
    const seen = watch.events.at(-1)!.object.metadata.resourceVersion;

    await world.cut();
    const first = await client.request("PATCH", `${POD}/status`, status({ message: "one" }));
    const second = await client.request(
      "PATCH",
      `${POD}/status`,
      status({ conditions: [{ type: "Ready", status: "False" }] }),
    );

    expect([first.status, second.status]).toEqual([200, 200]);
    const versions = [before, first.json(), second.json()].map(({ metadata }) => metadata.resourceVersion);
    for (const version of versions) expect(version).toMatch(/^[1-9][0-9]*$/);
    expect(Number(versions[1])).toBeGreaterThan(Number(versions[0]));
    expect(Number(versions[2])).toBeGreaterThan(Number(versions[1]));
    expect(second.json()).toMatchObject({ kind: "Pod", apiVersion: "v1", spec: before.spec });
    expect(second.json().status).toMatchObject({
      message: "one",
      phase: "Running",
      conditions: [{ type: "Ready", status: "False" }],
    });
    expect((await client.get(POD)).json()).toEqual(second.json());
    const list = (await client.get(PODS)).json();
    expect(list.metadata.resourceVersion).toBe(versions[2]);
    expect(list.items.find((item: any) => item.metadata.name === "web-0").status).toEqual(second.json().status);
    await watch.until((events) => events.filter(({ type }) => type === "MODIFIED").length === 2);
    expect(watch.events.at(-1)!.object).toEqual(second.json());
    const late = await client.watch(`${PODS}&watch=true&resourceVersion=${seen}`);
    await late.until((events) => events.some(({ object }) => object.metadata?.resourceVersion === versions[2]));
    late.close();
    watch.close();
  });

  test("is what a client reads that has an older copy in protobuf beside its own in JSON", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const both = { Accept: "application/vnd.kubernetes.protobuf,application/json" };
    const alone = { Accept: "application/vnd.kubernetes.protobuf" };
    expect((await client.get(PODS, alone)).headers["content-type"]).toBe(alone.Accept);
    expect((await client.get(POD, alone)).headers["content-type"]).toBe(alone.Accept);
    await world.cut();
    const written = await client.request("PATCH", `${POD}/status`, status({ message: "said while cut" }));
    for (const path of [POD, PODS]) {
      const reply = await client.get(path, both);
      expect([path, reply.headers["content-type"]]).toEqual([path, "application/json"]);
      expect(reply.body.toString()).toContain(written.json().metadata.resourceVersion);
      expect(reply.body.toString()).toContain("said while cut");
    }
  });

  test("changes no byte of the object around it, and no digit of a large number within", async () => {
    const exact = pod("exact-0");
    Object.assign(exact.spec, { terminationGracePeriodSeconds: digits("9007199254740993"), tomorrow: digits("1.0") });
    Object.assign(exact.status, { observedGeneration: digits("9007199254740995") });
    await using world = await startNode([exact]);
    const { client } = world.edge;
    const path = "/api/v1/namespaces/shop/pods/exact-0";
    const before = (await client.get(path)).body.toString();
    expect(before).toContain('"tomorrow":1.0');

    await world.cut();
    const body = '{"status":{"message":"<one>","startedAt":9007199254740997}}';
    const written = await client.request("PATCH", `${path}/status`, { headers: STRATEGIC, body });
    const { resourceVersion } = written.json().metadata;
    const expected = before
      .replace(/"resourceVersion":"[0-9]+"/, `"resourceVersion":"${resourceVersion}"`)
      .replace(/\}\}\n$/, ',"message":"\\u003cone\\u003e","startedAt":9007199254740997}}\n');
    expect(written.body.toString()).toBe(expected);

    await world.edge.restart();
    await world.cut();
    expect((await client.get(path)).body.toString().replace(/50000000[0-9]+/, resourceVersion)).toBe(expected);
  });

  test("is kept over a restart; at the return the cloud's truth comes down, and then 410", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    await world.cut();
    await client.request("PATCH", `${POD}/status`, status({ message: "one" }));
    await client.request("PATCH", "/api/v1/namespaces/shop/pods/job-0/status", status({ phase: "Succeeded" }));
    await world.edge.restart();
    await world.cut();

    const restarted = (await client.get(PODS)).json();
    expect(restarted.items.map((item: any) => item.status.phase)).toEqual(["Succeeded", "Running"]);
    const watch = await client.watch(`${PODS}&watch=true&resourceVersion=${restarted.metadata.resourceVersion}`);
    const changed = pod("web-0");
    world.apiServer.put({ ...changed, metadata: { ...changed.metadata, labels: { app: "cloud" } } } as never);
    await world.apiServer.heal();

    await watch.until((events) => events.some(({ type }) => type === "ERROR"));
    expect(watch.events.at(-1)).toMatchObject({ type: "ERROR", object: { code: 410, reason: "Expired" } });
    expect(names(watch.events)).toContain("MODIFIED web-0");
    expect(names(watch.events)).toContain("MODIFIED job-0");
    const truth = await eventually(
      async () => (await client.get(`${PODS}&resourceVersion=0`)).json(),
      ({ items }) => items.every((item: any) => item.status.phase === "Running"),
    );
    expect(truth.items.find((item: any) => item.metadata.name === "web-0").metadata.labels).toEqual({ app: "cloud" });
    const stale = await client.watch(`${PODS}&watch=true&resourceVersion=${restarted.metadata.resourceVersion}`);
    await stale.until((events) => events.length > 0);
    expect(stale.events[0]).toMatchObject({ type: "ERROR", object: { code: 410, reason: "Expired" } });
  });

  test.each([{ restarts: false }, { restarts: true }])(
    "seen before a return vouches for nothing in the next cut: 410; Holdfast restarted: $restarts",
    async ({ restarts }) => {
      await using world = await startNode();
      const { client } = world.edge;
      await world.cut();
      await client.request("PATCH", `${POD}/status`, status({ message: "one" }));
      const edited = (await client.get(PODS)).json().metadata.resourceVersion;
      await world.heal();
      await eventually(
        async () => (await client.get(`${PODS}&resourceVersion=0`)).json(),
        ({ metadata }) => Number(metadata.resourceVersion) < 5e15,
      );
      // Who is away now never hears of it.
      world.apiServer.remove("Pod", "shop", "job-0");
      await eventually(
        async () => (await client.get(`${PODS}&resourceVersion=0`)).json(),
        ({ items }) => items.length === 1,
      );
      await world.cut();
      if (restarts) {
        await world.edge.restart();
        await world.cut();
      }
      await client.request("PATCH", `${POD}/status`, status({ message: "two" }));
      const back = await client.watch(`${PODS}&watch=true&resourceVersion=${edited}`);
      await back.until((events) => events.length > 0);
      expect(back.events[0]).toMatchObject({ type: "ERROR", object: { code: 410 } });
      back.close();
      // What is edited in this cut vouches over a restart.
      const now = (await client.get(PODS)).json().metadata.resourceVersion;
      const held = await client.watch(`${PODS}&watch=true&resourceVersion=${now}`);
      expect(held.status).toBe(200);
      held.close();
    },
  );

  test("of a finished pod is remembered through a second cut, until the cloud knows", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const watch = await client.watch(`${PODS}&${STREAM}`);
    await world.cut();
    await client.request("PATCH", "/api/v1/namespaces/shop/pods/job-0/status", status({ phase: "Succeeded" }));
    await world.heal();
    await eventually(
      async () => (await client.get(`${PODS}&resourceVersion=0`)).json(),
      ({ items }) => items[0].status.phase === "Running",
    );
    await world.cut();
    const phase = async () => (await client.get("/api/v1/namespaces/shop/pods/job-0")).json().status.phase;
    expect(await phase()).toBe("Succeeded");
    await world.edge.restart();
    await world.cut();
    expect(await phase()).toBe("Succeeded");
    watch.close();
  });

  test("of a finished pod is remembered as long as kubelet's own copy does not know, whatever another's says", async () => {
    const job = "/api/v1/namespaces/shop/pods/job-0";
    let token = "";
    const list = async (edge: Edge) =>
      expect((await edge.clientWith({ token }).get("/api/v1/namespaces/shop/pods")).status).toBe(200);
    // The other's copy is the first one.
    await using world = await startNode([], {
      before: (edge, apiServer) => {
        token = apiServer.serviceAccountToken("shop", "shopkeeper");
        return list(edge);
      },
    });
    const { client } = world.edge;
    await world.cut();
    await client.request("PATCH", `${job}/status`, status({ phase: "Succeeded" }));
    await world.heal();
    await eventually(
      async () => (await client.get(`${PODS}&resourceVersion=0`)).json().items[0].status.phase === "Running",
    );
    await world.edge.restart();
    // Kubelet has not come back when the cloud gets to know, and another reads it.
    world.apiServer.put({ ...pod("job-0"), status: { ...pod("job-0").status, phase: "Succeeded" } } as never);
    await eventually(
      () => world.edge.clientWith({ token }).get("/healthz"),
      ({ status: code }) => code === 200,
    );
    await list(world.edge);
    await world.cut();
    expect((await client.get(job)).json().status.phase).toBe("Succeeded");
  });

  test("of a pod that the cloud knows to be finished is kept over two restarts in one cut", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const job = "/api/v1/namespaces/shop/pods/job-0";
    const watch = await client.watch(`${PODS}&${STREAM}`);
    world.apiServer.put({ ...pod("job-0"), status: { ...pod("job-0").status, phase: "Succeeded" } } as never);
    await watch.until((events) => events.some(({ object }) => object.status?.phase === "Succeeded"));
    watch.close();
    await world.cut();
    await client.request("PATCH", `${job}/status`, status({ message: "said while cut" }));
    for (const _restart of ["first", "second"]) {
      await world.edge.restart();
      await world.cut();
      expect((await client.get(job)).json().status).toMatchObject({ phase: "Succeeded", message: "said while cut" });
    }
  });

  test("that the type could not hold is 422, and changes nothing", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    await world.cut();
    const before = (await client.get(POD)).json();
    for (const [path, changes] of [
      [POD, { status: { podIPs: { a: 1 } } }],
      [POD, { status: { podIPs: [null] } }],
      [POD, { status: { conditions: 7 } }],
      [POD, { status: ["x"] }],
      [POD, { metadata: "x" }],
      [POD, { metadata: { labels: { a: 1 } } }],
      [POD, { metadata: { finalizers: "x" } }],
      [`/api/v1/nodes/${NODE}`, { status: { conditions: "x" } }],
    ] as const) {
      const headers = { "Content-Type": "application/merge-patch+json" };
      const reply = await client.request("PATCH", `${path}/status`, { headers, body: JSON.stringify(changes) });
      expect([JSON.stringify(changes), reply.status]).toEqual([JSON.stringify(changes), 422]);
    }
    expect((await client.get(POD)).json()).toEqual(before);
  });

  test("is refused for another UID, another node, another caller, and a body that is no patch", async () => {
    await using world = await startNode([node("edge2")]);
    const { client } = world.edge;
    const token = world.apiServer.serviceAccountToken("shop", "shopkeeper");
    await world.cut();
    const other = await client.request("PATCH", `${POD}/status`, {
      headers: STRATEGIC,
      body: '{"metadata":{"uid":"someone-else"},"status":{"phase":"Failed"}}',
    });
    const foreign = await client.request("PATCH", "/api/v1/nodes/edge2/status", status({ phase: "x" }));
    const stranger = await world.edge
      .clientWith({ token })
      .request("PATCH", `${POD}/status`, status({ phase: "Failed" }));
    const garbage = await client.request("PATCH", `${POD}/status`, { headers: STRATEGIC, body: "nonsense" });
    const unseen = await client.request(
      "PATCH",
      "/api/v1/namespaces/shop/pods/none/status",
      status({ phase: "Failed" }),
    );

    expect(other.json()).toMatchObject({ code: 409, reason: "Conflict" });
    expect([foreign.status, stranger.status, garbage.status, unseen.status]).toEqual([503, 503, 400, 503]);
    expect((await client.get(POD)).json().status.phase).toBe("Running");
  });
});

describe("a node that the cloud deleted while the link was cut", () => {
  const uidOf = (world: World) =>
    (world.apiServer.object("Node", "", NODE)?.["metadata"] as { uid: string } | undefined)?.uid;
  const register = async (world: World) => {
    const body = JSON.stringify({ ...node(NODE), metadata: { name: NODE, labels: { from: "kubelet" } } });
    const post = await world.edge.client.request("POST", "/api/v1/nodes", { headers: JSON_BODY, body });
    expect(post.status).toBe(409);
  };

  test.each([{ restarts: false }, { restarts: true }])(
    "is registered anew with what kubelet sent meanwhile; Holdfast restarted: $restarts",
    async ({ restarts }) => {
      await using world = await startNode();
      const before = uidOf(world);
      await world.cut();
      await register(world);
      world.apiServer.remove("Node", "", NODE);
      if (restarts) await world.edge.restart();
      await world.heal();
      const uid = await eventually(
        () => uidOf(world),
        (now) => now !== undefined,
      );
      expect(uid).not.toBe(before);
      expect(world.apiServer.object("Node", "", NODE)).toMatchObject({ metadata: { labels: { from: "kubelet" } } });
      expect(
        world.apiServer.requests.filter(({ method, target }) => method === "POST" && target === "/api/v1/nodes"),
      ).toHaveLength(1);
    },
  );

  test("is left alone when kubelet did not ask, and when it is still there", async () => {
    await using world = await startNode();
    await world.cut();
    await register(world);
    await world.heal();
    // Writes go up once the node has been asked for.
    const lease = {
      kind: "Lease",
      apiVersion: "coordination.k8s.io/v1",
      metadata: { name: NODE, namespace: "kube-node-lease" },
    };
    const created = await world.edge.client.request("POST", LEASE.slice(0, -NODE.length - 1), {
      headers: JSON_BODY,
      body: JSON.stringify(lease),
    });
    expect(created.status).toBe(201);
    await world.cut();
    world.apiServer.remove("Node", "", NODE);
    await world.heal();
    const put = await world.edge.client.request("PUT", LEASE, {
      headers: JSON_BODY,
      body: JSON.stringify(created.json()),
    });
    expect(put.status).toBe(200);
    expect(uidOf(world)).toBeUndefined();
  });
});

describe("kubelet's other writes while cut", () => {
  test("its lease is echoed, its node exists, CSINode and deletions are 503", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const lease = {
      kind: "Lease",
      apiVersion: "coordination.k8s.io/v1",
      metadata: { name: NODE, namespace: "kube-node-lease" },
      spec: { holderIdentity: NODE, renewTime: "2026-01-01T00:00:00.000000Z" },
    };
    const created = await client.request("POST", LEASE.slice(0, -NODE.length - 1), {
      headers: JSON_BODY,
      body: JSON.stringify(lease),
    });
    expect(created.status).toBe(201);

    await world.cut();
    const renewed = { ...created.json(), spec: { ...lease.spec, renewTime: "2026-01-02T00:00:00.000000Z" } };
    const put = await client.request("PUT", LEASE, { headers: JSON_BODY, body: JSON.stringify(renewed) });

    expect(put.status).toBe(200);
    expect(put.json()).toEqual(renewed);
    expect((await client.get(LEASE)).json()).toEqual(renewed);
    await world.edge.restart();
    await world.cut();
    expect((await client.get(LEASE)).json()).toEqual(created.json());
    const post = await client.request("POST", "/api/v1/nodes", {
      headers: JSON_BODY,
      body: JSON.stringify(node(NODE)),
    });
    expect(post.json()).toMatchObject({ code: 409, reason: "AlreadyExists" });
    expect((await client.get(`/apis/storage.k8s.io/v1/csinodes/${NODE}`)).status).toBe(503);
    expect((await client.request("DELETE", POD)).status).toBe(503);
  });

  test("a controller's Lease is nobody's while cut: a second leader must not be", async () => {
    const leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";
    const lease = {
      kind: "Lease",
      apiVersion: "coordination.k8s.io/v1",
      metadata: { name: "leader", namespace: "shop" },
    };
    await using world = await startNode();
    const leader = world.edge.clientWith({ token: world.apiServer.serviceAccountToken("shop", "shopkeeper") });
    const send = (method: string, path: string, object: object) =>
      leader.request(method, path, { headers: JSON_BODY, body: JSON.stringify(object) });
    const held = await send("POST", leases, { ...lease, spec: { holderIdentity: "here" } });
    expect(held.status).toBe(201);
    expect((await leader.get(`${leases}/leader`)).status).toBe(200);
    await world.cut();
    const renewed = { ...held.json(), spec: { holderIdentity: "here", renewTime: "2026-01-02T00:00:00.000000Z" } };
    expect((await send("PUT", `${leases}/leader`, renewed)).status).toBe(503);
    expect((await send("POST", leases, { ...lease, metadata: { name: "other" } })).status).toBe(503);
    expect(
      (await world.edge.client.request("PUT", `${leases}/leader`, { headers: JSON_BODY, body: "{}" })).status,
    ).toBe(503);
  });

  test("its CSINode is known from its own writes, and is gone when it deleted it", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const path = `/apis/storage.k8s.io/v1/csinodes/${NODE}`;
    const send = (method: string, target: string, object: object) =>
      client.request(method, target, { headers: JSON_BODY, body: JSON.stringify(object) });
    const csiNode = {
      kind: "CSINode",
      apiVersion: "storage.k8s.io/v1",
      metadata: { name: NODE },
      spec: { drivers: [] },
    };
    expect((await client.get(`${path}?resourceVersion=0`)).status).toBe(404);
    const created = await send("POST", path.slice(0, -NODE.length - 1), csiNode);
    expect(created.status).toBe(201);

    await world.cut();
    expect((await client.get(`${path}?resourceVersion=0`)).json()).toEqual(created.json());
    await world.heal();
    const drivers = [{ name: "disk.example.com", nodeID: NODE, topologyKeys: null }];
    const updated = await send("PUT", path, { ...created.json(), spec: { drivers } });
    expect(updated.json().spec.drivers).toEqual(drivers);
    await world.cut();
    await world.edge.restart();
    await world.cut();
    expect((await client.get(path)).json()).toEqual(updated.json());
    expect((await send("PUT", path, updated.json())).status).toBe(503);

    await world.heal();
    expect((await client.request("DELETE", path)).status).toBe(200);
    await world.cut();
    expect((await client.get(path)).status).toBe(503);
  });

  test("a lease and an event that are no objects are 400", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    await world.cut();
    for (const [method, path] of [
      ["PUT", LEASE],
      ["POST", "/api/v1/namespaces/shop/events"],
    ] as const)
      for (const [contentType, body] of [
        ["application/json", ""],
        ["application/json", "{nope"],
        ["application/json", "[]"],
        ["application/vnd.kubernetes.protobuf", "{}"],
      ] as const) {
        const reply = await client.request(method, path, { headers: { "Content-Type": contentType }, body });
        expect([path, body, reply.status]).toEqual([path, body, 400]);
      }
    expect((await client.get(LEASE)).status).toBe(503);
  });

  test("events are taken, and go up once when the link is back", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const event = (name: string) => ({
      kind: "Event",
      apiVersion: "v1",
      metadata: { name, namespace: "shop" },
      involvedObject: { kind: "Pod", name: "web-0", namespace: "shop" },
      reason: "BackOff",
      message: "again",
      count: 1,
    });
    const post = (name: string) =>
      client.request("POST", "/api/v1/namespaces/shop/events", {
        headers: JSON_BODY,
        body: JSON.stringify(event(name)),
      });
    expect((await post("known")).status).toBe(201);
    await world.cut();
    expect((await post("known")).status).toBe(201);
    expect((await post("new")).status).toBe(201);
    for (const count of [2, 3]) {
      const patched = await client.request("PATCH", "/api/v1/namespaces/shop/events/new", {
        headers: STRATEGIC,
        body: JSON.stringify({ count }),
      });
      expect(patched.json()).toMatchObject({ kind: "Event", metadata: { name: "new" }, count });
    }
    await world.edge.restart();
    await world.apiServer.heal();

    await eventually(
      () => world.apiServer.object("Event", "shop", "new") as any,
      (stored) => stored?.count === 3,
    );
    const known = world.apiServer.object("Event", "shop", "known") as any;
    expect(known.count).toBe(1);
  });

  test("events of a pod are taken where the API server let it write them before, and nowhere else", async () => {
    const mayWrite = new Set(["shop"]);
    await using world = await startNode([namespace("ops")], {
      authorize: (user, { resource, namespace: of }) =>
        !user.name.startsWith("system:serviceaccount:") || resource !== "events" || mayWrite.has(of),
    });
    const pods = world.edge.clientWith({ token: world.apiServer.serviceAccountToken("shop", "shopkeeper") });
    const post = (where: string, name: string) => {
      const event = {
        kind: "Event",
        apiVersion: "v1",
        metadata: { name, namespace: where },
        reason: "Sold",
        message: "",
      };
      const body = JSON.stringify(event);
      return pods.request("POST", `/api/v1/namespaces/${where}/events`, { headers: JSON_BODY, body });
    };
    expect((await pods.get("/api/v1/namespaces/shop/pods")).status).toBe(200);
    await world.cut();
    expect((await post("shop", "never seen")).status).toBe(503);
    await world.heal();
    expect([(await post("shop", "seen")).status, (await post("ops", "refused")).status]).toEqual([201, 403]);
    await world.edge.restart();
    await world.cut();
    expect([(await post("shop", "kept")).status, (await post("ops", "stray")).status]).toEqual([201, 503]);
    await world.heal();
    await eventually(() => world.apiServer.object("Event", "shop", "kept"));

    mayWrite.clear();
    expect((await post("shop", "refused")).status).toBe(403);
    await world.cut();
    expect((await post("shop", "stray")).status).toBe(503);
  });

  test("a service-account token that was had for a pod of the node is handed out again, to the node alone", async () => {
    await using world = await startNode([pod("far-0", "edge2")]);
    const { client } = world.edge;
    const uidOf = (name: string) => (world.apiServer.object("Pod", "shop", name) as any).metadata.uid as string;
    const path = "/api/v1/namespaces/shop/serviceaccounts/shopkeeper/token";
    const ask = (name: string, audiences: readonly string[] = [], asker = client) =>
      asker.request("POST", path, {
        headers: JSON_BODY,
        body: JSON.stringify({
          kind: "TokenRequest",
          apiVersion: "authentication.k8s.io/v1",
          spec: {
            audiences,
            expirationSeconds: 3607,
            boundObjectRef: { kind: "Pod", apiVersion: "v1", name, uid: uidOf(name) },
          },
        }),
      });
    const online = await ask("web-0");
    expect(online.status).toBe(201);
    await world.cut();
    await world.edge.restart();
    await world.cut();

    const again = await ask("web-0");
    expect(again.status).toBe(201);
    expect(again.json().status.token).toBe(online.json().status.token);
    expect((await ask("web-0", ["vault"])).status).toBe(503);
    expect((await ask("job-0")).status).toBe(503);
    expect((await ask("far-0")).status).toBe(503);
    const stranger = world.edge.clientWith({ token: online.json().status.token });
    expect((await ask("web-0", [], stranger)).status).toBe(503);
    expect(world.edge.log.join("\n")).not.toContain(online.json().status.token);
  });

  test("a decision about access stands for its time, for the same question", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const review = (verb: string) =>
      client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
        headers: JSON_BODY,
        body: JSON.stringify({
          kind: "SelfSubjectAccessReview",
          apiVersion: "authorization.k8s.io/v1",
          spec: { resourceAttributes: { verb, resource: "pods", namespace: "shop" } },
        }),
      });
    const online = await review("get");
    expect(online.status).toBe(201);
    await world.cut();

    const offline = await review("get");
    expect(offline.status).toBe(201);
    expect(offline.json()).toEqual(online.json());
    expect((await review("delete")).status).toBe(503);
  });
});

describe("after a reboot while cut", () => {
  test("kept EndpointSlices lead to where the pods are now, until the cloud speaks", async () => {
    const slice = {
      kind: "EndpointSlice",
      apiVersion: "discovery.k8s.io/v1",
      metadata: { name: "web-abc", namespace: "shop", labels: { "kubernetes.io/service-name": "web" } },
      addressType: "IPv4",
      ports: [{ name: "", port: 80, protocol: "TCP" }],
      endpoints: [] as object[],
    };
    await using world = await startNode();
    const { client } = world.edge;
    const { uid } = (world.apiServer.object("Pod", "shop", "web-0") as any).metadata;
    const endpoint = (address: string, targetUid: string) => ({
      addresses: [address],
      conditions: { ready: true, serving: true, terminating: false },
      targetRef: { kind: "Pod", namespace: "shop", name: "web-0", uid: targetUid },
    });
    world.apiServer.put({ ...slice, endpoints: [endpoint("10.244.1.5", uid), endpoint("10.9.9.9", "far")] } as never);
    const watch = await client.watch(`${SLICES}?${STREAM}`);
    await watch.until((events) => events.some(({ object }) => object.metadata?.name === "web-abc"));
    const before = (await client.get(`${SLICES}?resourceVersion=0`)).json();

    await world.cut();
    const moved = { podIP: "10.244.1.77", podIPs: [{ $patch: "replace" }, { ip: "10.244.1.77" }] };
    expect((await client.request("PATCH", `${POD}/status`, status(moved))).status).toBe(200);

    const addresses = (object: any) => object.endpoints?.map((one: any) => one.addresses[0]);
    await watch.until((events) => addresses(events.at(-1)!.object)?.[0] === "10.244.1.77");
    expect(addresses(watch.events.at(-1)!.object)).toEqual(["10.244.1.77", "10.9.9.9"]);
    const edited = (await client.get(SLICES)).json();
    expect(addresses(edited.items[0])).toEqual(["10.244.1.77", "10.9.9.9"]);
    expect(Number(edited.items[0].metadata.resourceVersion)).toBeGreaterThan(
      Number(before.items[0].metadata.resourceVersion),
    );
    await world.apiServer.heal();
    await watch.until((events) => events.some(({ type }) => type === "ERROR"));
    expect(watch.events.at(-1)!.object.code).toBe(410);
    const after = await eventually(
      async () => (await client.get(`${SLICES}?resourceVersion=0`)).json(),
      ({ items }) => addresses(items[0])[0] === "10.244.1.5",
    );
    expect(after.items).toEqual(before.items);
  });
});

describe("an API server that refuses the node's certificate", () => {
  test("is a cut for the node alone: another caller's live copy is not edited", async () => {
    const slice = {
      kind: "EndpointSlice",
      apiVersion: "discovery.k8s.io/v1",
      metadata: { name: "web-abc", namespace: "shop", labels: { "kubernetes.io/service-name": "web" } },
      addressType: "IPv4",
      ports: [{ name: "", port: 80, protocol: "TCP" }],
    };
    await using world = await startNode();
    const { uid } = (world.apiServer.object("Pod", "shop", "web-0") as any).metadata;
    const endpoint = {
      addresses: ["10.244.1.5"],
      conditions: { ready: true, serving: true, terminating: false },
      targetRef: { kind: "Pod", namespace: "shop", name: "web-0", uid },
    };
    world.apiServer.put({ ...slice, endpoints: [endpoint] } as never);
    const { client } = world.edge;
    const proxy = world.edge.clientWith({ token: world.apiServer.serviceAccountToken("shop", "shopkeeper") });
    const watch = await proxy.watch(`${SLICES}?${STREAM}`);
    await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
    const isKubelets = (target: string) => !target.startsWith("/apis/discovery") && target !== "/version";
    world.apiServer.nextStatus({ code: 401, reason: "Unauthorized" }, ({ path }) => isKubelets(path), 10_000);
    await eventually(
      async () => await (await fetch(`${world.edge.healthUrl}/metrics`)).text(),
      (text) => text.includes("holdfast_credential_refused 1") || (client.get(PODS).catch(() => {}), false),
    );
    const moved = { podIP: "10.244.1.77", podIPs: [{ $patch: "replace" }, { ip: "10.244.1.77" }] };
    expect((await client.request("PATCH", `${POD}/status`, status(moved))).status).toBe(200);
    expect((await client.get(POD)).json().status.podIP).toBe("10.244.1.77");
    // Kubelet's own copy of the slices is edited; by then the other's would have been.
    await eventually(
      async () => (await client.get(SLICES)).json().items?.[0]?.endpoints[0].addresses[0],
      (address) => address === "10.244.1.77",
    );
    const seen = (await proxy.get(`${SLICES}?resourceVersion=0`)).json();
    expect(seen.items[0].endpoints[0].addresses).toEqual(["10.244.1.5"]);
    expect(Number(seen.metadata.resourceVersion)).toBeLessThan(5e15);
    expect(watch.events.filter(({ type }) => type === "MODIFIED")).toEqual([]);
    watch.close();
  });

  test("is as good as a cut: what is kept goes on, nothing is forgotten, and the alarm is raised", async () => {
    await using world = await startNode();
    const { client } = world.edge;
    const watch = await client.watch(`${PODS}&${STREAM}`);
    await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));

    world.apiServer.nextStatus({ code: 401, reason: "Unauthorized" }, (info) => info.path !== "/version", 10_000);
    const first = await client.get(PODS);
    const patched = await eventually(
      () => client.request("PATCH", `${POD}/status`, status({ message: "alone" })),
      (reply) => reply.status === 200,
    );
    const list = await client.get(PODS);
    const metrics = await eventually(
      async () => await (await fetch(`${world.edge.healthUrl}/metrics`)).text(),
      (text) => text.includes("holdfast_credential_refused 1"),
    );

    expect(first.status).toBe(200);
    expect(patched.json().status.message).toBe("alone");
    expect(list.json().items).toHaveLength(2);
    expect(watch.isOpen).toBe(true);
    expect(metrics).toContain("holdfast_overlays 1");
    expect(world.edge.log.join("\n")).toContain("does not accept the node's certificate");
    expect((await client.request("DELETE", POD)).status).toBe(503);
    watch.close();
  });
});
