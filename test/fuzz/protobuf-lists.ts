/**
 * Protobuf lists, split as they come, against a reader of the whole that goes
 * field by field and knows nothing of the product's.
 */

import { MalformedError } from "../../src/kube/codec.ts";
import { ProtobufListReader } from "../../src/kube/protobuf-list-reader.ts";
import { bent, joined, oddText, pieces } from "./bent.ts";
import type { Draw } from "./random.ts";

/** A field as it lies there: its number, and what is in it where it has a length. */
interface Seen {
  readonly number: number;
  readonly bytes: Uint8Array | undefined;
}

function varint(value: number): Uint8Array {
  const out: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return Uint8Array.from([...out, left]);
    out.push((left % 128) + 128);
  }
}
const field = (number: number, ...content: Uint8Array[]) => {
  const body = joined(...content);
  return joined(varint(number * 8 + 2), varint(body.length), body);
};
const text = (number: number, value: string) => field(number, Buffer.from(value));
const scalar = (number: number, value: number) => joined(varint(number * 8), varint(value));

function item(draw: Draw, index: number): Uint8Array {
  const meta = field(
    1,
    text(1, `c-${index}${oddText(draw)}`),
    ...(draw.chance(0.8) ? [text(3, "shop")] : []),
    text(5, `u-${index}`),
    text(6, String(100 + index)),
    ...(draw.chance(0.3) ? [scalar(7, draw.index(1_000_000))] : []),
  );
  const unknown = draw.chance(0.3) ? [field(90, crypto.getRandomValues(new Uint8Array(draw.index(40))))] : [];
  return joined(meta, ...unknown, ...(draw.chance(0.5) ? [text(2, oddText(draw))] : []));
}

function list(draw: Draw): Uint8Array {
  const items = Array.from({ length: draw.index(5) }, (_, n) => field(2, item(draw, n)));
  const raw = joined(field(1, text(2, "200"), ...(draw.chance(0.2) ? [text(3, "next")] : [])), ...items);
  const unknown = joined(field(1, text(1, "v1"), text(2, "ConfigMapList")), field(2, raw), text(3, ""), text(4, ""));
  return joined(Uint8Array.of(0x6b, 0x38, 0x73, 0), unknown);
}

/** All fields, slowly. @throws {RangeError} where they do not lie one after the other to the end. */
function fieldsOf(bytes: Uint8Array): Seen[] {
  const seen: Seen[] = [];
  let at = 0;
  const number = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined || shift > 63n) throw new RangeError("cut short");
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number();
    const wire = Number(tag & 7n);
    const skip = wire === 0 ? (number(), 0) : wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? Number(number()) : -1;
    if (skip < 0 || at + skip > bytes.length || tag >> 3n === 0n) throw new RangeError("no field");
    seen.push({ number: Number(tag >> 3n), bytes: wire === 2 ? bytes.subarray(at, at + skip) : undefined });
    at += skip;
  }
  return seen;
}

const last = (seen: readonly Seen[], number: number) => seen.findLast((one) => one.number === number)?.bytes;

/** @throws {RangeError} */
function slowly(bytes: Uint8Array): { items: string[]; resourceVersion: string } {
  if (Buffer.from(bytes.subarray(0, 4)).toString("latin1") !== "k8s\0") throw new RangeError("no envelope");
  const raw = last(fieldsOf(bytes.subarray(4)), 2) ?? new Uint8Array(0);
  const seen = fieldsOf(raw);
  // A message that is there twice is merged: what comes last of each field counts.
  const meta = seen.flatMap(({ number, bytes: one }) => (number === 1 && one !== undefined ? fieldsOf(one) : []));
  const resourceVersion = last(meta, 2);
  return {
    items: seen.filter(({ number, bytes: one }) => number === 2 && one !== undefined).map((one) => hex(one.bytes!)),
    resourceVersion: Buffer.from(resourceVersion ?? []).toString(),
  };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** @returns what differs, in words; undefined where both agree. */
export function protobufList(draw: Draw): string | undefined {
  const good = list(draw);
  const isBent = draw.chance(0.5);
  const bytes = isBent ? bent(draw, good) : good;
  let ours: { items: string[]; resourceVersion: string };
  try {
    const reader = new ProtobufListReader();
    const items = pieces(draw, bytes).flatMap((part) => reader.push(part));
    ours = { items: items.map((one) => hex(one.bytes)), resourceVersion: reader.end().resourceVersion };
  } catch (error) {
    if (!(error instanceof MalformedError)) return `threw ${String(error)} for ${hex(bytes)}`;
    return isBent ? undefined : `refused ${hex(bytes)}: ${error.message}`;
  }
  try {
    const theirs = slowly(bytes);
    return JSON.stringify(ours) === JSON.stringify(theirs)
      ? undefined
      : `read ${JSON.stringify(ours)} of ${hex(bytes)}`;
  } catch (error) {
    return `took what is no list: ${hex(bytes)}: ${String(error)}`;
  }
}
