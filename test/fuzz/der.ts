/**
 * DER against a reader after X.690 that works on numbers of any size.
 */

import { DerError, DerReader } from "../../src/certificates/der-reader.ts";
import { readRequestDer } from "../../src/certificates/certificate-request.ts";
import { bent, joined } from "./bent.ts";
import type { Draw } from "./random.ts";

type Tree = readonly [tag: number, content: string | readonly Tree[]];

function element(draw: Draw, depth = 0): Uint8Array {
  const isConstructed = depth < 3 && draw.chance(0.5);
  const tag = isConstructed ? draw.of([0x30, 0x31, 0xa0]) : draw.of([0x01, 0x02, 0x04, 0x05, 0x06, 0x0c, 0x13]);
  const body = isConstructed
    ? joined(...Array.from({ length: draw.index(4) }, () => element(draw, depth + 1)))
    : new Uint8Array(draw.of([0, 1, 5, 127, 128, 300])).fill(draw.index(256));
  return joined(Uint8Array.of(tag), lengthOf(draw, body.length), body);
}

/** Now and then longer than need be, or left open. */
function lengthOf(draw: Draw, length: number): Uint8Array {
  if (draw.chance(0.03)) return Uint8Array.of(0x80);
  const digits = length < 256 ? [length] : [length >> 8, length & 255];
  if (length < 128 && !draw.chance(0.05)) return Uint8Array.of(length);
  const padded = draw.chance(0.05) ? [0, ...digits] : digits;
  return Uint8Array.from([0x80 + padded.length, ...padded]);
}

function ours(bytes: Uint8Array): readonly Tree[] {
  return [...new DerReader(bytes, "x").rest()].map(({ tag, body }) => [
    tag,
    (tag & 0x20) === 0 ? Buffer.from(body).toString("hex") : ours(body),
  ]);
}

/** @throws {RangeError} for what is not DER. */
function slowly(bytes: Uint8Array): readonly Tree[] {
  const trees: Tree[] = [];
  for (let at = 0; at < bytes.length;) {
    const tag = bytes[at]!;
    if (tag % 32 === 31) throw new RangeError("long tag");
    const first = bytes[at + 1];
    if (first === undefined) throw new RangeError("no length");
    const count = first < 128 ? 0 : first - 128;
    const digits = [...bytes.subarray(at + 2, at + 2 + count)];
    const length = first < 128 ? BigInt(first) : digits.reduce((sum, digit) => sum * 256n + BigInt(digit), 0n);
    const isShortest = first < 128 || (count > 0 && length >= 128n && digits[0] !== 0);
    if (!isShortest || digits.length < count || count > 3) throw new RangeError("length");
    const start = at + 2 + count;
    if (BigInt(bytes.length - start) < length) throw new RangeError("cut short");
    at = start + Number(length);
    const body = bytes.subarray(start, at);
    trees.push([tag, (tag & 0x20) === 0 ? Buffer.from(body).toString("hex") : slowly(body)]);
  }
  return trees;
}

/** @returns what differs, in words; undefined where both agree. */
export function der(draw: Draw): string | undefined {
  const good = element(draw);
  const bytes = draw.chance(0.4) ? bent(draw, good) : good;
  const attempt = (read: (from: Uint8Array) => unknown) => {
    try {
      return JSON.stringify(read(bytes));
    } catch (error) {
      return error instanceof DerError || error instanceof RangeError ? "refused" : `threw ${String(error)}`;
    }
  };
  const [one, other] = [attempt(ours), attempt(slowly)];
  if (one !== other) return `${Buffer.from(bytes).toString("hex")}: ours ${one}, reference ${other}`;
  const request = attempt(readRequestDer);
  return request.startsWith("threw") ? `${Buffer.from(bytes).toString("hex")}: ${request}` : undefined;
}
