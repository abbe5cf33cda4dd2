/**
 * The sum that stands over every row.
 *
 * It is keyed: HMAC-SHA256 over what the row is the row of (for an object its
 * copy's caller, resource and selectors) and its value, cut to 32 bits. It
 * finds damage, for SQLite reads overwritten pages without a word, and it
 * finds a row that somebody has put under another name: who has the file and
 * not the key can make one that is believed with a chance of one in four
 * billion, and a wrong one costs the copy.
 *
 *   keyed     files of version 3, summed with this node's key
 *   plain     xxHash32, as files before that have it
 *   trusting  summed with a key that is lost: a sum says nothing, contents' own hashes do
 */

import type { Sealer } from "./seal.ts";

/** Makes and checks sums of one kind; each a signed 32-bit number. */
export class Sums {
  private constructor(
    private readonly sealer: Sealer | undefined,
    private readonly isTrusting: boolean,
  ) {}

  /** Sums with this key. */
  static keyed(sealer: Sealer): Sums {
    return new Sums(sealer, false);
  }

  /** Sums of a file from before there was a key. */
  static readonly plain = new Sums(undefined, false);

  /** Believes any sum; makes none that is believed later. */
  static trusting(sealer: Sealer): Sums {
    return new Sums(sealer, true);
  }

  /** Whether rows of objects are bound to their copy's identity. */
  get isKeyed(): boolean {
    return this.sealer !== undefined;
  }

  /** Over a stored value and what it is the value of. */
  of(value: Uint8Array, row: string): number {
    if (this.sealer !== undefined) return this.sealer.sum(row, value);
    return Bun.hash.xxHash32(value as Uint8Array<ArrayBuffer>, Bun.hash.xxHash32(row)) | 0;
  }

  /** Over a row of plain fields. */
  ofFields(...fields: readonly (string | number | null)[]): number {
    const text = JSON.stringify(fields);
    return this.sealer === undefined ? Bun.hash.xxHash32(text) | 0 : this.sealer.sum(text, NONE);
  }

  /** Whether a value's sum is right; what is no blob has none. */
  holds(sum: number, value: unknown, row: string): value is Uint8Array {
    return value instanceof Uint8Array && (this.isTrusting || this.of(value, row) === sum);
  }

  /** Whether a row's sum is right. */
  holdsFields(sum: number, ...fields: readonly (string | number | null)[]): boolean {
    return this.isTrusting || this.ofFields(...fields) === sum;
  }
}

const NONE = new Uint8Array(0);
