/**
 * Chance that can be had again: a seed gives the same cases on every machine.
 */

/** Draws of one seed. */
export class Draw {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0;
  }

  /** In [0, 1). Mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** In [0, below). */
  index(below: number): number {
    return Math.floor(this.next() * below);
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.index(choices.length)]!;
  }

  /** True so often. */
  chance(share: number): boolean {
    return this.next() < share;
  }
}
