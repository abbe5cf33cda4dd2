/**
 * Troubles on order: which request meets them, how often, and what happens.
 */

import type { BodyFault } from "./exchange.ts";
import type { RequestInfo } from "./request.ts";

/** Picks requests: all given fields must be equal; a function decides freely; undefined matches all. */
export type Match = Partial<RequestInfo> | ((info: RequestInfo) => boolean) | undefined;

/** Whether a request is meant. */
export function matches(match: Match, info: RequestInfo): boolean {
  if (match === undefined) return true;
  if (typeof match === "function") return match(info);
  return Object.entries(match).every(([field, value]) => info[field as keyof RequestInfo] === value);
}

/** An answer to give instead of the real one. */
export interface ScriptedStatus {
  readonly code: number;
  readonly reason?: string;
  readonly message?: string;
  /** Sent as Retry-After header and in `details`. */
  readonly retryAfterSeconds?: number;
}

/** What an ingress, a firewall or a login page says in the API server's place; without Audit-ID, which that one always sends. */
export interface ForeignAnswer {
  readonly status: number;
  readonly body?: string | Uint8Array;
  /** Header names in lower case; content-type is text/html by default. */
  readonly headers?: Readonly<Record<string, string>>;
}

interface Order<T> {
  readonly match: Match;
  readonly what: T;
  times: number;
}

/** The orders that are still open. */
export class Faults {
  readonly #statuses: Order<ScriptedStatus>[] = [];
  readonly #bodies: Order<BodyFault>[] = [];
  readonly #delays: Order<number>[] = [];
  readonly #foreign: Order<ForeignAnswer>[] = [];
  /** Resolved when delays end: who waits then goes on at once. */
  #inTime = Promise.withResolvers<void>();
  #frozen: PromiseWithResolvers<void> | undefined;

  status(what: ScriptedStatus, match: Match, times: number): void {
    this.#statuses.push({ match, what, times });
  }

  body(what: BodyFault, match: Match, times: number): void {
    this.#bodies.push({ match, what, times });
  }

  /** Delays every matching request; 0 ms ends all delays, also of those that wait. */
  delay(ms: number, match: Match): void {
    if (ms === 0) this.#endDelays();
    else this.#delays.push({ match, what: ms, times: Infinity });
  }

  foreign(what: ForeignAnswer, match: Match, times: number): void {
    this.#foreign.push({ match, what, times });
  }

  /** Storage answers nobody until `clear`. */
  freeze(): void {
    this.#frozen ??= Promise.withResolvers<void>();
  }

  /** Whether storage answers nobody now. */
  get isFrozen(): boolean {
    return this.#frozen !== undefined;
  }

  /** Waits for storage, if the request needs it: all but watches and what the watch cache answers. */
  async storage({ verb, resource, isFromCache }: { verb: string; resource: string; isFromCache: boolean }) {
    if (resource !== "" && verb !== "watch" && !isFromCache) await this.#frozen?.promise;
  }

  takeForeign = (info: RequestInfo) => take(this.#foreign, info);
  takeStatus = (info: RequestInfo) => take(this.#statuses, info);
  takeBody = (info: RequestInfo) => take(this.#bodies, info);

  /** Waits as long as the request is to be delayed. */
  async delayed(info: RequestInfo): Promise<void> {
    const ms = take(this.#delays, info);
    if (ms !== undefined) await Promise.race([Bun.sleep(ms), this.#inTime.promise]);
  }

  /** Withdraws every open order. */
  clear(): void {
    this.#statuses.length = this.#bodies.length = this.#foreign.length = 0;
    this.#endDelays();
    this.#frozen?.resolve();
    this.#frozen = undefined;
  }

  #endDelays(): void {
    this.#delays.length = 0;
    this.#inTime.resolve();
    this.#inTime = Promise.withResolvers();
  }
}

function take<T>(orders: Order<T>[], info: RequestInfo): T | undefined {
  const at = orders.findIndex(({ match }) => matches(match, info));
  if (at < 0) return undefined;
  const order = orders[at]!;
  if (--order.times <= 0) orders.splice(at, 1);
  return order.what;
}
