/**
 * An answer that comes in on a connection of ours, at its reader's pace.
 *
 * It has the few members of the runtime's `Response` that are used here, so
 * that one through a proxy, over HTTP/2 and over HTTP/1.1 are read alike. A small one
 * is often whole with its head: then nothing waits and nothing is woken.
 */

import type { PlainAnswer, ResponseHead } from "../http1/response-head.ts";
import type { UpstreamAnswer, UpstreamBody, UpstreamHeaders, UpstreamResponse } from "./upstream-answer.ts";

/** What an answer needs of its connection. */
export interface AnswerFlow {
  pause(): void;
  resume(): void;
  /** The reader wants no more: over HTTP/1.1 the connection is of no use to anybody. */
  cancel(): void;
  /** The reader has taken bytes; where their sender is told how many it may send. */
  taken?(bytes: number): void;
}

/** More than this does not wait unread. */
const MAX_WAITING_BYTES = 256 * 1024;

/** One answer. */
export class RawAnswer implements UpstreamResponse, UpstreamBody {
  readonly status: number;
  readonly headers: UpstreamHeaders;
  taken: UpstreamAnswer | undefined;
  #plain: PlainAnswer | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #isWhole = false;
  #isPaused = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(
    private readonly head: ResponseHead,
    private readonly flow: AnswerFlow,
  ) {
    this.status = head.status;
    this.headers = new RawHeaders(head);
  }

  /** null where the answer cannot have one. */
  get body(): UpstreamBody | null {
    return this.head.frame.kind === "none" ? null : this;
  }

  /** All of the body, when it is here in one piece and nobody has read of it. */
  get whole(): Uint8Array | undefined {
    return this.#isWhole && this.#error === undefined && this.#waiting.length === 1 ? this.#waiting[0] : undefined;
  }

  get plain(): PlainAnswer | undefined {
    return this.#plain;
  }

  /** For the connection: head and body, and nothing else. @param bodyAt where the body begins. */
  arrive(bytes: Uint8Array, bodyAt: number): void {
    this.#waiting = [bytes.subarray(bodyAt)];
    this.#waitingBytes = bytes.length - bodyAt;
    this.#isWhole = true;
    if (this.head.isPlain) this.#plain = { status: this.status, bytes, headEnd: bodyAt - 2 };
  }

  /** For the connection: bytes of the body, which are the answer's own from now on. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#error !== undefined) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES && !this.#isPaused) {
      this.#isPaused = true;
      this.flow.pause();
    }
    this.#wake?.();
  }

  /** For the connection: that was all. */
  end(): void {
    this.#isWhole = true;
    this.#wake?.();
  }

  /** For the connection: it broke. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#waiting = [];
    this.#wake?.();
  }

  getReader(): { read(): Promise<{ done: boolean; value?: Uint8Array }>; cancel(): Promise<void> } {
    return { read: () => this.#read(), cancel: async () => this.cancel() };
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    try {
      for (;;) {
        const { done, value } = await this.#read();
        if (done) return;
        yield value!;
      }
    } finally {
      this.cancel();
    }
  }

  /** Wants no more of it. */
  cancel(): void {
    if (this.#isWhole || this.#error !== undefined) return;
    this.#error = new Error("the answer is not wanted any more");
    this.#waiting = [];
    this.flow.cancel();
  }

  async bytes(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (;;) {
      const { done, value } = await this.#read();
      if (done) return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
      parts.push(value!);
    }
  }

  async #read(): Promise<{ done: boolean; value?: Uint8Array }> {
    for (;;) {
      const value = this.#waiting.shift();
      if (value !== undefined) {
        this.#waitingBytes -= value.length;
        this.flow.taken?.(value.length);
        if (this.#isPaused && this.#waitingBytes <= MAX_WAITING_BYTES / 2) {
          this.#isPaused = false;
          this.flow.resume();
        }
        return { done: false, value };
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#isWhole) return { done: true };
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
      this.#wake = undefined;
    }
  }
}

/** Header lines as they came, with the look-up of the runtime's `Headers`. */
class RawHeaders implements UpstreamHeaders {
  constructor(private readonly head: ResponseHead) {}

  get(name: string): string | null {
    const { fields, names } = this.head;
    const lower = name.toLowerCase();
    let found: string | null = null;
    for (let i = 0; i < names.length; i++)
      if (names[i] === lower) found = found === null ? fields[i]![1] : `${found}, ${fields[i]![1]}`;
    return found;
  }

  toJSON(): Record<string, string | string[]> {
    const all: Record<string, string | string[]> = {};
    for (const [name, value] of this.head.fields) {
      const known = all[name];
      all[name] = known === undefined ? value : [...(Array.isArray(known) ? known : [known]), value];
    }
    return all;
  }
}
