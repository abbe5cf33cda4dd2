/**
 * The machine's clock, which a test may put forward: what is due by then
 * happens at once, in its order, and everything between runs in real time.
 */

import { systemClock, type Clock } from "../../src/base/clock.ts";

/** A clock that can be put forward. */
export class ShiftedClock implements Clock {
  #shiftMs = 0;
  #timers = new Set<{ readonly atMs: number; readonly run: () => void }>();

  nowMs(): number {
    return systemClock.nowMs() + this.#shiftMs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#shiftMs;
  }

  after(delayMs: number, task: () => void): () => void {
    const timer = {
      atMs: this.monotonicMs() + delayMs,
      run: () => {
        cancel();
        this.#timers.delete(timer);
        task();
      },
    };
    const cancel = systemClock.after(delayMs, timer.run);
    this.#timers.add(timer);
    return () => {
      cancel();
      this.#timers.delete(timer);
    };
  }

  /** Puts both clocks forward. */
  forward(ms: number): void {
    this.#shiftMs += ms;
    const due = [...this.#timers].filter(({ atMs }) => atMs <= this.monotonicMs());
    for (const timer of due.sort((a, b) => a.atMs - b.atMs)) if (this.#timers.has(timer)) timer.run();
  }
}
