/**
 * A few at a time: when a replica dies its agents come back together, and the
 * API server is to be asked in an orderly way.
 */

/** So many pieces of work at once; the others wait in their order. */
export class Turns {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(private readonly most: number) {}

  /** Who waits. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Runs it when it is its turn. */
  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.most) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await work();
    } finally {
      // The place is handed on, so that nobody new comes in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}
