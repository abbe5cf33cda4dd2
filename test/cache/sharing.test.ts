import { describe, expect, test } from "bun:test";
import { settle } from "../support/model.ts";
import { changesOf, eventFor, startSharingModel } from "../support/sharing-model.ts";

const WEB = { labelSelector: "app=web" };
const NOT_PROXIED = { labelSelector: "!proxy" };
const WITH_ADDRESS = { fieldSelector: "spec.clusterIP!=None" };

describe("scopes that share one watch", () => {
  test("list from the base and follow it, and ask the API server nothing but whether they may", async () => {
    const { server, sharing, follow } = startSharingModel();
    server.put("web", { app: "web" });
    server.put("db", { app: "db" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.put("web-2", { app: "web" });
    server.put("db-2", { app: "db" });
    await settle();

    expect(web.received.events).toEqual(["ADDED web@101", "BOOKMARK @102", "ADDED web-2@103"]);
    expect(server.lists).toHaveLength(1);
    expect(server.watchesOpened).toHaveLength(1);
    expect(server.reviews).toEqual(["agent list ", "agent watch "]);
    expect(web.scope.state).toBe("live");
    expect(sharing.baseOf(web.scope)?.identity.principal).toBe("dns");
    expect(sharing.bytes).toBeGreaterThan(250);
  });

  test("an object that comes to match is ADDED, one that ceases to is DELETED in its last matching state", async () => {
    const { server, follow } = startSharingModel();
    server.put("a", { app: "db" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.put("a", { app: "web" });
    server.put("a", { app: "web", more: "yes" });
    server.put("a", { app: "db" });
    server.put("a", { app: "db", more: "yes" });
    server.put("a", { app: "web" });
    server.remove("a");
    await settle();
    expect(changesOf(web.received)).toEqual([
      "ADDED a@102",
      "MODIFIED a@103",
      "DELETED a@104",
      "ADDED a@106",
      "DELETED a@107",
    ]);
    expect([...web.scope.rows()!.items()]).toEqual([]);
  });

  test("ask anew whether they may when something was refused to their caller on another way", async () => {
    const { server, scopes, follow } = startSharingModel();
    server.put("a", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.forbidden.add("agent");
    server.refused.add("agent");
    scopes.withhold("agent", () => true, { code: 403, reason: "Forbidden", message: "no" });
    await expect(web.scope.ensureFresh()).rejects.toThrow();
    await settle();
    expect(server.reviews).toEqual(["agent list ", "agent watch ", "agent list "]);
    expect(web.scope.isWithheld).toBe(true);
  });

  test("begin together: the second waits for the first one's list instead of making its own", async () => {
    const { server, clock, follow } = startSharingModel();
    server.put("a", { app: "web" });
    const both = Promise.all([follow("dns"), follow("agent", WEB)]);
    await clock.pass(1_000);
    const [, web] = await both;
    expect(web.received.events).toEqual(["ADDED a@101", "BOOKMARK @101"]);
    expect(server.lists).toHaveLength(1);
    expect(server.watches).toHaveLength(1);
  });

  test("a scope followed before the base came is moved to it, without a list and without a gap", async () => {
    const { server, clock, follow } = startSharingModel();
    server.put("a", { app: "web" });
    const web = await follow("agent", WEB);
    server.put("b", { app: "db" });
    await follow("dns");
    expect(server.watches).toHaveLength(2);
    // The base begins at 102; the scope stands at 101 until a bookmark takes it further.
    await clock.pass(20_000);
    expect(server.watches).toHaveLength(2);
    server.bookmark();
    await clock.pass(20_000);
    expect(server.watches.map(({ identity }) => identity.principal)).toEqual(["dns"]);
    server.put("c", { app: "web" });
    await settle();
    expect(changesOf(web.received)).toEqual(["ADDED a@101", "ADDED c@103"]);
    expect(server.lists).toHaveLength(2);
  });

  test("after a cut they resume together through one watch, with exactly what was missed", async () => {
    const { server, clock, follow, cut, heal } = startSharingModel();
    server.put("a", { app: "web" });
    server.put("b", { app: "db" });
    await follow("dns");
    const web = await follow("agent", WEB);
    await cut();
    await clock.pass(3_600_000);
    server.put("a", { app: "db" });
    server.put("b", { app: "web" });
    server.put("c", { app: "web" });
    server.remove("c");
    heal();
    await clock.pass(1_000);
    expect(changesOf(web.received)).toEqual([
      "ADDED a@101",
      "DELETED a@103",
      "ADDED b@104",
      "ADDED c@105",
      "DELETED c@106",
    ]);
    expect(server.lists).toHaveLength(1);
    expect(server.watchesOpened.map(({ principal }) => principal)).toEqual(["dns", "dns"]);
  });

  test("after compaction one list serves all", async () => {
    const { server, clock, follow, cut, heal } = startSharingModel();
    for (const name of ["a", "b"]) server.put(name, { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    await cut();
    server.put("a", { app: "db" });
    server.remove("b");
    server.put("c", { app: "web" });
    server.compact();
    heal();
    await clock.pass(5_000);
    expect(web.received.events.slice(3)).toEqual(["DELETED a@104", "DELETED b@104", "ADDED c@105", "BOOKMARK @105"]);
    expect(server.lists).toHaveLength(2);
    expect(server.watches).toHaveLength(1);
  });

  test("a base that lists anew by itself is a new beginning for all: what it tells is a difference, not history", async () => {
    const { server, clock, relists, follow, watch } = startSharingModel();
    for (const name of ["a", "b", "c"]) server.put(name, { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    for (const watch of server.watches) watch.push = () => {};
    server.remove("a");
    server.remove("b");
    server.compact();
    server.breakWatches();
    await clock.pass(5_000);
    expect(web.received.events.slice(4)).toEqual(["DELETED a@104", "DELETED b@105", "BOOKMARK @105"]);
    expect(relists).toEqual(["first", "first", "expired", "expired"]);
    expect((await watch(web.scope, "104")).received).toMatchObject({ events: ["ERROR 410"], isEnded: true });
    expect(server.lists).toHaveLength(2);
    expect(server.watches).toHaveLength(1);
  });

  test("scopes that select alike share the first one's watch, and go on doing so after a cut", async () => {
    const { server, clock, follow, cut, heal } = startSharingModel();
    server.put("a");
    const all = [await follow("dns"), await follow("agent"), await follow("router")];
    await cut();
    server.put("b");
    heal();
    await clock.pass(2_000);
    for (const { received } of all) expect(changesOf(received)).toEqual(["ADDED a@101", "ADDED b@102"]);
    expect(server.lists).toHaveLength(1);
    expect(server.watches.map(({ identity }) => identity.principal)).toEqual(["dns"]);
  });

  test("a slow reader of a shared watch does not hold up the others", async () => {
    const { server, clock, follow } = startSharingModel({ ringMaxEvents: 5 });
    server.put("a", { app: "web" });
    const dns = await follow("dns");
    const web = await follow("agent", WEB);
    web.received.isStuck = true;
    for (let i = 1; i <= 20; i++) server.put("a", { app: "web", turn: String(i) });
    await clock.pass(5_000);
    expect(changesOf(dns.received).at(-1)).toBe("MODIFIED a@121");
    expect(web.scope.listed!.resourceVersion).toBe("121");
  });

  test("a restored backup reaches all of them", async () => {
    const { server, clock, scopes, follow } = startSharingModel();
    for (const name of ["a", "b", "c"]) server.put(name, { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.restore(101, ["a"]);
    await settle();
    scopes.noticeResourceVersion("", "services", "101", "103");
    await clock.pass(5_000);
    expect(web.received.events.at(-1)).toBe("ERROR 410");
    expect(web.scope.listed!.resourceVersion).toBe("101");
  });

  test("a base that is about to list after a restored backup is not listed from", async () => {
    const { server, clock, scopes, follow } = startSharingModel();
    const { watch } = server;
    // It takes the base a while to leave its watch.
    server.watch = (identity, from, seconds, signal) =>
      watch.call(server, identity, from, seconds, identity.principal === "dns" ? new AbortController().signal : signal);
    for (const name of ["a", "b", "c"]) server.put(name, { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.restore(101, ["a"]);
    scopes.noticeResourceVersion("", "services", "101", "103");
    await clock.pass(1_000);
    expect(web.received.events.at(-1)).toBe("ERROR 410");
    expect(web.scope.listed!.resourceVersion).toBe("101");
  });

  test("a resume from an older moment than the rows is not shared: what was selected then is not known", async () => {
    const { server, clock, follow, watch } = startSharingModel();
    server.put("a", { app: "web" });
    await follow("dns");
    server.put("a", { app: "db" });
    server.put("b", { app: "web" });
    const web = await follow("agent", WEB);
    web.detach();
    await clock.pass(400_000);
    expect(web.scope.isFollowing).toBe(false);
    const { received } = await watch(web.scope, "101");
    expect(received.events).toEqual(["DELETED a@102", "ADDED b@103"]);
  });

  test("a resume from before the copy is the API server's matter, and is moved back later", async () => {
    const { server, clock, restart, follow, watch } = startSharingModel();
    server.put("a", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.put("a", { app: "db" });
    server.put("b", { app: "web" });
    await settle();
    // Another process on the same rows: its rings are empty, and nothing is proven.
    const { sharing, scopes, follow: followAgain } = restart();
    const dns = followAgain("dns");
    await clock.pass(1_000);
    await dns;
    const again = scopes.find(web.scope.identity)!;
    const { received } = await watch(again, "101");
    expect(server.watchesOpened.at(-1)!.principal).toBe("agent");
    expect(received.events).toEqual(["DELETED a@102", "ADDED b@103"]);
    await clock.pass(5_000);
    expect(sharing.baseOf(again)?.identity.principal).toBe("dns");
    server.put("b", { app: "db" });
    await settle();
    expect(received.events.at(-1)).toBe("DELETED b@104");
    expect(server.lists).toHaveLength(1);
  });
});

describe("permission", () => {
  test("who may not read the whole gets nothing of another's, online or cut", async () => {
    const { server, clock, store, follow, cut } = startSharingModel();
    server.put("web", { app: "web" });
    server.put("db", { app: "db" });
    server.forbidden.add("agent");
    await follow("dns");
    const web = await follow("agent", WEB);
    await expect(follow("agent")).rejects.toMatchObject({ status: 403 });
    expect(server.watches.map(({ identity }) => identity.principal).sort()).toEqual(["agent", "dns"]);
    await clock.pass(120_000);
    server.bookmark();
    await clock.pass(60_000);
    expect(server.watches).toHaveLength(2);
    await cut();
    expect(changesOf(web.received)).toEqual(["ADDED web@101"]);
    await expect(follow("agent", { namespace: "shop" })).rejects.toMatchObject({ status: { code: 503 } });
    expect(
      store.copies().filter(({ listed, identity }) => listed !== undefined && identity.principal === "agent"),
    ).toHaveLength(1);
  });

  test("a stranger who comes while cut gets nothing", async () => {
    const { server, follow, cut } = startSharingModel();
    server.put("web", { app: "web" });
    await follow("dns");
    await cut();
    await expect(follow("stranger")).rejects.toMatchObject({ status: { code: 503 } });
    await expect(follow("stranger", WEB)).rejects.toMatchObject({ status: { code: 503 } });
  });

  test("taken back, it is noticed within five minutes of the last proof: the watch ends in the API server's words, the rows are withheld", async () => {
    const { server, clock, store, follow, cut } = startSharingModel();
    server.put("web", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.refused.add("agent");
    server.put("web-2", { app: "web" });
    await clock.pass(301_000);
    expect(web.received.events.at(-1)).toBe("ERROR 403");
    const withheld = store.copies().map(({ identity, isWithheld }) => [identity.principal, isWithheld]);
    expect(withheld).toEqual([
      ["dns", false],
      ["agent", true],
    ]);
    await cut();
    await expect(follow("agent", WEB)).rejects.toMatchObject({ status: { code: 503 } });
  });

  test("taken back, it is noticed as early where the watch began on an old proof", async () => {
    const { server, clock, sharing, follow } = startSharingModel();
    server.put("web", { app: "web" });
    await follow("dns");
    const first = await follow("agent", WEB);
    const proven = server.reviews.length;
    await clock.pass(280_000);
    const second = await follow("agent", { labelSelector: "app" });
    expect(sharing.baseOf(second.scope)).toBeDefined();
    expect(server.reviews).toHaveLength(proven);
    server.refused.add("agent");
    await clock.pass(21_000);
    expect([first, second].map(({ received }) => received.events.at(-1))).toEqual(["ERROR 403", "ERROR 403"]);
  });

  test("a refusal of any other request is a reason to ask at once", async () => {
    const { server, clock, sharing, follow } = startSharingModel();
    server.put("web", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.refused.add("agent");
    sharing.refused("agent", 403, { group: "", resource: "secrets" });
    await clock.pass(1_000);
    expect(web.received.isEnded).toBe(false);
    sharing.refused("agent", 403, { group: "", resource: "services" });
    await clock.pass(1_000);
    expect(web.received.events.at(-1)).toBe("ERROR 403");
  });

  test("a refusal that meant something else changes nothing", async () => {
    const { server, clock, sharing, follow } = startSharingModel();
    server.put("web", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    sharing.refused("agent", 403, { group: "", resource: "services" });
    await clock.pass(1_000);
    expect(sharing.baseOf(web.scope)).toBeDefined();
    expect(server.watchesOpened).toHaveLength(1);
  });

  test("taken from the base's principal, the others go on by themselves where they stood", async () => {
    const { server, clock, follow } = startSharingModel();
    server.put("a", { app: "web" });
    const dns = await follow("dns");
    const web = await follow("agent", WEB);
    server.refused.add("dns");
    server.put("b", { app: "web" });
    await settle();
    server.breakWatches();
    server.put("c", { app: "web" });
    await clock.pass(5_000);
    expect(dns.received.events.at(-1)).toBe("ERROR 403");
    expect(changesOf(web.received)).toEqual(["ADDED a@101", "ADDED b@102", "ADDED c@103"]);
    expect(server.lists).toHaveLength(1);
    expect(server.watches.map(({ identity }) => identity.principal)).toEqual(["agent"]);
  });

  test("without a verdict nothing is shared, and what is shared ends after a while", async () => {
    const { server, clock, sharing, follow } = startSharingModel();
    server.put("a", { app: "web" });
    await follow("dns");
    const web = await follow("agent", WEB);
    server.isMute = true;
    const other = await follow("other", WEB);
    expect(sharing.baseOf(other.scope)).toBeUndefined();
    await clock.pass(7 * 60_000);
    expect(sharing.baseOf(web.scope)).toBeUndefined();
    expect(web.scope.state).toBe("live");
    expect(server.lists).toHaveLength(2);
  });
});

describe("a base of its own", () => {
  test("is opened when two broad watches have run side by side for a minute, and given up when it no longer pays", async () => {
    const { server, clock, sharing, follow, scopes } = startSharingModel();
    server.put("a", { app: "web" });
    server.forbidden.add("kubelet");
    const kubelet = await follow("kubelet", WITH_ADDRESS);
    const proxy = await follow("proxy", NOT_PROXIED);
    await clock.pass(50_000);
    expect(server.watches).toHaveLength(2);
    await clock.pass(60_000);
    server.bookmark();
    await clock.pass(20_000);
    // kubelet may not read the whole: it keeps its own watch.
    expect(sharing.baseOf(proxy.scope)?.identity).toMatchObject({ principal: "proxy", labelSelector: "" });
    expect(sharing.baseOf(kubelet.scope)).toBeUndefined();
    // One broad watch alone is cheaper by itself.
    await clock.pass(1_300_000);
    expect(sharing.baseOf(proxy.scope)).toBeUndefined();
    expect([...scopes.all()].filter(({ isFollowing }) => isFollowing)).toHaveLength(2);
    server.put("b", { app: "web" });
    await settle();
    expect(changesOf(proxy.received)).toEqual(["ADDED a@101", "ADDED b@102"]);
    expect(changesOf(kubelet.received)).toEqual(["ADDED a@101", "ADDED b@102"]);
  });

  test("serves both when both may", async () => {
    const { server, clock, follow } = startSharingModel();
    server.put("a", { app: "web" });
    const kubelet = await follow("kubelet", WITH_ADDRESS);
    const proxy = await follow("proxy", NOT_PROXIED);
    await clock.pass(90_000);
    expect(server.watches.map(({ identity }) => [identity.labelSelector, identity.fieldSelector])).toEqual([["", ""]]);
    server.put("b", { proxy: "x" });
    server.put("c", {}, { clusterIP: "None" });
    await settle();
    expect(changesOf(kubelet.received)).toEqual(["ADDED a@101", "ADDED b@102"]);
    expect(changesOf(proxy.received)).toEqual(["ADDED a@101", "ADDED c@103"]);
    await clock.pass(7_200_000);
    expect(server.watches).toHaveLength(1);
  });

  test("is not opened for narrow selectors", async () => {
    const { server, clock, follow } = startSharingModel();
    server.put("a", { app: "web" });
    await follow("kubelet", WEB);
    await follow("proxy", { labelSelector: "app=web", fieldSelector: "spec.clusterIP!=None" });
    await clock.pass(600_000);
    expect(server.watches).toHaveLength(2);
    expect(server.lists).toHaveLength(2);
  });
});

test("whatever happens, each watcher gets what the API server would have sent it", async () => {
  let ended = 0;
  let shared = 0;
  for (let seed = 1; seed <= 25; seed++) {
    const random = randomFrom(seed);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    const { server, clock, sharing, follow, cut, heal } = startSharingModel({ ringMaxEvents: pick([6, 200]) });
    const wishes = [
      {},
      WEB,
      NOT_PROXIED,
      WITH_ADDRESS,
      { namespace: "shop" },
      { namespace: "other", labelSelector: "app notin (web)" },
    ];
    for (let i = 0; i < 8; i++) change();
    const followed = [];
    for (const [index, wish] of wishes.entries()) {
      const one = await follow(`p${index}`, wish);
      followed.push({ ...one, from: server.revision, initial: changesOf(one.received).length });
      if (random() < 0.5) change();
    }
    let isCut = false;
    for (let step = 0; step < 60; step++) {
      const what = random();
      if (what < 0.6) change();
      else if (what < 0.65) server.bookmark();
      else if (what < 0.7) server.tick();
      else if (what < 0.78) {
        if (isCut) heal();
        else await cut();
        isCut = !isCut;
      } else if (what < 0.82) server.breakWatches();
      else if (what < 0.85) {
        const principal = `p${Math.floor(random() * wishes.length)}`;
        if (!server.forbidden.delete(principal) && principal !== "p0") server.forbidden.add(principal);
      } else await clock.pass(pick([10, 1_000, 20_000, 700_000]));
      await settle();
    }
    if (isCut) heal();
    server.bookmark();
    await clock.pass(100_000);
    for (const { scope, received, from, initial } of followed) {
      const sent = server.changes
        .filter(({ revision }) => revision > from)
        .map((one) => eventFor(scope.identity, one))
        .filter((event) => event !== undefined);
      // A small ring ends who cannot be kept up with, and the whole of a namespace may be refused.
      if (received.isEnded) {
        ended++;
        continue;
      }
      expect({ seed, identity: scope.identity, events: changesOf(received).slice(initial) }).toEqual({
        seed,
        identity: scope.identity,
        events: sent,
      });
    }
    expect(server.lists.length).toBeLessThanOrEqual(wishes.length);
    shared += followed.filter(({ scope }) => sharing.baseOf(scope) !== undefined).length;

    function change(): void {
      const name = pick(["a", "b", "c", "d"]);
      const namespace = pick(["shop", "other"]);
      if (random() < 0.25) return server.remove(name, namespace);
      const labels = {
        ...(random() < 0.5 ? { app: pick(["web", "db"]) } : {}),
        ...(random() < 0.3 ? { proxy: "x" } : {}),
      };
      server.put(name, labels, { namespace, clusterIP: pick(["None", "10.0.0.1"]) });
    }
  }
  expect(ended).toBeLessThan(25);
  expect(shared).toBeGreaterThan(50);
}, 60_000);

test("also with history forgotten and lists in between, every event fits what the watcher has, and in the end it has the truth", async () => {
  let ended = 0;
  for (let seed = 1; seed <= 25; seed++) {
    const random = randomFrom(seed);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    const { server, clock, follow, cut, heal } = startSharingModel({ ringMaxEvents: pick([6, 200]) });
    const change = () => {
      const namespace = pick(["shop", "other"]);
      const name = `${pick(["a", "b", "c", "d"])}-${namespace}`;
      if (random() < 0.25) return server.remove(name, namespace);
      server.put(name, random() < 0.5 ? { app: pick(["web", "db"]) } : { proxy: "x" }, {
        namespace,
        clusterIP: pick(["None", "10.0.0.1"]),
      });
    };
    for (let i = 0; i < 8; i++) change();
    const followed = [];
    for (const [index, wish] of [{}, WEB, NOT_PROXIED, WITH_ADDRESS, { namespace: "shop" }].entries())
      followed.push(await follow(`p${index}`, wish));
    let isCut = false;
    for (let step = 0; step < 40; step++) {
      const what = random();
      if (what < 0.6) change();
      else if (what < 0.7) server.compact();
      else if (what < 0.8) {
        if (isCut) heal();
        else await cut();
        isCut = !isCut;
      } else if (what < 0.87) server.breakWatches();
      else await clock.pass(pick([10, 1_000, 20_000]));
    }
    if (isCut) heal();
    await clock.pass(100_000);
    for (const { scope, received } of followed) {
      if (received.isEnded) ended++;
      else expect({ seed, has: has(changesOf(received)) }).toEqual({ seed, has: server.names(scope.identity) });
    }
  }
  expect(ended).toBeLessThan(40);
}, 60_000);

/** What a watcher has that believes every event. @throws at one that does not fit. */
function has(events: readonly string[]): string[] {
  const objects = new Map<string, string>();
  for (const event of events) {
    const [, type, name = "", resourceVersion] = /^(\w+) ([^@]*)@(\d+)$/.exec(event)!;
    if ((type === "ADDED") === objects.has(name)) throw new Error(`${event} does not fit`);
    if (type === "DELETED") objects.delete(name);
    else objects.set(name, `${name}@${resourceVersion}`);
  }
  return [...objects.values()].sort();
}

/** A small generator; the same seed gives the same run. */
function randomFrom(seed: number): () => number {
  let state = seed * 2654435761;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

describe("many watches of one caller, each with a selector of its own", () => {
  const twenty = Array.from({ length: 20 }, (_, id) => id);

  async function followTwenty(resource: string, isForbidden = false, principal = "agent") {
    const model = startSharingModel();
    for (const id of twenty) model.server.put(`s-${id}`, { id: String(id) });
    if (isForbidden) model.server.forbidden.add(principal);
    const followed = [];
    for (const id of twenty)
      followed.push(await model.follow(principal, { resource, namespace: "shop", labelSelector: `id=${id}` }));
    const settleAll = async () => {
      for (let round = 0; round < 8; round++) {
        model.server.tick();
        model.server.bookmark();
        await model.clock.pass(15_000);
      }
    };
    await settleAll();
    return { ...model, followed, settleAll };
  }

  test("become one of the whole, also where different callers share nothing", async () => {
    const { server, followed, clock, settleAll } = await followTwenty("configmaps");
    expect(server.watches.map(({ identity }) => identity.labelSelector)).toEqual([""]);
    for (const id of twenty) server.put(`s-${id}`, { id: String(id), more: "yes" });
    server.put("s-3", { id: "4" });
    await settle();
    expect(changesOf(followed[0]!.received)).toEqual(["ADDED s-0@101", "MODIFIED s-0@129"]);
    expect(changesOf(followed[3]!.received)).toEqual(["ADDED s-3@104", "MODIFIED s-3@132", "DELETED s-3@149"]);
    expect(changesOf(followed[4]!.received)).toEqual(["ADDED s-4@105", "MODIFIED s-4@133", "ADDED s-3@149"]);

    // When they go, it goes: nobody follows more than is asked for.
    for (const { detach } of followed.slice(1)) detach();
    await clock.pass(1_300_000);
    await settleAll();
    expect(server.watches.map(({ identity }) => identity.labelSelector)).toEqual(["id=0"]);
  });

  test("stay as they are where the caller may not read the whole, and it is asked once an hour at most", async () => {
    const { server } = await followTwenty("configmaps", true);
    expect(server.watches).toHaveLength(20);
    expect(server.reviews).toEqual(["agent list shop", "agent watch shop"]);
  });

  test("of secrets stay as they are, and those of other callers are no part of it", async () => {
    expect((await followTwenty("secrets")).server.watches).toHaveLength(20);
    const { server, follow, clock } = await followTwenty("configmaps");
    await follow("other", { resource: "configmaps", namespace: "shop", labelSelector: "id=1" });
    await clock.pass(60_000);
    expect(server.watches.map(({ identity }) => `${identity.principal} ${identity.labelSelector}`)).toEqual([
      "agent ",
      "other id=1",
    ]);
  });
});
