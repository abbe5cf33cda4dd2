/**
 * One caller, one clock: what one of its copies knows newer counts for all.
 */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { settle } from "../support/model.ts";
import { changesOf, startSharingModel } from "../support/sharing-model.ts";
import { Received } from "../support/model.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock } from "../support/model.ts";
import type { Frame, ObjectFrame } from "../../src/cache/frames.ts";
import { History } from "../../src/cache/history.ts";
import { OwnWrites } from "../../src/cache/own-writes.ts";
import { AheadSink } from "../../src/cache/shown-ahead.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";

const JSON_FORM = [{ format: "json", as: "object", asVersion: "" }] as const;
const PODS = { resource: "pods" };

function identity(changes: Partial<ScopeIdentity>): ScopeIdentity {
  const whole = { principal: "me", group: "", version: "v1", namespace: "", fieldSelector: "", labelSelector: "" };
  return { ...whole, ...PODS, representation: "json", ...changes };
}

type Model = ReturnType<typeof startSharingModel>;

function shown({ scopes }: Model, asked: Partial<ScopeIdentity>): string[] | undefined {
  using snapshot = scopes.answerFor(identity(asked), JSON_FORM)?.snapshot();
  if (snapshot === undefined) return undefined;
  return [...snapshot.items()].map(({ meta }) => `${meta.namespace}/${meta.name}@${meta.resourceVersion}`);
}

function got({ scopes }: Model, namespace: string, name: string): string | undefined {
  const { principal, group, version, resource } = identity({});
  return scopes.findObject({ principal, group, version, resource, namespace, name }, JSON_FORM)?.item.meta
    .resourceVersion;
}

/** A copy that has listed and fell asleep. */
async function asleep(model: Model, changes: Partial<ScopeIdentity>): Promise<void> {
  const following = model.follow("me", { ...PODS, ...changes });
  // One that is opened again waits for what it has missed.
  await model.clock.pass(1_000);
  (await following).detach();
  await model.clock.pass(2_000);
}

describe("a list by label that fell asleep, beside a collection that is followed", () => {
  const WEB = { labelSelector: "app=web" };

  async function world() {
    const model = startSharingModel({ lingerMs: 1_000 });
    const { server } = model;
    for (const name of ["a", "b", "c", "d"]) server.put(name, { app: "web" });
    server.put("z", { app: "web" }, { namespace: "bank" });
    await asleep(model, WEB);
    await model.follow("me", { ...PODS, namespace: "shop" });
    server.remove("a");
    server.put("b", { app: "web", more: "yes" });
    server.put("c", { app: "db" });
    server.put("bb", { app: "web" });
    server.put("z", { app: "web", unseen: "yes" }, { namespace: "bank" });
    await settle();
    return model;
  }

  test("shows nothing that is gone or not selected any more, and the rest as it is", async () => {
    const model = await world();
    expect(shown(model, WEB)).toEqual(["bank/z@105", "shop/b@107", "shop/bb@109", "shop/d@104"]);
    await model.cut();
    expect(shown(model, WEB)).toEqual(["bank/z@105", "shop/b@107", "shop/bb@109", "shop/d@104"]);
    expect(shown(model, { ...WEB, namespace: "bank" })).toEqual(["bank/z@105"]);
    expect(got(model, "shop", "a")).toBeUndefined();
    expect(got(model, "shop", "b")).toBe("107");
    expect(got(model, "shop", "c")).toBe("108");
    expect(got(model, "bank", "z")).toBe("105");
  });

  test("its streaming list shows the same, and at the return nothing is taken back", async () => {
    const model = await world();
    await model.cut();
    const received = new Received();
    const answer = model.scopes.answerFor(identity(WEB), JSON_FORM)!;
    const request = { resourceVersion: "", sendInitialEvents: true, allowBookmarks: true, timeoutMs: 1e9 };
    await answer.watch(request, () => received);
    await settle();
    expect(changesOf(received)).toEqual(["ADDED z@105", "ADDED b@107", "ADDED bb@109", "ADDED d@104"]);
    received.events.length = 0;
    model.heal();
    await model.clock.pass(5_000);
    expect(changesOf(received)).toEqual([
      "DELETED a@106",
      "MODIFIED b@107",
      "DELETED c@108",
      "ADDED bb@109",
      "MODIFIED z@110",
    ]);
  });
});

