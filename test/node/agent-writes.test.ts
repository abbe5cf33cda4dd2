/**
 * Node agents that write while cut: a CNI plugin annotates its pod, and the
 * annotation is shown, kept over a reboot, and goes up once at the return.
 */

import { describe, expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { envelope, message, text } from "../../src/kube/protobuf-wire.ts";
import { eventually, type Client } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const POD = "/api/v1/namespaces/shop/pods/web-0";
const IP = "cni.projectcalico.org/podIP";
const MULTUS = "k8s.v1.cni.cncf.io/network-status";
const STRATEGIC = "application/strategic-merge-patch+json";
const JSON_PATCH = "application/json-patch+json";

const pod = (name: string, namespace = "shop", nodeName = NODE) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, namespace, labels: { app: "web" }, annotations: { [IP]: "10.1.0.5/32", note: "kept" } },
  spec: { nodeName, containers: [{ name: "app", image: "app" }] },
  status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
});

interface World extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  readonly kubelet: Client;
  /** A client of the agent. */
  readonly agent: Client;
  cut(): Promise<void>;
  heal(): Promise<void>;
  restart(): Promise<void>;
  stored(name?: string): any;
}

interface Options {
  /** Whether the agent may do this. */
  readonly may?: (verb: string, resource: string, namespace: string, name: string) => boolean;
  readonly config?: string;
}

const AGENT = "system:serviceaccount:kube-system:multus";

