/**
 * Bytes on their way into a socket.
 *
 * The runtime's write takes what the kernel takes and says how much that was;
 * the rest waits here, and whoever wrote is told to wait: nothing piles up but
 * what its writer insists on.
 */

/** The part of a raw socket that is written to. */
export interface RawSink {
  /** @returns bytes taken; -1 when it is closed. */
  write(bytes: Uint8Array): number;
}

/** A queue before one socket. */
export class Outbox {
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #isClosed = false;

  constructor(
    private readonly sink: RawSink,
    /** Everything that waited has gone. */
    private readonly onEmpty: () => void,
  ) {}

  /** Whether nothing waits. */
  get isEmpty(): boolean {
    return this.#waitingBytes === 0;
  }

  /** Bytes that wait. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** @returns false when the socket is full: wait for `onEmpty`. The bytes are taken all the same. */
  write(bytes: Uint8Array): boolean {
    if (this.#isClosed || bytes.length === 0) return !this.#isClosed;
    let taken = 0;
    if (this.#waitingBytes === 0) {
      taken = this.sink.write(bytes);
      if (taken === bytes.length) return true;
      if (taken < 0) {
        this.close();
        return false;
      }
    }
    // What a caller hands over may be a view of something that moves on.
    const rest = Uint8Array.prototype.slice.call(bytes, taken);
    this.#waiting.push(rest);
    this.#waitingBytes += rest.length;
    return false;
  }

  /** The socket takes bytes again. */
  drain(): void {
    if (this.#waitingBytes === 0) return;
    while (this.#waiting.length > 0) {
      const first = this.#waiting[0]!;
      const taken = this.sink.write(first);
      if (taken < 0) return this.close();
      this.#waitingBytes -= taken;
      if (taken < first.length) {
        this.#waiting[0] = first.subarray(taken);
        return;
      }
      this.#waiting.shift();
    }
    this.onEmpty();
  }

  /** The socket is gone: what waits is dropped. */
  close(): void {
    this.#isClosed = true;
    this.#waiting = [];
    this.#waitingBytes = 0;
  }
}
