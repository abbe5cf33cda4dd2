/**
 * Objects to protobuf and back, driven by the field tables.
 *
 *   envelope   6b 38 73 00, then Unknown { 1 TypeMeta { 1 apiVersion, 2 kind },
 *              2 raw, 3 contentEncoding, 4 contentType }
 *   list       1 ListMeta, 2 items (bare messages)
 *   watch      4-byte big-endian length, then WatchEvent { 1 type,
 *              2 RawExtension { 1 raw: an envelope } }
 *
 * Bytes are laid out as Kubernetes' generated marshallers do: fields in order
 * of their number, maps sorted by key, unset scalars that are no pointers
 * written as zero.
 */

import { isObject, message, type Field, type Json, type JsonObject, type Message } from "./schema.ts";

const MAGIC = Buffer.from([0x6b, 0x38, 0x73, 0x00]);

/** An object with its type, in the envelope every protobuf answer has. */
export function envelope(apiVersion: string, kind: string, raw: Uint8Array): Buffer {
  const typeMeta = Buffer.concat([text(1, apiVersion), text(2, kind)]);
  return Buffer.concat([MAGIC, block(1, typeMeta), block(2, raw), text(3, ""), text(4, "")]);
}

/** A list from its metadata and its encoded items. */
export function encodeList(metadata: JsonObject, items: readonly Uint8Array[]): Buffer {
  const listMeta = message("meta.ListMeta")!;
  return Buffer.concat([
    block(1, encode(metadata, listMeta)),
    ...items.flatMap((item) => [key(2, 2), varint(item.length), item]),
  ]);
}

