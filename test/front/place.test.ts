/**
 * While the node is shown at a place, the API server says the place and every
 * client of this node reads what kubelet wrote: the same bytes as without one.
 */

import { beforeAll, describe, expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { encode, envelope } from "../../src/demo/api-server/protobuf.ts";
import { message } from "../../src/demo/api-server/schema.ts";
import { PLACE_ANNOTATION } from "../../src/kube/placed-node.ts";
import { PROTOBUF_TYPE } from "../../src/kube/representation.ts";
import { Client, eventually, type Reply } from "../support/client.ts";
import { linkOf, startEdge, type Edge } from "../support/edge.ts";

const NAME = "edge-1";
const NODES = "/api/v1/nodes";
const NODE = `${NODES}/${NAME}`;
const STATUS = `${NODE}/status`;
const PLACE = "place: {hosts: [10.96.7.7], port: 31250}\n";
const TRUE = [
  { type: "InternalIP", address: "192.168.1.5" },
  { type: "Hostname", address: NAME },
];
const shown = (ip: unknown, name: unknown) => [
  { type: "Hostname", address: "10.96.7.7" },
  name,
  { type: "InternalIP", address: "10.96.7.7" },
  ip,
];
const SHOWN = shown(TRUE[0], TRUE[1]);
const MOVED = [{ type: "InternalIP", address: "192.168.1.99" }, TRUE[1]!];
const SHOWN_MOVED = shown(MOVED[0], MOVED[1]);
const TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1";
const PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

const node = (addresses: unknown = TRUE, port = 10250) => ({
  kind: "Node",
  apiVersion: "v1",
  metadata: { name: NAME, labels: { "kubernetes.io/hostname": NAME } },
  status: {
    addresses,
    daemonEndpoints: { kubeletEndpoint: { Port: port } },
    conditions: [{ type: "Ready", status: "True" }],
  },
});
const other = { kind: "Node", apiVersion: "v1", metadata: { name: "edge-10", uid: "o" }, status: { addresses: TRUE } };

interface World extends AsyncDisposable {
  readonly apiServer: ApiServer;
  readonly edge: Edge;
  /** Past Holdfast. */
  readonly direct: Client;
  /** The node as the API server holds it. */
  readonly held: () => any;
  readonly send: (method: string, target: string, type: string, body: unknown) => Promise<Reply>;
}

/** @param config none: the same world without a place. */
async function start(config = PLACE, objects: any[] = [other]): Promise<World> {
  const apiServer = await startApiServer({ objects });
  const edge = await startEdge({ apiServer, config, node: NAME });
  const direct = new Client({
    url: apiServer.url,
    ca: apiServer.cluster.ca,
    ...apiServer.cluster.clientCertificate("admin", ["system:masters"]),
  });
  return {
    apiServer,
    edge,
    direct,
    held: () => apiServer.object("Node", "", NAME),
    send: (method, target, type, body) =>
      edge.client.request(method, target, {
        headers: { "Content-Type": type },
        body: body instanceof Uint8Array ? body : JSON.stringify(body),
      }),
    async [Symbol.asyncDispose]() {
      direct.close();
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** Registered as kubelet does. */
async function registered(config = PLACE): Promise<World> {
  const world = await start(config);
  expect((await world.send("POST", NODES, "application/json", node())).status).toBe(201);
  return world;
}

/** What differs from world to world. */
const plain = (body: Buffer) =>
  body
    .toString("latin1")
    .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "UID")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "TIME");

const addressesOf = (object: any) => object.status.addresses;
const portOf = (object: any) => object.status.daemonEndpoints.kubeletEndpoint.Port;

describe("a write goes up with the place in front, and is answered as it was meant", () => {
  const replaced = (list: unknown[]) => [...list, { $patch: "replace" }];
  const merged = (addresses: unknown) => ({ status: { addresses } });
  test.each([
    ["POST", "POST", NODES, "application/json", node(MOVED)],
    ["PUT of the status", "PUT", STATUS, "application/json", node(MOVED)],
    ["strategic merge", "PATCH", STATUS, "application/strategic-merge-patch+json", merged(replaced(MOVED))],
    ["strategic merge by type", "PATCH", STATUS, "application/strategic-merge-patch+json", merged([MOVED[0]])],
    ["merge", "PATCH", STATUS, "application/merge-patch+json", merged(MOVED)],
    [
      "JSON patch of one address",
      "PATCH",
      STATUS,
      "application/json-patch+json",
      [
        { op: "test", path: "/status/addresses/1/address", value: NAME },
        { op: "replace", path: "/status/addresses/0/address", value: MOVED[0]!.address },
        { op: "add", path: "/metadata/labels/moved", value: "yes" },
      ],
    ],
  ] as const)("%s", async (name, method, target, type, body) => {
    await using world = await (name === "POST" ? start() : registered());
    const answer = await world.send(method, target, type, body);
    expect(answer.status).toBeLessThan(300);
    expect(addressesOf(answer.json())).toEqual(MOVED);
    expect(portOf(answer.json())).toBe(10250);
    expect(answer.json().metadata.annotations).toBeUndefined();
    expect(addressesOf(world.held())).toEqual(SHOWN_MOVED);
    expect(portOf(world.held())).toBe(31250);
    expect(JSON.parse(world.held().metadata.annotations[PLACE_ANNOTATION])).toMatchObject({
      addresses: MOVED,
      port: 10250,
    });
    expect(addressesOf((await world.edge.client.get(NODE)).json())).toEqual(MOVED);
  });

  test("protobuf, registered and put", async () => {
    await using world = await registered();
    const get = async () => (await world.edge.client.get(NODE, { Accept: PROTOBUF_TYPE })).body;
    const sent = await get();
    const answer = await world.edge.client.request("PUT", STATUS, {
      headers: { "Content-Type": PROTOBUF_TYPE, Accept: PROTOBUF_TYPE },
      body: sent,
    });
    expect(answer.status).toBe(200);
    expect(addressesOf(world.held())).toEqual(SHOWN);
    await world.direct.request("DELETE", NODE);
    const body = envelope("v1", "Node", encode(node() as never, message("Node")!));
    const again = await world.edge.client.request("POST", NODES, {
      headers: { "Content-Type": PROTOBUF_TYPE },
      body,
    });
    expect(again.status).toBe(201);
    expect(addressesOf(again.json())).toEqual(TRUE);
    expect(addressesOf(world.held())).toEqual(SHOWN);
    expect(portOf(world.held())).toBe(31250);
  });

  test("what says nothing of addresses goes up as it came", async () => {
    await using world = await registered();
    const before = world.held().metadata.annotations[PLACE_ANNOTATION];
    const body = { status: { conditions: [{ type: "Ready", status: "False" }] } };
    const answer = await world.send("PATCH", STATUS, "application/strategic-merge-patch+json", body);
    expect(addressesOf(answer.json())).toEqual(TRUE);
    expect(addressesOf(world.held())).toEqual(SHOWN);
    expect(world.held().metadata.annotations[PLACE_ANNOTATION]).toBe(before);
  });

  test("an agent that puts the node back as it read it takes nothing away", async () => {
    await using world = await registered();
    const read = (await world.edge.client.get(NODE)).json();
    const labelled = { ...read, metadata: { ...read.metadata, labels: { ...read.metadata.labels, agent: "1" } } };
    const answer = await world.send("PUT", NODE, "application/json", labelled);
    expect(answer.status).toBe(200);
    expect(addressesOf(answer.json())).toEqual(TRUE);
    expect(world.held().metadata).toMatchObject({ labels: { agent: "1" } });
    expect(world.held().metadata.annotations[PLACE_ANNOTATION]).toBeString();
    expect(addressesOf(world.held())).toEqual(SHOWN);
  });

  test("another node's object is nobody's to rewrite", async () => {
    await using world = await registered();
    const target = `${NODES}/edge-10/status`;
    await world.send("PATCH", target, "application/merge-patch+json", { status: { addresses: MOVED } });
    expect(addressesOf(world.apiServer.object("Node", "", "edge-10"))).not.toContainEqual(SHOWN[0]);
  });
});

describe("every read is, byte for byte, what it is without a place", () => {
  const reads: [string, string, Record<string, string>][] = [
    ["an object in JSON", NODE, {}],
    ["an object in protobuf", NODE, { Accept: PROTOBUF_TYPE }],
    ["an object, indented", `${NODE}?pretty=true`, {}],
    ["an object, compressed", NODE, { "Accept-Encoding": "gzip" }],
    ["an object as YAML or JSON", NODE, { Accept: "application/yaml, application/json;q=0.5" }],
    ["a Table", NODE, { Accept: TABLE }],
    ["metadata alone", NODE, { Accept: PARTIAL }],
    ["its status", STATUS, {}],
    ["a list in JSON", NODES, {}],
    ["a list in protobuf", NODES, { Accept: PROTOBUF_TYPE }],
    ["a list as a Table", NODES, { Accept: TABLE }],
    ["a list of metadata", NODES, { Accept: PARTIAL_LIST }],
    ["a list, compressed", NODES, { "Accept-Encoding": "gzip" }],
    ["a list with a parameter that nobody knows", `${NODES}?unknown=1`, {}],
    ["a page of a list", `${NODES}?limit=1`, {}],
    ["a list by field", `${NODES}?fieldSelector=metadata.name%3D${NAME}`, {}],
    ["a list that may be old", `${NODES}?resourceVersion=0`, {}],
    ["a path with escapes", `/api/v1/%6eodes/${NAME}`, {}],
  ];
  const watches: [string, string, Record<string, string>][] = [
    ["a watch", `${NODES}?watch=true&resourceVersion=0&timeoutSeconds=1`, {}],
    ["a watch of the old form", `/api/v1/watch/nodes/${NAME}?timeoutSeconds=1`, {}],
    [
      "a watch in protobuf",
      `${NODES}?watch=1&timeoutSeconds=1`,
      { Accept: `${PROTOBUF_TYPE};stream=watch,${PROTOBUF_TYPE}` },
    ],
    ["a watch as a Table", `${NODES}?watch=1&timeoutSeconds=1`, { Accept: TABLE }],
    [
      "a streaming list",
      `${NODES}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1`,
      {},
    ],
    ["a watch with a parameter that nobody knows", `${NODES}?watch=1&unknown=1&timeoutSeconds=1`, {}],
  ];
  const all = [...reads, ...watches];
  let answers: readonly (readonly [Reply, Reply])[] = [];
  beforeAll(async () => {
    await using world = await registered();
    await using twin = await registered("");
    // An age and a time in protobuf must not differ by the second at which a world began.
    for (const { apiServer } of [world, twin])
      for (const name of [NAME, "edge-10"]) {
        const object = apiServer.object("Node", "", name) as any;
        const metadata = { ...object.metadata, creationTimestamp: "2026-01-01T00:00:00Z" };
        apiServer.put({ ...object, kind: "Node", apiVersion: "v1", metadata });
      }
    const both = ([, target, headers]: (typeof all)[number]) =>
      Promise.all([world.edge.client.get(target, headers), twin.edge.client.get(target, headers)]);
    answers = await Promise.all(all.map(both));
    expect(addressesOf(world.held())).toEqual(SHOWN);
    expect(addressesOf(twin.held())).toEqual(TRUE);
  });
  test.each(all.map(([name], index) => [name, index] as const))("%s", (_name, index) => {
    const [one, twin] = answers[index]!;
    expect(one.status).toBe(200);
    expect(plain(bodyOf(one))).toContain(NAME);
    expect(plain(bodyOf(one))).not.toContain("10.96.7.7");
    expect(plain(bodyOf(one))).toBe(plain(bodyOf(twin)));
  });

  const bodyOf = ({ body, headers }: Reply) =>
    headers["content-encoding"] === "gzip" ? Buffer.from(Bun.gunzipSync(new Uint8Array(body))) : body;
});

test("an open watch carries what kubelet writes, and nothing of the place", async () => {
  await using world = await registered();
  const watch = await world.edge.client.watch(`${NODES}?watch=true&resourceVersion=0`);
  await world.send("PATCH", STATUS, "application/merge-patch+json", { status: { addresses: MOVED } });
  await watch.until((events) => events.some(({ object }) => addressesOf(object)[0].address === "192.168.1.99"));
  expect(JSON.stringify(watch.events)).not.toContain("10.96.7.7");
  watch.close();
});

test("a cut shows the true addresses: they are what is kept", async () => {
  await using world = await registered();
  const link = linkOf(world.apiServer, world.edge.client);
  const list = await world.edge.client.get(NODES);
  await world.edge.client.get(NODE);
  await link.cut();
  expect((await world.edge.client.get(NODES)).body.equals(list.body)).toBe(true);
  expect(addressesOf((await world.edge.client.get(NODE)).json())).toEqual(TRUE);
});

test("without a place any more, the API server shows the true address after one write", async () => {
  await using world = await registered();
  const { apiServer } = world;
  await world.edge.stop();
  await using plainEdge = await startEdge({ apiServer, node: NAME });
  // Nobody reads the node: kubelet goes on from what it read before.
  const held = await eventually(world.held, (one) => addressesOf(one).length === 2);
  expect(addressesOf(held)).toEqual(TRUE);
  expect(portOf(held)).toBe(10250);
  expect(held.metadata.annotations?.[PLACE_ANNOTATION]).toBeUndefined();
  const writes = () => plainEdge.log.filter((line) => line.includes("put right")).length;
  await eventually(() => writes() > 0);
  expect(addressesOf((await plainEdge.client.get(NODE)).json())).toEqual(TRUE);
  expect(writes()).toBe(1);
});

test("a node that was there before is shown after one write, and one only", async () => {
  await using world = await start(PLACE, [node(), other]);
  await world.edge.client.get(NODE);
  await eventually(world.held, (one) => addressesOf(one).length === 4);
  expect(addressesOf(world.held())).toEqual(SHOWN);
  const { resourceVersion } = world.held().metadata;
  expect(addressesOf((await world.edge.client.get(NODE)).json())).toEqual(TRUE);
  await world.send("PATCH", NODE, "application/merge-patch+json", { metadata: { labels: { a: "1" } } });
  expect(Number(world.held().metadata.resourceVersion)).toBe(Number(resourceVersion) + 1);
});

test("an annotation that somebody took away is put back, and reads are restored meanwhile", async () => {
  await using world = await registered();
  await world.send("PATCH", NODE, "application/merge-patch+json", { metadata: { annotations: null } });
  expect(addressesOf((await world.edge.client.get(NODE)).json())).toEqual(TRUE);
  await eventually(world.held, (one) => one.metadata.annotations?.[PLACE_ANNOTATION] !== undefined);
  expect(addressesOf(world.held())).toEqual(SHOWN);
});

test("addresses that a cloud controller writes are the truth from then on", async () => {
  await using world = await registered();
  const cloud = [
    { type: "InternalIP", address: "172.16.0.9" },
    { type: "ExternalIP", address: "203.0.113.9" },
  ];
  await world.direct.request("PATCH", STATUS, {
    headers: { "Content-Type": "application/merge-patch+json" },
    body: JSON.stringify({ status: { addresses: cloud } }),
  });
  expect(addressesOf((await world.edge.client.get(NODE)).json())).toEqual(cloud);
  const held = await eventually(world.held, (one) => addressesOf(one).length === 4);
  expect(addressesOf(held)).toEqual([
    { type: "InternalIP", address: "10.96.7.7" },
    cloud[0],
    { type: "ExternalIP", address: "10.96.7.7" },
    cloud[1],
  ]);
});

test("what cannot be restored is passed on unchanged, and said", async () => {
  await using world = await start("", [
    { ...node(SHOWN), metadata: { name: NAME, annotations: { [PLACE_ANNOTATION]: "nonsense" } } },
  ]);
  await using edge = await startEdge({ apiServer: world.apiServer, node: NAME, config: PLACE });
  const conditions = async () => (await fetch(`${edge.healthUrl}/metrics`)).text();
  expect(addressesOf((await edge.client.get(NODE)).json())).toEqual(SHOWN);
  expect(await conditions()).toContain('holdfast_condition{type="NodeNotRestored"} 1');
});

test("a watch of nodes over WebSocket is refused with a reason", async () => {
  await using world = await registered();
  const upgrade = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
  };
  const answer = await world.edge.client.get(`${NODES}?watch=true`, upgrade);
  expect(answer.status).toBe(400);
  expect(answer.json().message).toContain("watch it without an upgrade");
});
