/**
 * When something was asked, and when the API server last said no: a yes that
 * was asked for before the no is from before it, however late it comes.
 *
 *   list asked        refused (403)     answer to the list: 200
 *   ----+-----------------+-----------------+------------------>
 *       the yes is of this moment           and not of this one
 *
 * Two answers that cross, a slow list, a review that a busy API server lets
 * wait: each would give back what the refusal took away. The next question, or
 * the look that follows every refusal, asks anew.
 *
 * In memory only: what is asked after a start is asked after every refusal of
 * the life before.
 */

import type { Clock } from "./clock.ts";

/** Before and after which refusals a question was sent. */
export interface AskedBetween {
  /** After how many refusals of this process: a clock cannot tell what is before what within one tick. */
  readonly order: number;
}

/** The moment of a question: kept with it, and given with its yes. */
export interface Asked extends AskedBetween {
  /** On the monotonic clock, ms. */
  readonly atMs: number;
}

let refusals = 0;

/** Now, where nobody looks at the clock. */
export function betweenNow(): AskedBetween {
  return { order: refusals };
}

/** Now, for a yes that ages. */
export function askedNow(clock: Pick<Clock, "monotonicMs">): Asked {
  return { atMs: clock.monotonicMs(), order: refusals };
}

const MAX_KEPT = 4_096;
/** A path may be as long as a head; so long a name is kept as it is. */
const MAX_NAME = 256;

/** The moments of refusals, by what was refused. */
export class LastRefusals {
  readonly #orders = new Map<string, number>();
  /** Of those that had to give way, the last. */
  #forgotten = 0;

  /** The API server has just refused this. */
  note(what: string): void {
    const name = nameOf(what);
    this.#orders.delete(name);
    if (this.#orders.size >= MAX_KEPT) {
      const [oldest, order] = this.#orders.entries().next().value!;
      this.#orders.delete(oldest);
      this.#forgotten = order;
    }
    this.#orders.set(name, ++refusals);
  }

  /** Whether a yes says nothing: the same was refused since its question. */
  outdate(what: string, { order }: AskedBetween): boolean {
    return order < (this.#orders.get(nameOf(what)) ?? this.#forgotten);
  }
}

function nameOf(what: string): string {
  return what.length <= MAX_NAME ? what : new Bun.CryptoHasher("sha256").update(what).digest("base64");
}
