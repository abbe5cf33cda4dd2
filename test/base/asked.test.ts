/** A yes is of the moment of its question, and a no in between ends it: here, and wherever a yes gives something back. */
import { describe, expect, test } from "bun:test";
import { askedNow, betweenNow, LastRefusals } from "../../src/base/asked.ts";
import { silentLog } from "../../src/base/log.ts";
import { FreshRights } from "../../src/callers/fresh-rights.ts";
import { Permissions } from "../../src/callers/permissions.ts";
import { Refusals } from "../../src/callers/refusals.ts";
import { RefusedTokens } from "../../src/callers/refused-tokens.ts";
import { SeenRights } from "../../src/node/seen-rights.ts";
import { MemoryStore } from "../support/memory-store.ts";
import { ManualClock, ModelLink } from "../support/model.ts";

const clock = new ManualClock();
const NODES = { group: "", version: "v1", resource: "nodes", namespace: "" };
const credential = { id: "pod", authorization: "Bearer pod" };

describe("the last refusals", () => {
  test("outdate what was asked before them, in the same tick too, and nothing that was asked after", () => {
    const last = new LastRefusals();
    const before = askedNow(clock);
    expect(last.outdate("a", before)).toBe(false);
    last.note("a");
    expect(last.outdate("a", before)).toBe(true);
    expect(last.outdate("b", before)).toBe(false);
    expect(last.outdate("a", askedNow(clock))).toBe(false);
  });

  test("tell long names apart, and keep none of them", () => {
    const last = new LastRefusals();
    const long = "x".repeat(100_000);
    const before = askedNow(clock);
    last.note(`${long}a`);
    expect(["a", "b"].map((end) => last.outdate(`${long}${end}`, before))).toEqual([true, false]);
    const held = process.memoryUsage().rss;
    for (let i = 0; i < 4_000; i++) last.note(`${long}${i}`);
    Bun.gc(true);
    expect(process.memoryUsage().rss - held).toBeLessThan(200e6);
  });

  test("are bounded: what had to give way still outdates what was asked before it, of everybody", () => {
    const last = new LastRefusals();
    const before = askedNow(clock);
    for (let i = 0; i < 5_000; i++) last.note(`made up ${i}`);
    expect(last.outdate("made up 0", before)).toBe(true);
    expect(last.outdate("never refused", before)).toBe(true);
    expect(last.outdate("never refused", askedNow(clock))).toBe(false);
  });
});