test("who comes back hears no end of what it was shown anew, and who has watched all the time hears it", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { server } = model;
  server.put("a", { app: "web" });
  await asleep(model, WEB);
  await model.follow("me", { ...PODS, namespace: "shop" });
  server.remove("a");
  server.put("a", { app: "web" });
  await settle();
  await model.cut();
  const copy = model.scopes.wholeOf(model.scopes.find(identity(WEB))!);
  const request = { resourceVersion: copy.listed!.resourceVersion, sendInitialEvents: false, allowBookmarks: false };
  const [stayed, cameBack] = [new Received(), new Received()];
  await copy.watch({ ...request, timeoutMs: 1e9 }, () => stayed);
  using snapshot = copy.snapshot()!;
  expect([...snapshot.items()].map(({ meta }) => meta.resourceVersion)).toEqual(["103"]);
  await copy.watch({ ...request, timeoutMs: 1e9 }, () => cameBack);
  model.heal();
  await model.clock.pass(5_000);
  expect(changesOf(stayed)).toEqual(["DELETED a@102", "ADDED a@103"]);
  expect(changesOf(cameBack)).toEqual(["ADDED a@103"]);
});

test("whoever was shown what the rows never had lists again when they are replaced, and nobody else", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { server } = model;
  server.put("b", { app: "web" });
  await asleep(model, WEB);
  await model.follow("me", { ...PODS, namespace: "shop" });
  server.put("a", { app: "web" });
  await settle();
  await model.cut();
  const copy = model.scopes.wholeOf(model.scopes.find(identity(WEB))!);
  const request = { resourceVersion: copy.listed!.resourceVersion, sendInitialEvents: false, allowBookmarks: false };
  const [stayed, cameBack] = [new Received(), new Received()];
  await copy.watch({ ...request, timeoutMs: 1e9 }, () => stayed);
  expect(shown(model, WEB)).toEqual(["shop/a@102", "shop/b@101"]);
  await copy.watch({ ...request, timeoutMs: 1e9 }, () => cameBack);
  server.remove("a");
  server.put("b", { app: "web", at: "2" });
  server.compactedTo = server.revision;
  model.heal();
  await model.clock.pass(60_000);
  expect(changesOf(stayed)).toEqual(["MODIFIED b@104"]);
  expect(changesOf(cameBack)).toEqual(["ERROR 410"]);
});

test("what was shown ahead before a restart is not taken back after it", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { server } = model;
  server.put("a", { app: "web" });
  await asleep(model, WEB);
  await model.follow("me", { ...PODS, namespace: "shop" });
  server.put("a", { app: "web", at: "2" });
  server.put("a", { app: "web", at: "3" });
  await settle();
  await model.cut();
  expect(shown(model, WEB)).toEqual(["shop/a@103"]);
  await settle();
  const { scopes } = model.restart();
  const answer = scopes.answerFor(identity(WEB), JSON_FORM)!;
  const resourceVersion = answer.listed!.resourceVersion;
  const received = new Received();
  const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
  await answer.watch(request, () => received);
  model.heal();
  await model.clock.pass(5_000);
  expect([resourceVersion, ...changesOf(received)]).toEqual(["101", "MODIFIED a@103"]);
});

