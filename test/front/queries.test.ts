/**
 * Queries that mean to the API server something else than they seem to: what
 * Holdfast makes of them, online and cut, must be what the API server makes of
 * them.
 */
import { expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { requestInfo } from "../../src/front/request-info.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const TABLE = { Accept: "application/json;as=Table;v=v1;g=meta.k8s.io" };

async function cut(apiServer: ApiServer, edge: Edge): Promise<void> {
  await apiServer.cut();
  await eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => status === 503,
  );
}

test.each([
  ["watch", "watch"],
  ["watch=", "watch"],
  ["watch=1", "watch"],
  ["watch=true", "watch"],
  ["watch=TRUE", "watch"],
  ["watch=yes", "watch"],
  ["watch=true&watch=false", "watch"],
  ["watch=%zz&watch=true", "watch"],
  ["watch=0", "list"],
  ["watch=false", "list"],
  ["watch=False", "list"],
  ["watch=false&watch=true", "list"],
  ["watch=true;x=1", "list"],
  ["watch=%zz", "list"],
  ["", "list"],
])("a collection with %p is a %s, as Go reads it", (query, verb) => {
  expect(requestInfo("GET", `${LIST}?${query}`).verb).toBe(verb as "list");
});

test.each([
  "/api/v1/namespaces/shop%2Fsecrets",
  "/api/v1/namespaces/shop%2fsecrets/s",
  "/api/v1%2Fsecrets",
  "/apis/apps%2Fv1/deployments",
  "/api/v1/namespaces/shop/pods/a%2Fproxy",
  "/api/v1/namespaces/proxy/secrets%2Fs",
])("%s means another thing to the API server, which decodes first, and is refused", (path) => {
  expect(() => requestInfo("GET", path)).toThrow("encoded slashes");
});

test("a path behind a proxy subresource may hold encoded slashes", () => {
  expect(requestInfo("GET", "/api/v1/namespaces/shop/services/web/proxy/a%2Fb")).toMatchObject({
    resource: "services",
    name: "web",
  });
});

test("a read with a body is a read", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  for (const headers of [{ "Content-Length": "2" }, { "Transfer-Encoding": "chunked" }]) {
    const reply = await edge.client.request("GET", `${LIST}/a`, { headers, body: "{}" });
    expect(reply.status).toBe(200);
  }
  expect(apiServer.count({ verb: "get", resource: "configmaps" })).toBe(2);
});

test("a name in the path makes it a get, whatever the query says of watching", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b")] });
  await using edge = await startEdge({ apiServer });
  const queries = ["watch=true", "watch=true&timeoutSeconds=1", "fieldSelector=metadata.name%3Db"];
  const ask = () => Promise.all(queries.map(async (query) => (await edge.client.get(`${LIST}/a?${query}`)).json()));
  for (const object of await ask()) expect(object).toMatchObject({ kind: "ConfigMap", metadata: { name: "a" } });
  await cut(apiServer, edge);
  for (const object of await ask()) expect(object).toMatchObject({ kind: "ConfigMap", metadata: { name: "a" } });
});

test("a watch asked for in any spelling is a watch while cut too, and its options are read alike", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(LIST);
  await cut(apiServer, edge);
  const query = "watch=yes&sendInitialEvents=YES&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=on";
  const watch = await edge.client.watch(`${LIST}?${query}`);
  await watch.until((events) => events.length === 2);
  expect(watch.events.map(({ type }) => type)).toEqual(["ADDED", "BOOKMARK"]);
  watch.close();
});

test("an object is not answered from a copy older than was asked for", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const { metadata } = (await edge.client.get(LIST)).json();
  await edge.client.get(`${LIST}/a`);
  await cut(apiServer, edge);
  const ask = async (resourceVersion: string) =>
    (await edge.client.get(`${LIST}/a?resourceVersion=${resourceVersion}`)).status;
  expect(await ask("0")).toBe(200);
  expect(await ask(metadata.resourceVersion)).toBe(200);
  expect(await ask("999999999")).toBe(503);
  expect(await ask("abc")).toBe(503);
});

test.each([
  ["resourceVersion=999999999&resourceVersionMatch=Exact", 504],
  ["resourceVersion=999999999&limit=5", 504],
  ["resourceVersion=1&resourceVersionMatch=Exact", 410],
  ["resourceVersion=0&resourceVersionMatch=Exact", 422],
  ["resourceVersion=1&resourceVersionMatch=Nonsense", 422],
  ["resourceVersionMatch=NotOlderThan", 422],
  ["sendInitialEvents=false", 422],
  ["watch=true&continue=abc", 503],
  ["watch=true&sendInitialEvents=true", 503],
])("while cut, a list with %s is answered %d", async (query, status) => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(LIST);
  await cut(apiServer, edge);
  expect((await edge.client.get(`${LIST}?${query}`)).status).toBe(status);
});

test("a Table kept with metadata in its rows does not answer for one with whole objects, or with none", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(LIST, TABLE);
  await cut(apiServer, edge);
  const ask = async (query: string) => (await edge.client.get(`${LIST}${query}`, TABLE)).status;
  expect(await ask("")).toBe(200);
  expect(await ask("?includeObject=Metadata")).toBe(200);
  expect(await ask("?includeObject=Object")).toBe(503);
  expect(await ask("?includeObject=None")).toBe(503);
});
