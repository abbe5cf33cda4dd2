/**
 * A list put together from rows, in pieces.
 *
 * The pieces come from a frozen view, so the list is one moment of the scope
 * however long the client takes, and only one piece is in memory at a time.
 */

import { passedThrough } from "../base/memory.ts";
import type { Codec } from "../kube/codec.ts";
import type { ScopeSnapshot } from "../store/contract.ts";

const PIECE_BYTES = 128 * 1024;

/**
 * The body of a LIST.
 *
 * @param resourceVersion what the list claims to be; normally the snapshot's own.
 */
export function* listPieces(
  codec: Codec,
  snapshot: ScopeSnapshot,
  resourceVersion: string,
): Generator<Uint8Array, void> {
  const { shape } = snapshot.listed;
  let parts: Uint8Array[] = [codec.listStart(shape, resourceVersion, snapshot.itemSizes())];
  let size = parts[0]!.length;
  let index = 0;
  for (const { bytes } of snapshot.items()) {
    const lead = codec.listItemLead(bytes, index++);
    parts.push(lead, bytes);
    size += lead.length + bytes.length;
    if (size < PIECE_BYTES) continue;
    yield Buffer.concat(parts);
    passedThrough(size);
    parts = [];
    size = 0;
  }
  parts.push(codec.listEnd(shape));
  yield Buffer.concat(parts);
}