test("what one copy showed ahead is not taken back by another that goes on from there", async () => {
  const SHOP = { namespace: "shop" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { scopes, server } = model;
  server.put("a", { app: "web" });
  await asleep(model, SHOP);
  await model.follow("me", PODS);
  server.put("a", { app: "web", at: "2" });
  server.put("a", { app: "web", at: "3" });
  await settle();
  await model.cut();
  const received = new Received();
  const request = { resourceVersion: "", sendInitialEvents: true, allowBookmarks: true, timeoutMs: 1e9 };
  const own = scopes.wholeOf(scopes.find(identity(SHOP))!);
  (await own.watch(request, () => received))();
  const at = "101";
  const wider = scopes.answerFor(identity(SHOP), JSON_FORM, { at })!;
  const resume = { resourceVersion: at, sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
  await wider.watch(resume, () => received);
  model.heal();
  server.put("a", { app: "web", at: "4" });
  await model.clock.pass(5_000);
  expect([own.scope === wider.scope, received.events]).toEqual([
    false,
    ["ADDED a@103", "BOOKMARK @101", "MODIFIED a@103", "MODIFIED a@104"],
  ]);
});

test("what nobody was shown before a restart is told after it, whatever other copies know", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { server } = model;
  server.put("a", { app: "web" });
  await asleep(model, WEB);
  await model.follow("me", { ...PODS, namespace: "shop" });
  server.remove("a");
  server.put("a", { app: "web", at: "2" });
  await settle();
  await model.cut();
  const { scopes } = model.restart();
  const answer = scopes.answerFor(identity(WEB), JSON_FORM)!;
  const { resourceVersion } = answer.listed!;
  const received = new Received();
  const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
  await answer.watch(request, () => received);
  model.heal();
  await model.clock.pass(5_000);
  expect([resourceVersion, ...changesOf(received)]).toEqual(["101", "DELETED a@102", "ADDED a@103"]);
});

test("a watch of a part from before a restart, of which the copy no longer knows what was selected, is the API server's or begins anew", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel();
  const { server } = model;
  server.put("a", { app: "web" });
  await model.follow("me", PODS);
  server.put("a", { app: "db" });
  await settle();
  const { scopes } = model.restart();
  const watchFrom = async (resourceVersion: string) => {
    const received = new Received();
    const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
    await scopes.answerFor(identity(WEB), JSON_FORM)!.watch(request, () => received);
    return received;
  };
  await expect(watchFrom("101")).rejects.toThrow("Cannot watch from 101");
  await model.cut();
  const refused = await watchFrom("101");
  const now = await watchFrom("102");
  model.heal();
  server.put("a", { app: "web", more: "yes" });
  await model.clock.pass(5_000);
  expect(changesOf(refused)).toEqual(["ERROR 410"]);
  expect(changesOf(now)).toEqual(["ADDED a@103"]);
  expect(server.lists).toHaveLength(1);
});

describe("a client of which others were shown an object ahead", () => {
  const SHOWN = new Map([["shop/a", { at: "120", uid: "2" }]]);

  /** Everything after 100, told to somebody who may have been shown a of uid 2 at 120. */
  function client(onGivenUp?: () => void) {
    const told: string[] = [];
    const inner = {
      take: (frames: readonly Frame[]) => {
        for (const frame of frames)
          told.push(frame.type === "BOOKMARK" ? `BOOKMARK ${frame.resourceVersion}` : said(frame));
        return true;
      },
      onDrain: () => {},
      end: (lastWord?: { readonly code: number }) => void told.push(`end ${lastWord?.code ?? ""}`),
    };
    return { sink: new AheadSink(inner, SHOWN, onGivenUp), told };
  }

  const said = ({ type, item: { meta } }: ObjectFrame) => `${type} ${meta.name}@${meta.resourceVersion}`;
  const event = (type: ObjectFrame["type"], name: string, resourceVersion: string, uid = "2", size = 0): Frame =>
    ({
      type,
      item: { meta: { namespace: "shop", name, uid, resourceVersion }, bytes: new Uint8Array(size) },
    }) as unknown as Frame;
  const bookmark = (resourceVersion: string): Frame => ({ type: "BOOKMARK", resourceVersion }) as unknown as Frame;

  test("gets no bookmark between what was kept from it and what it was shown", () => {
    const { sink, told } = client();
    sink.take([
      bookmark("105"),
      event("ADDED", "a", "110"),
      bookmark("115"),
      event("MODIFIED", "a", "120"),
      bookmark("120"),
    ]);
    expect(told).toEqual(["BOOKMARK 105", "MODIFIED a@120", "BOOKMARK 120"]);
  });

  test("gets no event between the two either when it comes back, until it may go on from there", () => {
    const { sink, told } = client(() => {});
    sink.take([event("ADDED", "b", "105"), event("DELETED", "a", "110", "1"), event("ADDED", "c", "112")]);
    sink.take([event("ADDED", "a", "114")]);
    expect(told).toEqual(["ADDED b@105"]);
    sink.take([event("ADDED", "d", "125")]);
    expect(told).toEqual(["ADDED b@105", "ADDED c@112", "ADDED d@125"]);
    sink.take([event("MODIFIED", "a", "130"), event("DELETED", "b", "131")]);
    expect(told.slice(3)).toEqual(["MODIFIED a@130", "DELETED b@131"]);
  });

  test("which was shown it by this very watch waits for nothing", () => {
    const { sink, told } = client();
    sink.take([event("DELETED", "a", "110", "1"), event("ADDED", "c", "112")]);
    expect(told).toEqual(["ADDED c@112"]);
  });

  test("lists again when too much would have to wait, and hears nothing more", () => {
    let isDetached = false;
    const { sink, told } = client(() => (isDetached = true));
    const wait = Array.from({ length: 1_000 }, () => event("MODIFIED", "c", "112"));
    sink.take([event("DELETED", "a", "110", "1"), ...wait]);
    expect(told).toEqual([]);
    sink.take([event("MODIFIED", "c", "113")]);
    expect([told, isDetached]).toEqual([["end 410"], true]);
    sink.take([event("MODIFIED", "a", "120")]);
    sink.end();
    expect(told).toEqual(["end 410"]);
    const few = client(() => {});
    few.sink.take([event("DELETED", "a", "110", "1"), event("MODIFIED", "c", "112", "2", 1_000_000)]);
    expect(few.told).toEqual([]);
    few.sink.take([event("MODIFIED", "c", "113", "2", 100_000)]);
    expect(few.told).toEqual(["end 410"]);
  });
});

