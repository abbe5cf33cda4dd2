/**
 * Time, as it is handed to every part that needs it.
 *
 * Deadlines use `monotonicMs`: a gateway without a battery-backed clock boots
 * in 1970 and jumps decades when NTP answers, and no deadline may jump with it.
 * `nowMs` is for stamps that people or certificates compare.
 */

/** A clock and its timers; tests and the simulation hand in their own. */
export interface Clock {
  /** Milliseconds since the epoch by the system's clock; may jump. */
  nowMs(): number;
  /** Milliseconds since an arbitrary start; never jumps, never runs backwards. */
  monotonicMs(): number;
  /** Runs `task` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, task: () => void): () => void;
}

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A signal that aborts after a while, by this clock. */
export function abortsAfter(clock: Clock, delayMs: number): AbortSignal {
  const controller = new AbortController();
  clock.after(delayMs, () => controller.abort(new DOMException("no answer in time", "TimeoutError")));
  return controller.signal;
}
