/**
 * Requests at work at once: a caller's flood holds up itself, and nobody else.
 */

import { describe, expect, test } from "bun:test";
import type { Entered } from "../../src/callers/gate.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { demoWorld } from "../../src/demo/api-server/seed.ts";
import { requestInfo } from "../../src/front/request-info.ts";
import { Seats } from "../../src/front/seats.ts";
import { startEdge } from "../support/edge.ts";
import { HandClock } from "../store/support.ts";
import { eventually } from "../support/client.ts";

const GET = requestInfo("GET", "/api/v1/namespaces/shop/pods/web-0");
const LIST = requestInfo("GET", "/api/v1/pods");

function caller(principal: string, more: Partial<Entered> = {}): Entered {
  return { principal, isOwn: false, nodeName: undefined, isStranger: false, ...more } as Entered;
}

/** Takes so many, and counts who sits. */
function sit(seats: Seats, who: Entered, count: number, signal = new AbortController().signal, info = GET) {
  const left: (() => void)[] = [];
  const refused: unknown[] = [];
  for (let n = 0; n < count; n++) {
    try {
      const seat = seats.take(who, info, { signal });
      if (seat instanceof Promise)
        seat.then(
          (leave) => left.push(leave),
          (error) => refused.push(error),
        );
      else if (seat !== undefined) left.push(seat);
    } catch (error) {
      refused.push(error);
    }
  }
  return { left, refused };
}

describe("seats", () => {
  test("a caller has 32, its others wait in order, and beyond 256 of those it is told to come back", async () => {
    const seats = new Seats(new HandClock());
    const { left, refused } = sit(seats, caller("a"), 300);
    expect(left).toHaveLength(32);
    expect(refused).toHaveLength(12);
    expect(refused[0]).toMatchObject({ status: { code: 429, retryAfterSeconds: 1 } });
    left[0]!();
    await eventually(() => left.length === 33);
    expect(seats.taken).toBe(32);
  });

  test("all together have 96, who has none has one all the same, and turns go round", async () => {
    const seats = new Seats(new HandClock());
    const many = ["a", "b", "c", "d"].map((name) => sit(seats, caller(name), 40));
    expect(many.map(({ left }) => left.length)).toEqual([32, 32, 32, 1]);
    many[0]!.left[0]!();
    many[0]!.left[1]!();
    // One seat is still too many; the second goes to whoever has waited longest for a turn.
    await eventually(() => many.reduce((sum, { left }) => sum + left.length, 0) === 98);
    expect(seats.taken).toBe(96);
  });

  test("strangers are one caller; the node and what lasts need no seat", () => {
    const seats = new Seats(new HandClock());
    for (let n = 0; n < 40; n++) sit(seats, caller(`made-up-${n}`, { isStranger: true }), 1);
    expect(seats.taken).toBe(32);
    expect(sit(seats, caller("node", { nodeName: "edge-1" }), 100).left).toHaveLength(0);
    const client = { signal: new AbortController().signal };
    for (const target of [
      "/api/v1/pods?watch=true&resourceVersion=7",
      "/api/v1/namespaces/shop/pods/web-0/log?follow=true",
    ])
      expect(seats.take(caller("a"), requestInfo("GET", target), client)).toBeUndefined();
    expect(seats.taken).toBe(32);
  });

  test("a long list takes eight: a caller has four at work, and its next goes to work when one is over", async () => {
    const seats = new Seats(new HandClock());
    const long = { sentBytes: 50 * 1024 * 1024 };
    seats.widths.begun(LIST, long);
    seats.widths.ended(long);
    const signal = new AbortController().signal;
    for (const info of [LIST, requestInfo("GET", "/api/v1/pods?watch=true&sendInitialEvents=true")]) {
      const { left } = sit(seats, caller("a"), 6, signal, info);
      expect(left).toHaveLength(4);
      expect(seats.taken).toBe(32);
      left[0]!();
      await eventually(() => left.length === 5);
      for (const leave of left.slice(1)) leave();
      await eventually(() => left.length === 6);
      left[5]!();
      expect(seats.taken).toBe(0);
    }
  });

  test("who waits too long, or leaves, waits no more", async () => {
    const clock = new HandClock();
    const seats = new Seats(clock);
    const patient = sit(seats, caller("a"), 33);
    const controller = new AbortController();
    const leaving = sit(seats, caller("a"), 1, controller.signal);
    controller.abort();
    await eventually(() => leaving.refused.length === 1);
    expect(patient.refused).toHaveLength(0);
    clock.pass(15_000);
    await eventually(() => patient.refused.length === 1);
    for (const leave of patient.left) leave();
    expect(seats.taken).toBe(0);
  });
});

test("a pod's 300 slow requests: 32 go up, 12 are told to come back, and another pod and the node are answered", async () => {
  await using api = await startApiServer({
    objects: demoWorld(),
    tokens: { flood: { name: "flood", groups: [] }, other: { name: "other", groups: [] } },
  });
  await using edge = await startEdge({ apiServer: api });
  const flood = edge.clientWith({ token: "flood" });
  const other = edge.clientWith({ token: "other" });
  for (const client of [flood, other]) expect((await client.get("/api/v1/namespaces/default")).status).toBe(200);
  api.slow(60_000, { namespace: "held" });
  const statuses: number[] = [];
  const asked = Array.from({ length: 300 }, async (_, n) => {
    const { status, headers } = await flood.get(`/api/v1/namespaces/held/configmaps/c${n}`);
    statuses.push(status);
    if (status === 429) expect(headers["retry-after"]).toBe("1");
  });
  await eventually(() => statuses.length === 12);
  expect(statuses.every((status) => status === 429)).toBe(true);
  for (const client of [other, edge.client])
    expect((await client.get("/api/v1/namespaces/kube-system")).status).toBe(200);
  expect(api.count({ namespace: "held" })).toBe(32);
  api.slow(0);
  await Promise.all(asked);
  expect(statuses.filter((status) => status === 404)).toHaveLength(288);
});
