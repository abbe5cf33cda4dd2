/**
 * Whether a node is heard, by watching its lease change.
 *
 * Clocks of nodes are not compared with ours: a gateway may be years off. What
 * counts is that renewTime became another one while we looked, and how long ago
 * that was on a clock that never jumps.
 *
 * Our own blindness is nobody's silence. Time counts against a node only while
 * the API server was in contact with us; after a gap all nodes get a new grace,
 * but one that was found silent before stays so until its lease moves.
 */

import type { Clock } from "../base/clock.ts";

/** What is known of one node's lease. */
interface Trace {
  renewTime: string | undefined;
  /** Monotonic: the last change, or the first sight. */
  sinceMs: number;
  /** Wall clock: when it was last heard, as well as we know. */
  lastSeenMs: number | undefined;
  hasChanged: boolean;
  isSilent: boolean;
}

/** A gap in contact beyond this is blindness; the leader's own lease is renewed every 2 s. */
const BLIND_AFTER_MS = 10_000;

/** All nodes' leases. */
export class Hearing {
  readonly #traces = new Map<string, Trace>();
  #contactMs: number;
  #graceFromMs: number;

  constructor(private readonly clock: Clock) {
    this.#contactMs = this.#graceFromMs = clock.monotonicMs();
  }

  /** The API server has answered. */
  contact(): void {
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#contactMs > BLIND_AFTER_MS) this.#graceFromMs = nowMs;
    this.#contactMs = nowMs;
  }

  /** Events may have been missed: a watch was begun anew. */
  begin(): void {
    this.#graceFromMs = this.clock.monotonicMs();
  }

  /**
   * A lease as it stands now.
   *
   * @param renewTime as it is written; undefined in a lease that was never renewed.
   */
  lease(name: string, renewTime: string | undefined): void {
    const trace = this.#traces.get(name);
    const nowMs = this.clock.nowMs();
    if (trace === undefined || (trace.renewTime === undefined && renewTime !== undefined && !trace.hasChanged)) {
      // What was before us is known only from the node's own clock; never later than now.
      const writtenMs = Date.parse(renewTime ?? "");
      this.#traces.set(name, {
        renewTime,
        sinceMs: trace?.sinceMs ?? this.clock.monotonicMs(),
        lastSeenMs: Number.isNaN(writtenMs) ? undefined : Math.min(writtenMs, nowMs),
        hasChanged: false,
        isSilent: false,
      });
      return;
    }
    if (trace.renewTime === renewTime || renewTime === undefined) return;
    Object.assign(trace, {
      renewTime,
      sinceMs: this.clock.monotonicMs(),
      lastSeenMs: nowMs,
      hasChanged: true,
      isSilent: false,
    });
  }

  /** A node is there; whether it has a lease will be seen. */
  expect(name: string): void {
    if (!this.#traces.has(name)) this.lease(name, undefined);
  }

  /** The node is gone. */
  forget(name: string): void {
    this.#traces.delete(name);
  }

  /** @param silentAfterMs how long a lease may stand still. */
  of(name: string, silentAfterMs: number): "heard" | "silent" | "unknown" {
    const trace = this.#traces.get(name);
    if (trace === undefined) return "unknown";
    if (trace.isSilent) return "silent";
    const untilMs = Math.min(this.clock.monotonicMs(), this.#contactMs);
    const still = untilMs - Math.max(trace.sinceMs, this.#graceFromMs);
    if (still >= silentAfterMs) {
      trace.isSilent = true;
      return "silent";
    }
    return trace.hasChanged && untilMs - trace.sinceMs < silentAfterMs ? "heard" : "unknown";
  }

  /** Wall clock, ms; undefined if it was never heard. */
  lastSeenMs(name: string): number | undefined {
    return this.#traces.get(name)?.lastSeenMs;
  }
}
