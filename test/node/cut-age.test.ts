import { describe, expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { CutAge } from "../../src/node/cut-age.ts";
import { eventually } from "../support/client.ts";
import { startEdge } from "../support/edge.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock, ModelLink } from "../support/model.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const HOUR_MS = 3_600_000;

describe("the age of a cut", () => {
  const startAge = (store: MemoryStore, clock: ManualClock, lastContactMs = 0) => {
    const link = new ModelLink();
    const age = new CutAge({ store, clock, link, lastContactMs: () => lastContactMs });
    return { age, link, stop: age.start() };
  };

  test("is counted from the loss of the link, and ends with its return", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const { age, link } = startAge(store, clock);
    link.turn(false);
    link.turn(true);
    expect(age.ms).toBe(0);
    await clock.pass(HOUR_MS);
    link.turn(false);
    await clock.pass(5 * HOUR_MS);
    expect(age.ms).toBe(5 * HOUR_MS);
    link.turn(true);
    expect(age.ms).toBe(0);
    expect(store.valueNames("cut-age")).toEqual([]);
  });

  test("goes on over restarts, also where nothing could be written in the end and the clock stands in 1970", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const first = startAge(store, clock);
    first.link.turn(false);
    await clock.pass(5 * HOUR_MS + 300_000);
    clock.wallShiftMs = -clock.nowMs();
    const booted = startAge(store, clock);
    await clock.pass(2 * HOUR_MS);
    expect(booted.age.ms).toBeWithin(6.9 * HOUR_MS, 7.2 * HOUR_MS);
    booted.stop();
    expect(startAge(store, clock).age.ms).toBeWithin(6.9 * HOUR_MS, 7.2 * HOUR_MS);
  });

  test("is the calendar's where that says more: the machine was off", () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    expect(startAge(store, clock, clock.nowMs() - 72 * HOUR_MS).age.ms).toBe(72 * HOUR_MS);
    expect(startAge(store, clock, clock.nowMs() + 72 * HOUR_MS).age.ms).toBe(0);
    store.putValue("cut-age", Buffer.from('{"ms":-5}'));
    expect(startAge(store, clock).age.ms).toBe(0);
  });
});

test("Secrets end for pods when the cut has lasted a day, and not for the node; the link brings them back", async () => {
  const secret = {
    kind: "Secret",
    apiVersion: "v1",
    metadata: { name: "key", namespace: "shop" },
    data: { a: "Yg==" },
  };
  await using apiServer = await startApiServer({
    objects: [{ kind: "Namespace", apiVersion: "v1", metadata: { name: "shop" } }, secret] as never,
  });
  const clock = new ShiftedClock();
  await using edge = await startEdge({ apiServer, clock });
  const pod = edge.clientWith({ token: apiServer.serviceAccountToken("shop", "shopkeeper", 400_000) });
  const [path, list] = ["/api/v1/namespaces/shop/secrets/key", "/api/v1/namespaces/shop/secrets"];
  for (const client of [pod, edge.client])
    for (const asked of [path, list]) expect((await client.get(asked)).status).toBe(200);
  const isOffline = (wanted: boolean) =>
    eventually(
      () => pod.get("/healthz"),
      ({ status }) => (status === 503) === wanted,
    );
  await apiServer.cut();
  await isOffline(true);
  const pass = (hours: number) => {
    clock.forward(hours * HOUR_MS);
    // Idle for so long, kept connections are closed.
    for (const client of [pod, edge.client]) client.close();
  };
  pass(23);
  expect((await pod.get(path)).status).toBe(200);
  pass(2);
  for (const asked of [path, list, `${list}?watch=true&resourceVersion=0`]) {
    const ended = await pod.get(asked);
    expect([asked, ended.status, ended.json().message]).toEqual([asked, 503, expect.stringContaining("podSecrets")]);
    expect(ended.body.toString()).not.toContain("Yg==");
  }
  expect((await edge.client.get(path)).json().data).toEqual({ a: "Yg==" });
  await apiServer.heal();
  await isOffline(false);
  expect((await pod.get(path)).status).toBe(200);
});
