import { describe, expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { protobufCodec } from "../../src/kube/protobuf-codec.ts";
import { Client, eventually, type JsonEvent, type OpenWatch } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const SERVICES = "/api/v1/services";
const SLICES = "/apis/discovery.k8s.io/v1/endpointslices";
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const PROTOBUF = { Accept: "application/vnd.kubernetes.protobuf,application/json" };

const TOKENS = {
  kubelet: { name: "system:node:gw-1", groups: ["system:nodes"] },
  proxy: { name: "kube-proxy", groups: [] },
  dns: { name: "coredns", groups: [] },
};

/** As the clients of a node ask: CoreDNS everything, kubelet and kube-proxy their part of it. */
const WISHES = [
  { who: "dns", path: SERVICES, query: "" },
  { who: "kubelet", path: SERVICES, query: "fieldSelector=spec.clusterIP%21%3DNone" },
  {
    who: "proxy",
    path: SERVICES,
    query: "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone",
  },
  { who: "dns", path: SLICES, query: "" },
  { who: "proxy", path: SLICES, query: "labelSelector=%21service.kubernetes.io%2Fheadless" },
] as const;

function service(name: string, labels: Record<string, string> = {}, clusterIP = "10.96.0.1") {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "shop", labels },
    spec: { clusterIP, type: "ClusterIP", ports: [{ port: 80 }] },
  };
}

function slice(name: string, labels: Record<string, string> = {}) {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name, namespace: "shop", labels },
    addressType: "IPv4",
    endpoints: [{ addresses: ["10.0.0.1"] }],
  };
}

const OBJECTS = [
  service("web"),
  service("db", {}, "None"),
  service("mesh", { "service.kubernetes.io/service-proxy-name": "mesh" }),
  slice("web-1"),
  slice("db-1", { "service.kubernetes.io/headless": "" }),
];

interface Follower {
  readonly who: keyof typeof TOKENS;
  readonly path: string;
  readonly query: string;
  readonly watch: OpenWatch;
}

/** Follows one wish after the other, each when the one before it has its list, until all get events. */
async function followAll(edge: Edge, apiServer: ApiServer): Promise<Follower[]> {
  const followers: Follower[] = [];
  for (const { who, path, query } of WISHES) {
    const watch = await edge.clientWith({ token: who }).watch(`${path}?${STREAM}${query === "" ? "" : `&${query}`}`);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    followers.push({ who, path, query, watch });
  }
  apiServer.put(service("ready"));
  apiServer.put(slice("ready-1"));
  for (const { watch } of followers)
    await watch.until((events) => events.some(({ object }) => object.metadata.name?.startsWith("ready")));
  return followers;
}

/** What a client that believes every event has now. @throws at an event that does not fit what it has. */
function replay(events: readonly JsonEvent[]): string[] {
  const has = new Map<string, string>();
  let last = 0;
  for (const { type, object } of events) {
    if (type === "ERROR") throw new Error(`ERROR ${object.code}`);
    const isInitial = last === 0 && type === "ADDED";
    if (type === "BOOKMARK") {
      last = Math.max(last, Number(object.metadata.resourceVersion));
      continue;
    }
    const { name, resourceVersion } = object.metadata;
    if (!isInitial && Number(resourceVersion) <= last)
      throw new Error(`${type} ${name} went back to ${resourceVersion}`);
    if (!isInitial) last = Number(resourceVersion);
    if ((type === "ADDED") === has.has(name)) throw new Error(`${type} ${name} does not fit`);
    if (type === "DELETED") has.delete(name);
    else has.set(name, `${name}@${resourceVersion}`);
  }
  return [...has.values()].sort();
}

/** What the API server itself lists for that wish. */
async function truth(apiServer: ApiServer, { who, path, query }: Follower): Promise<string[]> {
  const client = new Client({ url: apiServer.url, ca: apiServer.cluster.ca, token: who });
  const reply = await client.get(`${path}?${query}`);
  client.close();
  return reply
    .json()
    .items.map(({ metadata }: any) => `${metadata.name}@${metadata.resourceVersion}`)
    .sort();
}

async function allAgree(apiServer: ApiServer, followers: readonly Follower[]): Promise<void> {
  for (const follower of followers) {
    const expected = await truth(apiServer, follower);
    await eventually(
      () => replay(follower.watch.events).join(),
      (has) => has === expected.join(),
    );
  }
}

