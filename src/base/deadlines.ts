/**
 * Many deadlines of one length on one timer.
 *
 * Nearly every request is answered long before its deadline, so the timer is
 * left alone when one is met: it goes off for the one it was set for, and is
 * set again for the oldest that still runs. Being of one length they end in the
 * order in which they began, so the oldest is the first.
 */

import type { Clock } from "./clock.ts";

interface Deadline {
  readonly atMs: number;
  readonly task: () => void;
}

/** Deadlines of one length. */
export class Deadlines {
  /** In the order in which they end. */
  readonly #running = new Set<Deadline>();
  #isSet = false;

  constructor(
    private readonly clock: Clock,
    private readonly lengthMs: number,
  ) {}

  /** Runs the task when the time is over; the returned function is for who was faster. */
  begin(task: () => void): () => void {
    const deadline = { atMs: this.clock.monotonicMs() + this.lengthMs, task };
    this.#running.add(deadline);
    if (!this.#isSet) this.#set(this.lengthMs);
    return () => void this.#running.delete(deadline);
  }

  #set(delayMs: number): void {
    this.#isSet = true;
    this.clock.after(delayMs, () => {
      this.#isSet = false;
      const nowMs = this.clock.monotonicMs();
      for (const deadline of this.#running) {
        // The runtime's timers may go off a fraction of a millisecond early.
        if (deadline.atMs > nowMs + 1) break;
        this.#running.delete(deadline);
        deadline.task();
      }
      const [next] = this.#running;
      if (next !== undefined && !this.#isSet) this.#set(Math.max(1, next.atMs - nowMs));
    });
  }
}
