/**
 * What has answered in the API server's place, for whoever looks after the node.
 *
 * A lost link heals by itself, something in its way seldom does: an ingress
 * without a backend, a firewall's page, a portal that wants a click. So it is
 * said as what it is, while it lasts and for a while after, because one that
 * stands in the way of some paths alone leaves the link up.
 */

import type { Clock } from "../base/clock.ts";
import type { Finding } from "../base/conditions.ts";

const TOLD_MS = 120_000;

/** Remembers the last. */
export class ForeignAnswers {
  #last: { readonly atMs: number; readonly words: string } | undefined;

  constructor(private readonly clock: Pick<Clock, "monotonicMs">) {}

  /** One came. @param words as its error says them. */
  came(words: string): void {
    this.#last = { atMs: this.clock.monotonicMs(), words };
  }

  /** What is to be said of them; undefined when none came within two minutes. */
  finding(): Finding | undefined {
    if (this.#last === undefined || this.clock.monotonicMs() - this.#last.atMs > TOLD_MS) return undefined;
    return {
      reason: "NotTheAPIServer",
      message: this.#last.words,
      next: "See what stands between: curl -kv the server that the kubeconfig names, with /version behind it",
    };
  }
}
