/**
 * Header blocks, read strictly and within bounds.
 *
 *   1xxxxxxx   a field of a table
 *   01xxxxxx   a field that joins the dynamic table
 *   001xxxxx   the table's new size; only before the first field
 *   0000xxxx   a field that does not join
 *   0001xxxx   the same, and never to be kept in a table by anybody
 *
 * A byte can stand for a field of four kilobytes, so what comes out is counted
 * as it comes out.
 *
 * Source: RFC 7541 sections 5 and 6.
 */

import { entryBytes, MAX_TABLE_BYTES, STATIC_FIELDS, type HeaderField } from "./header-table.ts";
import { HpackError } from "./hpack-error.ts";
import { huffmanDecoded } from "./huffman.ts";

/** No number in a header block needs more bytes than this behind its first. */
const MAX_MORE_BYTES = 4;

/** Reads the header blocks of one connection, in the order in which they came. */
export class HeaderDecoder {
  /** Oldest first. */
  readonly #fields: HeaderField[] = [];
  #bytes = 0;
  #maxBytes = MAX_TABLE_BYTES;
  #block: Uint8Array = NOTHING;
  #at = 0;

  /** What the dynamic table costs now. */
  get tableBytes(): number {
    return this.#bytes;
  }

  /**
   * Reads a whole block.
   *
   * @param mostBytes what its fields may cost together, each with 32 bytes more than its text.
   * @throws {HpackError}
   */
  read(block: Uint8Array, mostBytes: number): HeaderField[] {
    this.#block = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let left = mostBytes;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        if (fields.length > 0) throw new HpackError("the table's size changes behind a field");
        this.#resize(this.#number(5));
        continue;
      }
      const field = this.#field(first);
      left -= entryBytes(field);
      if (left < 0) throw new HpackError("the head is too long");
      fields.push(field);
    }
    this.#block = NOTHING;
    return fields;
  }

  #field(first: number): HeaderField {
    if (first >= 0x80) return this.#entry(this.#number(7));
    const joins = first >= 0x40;
    const index = this.#number(joins ? 6 : 4);
    const field: HeaderField = [index === 0 ? this.#text() : this.#entry(index)[0], this.#text()];
    if (joins) this.#add(field);
    return field;
  }

  #entry(index: number): HeaderField {
    const dynamic = index - STATIC_FIELDS.length;
    const field = dynamic <= 0 ? STATIC_FIELDS[index - 1] : this.#fields[this.#fields.length - dynamic];
    if (field === undefined) throw new HpackError("an index of no field");
    return field;
  }

  #add(field: HeaderField): void {
    this.#fields.push(field);
    this.#bytes += entryBytes(field);
    this.#evict();
  }

  #resize(maxBytes: number): void {
    if (maxBytes > MAX_TABLE_BYTES) throw new HpackError("a table larger than we allow");
    this.#maxBytes = maxBytes;
    this.#evict();
  }

  #evict(): void {
    let count = 0;
    while (this.#bytes > this.#maxBytes) this.#bytes -= entryBytes(this.#fields[count++]!);
    if (count > 0) this.#fields.splice(0, count);
  }

  #number(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.#byte() & mask;
    if (value < mask) return value;
    for (let i = 0; i < MAX_MORE_BYTES; i++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw new HpackError("a number is too large");
  }

  #byte(): number {
    const byte = this.#block[this.#at++];
    if (byte === undefined) throw new HpackError("the block ends within a field");
    return byte;
  }

  #text(): string {
    const isCoded = (this.#block[this.#at] ?? 0) >= 0x80;
    const length = this.#number(7);
    const from = this.#at;
    this.#at += length;
    if (this.#at > this.#block.length) throw new HpackError("the block ends within a field");
    if (isCoded) return huffmanDecoded(this.#block, from, this.#at);
    return Buffer.from(this.#block.buffer, this.#block.byteOffset + from, length).toString("latin1");
  }
}

const NOTHING = new Uint8Array(0);
