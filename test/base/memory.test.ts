import { expect, test } from "bun:test";
import { Collector } from "../../src/base/memory.ts";

const MB = 1e6;
/** More than passes between two looks. */
const MUCH = 2 * MB;

function world(residentMb: number, heldMb = 60) {
  const state = { residentMb, nowMs: 0, collections: 0, looks: 0 };
  const collector = new Collector({
    markBytes: 92 * MB,
    nowMs: () => state.nowMs,
    residentBytes() {
      state.looks++;
      return state.residentMb * MB;
    },
    collect() {
      state.collections++;
      state.nowMs += 20;
      state.residentMb = Math.min(state.residentMb, heldMb);
    },
  });
  return { state, collector };
}

test("above the mark what passed is collected, below it nothing is", () => {
  const { state, collector } = world(80);
  collector.note(MUCH);
  expect(state.collections).toBe(0);
  state.residentMb = 93;
  collector.note(MUCH);
  expect(state).toMatchObject({ collections: 1, residentMb: 60 });
});

test("memory is looked at once in a megabyte, and small pieces count for what they leave behind", () => {
  const { state, collector } = world(80);
  for (let n = 0; n < 200; n++) collector.note(10);
  expect(state.looks).toBe(3);
});

test("collections take a third of the time at most", () => {
  const { state, collector } = world(130, 60);
  collector.note(MUCH);
  state.residentMb = 130;
  collector.note(MUCH);
  state.nowMs += 39;
  collector.note(MUCH);
  expect(state.collections).toBe(1);
  state.nowMs += 1;
  collector.note(MUCH);
  expect(state.collections).toBe(2);
});

test("what is really held moves the mark up with it, and down again when it has gone", () => {
  const { state, collector } = world(150, 120);
  const later = (residentMb: number) => {
    state.residentMb = residentMb;
    state.nowMs += 1_000;
    collector.note(MUCH);
    return state.collections;
  };
  expect(later(150)).toBe(1);
  // An eighth of what is held above it, ten megabytes at least.
  expect(later(134)).toBe(1);
  expect(later(136)).toBe(2);
  expect(later(70)).toBe(2);
  expect(later(93)).toBe(3);
});
