/**
 * What is remembered for a cut: events, tokens, decisions.
 */

import { betweenNow } from "../../src/base/asked.ts";
import { describe, expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { MalformedError } from "../../src/kube/codec.ts";
import { envelope, message, text, varint } from "../../src/kube/protobuf-wire.ts";
import { readToken, readTokenSpec } from "../../src/kube/token-request.ts";
import { EventRing, type WaitingEvent } from "../../src/node/event-ring.ts";
import { ReviewMemory } from "../../src/callers/review-memory.ts";
import { SeenRights } from "../../src/node/seen-rights.ts";
import { TokenVault } from "../../src/node/token-vault.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock } from "../support/model.ts";

const EVENT = { principal: "p", method: "POST" as const, contentType: "application/json" };
const NOW_MS = Date.UTC(2026, 10, 24);
const EVENTS = "/api/v1/namespaces/shop/events";

describe("the ring of events", () => {
  test("is bounded, survives a restart, and drops what is older than an hour", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const ring = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    for (let i = 0; i < 250; i++) ring.push({ ...EVENT, target: `${EVENTS}?n=${i}`, body: Buffer.from(`{"n":${i}}`) });
    expect([ring.size, ring.dropped]).toEqual([200, 50]);
    expect(ring.push({ ...EVENT, target: EVENTS, body: Buffer.alloc(100_000) })).toBe(false);
    ring.flush();

    const again = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    expect(again.size).toBe(200);
    await clock.pass(3_500_000);
    again.push({ ...EVENT, target: EVENTS, body: Buffer.from("late") });
    await clock.pass(200_000);
    const sent: WaitingEvent[] = [];
    await again.replay(async (event) => {
      sent.push(event);
      return "sent";
    });
    expect(sent.map(({ body }) => Buffer.from(body, "base64").toString())).toEqual(["late"]);
    expect(new EventRing({ store, clock, log: silentLog, own: () => "p" }).size).toBe(0);
  });

  test("of a cut that began in 1970 go up when the time has jumped, and those of an earlier process by their date", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    clock.wallShiftMs = NOW_MS - 20_000;
    const earlier = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    earlier.push({ ...EVENT, target: EVENTS, body: Buffer.from("before the boot") });
    earlier.flush();
    clock.wallShiftMs = 0;
    const ring = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    ring.push({ ...EVENT, target: EVENTS, body: Buffer.from("in 1970") });
    await clock.pass(600_000);
    clock.wallShiftMs = NOW_MS;
    const sent: string[] = [];
    await ring.replay(async ({ body }) => {
      sent.push(Buffer.from(body, "base64").toString());
      return "sent";
    });
    expect(sent).toEqual(["before the boot", "in 1970"]);
    expect(ring.dropped).toBe(0);
  });

  test("stops at an unreachable API server and goes on from there", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const ring = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    for (const name of ["a", "b", "c"]) ring.push({ ...EVENT, target: `${EVENTS}/${name}`, body: Buffer.from(name) });
    let answers = 1;
    await ring.replay(async () => (answers-- > 0 ? "sent" : "unreachable"));
    expect(ring.size).toBe(2);
    await ring.replay(async () => "sent");
    expect(ring.size).toBe(0);
  });

  test("is written seldom however many events come", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    let writes = 0;
    const put = store.putValue.bind(store);
    store.putValue = (name: string, value: Uint8Array) => {
      writes++;
      put(name, value);
    };
    const ring = new EventRing({ store, clock, log: silentLog, own: () => "p" });
    for (let second = 0; second < 3_600; second += 10) {
      ring.push({ ...EVENT, target: EVENTS, body: Buffer.from(`${second}`) });
      await clock.pass(10_000);
    }
    expect(writes).toBeGreaterThan(0);
    expect(writes).toBeLessThanOrEqual(7);
  });
});

