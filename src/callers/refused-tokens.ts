/**
 * Tokens that the API server has answered with 401, whichever way they were sent.
 *
 * While cut such a token is nobody's: its pod may still be on the node's list,
 * and its signature good. Remembered at once and over a restart; taken back
 * when the API server accepts that very token again, as it does when it had
 * only just started.
 *
 * Only tokens that could be served while cut are worth a place here: whoever
 * was never accepted, and is not signed by the cluster, gets nothing anyway.
 */

import { type AskedBetween, LastRefusals } from "../base/asked.ts";
import type { Store } from "../store/contract.ts";

const VALUE = "refused-tokens";
const MAX_TOKENS = 1_024;

/** Remembers them by their credentials' ids, which are keyed hashes. */
export class RefusedTokens {
  readonly #ids: Set<string>;
  readonly #last = new LastRefusals();

  constructor(private readonly store: Pick<Store, "getValue" | "putValue">) {
    const stored = store.getValue(VALUE);
    const text = stored === undefined ? "" : Buffer.from(stored).toString("utf8");
    this.#ids = new Set(text.split("\n").filter((id) => id !== ""));
  }

  /** Whether the API server's last word on this token was 401. */
  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** It was answered with 401. */
  add(id: string): void {
    this.#last.note(id);
    if (this.#ids.has(id)) return;
    if (this.#ids.size >= MAX_TOKENS) this.#ids.delete(this.#ids.values().next().value!);
    this.#ids.add(id);
    this.#save();
  }

  /** It was accepted. @param asked when that was asked. @returns whether that counts: it was not refused since. */
  delete(id: string, asked: AskedBetween): boolean {
    if (this.#last.outdate(id, asked)) return false;
    if (this.#ids.delete(id)) this.#save();
    return true;
  }

  #save(): void {
    this.store.putValue(VALUE, Buffer.from([...this.#ids].join("\n")));
  }
}
