/**
 * Deadlines of time in which the process could work.
 *
 * A busy machine, a stopped process or one long task lets a timer fire late,
 * and what it waited for may have lain in the socket all along: timers run
 * before sockets are read. So a deadline is taken in short steps, and of each
 * only as much counts as it was meant to last.
 */

import type { Clock } from "./clock.ts";

const STEP_MS = 250;

/**
 * Runs `task` once, after `delayMs` of time in which the event loop turned.
 *
 * @returns cancels it.
 */
export function afterAwake(clock: Clock, delayMs: number, task: () => void): () => void {
  let leftMs = delayMs;
  let cancel = () => {};
  const step = () => {
    const stepMs = Math.min(STEP_MS, leftMs);
    cancel = clock.after(stepMs, () => {
      leftMs -= stepMs;
      if (leftMs > 0) step();
      else task();
    });
  };
  step();
  return () => cancel();
}