/** A node with an agent that reads pods one by one, as a thin CNI plugin does. */
async function startNode({ may = () => true, config = "" }: Options = {}): Promise<World> {
  const apiServer = await startApiServer({
    objects: [
      ...["shop", "ops", "kube-system"].map((name) => ({ kind: "Namespace", apiVersion: "v1", metadata: { name } })),
      {
        kind: "Node",
        apiVersion: "v1",
        metadata: { name: NODE },
        status: { conditions: [{ type: "Ready", status: "True" }] },
      },
      { kind: "Node", apiVersion: "v1", metadata: { name: "edge2" } },
      pod("web-0"),
      pod("web-1"),
      pod("db-0", "ops"),
      pod("far-0", "shop", "edge2"),
      pod("multus-x", "kube-system"),
    ] as never,
    authorize: (user, { verb, resource, namespace, name }) =>
      user.name !== AGENT || resource === "" || resource.startsWith("self") || may(verb, resource, namespace, name),
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig, config });
  const kubelet = edge.clientWith(keyPair);
  for (const path of [PODS, `/api/v1/nodes?fieldSelector=metadata.name%3D${NODE}`])
    expect((await kubelet.get(path)).status).toBe(200);
  const { uid } = (apiServer.object("Pod", "kube-system", "multus-x") as any).metadata;
  const token = apiServer.serviceAccountToken("kube-system", "multus", 3_600, { pod: { name: "multus-x", uid } });
  const agent = edge.clientWith({ token });
  const isOffline = (wanted: boolean) =>
    eventually(
      () => kubelet.get("/healthz"),
      ({ status }) => (status === 503) === wanted,
    );
  return {
    apiServer,
    edge,
    kubelet,
    agent,
    async cut() {
      await apiServer.cut();
      await isOffline(true);
    },
    async heal() {
      await apiServer.heal();
      await isOffline(false);
    },
    async restart() {
      await edge.restart();
      await isOffline(true);
    },
    stored: (name = "web-0") => apiServer.object("Pod", name === "db-0" ? "ops" : "shop", name),
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

const PROTOBUF = "application/vnd.kubernetes.protobuf";
const encoded = ([key, value]: [string, string]) => [text(1, key), text(2, value)];
/** A pod as a Go client marshals it, as far as its status write is judged by it. */
const podInProtobuf = ({ metadata, spec, status }: any) =>
  envelope("v1", "Pod", [
    message(1, [
      text(1, metadata.name),
      text(3, metadata.namespace),
      text(5, metadata.uid),
      text(6, metadata.resourceVersion),
      ...Object.entries<string>(metadata.labels).map((entry) => message(11, encoded(entry))),
      ...Object.entries<string>(metadata.annotations).map((entry) => message(12, encoded(entry))),
    ]),
    message(2, [message(2, [text(1, "app"), text(2, "app")]), text(10, spec.nodeName)]),
    message(3, [
      text(1, status.phase),
      ...status.conditions.map((one: any) => message(2, [text(1, one.type), text(2, one.status)])),
    ]),
  ]);
const annotated = (annotations: Record<string, string | null>, more: object = {}) => ({
  metadata: { annotations, ...more },
});
const send = (client: Client, method: string, path: string, contentType: string, body: object) =>
  client.request(method, path, { headers: { "Content-Type": contentType }, body: JSON.stringify(body) });
const patch = (client: Client, path: string, body: object, contentType = STRATEGIC) =>
  send(client, "PATCH", path, contentType, body);
/** The agent's patch went through once while online, and how far its right goes has been asked. */
async function seen(world: World, path = `${POD}/status`) {
  expect((await patch(world.agent, path, annotated({ seen: "online" }))).status).toBe(200);
  await eventually(() => world.apiServer.count({ resource: "selfsubjectaccessreviews" }) > 0);
  // What was answered before this is is known.
  expect((await world.agent.get(POD)).status).toBe(200);
}
const patches = ({ apiServer }: World) =>
  apiServer.requests.filter(({ target }) => target.includes("fieldManager=holdfast"));

describe("an agent's annotation written while cut", () => {
  test("is answered, shown to every reader and open watch, kept over a reboot, and goes up once", async () => {
    await using world = await startNode();
    const { agent, kubelet } = world;
    await seen(world);
    expect((await agent.get(POD)).status).toBe(200);
    const watch = await kubelet.watch(`${PODS}&${STREAM}`);
    await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));

    await world.cut();
    const { uid } = world.stored().metadata;
    const reply = await patch(
      agent,
      `${POD}/status`,
      annotated({ [IP]: "10.1.0.77/32", [MULTUS]: "[]", note: null }, { uid }),
    );
    expect(reply.status).toBe(200);
    const expected = { [IP]: "10.1.0.77/32", [MULTUS]: "[]", seen: "online" };
    expect(reply.json()).toMatchObject({
      kind: "Pod",
      metadata: { uid, annotations: expected },
      status: { phase: "Running" },
    });
    expect(reply.json().metadata.annotations).toEqual(expected);
    expect((await kubelet.get(POD)).json()).toEqual(reply.json());
    expect(
      (await kubelet.get(PODS)).json().items.find((item: any) => item.metadata.uid === uid).metadata.annotations,
    ).toEqual(expected);
    expect((await agent.get(POD)).json().metadata.annotations).toEqual(expected);
    await watch.until((events) => events.some(({ object }) => object.metadata?.annotations?.[MULTUS] === "[]"));

    await world.restart();
    expect((await kubelet.get(POD)).json().metadata.annotations).toEqual(expected);
    // After a reboot the plugin wires the pod anew.
    const again = await patch(agent, `${POD}/status`, annotated({ [IP]: "10.1.0.99/32" }));
    expect(again.json().metadata.annotations).toEqual({ ...expected, [IP]: "10.1.0.99/32" });
    await world.heal();
    await eventually(() => world.stored().metadata.annotations[IP] === "10.1.0.99/32");
    expect(world.stored().metadata.annotations).toEqual({ ...expected, [IP]: "10.1.0.99/32" });
    await eventually(
      async () => (await kubelet.get(`${PODS}&resourceVersion=0`)).json(),
      ({ items, metadata }) =>
        Number(metadata.resourceVersion) < 5e15 &&
        items.find((item: any) => item.metadata.uid === uid).metadata.annotations[IP] === "10.1.0.99/32",
    );
    // Another cut and return sends nothing.
    await world.cut();
    await world.heal();
    const lease = await kubelet.request("PATCH", `${POD}/status`, {
      headers: { "Content-Type": STRATEGIC },
      body: '{"status":{"message":"late"}}',
    });
    expect(lease.status).toBe(200);
    expect(patches(world)).toHaveLength(1);
    watch.close();
  });

  test("lies beside what kubelet says: neither takes the other's away", async () => {
    await using world = await startNode();
    const { agent, kubelet } = world;
    await seen(world);
    await world.cut();
    const status = (body: object) => patch(kubelet, `${POD}/status`, { status: body });
    expect((await status({ message: "one" })).status).toBe(200);
    expect((await patch(agent, `${POD}/status`, annotated({ [MULTUS]: "first" }))).status).toBe(200);
    const both = await status({ message: "two" });
    expect(both.json()).toMatchObject({ metadata: { annotations: { [MULTUS]: "first" } }, status: { message: "two" } });
    // What the agent takes back is gone, though kubelet wrote in between.
    const taken = await patch(agent, `${POD}/status`, annotated({ [MULTUS]: null }));
    expect(taken.json().metadata.annotations).toEqual({ [IP]: "10.1.0.5/32", note: "kept", seen: "online" });
    expect(taken.json().status.message).toBe("two");
    await world.heal();
    await eventually(
      async () => Number((await kubelet.get(`${PODS}&resourceVersion=0`)).json().metadata.resourceVersion) < 5e15,
    );
    expect(patches(world)).toHaveLength(0);
  });

  test("goes up before kubelet's own writes, which wait for it", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    await world.apiServer.heal();
    const reply = await eventually(
      () => patch(world.kubelet, `${POD}/status`, { status: { message: "after" } }),
      ({ json }) => Number(json().metadata?.resourceVersion ?? 1e17) < 5e15,
    );
    expect(reply.json().metadata.annotations[MULTUS]).toBe("[]");
  });

  test("is dropped and counted when somebody changed that key meanwhile, and only that key", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [IP]: "10.1.0.77/32", [MULTUS]: "[]" }));
    world.apiServer.edit("Pod", "shop", "web-0", (object: any) => ({
      ...object,
      metadata: { ...object.metadata, annotations: { ...object.metadata.annotations, [IP]: "10.9.9.9/32" } },
    }));
    await world.heal();
    await eventually(() => world.stored().metadata.annotations[MULTUS] === "[]");
    expect(world.stored().metadata.annotations[IP]).toBe("10.9.9.9/32");
    expect(world.edge.log.join("\n")).toContain("changed by somebody else");
    const metrics = await eventually(
      async () => await (await fetch(`${world.edge.healthUrl}/metrics`)).text(),
      (text) => text.includes("holdfast_agent_changes_waiting 0"),
    );
    for (const line of [
      'holdfast_agent_changes_total{outcome="sent"} 1',
      'holdfast_agent_changes_total{outcome="dropped"} 1',
      'holdfast_condition{type="AgentWritesDropped"} 1',
    ])
      expect(metrics).toContain(line);
  });

  test("is dropped when the pod is another one now", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    world.apiServer.remove("Pod", "shop", "web-0");
    const fresh = pod("web-0");
    world.apiServer.put({ ...fresh, metadata: { ...fresh.metadata, uid: "another" } } as never);
    await world.heal();
    await eventually(() => world.edge.log.join("\n").includes("object gone"));
    expect(world.stored().metadata.annotations).toEqual({ [IP]: "10.1.0.5/32", note: "kept" });
  });

  test("that had reached the API server after all is not sent again", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    world.apiServer.edit("Pod", "shop", "web-0", (object: any) => ({
      ...object,
      metadata: { ...object.metadata, annotations: { ...object.metadata.annotations, [MULTUS]: "[]" } },
    }));
    await world.heal();
    await eventually(() => world.edge.log.join("\n").includes("changes of node agents made while cut"));
    expect(patches(world)).toHaveLength(0);
  });

  test("meets a write in between with 409, is judged again and goes up", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    const healing = world.heal();
    world.apiServer.nextStatus({ code: 409, reason: "Conflict" }, { verb: "patch", name: "web-0" }, 2);
    await healing;
    await eventually(() => world.stored().metadata.annotations[MULTUS] === "[]");
    expect(patches(world)).toHaveLength(3);
  });

  test("waits for its writer when Holdfast was started anew and has not heard it since", async () => {
    await using world = await startNode();
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    await world.restart();
    await world.heal();
    await eventually(() => world.edge.log.join("\n").includes('"waiting":1'));
    expect(world.stored().metadata.annotations[MULTUS]).toBeUndefined();
    expect((await world.agent.get(POD)).status).toBe(200);
    await eventually(() => world.stored().metadata.annotations[MULTUS] === "[]", Boolean, 25_000);
  });

  test("is dropped when the API server refuses it at the return, and the right with it", async () => {
    const allowed = { patch: true };
    await using world = await startNode({ may: (verb) => verb !== "patch" || allowed.patch });
    await seen(world);
    await world.cut();
    await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "[]" }));
    allowed.patch = false;
    await world.heal();
    await eventually(() => world.edge.log.join("\n").includes('"reason":"refused"'));
    await world.cut();
    expect((await patch(world.agent, `${POD}/status`, annotated({ [MULTUS]: "again" }))).status).toBe(503);
  });
});

