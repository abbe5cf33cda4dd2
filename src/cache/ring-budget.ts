/**
 * How much all scopes together keep of recent events.
 *
 * A scope's own bound is meant for one that is busy; fifty selections of one
 * busy collection keep the same events fifty times. So the rings are looked at
 * together, whenever they have grown by a little: beyond the budget the largest
 * gives up the older half of what it has, the node's own last. Whoever watches
 * and is further behind than that ends, and resumes at the API server.
 *
 * Rings are known weakly: one that nobody uses any more counts no more.
 */

/** What a ring shows of itself. */
export interface BudgetedRing {
  readonly sizeBytes: number;
  /** Gives up the oldest until no more than this is left; the newest always stays. */
  shed(toBytes: number): void;
}

/** Looked at again after this part of the budget has been added. */
const LOOK_SHARE = 1 / 16;

/** Keeps all rings within one bound. */
export class RingBudget {
  readonly #rings = new Map<WeakRef<BudgetedRing>, boolean>();
  #grownBytes = 0;

  /** @param maxBytes of events, all rings together. */
  constructor(private readonly maxBytes: number) {}

  /** A ring that counts from now on. @param isFirst the node's: it gives way when no other is left. */
  add(ring: BudgetedRing, isFirst: boolean): void {
    this.#rings.set(new WeakRef(ring), isFirst);
  }

  /** A ring has grown. */
  grew(bytes: number): void {
    this.#grownBytes += bytes;
    if (this.#grownBytes < this.maxBytes * LOOK_SHARE) return;
    this.#grownBytes = 0;
    this.#look();
  }

  #look(): void {
    const others: BudgetedRing[] = [];
    const firsts: BudgetedRing[] = [];
    let bytes = 0;
    for (const [reference, isFirst] of this.#rings) {
      const ring = reference.deref();
      if (ring === undefined) {
        this.#rings.delete(reference);
        continue;
      }
      bytes += ring.sizeBytes;
      (isFirst ? firsts : others).push(ring);
    }
    const allowed = this.maxBytes * (1 - LOOK_SHARE);
    for (const rings of [others, firsts]) {
      rings.sort((one, other) => other.sizeBytes - one.sizeBytes);
      // Round by round, for one enormous ring gives more than one half.
      for (let shed = 1; bytes > allowed && shed > 0;) {
        shed = 0;
        for (const ring of rings) {
          if (bytes <= allowed) return;
          const before = ring.sizeBytes;
          ring.shed(before / 2);
          shed += before - ring.sizeBytes;
          bytes -= before - ring.sizeBytes;
        }
      }
    }
  }
}
