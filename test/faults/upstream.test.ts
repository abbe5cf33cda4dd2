/**
 * What the API server and the network may do to a list or a watch.
 */

import { expect, test } from "bun:test";
import * as tls from "node:tls";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
const names = (reply: { json<T>(): T }) => (reply.json<any>().items ?? []).map((item: any) => item.metadata.name);

test("a truncated list reaches the client as broken off, and nothing of it is kept", async () => {
  await using apiServer = await startApiServer({
    objects: Array.from({ length: 50 }, (_, i) => configMap(`c-${i}`, { x: "y".repeat(200) })),
  });
  await using edge = await startEdge({ apiServer });
  apiServer.truncateNextList();
  // Where the break was there before the first item, nothing had gone down yet: 503 then.
  const seen = await edge.client.get(LIST).then(
    ({ status }) => status,
    () => "broken off",
  );
  expect(["broken off", 503]).toContain(seen);
  await apiServer.cut();
  expect((await edge.client.get(LIST)).status).toBe(503);
  await apiServer.heal();
  const whole = await eventually(
    () => edge.client.get(LIST),
    ({ status }) => status === 200,
  );
  expect(names(whole)).toHaveLength(50);
});

test("a list of ours that is truncated is not taken for a whole one", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b")] });
  await using edge = await startEdge({ apiServer });
  apiServer.truncateNextList();
  const first = await edge.client.get(`${LIST}?resourceVersion=0`);
  expect(first.status).toBe(503);
  const second = await edge.client.get(`${LIST}?resourceVersion=0`);
  expect(names(second)).toEqual(["a", "b"]);
});

test("half a frame, and bytes that are no event, cost no event and no list", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  const lists = apiServer.count({ verb: "list", resource: "configmaps" });
  await eventually(
    () => apiServer.watchCount,
    (count) => count === 1,
  );
  expect(apiServer.cutWatchFrameInHalf()).toBe(1);
  apiServer.put(configMap("b"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "b"));
  await eventually(
    () => apiServer.watchCount,
    (count) => count === 1,
  );
  expect(apiServer.invalidFrame()).toBe(1);
  apiServer.put(configMap("c"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "c"));
  expect(
    watch.events
      .map(({ type, object }) => `${type} ${object.metadata.name ?? ""}`.trim())
      .filter((event) => event !== "BOOKMARK"),
  ).toEqual(["ADDED a", "ADDED b", "ADDED c"]);
  expect(apiServer.count({ verb: "list", resource: "configmaps" })).toBe(lists);
  watch.close();
});

test("a link that flaps twenty times costs no list, and no event comes twice or is missing", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  const lists = apiServer.count({ verb: "list", resource: "configmaps" });
  for (let round = 0; round < 20; round++) {
    await apiServer.cut();
    apiServer.put(configMap(`during-${round}`));
    await Bun.sleep(30);
    await apiServer.heal();
    apiServer.put(configMap(`after-${round}`));
    await Bun.sleep(30);
  }
  await watch.until((events) => events.filter(({ type }) => type === "ADDED").length >= 41, 30_000);
  const added = watch.events.filter(({ type }) => type === "ADDED").map(({ object }) => object.metadata.name);
  expect(new Set(added).size).toBe(added.length);
  expect(added).toHaveLength(41);
  expect(watch.isOpen).toBe(true);
  expect(apiServer.count({ verb: "list", resource: "configmaps" })).toBe(lists);
  watch.close();
}, 60_000);

test("three hundred watchers of one list are one upstream watch; those that vanish are forgotten", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const watches = await Promise.all(Array.from({ length: 300 }, () => edge.client.watch(STREAM)));
  await Promise.all(watches.map((watch) => watch.until((events) => events.at(-1)?.type === "BOOKMARK")));
  expect(apiServer.watchCount).toBe(1);
  for (const watch of watches.slice(1)) watch.close();
  await eventually(async () =>
    (await (await fetch(`${edge.healthUrl}/metrics`)).text()).includes("holdfast_watchers 1\n"),
  );
  apiServer.put(configMap("b"));
  await watches[0]!.until((events) => events.some(({ object }) => object.metadata.name === "b"));
  watches[0]!.close();
}, 60_000);

test("a client that does not read is ended when the ring has passed it, and holds no memory meanwhile", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
  const socket = tls.connect({
    host: "127.0.0.1",
    port: Number(new URL(edge.url).port),
    ca: readFileSync(join(edge.stateDir, "pki", "local-ca.crt")),
    cert: pair.cert,
    key: pair.key,
    ALPNProtocols: ["http/1.1"],
  });
  socket.write(`GET ${STREAM} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n`);
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  const reading = await edge.client.watch(STREAM);
  await reading.until((events) => events.at(-1)?.type === "BOOKMARK");
  const value = "v".repeat(100_000);
  for (let i = 0; i < 300; i++) {
    apiServer.put(configMap("big", { value, turn: String(i) }));
    if (i % 10 === 0) await Bun.sleep(5);
  }
  await reading.until((events) => events.at(-1)?.object.data?.turn === "299", 30_000);
  // Thirty megabytes went by; the ring holds one, and the stuck client was let go or stands still.
  const metrics = await (await fetch(`${edge.healthUrl}/metrics`)).text();
  expect(/holdfast_watchers [12]\n/.test(metrics)).toBe(true);
  socket.destroy();
  reading.close();
}, 60_000);

test("an object of three megabytes and a list of fifty pass whole, and come back whole", async () => {
  const value = "z".repeat(1_000_000);
  await using apiServer = await startApiServer({
    objects: [
      configMap("three", { a: value, b: value, c: value }),
      ...Array.from({ length: 50 }, (_, i) => configMap(`big-${i}`, { value })),
    ],
  });
  await using edge = await startEdge({ apiServer });
  const online = await edge.client.get(LIST);
  expect(online.body.length).toBeGreaterThan(50_000_000);
  await apiServer.cut();
  const offline = await edge.client.get(LIST);
  expect(offline.status).toBe(200);
  expect(offline.body.equals(online.body)).toBe(true);
  expect((await edge.client.get(`${LIST}/three`)).json().data.c).toHaveLength(1_000_000);
}, 60_000);

test("429 is passed on with its Retry-After; 503 is answered from the copy", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  apiServer.nextStatus({ code: 429, retryAfterSeconds: 3 }, { verb: "get", resource: "configmaps" });
  const throttled = await edge.client.get(`${LIST}/a`);
  expect([throttled.status, throttled.headers["retry-after"]]).toEqual([429, "3"]);
  await edge.client.get(LIST);
  apiServer.nextStatus({ code: 503 }, { verb: "list", resource: "configmaps" });
  expect(names(await edge.client.get(LIST))).toEqual(["a"]);
});

test("a list that stalls half-way on a dead link is broken off, and the copy answers", async () => {
  await using apiServer = await startApiServer({
    objects: Array.from({ length: 400 }, (_, i) => configMap(`c-${i}`, { x: "y".repeat(2_000) })),
  });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(LIST);
  apiServer.stallMidBody({ verb: "list", resource: "configmaps" });
  // Its head is here: without it the copy would answer.
  const stalled = await edge.client.watch(LIST);
  apiServer.blackHole();
  // Somebody else's request notices the silence.
  void edge.client.get("/healthz").catch(() => {});
  expect(await stalled.ended).toBe("broken");
  expect(names(await edge.client.get(LIST))).toHaveLength(400);
}, 60_000);
