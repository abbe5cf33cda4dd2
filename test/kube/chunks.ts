/** Bytes cut into pieces, for readers that must not care where. */

import type { Codec, Item, ListHead, Shape, WatchFrame } from "../../src/kube/codec.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const bytesOf = (text: string): Uint8Array => encoder.encode(text);
export const textOf = (bytes: Uint8Array): string => decoder.decode(bytes);

/** Pieces of `size` bytes; each is overwritten after use, so that a kept view shows. */
export function* pieces(bytes: Uint8Array, size: number): Generator<Uint8Array, void> {
  for (let i = 0; i < bytes.length; i += size) {
    const piece = bytes.slice(i, i + size);
    yield piece;
    piece.fill(0x23);
  }
}

/** Pieces cut at the given places, in order. */
export function* cutAt(bytes: Uint8Array, places: readonly number[]): Generator<Uint8Array, void> {
  let from = 0;
  for (const place of [...places.map((p) => p % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    const piece = bytes.slice(from, place);
    from = place;
    yield piece;
    piece.fill(0x23);
  }
}

export function readList(
  codec: Codec,
  chunks: Iterable<Uint8Array>,
): { readonly items: Item[]; readonly head: ListHead } {
  const reader = codec.listReader();
  const items: Item[] = [];
  for (const chunk of chunks) items.push(...reader.push(chunk));
  return { items, head: reader.end() };
}

export function readWatch(codec: Codec, shape: Shape, chunks: Iterable<Uint8Array>): WatchFrame[] {
  const reader = codec.watchReader(shape);
  const frames: WatchFrame[] = [];
  for (const chunk of chunks) frames.push(...reader.push(chunk));
  if (!reader.isBetweenFrames()) throw new Error("the stream ends within a frame");
  return frames;
}

export function writeList(
  codec: Codec,
  shape: Shape,
  resourceVersion: string,
  items: readonly Uint8Array[],
): Uint8Array {
  const parts = [
    codec.listStart(
      shape,
      resourceVersion,
      items.map((item) => item.length),
    ),
  ];
  items.forEach((item, i) => parts.push(codec.listItemLead(item, i), item));
  return new Uint8Array(Buffer.concat([...parts, codec.listEnd(shape)]));
}

/** The one item of a one-event stream. */
export function eventItem(frames: readonly WatchFrame[]): Item {
  const [frame] = frames;
  if (frames.length !== 1 || frame === undefined || !("item" in frame)) throw new Error("not one event with an item");
  return frame.item;
}
