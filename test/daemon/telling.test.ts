import { describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { readinessOf } from "../../src/daemon/telling.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import type { CoverageReport } from "../../src/health/coverage-report.ts";
import { NodeCondition, READY_CONDITION, type Readiness } from "../../src/node/node-condition.ts";
import { ReturnEvent } from "../../src/node/return-event.ts";
import { Client, eventually } from "../support/client.ts";
import { linkOf, startEdge } from "../support/edge.ts";
import { ManualClock } from "../support/model.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const STATUS = "/api/v1/nodes/edge1/status";
const MERGE = { "Content-Type": "application/strategic-merge-patch+json", Accept: "application/json" };
const ready = (lastHeartbeatTime: string) =>
  JSON.stringify({ status: { conditions: [{ type: "Ready", status: "True", lastHeartbeatTime }] } });

describe("the condition HoldfastReady", () => {
  /** A real patch to the stand-in, by which time passes only when asked. */
  async function setUp() {
    const apiServer = await startApiServer({
      objects: [
        {
          apiVersion: "v1",
          kind: "Node",
          metadata: { name: "edge1" },
          status: { conditions: [{ type: "Ready", status: "True" }] },
        },
      ],
    });
    const pair = apiServer.cluster.clientCertificate("system:node:edge1", ["system:nodes"]);
    const client = new Client({ url: apiServer.url, ca: apiServer.cluster.ca, ...pair });
    const clock = new ManualClock();
    let readiness: Readiness = { status: "True", reason: "Covered", message: "can walk away: 2 of 2 pods come back" };
    let mayWrite = true;
    const writes: string[] = [];
    const node = () => apiServer.object("Node", "", "edge1") as any;
    const condition = new NodeCondition({
      clock,
      log: silentLog,
      readiness: () => readiness,
      mayWrite: () => mayWrite,
      ownNode: () => Buffer.from(JSON.stringify(node())),
      async patch(body) {
        writes.push(body);
        return (await client.request("PATCH", STATUS, { headers: MERGE, body })).status;
      },
    });
    return {
      ...{ apiServer, client, clock, condition, node, writes },
      set: (next: Partial<Readiness>) => (readiness = { ...readiness, ...next }),
      allow: (may: boolean) => (mayWrite = may),
      shown: () => node().status.conditions.find(({ type }: { type: string }) => type === READY_CONDITION),
      async [Symbol.asyncDispose]() {
        client.close();
        await apiServer.stop();
      },
    };
  }

  test("is written beside kubelet's own, which stand; and kubelet's next write leaves it", async () => {
    await using world = await setUp();
    await world.condition.look();
    expect(world.shown()).toMatchObject({
      status: "True",
      reason: "Covered",
      message: "can walk away: 2 of 2 pods come back",
    });
    const types = () =>
      world
        .node()
        .status.conditions.map(({ type }: { type: string }) => type)
        .sort();
    expect(types()).toEqual([READY_CONDITION, "Ready"].sort());
    const beat = await world.client.request("PATCH", STATUS, { headers: MERGE, body: ready("2026-11-30T00:00:00Z") });
    expect(beat.status).toBe(200);
    expect(types()).toEqual([READY_CONDITION, "Ready"].sort());
    expect(world.shown().status).toBe("True");
  });

  test("is looked at no more once stopped, also where a look was under way; a look that fails is not the last", async () => {
    const clock = new ManualClock();
    const answers: (() => void)[] = [];
    let looks = 0;
    const condition = new NodeCondition({
      clock,
      log: silentLog,
      readiness() {
        if (looks++ === 0) throw new Error("planted");
        return { status: "True", reason: "Covered", message: "" };
      },
      mayWrite: () => true,
      ownNode: () => undefined,
      patch: () => new Promise((resolve) => answers.push(() => resolve(undefined))),
    });
    condition.start();
    await clock.pass(60_000);
    expect([looks, answers.length]).toEqual([2, 1]);
    condition.stop();
    answers[0]!();
    await clock.pass(3_600_000);
    expect(looks).toBe(2);
  });

  test("is written when it changes and not twice within five minutes, however often it changes", async () => {
    await using world = await setUp();
    world.condition.start();
    await world.clock.pass(30_000);
    await eventually(
      () => world.shown()?.status,
      (status) => status === "True",
    );
    const { lastTransitionTime } = world.shown();
    await world.clock.pass(3_600_000);
    expect(world.writes.length).toBe(1);
    world.set({ status: "False", reason: "PodsNotCovered", message: "1 of 2" });
    await world.clock.pass(30_000);
    await eventually(
      () => world.shown()?.status,
      (status) => status === "False",
    );
    expect(world.shown().lastTransitionTime).not.toBe(lastTransitionTime);
    for (let minute = 0; minute < 4; minute++) {
      world.set({ message: `${minute} of 2` });
      await world.clock.pass(60_000);
    }
    expect(world.writes.length).toBe(2);
    await world.clock.pass(120_000);
    await eventually(
      () => world.shown()?.message,
      (message) => message === "3 of 2",
    );
    expect(world.writes.length).toBe(3);
    // The time of the change is the status', not the words'.
    expect(JSON.parse(world.writes[2]!).status.conditions[0].lastTransitionTime).toBe(
      JSON.parse(world.writes[1]!).status.conditions[0].lastTransitionTime,
    );
    world.condition.stop();
  });

  test("is not written while cut, and again when somebody has taken it away", async () => {
    await using world = await setUp();
    world.allow(false);
    await world.condition.look();
    expect(world.writes).toEqual([]);
    world.allow(true);
    await world.condition.look();
    world.apiServer.edit("Node", "", "edge1", (node) => ({
      ...node,
      status: { conditions: [{ type: "Ready", status: "True" }] },
    }));
    await world.clock.pass(300_000);
    await world.condition.look();
    expect(world.shown().status).toBe("True");
    expect(world.writes.length).toBe(2);
  });

  test("says what stands in the way first: lost pods, then the most urgent condition", () => {
    const coverage: CoverageReport = {
      apiVersion: "holdfast.dev/v1alpha1",
      kind: "Coverage",
      atMs: 0,
      node: [],
      imagesFrom: "",
      pods: [],
    };
    const lost = { ...coverage, node: [{ kind: "node", name: "pods", why: "never listed" }] };
    const conditions = [{ type: "StoreInMemory", reason: "ENOSPC", message: "m" }];
    expect(readinessOf({ coverage: undefined, conditions: [] }).status).toBe("Unknown");
    expect(readinessOf({ coverage, conditions: [] })).toMatchObject({
      status: "True",
      reason: "Covered",
    });
    expect(readinessOf({ coverage, conditions })).toMatchObject({
      status: "False",
      reason: "StoreInMemory",
    });
    expect(readinessOf({ coverage: lost, conditions })).toMatchObject({
      status: "False",
      reason: "PodsNotCovered",
    });
  });
});

describe("the Event after a return", () => {
  function setUp() {
    const clock = new ManualClock();
    const counts = { servedFromCache: 10, refusedWrites: 1 };
    const sent: any[] = [];
    const event = new ReturnEvent({
      clock,
      counts: () => counts,
      nodeName: () => "edge1",
      send: async (body) => void sent.push(JSON.parse(body)),
    });
    return { clock, counts, sent, event };
  }

  test("is one, with how long it was and what was answered in it", async () => {
    const { clock, counts, sent, event } = setUp();
    event.changed(false);
    counts.servedFromCache += 30;
    counts.refusedWrites += 2;
    await clock.pass(3_600_000);
    event.changed(true);
    await clock.pass(59_000);
    expect(sent).toEqual([]);
    await clock.pass(1_000);
    expect(sent).toMatchObject([
      {
        kind: "Event",
        reason: "HoldfastReturned",
        involvedObject: { kind: "Node", name: "edge1" },
        message: "Without the control plane for 1h: 30 answers from copies, 2 writes refused",
      },
    ]);
    await clock.pass(3_600_000);
    expect(sent.length).toBe(1);
  });

  test("a link that comes and goes is told of as one, and a moment's cut not at all", async () => {
    const { clock, sent, event } = setUp();
    for (let cut = 0; cut < 4; cut++) {
      event.changed(false);
      await clock.pass(20_000);
      event.changed(true);
      await clock.pass(10_000);
    }
    await clock.pass(60_000);
    expect(sent.map(({ message }) => message)).toEqual([
      "Without the control plane for 1m20s in 4 cuts: 0 answers from copies, 0 writes refused",
    ]);
    event.changed(false);
    await clock.pass(10_000);
    event.changed(true);
    await clock.pass(120_000);
    expect(sent.length).toBe(1);
  });
});

test("a whole daemon tells both with the node's own credential", async () => {
  await using apiServer = await startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
  });
  const clock = new ShiftedClock();
  await using edge = await startEdge({ apiServer, node: "edge1", clock });
  await edge.client.get("/healthz");
  const shown = () =>
    ((apiServer.object("Node", "", "edge1") as any).status?.conditions ?? []).find(
      ({ type }: { type: string }) => type === READY_CONDITION,
    );
  clock.forward(31_000);
  await eventually(shown, (condition) => condition !== undefined);
  // Nobody has looked yet, and then kubelet has not come.
  clock.forward(330_000);
  clock.forward(31_000);
  await eventually(
    () => {
      clock.forward(31_000);
      return shown();
    },
    ({ reason }) => reason === "PodsNotCovered",
  );
  const link = linkOf(apiServer, edge.client);
  await link.cut();
  clock.forward(40_000);
  await link.heal();
  clock.forward(61_000);
  const events = await eventually(
    () => apiServer.objects("Event"),
    (found) => found.length > 0,
  );
  expect(events).toMatchObject([{ reason: "HoldfastReturned", involvedObject: { name: "edge1" } }]);
  expect(
    apiServer.requests
      .filter(({ resource, verb }) => resource === "events" && verb === "create")
      .every(({ user }) => user === "system:node:edge1"),
  ).toBe(true);
}, 20_000);
