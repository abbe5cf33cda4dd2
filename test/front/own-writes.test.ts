/**
 * Who wrote an object knows it: the next cut must not make it unknown, and not
 * older than it was told.
 */
import { describe, expect, test } from "bun:test";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { openStore } from "../../src/store/store.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const ALL = "/api/v1/configmaps";
const STREAM = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const JSON_TYPE = { "Content-Type": "application/json" };
const MERGE = { "Content-Type": "application/merge-patch+json" };

async function cut(apiServer: ApiServer, edge: Edge): Promise<void> {
  await apiServer.cut();
  await eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => status === 503,
  );
}

/** Lists that nobody follows: the edge restarts while a fault keeps the list from being taken up again. */
async function asleep(edge: Edge): Promise<void> {
  await edge.restart();
}

const create = (client: Client, object: unknown) =>
  client.request("POST", LIST, { headers: JSON_TYPE, body: JSON.stringify(object) });
const patch = (client: Client, name: string, change: unknown) =>
  client.request("PATCH", `${LIST}/${name}`, { headers: MERGE, body: JSON.stringify(change) });
const names = async (client: Client, target: string) =>
  (await client.get(target)).json().items.map(({ metadata }: any) => metadata.name);

describe("a write that went up is readable in the next cut", () => {
  test.each([
    ["POST", (client: Client) => create(client, configMap("a", { x: "2" }))],
    ["PATCH", (client: Client) => patch(client, "b", { data: { x: "2" } })],
    [
      "PUT",
      async (client: Client) => {
        const { metadata } = (await client.get(`${LIST}/b`)).json();
        const object = { ...configMap("b", { x: "2" }), metadata };
        return client.request("PUT", `${LIST}/b`, { headers: JSON_TYPE, body: JSON.stringify(object) });
      },
    ],
  ] as const)("%s", async (_, write) => {
    await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" })] });
    await using edge = await startEdge({ apiServer });
    const answer = (await write(edge.client)).json();
    await cut(apiServer, edge);
    const kept = await edge.client.get(`${LIST}/${answer.metadata.name}`);
    expect(kept.json()).toEqual(answer);
    await edge.restart();
    expect((await edge.client.get(`${LIST}/${answer.metadata.name}`)).json()).toEqual(answer);
  });

  test("what was read before is there, as new as the write, and as old as it was where the write's form cannot be read", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" })] });
    await using edge = await startEdge({ apiServer });
    const protobuf = { Accept: "application/vnd.kubernetes.protobuf" };
    const before = await edge.client.get(`${LIST}/b`, protobuf);
    await edge.client.get(`${LIST}/b`);
    const answer = (await patch(edge.client, "b", { data: { x: "2" } })).json();
    await cut(apiServer, edge);
    expect((await edge.client.get(`${LIST}/b`)).json()).toEqual(answer);
    expect((await edge.client.get(`${LIST}/b`, protobuf)).body.equals(before.body)).toBe(true);
  });

  test("by nobody else", async () => {
    await using apiServer = await startApiServer({
      tokens: { other: { name: "other", groups: ["system:masters"] } },
      objects: [configMap("b")],
    });
    await using edge = await startEdge({ apiServer });
    const other = edge.clientWith({ token: "other" });
    await other.get(`${LIST}/b`);
    await create(edge.client, configMap("a"));
    await cut(apiServer, edge);
    expect((await other.get(`${LIST}/a`)).status).toBe(503);
  });

  test.each(["?dryRun=All", ""])("a dry run (%p) leaves nothing of its own", async (query) => {
    await using apiServer = await startApiServer({ objects: [configMap("b")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.request("POST", `${LIST}${query}`, { headers: JSON_TYPE, body: JSON.stringify(configMap("a")) });
    await cut(apiServer, edge);
    expect((await edge.client.get(`${LIST}/a`)).status).toBe(query === "" ? 200 : 503);
  });
});

describe("a list read before the write, when nobody follows it any more", () => {
  test("shows what was created, changed and labelled, in the API server's order, and not what was deleted", async () => {
    const labelled = (name: string, app: string) => ({
      ...configMap(name),
      metadata: { name, namespace: "shop", labels: { app } },
    });
    await using apiServer = await startApiServer({
      objects: [labelled("a", "web"), labelled("c", "web"), labelled("e", "web"), labelled("g", "db")],
    });
    await using edge = await startEdge({ apiServer });
    const { client } = edge;
    const web = `${LIST}?labelSelector=app%3Dweb`;
    for (const target of [LIST, ALL, web]) await client.get(target);
    await asleep(edge);

    const changed = (await patch(client, "c", { data: { x: "2" } })).json();
    await create(client, labelled("d", "web"));
    await patch(client, "e", { metadata: { labels: { app: "db" } } });
    await patch(client, "g", { metadata: { labels: { app: "web" } } });
    await client.request("DELETE", `${LIST}/a`);
    await cut(apiServer, edge);

    expect(await names(client, LIST)).toEqual(["c", "d", "e", "g"]);
    expect(await names(client, ALL)).toEqual(["c", "d", "e", "g"]);
    expect(await names(client, web)).toEqual(["c", "d", "g"]);
    const [shown] = (await client.get(LIST)).json().items;
    expect(shown).toEqual({ data: changed.data, metadata: changed.metadata });
    expect((await client.get(`${LIST}/a`)).status).toBe(503);
    expect((await client.get(`${LIST}/d`)).status).toBe(200);
    await edge.restart();
    expect(await names(client, LIST)).toEqual(["c", "d", "e", "g"]);
  });

  test.each(["?resourceVersion=0", "?resourceVersion=1", "stream"])(
    "as an informer asks for it (%s), it has the caller's writes in it too",
    async (asked) => {
      await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" }), configMap("gone")] });
      await using edge = await startEdge({ apiServer });
      const { client } = edge;
      const before = await client.get(LIST);
      await asleep(edge);
      await create(client, configMap("a"));
      await patch(client, "b", { data: { x: "2" } });
      await client.request("DELETE", `${LIST}/gone`);
      await cut(apiServer, edge);
      if (asked === "stream") {
        const watch = await client.watch(`${LIST}?${STREAM}`);
        await watch.until((events) => events.length === 3);
        expect(
          watch.events.map(({ type, object }) => `${type} ${object.metadata.name ?? ""} ${object.data?.x ?? ""}`),
        ).toEqual(["ADDED a ", "ADDED b 2", "BOOKMARK  "]);
        watch.close();
      } else {
        expect(await names(client, `${LIST}${asked}`)).toEqual(["a", "b"]);
      }
      // Exactly that moment is the copy as it stood.
      const { resourceVersion } = before.json().metadata;
      const exact = await client.get(`${LIST}?resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`);
      expect(exact.body.equals(before.body)).toBe(true);
    },
  );

  test.each(["a watch from its list", "its streaming list", "a watch from its list, after a restart"])(
    "at the return %s is told nothing that it has passed, and nothing of what it deleted",
    async (way) => {
      const doomed = { ...configMap("gone"), metadata: { name: "gone", namespace: "shop" } };
      await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" }), doomed] });
      await using edge = await startEdge({ apiServer });
      const { client } = edge;
      await client.get(LIST);
      await asleep(edge);
      apiServer.put(configMap("b", { x: "2" }));
      apiServer.put(configMap("gone", { x: "2" }));
      const written = (await patch(client, "b", { data: { x: "3" } })).json();
      await client.request("DELETE", `${LIST}/gone`);
      await cut(apiServer, edge);
      const list = (await client.get(`${LIST}?resourceVersion=0`)).json();
      expect(list.items.map(({ metadata }: any) => metadata.name)).toEqual(["b"]);
      if (way.endsWith("restart")) await edge.restart();
      const from = way.endsWith("streaming list") ? STREAM : `watch=1&resourceVersion=${list.metadata.resourceVersion}`;
      const watch = await edge.client.watch(`${LIST}?${from}`);
      await apiServer.heal();
      apiServer.put(configMap("last"));
      await watch.until((events) => events.some(({ object }) => object.metadata.name === "last"));
      const told = watch.events.filter(({ type }) => type !== "BOOKMARK");
      expect(told.map(({ type, object }) => `${type} ${object.metadata.name} ${object.data?.x ?? ""}`)).toEqual([
        ...(way.endsWith("streaming list") ? ["ADDED b 3"] : []),
        // The very event of what was shown comes: of another client nobody knows that it was.
        "MODIFIED b 3",
        "DELETED gone 2",
        "ADDED last ",
      ]);
      expect(told[0]!.object.metadata.resourceVersion).toBe(written.metadata.resourceVersion);
      watch.close();
    },
  );

  test("what was shown of it is not taken back at the return by what came before it", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" })] });
    await using edge = await startEdge({ apiServer });
    const at = (await edge.client.get(LIST)).json().metadata.resourceVersion;
    await asleep(edge);
    apiServer.put(configMap("b", { x: "2" }));
    const written = (await patch(edge.client, "b", { data: { x: "3" } })).json();
    await cut(apiServer, edge);
    const list = (await edge.client.get(LIST)).json();
    expect(list.metadata.resourceVersion).toBe(at);
    expect(list.items[0].metadata.resourceVersion).toBe(written.metadata.resourceVersion);
    const watch = await edge.client.watch(`${LIST}?watch=true&resourceVersion=${at}`);
    await apiServer.heal();
    await eventually(() => watch.events.length > 0);
    expect(watch.events[0]!.object.metadata.resourceVersion).toBe(written.metadata.resourceVersion);
    watch.close();
  });

  test("a delete that a finalizer holds up leaves the object; the patch that removes the last one takes it out", async () => {
    const held = { ...configMap("h"), metadata: { name: "h", namespace: "shop", finalizers: ["shop/hold"] } };
    await using apiServer = await startApiServer({ objects: [held, configMap("b")] });
    await using edge = await startEdge({ apiServer });
    const { client } = edge;
    await client.get(LIST);
    await asleep(edge);
    await client.request("DELETE", `${LIST}/h`);
    await cut(apiServer, edge);
    expect((await client.get(`${LIST}/h`)).json().metadata.deletionTimestamp).toBeString();
    await apiServer.heal();
    await eventually(
      () => client.get("/healthz"),
      ({ status }) => status === 200,
    );
    await patch(client, "h", { metadata: { finalizers: null } });
    await cut(apiServer, edge);
    expect(await names(client, LIST)).toEqual(["b"]);
    expect((await client.get(`${LIST}/h`)).status).toBe(503);
  });
});

test("of a write that a followed copy has brought nothing is written to disk", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("b", { x: "1" })] });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(`${LIST}?${STREAM}`);
  await watch.until((events) => events.length === 2);
  await patch(edge.client, "b", { data: { x: "2" } });
  await watch.until((events) => events.length === 3);
  await cut(apiServer, edge);
  watch.close();
  await edge.stop();
  const store = openStore({
    stateDir: edge.stateDir,
    clock: systemClock,
    log: silentLog,
    maxBytes: Number.MAX_SAFE_INTEGER,
    isReadOnly: true,
  });
  expect(store.valueNames("own-write/")).toEqual([]);
  store.close();
});
