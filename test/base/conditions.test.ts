import { describe, expect, test } from "bun:test";
import { Conditions, type Finding } from "../../src/base/conditions.ts";
import type { Clock } from "../../src/base/clock.ts";

function clockAt(start: number) {
  const state = { nowMs: start, monotonicMs: 0 };
  const clock: Clock = { nowMs: () => state.nowMs, monotonicMs: () => state.monotonicMs, after: () => () => {} };
  return { clock, state };
}

const finding = (message: string): Finding => ({ reason: "Because", message, next: "Try: that" });

describe("conditions", () => {
  test("one that is raised again keeps its time and takes the new words; cleared, it is gone", () => {
    const { clock, state } = clockAt(1_000_000);
    const conditions = new Conditions(clock);
    conditions.raise("ForeignAnswer", finding("a login page"));
    state.nowMs += 60_000;
    state.monotonicMs += 60_000;
    conditions.raise("ForeignAnswer", finding("another login page"));
    expect(conditions.all()).toEqual([
      {
        type: "ForeignAnswer",
        subject: "",
        reason: "Because",
        message: "another login page",
        next: "Try: that",
        sinceMs: 1_000_000,
      },
    ]);
    conditions.clear("ForeignAnswer");
    expect(conditions.all()).toEqual([]);
  });

  test("a clock that jumps years moves the time with it: it is the same moment by the new clock", () => {
    const { clock, state } = clockAt(0);
    const conditions = new Conditions(clock);
    conditions.raise("StorageFrozen", finding("silence"));
    state.monotonicMs = 5_000;
    state.nowMs = Date.UTC(2026, 0, 1);
    expect(conditions.all()[0]!.sinceMs).toBe(Date.UTC(2026, 0, 1) - 5_000);
  });

  test("one that is watched comes and goes with what is looked at; a look that throws hides no other", () => {
    const conditions = new Conditions(clockAt(0).clock);
    let isBad = false;
    conditions.watch("StoreInMemory", () => (isBad ? finding("EROFS") : undefined));
    conditions.watch("WrongCluster", () => {
      throw new Error("broken");
    });
    expect(conditions.stands("StoreInMemory")).toBe(false);
    isBad = true;
    expect(conditions.all().map(({ type }) => type)).toEqual(["StoreInMemory"]);
    isBad = false;
    expect(conditions.all()).toEqual([]);
  });

  test("the most urgent comes first, subjects of one kind are apart, and neither their number nor a text is unbounded", () => {
    const conditions = new Conditions(clockAt(0).clock);
    for (let i = 0; i < 1_000; i++) conditions.raise("FileUnusable", finding("x".repeat(100_000)), `file-${i}`);
    conditions.raise("CredentialRefused", finding("401"));
    const all = conditions.all();
    expect(all).toHaveLength(9);
    expect(all[0]!.type).toBe("CredentialRefused");
    expect(JSON.stringify(all).length).toBeLessThan(8_000);
  });
});