describe("which writes of agents are taken", () => {
  test.each<{ readonly what: string; readonly contentType: string; readonly body: object }>([
    { what: "strategic merge", contentType: STRATEGIC, body: annotated({ [MULTUS]: "[]", note: null }) },
    { what: "merge", contentType: "application/merge-patch+json", body: annotated({ [MULTUS]: "[]", note: null }) },
    {
      what: "JSON patch",
      contentType: JSON_PATCH,
      body: [
        { op: "test", path: "/metadata/annotations/note", value: "kept" },
        { op: "add", path: "/metadata/annotations/k8s.v1.cni.cncf.io~1network-status", value: "[]" },
        { op: "remove", path: "/metadata/annotations/note" },
      ],
    },
  ])("a $what of the object or its status", async ({ contentType, body }) => {
    await using world = await startNode();
    const { agent } = world;
    for (const path of [POD, `${POD}/status`]) await patch(agent, path, annotated({ seen: "online" }));
    await world.cut();
    for (const path of [POD, `${POD}/status`]) {
      const reply = await patch(agent, path, body, contentType);
      expect([path, reply.status]).toEqual([path, 200]);
      expect(reply.json().metadata.annotations).toEqual({ [IP]: "10.1.0.5/32", [MULTUS]: "[]", seen: "online" });
      await patch(agent, path, annotated({ [MULTUS]: null, note: "kept" }));
    }
    await world.heal();
  });

  test("a PUT of the status that was made from what the agent was shown", async () => {
    await using world = await startNode();
    const { agent, kubelet } = world;
    const read = async (client = agent) => (await client.get(POD)).json();
    const put = (object: any) => send(agent, "PUT", `${POD}/status`, "application/json", object);
    const withNote = (object: any, note: string) => ({
      ...object,
      metadata: { ...object.metadata, annotations: { ...object.metadata.annotations, [MULTUS]: note } },
    });
    expect((await put(withNote(await read(), "online"))).status).toBe(200);
    // The agent has read an older text than kubelet's copy holds.
    const shown = await read();
    world.apiServer.edit("Pod", "shop", "web-0", (object: any) => ({
      ...object,
      status: { ...object.status, message: "newer" },
    }));
    const copied = async () => (await kubelet.get(`${POD}?resourceVersion=0`)).json();
    await eventually(async () => (await copied()).status.message === "newer");
    await world.cut();
    expect((await read()).metadata.resourceVersion).toBe(shown.metadata.resourceVersion);
    const first = await put(withNote(await read(), "first"));
    expect(first.status).toBe(200);
    expect(first.json()).toMatchObject({
      metadata: { annotations: { [MULTUS]: "first" } },
      status: { message: "newer" },
    });
    // From before its own write: somebody else's words by now.
    expect((await put(withNote(shown, "stale"))).json()).toMatchObject({ code: 409, reason: "Conflict" });
    expect((await put(withNote(await read(), "second"))).status).toBe(200);
    // A release that does not know a field of the status does not take it away.
    const { conditions, ...rest } = (await read()).status;
    const known = await put({ ...withNote(await read(), "third"), status: { phase: rest.phase, conditions } });
    expect(known.json()).toMatchObject({
      metadata: { annotations: { [MULTUS]: "third" } },
      status: { message: "newer" },
    });
    const changed = await read();
    expect((await put({ ...changed, status: { ...changed.status, phase: "Failed" } })).status).toBe(503);
    expect((await put({ ...changed, metadata: { ...changed.metadata, resourceVersion: "" } })).status).toBe(503);
    await world.heal();
    await eventually(() => world.stored().metadata.annotations[MULTUS] === "third");
    expect(world.stored().status.message).toBe("newer");
  });

  test("a PUT of the status in protobuf, as Multus sends it, whose right is to update and not to patch", async () => {
    await using world = await startNode({ may: (verb) => verb !== "patch" });
    const { agent } = world;
    const headers = { "Content-Type": PROTOBUF, Accept: `${PROTOBUF},application/json` };
    const read = async () => (await agent.get(POD, { Accept: headers.Accept })).json();
    const put = (object: any, annotations: Record<string, string>, changes: object = {}) => {
      const body = podInProtobuf({ ...object, ...changes, metadata: { ...object.metadata, annotations } });
      return agent.request("PUT", `${POD}/status`, { headers, body });
    };
    const first = await read();
    expect((await put(first, { ...first.metadata.annotations, seen: "online" })).status).toBe(200);
    await eventually(() => world.apiServer.count({ resource: "selfsubjectaccessreviews" }) > 0);
    await world.cut();
    const shown = await read();
    expect(shown.metadata.annotations.seen).toBe("online");
    const reply = await put(shown, { [IP]: "10.1.0.5/32", [MULTUS]: "[]" });
    expect(reply.status).toBe(200);
    expect(reply.json()).toMatchObject({ kind: "Pod", status: { phase: "Running" } });
    expect(reply.json().metadata.annotations).toEqual({ [IP]: "10.1.0.5/32", [MULTUS]: "[]" });
    expect((await put(shown, { stale: "yes" })).status).toBe(409);
    const now = await read();
    expect((await put(now, now.metadata.annotations, { status: { ...now.status, phase: "Failed" } })).status).toBe(503);
    expect((await put({ ...now, metadata: { ...now.metadata, name: "web-1" } }, {})).status).toBe(400);
    expect((await agent.request("PUT", `${POD}/status`, { headers, body: "no protobuf" })).status).toBe(400);
    await world.heal();
    await eventually(() => world.stored().metadata.annotations[MULTUS] === "[]");
    expect(world.stored().metadata.annotations).toEqual({ [IP]: "10.1.0.5/32", [MULTUS]: "[]" });
    expect(world.stored().spec).toMatchObject({ nodeName: NODE });
    expect(patches(world).map(({ method }) => method)).toEqual(["PUT"]);
  });

  test("a condition, which goes up as it was written", async () => {
    await using world = await startNode();
    const { agent } = world;
    await seen(world);
    await world.cut();
    const condition = { type: "example.com/wired", status: "True", reason: "Wired", message: "eth0" };
    const reply = await patch(agent, `${POD}/status`, { status: { conditions: [condition] } });
    expect(reply.json().status.conditions).toEqual(
      expect.arrayContaining([expect.objectContaining({ type: "Ready" }), condition]),
    );
    await world.heal();
    await eventually(() => world.stored().status.conditions.some((one: any) => one.type === condition.type));
    expect(world.stored().status.conditions).toContainEqual(expect.objectContaining(condition));
  });

  test("of the node itself, as flannel writes it: an annotation and NetworkUnavailable", async () => {
    await using world = await startNode();
    const { agent, kubelet } = world;
    const path = `/api/v1/nodes/${NODE}/status`;
    await seen(world, path);
    await world.cut();
    const up = { type: "NetworkUnavailable", status: "False", reason: "FlannelIsUp", message: "running" };
    const data = { "flannel.alpha.coreos.com/backend-data": '{"VNI":1,"VtepMAC":"fe:01"}' };
    expect((await patch(agent, path, annotated(data))).status).toBe(200);
    expect((await patch(agent, path, { status: { conditions: [up] } })).status).toBe(200);
    const shown = (await kubelet.get(`/api/v1/nodes/${NODE}`)).json();
    expect(shown.metadata.annotations).toMatchObject(data);
    expect(shown.status.conditions).toContainEqual(up);
    // Kubelet's heartbeat of the same object goes on beside it.
    const beat = {
      status: { conditions: [{ type: "Ready", status: "True", lastHeartbeatTime: "2026-01-01T00:00:00Z" }] },
    };
    const beaten = await patch(kubelet, path, beat);
    expect(beaten.json().status.conditions).toContainEqual(up);
    await world.heal();
    const stored = () => world.apiServer.object("Node", "", NODE) as any;
    await eventually(() => stored().status.conditions.some(({ type }: any) => type === up.type));
    expect(stored().metadata.annotations).toMatchObject(data);
  });

  test("nothing else: a spec, a phase, finalizers, server-side apply, misshapen labels, another UID", async () => {
    await using world = await startNode();
    const { agent } = world;
    for (const path of [POD, `${POD}/status`]) await seen(world, path);
    await world.cut();
    const before = (await agent.get(POD)).json();
    for (const [path, body, contentType, code] of [
      [POD, { spec: { activeDeadlineSeconds: 7 } }, STRATEGIC, 503],
      [`${POD}/status`, { status: { phase: "Failed" } }, STRATEGIC, 503],
      [POD, { metadata: { finalizers: ["x.y/z"] } }, STRATEGIC, 503],
      [POD, annotated({ a: "b" }), "application/apply-patch+yaml", 503],
      [POD, { metadata: { labels: { a: "not a label" } } }, STRATEGIC, 422],
      [POD, annotated({ "a/b/c": "d" }), STRATEGIC, 422],
      [POD, annotated({ a: "b" }, { uid: "another" }), STRATEGIC, 409],
      [POD, annotated({ a: "b" }, { resourceVersion: "1" }), STRATEGIC, 409],
      [POD, [{ op: "test", path: "/metadata/uid", value: "another" }], JSON_PATCH, 422],
      [POD, { metadata: { annotations: { a: 1 } } }, STRATEGIC, 422],
      [POD, annotated({ a: "b" }), "text/plain", 415],
    ] as const) {
      const reply = await patch(agent, path, body, contentType);
      expect([JSON.stringify(body), contentType, reply.status]).toEqual([JSON.stringify(body), contentType, code]);
    }
    expect((await agent.get(POD)).json()).toEqual(before);
    expect((await agent.request("DELETE", POD)).status).toBe(503);
  });
});

