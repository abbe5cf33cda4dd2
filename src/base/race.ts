/**
 * What comes first of several things that may end a wait, and whether it has come.
 */

/** The first to win or lose decides; the rest is not heard. */
export class Race<T> {
  readonly #first = Promise.withResolvers<T>();
  #isOver = false;

  /** Whether it is decided. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves or rejects as the first one did. */
  get over(): Promise<T> {
    return this.#first.promise;
  }

  /** What it ends with, unless something else was first. */
  win(value: T): void {
    this.#isOver = true;
    this.#first.resolve(value);
  }

  /** The error that it ends with, unless something else was first. */
  lose(error: unknown): void {
    this.#isOver = true;
    this.#first.reject(error);
  }

  /** Decides it when it comes. */
  enter(coming: Promise<T>): void {
    coming.then(
      (value) => this.win(value),
      (error) => this.lose(error),
    );
  }
}
