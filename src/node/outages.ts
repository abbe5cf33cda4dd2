/**
 * When this node was cut off, for whoever asks afterwards: the last cuts, over restarts.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Store } from "../store/contract.ts";

const NAME = "outages";
const MAX_KEPT = 64;
/** Shorter ones would push out those that mattered. */
const MIN_MS = 5_000;
const schema = v.array(v.object({ fromMs: v.number(), toMs: v.number() }));

/** One cut; ms since the epoch. */
export type Outage = v.InferOutput<typeof schema>[number];

/** Remembers them. */
export class Outages {
  #kept: Outage[];
  #cutAtMs: number | undefined;

  constructor(
    private readonly store: Pick<Store, "getValue" | "putValue">,
    private readonly clock: Pick<Clock, "nowMs" | "monotonicMs">,
  ) {
    this.#kept = readKept(store.getValue(NAME));
  }

  /** The link changed. A cut is written down when it is over: one small row. */
  changed(isOnline: boolean): void {
    if (!isOnline) {
      this.#cutAtMs ??= this.clock.monotonicMs();
      return;
    }
    const present = this.#present();
    this.#cutAtMs = undefined;
    if (present === undefined || present.toMs - present.fromMs < MIN_MS) return;
    this.#kept = [...this.#kept, present].slice(-MAX_KEPT);
    this.store.putValue(NAME, Buffer.from(JSON.stringify(this.#kept)));
  }

  /** The oldest first; one that lasts ends now. */
  all(): readonly Outage[] {
    const present = this.#present();
    return present === undefined ? this.#kept : [...this.#kept, present];
  }

  /** By the clock as it is set now. */
  #present(): Outage | undefined {
    if (this.#cutAtMs === undefined) return undefined;
    const toMs = this.clock.nowMs();
    return { fromMs: toMs - (this.clock.monotonicMs() - this.#cutAtMs), toMs };
  }
}

function readKept(bytes: Uint8Array | undefined): Outage[] {
  try {
    return v.parse(schema, JSON.parse(Buffer.from(bytes ?? []).toString("utf8")));
  } catch {
    return [];
  }
}
