/**
 * What is old by right is not history that went back: of all answers only a
 * list that claims to be recent may make followed lists list anew.
 */
import { expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import type { Client } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;

type Ask = (client: Client, apiServer: ApiServer, old: string) => Promise<unknown>;

const write = (method: string, target: string, contentType: string, body: unknown) => (client: Client) =>
  client.request(method, target, { headers: { "Content-Type": contentType }, body: JSON.stringify(body) });
const apply = write("PATCH", `${LIST}/old?fieldManager=me&force=true`, "application/apply-patch+yaml", {
  ...configMap("old"),
  data: { x: "1" },
});

const cases: readonly (readonly [string, Ask])[] = [
  [
    "a list at an exact resourceVersion",
    (client, _, old) => client.get(`${LIST}?resourceVersion=${old}&resourceVersionMatch=Exact`),
  ],
  ["a page of an exact list", (client, _, old) => client.get(`${LIST}?resourceVersion=${old}&limit=1`)],
  [
    "a list not older than",
    (client, _, old) => client.get(`${LIST}?resourceVersion=${old}&resourceVersionMatch=NotOlderThan&limit=1`),
  ],
  ["a patch that changes nothing", write("PATCH", `${LIST}/old`, "application/merge-patch+json", { data: { x: "1" } })],
  [
    "a put that changes nothing",
    async (client) => write("PUT", `${LIST}/old`, "application/json", (await client.get(`${LIST}/old`)).json())(client),
  ],
  ["an apply that changes nothing", apply],
  ["a get of an object", (client) => client.get(`${LIST}/old`)],
  [
    "the patch that removes the last finalizer",
    write("PATCH", `${LIST}/ending`, "application/merge-patch+json", { metadata: { finalizers: null } }),
  ],
  ["a delete", (client) => client.request("DELETE", `${LIST}/old`)],
];

test.each(cases)("%s makes no followed list list anew", async (_, ask) => {
  const ending = { ...configMap("ending"), metadata: { name: "ending", namespace: "shop", finalizers: ["shop/hold"] } };
  await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b"), ending] });
  await using edge = await startEdge({ apiServer });
  const { client } = edge;
  await apply(client);
  await client.request("DELETE", `${LIST}/ending`);
  const old = apiServer.resourceVersion;
  const watch = await client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  apiServer.put(configMap("newer"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "newer"));
  const since = apiServer.requests.length;

  await ask(client, apiServer, old);
  const asked = apiServer.count({ verb: "list", resource: "configmaps" }, since);
  apiServer.put(configMap("last"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "last"));

  expect(apiServer.count({ verb: "list", resource: "configmaps" }, since)).toBe(asked);
  expect(apiServer.count({ verb: "watch", resource: "configmaps" }, since)).toBe(0);
  watch.close();
});

test("a later page makes no followed list list anew", async () => {
  await using apiServer = await startApiServer({ objects: ["a", "b", "c"].map((name) => configMap(name)) });
  await using edge = await startEdge({ apiServer });
  const first = (await edge.client.get(`${LIST}?limit=1`)).json();
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  apiServer.put(configMap("newer"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "newer"));
  const since = apiServer.requests.length;

  const second = (await edge.client.get(`${LIST}?limit=1&continue=${first.metadata.continue}`)).json();
  expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
  apiServer.put(configMap("last"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "last"));

  expect(apiServer.count({ verb: "list", resource: "configmaps" }, since)).toBe(1);
  expect(apiServer.count({ verb: "watch", resource: "configmaps" }, since)).toBe(0);
  watch.close();
});

test("a list that claims to be recent and is older than what is held makes the followed list list anew", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  apiServer.put(configMap("lost"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "lost"));
  apiServer.rollback(1);
  await edge.client.get(LIST);
  // What it holds never was: its client is sent to list.
  await watch.until((events) => events.at(-1)?.type === "ERROR");
  expect(watch.events.at(-1)!.object.code).toBe(410);
});
