/**
 * Whether a node is heard, by watching its lease change.
 *
 * Clocks of nodes are not compared with ours: a gateway may be years off. What
 * counts is that a newer renewal came while we looked, and how long ago that
 * was on a clock that never jumps. Newer is what has a larger resourceVersion:
 * an event told twice, or an older one, is no sign of life.
 *
 * News can be late. A watch that stood still for a minute and goes on tells
 * what happened meanwhile; a list and a single read tell a renewal of any age.
 * How late is measured on the node's own clock, between two of its renewals:
 *
 *   heard at A --- renewTime + 10 s ---> A + 10 s | our watch begins | event arrives
 *
 * A node whose clock was set back in between seems later than it is; its next
 * renewal arrives at the pace at which renewals are written, and puts it right.
 *
 * Our own blindness is nobody's silence. Time counts against a node only while
 * the API server was in contact with us; after a gap all nodes get a new grace,
 * but one that was found silent before stays so until its lease moves.
 */

import type { Clock } from "../base/clock.ts";

/** A lease as somebody has written it. */
export interface Renewal {
  /** As it is written; undefined in a lease that was never renewed. */
  readonly renewTime: string | undefined;
  /** Of the lease object. */
  readonly resourceVersion: string;
}

/** What is known of one node's lease. */
interface Trace {
  renewTime: string | undefined;
  version: bigint | undefined;
  /** Monotonic: the last renewal, as well as we know, or the first sight. */
  sinceMs: number;
  /** Monotonic: when we were told of it. */
  toldMs: number;
  /** Wall clock: when it was last heard, as well as we know. */
  lastSeenMs: number | undefined;
  hasChanged: boolean;
  isSilent: boolean;
  /** A renewal was told since it was found silent; of what age, `sinceMs` says. */
  hasMoved: boolean;
}

/** A gap in contact beyond this is blindness; the leader's own lease is renewed every 2 s. */
const BLIND_AFTER_MS = 10_000;

/** All nodes' leases. */
export class Hearing {
  readonly #traces = new Map<string, Trace>();
  #contactMs: number;
  #graceFromMs: number;
  #watchingFromMs: number;

  constructor(private readonly clock: Clock) {
    this.#contactMs = this.#graceFromMs = this.#watchingFromMs = clock.monotonicMs();
  }

  /** The API server has answered. */
  contact(): void {
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#contactMs > BLIND_AFTER_MS) this.#graceFromMs = nowMs;
    this.#contactMs = nowMs;
  }

  /** All leases were listed: what happened in between was not seen. */
  begin(): void {
    this.#graceFromMs = this.clock.monotonicMs();
  }

  /** A watch begins: what it tells of earlier times is old. */
  watching(): void {
    this.#watchingFromMs = this.clock.monotonicMs();
  }

  /** The cluster has gone back in time: versions begin anew, and what is found is nobody's renewal. */
  restart(): void {
    for (const trace of this.#traces.values()) Object.assign(trace, { renewTime: undefined, version: undefined });
  }

  /** A lease as an event of the watch tells it. */
  event(name: string, renewal: Renewal): void {
    this.#renewed(name, renewal, this.#watchingFromMs);
  }

  /** A lease as it was found by a list or a single read: written at any time before. */
  found(name: string, renewal: Renewal): void {
    this.#renewed(name, renewal, this.clock.monotonicMs());
  }

  /** A node is there; whether it has a lease will be seen. */
  expect(name: string): void {
    if (!this.#traces.has(name)) this.found(name, { renewTime: undefined, resourceVersion: "" });
  }

  /** The node is gone. */
  forget(name: string): void {
    this.#traces.delete(name);
  }

  /** @param silentAfterMs how long a lease may stand still. */
  of(name: string, silentAfterMs: number): "heard" | "silent" | "unknown" {
    const trace = this.#traces.get(name);
    if (trace === undefined) return "unknown";
    const untilMs = Math.min(this.clock.monotonicMs(), this.#contactMs);
    const ageMs = untilMs - trace.sinceMs;
    if (trace.isSilent && (!trace.hasMoved || ageMs >= silentAfterMs)) return "silent";
    trace.isSilent = Math.min(ageMs, untilMs - this.#graceFromMs) >= silentAfterMs;
    trace.hasMoved = false;
    if (trace.isSilent) return "silent";
    return trace.hasChanged && ageMs < silentAfterMs ? "heard" : "unknown";
  }

  /** Wall clock, ms; undefined if it was never heard. */
  lastSeenMs(name: string): number | undefined {
    return this.#traces.get(name)?.lastSeenMs;
  }

  /** @param certainFromMs what was written before this moment (monotonic) may be told now. */
  #renewed(name: string, { renewTime, resourceVersion }: Renewal, certainFromMs: number): void {
    const version = /^[0-9]+$/.test(resourceVersion) ? BigInt(resourceVersion) : undefined;
    const trace = this.#traces.get(name);
    const nowMs = this.clock.monotonicMs();
    if (trace?.renewTime === undefined) return this.#firstSight(name, trace, renewTime, version);
    const isOld = version !== undefined && trace.version !== undefined && version <= trace.version;
    if (isOld || renewTime === undefined || renewTime === trace.renewTime) return;
    const heardMs = Math.min(nowMs, heardAt(trace, renewTime, certainFromMs, nowMs));
    Object.assign(trace, {
      renewTime,
      version: version ?? trace.version,
      sinceMs: heardMs,
      toldMs: nowMs,
      lastSeenMs: this.clock.nowMs() - (nowMs - heardMs),
      hasChanged: true,
      hasMoved: true,
    });
  }

  /** What was before us is known only from the node's own clock; never later than now. */
  #firstSight(name: string, known: Trace | undefined, renewTime: string | undefined, version?: bigint): void {
    const writtenMs = Date.parse(renewTime ?? "");
    const lastSeenMs = Number.isNaN(writtenMs) ? undefined : Math.min(writtenMs, this.clock.nowMs());
    const nowMs = this.clock.monotonicMs();
    this.#traces.set(name, {
      renewTime,
      version,
      sinceMs: known?.sinceMs ?? nowMs,
      toldMs: nowMs,
      lastSeenMs: known?.lastSeenMs ?? lastSeenMs,
      hasChanged: known?.hasChanged ?? false,
      isSilent: known?.isSilent ?? false,
      hasMoved: false,
    });
  }
}

/** When a renewal was written, on our clock: now, unless the node's own clock says that it was before we looked. */
function heardAt(trace: Trace, renewTime: string, certainFromMs: number, nowMs: number): number {
  const apartMs = Date.parse(renewTime) - Date.parse(trace.renewTime ?? "");
  // Not a time, or a clock that was set back: nothing can be said but that it is newer.
  if (Number.isNaN(apartMs) || apartMs <= 0) return nowMs;
  const writtenMs = trace.sinceMs + apartMs;
  if (writtenMs >= certainFromMs) return nowMs;
  // Told at the pace at which it was written: that is no backlog.
  const isAtPace = trace.toldMs >= certainFromMs && nowMs - trace.toldMs >= apartMs / 2;
  return isAtPace ? nowMs : writtenMs;
}