describe("a yes that was asked for before a refusal", () => {
  test("to a list or watch proves nothing", () => {
    const permissions = new Permissions(clock, { mayAccess: async () => undefined });
    const asked = askedNow(clock);
    permissions.forget("agent", { group: "", resource: "nodes" });
    permissions.observed("agent", "list", NODES, true, asked);
    expect(permissions.known("agent", "list", NODES)).toBe("unknown");
    permissions.observed("agent", "list", NODES, true, askedNow(clock));
    expect(permissions.known("agent", "list", NODES)).toBe("proven");
  });

  test("of a review proves nothing, and another caller's refusal does not count", async () => {
    const answers: ((isAllowed: boolean) => void)[] = [];
    const mayAccess = () => new Promise<boolean>((resolve) => answers.push(resolve));
    const permissions = new Permissions(clock, { mayAccess });
    const first = permissions.prove("agent", "list", NODES);
    permissions.forget("somebody");
    answers[0]!(true);
    expect(await first).toBe("proven");
    const second = permissions.renew("agent", "list", NODES);
    permissions.forget("agent");
    answers[1]!(true);
    expect(await second).toBe("unknown");
    expect(permissions.known("agent", "list", NODES)).toBe("unknown");
  });

  test("lets no copy answer while the link stands", () => {
    const rights = new FreshRights({ clock, review: async () => undefined });
    const caller = { principal: "token:pod", credential } as never;
    const asked = askedNow(clock);
    rights.refused(caller);
    rights.heard(caller, "list", NODES, asked);
    expect(rights.isFresh(caller, "list", NODES)).toBe(false);
    rights.heard(caller, "list", NODES, askedNow(clock));
    expect(rights.isFresh(caller, "list", NODES)).toBe(true);
  });

  test("is as old as its question, not as its answer", async () => {
    const time = new ManualClock();
    const rights = new FreshRights({ clock: time, review: async () => undefined });
    const caller = { principal: "token:pod", credential } as never;
    const asked = askedNow(time);
    await time.pass(9_000);
    rights.heard(caller, "list", NODES, asked);
    expect(rights.isFresh(caller, "list", NODES)).toBe(true);
    await time.pass(2_000);
    expect(rights.isFresh(caller, "list", NODES)).toBe(false);
  });

  test("gives no token back", () => {
    const tokens = new RefusedTokens(new MemoryStore());
    const asked = askedNow(clock);
    tokens.add("pod");
    expect([tokens.delete("pod", asked), tokens.has("pod")]).toEqual([false, true]);
    expect([tokens.delete("pod", askedNow(clock)), tokens.has("pod")]).toEqual([true, false]);
  });

  test("gives no right to write while cut back", () => {
    const rights = new SeenRights(new MemoryStore());
    const right = { verb: "patch", group: "", resource: "pods", subresource: "", namespace: "shop" };
    const asked = betweenNow();
    rights.refused("p", { ...right, namespace: "bank" });
    rights.heard("p", right, 200, asked);
    expect(rights.has("p", right)).toBe(false);
    rights.heard("p", right, 200, betweenNow());
    expect(rights.has("p", right)).toBe(true);
  });

  test("gives no object and no credential back, be it the caller's own question or a look", async () => {
    const time = new ManualClock();
    const statuses: ((status: number) => void)[] = [];
    const refusals = new Refusals({
      scopes: { all: () => [], withhold: () => false, release: () => {}, forget: () => {} },
      source: { credentialOf: () => credential, list: () => Promise.reject(new Error("not asked here")) },
      statusOf: () => new Promise<number>((resolve) => statuses.push(resolve)),
      knows: async () => undefined,
      isReady: async () => true,
      link: new ModelLink(),
      onCount: () => {},
      store: new MemoryStore(),
      clock: time,
      log: silentLog,
    });
    const a = { ...NODES, name: "a", canonicalPath: "/api/v1/nodes/a" };
    const early = askedNow(time);
    await refusals.objectRefused("token:pod", a, true);
    refusals.allowed("token:pod", a, early);
    expect(refusals.isRefused("token:pod", a)).toBe(true);
    // A look asks; it is refused once more; the look's answer is of before.
    await time.pass(1_500);
    expect(statuses).toHaveLength(1);
    await refusals.objectRefused("token:pod", a, true);
    statuses[0]!(200);
    await time.pass(10);
    expect(refusals.isRefused("token:pod", a)).toBe(true);
    refusals.allowed("token:pod", a, askedNow(time));
    expect(refusals.isRefused("token:pod", a)).toBe(false);
    expect([early, askedNow(time)].map((asked) => refusals.isLate("token:pod", a, asked))).toEqual([true, false]);
    const unkept = askedNow(time);
    await refusals.objectRefused("token:pod", a, false);
    expect([unkept, askedNow(time)].map((asked) => refusals.isLate("token:pod", a, asked))).toEqual([true, false]);
    const gone = askedNow(time);
    refusals.objectGone("token:pod", a, false);
    expect([gone, askedNow(time)].map((asked) => refusals.isLate("token:pod", a, asked))).toEqual([true, false]);

    const asked = askedNow(time);
    refusals.credentialRefused("token:pod", credential);
    refusals.accepted("token:pod", asked);
    expect(refusals.isRefused("token:pod", a)).toBe(true);
    refusals.accepted("token:pod", askedNow(time));
    expect(refusals.isRefused("token:pod", a)).toBe(false);
    refusals.close();
  });
});