test("what a list at a later moment showed ahead is nothing to who comes back at an earlier one", () => {
  const history = new History({ ringMaxEvents: 10, ringMaxBytes: 1e6 });
  history.showedAhead("shop/a", { at: "133", uid: "2", since: "120" });
  expect([...history.shownAfter("112")]).toEqual([]);
  expect([...history.shownAfter("120")]).toHaveLength(1);
  expect([...history.shownAfter("133")]).toEqual([]);
  // Shown as it was before, to somebody who stood earlier: what that one was shown counts until it is passed.
  history.showedAhead("shop/a", { at: "140", uid: "2", since: "130" });
  expect([...history.shownAfter("125")]).toHaveLength(1);
  // Nobody remembers since when.
  history.showedAhead("shop/b", { at: "133", uid: "3" });
  expect([...history.shownAfter("112")].map(([key]) => key)).toEqual(["shop/b"]);
});

test("what a copy knows from a history that a backup has undone is newer than nothing", async () => {
  const WEB = { labelSelector: "app=web" };
  const model = startSharingModel({ lingerMs: 1_000 });
  const { server, scopes } = model;
  for (const name of ["a", "b"]) server.put(name, { app: "web" });
  await asleep(model, { namespace: "shop" });
  const before = server.revision;
  server.put("a", { app: "web", more: "yes" });
  server.remove("b");
  await asleep(model, WEB);
  server.restore(before, ["a"]);
  // The narrower copy sleeps on with what nobody wrote; the other is told anew.
  scopes.noticeResourceVersion("", "pods", String(server.revision), "");
  expect(scopes.find(identity(WEB))?.hasRolledBack).toBe(true);
  await model.cut();
  expect(shown(model, { namespace: "shop" })).toEqual(["shop/a@101", "shop/b@102"]);
  expect([got(model, "shop", "a"), got(model, "shop", "b")]).toEqual(["101", "102"]);
});

test("what a caller wrote is no more where the API server's history went back before it", async () => {
  const clock = new ManualClock();
  const writes = new OwnWrites({ store: new MemoryStore(), clock, retentionMs: 1e9, copiesOf: () => [] });
  const where = (name: string) => ({
    ...{ principal: "me", group: "", version: "v1", resource: "pods", namespace: "shop", name },
  });
  const wrote = (name: string, resourceVersion: string, verb = "update") => {
    const metadata = { name, namespace: "shop", uid: name, resourceVersion };
    const body = new TextEncoder().encode(JSON.stringify({ kind: "Pod", apiVersion: "v1", metadata }));
    writes.answered({ ...where(name), verb }, "application/json", body);
  };
  wrote("kept", "103");
  wrote("lost", "111");
  wrote("deleted", "112", "delete");
  await clock.pass(1_000);
  const beganMs = clock.nowMs();
  await clock.pass(1_000);
  wrote("since", "104");
  writes.rolledBack("apps", "pods", "103", beganMs);
  expect(writes.find(where("lost"))).toBeDefined();
  writes.rolledBack("", "pods", "103", beganMs);
  const found = ["kept", "lost", "deleted", "since"].filter((name) => writes.find(where(name)) !== undefined);
  expect(found).toEqual(["kept", "since"]);
});

