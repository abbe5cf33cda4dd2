/**
 * The way up, which can be shut from within: a cut that Holdfast plays itself.
 *
 * While it is shut every request fails as over a dead link, before a byte goes
 * out, and the watches that were open have broken off; what was under way
 * otherwise goes on to its end. Everything above learns of it as of any cut.
 */

import { signalOf, type Ending } from "../base/cancel.ts";

/** Shut or open; open at first. */
export class Gate {
  #shut = false;
  #watches = new AbortController();

  /** Whether nothing goes up. */
  get isShut(): boolean {
    return this.#shut;
  }

  /** Breaks off open watches; nothing goes up from now on. */
  shut(): void {
    this.#shut = true;
    this.#watches.abort(new Error(REASON));
  }

  /** Requests go up again. */
  open(): void {
    this.#shut = false;
    this.#watches = new AbortController();
  }

  /** What ends a watch: its own signal, or the gate. */
  watchSignal(own: Ending): AbortSignal {
    return AbortSignal.any([signalOf(own), this.#watches.signal]);
  }

  /** @throws {Error} while it is shut. */
  pass(): void {
    if (this.#shut) throw new Error(REASON);
  }
}

const REASON = "the link is cut for a rehearsal";
