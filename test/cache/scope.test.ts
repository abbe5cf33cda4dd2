import { describe, expect, test } from "bun:test";
import type { ListAdoption } from "../../src/cache/list-adoption.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import type { Item, WatchFrame } from "../../src/kube/codec.ts";
import { codecFor } from "../../src/kube/representation.ts";
import { readWatch } from "../../src/uplink/read-answer.ts";
import { UnreachableError, UpstreamRefusedError } from "../../src/uplink/scope-source.ts";
import { answer, CONFIG_MAPS, settle, startModel } from "../support/model.ts";

const NOW_MS = Date.UTC(2026, 10, 24);
const DAY_MS = 86_400_000;
const JSON_CODEC = codecFor("application/json")!;

/** An edit of a row: the nth of this cut. */
const edited = ({ meta, bytes }: Item, nth: number): Item => {
  const resourceVersion = String(5_000_000_001_048_576 + nth);
  return { meta: { ...meta, resourceVersion }, bytes: JSON_CODEC.withResourceVersion(bytes, resourceVersion) };
};

/** Our own lists never come: something answers in the API server's place. @returns ends that. */
function neverLists(server: ReturnType<typeof startModel>["server"]): () => void {
  const { list: honest } = server;
  server.list = (async (_identity: unknown, _page: unknown, signal: AbortSignal) => {
    await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new UnreachableError("given up"))));
  }) as unknown as typeof honest;
  return () => void (server.list = honest);
}

