import { expect, test } from "bun:test";
import { inSlices, nextTurn, SLICE_BYTES, Slices } from "../../src/base/turns.ts";

test("of much work of many one slice is done between two turns of the event loop", async () => {
  const done: string[] = [];
  const work = async (name: string) => {
    const slices = new Slices();
    for (let n = 0; n < 3; n++) {
      done.push(name);
      await slices.spend(SLICE_BYTES);
    }
  };
  const all = Promise.all([work("a"), work("b")]);
  // The first slices begin at once; each further one has a turn of its own.
  expect(done).toEqual(["a", "b"]);
  const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
  let most = 0;
  while (done.length < 6) {
    const before = done.length;
    await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, done.length - before);
  }
  await all;
  await turn();
  expect(most).toBe(1);
  expect(done).toEqual(["a", "b", "a", "b", "a", "b"]);
});

test("small work waits for nobody, and bytes are cut without a rest", async () => {
  const slices = new Slices();
  expect(slices.spend(SLICE_BYTES - 1)).toBeUndefined();
  expect(slices.spend(1)).toBeInstanceOf(Promise);
  expect(slices.spend(1)).toBeUndefined();
  await nextTurn();
  const bytes = new Uint8Array(2 * SLICE_BYTES + 5);
  expect([...inSlices(bytes)].map(({ length }) => length)).toEqual([SLICE_BYTES, SLICE_BYTES, 5]);
});
