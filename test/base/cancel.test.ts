import { expect, test } from "bun:test";
import { Cancel, signalOf } from "../../src/base/cancel.ts";

test("what is given up tells each listener once, and only the first reason counts", () => {
  const cancel = new Cancel();
  const told: string[] = [];
  cancel.addEventListener("abort", () => told.push("one"));
  cancel.addEventListener("abort", () => told.push("two"));
  cancel.cancel(new Error("first"));
  cancel.cancel(new Error("second"));
  expect(told).toEqual(["one", "two"]);
  expect([cancel.aborted, String(cancel.reason)]).toEqual([true, "Error: first"]);
});

test("who does not listen any more, or begins too late, is not told", () => {
  const cancel = new Cancel();
  const told: string[] = [];
  const left = () => told.push("left");
  cancel.addEventListener("abort", left);
  cancel.removeEventListener("abort", left);
  cancel.cancel(new Error("over"));
  cancel.addEventListener("abort", () => told.push("late"));
  expect(told).toEqual([]);
});

test("the runtime's own form is aborted with it, whether it was asked for before or after", () => {
  const before = new Cancel();
  const signal = signalOf(before);
  expect(signal.aborted).toBe(false);
  before.cancel(new Error("over"));
  const after = new Cancel();
  after.cancel(new Error("over"));
  expect([signal, signalOf(after)].map(({ aborted, reason }) => [aborted, String(reason)])).toEqual([
    [true, "Error: over"],
    [true, "Error: over"],
  ]);
});

test("a signal of the runtime's is its own form", () => {
  const { signal } = new AbortController();
  expect(signalOf(signal)).toBe(signal);
});
