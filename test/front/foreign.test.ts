/**
 * Something else answers for the API server: an ingress without a backend, a
 * firewall's page, a hotel's portal. Whatever its code, it is a lost link.
 */
import { expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import type { ForeignAnswer } from "../../src/demo/api-server/faults.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
const PAGE = "<!DOCTYPE html><title>Please log in</title>";

const FOREIGN: readonly (readonly [string, ForeignAnswer])[] = [
  ["404 in plain text", { status: 404, body: "404 page not found\n", headers: { "content-type": "text/plain" } }],
  ["403 as a page", { status: 403, body: PAGE }],
  ["401 as a page", { status: 401, body: PAGE }],
  ["401 as JSON", { status: 401, body: '{"error":"no"}', headers: { "content-type": "application/json" } }],
  ["200 as a page", { status: 200, body: PAGE }],
  ["200 with nothing", { status: 200, headers: { "content-type": "application/json" } }],
  ["a redirect", { status: 302, headers: { location: "https://portal.invalid/login" } }],
  ["502 of a balancer", { status: 502, body: PAGE }],
];

async function start() {
  const apiServer = await startApiServer({ objects: [configMap("a", { x: "1" })] });
  const edge = await startEdge({ apiServer, config: "", env: {} });
  return {
    apiServer,
    edge,
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

const metric = async ({ healthUrl }: Edge, name: string) =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(await (await fetch(`${healthUrl}/metrics`)).text())?.[1]);

const isLost = (edge: Edge) =>
  eventually(
    () => metric(edge, "holdfast_upstream_up"),
    (up) => up === 0,
  );

async function returned(apiServer: ApiServer, edge: Edge) {
  await apiServer.heal();
  await eventually(
    () => metric(edge, "holdfast_upstream_up"),
    (up) => up === 1,
  );
}

test.each(FOREIGN)("%s: reads come from the copy, a watch stays open, nothing is lost or kept", async (_, answer) => {
  await using world = await start();
  const { apiServer, edge } = world;
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  expect((await edge.client.get(`${LIST}/a`)).status).toBe(200);
  expect((await edge.client.get("/apis")).status).toBe(200);

  apiServer.answerInstead(answer);
  apiServer.endWatches();
  const copy = await edge.client.get(`${LIST}/a`);
  expect([copy.status, copy.json().data]).toEqual([200, { x: "1" }]);
  expect((await edge.client.get(LIST)).json().items).toHaveLength(1);
  expect((await edge.client.get("/apis")).json().kind).toBe("APIGroupList");
  const unseen = await edge.client.get("/api/v1/namespaces/shop/secrets/s");
  expect([unseen.status, unseen.json().kind]).toEqual([503, "Status"]);
  expect(unseen.headers["location"]).toBeUndefined();
  const written = await edge.client.request("POST", LIST, {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(configMap("b")),
  });
  expect([written.status, written.json().reason]).toEqual([503, "ServiceUnavailable"]);
  await isLost(edge);
  expect(await metric(edge, "holdfast_foreign_answers_total")).toBeGreaterThan(0);
  expect(watch.isOpen).toBe(true);

  // A reboot while it stands in the way: all that was there is there.
  await edge.restart();
  const after = await edge.client.get(`${LIST}/a`);
  expect([after.status, after.json().data]).toEqual([200, { x: "1" }]);
  expect((await edge.client.get(LIST)).json().items).toHaveLength(1);

  await returned(apiServer, edge);
  apiServer.put(configMap("b"));
  const list = await eventually(
    () => edge.client.get(LIST),
    (reply) => reply.status === 200 && reply.json().items.length === 2,
  );
  expect(list.status).toBe(200);
});

test("a page in the place of one path alone: the link stands, the copy answers, the open watch goes on", async () => {
  await using world = await start();
  const { apiServer, edge } = world;
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  expect((await edge.client.get(`${LIST}/a`)).status).toBe(200);

  apiServer.answerInstead({ status: 403, body: PAGE }, { verb: "get", resource: "configmaps" });
  expect((await edge.client.get(`${LIST}/a`)).status).toBe(200);
  const unseen = await edge.client.get(`${LIST}/b`);
  expect(unseen.status).toBe(503);
  expect(unseen.json().message).toContain("Something else answers for the API server (403, text/html)");
  apiServer.put(configMap("c"));
  await watch.until((events) => events.some(({ object }) => object.metadata?.name === "c"));
  expect(await metric(edge, "holdfast_upstream_up")).toBe(1);
});

test("a probe believes a version document alone", async () => {
  for (const [, answer] of FOREIGN) {
    await using world = await start();
    const { apiServer, edge } = world;
    await edge.client.get(LIST);
    apiServer.answerInstead(answer, ({ path }) => path === "/version");
    // Whatever waits makes it look; a request that fails does so at once.
    apiServer.answerInstead({ status: 502 }, { resource: "secrets" });
    await edge.client.get("/api/v1/namespaces/shop/secrets/s");
    await isLost(edge);
  }
});

test("what is no Kubernetes answer by right passes: logs, health, a group that is not there, 429 in plain text", async () => {
  await using world = await start();
  const { apiServer, edge } = world;
  apiServer.put({
    kind: "Pod",
    apiVersion: "v1",
    metadata: { name: "p", namespace: "shop" },
    spec: { containers: [{ name: "c", image: "i" }] },
  });
  expect((await edge.client.get("/api/v1/namespaces/shop/pods/p/log")).body.toString()).toContain("log of shop/p");
  expect((await edge.client.get("/readyz")).body.toString()).toBe("ok");
  const unknown = await edge.client.get("/apis/nobody.example.com/v1/things");
  expect([unknown.status, unknown.body.toString()]).toEqual([404, "404 page not found\n"]);
  const busy = { status: 429, body: "Too many requests, please try again later.\n" };
  apiServer.answerInstead({ ...busy, headers: { "content-type": "text/plain", "retry-after": "1" } }, undefined, 1);
  expect((await edge.client.get("/api/v1/namespaces/shop/secrets/s")).status).toBe(429);
  expect(await metric(edge, "holdfast_foreign_answers_total")).toBe(0);
  expect(await metric(edge, "holdfast_upstream_up")).toBe(1);
});