test("a watch from a moment that only the API server knows, which was asked and has not answered, is told to list", async () => {
  const model = startSharingModel({ lingerMs: 1_000 });
  model.server.put("a");
  model.server.put("b");
  await asleep(model, {});
  model.server.compactedTo = 102;
  const answer = model.scopes.wholeOf(model.scopes.find(identity({}))!);
  const request = { resourceVersion: "100", sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
  const received = new Received();
  await expect(answer.watch(request, () => received)).rejects.toThrow("Cannot watch from 100");
  await answer.watch({ ...request, isInstead: true }, () => received);
  expect(changesOf(received)).toEqual(["ERROR 410"]);
});

describe("of several copies of one object", () => {
  test("the newest answers, whichever was heard last", async () => {
    const model = startSharingModel({ lingerMs: 1_000 });
    model.server.put("a", { app: "web" });
    await asleep(model, { labelSelector: "app=web" });
    model.server.put("a", { app: "web", at: "2" });
    await model.follow("me", { ...PODS, namespace: "shop" });
    // The old one is opened again, but what has changed does not come: it was heard last, and is older.
    model.scopes.find(identity({ labelSelector: "app=web" }))!.copy.touch({ lastContactMs: model.clock.nowMs() + 9e6 });
    await model.cut();
    expect(got(model, "shop", "a")).toBe("102");
    expect(shown(model, { labelSelector: "app=web", namespace: "shop" })).toEqual(["shop/a@102"]);
  });
});

test("whatever the copies know, each object is shown at its newest, and no watch from there takes it back", async () => {
  const selectorArb = fc.record({
    namespace: fc.constantFrom("", "shop", "bank"),
    labelSelector: fc.constantFrom("", "app=web", "!proxy", "app notin (web)"),
  });
  const opArb = fc.record({
    name: fc.constantFrom("a", "b", "c", "d"),
    namespace: fc.constantFrom("shop", "bank"),
    labels: fc.constantFrom({ app: "web" }, { app: "db" }, { proxy: "x" }),
    isRemoved: fc.boolean(),
  });
  const run = async (
    phases: readonly { copy: Partial<ScopeIdentity>; ops: readonly any[] }[],
    last: readonly any[],
  ) => {
    const model = startSharingModel({ lingerMs: 1_000 });
    const { server } = model;
    const apply = (ops: readonly any[]) => {
      for (const { name, namespace, labels, isRemoved } of ops)
        if (isRemoved) server.remove(name, namespace);
        else server.put(name, labels, { namespace });
    };
    for (const { copy, ops } of phases) {
      apply(ops);
      await asleep(model, copy);
    }
    const known = new Map<string, number>();
    for (const { copy } of phases) {
      using rows = model.scopes.find(identity(copy))?.rows();
      for (const { meta } of rows?.items() ?? []) {
        const key = `${meta.namespace}/${meta.name}`;
        known.set(key, Math.max(known.get(key) ?? 0, Number(meta.resourceVersion)));
      }
    }
    apply(last);
    await model.cut();
    const watching: { received: Received; has: Map<string, number> }[] = [];
    for (const { copy } of phases) {
      const answer = model.scopes.answerFor(identity(copy), JSON_FORM)!;
      using snapshot = answer.snapshot()!;
      const has = new Map<string, number>();
      for (const { meta } of snapshot.items()) has.set(`${meta.namespace}/${meta.name}`, Number(meta.resourceVersion));
      for (const [key, at] of has) expect(at).toBe(known.get(key)!);
      const received = new Received();
      const { resourceVersion } = snapshot.listed;
      const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: 1e9 };
      await answer.watch(request, () => received);
      watching.push({ received, has });
    }
    model.heal();
    await model.clock.pass(60_000);
    for (const { received, has } of watching)
      for (const event of changesOf(received)) {
        const [type, name, at] = event.split(/[ @]/);
        if (type === "DELETED") continue;
        for (const namespace of ["shop", "bank"]) {
          const change = server.changes.find(({ revision }) => revision === Number(at))!;
          if (change.after?.namespace !== namespace) continue;
          expect(Number(at)).toBeGreaterThanOrEqual(has.get(`${namespace}/${name}`) ?? 0);
        }
      }
  };
  const phasesArb = fc.array(fc.record({ copy: selectorArb, ops: fc.array(opArb, { maxLength: 6 }) }), {
    minLength: 2,
    maxLength: 4,
  });
  await fc.assert(fc.asyncProperty(phasesArb, fc.array(opArb, { maxLength: 6 }), run), {
    numRuns: 150,
    endOnFailure: true,
  });
}, 120_000);