describe("a scope", () => {
  test("streams what is there, marks the end, then follows", async () => {
    const { server, open, watch } = startModel();
    server.put("a", "1");
    server.put("b", "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    server.put("c", "1");
    await settle();
    expect(received.events).toEqual(["ADDED a@101", "ADDED b@102", "BOOKMARK @102", "ADDED c@103"]);
    expect(server.lists).toBe(1);
    expect(server.watches).toHaveLength(1);
    expect(scope.state).toBe("live");
  });

  test("asks its watch to last until the next tick, an object's as well", async () => {
    for (const [selector, least, most] of [
      ["", 240, 721],
      ["metadata.name=settings", 60, 2_401],
    ] as const) {
      const { server, open, watch } = startModel();
      await watch(open(selector).scope, "", { stream: true });
      expect(server.watchSeconds).toHaveLength(1);
      expect(server.watchSeconds[0]).toBeWithin(least, most);
    }
  });

  test("that was used in 1970, before the clock was set, is not the older for it", async () => {
    const { server, clock, open, watch, link } = startModel();
    server.put("a", "1");
    const retentionMs = 7 * DAY_MS;
    clock.wallShiftMs = NOW_MS;
    const before = open("", retentionMs);
    (await watch(before.scope, "", { stream: true })).detach();
    await clock.pass(600_000);
    before.scopes.close();

    clock.wallShiftMs = 0;
    link.turn(false);
    const booted = open("", retentionMs);
    booted.scope.use();
    await clock.pass(600_000);
    clock.wallShiftMs = NOW_MS;
    link.turn(true);
    await clock.pass(2 * 3_600_000);
    expect(booted.scopes.find(booted.scope.identity)).toBe(booted.scope);
    booted.scopes.close();

    const later = open("", retentionMs);
    await clock.pass(2 * 3_600_000);
    expect(later.scopes.find(later.scope.identity)).toBe(later.scope);
    await clock.pass(8 * DAY_MS);
    expect(later.scopes.find(later.scope.identity)).toBeUndefined();
    expect(later.scope.listed).toBeUndefined();
    later.scopes.close();
  });

  test("says nothing at a cut and only what changed at the return, without a list", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    cut();
    await clock.pass(600_000);
    server.put("a", "2");
    server.put("b", "1");
    server.remove("b");
    heal();
    await clock.pass(1_000);
    expect(received.events.filter((event) => !event.startsWith("BOOKMARK"))).toEqual([
      "ADDED a@101",
      "MODIFIED a@102",
      "ADDED b@103",
      "DELETED b@104",
    ]);
    expect(server.lists).toBe(1);
    expect(received.isEnded).toBe(false);
  });

  test("lists once after compaction and tells the difference, then the epoch; older resumes get 410", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    cut();
    await settle();
    server.put("b", "2");
    server.remove("a");
    server.remove("c");
    server.put("c", "again");
    server.compact();
    heal();
    await clock.pass(5_000);
    expect(received.events.slice(4)).toEqual([
      "MODIFIED b@104",
      "DELETED c@106",
      "DELETED a@106",
      "ADDED c@107",
      "BOOKMARK @107",
    ]);
    expect(server.lists).toBe(2);
    expect((await watch(scope, "104")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    expect((await watch(scope, "107")).received.isEnded).toBe(false);
  });

  test("who left in the middle of a difference lists again, and who lists at its epoch may watch from there at once", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    const { received, detach } = await watch(scope, "", { stream: true });
    cut();
    await settle();
    for (const name of ["a", "b", "c"]) server.remove(name);
    server.compact();
    received.isStuck = true;
    heal();
    await clock.pass(5_000);
    // It took the first frames and no more: whatever it has of the difference stands below the epoch.
    expect(received.events.at(-1)).toBe("DELETED a@105");
    detach();
    expect((await watch(scope, "105")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    using list = scope.snapshot()!;
    expect(list.listed.resourceVersion).toBe("106");
    const { received: fresh } = await watch(scope, "106");
    server.put("d", "1");
    await clock.pass(50_000);
    expect(fresh.events.slice(0, 1)).toEqual(["ADDED d@107"]);
    expect(fresh.isEnded).toBe(false);
  });

  test("who left in the middle of a difference is not vouched for by the API server's history either", async () => {
    const { server, clock, open, watch, cut, heal } = startModel({ lingerMs: 1_000 });
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    const { received, detach } = await watch(scope, "", { stream: true });
    cut();
    await settle();
    server.remove("b");
    server.put("a", "2");
    server.compact();
    server.put("c", "2");
    received.isStuck = true;
    heal();
    await clock.pass(1_000);
    // At 105 b is gone, but the difference says so only at its end.
    expect(received.events.at(-1)).toBe("MODIFIED a@105");
    detach();
    await clock.pass(5_000);
    expect(scope.isFollowing).toBe(false);
    expect((await watch(scope, "105")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
  });

  test("a resume below the copy: what the ring knows is told, what it does not know the API server is asked, or 410 while cut", async () => {
    const { server, open, watch, cut } = startModel({ ringMaxEvents: 2 });
    server.put("a", "1");
    const { scope } = open();
    await watch(scope, "", { stream: true });
    server.put("a", "2");
    server.put("a", "3");
    server.put("a", "4");
    await settle();
    expect((await watch(scope, "102")).received.events).toEqual(["MODIFIED a@103", "MODIFIED a@104"]);
    await expect(watch(scope, "101")).rejects.toMatchObject({ code: "ASK_UPSTREAM" });
    cut();
    expect((await watch(scope, "101")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    expect((await watch(scope, "103")).received).toMatchObject({ events: ["MODIFIED a@104"], isEnded: false });
  });

  test("a scope that slept vouches for an older moment by following from there", async () => {
    const { server, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    await watch(scope, "", { stream: true });
    server.put("b", "1");
    server.put("c", "1");
    await settle();
    scopes.close();
    expect(scope.copy.listed!.resourceVersion).toBe("103");
    // Another process on the same rows, as after a restart: its ring is empty.
    const { scope: restarted } = open();
    const { received } = await watch(restarted, "101");
    server.put("d", "1");
    await settle();
    expect(received.events).toEqual(["ADDED b@102", "ADDED c@103", "ADDED d@104"]);
  });

  test("an older moment that the API server has forgotten is not vouched for, though it says so only in an event", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    await watch(scope, "", { stream: true });
    server.put("b", "1");
    server.put("c", "1");
    await settle();
    scopes.close();
    server.compact();
    const { watch: honest } = server;
    server.watch = async (...request) => {
      try {
        return await honest.apply(server, request);
      } catch {
        return readWatch(
          answer(200, ['{"type":"ERROR","object":{"kind":"Status","code":410}}\n']),
          CONFIG_MAPS,
          request[1].shape,
        );
      }
    };
    const { scope: restarted } = open();
    const { received } = await watch(restarted, "101");
    expect(received.events).toEqual(["ERROR 410"]);
    expect(received.isEnded).toBe(true);
    await clock.pass(1_000);
    expect(server.watchRequests.slice(1)).toEqual(["101", "103"]);
  });

  test("a replay for a resuming watcher that breaks off goes on where it was", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    await watch(scope, "", { stream: true });
    for (const name of ["b", "c", "d"]) server.put(name, "1");
    await settle();
    scopes.close();
    const { watch: honest } = server;
    server.watch = async (...request) => {
      const answered = await honest.apply(server, request);
      server.watch = honest;
      async function* first(): AsyncGenerator<readonly WatchFrame[]> {
        for await (const batch of answered.batches) return yield batch;
      }
      return { ...answered, batches: first() };
    };
    const { scope: restarted } = open();
    const { received } = await watch(restarted, "101");
    await clock.pass(1_000);
    expect(received.events).toEqual(["ADDED b@102", "ADDED c@103", "ADDED d@104"]);
    expect(server.watchRequests.slice(1)).toEqual(["101", "102"]);
  });

  test("a watcher ahead of the copy sees only what is newer than its own moment", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    server.put("a", "1");
    const { scope } = open();
    await watch(scope, "", { stream: true });
    server.watches.forEach((one) => (one.push = () => {}));
    server.put("a", "2");
    const { received } = await watch(scope, "102");
    cut();
    expect((await watch(scope, "102")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    heal();
    server.put("a", "3");
    await clock.pass(1_000);
    expect(received.events.filter((event) => !event.startsWith("BOOKMARK"))).toEqual(["MODIFIED a@103"]);
  });

  test("a watcher ahead of the copy is told of no edits: they are of rows older than what it has seen", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received: level } = await watch(scope, "", { stream: true });
    server.watches.forEach((one) => (one.push = () => {}));
    server.put("a", "2");
    const { received: ahead } = await watch(scope, "102", { bookmarks: true });
    const row = [...scope.rows()!.items()][0]!;
    cut();
    scope.edit([edited(row, 1)]);
    await clock.pass(60_000);
    expect(level.events.filter((event) => event.startsWith("MODIFIED"))).toHaveLength(1);
    expect(ahead.events).toEqual([]);
    expect((await watch(scope, "102")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    heal();
    await clock.pass(1_000);
    server.put("a", "3");
    await clock.pass(1_000);
    expect(level.events.at(-1)).toBe("ERROR 410");
    expect(ahead.events.filter((event) => !event.startsWith("BOOKMARK"))).toEqual(["MODIFIED a@103"]);
  });

  test("a watcher that began ahead of the copy is not told how the copy differs from a new list", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    await watch(scope, "", { stream: true });
    server.watches.forEach((one) => (one.push = () => {}));
    server.put("b", "1");
    const { received } = await watch(scope, "102");
    // The rows end at 101: a difference from there never speaks of b.
    server.remove("b");
    server.compact();
    server.breakWatches();
    await clock.pass(1_000);
    expect(scope.listed!.resourceVersion).toBe("103");
    expect(received.events).toEqual(["ERROR 410"]);
  });

  test("no bookmark goes to a watcher before what it missed was replayed", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    await watch(scope, "", { stream: true });
    server.put("b", "1");
    await settle();
    scopes.close();
    const { watch: honest } = server;
    const gate = Promise.withResolvers<void>();
    server.watch = async (...request) => {
      const answered = await honest.apply(server, request);
      async function* late(): AsyncGenerator<readonly WatchFrame[]> {
        await gate.promise;
        yield* answered.batches;
      }
      return { ...answered, batches: late() };
    };
    const { scope: restarted } = open();
    const { received } = await watch(restarted, "101");
    await clock.pass(50_000);
    expect(received.events).toEqual([]);
    gate.resolve();
    await clock.pass(50_000);
    expect(received.events).toEqual(["ADDED b@102", "BOOKMARK @102"]);
  });

  test("a scope whose rows are taken away while a watch waits for them says that there are none", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    await scope.ensureFresh();
    const adoption = scope.adopt();
    const waiting = watch(scope, "999", { stream: true });
    const asleep = scopes.open({ ...scope.identity, labelSelector: "app=x" })!.adopt()!;
    await settle();
    scopes.forget("token:x", () => true);
    await Promise.all([clock.pass(5_000), expect(waiting).rejects.toMatchObject({ status: { code: 503 } })]);
    expect(adoption).toBeUndefined();
    expect(asleep.begin("application/json")).toBe(false);
  });

  test("of forwarded lists of one scope, one at a time is read along; the next when that one is over", async () => {
    const { open } = startModel();
    const { scope } = open();
    const [first, second, third] = [scope.adopt()!, scope.adopt()!, scope.adopt()!];
    expect([first, second].map((one) => one.begin("application/json"))).toEqual([true, false]);
    // What never began ends nobody else's.
    second.abort();
    expect(third.begin("application/json")).toBe(false);
    first.abort();
    expect(third.begin("application/json")).toBe(true);
    third.push(Buffer.from('{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}'));
    third.end();
    expect(scope.servedVersion).toBe("7");
    expect(scope.adopting.isTaken).toBe(false);
  });

  test("a forwarded list that was asked for before a refusal takes no withholding back, one asked for after it does", async () => {
    const { server, open } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const take = (adoption: ListAdoption) => {
      adoption.begin("application/json");
      adoption.push(Buffer.from(server.listText()));
      adoption.end();
    };
    take(scope.adopt()!);
    scope.rest();
    const early = scope.adopt()!;
    scope.withhold({ code: 403, reason: "Forbidden", message: "no" });
    take(early);
    expect(scope.isWithheld).toBe(true);
    take(scope.adopt()!);
    expect(scope.isWithheld).toBe(false);
  });

  test("a forwarded list that comes whole before the first one of our own counts, and who waited for that one is served", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const forwarded = scope.adopt()!;
    forwarded.begin("application/json");
    const comeAgain = neverLists(server);
    const waiting = watch(scope, "", { stream: true });
    await settle();
    expect(scope.state).toBe("listing");
    forwarded.push(Buffer.from(server.listText()));
    forwarded.end();
    const { received } = await waiting;
    expect(scope.servedVersion).toBe("101");
    comeAgain();
    server.put("b", "1");
    await clock.pass(1_000);
    expect(received.events).toEqual(["ADDED a@101", "BOOKMARK @101", "ADDED b@102"]);
    expect(server.lists).toBe(0);
  });

  test("a slow watcher costs one ring and is ended when the ring has passed it", async () => {
    const { server, clock, open, watch } = startModel({ ringMaxEvents: 5 });
    server.put("a", "0");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    received.isStuck = true;
    for (let i = 1; i <= 20; i++) server.put("a", String(i));
    // It is waited for once, for half a second, and then no more.
    await clock.pass(2_000);
    received.drain();
    await settle();
    expect(received.isEnded).toBe(true);
    expect(scope.watcherCount).toBe(0);
  });

  test("a restored backup ends watchers with 410 and lists, also when noticed between two upstream watches", async () => {
    const { server, clock, open, watch } = startModel();
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scopes, scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    server.restore(101, ["a"]);
    await settle();
    scopes.noticeResourceVersion("", "configmaps", "101", "103");
    await clock.pass(5_000);
    expect(received.events.at(-1)).toBe("ERROR 410");
    expect(scope.listed!.resourceVersion).toBe("101");
    const { received: again } = await watch(scope, "", { stream: true });
    expect(again.events).toEqual(["ADDED a@101", "BOOKMARK @101"]);
  });

  test("a permission taken back ends the watch in the API server's words and withholds the rows, until it is given again", async () => {
    const { server, clock, store, open, watch } = startModel();
    server.put("a", "1");
    const { scopes, scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    server.refuse = { status: 403, reason: "Forbidden" };
    server.breakWatches();
    await clock.pass(5_000);
    expect(received.events.at(-1)).toBe("ERROR 403");
    expect(scope.listed).toBeUndefined();
    expect([scope.snapshot(), scope.item("shop", "a"), scope.row("shop", "a")]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(store.copies().map(({ isWithheld, listed }) => [isWithheld, listed?.resourceVersion])).toEqual([
      [true, "101"],
    ]);
    await expect(scope.ensureFresh()).rejects.toMatchObject({ code: "UPSTREAM_REFUSED" });

    server.refuse = undefined;
    await scope.ensureFresh();
    expect([scope.isWithheld, scope.listed?.resourceVersion]).toEqual([false, "101"]);
    expect([...scopes.all()]).toEqual([scope]);
  });

  test("a list of what was withheld is given up when it is allowed again before it comes: its watch goes on", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    await watch(scope, "", { stream: true });
    scope.withhold({ code: 403, reason: "Forbidden", message: "no" });
    server.put("b", "1");
    const comeAgain = neverLists(server);
    const waiting = watch(scope, "", { stream: true });
    await settle();
    expect(scope.state).toBe("listing");
    scope.release();
    comeAgain();
    const { received } = await waiting;
    await clock.pass(1_000);
    expect(received.events).toEqual(["ADDED a@101", "BOOKMARK @101", "ADDED b@102"]);
    // The very first one.
    expect(server.lists).toBe(1);
  });

  test("too large a list is never half kept", async () => {
    const { server, open } = startModel({ scopeMaxItems: 2 });
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    await expect(scope.ensureFresh()).rejects.toMatchObject({ code: "SCOPE_TOO_LARGE" });
    expect(scope.isOversize).toBe(true);
    expect(scope.rows()).toBeUndefined();
  });

  for (const [how, relists] of [
    ["event by event", false],
    ["between two watches", true],
  ] as const)
    test(`a collection that outgrows its bounds ${how} is passed through, and nothing of it is kept`, async () => {
      const { server, clock, store, open, watch, cut, heal } = startModel({ scopeMaxItems: 2 });
      server.put("a", "1");
      const { scope } = open();
      const { received } = await watch(scope, "", { stream: true });
      if (relists) cut();
      server.put("b", "1");
      server.put("c", "1");
      if (relists) {
        server.compact();
        heal();
      }
      await clock.pass(5_000);
      expect(received.events.at(-1)).toBe("ERROR 410");
      expect(scope.isOversize).toBe(true);
      expect([scope.listed, scope.rows()]).toEqual([undefined, undefined]);
      expect(store.copies().filter(({ listed }) => listed !== undefined)).toEqual([]);
      cut();
      await expect(watch(scope, "102")).rejects.toMatchObject({ status: { code: 503 } });
    });

  test("a client whose socket is full finds the last word all the same", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    received.isStuck = true;
    server.put("a", "2");
    await settle();
    server.refuse = { status: 403, reason: "Forbidden" };
    server.breakWatches();
    await clock.pass(5_000);
    expect(received).toMatchObject({ isEnded: true });
    expect(received.events.at(-1)).toBe("ERROR 403");
  });

  test("a client that reads nothing of a return finds 410, and cannot go on from where edits have brought it", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    const rows = [...scope.rows()!.items()];
    cut();
    scope.edit([edited(rows[1]!, 1), edited(rows[0]!, 2)]);
    received.isStuck = true;
    scope.edit([edited(rows[2]!, 3)]);
    heal();
    await clock.pass(5_000);
    expect(received).toMatchObject({ isEnded: true });
    expect(received.events.at(-1)).toBe("ERROR 410");
    for (const at of ["5000000001048578", "5000000001048579"])
      expect((await watch(scope, at)).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
  });

  test("at a return the rows in the edits' places go out oldest first, then what was missed, then 410", async () => {
    const { server, clock, open, watch, cut, heal } = startModel();
    for (const name of ["a", "b", "c"]) server.put(name, "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    const [a, b] = [...scope.rows()!.items()];
    cut();
    scope.edit([edited(b!, 1), edited(a!, 2)]);
    server.remove("a");
    server.put("d", "1");
    heal();
    await clock.pass(5_000);
    expect(received.events.slice(6)).toEqual([
      "MODIFIED a@101",
      "MODIFIED b@102",
      "BOOKMARK @103",
      "DELETED a@104",
      "ADDED d@105",
      "ERROR 410",
    ]);
    // Whoever was lost on the way stands at a moment of the API server's, and is told everything newer.
    expect((await watch(scope, "103")).received.events).toEqual(["DELETED a@104", "ADDED d@105"]);
  });

  test("an event takes all edits off, also where the watch stood all the while", async () => {
    const { open, server, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    server.put("b", "1");
    await settle();
    const [a, b] = [...scope.rows()!.items()];
    scope.edit([edited(a!, 1), edited(b!, 2)]);
    server.put("a", "2");
    await settle();
    expect(received.events.slice(3)).toEqual([
      "MODIFIED a@5000000001048577",
      "MODIFIED b@5000000001048578",
      "MODIFIED a@101",
      "MODIFIED b@102",
      "BOOKMARK @102",
      "MODIFIED a@103",
    ]);
    expect([scope.isEdited, scope.servedVersion, scope.isReturning]).toEqual([false, "103", true]);
    scope.endEdits();
    expect(received.events.at(-1)).toBe("ERROR 410");
  });

  test("edits laid before a watch has caught up are not taken for those of the cut before", async () => {
    const { clock, open, server, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received } = await watch(scope, "", { stream: true });
    const [row] = [...scope.rows()!.items()];
    expect([scope.state, scope.hasCaughtUp]).toEqual(["live", false]);
    scope.edit([edited(row!, 1)]);
    await clock.pass(5_000);
    expect([scope.isEdited, received.isEnded]).toEqual([true, false]);
  });

  test("a follow loop that ends late says nothing about its successor", async () => {
    const { clock, open, server, watch } = startModel({ lingerMs: 1_000 });
    server.put("a", "1");
    const { scope } = open();
    const { watch: honest } = server;
    const late = Promise.withResolvers<void>();
    // Its first watch ends long after it was given up.
    server.watch = async (...request) => {
      const answered = await honest.apply(server, request);
      server.watch = honest;
      async function* lingering() {
        try {
          yield* answered.batches;
        } catch {
          await late.promise;
        }
      }
      return { codec: answered.codec, batches: lingering() };
    };
    await scope.ensureFresh();
    await clock.pass(5_000);
    expect(scope.isFollowing).toBe(false);
    const { received } = await watch(scope, "101");
    expect(scope.state).toBe("live");
    late.resolve();
    await settle();
    expect([scope.state, scope.isFollowing]).toEqual(["live", true]);
    server.put("b", "1");
    await settle();
    expect(received.events).toEqual(["ADDED b@102"]);
  });

  test("an event for a scope that was dropped is no failure", async () => {
    const errors: string[] = [];
    const { clock, parts, server } = startModel();
    server.put("a", "1");
    const scopes = new Scopes(
      { ...parts, log: { ...parts.log, error: (message: string) => void errors.push(message) } },
      { retentionMs: 1e9, maxScopes: 10 },
    );
    const plain = { principal: "token:x", namespace: "shop", fieldSelector: "", labelSelector: "" };
    const scope = scopes.open({ ...CONFIG_MAPS, ...plain, representation: "json" })!;
    await scope.ensureFresh();
    await settle();
    expect(scope.state).toBe("live");
    scope.copy.drop();
    server.put("b", "1");
    await clock.pass(5_000);
    expect(errors).toEqual([]);
    expect([scope.listed, scope.isFollowing]).toEqual([undefined, false]);
  });

  test("a 410 storm costs lists with growing pauses, not a busy loop", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    await watch(scope, "", { stream: true });
    const { watch: honest } = server;
    server.watch = async () => {
      throw new UpstreamRefusedError(410, "application/json", "", undefined);
    };
    server.breakWatches();
    await clock.pass(60_000);
    expect(server.lists).toBeLessThan(20);
    server.watch = honest;
    await clock.pass(60_000);
    expect(scope.state).toBe("live");
  });

  test("bookmarks come in their time, to those who asked for them", async () => {
    const { server, clock, open, watch } = startModel();
    server.put("a", "1");
    const { scope } = open();
    const { received: wants } = await watch(scope, "", { stream: true });
    const { received: doesNot } = await watch(scope, "101", { bookmarks: false });
    await clock.pass(100_000);
    expect(wants.events.slice(2)).toEqual(["BOOKMARK @101", "BOOKMARK @101"]);
    expect(doesNot.events).toEqual([]);
  });

  test("followed for the linger time after its last use, then asleep with its rows", async () => {
    const { server, clock, open } = startModel({ lingerMs: 1_000 });
    server.put("a", "1");
    const { scope } = open();
    await scope.ensureFresh();
    await settle();
    expect(server.watches).toHaveLength(1);
    await clock.pass(2_000);
    expect(server.watches).toHaveLength(0);
    expect(scope.state).toBe("stale");
    expect(scope.listed!.resourceVersion).toBe("101");
  });
});
