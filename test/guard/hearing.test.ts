/**
 * Silence is a lease that stands still while we looked; our own blindness is nobody's.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { Hearing } from "../../src/guard/hearing.ts";
import { ManualClock } from "../support/model.ts";

const SILENT_MS = 40_000;
const WROTE = "2026-11-24T12:00:00.000000Z";

let clock: ManualClock;
let hearing: Hearing;
let version: number;

beforeEach(() => {
  clock = new ManualClock();
  hearing = new Hearing(clock);
  version = 0;
  find("edge", WROTE);
  hearing.watching();
});

const next = (renewTime: string) => ({ renewTime, resourceVersion: String(++version) });
const find = (name: string, renewTime: string) => hearing.found(name, next(renewTime));
const tell = (name: string, renewTime: string) => hearing.event(name, next(renewTime));
/** As the node writes it; its clock is right. */
const renew = (name = "edge") => tell(name, stamp());
const stamp = (agoMs = 0) => new Date(Date.parse(WROTE) + clock.monotonicMs() - agoMs).toISOString();
const verdict = () => hearing.of("edge", SILENT_MS);

/** Time with the API server in contact, every second. */
async function live(seconds: number, more: () => void = () => undefined): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    await clock.pass(1_000);
    hearing.contact();
    more();
  }
}

describe("hearing", () => {
  test("first sight says nothing; a change says heard; standing still says silent", async () => {
    expect(verdict()).toBe("unknown");
    await live(10);
    renew();
    expect(verdict()).toBe("heard");
    await live(39);
    expect(verdict()).toBe("heard");
    await live(2);
    expect(verdict()).toBe("silent");
    renew();
    expect(verdict()).toBe("heard");
  });

  test("a guard that starts during a cut finds the node silent by its own observation", async () => {
    await live(39);
    expect(verdict()).toBe("unknown");
    await live(2);
    expect(verdict()).toBe("silent");
  });

  test("no clock is compared: a node that is years off is heard as any other", async () => {
    find("old", "1970-01-01T00:00:00Z");
    find("new", "2099-01-01T00:00:00Z");
    await live(5);
    tell("old", "1970-01-01T00:00:10Z");
    tell("new", "2098-01-01T00:00:00Z");
    expect([hearing.of("old", SILENT_MS), hearing.of("new", SILENT_MS)]).toEqual(["heard", "heard"]);
    // And never seen later than now.
    expect(hearing.lastSeenMs("new")).toBe(clock.nowMs());
  });

  test("while we are blind no time counts, and after it there is a new grace", async () => {
    renew();
    await live(5);
    await clock.pass(600_000);
    expect(verdict()).not.toBe("silent");
    hearing.contact();
    expect(verdict()).not.toBe("silent");
    await live(39);
    expect(verdict()).not.toBe("silent");
    await live(2);
    expect(verdict()).toBe("silent");
  });

  test("what was silent before our blindness is silent after it, until its lease moves", async () => {
    await live(45);
    expect(verdict()).toBe("silent");
    await clock.pass(600_000);
    hearing.contact();
    hearing.begin();
    expect(verdict()).toBe("silent");
    renew();
    expect(verdict()).toBe("heard");
  });

  test("a list begun anew gives everybody a grace", async () => {
    renew();
    await live(30);
    hearing.begin();
    await live(30);
    expect(verdict()).toBe("unknown");
    await live(15);
    expect(verdict()).toBe("silent");
  });

  test("last seen: by our clock when it changed, by its own word at first sight", async () => {
    find("early", new Date(clock.nowMs() - 500_000).toISOString());
    expect(hearing.lastSeenMs("early")).toBe(clock.nowMs() - 500_000);
    await live(3);
    renew();
    expect(hearing.lastSeenMs("edge")).toBe(clock.nowMs());
    expect(hearing.lastSeenMs("stranger")).toBeUndefined();
  });

  test("a node that is known before its lease is not heard by the lease's first sight", async () => {
    hearing.expect("known");
    const wroteMs = clock.nowMs() - 300_000;
    find("known", new Date(wroteMs).toISOString());
    expect([hearing.of("known", SILENT_MS), hearing.lastSeenMs("known")]).toEqual(["unknown", wroteMs]);
    await live(41);
    expect(hearing.of("known", SILENT_MS)).toBe("silent");
  });

  test("a node without any lease is silent in its time; one that is gone is unknown", async () => {
    hearing.expect("bare");
    hearing.expect("edge");
    await live(41);
    expect(hearing.of("bare", SILENT_MS)).toBe("silent");
    hearing.forget("bare");
    expect(hearing.of("bare", SILENT_MS)).toBe("unknown");
  });

  test("an event told twice, or an older one, is no sign of life", async () => {
    await live(10);
    const first = next(stamp());
    hearing.event("edge", first);
    await live(10);
    const second = next(stamp());
    hearing.event("edge", second);
    await live(45);
    expect(verdict()).toBe("silent");
    // A watch that began anew where an old one had begun.
    for (const renewal of [first, second]) hearing.event("edge", renewal);
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["silent", clock.nowMs() - 45_000]);
  });

  test("late news are old: what a watch tells of the time before it began says when the node was heard", async () => {
    await live(10);
    renew();
    // The watch stands still; the node renews once more and is cut. Others keep us in contact.
    await live(10);
    const missed = next(stamp());
    await live(60);
    expect(verdict()).toBe("silent");
    hearing.watching();
    hearing.event("edge", missed);
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["silent", clock.nowMs() - 60_000]);
    // And when the node is back it is heard at once.
    await live(5);
    renew();
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["heard", clock.nowMs()]);
  });

  test("a lease that is read tells a renewal of any age", async () => {
    await live(10);
    renew();
    await live(10);
    const missed = next(stamp());
    await live(60);
    hearing.found("edge", missed);
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["silent", clock.nowMs() - 60_000]);
    await live(10);
    find("edge", stamp(3_000));
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["heard", clock.nowMs() - 3_000]);
  });

  test("a node that comes back with its clock set back is heard by its second renewal at the latest", async () => {
    await live(10);
    renew();
    await live(600);
    expect(verdict()).toBe("silent");
    hearing.watching();
    await live(30);
    // Ten minutes behind: seen from its own clock it was away for a few seconds.
    const behindMs = 600_000;
    tell("edge", stamp(behindMs));
    await live(10);
    tell("edge", stamp(behindMs));
    expect([verdict(), hearing.lastSeenMs("edge")]).toEqual(["heard", clock.nowMs()]);
  });

  test("a cluster that was set back in time: what is found is no renewal, what follows is", async () => {
    version = 1_000;
    renew();
    await live(45);
    expect(verdict()).toBe("silent");
    hearing.restart();
    version = 10;
    find("edge", WROTE);
    expect(verdict()).toBe("silent");
    await live(5);
    renew();
    expect(verdict()).toBe("heard");
  });
});
