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
let renewals: number;

beforeEach(() => {
  clock = new ManualClock();
  hearing = new Hearing(clock);
  renewals = 0;
  hearing.lease("edge", WROTE);
});

const renew = (name = "edge") => hearing.lease(name, `renewal ${++renewals}`);
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
    hearing.lease("old", "1970-01-01T00:00:00Z");
    hearing.lease("new", "2099-01-01T00:00:00Z");
    await live(5);
    hearing.lease("old", "1970-01-01T00:00:10Z");
    hearing.lease("new", "2098-01-01T00:00:00Z");
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
    hearing.lease("early", new Date(clock.nowMs() - 500_000).toISOString());
    expect(hearing.lastSeenMs("early")).toBe(clock.nowMs() - 500_000);
    await live(3);
    renew();
    expect(hearing.lastSeenMs("edge")).toBe(clock.nowMs());
    expect(hearing.lastSeenMs("stranger")).toBeUndefined();
  });

  test("a node that is known before its lease is not heard by the lease's first sight", async () => {
    hearing.expect("known");
    const wroteMs = clock.nowMs() - 300_000;
    hearing.lease("known", new Date(wroteMs).toISOString());
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
});
