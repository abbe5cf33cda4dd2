/**
 * For how long the API server has not been heard, over reboots too.
 *
 * What pods may read while cut ends with time, and a reboot must not begin it
 * anew. So the time is counted while we run and kept, every ten minutes, and
 * held against the calendar: of the two the longer counts. A gateway that boots
 * in 1970 has its count; one that lay in a drawer has the calendar.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Store } from "../store/contract.ts";

/** What the age is counted with. */
export interface CutAgeParts {
  readonly store: Pick<Store, "getValue" | "putValue" | "deleteValue">;
  readonly clock: Clock;
  readonly link: { onChange(listener: (isOnline: boolean) => void): () => void };
  /** When the API server was last heard of by any copy, ms since the epoch; 0 for never. */
  readonly lastContactMs: () => number;
}

const VALUE = "cut-age";
const SAVE_EVERY_MS = 600_000;
const valueSchema = v.object({ ms: v.pipe(v.number(), v.minValue(0)) });

/** Counts it. */
export class CutAge {
  #keptMs: number;
  /** Since when it is counted in this process, by the monotonic clock; undefined while online. */
  #sinceMs: number | undefined;
  #cancelSave: () => void = () => {};

  constructor(private readonly parts: CutAgeParts) {
    this.#keptMs = read(parts.store.getValue(VALUE));
    // Until the first word of this process nothing has been heard.
    this.#sinceMs = parts.clock.monotonicMs();
  }

  /** How long it has been; 0 while online. */
  get ms(): number {
    if (this.#sinceMs === undefined) return 0;
    const { clock, lastContactMs } = this.parts;
    const countedMs = this.#keptMs + clock.monotonicMs() - this.#sinceMs;
    const contactMs = lastContactMs();
    return Math.max(countedMs, contactMs === 0 ? 0 : clock.nowMs() - contactMs);
  }

  /** Begins to count and to keep. @returns ends it, and keeps what was counted. */
  start(): () => void {
    const stopListening = this.parts.link.onChange((isOnline) => (isOnline ? this.#heard() : this.#lost()));
    this.#saveLater();
    return () => {
      stopListening();
      this.#cancelSave();
      this.#save();
    };
  }

  #heard(): void {
    this.#cancelSave();
    if (this.#keptMs > 0) this.parts.store.deleteValue(VALUE);
    this.#keptMs = 0;
    this.#sinceMs = undefined;
  }

  #lost(): void {
    this.#sinceMs ??= this.parts.clock.monotonicMs();
    this.#saveLater();
  }

  #saveLater(): void {
    this.#cancelSave();
    this.#cancelSave = this.parts.clock.after(SAVE_EVERY_MS, () => {
      this.#save();
      this.#saveLater();
    });
  }

  #save(): void {
    const nowMs = this.parts.clock.monotonicMs();
    if (this.#sinceMs === undefined || nowMs - this.#sinceMs < 1_000) return;
    this.#keptMs += nowMs - this.#sinceMs;
    this.#sinceMs = nowMs;
    this.parts.store.putValue(VALUE, Buffer.from(JSON.stringify({ ms: this.#keptMs })));
  }
}

function read(value: Uint8Array | undefined): number {
  try {
    return v.parse(valueSchema, JSON.parse(Buffer.from(value ?? []).toString("utf8"))).ms;
  } catch {
    return 0;
  }
}
