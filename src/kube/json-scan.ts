/**
 * Where a JSON value ends, without parsing it.
 *
 * The scanner only counts brackets outside strings and can stop between any
 * two bytes; whether the text is JSON at all is left to JSON.parse, which runs
 * natively on one object at a time. The two together are exact, because no
 * proper prefix of a JSON object is a JSON object.
 *
 * Strings are skipped with the native indexOf: without a JIT that is several
 * times faster than looking at each byte.
 */

import { MalformedError } from "./codec.ts";

/** The byte of `"`. */
export const QUOTE = 0x22;
/** The byte of `,`. */
export const COMMA = 0x2c;
/** The byte of `:`. */
export const COLON = 0x3a;
/** The byte of `[`. */
export const OPEN_BRACKET = 0x5b;
/** The byte of a backslash. */
export const BACKSLASH = 0x5c;
/** The byte of `]`. */
export const CLOSE_BRACKET = 0x5d;
/** The byte of `{`. */
export const OPEN_BRACE = 0x7b;
/** The byte of `}`. */
export const CLOSE_BRACE = 0x7d;

/** Space, tab, line feed, carriage return: RFC 8259 section 2. */
export function isWhitespace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Finds the end of one object or array that comes in chunks. */
export class ValueScanner {
  #depth = 0;
  #isInString = false;
  #isEscaped = false;

  /**
   * Goes on at `chunk[from]`; the first byte of all must open the value.
   *
   * @returns the index after the closing bracket, or -1 when the chunk ends first.
   */
  scan(chunk: Uint8Array, from: number): number {
    const end = chunk.length;
    let depth = this.#depth;
    let i = from;
    if (this.#isInString) {
      i = this.#skipString(chunk, i);
      if (i < 0) return -1;
    }
    while (i < end) {
      const byte = chunk[i++]!;
      // Everything outside strings that is not a bracket lies below 0x5b or is a letter of true, false, null.
      if (byte === QUOTE) {
        // Nearly every string ends at its next quote; the rest is worth a call.
        const quote = chunk.indexOf(QUOTE, i);
        if (quote >= 0 && chunk[quote - 1] !== BACKSLASH) {
          i = quote + 1;
          continue;
        }
        i = this.#skipString(chunk, i);
        if (i < 0) break;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        depth++;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        if (--depth === 0) {
          this.#depth = 0;
          return i;
        }
      }
    }
    this.#depth = depth;
    return -1;
  }

  /** @returns the index after the closing quote, or -1 with the state kept for the next chunk. */
  #skipString(chunk: Uint8Array, from: number): number {
    let i = from;
    if (this.#isEscaped && i < chunk.length) {
      this.#isEscaped = false;
      i++;
    }
    for (;;) {
      const quote = chunk.indexOf(QUOTE, i);
      const stop = quote < 0 ? chunk.length : quote;
      let slashes = 0;
      for (let k = stop - 1; k >= i && chunk[k] === BACKSLASH; k--) slashes++;
      const isOdd = (slashes & 1) === 1;
      if (quote < 0) {
        this.#isInString = true;
        if (i < chunk.length) this.#isEscaped = isOdd;
        return -1;
      }
      if (!isOdd) {
        this.#isInString = false;
        return quote + 1;
      }
      i = quote + 1;
    }
  }
}

/** One member of an object by its offsets; the text of its value is `bytes[valueStart, valueEnd)`. */
export interface Member {
  readonly key: string;
  readonly start: number;
  readonly valueStart: number;
  readonly valueEnd: number;
}

/** The members of the object that opens at `bytes[open]`; the text must be valid JSON. */
export function membersOf(bytes: Uint8Array, open = 0): Member[] {
  const members: Member[] = [];
  let i = afterWhitespace(bytes, open + 1);
  while (bytes[i] === QUOTE) {
    const start = i;
    const keyEnd = endOfString(bytes, start);
    const key = parseText(bytes, start, keyEnd) as string;
    const valueStart = afterWhitespace(bytes, afterWhitespace(bytes, keyEnd) + 1);
    const valueEnd = endOfValue(bytes, valueStart);
    members.push({ key, start, valueStart, valueEnd });
    i = afterWhitespace(bytes, valueEnd);
    if (bytes[i] === COMMA) i = afterWhitespace(bytes, i + 1);
  }
  return members;
}

/** The member of that name, the last one when there are several, as JSON.parse has it. */
export function memberOf(bytes: Uint8Array, open: number, key: string): Member | undefined {
  return membersOf(bytes, open).findLast((member) => member.key === key);
}

/** Where each element of the array that opens at `bytes[open]` stands; the text must be valid JSON. */
export function elementsOf(bytes: Uint8Array, open: number): { readonly start: number; readonly end: number }[] {
  const elements: { start: number; end: number }[] = [];
  let i = afterWhitespace(bytes, open + 1);
  while (i < bytes.length && bytes[i] !== CLOSE_BRACKET) {
    const end = endOfValue(bytes, i);
    elements.push({ start: i, end });
    i = afterWhitespace(bytes, end);
    if (bytes[i] === COMMA) i = afterWhitespace(bytes, i + 1);
  }
  return elements;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The value of `bytes[from, to)`.
 *
 * @throws {MalformedError} if it is not JSON in UTF-8. The parser's own message quotes the text, which may be a Secret, so it goes no further.
 */
export function parseText(bytes: Uint8Array, from = 0, to = bytes.length): unknown {
  try {
    return JSON.parse(utf8.decode(from === 0 && to === bytes.length ? bytes : bytes.subarray(from, to)));
  } catch {
    throw new MalformedError(`Cannot read JSON: ${to - from} bytes are not valid JSON`);
  }
}

function afterWhitespace(bytes: Uint8Array, from: number): number {
  let i = from;
  while (i < bytes.length && isWhitespace(bytes[i]!)) i++;
  return i;
}

function endOfString(bytes: Uint8Array, open: number): number {
  for (let i = open + 1; i < bytes.length; i++) {
    if (bytes[i] === BACKSLASH) i++;
    else if (bytes[i] === QUOTE) return i + 1;
  }
  throw new MalformedError("Cannot read JSON: a string does not end");
}

function endOfValue(bytes: Uint8Array, from: number): number {
  const first = bytes[from];
  if (first === QUOTE) return endOfString(bytes, from);
  if (first === OPEN_BRACE || first === OPEN_BRACKET) {
    const end = new ValueScanner().scan(bytes, from);
    if (end < 0) throw new MalformedError("Cannot read JSON: a bracket does not close");
    return end;
  }
  let i = from;
  while (
    i < bytes.length &&
    bytes[i] !== COMMA &&
    bytes[i] !== CLOSE_BRACE &&
    bytes[i] !== CLOSE_BRACKET &&
    !isWhitespace(bytes[i]!)
  )
    i++;
  return i;
}
