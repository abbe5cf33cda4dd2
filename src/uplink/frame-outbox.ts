/**
 * Frames on their way into a socket.
 *
 * Those that are written in one turn go out in one piece: a record of TLS and
 * a segment for each would cost more than they hold.
 */

import { Outbox, type RawSink } from "../http1/outbox.ts";
import { wanBytes } from "./wan.ts";

/** What is put together at most before it goes out. */
const MAX_TOGETHER_BYTES = 64 * 1024;

/** The way out of one connection. */
export class FrameOutbox {
  readonly #outbox: Outbox;
  #together: Uint8Array[] | undefined;
  #togetherBytes = 0;
  #wantsMore = false;

  /** @param onRoom there is room again: who has more may write it. */
  constructor(
    sink: RawSink,
    private readonly onRoom: () => void,
  ) {
    this.#outbox = new Outbox(sink, onRoom);
  }

  /** Bytes that the socket has not taken yet. */
  get waitingBytes(): number {
    return this.#outbox.waitingBytes;
  }

  /** Whether a body's bytes may be written: otherwise wait for `onRoom`. */
  get hasRoom(): boolean {
    if (!this.#outbox.isEmpty) return false;
    if (this.#togetherBytes < MAX_TOGETHER_BYTES) return true;
    this.#wantsMore = true;
    return false;
  }

  /** Takes frames, or parts of them, in order. */
  write(...parts: readonly Uint8Array[]): void {
    if (this.#together === undefined) return this.#hand(parts);
    this.#together.push(...parts);
    for (const part of parts) this.#togetherBytes += part.length;
  }

  /** What the task writes goes out together. */
  together(task: () => void): void {
    if (this.#together !== undefined) return task();
    this.#together = [];
    try {
      task();
    } finally {
      this.flush();
      this.#together = undefined;
    }
    if (!this.#wantsMore) return;
    this.#wantsMore = false;
    this.onRoom();
  }

  /** Waits for nothing more. */
  flush(): void {
    const parts = this.#together?.splice(0) ?? [];
    this.#togetherBytes = 0;
    if (parts.length > 0) this.#hand(parts);
  }

  /** The socket takes bytes again. */
  drain(): void {
    this.#outbox.drain();
  }

  /** The socket is gone. */
  close(): void {
    this.#outbox.close();
  }

  #hand(parts: readonly Uint8Array[]): void {
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    wanBytes.sent += bytes.length;
    this.#outbox.write(bytes);
  }
}
