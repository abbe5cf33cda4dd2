/**
 * zstd with a dictionary, by compressors that are kept.
 *
 * The runtime makes a compressor for every call, and frees what that holds
 * (some fifty kilobytes) with the next collection: two thousand rows of one
 * list are a hundred megabytes. A compressor that begins anew after each value
 * holds it once. It is reached by the handle under node:zlib's stream, which has
 * the same members in every Node; where it has not, each call makes its own.
 */

import { constants, createZstdCompress, zstdCompressSync } from "node:zlib";
import { passedThrough } from "../base/memory.ts";

/** What lies under node:zlib's streams. */
interface Handle {
  writeSync(
    flush: number,
    from: Uint8Array,
    at: number,
    length: number,
    to: Uint8Array,
    toAt: number,
    room: number,
  ): void;
  reset(): void;
}

interface Kept {
  readonly handle: Handle;
  /** Room left in the output, bytes left of the input. */
  readonly state: Uint32Array;
}

/** Level 1 keeps a Pi's CPU out of the picture; higher levels gain a few percent on objects this small. */
export const ZSTD_LEVEL = 1;
/** Dictionaries whose compressors are kept: of the copies that are being written. */
const MAX_KEPT = 64;
/** What is longer has a compressor of its own, and so has what does not shrink. */
const ROOM_BYTES = 64 * 1024;

const kept = new Map<Uint8Array, Kept>();
let room: Uint8Array | undefined;

/** Compresses with a dictionary. */
export function compressWith(dictionary: Uint8Array, bytes: Uint8Array): Uint8Array {
  return (bytes.length <= ROOM_BYTES ? byKept(dictionary, bytes) : undefined) ?? byOwn(dictionary, bytes);
}

function byKept(dictionary: Uint8Array, bytes: Uint8Array): Uint8Array | undefined {
  const compressor = kept.get(dictionary) ?? made(dictionary);
  if (compressor === undefined) return undefined;
  const { handle, state } = compressor;
  room ??= new Uint8Array(ROOM_BYTES);
  handle.writeSync(constants.ZSTD_e_end, bytes, 0, bytes.length, room, 0, room.length);
  const [left = 0, unread = 0] = state;
  handle.reset();
  return left === 0 || unread > 0 ? undefined : room.slice(0, room.length - left);
}

function made(dictionary: Uint8Array): Kept | undefined {
  const stream = createZstdCompress(options(dictionary)) as unknown as { _handle?: Handle; _writeState?: Uint32Array };
  const { _handle: handle, _writeState: state } = stream;
  if (typeof handle?.writeSync !== "function" || typeof handle.reset !== "function" || state === undefined)
    return undefined;
  if (kept.size >= MAX_KEPT) {
    const [oldest] = kept.keys();
    kept.delete(oldest!);
  }
  const compressor = { handle, state };
  kept.set(dictionary, compressor);
  return compressor;
}

function byOwn(dictionary: Uint8Array, bytes: Uint8Array): Uint8Array {
  passedThrough(0);
  return zstdCompressSync(bytes, { ...options(dictionary), chunkSize: Math.max(64, bytes.length) });
}

function options(dictionary: Uint8Array): Parameters<typeof createZstdCompress>[0] & object {
  return { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL }, dictionary } as object;
}
