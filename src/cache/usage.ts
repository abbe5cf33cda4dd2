/**
 * When a scope was last used, and for how long it is followed after that.
 */

import type { Clock } from "../base/clock.ts";
import type { Copy } from "../store/contract.ts";

/** A use is written down once a minute. */
const WRITE_AFTER_MS = 60_000;

/** The uses of one scope. */
export class Usage {
  #lastMs: number;
  /** By the monotonic clock; undefined while this process has not seen it used. */
  #seenAtMs: number | undefined;
  #cancelLinger: (() => void) | undefined;

  constructor(
    private readonly copy: Copy,
    private readonly clock: Clock,
    private readonly lingerMs: number,
    private readonly onUnused: () => void,
  ) {
    this.#lastMs = copy.lastUsedMs;
  }

  /** For how long no client has used it, in ms; a clock that is set meanwhile neither ages nor renews what this process saw used. */
  get unusedMs(): number {
    const { clock } = this;
    return this.#seenAtMs === undefined ? clock.nowMs() - this.#lastMs : clock.monotonicMs() - this.#seenAtMs;
  }

  /** A client used it. */
  note(): void {
    const { clock, lingerMs, onUnused } = this;
    this.#seenAtMs = clock.monotonicMs();
    // A clock that stands before the last use was never set: what it says would make the scope decades old.
    const nowMs = Math.max(clock.nowMs(), this.#lastMs);
    if (nowMs - this.#lastMs > WRITE_AFTER_MS) this.copy.touch({ lastUsedMs: nowMs });
    this.#lastMs = nowMs;
    this.#cancelLinger?.();
    this.#cancelLinger = clock.after(lingerMs, onUnused);
  }

  /** Writes down the last use. */
  settle(): void {
    if (!this.copy.isDropped) this.copy.touch({ lastUsedMs: this.#lastMs });
  }

  /** Nobody is told any more that it is unused. */
  stop(): void {
    this.#cancelLinger?.();
  }
}
