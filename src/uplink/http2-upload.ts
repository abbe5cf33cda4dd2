/**
 * A request's body on its way up: as much as both windows and the socket take,
 * then it waits.
 */

import { FLAG, FRAME, frameHead, MAX_PAYLOAD } from "../http2/frames.ts";
import { grown } from "../http2/windows.ts";
import { isStream, type PoolRequest } from "./pool-request.ts";

/** What an upload needs of its connection. */
export interface UploadWay {
  /** What may be sent now: the connection's window, or nothing while the socket is full. */
  room(): number;
  /** Takes a frame. @param dataBytes of it count against the window. */
  write(parts: readonly Uint8Array[], dataBytes: number): void;
  /** The whole body has been handed over. */
  done(): void;
  /** The body broke off where it comes from. */
  broke(error: Error): void;
}

/** One body. */
export class Http2Upload {
  #part: Uint8Array = NOTHING;
  #isLast = false;
  #isStopped = false;
  #wake: (() => void) | undefined;

  /** @param window of the stream, as the other end has opened it. */
  constructor(
    private readonly id: number,
    private window: number,
    private readonly way: UploadWay,
  ) {}

  /** Begins; nothing is read ahead of what goes out. */
  start(body: NonNullable<PoolRequest["body"]>): void {
    if (isStream(body)) {
      void this.#feed(body);
      return;
    }
    this.#part = body;
    this.#isLast = true;
    this.pump();
  }

  /** No more is wanted. */
  stop(): void {
    this.#isStopped = true;
    this.#part = NOTHING;
    this.#wake?.();
  }

  /** The stream's window grew; a setting may take it below nothing. @throws {ConnectionError} */
  grow(bytes: number): void {
    this.window = grown(this.window, bytes);
  }

  /** Sends what may be sent now. */
  pump(): void {
    while (!this.#isStopped) {
      const size = Math.min(this.#part.length, this.window, this.way.room(), MAX_PAYLOAD);
      const isEnd = this.#isLast && size === this.#part.length;
      if (size <= 0 && !isEnd) break;
      const bytes = this.#part.subarray(0, size);
      this.#part = this.#part.subarray(size);
      this.window -= size;
      if (isEnd) this.#isStopped = true;
      this.way.write([frameHead(FRAME.data, isEnd ? FLAG.endStream : 0, this.id, size), bytes], size);
      if (isEnd) return this.way.done();
    }
    if (this.#part.length === 0) this.#wake?.();
  }

  async #feed(body: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const part of body) {
        if (this.#isStopped) return;
        this.#part = part;
        this.pump();
        if (this.#part.length > 0) await this.#sent();
      }
      this.#isLast = true;
      this.pump();
    } catch (error) {
      if (!this.#isStopped) this.way.broke(error as Error);
    }
  }

  #sent(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }
}

const NOTHING = new Uint8Array(0);
