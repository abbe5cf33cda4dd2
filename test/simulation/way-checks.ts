/**
 * The same promises where copies vouch for what lies within them, and callers
 * who have proven their right share what the API server said to one of them.
 */

import type { ScopeIdentity } from "../../src/store/contract.ts";
import { Checks, nameOf, type Belief, type Promised } from "./checks.ts";
import type { ReadObject } from "./node-process.ts";

/** Checks for the real way of a request. */
export class WayChecks extends Checks {
  /** What is said of one collection of a resource holds for all: permissions of this model know no more. */
  override head(identity: ScopeIdentity, status: number, decidedAt: number, isWhole: boolean): void {
    super.head(identity, status, decidedAt, isWhole);
    if (status === 200) this.allowed(identity.principal, identity.resource);
  }

  /** Said of any collection of the resource: a wider one vouches for this one. */
  override isMoment({ resource }: ScopeIdentity, revision: number): boolean {
    return this.server.wasMomentOf(resource, revision);
  }

  /** What a caller wrote itself stands in its lists while cut, newer than the copy beneath: it is the truth of a later moment. */
  override complete(promise: Promised, identity: ScopeIdentity, belief: Belief, revision: number, what: string): void {
    const own = [...belief].filter(([, item]) => item.revision > revision);
    if (promise !== "P1" || own.length === 0) return super.complete(promise, identity, belief, revision, what);
    for (const [key, { uid, value }] of own) {
      if (!this.server.wasReturnedToAny(uid, value)) this.fail("P1", `${what}: ${key} was never said`);
      belief.delete(key);
    }
    for (const truth of this.server.truths(identity, revision)) {
      const rest = new Map([...truth].filter(([key]) => !own.some(([other]) => other === key)));
      if (rest.size === belief.size && [...rest].every(([key, { value }]) => belief.get(key)?.value === value)) return;
    }
    this.fail(promise, `${what} of ${nameOf(identity)} at ${revision} is not whole beside what its caller wrote`);
  }

  /** Given to anybody: who reads it may have proven that it may. */
  override wasGiven(_principal: string, { uid, value }: ReadObject): boolean {
    return this.server.wasReturnedToAny(uid, value);
  }
}
