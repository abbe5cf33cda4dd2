/**
 * The Huffman code of header strings.
 *
 * The code is canonical: symbols of one length are numbered in their own order,
 * and each length goes on where the shorter ones ended, so that the lengths
 * alone say everything. Reading walks a tree, bit by bit; header strings are
 * short, and those that repeat come as an index instead.
 *
 * Source: RFC 7541 section 5.2 and appendix B.
 */

import { HpackError } from "./hpack-error.ts";

/** Bits of each byte's code, and at the end those of the end of the string, which is never sent. */
// prettier-ignore
const BITS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const END_OF_STRING = 256;
const MAX_PADDING_BITS = 7;

const CODES = canonicalCodes();
const TREE = codeTree();

function canonicalCodes(): Uint32Array {
  const codes = new Uint32Array(BITS.length);
  const bySize = BITS.map((_, symbol) => symbol).sort((a, b) => BITS[a]! - BITS[b]! || a - b);
  let next = 0;
  let size = BITS[bySize[0]!]!;
  for (const symbol of bySize) {
    next <<= BITS[symbol]! - size;
    size = BITS[symbol]!;
    codes[symbol] = next++;
  }
  return codes;
}

/** Two places for each node, one for each bit: the place of the node it leads to, or -1 - symbol. The root's place is 0. */
function codeTree(): Int16Array {
  const tree = new Int16Array(2 * END_OF_STRING);
  let used = 2;
  for (let symbol = 0; symbol < BITS.length; symbol++) {
    let node = 0;
    for (let bit = BITS[symbol]! - 1; bit > 0; bit--) {
      const place = node + ((CODES[symbol]! >>> bit) & 1);
      if (tree[place] === 0) {
        tree[place] = used;
        used += 2;
      }
      node = tree[place]!;
    }
    tree[node + (CODES[symbol]! & 1)] = -1 - symbol;
  }
  return tree;
}

/**
 * Reads a coded string, as latin1.
 *
 * @throws {HpackError} when it holds the end of the string, or is not padded by the first bits of it.
 */
export function huffmanDecoded(bytes: Uint8Array, from: number, to: number): string {
  let text = "";
  let node = 0;
  let depth = 0;
  let isPadding = true;
  for (let at = from; at < to; at++) {
    const byte = bytes[at]!;
    for (let bit = 7; bit >= 0; bit--) {
      const value = (byte >>> bit) & 1;
      const next = TREE[node + value]!;
      if (next >= 0) {
        node = next;
        depth++;
        isPadding &&= value === 1;
        continue;
      }
      if (next === -1 - END_OF_STRING) throw new HpackError("a string's code goes on behind its end");
      text += String.fromCharCode(-1 - next);
      node = depth = 0;
      isPadding = true;
    }
  }
  if (depth > MAX_PADDING_BITS || !isPadding)
    throw new HpackError("a string's code ends with something else than padding");
  return text;
}

/** How many bytes a string takes in code. @param text latin1. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += BITS[text.charCodeAt(i) & 0xff]!;
  return Math.ceil(bits / 8);
}

/** Writes a string in code. @param text latin1. @returns where it ends. */
export function huffmanWrite(text: string, into: Uint8Array, at: number): number {
  // At most 7 bits wait for the next code's 30: more than a 32-bit word holds.
  let waiting = 0;
  let waitingBits = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff;
    waiting = waiting * 2 ** BITS[symbol]! + CODES[symbol]!;
    waitingBits += BITS[symbol]!;
    while (waitingBits >= 8) {
      waitingBits -= 8;
      const byte = Math.floor(waiting / 2 ** waitingBits);
      into[at++] = byte;
      waiting -= byte * 2 ** waitingBits;
    }
  }
  if (waitingBits > 0) into[at++] = (waiting << (8 - waitingBits)) | (0xff >>> waitingBits);
  return at;
}
