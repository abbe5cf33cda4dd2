/**
 * A body of JSON that goes by, with some of its objects changed.
 *
 *   depth 1   {..} {..}                 one object, or a watch's events
 *   depth 3   {"items":[{..},{..}]}     the elements of a list's or a Table's arrays
 *
 * Only what is looked at is held, one object at a time; everything around it
 * goes on byte for byte as it comes.
 */

import { ByteBuffer, copyBytes } from "./byte-buffer.ts";
import { MAX_OBJECT_BYTES } from "./json-list-reader.ts";
import { BACKSLASH, CLOSE_BRACE, CLOSE_BRACKET, OPEN_BRACE, OPEN_BRACKET, QUOTE, ValueScanner } from "./json-scan.ts";

/** A watch's event is an object and a little around it. */
const MAX_PIECE_BYTES = MAX_OBJECT_BYTES + 4096;

/** The body, piece by piece. */
export class JsonPieces {
  readonly #partial = new ByteBuffer();
  readonly #scanner = new ValueScanner();
  #isInPiece = false;
  #isGivenUp = false;
  #depth = 0;
  #isSecondArray = false;
  #isInString = false;
  #isEscaped = false;

  /**
   * @param change what becomes of a piece.
   * @param onGivenUp a piece was too large to be held: from there on nothing is changed.
   */
  constructor(
    private readonly pieceDepth: 1 | 3,
    private readonly change: (piece: Uint8Array) => Uint8Array,
    private readonly onGivenUp: () => void,
  ) {}

  /** @returns what can go on by now. */
  push(chunk: Uint8Array): Uint8Array[] {
    if (this.#isGivenUp) return [chunk];
    const out: Uint8Array[] = [];
    for (let at = 0; at < chunk.length;) {
      at = this.#isInPiece ? this.#inPiece(chunk, at, out) : this.#between(chunk, at, out);
      if (this.#isGivenUp) {
        out.push(chunk.subarray(at));
        break;
      }
    }
    return out;
  }

  /** @returns what is left of a body that broke off inside a piece. */
  end(): Uint8Array[] {
    return this.#partial.length === 0 ? [] : [copyBytes(this.#partial.view())];
  }

  #inPiece(chunk: Uint8Array, from: number, out: Uint8Array[]): number {
    const end = this.#scanner.scan(chunk, from);
    const stop = end < 0 ? chunk.length : end;
    if (this.#partial.length === 0 && end >= 0) out.push(this.change(copyBytes(chunk, from, end)));
    else {
      this.#partial.append(chunk, from, stop);
      if (end >= 0) out.push(this.change(this.#taken()));
      else if (this.#partial.length > MAX_PIECE_BYTES) {
        this.#isGivenUp = true;
        out.push(this.#taken());
        this.onGivenUp();
      }
    }
    if (end >= 0) this.#isInPiece = false;
    return stop;
  }

  #taken(): Uint8Array {
    const bytes = copyBytes(this.#partial.view());
    this.#partial.clear();
    return bytes;
  }

  #between(chunk: Uint8Array, from: number, out: Uint8Array[]): number {
    let at = from;
    for (; at < chunk.length; at++) {
      const byte = chunk[at]!;
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (byte === BACKSLASH) this.#isEscaped = true;
        else if (byte === QUOTE) this.#isInString = false;
      } else if (byte === OPEN_BRACE && this.#beginsPiece()) {
        this.#isInPiece = true;
        break;
      } else this.#step(byte);
    }
    if (at > from) out.push(copyBytes(chunk, from, at));
    return at;
  }

  #beginsPiece(): boolean {
    return this.#depth === this.pieceDepth - 1 && (this.pieceDepth === 1 || this.#isSecondArray);
  }

  #step(byte: number): void {
    if (byte === QUOTE) this.#isInString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      this.#depth++;
      if (this.#depth === 2) this.#isSecondArray = byte === OPEN_BRACKET;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) this.#depth--;
  }
}
