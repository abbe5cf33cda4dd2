/**
 * Events that could not go up.
 *
 * An event is answered 201 and kept in a bounded ring; when the link is back
 * each goes up once, if it is younger than an hour. What had reached the API
 * server after all is refused there by its name (409), so nothing is doubled.
 * Of several patches of one event the last stands for all: each carries the
 * count so far.
 *
 * On disk a few seconds after the first one, then at most every ten minutes:
 * a container that crashes all night must not wear the card.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Store } from "../store/contract.ts";

/** One write that waits. */
export interface WaitingEvent {
  readonly principal: string;
  readonly method: "POST" | "PATCH";
  /** Raw target as sent. */
  readonly target: string;
  readonly contentType: string;
  /** Base64. */
  readonly body: string;
  /** ms since the epoch. */
  readonly atMs: number;
}

/** What became of one event on its way up. */
export type ReplayOutcome = "sent" | "refused" | "later" | "unreachable";

const VALUE_NAME = "events";
const MAX_EVENTS = 200;
const MAX_BYTES = 256 * 1024;
const MAX_AGE_MS = 3_600_000;
const FIRST_SAVE_MS = 5_000;
const SAVE_EVERY_MS = 600_000;

/** An event in the ring. */
interface RingEntry extends WaitingEvent {
  /** When this process took it in, by the monotonic clock; undefined for one of an earlier process. */
  readonly takenMs?: number;
}

/** The ring; survives a restart. */
export class EventRing {
  #events: RingEntry[];
  #cancelSave: (() => void) | undefined;
  #lastSaveMs = Number.NEGATIVE_INFINITY;
  #dropped = 0;

  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
    private readonly log: Log,
  ) {
    this.#events = read(store);
  }

  /** Events waiting. */
  get size(): number {
    return this.#events.length;
  }

  /** Events that gave way or grew too old. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes one in; the oldest give way. @returns false when it is larger than the ring. */
  push(event: Omit<WaitingEvent, "atMs" | "body"> & { readonly body: Uint8Array }): boolean {
    if (event.body.length > MAX_BYTES / 4) return false;
    const { clock } = this;
    const body = Buffer.from(event.body).toString("base64");
    const entry: RingEntry = { ...event, body, atMs: clock.nowMs(), takenMs: clock.monotonicMs() };
    const path = pathOf(entry.target);
    if (event.method === "PATCH") {
      this.#events = this.#events.filter(
        (other) => other.method !== "PATCH" || pathOf(other.target) !== path || other.principal !== entry.principal,
      );
    }
    this.#events.push(entry);
    let size = this.#events.reduce((sum, { body }) => sum + body.length, 0);
    while (this.#events.length > MAX_EVENTS || size > MAX_BYTES) {
      size -= this.#events.shift()!.body.length;
      this.#dropped++;
    }
    this.#saveLater();
    return true;
  }

  /** Sends what waits, in order, and forgets what got an answer; what must wait for its sender stays, and an unreachable API server ends it. */
  async replay(send: (event: WaitingEvent) => Promise<ReplayOutcome>): Promise<void> {
    let sent = 0;
    for (const event of [...this.#events]) {
      // A machine that boots in 1970 has its time when the link is back: by that the events of the cut are decades old.
      const { takenMs } = event;
      const ageMs = takenMs === undefined ? this.clock.nowMs() - event.atMs : this.clock.monotonicMs() - takenMs;
      const outcome = ageMs > MAX_AGE_MS ? "refused" : await send(event);
      if (outcome === "unreachable") break;
      if (outcome === "later") continue;
      if (outcome === "sent") sent++;
      else this.#dropped++;
      this.#events = this.#events.filter((other) => other !== event);
    }
    if (sent > 0) this.log.info("events of the cut sent up", { sent, waiting: this.size });
    this.flush();
  }

  /** Writes the ring to disk. */
  flush(): void {
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    this.#lastSaveMs = this.clock.monotonicMs();
    if (this.#events.length === 0) this.store.deleteValue(VALUE_NAME);
    else {
      // Another process counts from another start.
      const events = this.#events.map(({ takenMs: _, ...event }) => event);
      this.store.putValue(VALUE_NAME, Buffer.from(JSON.stringify(events)));
    }
  }

  #saveLater(): void {
    const sinceMs = this.clock.monotonicMs() - this.#lastSaveMs;
    this.#cancelSave ??= this.clock.after(Math.max(FIRST_SAVE_MS, SAVE_EVERY_MS - sinceMs), () => this.flush());
  }
}

function pathOf(target: string): string {
  return target.split("?")[0]!;
}

function read(store: Store): WaitingEvent[] {
  try {
    const value = store.getValue(VALUE_NAME);
    if (value === undefined) return [];
    const events = JSON.parse(Buffer.from(value).toString("utf8")) as WaitingEvent[];
    return events.filter(
      ({ principal, target, body, atMs }) =>
        typeof principal === "string" && typeof target === "string" && typeof body === "string" && atMs >= 0,
    );
  } catch {
    return [];
  }
}
