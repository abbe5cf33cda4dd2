/**
 * A request's body at its reader's pace.
 *
 * What the socket brings waits here; beyond a bound the
 * socket is told to pause until somebody reads. A reader that stops early
 * leaves the rest to the connection, which drops a little of it and then ends.
 */

import { ChunkedReader } from "../http1/chunked.ts";
import type { HeaderBlock } from "../http1/request-head.ts";

/** What a body needs of its connection. */
export interface BodyFlow {
  pause(): void;
  resume(): void;
  /** Somebody reads for the first time: who expects 100 Continue is told to go on. */
  begin(): void;
}

/** More than this does not wait unread. */
const MAX_WAITING_BYTES = 64 * 1024;

/** The body of one request; to be iterated once. */
export class RequestBody implements AsyncIterable<Uint8Array> {
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #left: number;
  #chunked: ChunkedReader | undefined;
  #isPaused = false;
  #hasBegun = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(
    { length, isChunked }: Pick<HeaderBlock, "length" | "isChunked">,
    private readonly flow: BodyFlow,
  ) {
    this.#left = Math.max(0, length);
    this.#chunked = isChunked ? new ChunkedReader() : undefined;
  }

  /** Its last byte has come. */
  get isWhole(): boolean {
    return this.#chunked === undefined ? this.#left === 0 : this.#chunked.isDone;
  }

  /** Somebody waits for bytes that have not come. */
  get isAwaited(): boolean {
    return this.#wake !== undefined;
  }

  /**
   * Takes bytes from the socket.
   *
   * @returns how many were its own; the rest is the next request's.
   * @throws {ChunkError}
   */
  push(bytes: Uint8Array): number {
    let taken: number;
    if (this.#chunked !== undefined) taken = this.#chunked.push(bytes, (data) => this.#add(data));
    else {
      taken = Math.min(this.#left, bytes.length);
      this.#left -= taken;
      this.#add(bytes.subarray(0, taken));
    }
    if (this.#waitingBytes > MAX_WAITING_BYTES && !this.#isPaused && !this.isWhole) {
      this.#isPaused = true;
      this.flow.pause();
    }
    this.#wake?.();
    return taken;
  }

  /** It will not come whole. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** Nobody reads it any more: what comes is dropped. */
  discard(): void {
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#error ??= new Error("nobody reads this body");
    this.#goOn();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      this.flow.begin();
    }
    for (;;) {
      const next = this.#waiting.shift();
      if (next !== undefined) {
        this.#waitingBytes -= next.length;
        if (this.#waitingBytes <= MAX_WAITING_BYTES / 2) this.#goOn();
        yield next;
      } else if (this.isWhole) return;
      else if (this.#error !== undefined) throw this.#error;
      else await this.#more();
    }
  }

  #add(data: Uint8Array): void {
    if (data.length === 0 || this.#error !== undefined) return;
    this.#waiting.push(data);
    this.#waitingBytes += data.length;
  }

  #goOn(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.flow.resume();
  }

  async #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    await promise;
    this.#wake = undefined;
  }
}

/** The body of a request without one: nothing is to come, and nothing of it can change. */
export const NO_BODY = new RequestBody({ length: 0, isChunked: false }, { pause() {}, resume() {}, begin() {} });