describe("shares in the ring of events", () => {
  const bodies = async (ring: EventRing) => {
    const sent: string[] = [];
    await ring.replay(async ({ body }) => {
      sent.push(Buffer.from(body, "base64").toString());
      return "sent";
    });
    return sent;
  };
  const startRing = () =>
    new EventRing({ store: new MemoryStore(), clock: new ManualClock(), log: silentLog, own: () => "kubelet" });
  const push = (ring: EventRing, principal: string, name: string, sizeBytes = 0) =>
    ring.push({ ...EVENT, principal, target: `${EVENTS}/${name}`, body: Buffer.from(name.padEnd(sizeBytes, " ")) });

  test("one pod's flood pushes out neither the node's events nor another pod's", async () => {
    const ring = startRing();
    push(ring, "kubelet", "image pulled");
    push(ring, "quiet", "leader elected");
    for (let i = 0; i < 1_000; i++) push(ring, "crashing", `crash ${i}`);
    expect(ring.size).toBe(52);
    const sent = await bodies(ring);
    expect(sent.slice(0, 2)).toEqual(["image pulled", "leader elected"]);
    expect(sent.at(-1)).toBe("crash 999");
  });

  test("few and large ones are held to the same share", async () => {
    const ring = startRing();
    push(ring, "kubelet", "image pulled");
    for (let i = 0; i < 40; i++) push(ring, "large", `large ${i}`, 8_000);
    expect((await bodies(ring)).length).toBeLessThanOrEqual(7);
  });

  test("the node's own events push out everybody else's, and then only its own", async () => {
    const ring = startRing();
    for (const pod of ["a", "b", "c", "d"]) for (let i = 0; i < 50; i++) push(ring, pod, `${pod} ${i}`);
    expect(ring.size).toBe(200);
    for (let i = 0; i < 201; i++) push(ring, "kubelet", `kubelet ${i}`);
    const sent = await bodies(ring);
    expect(sent).toHaveLength(200);
    expect(sent[0]).toBe("kubelet 1");
  });

  test("what is damaged on disk is left out, the rest stands", () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const whole = { ...EVENT, principal: "p", target: EVENTS, body: "e30=", atMs: 1 };
    for (const damaged of [
      { ...whole, method: "DELETE" },
      { ...whole, contentType: 7 },
      { ...whole, atMs: -1 },
      null,
      "x",
    ])
      store.putValue("events", Buffer.from(JSON.stringify([whole, damaged])));
    expect(new EventRing({ store, clock, log: silentLog, own: () => "p" }).size).toBe(1);
    store.putValue("events", Buffer.from('{"length":3}'));
    expect(new EventRing({ store, clock, log: silentLog, own: () => "p" }).size).toBe(0);
  });
});

describe("rights that were seen", () => {
  const right = { verb: "create", group: "", resource: "events", subresource: "", namespace: "shop" };

  test("count for their kind alone, outlive a restart, and end with a refusal until the next success", () => {
    const store = new MemoryStore();
    const rights = new SeenRights(store);
    expect(rights.has("p", right)).toBe(false);
    rights.heard("p", right, 201, betweenNow());
    for (const other of [
      { ...right, verb: "patch" },
      { ...right, group: "events.k8s.io" },
      { ...right, namespace: "ops" },
      { ...right, subresource: "status" },
    ])
      expect([other, rights.has("p", other)]).toEqual([other, false]);
    expect(rights.has("q", right)).toBe(false);
    expect(rights.has("p", { ...right, name: "any" })).toBe(true);

    const again = new SeenRights(store);
    expect(again.has("p", right)).toBe(true);
    again.heard("p", right, 503, betweenNow());
    expect(again.has("p", right)).toBe(true);
    again.heard("p", right, 403, betweenNow());
    expect(again.has("p", right)).toBe(false);
    expect(new SeenRights(store).has("p", right)).toBe(false);
    again.heard("p", right, 409, betweenNow());
    expect(again.has("p", right)).toBe(false);
    again.heard("p", right, 200, betweenNow());
    expect(again.has("p", right)).toBe(true);
  });

  test("of one object says nothing of another; of all namespaces counts for each", () => {
    const rights = new SeenRights(new MemoryStore());
    rights.allowed("p", { ...right, name: "a" }, betweenNow());
    expect([rights.has("p", { ...right, name: "a" }), rights.has("p", { ...right, name: "b" })]).toEqual([true, false]);
    for (const namespace of ["*", "ops"]) rights.allowed("q", { ...right, namespace }, betweenNow());
    rights.allowed("q", { ...right, verb: "patch" }, betweenNow());
    expect(rights.has("q", right)).toBe(true);
    rights.refused("p", { ...right, name: "b" });
    rights.refused("q", { ...right, name: "a" });
    expect(rights.has("p", { ...right, name: "a" })).toBe(true);
    expect([rights.has("q", right), rights.has("q", { ...right, namespace: "ops" })]).toEqual([false, false]);
    expect(rights.has("q", { ...right, verb: "patch" })).toBe(true);
  });

  test("are bounded, and what is damaged on disk is none", () => {
    const store = new MemoryStore();
    const rights = new SeenRights(store);
    for (let i = 0; i < 300; i++) rights.allowed(`p${i}`, right, betweenNow());
    for (let i = 0; i < 300; i++) rights.allowed("busy", { ...right, namespace: `n${i}` }, betweenNow());
    expect(store.valueNames("rights/")).toHaveLength(256);
    expect(rights.has("busy", { ...right, namespace: "n299" })).toBe(true);
    expect(rights.has("busy", { ...right, namespace: "n0" })).toBe(false);
    store.putValue("rights/p299", Buffer.from('[{"verb":"*"}]'));
    expect(new SeenRights(store).has("p299", right)).toBe(false);
  });
});

