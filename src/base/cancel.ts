/**
 * Ending something before its time, as cheaply as it can be done.
 *
 * Every request can be given up, hardly one is. An AbortController costs half a
 * microsecond and each listener on its signal another, so what begins
 * thousands of times a second has one of these; the runtime's own clients,
 * which want the real thing, get it when they ask.
 */

/** What can be given up, as those see it who must then stop; an AbortSignal is one. */
export interface Ending {
  readonly aborted: boolean;
  /** Why; undefined while it goes on. */
  readonly reason: unknown;
  addEventListener(type: "abort", listener: () => void, options?: { readonly once: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** Gives something up, once. */
export class Cancel implements Ending {
  aborted = false;
  reason: unknown = undefined;
  #listeners: (() => void)[] = [];
  #controller: AbortController | undefined;

  /** The same for what takes nothing else. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  /** Gives it up; only the first time counts. */
  cancel(reason: Error): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const listeners = this.#listeners;
    this.#listeners = NONE;
    for (const listener of listeners) listener();
    this.#controller?.abort(reason);
  }

  /** Calls once, when it is given up; never when that has happened already. */
  addEventListener(_type: "abort", listener: () => void): void {
    if (!this.aborted) this.#listeners.push(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    const at = this.#listeners.indexOf(listener);
    if (at >= 0) this.#listeners.splice(at, 1);
  }
}

const NONE: (() => void)[] = [];

/** The runtime's own form of it. */
export function signalOf(ending: Ending): AbortSignal {
  return ending instanceof Cancel ? ending.signal : (ending as AbortSignal);
}
