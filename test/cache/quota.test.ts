import { describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { Quota } from "../../src/cache/quota.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import type { Scope } from "../../src/cache/scope.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { openStore } from "../../src/store/store.ts";
import { Bench, item, list } from "../store/support.ts";
import { ManualClock, MODEL_LIMITS, ModelLink, ModelServer, Received, settle } from "../support/model.ts";

const NODE = "certificate:system:node:edge-1";
const base: ScopeIdentity = {
  principal: NODE,
  group: "",
  version: "v1",
  resource: "configmaps",
  namespace: "shop",
  fieldSelector: "",
  labelSelector: "",
  representation: "json",
};
/** Does not compress: 30 kB on the disk, too. */
const text = () => crypto.getRandomValues(Buffer.alloc(22_500)).toString("base64");

/** Scopes over a real store with a quota of 600 kB. */
function startWorld() {
  const bench = new Bench();
  const [clock, link, server] = [new ManualClock(), new ModelLink(), new ModelServer()];
  const store = openStore({ stateDir: bench.dir, clock, log: silentLog, maxBytes: 600_000 });
  const scopes = new Scopes(
    {
      store,
      source: server,
      link,
      clock,
      log: silentLog,
      random: () => 0.5,
      countList: () => {},
      limits: { ...MODEL_LIMITS, scopeMaxBytes: 1e9 },
    },
    { retentionMs: 1e12, maxScopes: 1_000 },
  );
  const isOwn = (principal: string) => principal === NODE;
  const quota = new Quota({ store, scopes, isOnline: () => link.isOnline(), isOwn, clock, log: silentLog });
  store.onExcess((isInMemory) => void quota.giveWay(isInMemory));
  return {
    clock,
    link,
    server,
    store,
    scopes,
    quota,
    /** A copy that nobody follows, of so many objects of 30 kB. */
    keep(identity: Partial<ScopeIdentity>, objects: number): Scope {
      const scope = scopes.open({ ...base, ...identity })!;
      list(
        scope.copy,
        Array.from({ length: objects }, (_, n) => item(`o-${n}`, n + 1, { text: text() })),
        100,
      );
      return scope;
    },
    answer(principal: string, n: number, sizeBytes = 7_500) {
      const body = crypto.getRandomValues(Buffer.alloc(sizeBytes));
      store.putResponse(
        { principal, target: `/doc/${n}`, accept: "json" },
        { status: 200, headers: {}, body, storedAtMs: clock.nowMs() + n },
        { isSecret: false },
      );
    },
    answersOf: (principal: string) => store.listResponses().filter(({ key }) => key.principal === principal).length,
    [Symbol.dispose]() {
      scopes.close();
      store.close();
      bench[Symbol.dispose]();
    },
  };
}

const isKept = (scope: Scope) => scope.copy.listed !== undefined;

describe("beyond its quota", () => {
  test("the store gives up what nobody follows: other callers' first, the node's later, what kubelet lives on last", async () => {
    using world = startWorld();
    const pods = world.keep({ resource: "pods" }, 4);
    const services = world.keep({ resource: "services" }, 4);
    const theirPods = world.keep({ principal: "token:x", resource: "pods" }, 4);
    world.answer(NODE, 1, 30_000);
    const kept = () => ({
      theirPods: isKept(theirPods),
      own: world.answersOf(NODE),
      services: isKept(services),
      pods: isKept(pods),
    });
    expect(kept()).toEqual({ theirPods: true, own: 1, services: true, pods: true });
    const steps = [];
    for (let n = 0; n < 4; n++) {
      // Each time more than is left, in one copy that cannot go.
      const before = JSON.stringify(kept());
      while (JSON.stringify(kept()) === before && n < 3) {
        world.keep({ principal: NODE, resource: "pods", namespace: `filler-${n}-${Math.random()}` }, 1);
        world.quota.giveWay(false);
        if (world.quota.last!.copies + world.quota.last!.answers > 0) break;
      }
      steps.push(kept());
    }
    expect(steps.slice(0, 3)).toEqual([
      { theirPods: false, own: 1, services: true, pods: true },
      { theirPods: false, own: 0, services: true, pods: true },
      { theirPods: false, own: 0, services: false, pods: true },
    ]);
  });

  test("a watched copy of the node is neither dropped nor listed again, however long it lasts", async () => {
    using world = startWorld();
    const { server, clock, store } = world;
    for (let n = 0; n < 30; n++) server.put(`o-${n}`, text());
    const scope = world.scopes.open(base)!;
    const received = new Received();
    await scope.watch(
      { resourceVersion: "", sendInitialEvents: true, allowBookmarks: true, timeoutMs: 1e9 },
      () => received,
    );
    await settle();
    expect(store.excessBytes()).toBeGreaterThan(0);
    const { lists } = server;
    for (let minute = 0; minute < 10; minute++) {
      server.put("o-1", text());
      await clock.pass(61_000);
    }
    expect(world.quota.last).toMatchObject({ copies: 0, passedThrough: 0 });
    expect(world.quota.last!.excessBytes).toBeGreaterThan(0);
    expect([server.lists, isKept(scope), received.isEnded]).toEqual([lists, true, false]);
    expect(received.events.at(-1)).toMatch(/^(MODIFIED o-1|BOOKMARK)/);
  });

  test("a watched copy of another caller is passed through from then on, and not listed every minute", async () => {
    using world = startWorld();
    const { server, clock, store } = world;
    for (let n = 0; n < 30; n++) server.put(`o-${n}`, text());
    const own = world.keep({ resource: "pods" }, 2);
    const scope = world.scopes.open({ ...base, principal: "token:x" })!;
    const received = new Received();
    await scope.watch(
      { resourceVersion: "", sendInitialEvents: true, allowBookmarks: true, timeoutMs: 1e9 },
      () => received,
    );
    await settle();
    const { lists } = server;
    server.put("o-1", text());
    await clock.pass(61_000);
    server.put("o-1", text());
    await clock.pass(300_000);
    expect(received.events.at(-1)).toBe("ERROR 410");
    expect([scope.isOversize, isKept(scope), server.lists, isKept(own)]).toEqual([true, false, lists, false]);
    expect(store.excessBytes()).toBeLessThanOrEqual(0);
  });

  test("one caller's recordings push out their own, and neither the node's nor a smaller caller's", () => {
    using world = startWorld();
    for (let n = 0; n < 5; n++) world.answer(NODE, n);
    for (let n = 0; n < 5; n++) world.answer("token:a-small", n);
    for (let n = 0; n < 300; n++) world.answer("token:z-flood", n);
    world.store.flush();
    expect(world.store.excessBytes()).toBeGreaterThan(1_000_000);
    world.quota.giveWay(false);
    expect(world.store.excessBytes()).toBeLessThanOrEqual(0);
    expect([world.answersOf(NODE), world.answersOf("token:a-small")]).toEqual([5, 5]);
    const left = world.store.listResponses().filter(({ key }) => key.principal === "token:z-flood");
    expect(left.length).toBeGreaterThan(30);
    // The latest are left.
    expect(Math.min(...left.map(({ key }) => Number(key.target.slice("/doc/".length))))).toBe(300 - left.length);
  });

  test("nothing goes while cut, unless the disk takes nothing", () => {
    using world = startWorld();
    const copies = [0, 1, 2].map((n) => world.keep({ principal: `token:${n}` }, 10));
    expect(world.store.excessBytes()).toBeGreaterThan(0);
    world.link.turn(false);
    expect(world.quota.giveWay(false)).toMatchObject({ answers: 0, copies: 0, passedThrough: 0 });
    expect(copies.every(isKept)).toBe(true);
    expect(world.quota.giveWay(true)).toMatchObject({ copies: 1, excessBytes: 0 });
  });
});
