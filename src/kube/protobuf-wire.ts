/**
 * Protobuf fields as bytes, as far as Kubernetes needs them.
 *
 *   field     tag = number << 3 | wire type, then the value
 *   types     0 varint   1 eight bytes   2 length, then bytes   5 four bytes
 *   envelope  6b 38 73 00, then Unknown{1 TypeMeta{1 apiVersion, 2 kind}, 2 raw, 3 contentEncoding, 4 contentType}
 *
 * Lengths come from outside: each is held against the bytes that are really
 * there before anything is read. Groups (types 3 and 4) are refused; no
 * Kubernetes type uses them.
 *
 * Source: protobuf encoding guide; k8s.io/apimachinery runtime/serializer/protobuf.
 */

import { joinBytes } from "./byte-buffer.ts";
import { MalformedError } from "./codec.ts";

/** `k8s\0`, the first bytes of every Kubernetes body in protobuf. */
export const MAGIC: readonly number[] = [0x6b, 0x38, 0x73, 0x00];

/** A varint's value, and the index after it. */
export interface Varint {
  readonly value: number;
  readonly next: number;
}

/** One field by its offsets: for type 2 the bytes are `[start, end)`, for type 0 `value` is the number. */
export interface Field {
  readonly number: number;
  readonly wireType: number;
  /** Where the tag stands. */
  readonly at: number;
  readonly start: number;
  readonly end: number;
  readonly value: number;
}

/**
 * The varint at `bytes[at]`.
 *
 * @returns undefined when the bytes end first. Values above 2^53 lose their low digits; no field read here has one.
 * @throws {MalformedError} after ten bytes, the longest there is.
 */
export function readVarint(bytes: Uint8Array, at: number, end = bytes.length): Varint | undefined {
  let value = 0;
  let factor = 1;
  for (let i = at; i < end; i++) {
    if (i - at >= 10) throw new MalformedError("Cannot read protobuf: a varint is longer than ten bytes");
    const byte = bytes[i]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return { value, next: i + 1 };
    factor *= 128;
  }
  if (end - at >= 10) throw new MalformedError("Cannot read protobuf: a varint is longer than ten bytes");
  return undefined;
}

/** The fields of the message `bytes[from, to)`. @throws {MalformedError} if they do not fill it exactly. */
export function* fieldsOf(bytes: Uint8Array, from = 0, to = bytes.length): Generator<Field, void> {
  let at = from;
  while (at < to) {
    const field = fieldAt(bytes, at, to);
    yield field;
    at = field.end;
  }
}

function fieldAt(bytes: Uint8Array, at: number, to: number): Field {
  const tag = required(readVarint(bytes, at, to));
  const wireType = tag.value % 8;
  const number = Math.floor(tag.value / 8);
  if (number < 1) throw new MalformedError("Cannot read protobuf: field number 0");
  if (wireType === 0) {
    const { value, next } = required(readVarint(bytes, tag.next, to));
    return { number, wireType, at, start: tag.next, end: next, value };
  }
  let start = tag.next;
  let size: number;
  if (wireType === 2) ({ value: size, next: start } = required(readVarint(bytes, tag.next, to)));
  else if (wireType === 1) size = 8;
  else if (wireType === 5) size = 4;
  else throw new MalformedError(`Cannot read protobuf: wire type ${wireType}`);
  if (size > to - start) throw new MalformedError("Cannot read protobuf: a field is longer than its message");
  return { number, wireType, at, start, end: start + size, value: 0 };
}

function required(varint: Varint | undefined): Varint {
  if (varint === undefined) throw new MalformedError("Cannot read protobuf: a message ends early");
  return varint;
}

const decoder = new TextDecoder();

/** The text of a type 2 field. */
export function fieldText(bytes: Uint8Array, field: Field): string {
  return decoder.decode(bytes.subarray(field.start, field.end));
}

/** What is inside the k8s\0 envelope: `bytes[start, end)` is the bare message. */
export interface Opened {
  readonly apiVersion: string;
  readonly kind: string;
  readonly start: number;
  readonly end: number;
}

/** Opens the envelope that fills `bytes[from, to)`. @throws {MalformedError} */
export function openEnvelope(bytes: Uint8Array, from: number, to: number): Opened {
  if (!MAGIC.every((byte, i) => from + i < to && bytes[from + i] === byte))
    throw new MalformedError("Cannot read protobuf: no k8s envelope");
  let type = { apiVersion: "", kind: "" };
  let raw: Field | undefined;
  for (const field of fieldsOf(bytes, from + MAGIC.length, to)) {
    if (field.wireType !== 2) continue;
    if (field.number === 1) type = readTypeMeta(bytes, field.start, field.end);
    else if (field.number === 2) raw = field;
    else if (field.number === 3 && field.end > field.start)
      throw new MalformedError("Cannot read protobuf: the object has a content encoding");
  }
  if (raw === undefined) throw new MalformedError("Cannot read protobuf: the envelope is empty");
  return { ...type, start: raw.start, end: raw.end };
}

/** TypeMeta as Unknown has it: apiVersion=1, kind=2. */
export function readTypeMeta(
  bytes: Uint8Array,
  from: number,
  to: number,
): { readonly apiVersion: string; readonly kind: string } {
  let apiVersion = "";
  let kind = "";
  for (const field of fieldsOf(bytes, from, to)) {
    if (field.wireType !== 2) continue;
    if (field.number === 1) apiVersion = fieldText(bytes, field);
    else if (field.number === 2) kind = fieldText(bytes, field);
  }
  return { apiVersion, kind };
}

/** The bytes of a varint. */
export function varintBytes(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  out.push(rest);
  return Uint8Array.from(out);
}

/** How many bytes the varint takes. */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Tag and length of a type 2 field; its `size` bytes follow. */
export function lead(number: number, size: number): Uint8Array {
  return joinBytes([varintBytes(number * 8 + 2), varintBytes(size)]);
}

/** A whole varint field. */
export function varint(number: number, value: number): Uint8Array {
  return joinBytes([varintBytes(number * 8), varintBytes(value)]);
}

/** A whole field of bytes, a message among them. */
export function message(number: number, content: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of content) size += part.length;
  return joinBytes([lead(number, size), ...content]);
}

/** A whole text field. Go writes empty ones too, and so do we. */
export function text(number: number, value: string): Uint8Array {
  return message(number, [new TextEncoder().encode(value)]);
}

/** The content of a ListMeta as the API server writes it: selfLink=1, resourceVersion=2, continue=3. */
export function listMeta(resourceVersion: string): readonly Uint8Array[] {
  return [text(1, ""), text(2, resourceVersion), text(3, "")];
}

/** Everything of the envelope that stands before its `rawSize` bytes. */
export function envelopeStart(apiVersion: string, kind: string, rawSize: number): Uint8Array {
  return joinBytes([Uint8Array.from(MAGIC), message(1, [text(1, apiVersion), text(2, kind)]), lead(2, rawSize)]);
}

/** What follows them: contentEncoding and contentType, both empty. */
export const ENVELOPE_END: Uint8Array = joinBytes([text(3, ""), text(4, "")]);

/** A bare message in its envelope. */
export function envelope(apiVersion: string, kind: string, content: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of content) size += part.length;
  return joinBytes([envelopeStart(apiVersion, kind, size), ...content, ENVELOPE_END]);
}
