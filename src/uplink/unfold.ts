/**
 * Compressed answers, unfolded as they come and within a bound.
 *
 * Kubernetes 1.37 writes one gzip member per flush, so a body is any number of
 * members one after the other, and a flush in the middle of one must come
 * through at once. A few kilobytes may unfold to gigabytes: the unfolding goes
 * at the reader's pace, off the event loop, and ends at a bound.
 *
 * Source: RFC 1952 section 2.2 (members).
 */

import type { Readable as ReadableStreamOfNode } from "node:stream";
import { MalformedError } from "../kube/codec.ts";

/** So much one page of a list may unfold to; an item is at most 16 MiB, and a page has 500 where it is whole lists of small ones. */
export const MAX_UNFOLDED_BYTES = 256 * 1024 * 1024;

/**
 * The bytes that were compressed with gzip.
 *
 * @param maxBytes zero means no bound: for streams that may go on for ever.
 * @throws {MalformedError} beyond the bound. @throws whatever the chunks throw, and zlib's own error for what is no gzip or ends early.
 */
export async function* unfolded(chunks: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array, void> {
  // Loaded on demand: few answers are long enough to be compressed.
  const { createGunzip } = require("node:zlib") as typeof import("node:zlib");
  const { Readable, pipeline } = require("node:stream") as typeof import("node:stream");
  const gunzip = createGunzip();
  const source: ReadableStreamOfNode = Readable.from(chunks, { objectMode: false });
  pipeline(source, gunzip, () => {});
  let size = 0;
  for await (const chunk of gunzip as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (maxBytes > 0 && size > maxBytes)
      throw new MalformedError(`Cannot read an answer: it unfolds to more than ${maxBytes} bytes`);
    yield chunk;
  }
}
