/**
 * Requests at work at once, for one caller and for all: the rest wait in turn.
 *
 * As API Priority and Fairness: a request takes a seat until its answer has
 * been written; who finds none waits in its caller's own queue, and callers
 * take turns, so that one with a thousand requests holds up itself. Beyond the
 * queue, or after a while in it, the answer is 429 with Retry-After. The node
 * needs no seat, and every other caller has one, whoever holds the rest. Nor
 * does what lasts by nature: a watch, a log, a proxied request; connections
 * bound those. A list takes as many seats as it is long, and a watch that
 * begins with all there is is a list until it falls silent.
 *
 * Callers that the API server has not said yes to share one queue: made-up
 * tokens are no callers of their own.
 */

import type { Ending } from "../base/cancel.ts";
import type { Clock } from "../base/clock.ts";
import type { Entered } from "../callers/gate.ts";
import { StatusError } from "../kube/status-error.ts";
import type { RequestInfo } from "./request-info.ts";
import { beginsWithState, Widths } from "./widths.ts";

/** For everybody but the node together; a caller without a seat gets one all the same. */
const MAX_SEATS = 96;
/** For one caller. */
const MAX_SEATS_OF_ONE = 32;
/** Requests of one caller that wait; and of all. */
const MAX_WAITING_OF_ONE = 256;
const MAX_WAITING = 1_024;
/** Well below the time after which client-go gives an answer's head up. */
const MAX_WAIT_MS = 15_000;
const LONG_SUBRESOURCES: ReadonlySet<string> = new Set(["log", "proxy", "exec", "attach", "portforward"]);
const STRANGERS = "strangers";

interface Waiting {
  readonly width: number;
  readonly begin: (leave: () => void) => void;
}

/** What one caller has at work and waiting; forgotten when that is nothing. */
interface Line {
  seats: number;
  readonly waiting: Set<Waiting>;
}

/** Hands out seats. */
export class Seats {
  readonly widths = new Widths();
  #taken = 0;
  #waiting = 0;
  /** Who has had a turn goes to the end. */
  readonly #lines = new Map<string, Line>();

  constructor(private readonly clock: Clock) {}

  /** Seats that requests at work hold. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * A seat for a request; at once while there are some.
   *
   * @param signal asked for only where the request must wait.
   * @returns what gives it back, to be called once; undefined for what needs none.
   * @throws {StatusError} 429 when too many wait, or it has waited too long.
   */
  take(
    caller: Entered,
    info: RequestInfo,
    client: { readonly signal: Ending },
  ): Promise<() => void> | (() => void) | undefined {
    if (caller.nodeName !== undefined || caller.isOwn) return undefined;
    if ((info.verb === "watch" && !beginsWithState(info)) || LONG_SUBRESOURCES.has(info.subresource)) return undefined;
    const name = caller.isStranger ? STRANGERS : caller.principal;
    const line = this.#lines.get(name) ?? { seats: 0, waiting: new Set() };
    this.#lines.set(name, line);
    const width = this.widths.of(info);
    if (line.waiting.size === 0 && this.#mayTake(line, width)) return this.#seat(name, line, width);
    if (line.waiting.size >= MAX_WAITING_OF_ONE || this.#waiting >= MAX_WAITING) {
      this.#forget(name, line);
      throw tooMany();
    }
    return this.#wait(name, line, width, client.signal);
  }

  #mayTake({ seats }: Line, width: number): boolean {
    return seats === 0 || (this.#taken + width <= MAX_SEATS && seats + width <= MAX_SEATS_OF_ONE);
  }

  #seat(name: string, line: Line, width: number): () => void {
    this.#taken += width;
    line.seats += width;
    return () => {
      this.#taken -= width;
      line.seats -= width;
      this.#next();
      this.#forget(name, line);
    };
  }

  async #wait(name: string, line: Line, width: number, signal: Ending): Promise<() => void> {
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const one: Waiting = { width, begin: resolve };
    line.waiting.add(one);
    this.#waiting++;
    const giveUp = () => {
      if (!line.waiting.delete(one)) return;
      this.#waiting--;
      this.#forget(name, line);
      reject(tooMany());
    };
    const cancel = this.clock.after(MAX_WAIT_MS, giveUp);
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
    try {
      return await promise;
    } finally {
      cancel();
      signal.removeEventListener("abort", giveUp);
    }
  }

  /** Free seats go to the callers that have waited longest for a turn. */
  #next(): void {
    for (let begun = -1; begun !== 0 && this.#waiting > 0;) {
      begun = 0;
      for (const [name, line] of [...this.#lines]) {
        const [first] = line.waiting;
        if (first === undefined || !this.#mayTake(line, first.width)) continue;
        line.waiting.delete(first);
        this.#waiting--;
        this.#lines.delete(name);
        this.#lines.set(name, line);
        first.begin(this.#seat(name, line, first.width));
        begun++;
      }
    }
  }

  #forget(name: string, line: Line): void {
    if (line.seats === 0 && line.waiting.size === 0 && this.#lines.get(name) === line) this.#lines.delete(name);
  }
}

function tooMany(): StatusError {
  return new StatusError({
    code: 429,
    reason: "TooManyRequests",
    message: "too many requests, please try again later",
    retryAfterSeconds: 1,
  });
}
