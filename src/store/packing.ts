/**
 * How a value lies in its row: compressed where that helps, sealed where it must.
 */

import type { Sealer } from "./seal.ts";

const ZSTD = 1;
const SEALED = 2;
/** Below this zstd's frame eats what it saves. */
const MIN_COMPRESSED_BYTES = 256;
/** Level 1 keeps a Pi's CPU out of the picture; higher levels gain a few percent on objects this small. */
const ZSTD_LEVEL = 1;

/** A value as stored. */
export interface Packed {
  readonly packing: number;
  readonly value: Uint8Array;
}

/** Compresses and seals. @param row binds a sealed value to its row. */
export function pack(bytes: Uint8Array, row: string, sealer: Sealer | undefined): Packed {
  let value: Uint8Array = bytes;
  let packing = 0;
  if (bytes.length >= MIN_COMPRESSED_BYTES) {
    const small = Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>, { level: ZSTD_LEVEL });
    if (small.length < bytes.length * 0.9) {
      value = small;
      packing |= ZSTD;
    }
  }
  if (sealer !== undefined) {
    value = sealer.seal(value, row);
    packing |= SEALED;
  }
  return { packing, value };
}

/** Undoes `pack`. @returns undefined when the value is damaged or was sealed with another key. */
export function unpack({ packing, value }: Packed, row: string, sealer: Sealer): Uint8Array | undefined {
  const open = (packing & SEALED) === 0 ? value : sealer.open(value, row);
  if (open === undefined || (packing & ZSTD) === 0) return open;
  try {
    return Bun.zstdDecompressSync(open as Uint8Array<ArrayBuffer>);
  } catch {
    return undefined;
  }
}

/** A checksum over a stored value and what it is the value of; 32 bits. */
export function checksum(value: Uint8Array, row: string): number {
  return Bun.hash.xxHash32(value as Uint8Array<ArrayBuffer>, Bun.hash.xxHash32(row));
}
