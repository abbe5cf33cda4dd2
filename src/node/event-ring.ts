/**
 * Events that could not go up.
 *
 * An event is answered 201 and kept in a bounded ring; when the link is back
 * each goes up once, if it is younger than an hour, the node's own first. What
 * had reached the API server after all is refused there by its name (409), so
 * nothing is doubled. Of several patches of one event the last stands for all:
 * each carries the count so far.
 *
 * Where the ring is full, whoever holds most of it gives way, the oldest first,
 * and the node's own only to its own: a pod that crashes all night must not
 * push out what kubelet has to say. Nobody but the node gets more than a
 * quarter.
 *
 * On disk a few seconds after the first one, then at most every ten minutes:
 * a container that crashes all night must not wear the card.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Store } from "../store/contract.ts";

const waitingSchema = v.object({
  principal: v.string(),
  method: v.picklist(["POST", "PATCH"]),
  /** Raw target as sent. */
  target: v.string(),
  contentType: v.string(),
  /** Base64. */
  body: v.string(),
  /** ms since the epoch. */
  atMs: v.pipe(v.number(), v.minValue(0)),
});

/** One write that waits. */
export type WaitingEvent = Readonly<v.InferOutput<typeof waitingSchema>>;

/** What became of one event on its way up. */
export type ReplayOutcome = "sent" | "refused" | "later" | "unreachable";

const VALUE_NAME = "events";
const MAX_EVENTS = 200;
const MAX_BYTES = 256 * 1024;
/** What one caller may hold of either, unless it is the node. */
const SHARE = 1 / 4;
const MAX_AGE_MS = 3_600_000;
const FIRST_SAVE_MS = 5_000;
const SAVE_EVERY_MS = 600_000;

/** An event in the ring. */
interface RingEntry extends WaitingEvent {
  /** When this process took it in, by the monotonic clock; undefined for one of an earlier process. */
  readonly takenMs?: number;
}

interface Held {
  count: number;
  bytes: number;
}

/** What the ring lives with. */
export interface EventRingParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** The node's own principal, whose events come first; undefined while there is none. */
  readonly own: () => string | undefined;
}

/** The ring; survives a restart. */
export class EventRing {
  #events: RingEntry[];
  #cancelSave: (() => void) | undefined;
  #lastSaveMs = Number.NEGATIVE_INFINITY;
  #dropped = 0;

  constructor(private readonly parts: EventRingParts) {
    this.#events = read(parts.store);
  }

  /** Events waiting. */
  get size(): number {
    return this.#events.length;
  }

  /** Events that gave way or grew too old. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes one in; others give way. @returns false when it is larger than a quarter of the ring. */
  push(event: Omit<WaitingEvent, "atMs" | "body"> & { readonly body: Uint8Array }): boolean {
    const { clock } = this.parts;
    const body = Buffer.from(event.body).toString("base64");
    if (body.length > MAX_BYTES * SHARE) return false;
    const entry: RingEntry = { ...event, body, atMs: clock.nowMs(), takenMs: clock.monotonicMs() };
    const path = pathOf(entry.target);
    if (event.method === "PATCH") {
      this.#events = this.#events.filter(
        (other) => other.method !== "PATCH" || pathOf(other.target) !== path || other.principal !== entry.principal,
      );
    }
    this.#events.push(entry);
    this.#giveWay();
    this.#saveLater();
    return true;
  }

  /** Sends what waits, the node's own first, and forgets what got an answer; what must wait for its sender stays, and an unreachable API server ends it. */
  async replay(send: (event: WaitingEvent) => Promise<ReplayOutcome>): Promise<void> {
    const { clock, log, own } = this.parts;
    let sent = 0;
    const isOwn = ({ principal }: WaitingEvent) => principal === own();
    const waiting = [...this.#events.filter(isOwn), ...this.#events.filter((event) => !isOwn(event))];
    for (const event of waiting) {
      // A machine that boots in 1970 has its time when the link is back: by that the events of the cut are decades old.
      const { takenMs } = event;
      const ageMs = takenMs === undefined ? clock.nowMs() - event.atMs : clock.monotonicMs() - takenMs;
      const outcome = ageMs > MAX_AGE_MS ? "refused" : await send(event);
      if (outcome === "unreachable") break;
      if (outcome === "later") continue;
      if (outcome === "sent") sent++;
      else this.#dropped++;
      this.#events = this.#events.filter((other) => other !== event);
    }
    if (sent > 0) log.info("events of the cut sent up", { sent, waiting: this.size });
    this.flush();
  }

  /** Writes the ring to disk. */
  flush(): void {
    const { clock, store } = this.parts;
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    this.#lastSaveMs = clock.monotonicMs();
    if (this.#events.length === 0) store.deleteValue(VALUE_NAME);
    else {
      // Another process counts from another start.
      const events = this.#events.map(({ takenMs: _, ...event }) => event);
      store.putValue(VALUE_NAME, Buffer.from(JSON.stringify(events)));
    }
  }

  /** Drops until everybody is within its share and all of it within the ring. */
  #giveWay(): void {
    const own = this.parts.own();
    const held = new Map<string, Held>();
    const all: Held = { count: 0, bytes: 0 };
    for (const { principal, body } of this.#events) {
      const of = held.get(principal) ?? { count: 0, bytes: 0 };
      held.set(principal, of);
      for (const sum of [of, all]) {
        sum.count++;
        sum.bytes += body.length;
      }
    }
    for (;;) {
      const victim = victimOf(held, all, own);
      if (victim === undefined) return;
      const at = this.#events.findIndex(({ principal }) => principal === victim);
      const [gone] = this.#events.splice(at, 1);
      for (const sum of [held.get(victim)!, all]) {
        sum.count--;
        sum.bytes -= gone!.body.length;
      }
      this.#dropped++;
    }
  }

  #saveLater(): void {
    const { clock } = this.parts;
    const sinceMs = clock.monotonicMs() - this.#lastSaveMs;
    this.#cancelSave ??= clock.after(Math.max(FIRST_SAVE_MS, SAVE_EVERY_MS - sinceMs), () => this.flush());
  }
}

/** Whose oldest event gives way; undefined when nobody's must. */
function victimOf(held: ReadonlyMap<string, Held>, all: Held, own: string | undefined): string | undefined {
  const others = [...held].filter(([principal, { count }]) => principal !== own && count > 0);
  const isOver = ({ count, bytes }: Held, share: number) => count > MAX_EVENTS * share || bytes > MAX_BYTES * share;
  const greedy = others.find(([, sum]) => isOver(sum, SHARE));
  if (greedy !== undefined) return greedy[0];
  if (!isOver(all, 1)) return undefined;
  const most = others.sort(([, a], [, b]) => b.bytes - a.bytes)[0];
  return most === undefined ? own : most[0];
}

function pathOf(target: string): string {
  return target.split("?")[0]!;
}

function read(store: Store): WaitingEvent[] {
  try {
    const value = store.getValue(VALUE_NAME);
    if (value === undefined) return [];
    const events = v.parse(v.array(v.unknown()), JSON.parse(Buffer.from(value).toString("utf8")));
    return events.flatMap((event) => {
      const { success, output } = v.safeParse(waitingSchema, event);
      return success ? [output] : [];
    });
  } catch {
    return [];
  }
}