function churn(apiServer: ApiServer): void {
  apiServer.put(service("web", { "service.kubernetes.io/service-proxy-name": "mesh" }));
  apiServer.put(service("mesh"));
  apiServer.put(service("db", {}, "10.96.0.9"));
  apiServer.put(slice("web-1", { "service.kubernetes.io/headless": "" }));
  apiServer.put(slice("db-1"));
  apiServer.put(service("new"));
  apiServer.remove("Service", "shop", "new");
  apiServer.put(service("new", {}, "None"));
  apiServer.put(slice("new-1"));
}

/** Watches that stay; one of a second is a look whether a caller may still watch. */
const watchesOf = (apiServer: ApiServer) =>
  apiServer.requests.filter(({ verb, target }) => verb === "watch" && !/[?&]timeoutSeconds=1(&|$)/.test(target)).length;
const listsOf = (apiServer: ApiServer) => apiServer.count({ verb: "list" });

describe("kubelet, kube-proxy and CoreDNS", () => {
  test("cost one upstream watch for services and one for endpointslices; each sees exactly its selection", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    churn(apiServer);
    await allAgree(apiServer, followers);

    expect(apiServer.watchCount).toBe(2);
    expect(watchesOf(apiServer)).toBe(2);
    expect(
      apiServer.requests.filter(({ verb, user }) => verb === "list" && user !== "").map(({ user }) => user),
    ).toEqual(
      // Two for the bases; the rest is this test asking for the truth.
      ["coredns", "coredns", ...WISHES.map(({ who }) => TOKENS[who].name)],
    );
    const metrics = await (await fetch(`${edge.healthUrl}/metrics`)).text();
    expect(Number(/holdfast_shared_bytes_total (\d+)/.exec(metrics)![1])).toBeGreaterThan(2_000);
    for (const { watch } of followers) watch.close();
  });

  test("say nothing at a cut, and at the return get what they missed through the same two watches", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    const lists = listsOf(apiServer);
    await apiServer.cut();
    churn(apiServer);
    for (const { watch } of followers) expect(watch.isOpen).toBe(true);
    await apiServer.heal();
    await eventually(() => apiServer.watchCount === 2);
    await eventually(() => followers[0]!.watch.events.some(({ object }) => object.metadata.name === "new"));

    expect(listsOf(apiServer)).toBe(lists);
    await allAgree(apiServer, followers);
    expect(apiServer.watchCount).toBe(2);
    expect(watchesOf(apiServer)).toBe(4);
    for (const { watch } of followers) watch.close();
  });

  test("after compaction two lists tell all five the difference", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    const lists = listsOf(apiServer);
    await apiServer.cut();
    churn(apiServer);
    apiServer.remove("Service", "shop", "web");
    apiServer.compact();
    await apiServer.heal();
    for (const { watch } of followers)
      await watch.until((events) => events.filter(({ type }) => type === "BOOKMARK").length >= 2);

    expect(listsOf(apiServer)).toBe(lists + 2);
    expect(apiServer.watchCount).toBe(2);
    for (const follower of followers) {
      const events = follower.watch.events.filter(({ type }) => type !== "BOOKMARK");
      const names = new Map(
        events.map(({ type, object }) => [
          object.metadata.name,
          type === "DELETED" ? "" : `${object.metadata.name}@${object.metadata.resourceVersion}`,
        ]),
      );
      expect([...names.values()].filter((text) => text !== "").sort()).toEqual(await truth(apiServer, follower));
    }
    for (const { watch } of followers) watch.close();
  });

  test("a client that comes back at its resourceVersion goes on, and one from before our history is the API server's matter", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const [dns, kubelet] = await followAll(edge, apiServer);
    const at = kubelet!.watch.events.at(-1)!.object.metadata.resourceVersion;
    kubelet!.watch.close();
    churn(apiServer);
    await eventually(() => dns!.watch.events.some(({ object }) => object.metadata.name === "new"));

    const client = edge.clientWith({ token: "kubelet" });
    const again = await client.watch(`${SERVICES}?watch=true&${WISHES[1].query}&resourceVersion=${at}`);
    await again.until((events) => events.length >= 5);
    const old = await client.watch(`${SERVICES}?watch=true&${WISHES[1].query}&resourceVersion=1`);

    expect(again.events.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual([
      "MODIFIED web",
      "MODIFIED mesh",
      "ADDED db",
      "ADDED new",
      "DELETED new",
    ]);
    await old.until((events) => events.length >= 1);
    expect(old.events[0]).toMatchObject({ type: "ERROR", object: { code: 410, reason: "Expired" } });
    expect(apiServer.requests.filter(({ target }) => /[?&]resourceVersion=1(&|$)/.test(target))).toHaveLength(1);
    expect(apiServer.watchCount).toBe(2);
    again.close();
    dns!.watch.close();
  });

  test("in protobuf too, byte for byte", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const direct = new Client({ url: apiServer.url, ca: apiServer.cluster.ca, token: "proxy" });
    await edge.clientWith({ token: "dns" }).get(`${SERVICES}?resourceVersion=0`, PROTOBUF);
    await eventually(() => apiServer.watchCount === 1);
    for (const { path, query } of [WISHES[2], { ...WISHES[1], query: `${WISHES[1].query},metadata.name!=web` }]) {
      const shared = await edge.clientWith({ token: "proxy" }).get(`${path}?resourceVersion=0&${query}`, PROTOBUF);
      const own = await direct.get(`${path}?${query}`, PROTOBUF);
      expect(shared.body.equals(own.body)).toBe(true);
      expect(protobufCodec.listReader().push(shared.body).length).toBeGreaterThan(0);
    }
    expect(apiServer.watchCount).toBe(1);
    expect(apiServer.count(({ verb, resource }) => verb === "list" && resource === "services")).toBe(3);

    // Two watches of three seconds, the one through the base and the other past it.
    const at = apiServer.resourceVersion;
    const target = `${SERVICES}?watch=true&resourceVersion=${at}&timeoutSeconds=3&${WISHES[2].query}`;
    const headers = { Accept: "application/vnd.kubernetes.protobuf;stream=watch,application/json;stream=watch" };
    const both = Promise.all([edge.clientWith({ token: "proxy" }).get(target, headers), direct.get(target, headers)]);
    await eventually(() => apiServer.watchCount === 2);
    churn(apiServer);
    const [shared, own] = await both;
    expect(own.body.length).toBeGreaterThan(500);
    expect(shared.body.equals(own.body)).toBe(true);
    expect(watchesOf(apiServer)).toBe(2);
    direct.close();
  });
});

