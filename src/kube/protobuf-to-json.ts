/**
 * An object in protobuf as the JSON that the API server would have written,
 * for people to read. By the field tables of Kubernetes' own sources: fields
 * that they do not know are left out, so what is made here is shown and never
 * served.
 */

import { MalformedError } from "./codec.ts";
import { FIELDS } from "./fields.ts";
import { fieldText, fieldsOf, openEnvelope, type Field } from "./protobuf-wire.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

interface Known {
  readonly name: string;
  readonly number: number;
  readonly type: string;
  readonly isList: boolean;
  readonly isMap: boolean;
  /** Shown though it is zero. */
  readonly isAlways: boolean;
  readonly isInline: boolean;
}

let known: ReadonlyMap<string, ReadonlyMap<number, Known>> | undefined;

/** Read when first asked for: a node that nobody looks at needs no tables. */
function messages(): ReadonlyMap<string, ReadonlyMap<number, Known>> {
  known ??= new Map(
    FIELDS.trim()
      .split("\n")
      .map((line) => {
        const [name = "", ...fields] = line.split(" ");
        const parsed = fields.map(knownOf);
        return [name, new Map(parsed.map((field) => [field.number, field]))];
      }),
  );
  return known;
}

function knownOf(text: string): Known {
  const [name = "", number, type = "", flags = ""] = text.split(":");
  const [marks = ""] = flags.split("~");
  return {
    name,
    number: Number(number),
    type: type.replace(/^[*%]/, ""),
    isList: type.startsWith("*"),
    isMap: type.startsWith("%"),
    isAlways: marks.includes("p") || !marks.includes("o"),
    isInline: marks.includes("^"),
  };
}

/**
 * The object in an answer's body.
 *
 * @returns undefined for kinds that the tables do not have.
 * @throws {MalformedError} on bytes that are no object.
 */
export function protobufToJson(body: Uint8Array): JsonObject | undefined {
  const { kind, apiVersion, start, end } = openEnvelope(body, 0, body.length);
  const [group] = apiVersion.includes("/") ? apiVersion.split("/") : [""];
  const prefix = group === "" ? "" : `${group!.split(".")[0]}.`;
  const message = messages().get(`${prefix}${kind}`);
  return message === undefined ? undefined : { kind, apiVersion, ...decode(body, start, end, message) };
}

function decode(bytes: Uint8Array, from: number, to: number, message: ReadonlyMap<number, Known>): JsonObject {
  const object: JsonObject = {};
  for (const wire of fieldsOf(bytes, from, to)) {
    const field = message.get(wire.number);
    if (field === undefined) continue;
    if (field.isInline) Object.assign(object, decode(bytes, wire.start, wire.end, messages().get(field.type)!));
    else if (field.isList) ((object[field.name] ??= []) as Json[]).push(valueOf(bytes, wire, field.type));
    else if (field.isMap) {
      const [name, value] = entryOf(bytes, wire, field.type);
      ((object[field.name] ??= {}) as JsonObject)[name] = value;
    } else {
      const value = valueOf(bytes, wire, field.type);
      const isZero = value === "" || value === 0 || value === false || value === null;
      if (!isZero || field.isAlways) object[field.name] = value;
    }
  }
  return object;
}

function entryOf(bytes: Uint8Array, wire: Field, type: string): readonly [string, Json] {
  let name = "";
  let value: Json = "";
  for (const part of fieldsOf(bytes, wire.start, wire.end)) {
    if (part.number === 1) name = fieldText(bytes, part);
    else if (part.number === 2) value = valueOf(bytes, part, type);
  }
  return [name, value];
}

function valueOf(bytes: Uint8Array, wire: Field, type: string): Json {
  switch (type) {
    case "s":
      return fieldText(bytes, wire);
    case "i":
      return integerOf(bytes, wire);
    case "b":
      return wire.value !== 0;
    case "y":
      return Buffer.from(bytes.subarray(wire.start, wire.end)).toString("base64");
    case "t":
    case "u":
      return timeOf(bytes, wire, type);
    case "q":
      return textIn(bytes, wire, 1);
    case "x":
      return intOrString(bytes, wire);
    case "r":
      return rawOf(textIn(bytes, wire, 1));
    case "e":
      return [...fieldsOf(bytes, wire.start, wire.end)].map((part) => fieldText(bytes, part));
    default: {
      const message = messages().get(type);
      if (message === undefined) throw new MalformedError(`Cannot show an object: no fields of ${type} are known`);
      return decode(bytes, wire.start, wire.end, message);
    }
  }
}

/** Negative numbers take ten bytes, as two's complement in 64 bits. */
function integerOf(bytes: Uint8Array, { start, end, value }: Field): number {
  if (end - start < 10) return value;
  let bits = 0n;
  for (let i = start; i < end; i++) bits |= BigInt(bytes[i]! & 0x7f) << BigInt(7 * (i - start));
  return Number(BigInt.asIntN(64, bits));
}

function textIn(bytes: Uint8Array, wire: Field, number: number): string {
  for (const part of fieldsOf(bytes, wire.start, wire.end))
    if (part.number === number && part.wireType === 2) return fieldText(bytes, part);
  return "";
}

function numberIn(bytes: Uint8Array, wire: Field, number: number): number {
  for (const part of fieldsOf(bytes, wire.start, wire.end))
    if (part.number === number && part.wireType === 0) return integerOf(bytes, part);
  return 0;
}

/** Seconds and nanoseconds; MicroTime shows six digits. */
function timeOf(bytes: Uint8Array, wire: Field, type: "t" | "u"): Json {
  if (wire.start === wire.end) return null;
  const whole = new Date(numberIn(bytes, wire, 1) * 1_000).toISOString().slice(0, 19);
  if (type === "t") return `${whole}Z`;
  return `${whole}.${String(Math.floor(numberIn(bytes, wire, 2) / 1_000)).padStart(6, "0")}Z`;
}

function intOrString(bytes: Uint8Array, wire: Field): Json {
  return numberIn(bytes, wire, 1) === 1 ? textIn(bytes, wire, 3) : numberIn(bytes, wire, 2);
}

function rawOf(text: string): Json {
  if (text === "") return null;
  try {
    return JSON.parse(text) as Json;
  } catch {
    return null;
  }
}