/** One frame of a watch stream. */
export function watchFrame(type: string, object: Uint8Array): Buffer {
  const body = Buffer.concat([text(1, type), block(2, block(1, object))]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

/** A message's bytes, without an envelope. */
export function encode(value: Json | undefined, of: Message): Buffer {
  const from = isObject(value) ? value : {};
  const fields = [...of.fields].sort((a, b) => a.number - b.number);
  return Buffer.concat(fields.map((field) => encodeField(field.isInline ? from : from[field.jsonName], field)));
}

function encodeField(value: Json | undefined, field: Field): Buffer {
  const isUnset = value === undefined || value === null;
  if (field.isList)
    return Buffer.concat((Array.isArray(value) ? value : []).map((item) => encodeOne(item, field.number, field.type)));
  if (field.isMap) {
    const map = isObject(value) ? value : {};
    return Buffer.concat(
      Object.keys(map)
        .sort()
        .map((name) => block(field.number, Buffer.concat([text(1, name), encodeOne(map[name], 2, field.type)]))),
    );
  }
  if (isUnset && (field.isPointer || field.type === "y")) return Buffer.alloc(0);
  return encodeOne(value, field.number, field.type);
}

function encodeOne(value: Json | undefined, number: number, type: string): Buffer {
  switch (type) {
    case "s":
      return text(number, String(value ?? ""));
    case "i":
      return integer(number, Number(value ?? 0));
    case "b":
      return integer(number, value ? 1 : 0);
    case "y":
      return block(number, Buffer.from(String(value ?? ""), "base64"));
    case "t":
    case "u":
      return block(number, timestamp(value));
    case "q":
      return block(number, text(1, String(value ?? "0")));
    case "x":
      return block(
        number,
        Buffer.concat([
          integer(1, typeof value === "string" ? 1 : 0),
          integer(2, typeof value === "number" ? value : 0),
          text(3, typeof value === "string" ? value : ""),
        ]),
      );
    case "r":
      return block(
        number,
        value === undefined || value === null ? Buffer.alloc(0) : block(1, Buffer.from(JSON.stringify(value))),
      );
    case "e":
      return block(number, Buffer.concat((Array.isArray(value) ? value : []).map((item) => text(1, String(item)))));
    default:
      return block(number, encode(value, message(type)!));
  }
}

function timestamp(value: Json | undefined): Buffer {
  if (typeof value !== "string" || value === "") return Buffer.alloc(0);
  const fraction = /\.(\d+)/.exec(value)?.[1] ?? "";
  return Buffer.concat([
    integer(1, Math.floor(Date.parse(value) / 1000)),
    integer(2, Number(fraction.padEnd(9, "0").slice(0, 9))),
  ]);
}

const key = (number: number, wireType: number) => varint(number * 8 + wireType);
const block = (number: number, bytes: Uint8Array) => Buffer.concat([key(number, 2), varint(bytes.length), bytes]);
const text = (number: number, value: string) => block(number, Buffer.from(value));
const integer = (number: number, value: number) => Buffer.concat([key(number, 0), varint(value)]);

/** Negative numbers take ten bytes, as two's complement in 64 bits. */
function varint(value: number): Buffer {
  let rest = value < 0 ? BigInt.asUintN(64, BigInt(value)) : BigInt(value);
  const bytes: number[] = [];
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

/** What an envelope says of itself, and the message inside. @throws {SyntaxError} if it is none. */
export function openEnvelope(bytes: Uint8Array): { apiVersion: string; kind: string; raw: Uint8Array } {
  if (bytes.length < 4 || !MAGIC.equals(bytes.subarray(0, 4))) throw new SyntaxError("body is not a protobuf envelope");
  let apiVersion = "";
  let kind = "";
  let raw: Uint8Array = new Uint8Array();
  for (const { number, bytes: value } of fieldsOf(bytes.subarray(4))) {
    if (number === 2) raw = value;
    if (number !== 1) continue;
    for (const part of fieldsOf(value)) {
      if (part.number === 1) apiVersion = utf8(part.bytes);
      if (part.number === 2) kind = utf8(part.bytes);
    }
  }
  return { apiVersion, kind, raw };
}

/** A message as JSON; fields the tables do not know are dropped. */
export function decode(bytes: Uint8Array, of: Message): JsonObject {
  const value: JsonObject = {};
  for (const wire of fieldsOf(bytes)) {
    const field = of.fields.find(({ number }) => number === wire.number);
    if (!field) continue;
    if (field.isInline) Object.assign(value, decode(wire.bytes, message(field.type)!));
    else if (field.isList) ((value[field.jsonName] ??= []) as Json[]).push(decodeOne(wire, field.type));
    else if (field.isMap) {
      const entry = [...fieldsOf(wire.bytes)];
      const name = utf8(entry.find(({ number }) => number === 1)?.bytes ?? new Uint8Array());
      const held = entry.find(({ number }) => number === 2);
      ((value[field.jsonName] ??= {}) as JsonObject)[name] = held ? decodeOne(held, field.type) : "";
    } else {
      const decoded = decodeOne(wire, field.type);
      const isZero = decoded === "" || decoded === 0 || decoded === false || decoded === null;
      if (!isZero || field.isPointer || !field.isOmittedEmpty) value[field.jsonName] = decoded;
    }
  }
  return value;
}

function decodeOne(wire: WireField, type: string): Json {
  switch (type) {
    case "s":
      return utf8(wire.bytes);
    case "i":
      return Number(BigInt.asIntN(64, wire.value));
    case "b":
      return wire.value !== 0n;
    case "y":
      return Buffer.from(wire.bytes).toString("base64");
    case "t":
    case "u":
      return decodeTime(wire.bytes, type);
    case "q":
      return utf8([...fieldsOf(wire.bytes)][0]?.bytes ?? new Uint8Array());
    case "x": {
      const parts = [...fieldsOf(wire.bytes)];
      const isText = parts.some(({ number, value }) => number === 1 && value === 1n);
      return isText
        ? utf8(parts.find(({ number }) => number === 3)?.bytes ?? new Uint8Array())
        : Number(BigInt.asIntN(32, parts.find(({ number }) => number === 2)?.value ?? 0n));
    }
    case "r": {
      const raw = [...fieldsOf(wire.bytes)][0]?.bytes;
      return raw && raw.length > 0 ? (JSON.parse(utf8(raw)) as Json) : null;
    }
    case "e":
      return [...fieldsOf(wire.bytes)].map((item) => utf8(item.bytes));
    default:
      return decode(wire.bytes, message(type)!);
  }
}

function decodeTime(bytes: Uint8Array, type: "t" | "u"): Json {
  const parts = [...fieldsOf(bytes)];
  if (parts.length === 0) return null;
  const at = (number: number) => Number(BigInt.asIntN(64, parts.find((part) => part.number === number)?.value ?? 0n));
  const whole = new Date(at(1) * 1000).toISOString().slice(0, 19);
  return type === "t" ? `${whole}Z` : `${whole}.${String(Math.floor(at(2) / 1000)).padStart(6, "0")}Z`;
}

interface WireField {
  readonly number: number;
  readonly value: bigint;
  readonly bytes: Uint8Array;
}

/** The fields of a message in the order they stand. @throws {SyntaxError} on bytes that are no protobuf. */
export function* fieldsOf(bytes: Uint8Array): Generator<WireField> {
  let at = 0;
  const readVarint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined || shift > 63n) throw new SyntaxError("protobuf ends in a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(readVarint());
    const number = Math.floor(tag / 8);
    const wireType = tag % 8;
    if (wireType === 0) yield { number, value: readVarint(), bytes: new Uint8Array() };
    else {
      const size = wireType === 2 ? Number(readVarint()) : wireType === 1 ? 8 : wireType === 5 ? 4 : -1;
      if (size < 0 || at + size > bytes.length) throw new SyntaxError("protobuf field ends beyond its message");
      yield { number, value: 0n, bytes: bytes.subarray(at, at + size) };
      at += size;
    }
  }
}

const utf8 = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
