/**
 * What an answer says of its caller, before it is learned from: that the API
 * server accepts it. From an answer to a caller of whom nothing is known nothing
 * else is learned until it is that yes; from then on like from any other.
 */

import type { Word } from "../kube/whose-word.ts";
import type { UpstreamHeaders } from "../uplink/upstream-answer.ts";
import type { AnswerTap } from "./forward.ts";

/** Passes an answer on to the tap of an admitted caller, which a stranger has only once it is one. */
export class CallerTap implements AnswerTap {
  #inner: AnswerTap | undefined;

  /**
   * @param onAccepted the API server said yes.
   * @param onRefused it did not know the credential (401); undefined where the tap itself is told.
   * @param make the tap that an admitted caller's answer has.
   */
  constructor(
    private readonly onAccepted: () => void,
    private readonly onRefused: (() => void) | undefined,
    private readonly make: () => AnswerTap,
  ) {
    if (onRefused === undefined) this.#inner = make();
  }

  head(status: number, headers: UpstreamHeaders, word: Word): boolean {
    if (word === "refusal" && status === 401) this.onRefused?.();
    if (word === "answer") {
      this.onAccepted();
      this.#inner ??= this.make();
    }
    return this.#inner?.head(status, headers, word) === true;
  }

  /** Of a stranger nothing is learned before its answer has come. */
  get takesWhole(): boolean {
    return this.#inner?.takesWhole === true;
  }

  whole(bytes: Uint8Array): void {
    this.#inner?.whole?.(bytes);
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