describe("whose writes are taken", () => {
  test("of a caller that is not named, or of another node's pod, none", async () => {
    await using world = await startNode({ config: "nodeAgents: []\n" });
    await patch(world.agent, `${POD}/status`, annotated({ seen: "online" }));
    await world.cut();
    expect((await patch(world.agent, `${POD}/status`, annotated({ a: "b" }))).status).toBe(503);
    await world.heal();

    await using other = await startNode();
    await seen(other);
    await other.cut();
    const far = "/api/v1/namespaces/shop/pods/far-0/status";
    expect((await patch(other.agent, far, annotated({ a: "b" }))).status).toBe(503);
    expect((await patch(other.agent, "/api/v1/nodes/edge2/status", annotated({ a: "b" }))).status).toBe(503);
    expect((await patch(other.agent, `${POD}/status`, annotated({ a: "b" }))).status).toBe(200);
  });

  test("only as far as the API server was seen to allow: verb, resource, subresource, namespace, object", async () => {
    const rule = { may: (_verb: string, _namespace: string, _name: string) => true };
    await using world = await startNode({
      may: (verb, resource, namespace, name) =>
        verb === "get" || (resource === "pods" && rule.may(verb, namespace, name)),
    });
    const { agent } = world;
    const at = (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/pods/${name}/status`;
    const tryAll = async () => {
      const answers: string[] = [];
      for (const [namespace, name] of [
        ["shop", "web-0"],
        ["shop", "web-1"],
        ["ops", "db-0"],
      ] as const)
        if ((await patch(agent, at(namespace, name), annotated({ tried: "cut" }))).status === 200) answers.push(name);
      return answers;
    };
    const asked = () => world.apiServer.count({ resource: "selfsubjectaccessreviews" });
    const online = async (may: typeof rule.may, questions: number) => {
      rule.may = may;
      // How far a right goes is asked once for a run.
      await world.edge.restart();
      const before = asked();
      expect((await patch(agent, at("shop", "web-0"), annotated({ seen: "online" }))).status).toBe(200);
      await eventually(() => asked() >= before + questions);
      await agent.get(POD);
    };
    await world.cut();
    expect(await tryAll()).toEqual([]);
    await world.heal();

    await online((_verb, _namespace, name) => name === "web-0", 2);
    await world.cut();
    expect(await tryAll()).toEqual(["web-0"]);
    await world.heal();

    await online((_verb, namespace) => namespace === "shop", 2);
    await world.cut();
    expect(await tryAll()).toEqual(["web-0", "web-1"]);
    await world.heal();

    await online(() => true, 1);
    await world.cut();
    await world.restart();
    expect(await tryAll()).toEqual(["web-0", "web-1", "db-0"]);
    // Neither the object itself nor a PUT was ever seen.
    expect((await patch(agent, POD, annotated({ a: "b" }))).status).toBe(503);
    expect((await send(agent, "PUT", at("shop", "web-0"), "application/json", {})).status).toBe(503);
    await world.heal();

    rule.may = () => false;
    expect((await patch(agent, at("ops", "db-0"), annotated({ a: "b" }))).status).toBe(403);
    await world.cut();
    expect(await tryAll()).toEqual([]);
  });
});
