/**
 * Header blocks, written.
 *
 * What comes again (who asks, for which format) joins the table and costs a
 * byte or two from then on. What hardly does (a target, a length) stays out of
 * it, and so does a credential: nobody on the way is to keep one.
 *
 * Source: RFC 7541 sections 5 and 6; section 7.1.3 for what is never kept.
 */

import { entryBytes, MAX_TABLE_BYTES, STATIC_FIELDS, type HeaderField } from "./header-table.ts";
import { huffmanLength, huffmanWrite } from "./huffman.ts";

const SECRET: ReadonlySet<string> = new Set(["authorization", "proxy-authorization", "cookie"]);
const PASSING: ReadonlySet<string> = new Set([":path", "content-length", "if-match", "if-none-match"]);
/** A value longer than this would drive half the table out. */
const MAX_KEPT_VALUE = 512;

const staticNames = new Map<string, number>();
const staticFields = new Map<string, number>();
for (const [i, [name, value]] of STATIC_FIELDS.entries()) {
  if (!staticNames.has(name)) staticNames.set(name, i + 1);
  staticFields.set(keyOf(name, value), i + 1);
}

/** Writes the header blocks of one connection, in the order in which they go out. */
export class HeaderEncoder {
  /** The fields in the table, oldest first, with the number each has since the beginning. */
  readonly #numbers = new Map<string, { readonly number: number; readonly bytes: number }>();
  #added = 0;
  #bytes = 0;
  #maxBytes = MAX_TABLE_BYTES;
  /** To be said before the next field: the smallest size since the last one, and the present one. */
  #resized: { readonly least: number; readonly now: number } | undefined;
  #into = Buffer.allocUnsafe(512);
  #at = 0;

  /** What the dynamic table costs now. */
  get tableBytes(): number {
    return this.#bytes;
  }

  /** The other end's limit for the table. */
  resize(limit: number): void {
    const now = Math.min(limit, MAX_TABLE_BYTES);
    if (now === this.#maxBytes && this.#resized === undefined) return;
    this.#resized = { least: Math.min(now, this.#resized?.least ?? now), now };
    this.#maxBytes = now;
    this.#evict();
  }

  /** Writes a block. @param fields names in lower case, texts latin1. */
  write(fields: readonly HeaderField[]): Buffer {
    this.#at = 0;
    if (this.#resized !== undefined) {
      const { least, now } = this.#resized;
      this.#resized = undefined;
      this.#room(16);
      if (least < now) this.#number(0x20, 5, least);
      this.#number(0x20, 5, now);
    }
    for (const [name, value] of fields) this.#field(name, value);
    return Buffer.from(this.#into.subarray(0, this.#at));
  }

  #field(name: string, value: string): void {
    this.#room(name.length + value.length + 32);
    const key = keyOf(name, value);
    const fixed = staticFields.get(key);
    if (fixed !== undefined) return this.#number(0x80, 7, fixed);
    const known = this.#numbers.get(key);
    if (known !== undefined) return this.#number(0x80, 7, STATIC_FIELDS.length + this.#added - known.number);
    const joins = !SECRET.has(name) && !PASSING.has(name) && value.length <= MAX_KEPT_VALUE;
    const index = staticNames.get(name) ?? 0;
    if (joins) this.#number(0x40, 6, index);
    else this.#number(SECRET.has(name) ? 0x10 : 0, 4, index);
    if (index === 0) this.#text(name);
    this.#text(value);
    if (joins) this.#add(key, entryBytes([name, value]));
  }

  /** What does not fit empties the table, as it does at the other end. */
  #add(key: string, bytes: number): void {
    this.#numbers.set(key, { number: this.#added++, bytes });
    this.#bytes += bytes;
    this.#evict();
  }

  #evict(): void {
    for (const [key, { bytes }] of this.#numbers) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#numbers.delete(key);
      this.#bytes -= bytes;
    }
  }

  #number(first: number, prefixBits: number, value: number): void {
    const mask = (1 << prefixBits) - 1;
    if (value < mask) {
      this.#into[this.#at++] = first | value;
      return;
    }
    this.#into[this.#at++] = first | mask;
    let rest = value - mask;
    for (; rest >= 0x80; rest >>>= 7) this.#into[this.#at++] = (rest & 0x7f) | 0x80;
    this.#into[this.#at++] = rest;
  }

  #text(text: string): void {
    const coded = huffmanLength(text);
    if (coded < text.length) {
      this.#number(0x80, 7, coded);
      this.#at = huffmanWrite(text, this.#into, this.#at);
      return;
    }
    this.#number(0, 7, text.length);
    this.#at += this.#into.write(text, this.#at, "latin1");
  }

  #room(bytes: number): void {
    if (this.#into.length - this.#at >= bytes) return;
    const larger = Buffer.allocUnsafe(2 * this.#into.length + bytes);
    this.#into.copy(larger, 0, 0, this.#at);
    this.#into = larger;
  }
}

function keyOf(name: string, value: string): string {
  return `${name}\n${value}`;
}
