/**
 * Nobody waits for another that cannot be done.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { FairQueue } from "../../src/guard/fair-queue.ts";
import { ManualClock } from "../support/model.ts";

let clock: ManualClock;
let tried: string[];
let queue: FairQueue;
let conflict: Error;

beforeEach(() => {
  clock = new ManualClock();
  tried = [];
  conflict = new Error("conflict");
  queue = new FairQueue({ clock, mostAtOnce: 2, failed: (_key, error) => error !== conflict });
});

const work = (key: string, act: () => Promise<void> = () => Promise.resolve()) => ({
  key,
  act: () => {
    tried.push(key);
    return act();
  },
});
const failing = (key: string, error = new Error("no")) => work(key, () => Promise.reject(error));

async function rounds(count: number, due: () => ReturnType<typeof work>[]): Promise<void> {
  for (let round = 0; round < count; round++) {
    await queue.round(due());
    await clock.pass(1_000);
  }
}

describe("the queue", () => {
  test("those in front that always fail do not keep the last one from its turn", async () => {
    await rounds(2, () => [failing("a"), failing("b"), work("c")]);
    expect(tried.slice(0, 3)).toEqual(["a", "b", "c"]);
  });

  test("what fails waits twice as long each time, and no longer than a minute", async () => {
    const times: number[] = [];
    const startMs = clock.monotonicMs();
    const one = () => [
      work("a", () => {
        times.push((clock.monotonicMs() - startMs) / 1_000);
        return Promise.reject(new Error("no"));
      }),
    ];
    await rounds(200, one);
    expect(times).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183]);
  });

  test("another writer who was first is no reason to wait", async () => {
    await rounds(3, () => [failing("a", conflict)]);
    expect(tried).toEqual(["a", "a", "a"]);
  });

  test("a round does not wait for what hangs, never runs more than it may, and nothing twice at once", async () => {
    const hanging: (() => void)[] = [];
    const hang = (key: string) => work(key, () => new Promise((resolve) => hanging.push(resolve)));
    const due = () => [hang("a"), hang("b"), hang("c")];
    const first = queue.round(due());
    await queue.round(due());
    expect(tried).toEqual(["a", "b"]);
    hanging.shift()!();
    hanging.shift()!();
    await first;
    void queue.round(due());
    expect(tried).toEqual(["a", "b", "c", "a"]);
  });
});
