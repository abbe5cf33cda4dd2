import { expect, test } from "bun:test";
import { Deadlines } from "../../src/base/deadlines.ts";
import { ManualClock } from "../support/model.ts";

/** Counts the timers that are set. */
class CountingClock extends ManualClock {
  timersSet = 0;

  override after(delayMs: number, task: () => void): () => void {
    this.timersSet++;
    return super.after(delayMs, task);
  }
}

test("each deadline ends in its time, and one that was met never", async () => {
  const clock = new ManualClock();
  const startMs = clock.monotonicMs();
  const deadlines = new Deadlines(clock, 1_000);
  const ended: string[] = [];
  const end = (which: string) => () => ended.push(`${which} after ${clock.monotonicMs() - startMs}`);
  deadlines.begin(end("first"));
  await clock.pass(300);
  const met = deadlines.begin(end("met"));
  await clock.pass(300);
  deadlines.begin(end("third"));
  met();
  await clock.pass(5_000);
  expect(ended).toEqual(["first after 1000", "third after 1600"]);
});

test("thousands that are met share a timer", async () => {
  const clock = new CountingClock();
  const deadlines = new Deadlines(clock, 1_000);
  for (let i = 0; i < 5_000; i++) {
    deadlines.begin(() => expect.unreachable())();
    if (i % 100 === 0) await clock.pass(10);
  }
  expect(clock.timersSet).toBe(1);
});

test("a deadline that begins in another's task has its own full time", async () => {
  const clock = new ManualClock();
  const startMs = clock.monotonicMs();
  const deadlines = new Deadlines(clock, 1_000);
  const ended: number[] = [];
  deadlines.begin(() => {
    ended.push(clock.monotonicMs() - startMs);
    deadlines.begin(() => ended.push(clock.monotonicMs() - startMs));
  });
  await clock.pass(10_000);
  expect(ended).toEqual([1_000, 2_000]);
});
