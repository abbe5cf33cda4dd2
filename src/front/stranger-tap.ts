/**
 * What is learned from an answer to a caller of whom nothing is known: nothing,
 * until the answer itself is the API server's yes. From then on it is learned
 * from like any other.
 */

import type { Word } from "../kube/whose-word.ts";
import type { UpstreamHeaders } from "../uplink/upstream-answer.ts";
import type { AnswerTap } from "./forward.ts";

/** Passes an answer on to the tap that is made once the caller is admitted. */
export class StrangerTap implements AnswerTap {
  #inner: AnswerTap | undefined;

  /**
   * @param onAccepted the API server said yes.
   * @param onRefused it did not know the credential (401).
   * @param make the tap that an admitted caller's answer has.
   */
  constructor(
    private readonly onAccepted: () => void,
    private readonly onRefused: () => void,
    private readonly make: () => AnswerTap,
  ) {}

  head(status: number, headers: UpstreamHeaders, word: Word): boolean {
    if (word === "refusal" && status === 401) this.onRefused();
    if (word !== "answer") return false;
    this.onAccepted();
    this.#inner = this.make();
    return this.#inner.head(status, headers, word);
  }

  chunk(bytes: Uint8Array): void {
    this.#inner?.chunk(bytes);
  }

  end(): Promise<void> | void {
    return this.#inner?.end();
  }

  abort(): void {
    this.#inner?.abort();
  }
}
