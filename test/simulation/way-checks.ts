/**
 * The same promises where copies vouch for what lies within them, and callers
 * who have proven their right share what the API server said to one of them.
 */

import type { ScopeIdentity } from "../../src/store/contract.ts";
import { Checks, type Belief, type Promised } from "./checks.ts";
import type { ReadList, ReadObject } from "./node-process.ts";

/** Checks for the real way of a request. */
export class WayChecks extends Checks {
  /** Which principal was told which version of an object, and when first. */
  readonly #heardBefore = new Map<string, number>();
  #events = 0;

  /** What is said of one collection of a resource holds for all: permissions of this model know no more. */
  override head(identity: ScopeIdentity, status: number, decidedAt: number, isWhole: boolean): void {
    super.head(identity, status, decidedAt, isWhole);
    if (status === 200) this.allowed(identity.principal, identity.resource);
  }

  /** Said of any collection of the resource: a wider one vouches for this one. */
  override isMoment({ resource }: ScopeIdentity, revision: number): boolean {
    return this.server.wasMomentOf(resource, revision);
  }

  /**
   * One caller, one clock: a copy that stands still shows what its caller knows
   * newer from elsewhere, its own writes and what its other copies were told.
   * Such an object is the truth of a later moment, and one that is left out is
   * gone at a later moment.
   */
  override complete(promise: Promised, identity: ScopeIdentity, belief: Belief, revision: number, what: string): void {
    if (promise === "P3") return super.complete(promise, identity, belief, revision, what);
    const ahead = [...belief].filter(([, item]) => item.revision > revision);
    for (const [key, { uid, value }] of ahead)
      if (!this.server.wasReturnedToAny(uid, value)) this.fail("P1", `${what}: ${key} was never said`);
    const isAhead = new Set(ahead.map(([key]) => key));
    for (const truth of this.server.truths(identity, revision)) {
      const isWhole = [...truth].every(
        ([key, { uid, value }]) =>
          isAhead.has(key) ||
          belief.get(key)?.value === value ||
          (!belief.has(key) && this.#wasGoneAfter(identity, revision, key, uid)),
      );
      if (isWhole && [...belief.keys()].every((key) => isAhead.has(key) || truth.has(key))) return;
    }
    super.complete(promise, identity, belief, revision, what);
  }

  /** Whether an object went, or was not selected any more, at some moment after this one. */
  #wasGoneAfter(identity: ScopeIdentity, revision: number, key: string, uid: string): boolean {
    for (let at = this.server.revision; at > revision; at--)
      if (this.server.select(identity, at).get(key)?.uid !== uid) return true;
    return false;
  }

  /**
   * What was known newer before is told again when its copy comes to it.
   *
   * A client that comes back may have been shown that or not; nobody knows, so
   * what its caller has been told elsewhere counts for it, and what came before
   * is left out. Left out was then the ADDED of an object, or the DELETED of
   * its name's old one. client-go's informers take the newer object for what it
   * is (processDeltas: what is in the store is updated, else added), as after
   * a list; a DELETED of what is there again would be one step back.
   */
  override isRetold(
    { principal }: ScopeIdentity,
    type: string,
    item: ReadObject,
    known: ReadObject | undefined,
  ): boolean {
    if (type === "DELETED") return known === undefined;
    if (known !== undefined && item.revision < known.revision) return false;
    if (known?.uid === item.uid) return item.revision === known.revision || type === "ADDED";
    const heard = this.#heardBefore.get(toldText(principal, item));
    return heard !== undefined && heard < this.#events;
  }

  override event(identity: ScopeIdentity, type: string, item: ReadObject): void {
    this.#events++;
    super.event(identity, type, item);
    this.#hear(identity, item);
  }

  override listed(identity: ScopeIdentity, list: ReadList, asked: string, what?: string): void {
    super.listed(identity, list, asked, what);
    this.#events++;
    for (const item of list.items) this.#hear(identity, item);
  }

  /** A write's answer tells its writer of the object. */
  written(principal: string, item: ReadObject): void {
    this.#events++;
    this.#hear({ principal }, item);
  }

  #hear({ principal }: Pick<ScopeIdentity, "principal">, item: ReadObject): void {
    const key = toldText(principal, item);
    if (!this.#heardBefore.has(key)) this.#heardBefore.set(key, this.#events);
  }

  /** Given to anybody: who reads it may have proven that it may. */
  override wasGiven(_principal: string, { uid, value }: ReadObject): boolean {
    return this.server.wasReturnedToAny(uid, value);
  }
}

function toldText(principal: string, { uid, value }: ReadObject): string {
  return `${principal}\n${uid}\n${value}`;
}
