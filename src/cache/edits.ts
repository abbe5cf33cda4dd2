/**
 * The resourceVersions of edited items (`layer.ts`).
 *
 * Larger than any real one, decimal, within what a double holds exactly, and
 * far enough from real ones that they are known for ours for ever: a client
 * that comes back with one after the return gets 410.
 *
 *   5 000 000 000 000 000  +  generation * 2^20  +  count
 *
 * A generation is one run of Holdfast that edited something, or what is left of
 * it after the link's return, so that what a client saw before a restart is
 * never above what it sees after, and that an edit from before a return is
 * known for what it is: rows may have gone since. When its numbers are used up
 * the next generation begins, on disk too: a number is given out once.
 */

import { compareResourceVersions } from "../kube/resource-version.ts";
import type { Store } from "../store/contract.ts";

const FIRST_LOCAL = 5_000_000_000_000_000;
const GENERATION_SPAN = 2 ** 20;
const GENERATION_VALUE = "edit-generation";
/** The first generation since the link was last there; kept, because a client may come back after a restart. */
const FLOOR_VALUE = "edit-floor";

/** Whether a resourceVersion was made here and not by an API server. */
export function isLocalVersion(resourceVersion: string): boolean {
  return compareResourceVersions(resourceVersion, String(FIRST_LOCAL)) >= 0;
}

/** Hands out resourceVersions for edited items; they grow across restarts. */
export class LocalVersions {
  /** The last one given out; 0 while this generation has given out none. */
  #last = 0;
  #end = 0;
  #floor: number | undefined;

  /** @param span how many numbers a generation has; smaller only in tests. */
  constructor(
    private readonly store: Pick<Store, "getValue" | "putValue">,
    private readonly span = GENERATION_SPAN,
  ) {}

  /** The next one. */
  next(): string {
    if (this.#last === 0 || this.#last === this.#end) {
      const generation = this.#stored(GENERATION_VALUE) + 1;
      this.store.putValue(GENERATION_VALUE, Buffer.from(String(generation)));
      this.#last = FIRST_LOCAL + generation * this.span;
      this.#end = this.#last + this.span - 1;
    }
    return String(++this.#last);
  }

  /** The link is there: whoever is told of edits from before may have missed what the API server says now. */
  voidAll(): void {
    const next = this.#stored(GENERATION_VALUE) + 1;
    if (this.#floorGeneration() === next) return;
    this.#last = 0;
    this.#floor = next;
    this.store.putValue(FLOOR_VALUE, Buffer.from(String(next)));
  }

  /** Whether one of ours is from before the link was last there. */
  isVoid(resourceVersion: string): boolean {
    const floor = String(FIRST_LOCAL + this.#floorGeneration() * this.span);
    return compareResourceVersions(resourceVersion, floor) < 0;
  }

  #floorGeneration(): number {
    return (this.#floor ??= this.#stored(FLOOR_VALUE));
  }

  #stored(name: string): number {
    const stored = Number(Buffer.from(this.store.getValue(name) ?? []).toString("latin1"));
    return Number.isSafeInteger(stored) && stored > 0 ? stored : 0;
  }
}
