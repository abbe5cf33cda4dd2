/**
 * A body in chunks, read strictly (RFC 9112 section 7.1).
 *
 *   chunk = 1*HEXDIG [ ";" extension ] CRLF data CRLF
 *   end   = "0" [ ";" extension ] CRLF *( trailer CRLF ) CRLF
 *
 * Every line ends with CRLF and nothing else. Extensions and trailers are
 * bounded, and dropped: nobody on this way reads them.
 */

/** A body whose chunks cannot be read; the connection ends with it. */
export class ChunkError extends Error {
  override readonly name = "ChunkError";
}

/** All size lines and trailers of one body together may not outgrow its data by more than this. */
const MAX_LINE_BYTES = 4_096;
const MAX_TRAILER_BYTES = 16_384;
const MAX_SIZE_DIGITS = 12;
const CR = 0x0d;
const LF = 0x0a;

/** Reads one chunked body from whatever pieces it comes in. */
export class ChunkedReader {
  #state: "size" | "data" | "data-cr" | "data-lf" | "trailer" | "done" = "size";
  #left = 0;
  #line = "";
  #trailerBytes = 0;

  /** The last line was read. */
  get isDone(): boolean {
    return this.#state === "done";
  }

  /**
   * Takes bytes.
   *
   * @param onData gets the body's bytes, as parts of what was handed in.
   * @returns how many of the bytes belong to this body.
   * @throws {ChunkError}
   */
  push(bytes: Uint8Array, onData: (data: Uint8Array) => void): number {
    let at = 0;
    while (at < bytes.length && this.#state !== "done") {
      if (this.#state === "data") {
        const size = Math.min(this.#left, bytes.length - at);
        onData(bytes.subarray(at, at + size));
        at += size;
        this.#left -= size;
        if (this.#left === 0) this.#state = "data-cr";
      } else if (this.#state === "data-cr" || this.#state === "data-lf") {
        if (bytes[at++] !== (this.#state === "data-cr" ? CR : LF))
          throw new ChunkError("a chunk does not end with CRLF");
        this.#state = this.#state === "data-cr" ? "data-lf" : "size";
      } else at = this.#takeLine(bytes, at);
    }
    return at;
  }

  /** One line, or as much of it as is there. */
  #takeLine(bytes: Uint8Array, from: number): number {
    const end = bytes.indexOf(LF, from);
    const upTo = end < 0 ? bytes.length : end + 1;
    if (this.#line.length + upTo - from > MAX_LINE_BYTES) throw new ChunkError("a chunk's line is too long");
    this.#line += Buffer.from(bytes.buffer, bytes.byteOffset + from, upTo - from).toString("latin1");
    if (end < 0) return upTo;
    const line = this.#line;
    this.#line = "";
    if (!line.endsWith("\r\n") || line.indexOf("\r") !== line.length - 2)
      throw new ChunkError("a chunk's line does not end with CRLF");
    if (this.#state === "size") this.#size(line.slice(0, -2));
    else if (line === "\r\n") this.#state = "done";
    else this.#trailer(line);
    return upTo;
  }

  #size(line: string): void {
    let digits = 0;
    let size = 0;
    for (; digits < line.length; digits++) {
      const value = hexValue(line.charCodeAt(digits));
      if (value < 0) break;
      size = size * 16 + value;
    }
    const rest = line.slice(digits);
    // "3 ;x" is read by some and not by others.
    if (digits === 0 || digits > MAX_SIZE_DIGITS || (rest !== "" && !rest.startsWith(";")))
      throw new ChunkError("malformed chunk size");
    for (let i = 0; i < rest.length; i++)
      if (rest.charCodeAt(i) < 0x20 && rest.charCodeAt(i) !== 0x09) throw new ChunkError("malformed chunk extension");
    this.#left = size;
    this.#state = size === 0 ? "trailer" : "data";
  }

  #trailer(line: string): void {
    this.#trailerBytes += line.length;
    if (this.#trailerBytes > MAX_TRAILER_BYTES) throw new ChunkError("too many trailers");
    if (line.indexOf(":") <= 0 || line.startsWith(" ") || line.startsWith("\t"))
      throw new ChunkError("malformed trailer");
  }
}

function hexValue(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

const encoder = new TextEncoder();
/** What ends a chunked body. */
export const LAST_CHUNK: Uint8Array = encoder.encode("0\r\n\r\n");

/** One chunk around these bytes; in one piece when it is small. Empty bytes make no chunk. */
export function chunkOf(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return bytes;
  const size = bytes.length.toString(16);
  const chunk = Buffer.allocUnsafe(size.length + 4 + bytes.length);
  chunk.write(`${size}\r\n`, 0, "latin1");
  chunk.set(bytes, size.length + 2);
  chunk.write("\r\n", size.length + 2 + bytes.length, "latin1");
  return chunk;
}
