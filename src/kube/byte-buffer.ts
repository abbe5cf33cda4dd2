/**
 * Bytes that arrive in pieces, kept until they make a whole.
 *
 * One buffer per reader: it grows as bytes really arrive (a length that a peer
 * only claims allocates nothing) and falls back to its small size after a
 * large object, so that one big Secret does not cost memory for ever.
 *
 * Invariant: what `copy` returns shares no memory with a network chunk.
 */

const SMALL_BYTES = 4 * 1024;
const KEEP_BYTES = 256 * 1024;

/** A growing run of bytes with a read position at its front. */
export class ByteBuffer {
  #bytes = new Uint8Array(0);
  #start = 0;
  #end = 0;

  /** Bytes held and not yet consumed. */
  get length(): number {
    return this.#end - this.#start;
  }

  /** Bytes of memory behind it. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** Adds `chunk[from, to)` at the end. */
  append(chunk: Uint8Array, from = 0, to = chunk.length): void {
    const size = to - from;
    if (size <= 0) return;
    if (this.#end + size > this.#bytes.length) this.#makeRoom(size);
    this.#bytes.set(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to), this.#end);
    this.#end += size;
  }

  /** A view of what is held; valid until the next append, consume or clear. */
  view(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#end);
  }

  /** Drops `size` bytes from the front. */
  consume(size: number): void {
    this.#start += size;
    if (this.#start >= this.#end) this.clear();
  }

  /** Drops everything, and the memory too if it grew large. */
  clear(): void {
    this.#start = 0;
    this.#end = 0;
    if (this.#bytes.length > KEEP_BYTES) this.#bytes = new Uint8Array(0);
  }

  #makeRoom(size: number): void {
    const held = this.view();
    const needed = held.length + size;
    // Moving within the same memory costs a copy; only worth it when it frees at least half.
    if (needed * 2 <= this.#bytes.length) {
      this.#bytes.copyWithin(0, this.#start, this.#end);
    } else {
      const grown = new Uint8Array(Math.max(SMALL_BYTES, needed > KEEP_BYTES ? needed + (needed >> 1) : needed * 2));
      grown.set(held);
      this.#bytes = grown;
    }
    this.#start = 0;
    this.#end = held.length;
  }
}

/** An own copy of `bytes[from, to)`, never a slice of a shared pool. */
export function copyBytes(bytes: Uint8Array, from = 0, to = bytes.length): Uint8Array {
  const copy = new Uint8Array(to - from);
  copy.set(bytes.subarray(from, to));
  return copy;
}

/** The parts one after another, in memory of their own. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const joined = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