describe("kept tokens", () => {
  const spec = { audiences: [], boundKind: "Pod", boundName: "web-0", boundUid: "u1" };
  const owner = { namespace: "shop", serviceAccount: "default", spec };
  const jwt = (exp: number, iat: number) =>
    `e30.${Buffer.from(JSON.stringify({ exp, iat })).toString("base64url")}.sig`;
  const answer = (token: string) => ({
    contentType: "application/json",
    body: Buffer.from(JSON.stringify({ status: { token, expirationTimestamp: "1970-01-01T00:00:00Z" } })),
  });
  const all = () => true;

  test("are judged by the JWT's own expiry, handed out after it too, and counted", async () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const vault = new TokenVault(store, clock, silentLog);
    const nowSeconds = Math.floor(clock.nowMs() / 1_000);
    vault.keep(owner, answer(jwt(nowSeconds + 100, nowSeconds)));
    const again = new TokenVault(store, clock, silentLog);
    again.handedOut(owner, again.find(owner, all)!);
    expect(again.servedExpired).toBe(0);
    await clock.pass(200_000);
    again.handedOut(owner, again.find(owner, all)!);
    expect(again.servedExpired).toBe(1);
  });

  test("are written once, and again only for one that is good for much longer", () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const secrets: boolean[] = [];
    const put = store.putValue.bind(store);
    store.putValue = (name: string, value: Uint8Array, options?: { isSecret?: boolean }) => {
      secrets.push(options?.isSecret === true);
      put(name, value);
    };
    const vault = new TokenVault(store, clock, silentLog);
    const year = 365 * 86_400;
    for (let hour = 0; hour < 24; hour++) vault.keep(owner, answer(jwt(year + hour * 3_600, hour * 3_600)));
    expect(secrets).toEqual([true]);
    vault.keep(owner, answer(jwt(2 * year, year)));
    expect(secrets).toEqual([true, true]);
    expect(store.valueNames("token/").join()).not.toContain("default");
  });

  test("go when their pod is gone, and are not shared among audiences or unbound", () => {
    const [store, clock] = [new MemoryStore(), new ManualClock()];
    const vault = new TokenVault(store, clock, silentLog);
    vault.keep(owner, answer(jwt(9e9, 1)));
    vault.keep({ ...owner, spec: { ...spec, boundKind: "" } }, answer(jwt(9e9, 1)));
    expect(store.valueNames("token/")).toHaveLength(1);
    expect(vault.find({ ...owner, spec: { ...spec, audiences: ["vault"] } }, all)).toBeUndefined();
    expect(vault.find(owner, () => false)).toBeUndefined();
    vault.sweep((uid) => uid === "u1");
    expect(vault.find(owner, all)).toBeDefined();
    vault.sweep(() => false);
    expect(vault.find(owner, all)).toBeUndefined();
  });

  test("are read from protobuf as from JSON, and a body that is none says so without quoting it", () => {
    const body = envelope("authentication.k8s.io/v1", "TokenRequest", [
      message(1, []),
      message(2, [
        text(1, "b"),
        text(1, "a"),
        message(3, [text(1, "Pod"), text(2, "v1"), text(3, "web-0"), text(4, "u1")]),
        varint(4, 3_607),
      ]),
      message(3, [text(1, "the-token")]),
    ]);
    expect(readTokenSpec(body)).toEqual({ ...spec, audiences: ["a", "b"] });
    expect(readToken(body)).toBe("the-token");
    const json = { spec: { audiences: ["b", "a"], boundObjectRef: { kind: "Pod", name: "web-0", uid: "u1" } } };
    expect(readTokenSpec(Buffer.from(JSON.stringify(json)))).toEqual({ ...spec, audiences: ["a", "b"] });
    const read = () => readToken(Buffer.from('{"status":{"tokken":"secret-words"}}'));
    expect(read).toThrow(MalformedError);
    expect(read).not.toThrow(/secret-words/);
  });
});

describe("remembered decisions", () => {
  const question = {
    principal: "p",
    resource: "subjectaccessreviews",
    path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    accept: "application/json",
    contentType: "application/json",
    body: Buffer.from("{}"),
  };
  const json = (allowed: boolean) => ({
    contentType: "application/json",
    body: Buffer.from(JSON.stringify({ status: { allowed } })),
  });
  const protobuf = (allowed: boolean) => ({
    contentType: "application/vnd.kubernetes.protobuf",
    body: envelope("authorization.k8s.io/v1", "SubjectAccessReview", [message(3, [varint(1, allowed ? 1 : 0)])]),
  });

  for (const [format, decision] of [
    ["JSON", json],
    ["protobuf", protobuf],
  ] as const) {
    test(`in ${format}: allowed stands for five minutes, denied for half of one, for the same asker`, async () => {
      const clock = new ManualClock();
      const memory = new ReviewMemory(clock, (words) => Bun.hash(words).toString());
      memory.remember(question, decision(true));
      memory.remember({ ...question, body: Buffer.from("other") }, decision(false));
      expect(memory.recall({ ...question, principal: "q" })).toBeUndefined();
      await clock.pass(29_000);
      expect(memory.recall({ ...question, body: Buffer.from("other") })).toBeDefined();
      await clock.pass(2_000);
      expect(memory.recall({ ...question, body: Buffer.from("other") })).toBeUndefined();
      await clock.pass(268_000);
      expect(memory.recall(question)).toBeDefined();
      await clock.pass(2_000);
      expect(memory.recall(question)).toBeUndefined();
    });
  }
});
