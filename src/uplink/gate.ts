/**
 * The way up, which can be shut from within: a cut that Holdfast plays itself,
 * or a device that must not speak for the node that it has a copy of.
 *
 * While it is shut every request fails as over a dead link, before a byte goes
 * out, and the watches that were open have broken off; what was under way
 * otherwise goes on to its end. Everything above learns of it as of any cut.
 */

import { signalOf, type Ending } from "../base/cancel.ts";

/** Why it is shut, for who is not let through. */
const REASONS = {
  rehearsal: "the link is cut for a rehearsal",
  "kept out": "another device is this node",
} as const;

/** Who may shut it; each opens what it has shut. */
export type GateReason = keyof typeof REASONS;

/** Shut or open; open at first. */
export class Gate {
  readonly #shut = new Set<GateReason>();
  #watches = new AbortController();

  /** Whether nothing goes up. */
  get isShut(): boolean {
    return this.#shut.size > 0;
  }

  /** Breaks off open watches; nothing goes up from now on. */
  shut(reason: GateReason): void {
    this.#shut.add(reason);
    this.#watches.abort(new Error(REASONS[reason]));
  }

  /** Requests go up again, unless it is shut for another reason too. */
  open(reason: GateReason): void {
    if (!this.#shut.delete(reason) || this.isShut) return;
    this.#watches = new AbortController();
  }

  /** What ends a watch: its own signal, or the gate. */
  watchSignal(own: Ending): AbortSignal {
    return AbortSignal.any([signalOf(own), this.#watches.signal]);
  }

  /** @throws {Error} while it is shut. */
  pass(): void {
    for (const reason of this.#shut) throw new Error(REASONS[reason]);
  }
}