describe("permission", () => {
  const rbac = (allowed: (user: string, resource: string) => boolean) => ({
    authorize: (user: { name: string }, info: { resource: string }) =>
      info.resource === "" || info.resource === "selfsubjectaccessreviews" || allowed(user.name, info.resource),
  });

  test("taken back from one of them, a refused request is enough for its shared watch to end; the others go on", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    const { authorize } = rbac((user, resource) => user !== "kube-proxy" || resource !== "services");
    apiServer.authorize = authorize as typeof apiServer.authorize;
    expect((await edge.clientWith({ token: "proxy" }).get(`${SERVICES}?limit=1`)).status).toBe(403);

    const proxy = followers[2]!;
    await proxy.watch.until((events) => events.at(-1)?.type === "ERROR");
    expect(proxy.watch.events.at(-1)!.object.code).toBe(403);
    await apiServer.cut();
    expect(
      (await edge.clientWith({ token: "proxy" }).get(`${SERVICES}?resourceVersion=0&${WISHES[2].query}`)).status,
    ).toBe(503);
    await apiServer.heal();
    churn(apiServer);
    const rest = followers.filter((follower) => follower !== proxy);
    await eventually(() => rest[0]!.watch.events.some(({ object }) => object.metadata.name === "new"));
    for (const { watch } of rest) expect(watch.isOpen).toBe(true);
    await allAgree(apiServer, rest);
    for (const { watch } of rest) watch.close();
  });

  test.each([
    ["the API server says so, five minutes after its last yes", true],
    ["it says nothing, less than seven minutes after its last yes", false],
  ] as const)(
    "taken back without a word, an open watch that another feeds ends when %s",
    async (_, answers) => {
      const clock = new ShiftedClock();
      await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
      await using edge = await startEdge({ apiServer, clock });
      const followers = await followAll(edge, apiServer);
      const proxy = followers[2]!;
      const opened = watchesOf(apiServer);
      const reviews = () => apiServer.count({ resource: "selfsubjectaccessreviews" });
      const { authorize } = rbac((user, resource) => user !== "kube-proxy" || resource !== "services");
      apiServer.authorize = authorize as typeof apiServer.authorize;
      if (!answers)
        apiServer.nextStatus({ code: 500 }, { resource: "selfsubjectaccessreviews" }, Number.POSITIVE_INFINITY);
      clock.forward(298_000);
      expect(proxy.watch.isOpen).toBe(true);
      const asked = reviews();
      clock.forward(3_000);
      await eventually(() => reviews() > asked);
      for (let seconds = 305; !answers && seconds < 420 && proxy.watch.isOpen; seconds += 5) {
        clock.forward(5_000);
        await fetch(`${edge.healthUrl}/healthz`);
      }
      await proxy.watch.until((events) => events.at(-1)?.type === "ERROR");
      expect(proxy.watch.events.at(-1)!.object.code).toBe(403);
      // Its own watch asked the API server, and that was the word.
      expect(watchesOf(apiServer)).toBeGreaterThan(opened);
      for (const { watch } of followers) watch.close();
    },
    30_000,
  );

  test("who was never allowed gets nothing of what another follows, online or cut", async () => {
    await using apiServer = await startApiServer({
      objects: OBJECTS,
      tokens: { ...TOKENS, guest: { name: "guest", groups: [] } },
    });
    const { authorize } = rbac((user) => user !== "guest");
    apiServer.authorize = authorize as typeof apiServer.authorize;
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    const guest = edge.clientWith({ token: "guest" });
    const asked = [
      `${SERVICES}?resourceVersion=0`,
      `${SERVICES}?resourceVersion=0&${WISHES[1].query}`,
      `${SERVICES}?${STREAM}`,
    ];

    const online = await Promise.all(asked.map((path) => guest.get(path)));
    await apiServer.cut();
    const offline = await Promise.all(asked.map((path) => guest.get(path)));

    expect(online.map(({ status }) => status)).toEqual([403, 403, 403]);
    expect(offline.map(({ status }) => status)).toEqual([503, 503, 503]);
    for (const { watch } of followers) watch.close();
  });

  test("taken from the base's caller, the others go on where they stood", async () => {
    await using apiServer = await startApiServer({ objects: OBJECTS, tokens: TOKENS });
    await using edge = await startEdge({ apiServer });
    const followers = await followAll(edge, apiServer);
    // The refused one's other lists are asked for: each may have been taken away with the first.
    const listsOfOthers = () =>
      apiServer.requests.filter(({ verb, user }) => verb === "list" && user !== "coredns").length;
    const lists = listsOfOthers();
    const { authorize } = rbac((user) => user !== "coredns");
    apiServer.authorize = authorize as typeof apiServer.authorize;
    apiServer.endWatches();
    await followers[0]!.watch.ended;
    churn(apiServer);
    const rest = followers.filter(({ who }) => who !== "dns");
    await eventually(() =>
      rest.every(({ watch }) => watch.events.some(({ object }) => object.metadata.name?.startsWith("new"))),
    );

    expect(listsOfOthers()).toBe(lists);
    await allAgree(apiServer, rest);
    expect(apiServer.watchCount).toBe(3);
    for (const { watch } of rest) watch.close();
  });
});

test("secrets, configmaps and pods are never shared", async () => {
  await using apiServer = await startApiServer({ tokens: TOKENS });
  await using edge = await startEdge({ apiServer });
  const watches: OpenWatch[] = [];
  for (const resource of ["secrets", "configmaps", "pods"])
    for (const [who, query] of [
      ["dns", ""],
      ["kubelet", "&fieldSelector=metadata.name%3Da"],
    ] as const) {
      const watch = await edge.clientWith({ token: who }).watch(`/api/v1/${resource}?${STREAM}${query}`);
      await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
      watches.push(watch);
    }
  await eventually(() => apiServer.watchCount === 6);
  expect(apiServer.count({ resource: "selfsubjectaccessreviews" })).toBe(0);
  for (const watch of watches) watch.close();
});
