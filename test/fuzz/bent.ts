/**
 * Bytes that are almost right, in whatever pieces they come.
 */

import type { Draw } from "./random.ts";

/** Changes a few bytes: one flipped, dropped, doubled or set, a stretch moved, or the end cut off. */
export function bent(draw: Draw, bytes: Uint8Array): Uint8Array {
  let out = Uint8Array.from(bytes);
  for (let n = 1 + draw.index(3); n > 0 && out.length > 0; n--) {
    const at = draw.index(out.length);
    const to = Math.min(out.length, at + 1 + draw.index(8));
    const way = draw.index(6);
    if (way === 0) out[at] = out[at]! ^ (1 << draw.index(8));
    else if (way === 1) out[at] = draw.index(256);
    else if (way === 2) out = joined(out.subarray(0, at), out.subarray(to));
    else if (way === 3) out = joined(out.subarray(0, to), out.subarray(at));
    else if (way === 4) out = out.slice(0, at);
    else out = joined(out.subarray(to), out.subarray(0, at));
  }
  return out;
}

/** The same bytes in pieces, some of them empty. */
export function pieces(draw: Draw, bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const most = draw.of([1, 7, 64, bytes.length + 1]);
  for (let at = 0; at < bytes.length;) {
    const length = draw.index(most + 1);
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  return parts;
}

/** One after the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

/** A text with what scanners trip over. */
export function oddText(draw: Draw): string {
  const bits = [
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '},{"metadata":{',
    "\n",
    "é",
    "😀",
    "\u0000",
    "a",
    "items",
    " ",
  ];
  return Array.from({ length: draw.index(6) }, () => draw.of(bits)).join("");
}
