/**
 * How a value lies in its row: compressed where that helps, sealed where it must.
 *
 * Objects of one resource repeat each other, so an object compressed with a
 * sibling as dictionary takes a quarter of what it takes alone. The dictionary
 * is plain bytes of one object and never changes while rows use it; sealed
 * values have none, for it would lie open beside them.
 *
 * A sum stands over the packed value and is looked at first: damaged bytes
 * never reach the decompressor.
 */

import { zstdDecompressSync } from "node:zlib";
import { passedThrough } from "../base/memory.ts";
import type { Sealer } from "./seal.ts";
import { compressWith, ZSTD_LEVEL } from "./zstd.ts";

const ZSTD = 1;
const SEALED = 2;
const DICTIONARY = 4;
/** Sealed with the copy's identity in the associated data; before version 3 it was the row's place alone. */
const BOUND = 8;
/** Below this zstd's frame eats what it saves. */
const MIN_COMPRESSED_BYTES = 256;
/** With a dictionary even short values shrink. */
const MIN_WITH_DICTIONARY_BYTES = 64;
/** A long dictionary is read again for every value; objects repeat each other within the first pages. */
const MAX_DICTIONARY_BYTES = 8 * 1024;

/** A value as stored. */
export interface Packed {
  readonly packing: number;
  readonly value: Uint8Array;
}

/** What a value is packed with; a sealer means that it must be sealed. */
export interface PackOptions {
  readonly sealer?: Sealer | undefined;
  readonly dictionary?: Uint8Array | undefined;
}

/** Compresses and seals. @param row binds a sealed value to its row. */
export function pack(bytes: Uint8Array, row: string, { sealer, dictionary }: PackOptions): Packed {
  let value: Uint8Array = bytes;
  let packing = 0;
  if (bytes.length >= (dictionary === undefined ? MIN_COMPRESSED_BYTES : MIN_WITH_DICTIONARY_BYTES)) {
    const small = compress(bytes, dictionary);
    if (small.length < bytes.length * 0.9) {
      value = small;
      packing = dictionary === undefined ? ZSTD : ZSTD | DICTIONARY;
    }
  }
  return sealer === undefined ? { packing, value } : { packing: packing | SEALED, value: sealer.seal(value, row) };
}

/**
 * Undoes `pack`.
 *
 * @param sizeBytes of the value unpacked; needed with a dictionary alone.
 * @returns undefined when the value was sealed with another key or for another row, or its dictionary is gone.
 */
export function unpack(
  { packing, value }: Packed,
  row: string,
  sealer: Sealer,
  { dictionary, sizeBytes }: { readonly dictionary?: Uint8Array | undefined; readonly sizeBytes: number } = {
    sizeBytes: 0,
  },
): Uint8Array | undefined {
  const open = isSealed(packing) ? sealer.open(value, row) : value;
  if (open === undefined || (packing & ZSTD) === 0) return open;
  if ((packing & DICTIONARY) !== 0 && dictionary === undefined) return undefined;
  try {
    return decompress(open, (packing & DICTIONARY) === 0 ? undefined : dictionary, sizeBytes);
  } catch {
    return undefined;
  }
}

/**
 * Unpacks many values that share a dictionary in one call, a third of the time of one by one.
 *
 * @returns undefined if any of them is packed in another way or does not open; then take them one by one.
 */
export function unpackTogether(
  packed: readonly (Packed & { readonly size: number })[],
  dictionary: Uint8Array | undefined,
): Uint8Array[] | undefined {
  if (dictionary === undefined || packed.some(({ packing }) => packing !== (ZSTD | DICTIONARY))) return undefined;
  try {
    const sizeBytes = packed.reduce((sum, { size }) => sum + size, 0);
    const all = decompress(Buffer.concat(packed.map(({ value }) => value)), dictionary, sizeBytes);
    let at = 0;
    const parts = packed.map(({ size }) => all.subarray(at, (at += size)));
    return at === all.length ? parts : undefined;
  } catch {
    return undefined;
  }
}

/** The packing of a value that was sealed with its copy's identity. */
export function boundPacking(packing: number): number {
  return packing | BOUND;
}

/** Whether a value was sealed with its copy's identity. */
export function isBound(packing: number): boolean {
  return (packing & BOUND) !== 0;
}

/** Whether a value of this packing is sealed. */
export function isSealed(packing: number): boolean {
  return (packing & SEALED) !== 0;
}

/** The dictionary made of a scope's first object; undefined if that is too short to be of use. */
export function dictionaryOf(bytes: Uint8Array): Uint8Array | undefined {
  return bytes.length < MIN_COMPRESSED_BYTES ? undefined : bytes.slice(0, MAX_DICTIONARY_BYTES);
}

function compress(bytes: Uint8Array, dictionary: Uint8Array | undefined): Uint8Array {
  if (dictionary === undefined) return Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>, { level: ZSTD_LEVEL });
  return compressWith(dictionary, bytes);
}

/** @param sizeBytes what comes out: given room for it at once, it is not copied together from pieces. */
function decompress(bytes: Uint8Array, dictionary: Uint8Array | undefined, sizeBytes: number): Uint8Array {
  if (dictionary === undefined) return Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>);
  passedThrough(0);
  const options = { dictionary, chunkSize: sizeBytes + 64 };
  return zstdDecompressSync(bytes, options as Parameters<typeof zstdDecompressSync>[1]);
}
