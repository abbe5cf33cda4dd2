/**
 * JSON whose numbers stay exact, and whose text is rewritten only where its
 * value is another.
 *
 * A double holds integers up to 2^53, Kubernetes' fields up to 2^63. Read as
 * Go reads a number that it knows no type for, an integer within 64 bits is
 * exact, everything else is a double:
 *
 *   9007199254740991, 1.0, 1e3, -0      number (1, 1000, 0)
 *   9007199254740992 to 2^63 - 1        bigint, and as far below zero
 *   9223372036854775808, 0.1            number, the nearest double
 *   1e400                               refused, as in Go
 *
 * What is written has Go's spelling: numbers alike, and `<`, `>`, `&`, U+2028
 * and U+2029 escaped. One difference: 1.0 counts as the integer 1, which a
 * typed field makes of it anyway.
 *
 * Source: sigs.k8s.io/json UnmarshalCaseSensitivePreserveInts, encoding/json.
 */

import { joinBytes } from "./byte-buffer.ts";
import { MalformedError } from "./codec.ts";
import { elementsOf, membersOf } from "./json-scan.ts";

/** Any JSON value, not to be written to; integers that a double cannot hold are bigint. */
export type Json = null | boolean | number | bigint | string | readonly Json[] | { readonly [key: string]: Json };

type Fields = { readonly [key: string]: Json };

/** One member or element: where it stands, and what it was and shall be. */
interface Part {
  readonly start: number;
  readonly valueStart: number;
  readonly valueEnd: number;
  readonly before: Json;
  readonly after: Json;
}

const MAX_INT64 = 2n ** 63n - 1n;
const MIN_INT64 = -(2n ** 63n);
/** A number that a double may not hold; in a text it costs nothing but time. */
const SUSPECT = /(?:^|[:,[])\s*(?:-0|-?(?:[\d.]{16}|[\d.]+[eE]))/;
const ESCAPED = /[<>&\u2028\u2029]/g;

const encoder = new TextEncoder();
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The value of a JSON text.
 *
 * @throws {MalformedError} if it is not JSON in UTF-8; the message quotes nothing of it.
 */
export function parseExact(bytes: Uint8Array): Json {
  try {
    const text = utf8.decode(bytes);
    // A reviver costs ten times the parsing.
    if (!SUSPECT.test(text)) return JSON.parse(text);
    return (JSON.parse as ParseWithSource)(text, (_key, value, { source }) =>
      typeof value === "number" ? exactNumber(value, source) : value,
    );
  } catch {
    throw new MalformedError(`Cannot read JSON: ${bytes.length} bytes are not valid JSON`);
  }
}

/** The JSON text of a value. */
export function writeExact(value: unknown): string {
  return JSON.stringify(value, (_key, field) => (typeof field === "bigint" ? rawJson(String(field)) : field)).replace(
    ESCAPED,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * The text with another value.
 *
 * Every member and element that is what it was keeps its bytes and its place,
 * also one that is spelled oddly or stands there twice; new members come last.
 *
 * @param bytes one object, from its first byte on.
 * @param before what {@link parseExact} makes of them.
 */
export function rewritten(bytes: Uint8Array, before: Json, after: Json): Uint8Array {
  const pieces: Uint8Array[] = [];
  put(pieces, bytes, 0, bytes.length, before, after);
  return joinBytes(pieces);
}

type ParseWithSource = (
  text: string,
  reviver: (key: string, value: Json, context: { readonly source: string }) => Json,
) => Json;

function exactNumber(value: number, source: string): number | bigint {
  // Adding zero makes 0 of -0.
  if (Number.isSafeInteger(value)) return value + 0;
  if (!Number.isFinite(value)) throw new RangeError("no double");
  if (!/^-?\d+$/.test(source)) return value;
  const exact = BigInt(source);
  return exact >= MIN_INT64 && exact <= MAX_INT64 ? exact : value;
}

function rawJson(text: string): unknown {
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(text);
}

function put(pieces: Uint8Array[], bytes: Uint8Array, from: number, to: number, before: Json, after: Json): void {
  if (Bun.deepEquals(before, after, true)) return void pieces.push(bytes.subarray(from, to));
  if (isList(before) && isList(after)) return putElements(pieces, bytes, from, to, before, after);
  if (isMap(before) && isMap(after)) return putMembers(pieces, bytes, from, to, before, after);
  pieces.push(encoder.encode(writeExact(after)));
}

function putElements(
  pieces: Uint8Array[],
  bytes: Uint8Array,
  from: number,
  to: number,
  before: readonly Json[],
  after: readonly Json[],
): void {
  const parts = elementsOf(bytes, from).map(({ start, end }, index) =>
    index < after.length
      ? { start, valueStart: start, valueEnd: end, before: before[index]!, after: after[index]! }
      : { start, valueEnd: end },
  );
  putParts(pieces, bytes, from, to, parts, after.slice(parts.length).map(writeExact));
}

function putMembers(
  pieces: Uint8Array[],
  bytes: Uint8Array,
  from: number,
  to: number,
  before: Fields,
  after: Fields,
): void {
  const members = membersOf(bytes, from);
  const lastOf = new Map(members.map((member) => [member.key, member]));
  const isKept = (key: string) => Object.hasOwn(after, key);
  const parts = members.map((member) => {
    const { key, start, valueStart, valueEnd } = member;
    if (!isKept(key)) return { start, valueEnd };
    if (lastOf.get(key) === member) return { start, valueStart, valueEnd, before: before[key]!, after: after[key]! };
    // Only the last one counts: the others stay beside it, and go with what it was.
    const isSame = Bun.deepEquals(before[key], after[key], true);
    return isSame ? { start, valueStart, valueEnd, before: null, after: null } : { start, valueEnd };
  });
  const added = Object.keys(after).filter((key) => !lastOf.has(key));
  putParts(
    pieces,
    bytes,
    from,
    to,
    parts,
    added.map((key) => `${writeExact(key)}:${writeExact(after[key])}`),
  );
}

/** @param parts in their order; one without `after` goes. */
function putParts(
  pieces: Uint8Array[],
  bytes: Uint8Array,
  from: number,
  to: number,
  parts: readonly (Part | { readonly start: number; readonly valueEnd: number })[],
  added: readonly string[],
): void {
  let isFirst = true;
  // Up to the first part: the bracket and what may be behind it.
  pieces.push(bytes.subarray(from, parts[0]?.start ?? from + 1));
  parts.forEach((part, index) => {
    if (!("after" in part)) return;
    const previous = parts[index - 1];
    // Behind one that goes, too: what stood between them is the comma, and the layout around it.
    if (!isFirst) pieces.push(bytes.subarray(previous!.valueEnd, part.start));
    isFirst = false;
    pieces.push(bytes.subarray(part.start, part.valueStart));
    put(pieces, bytes, part.valueStart, part.valueEnd, part.before, part.after);
  });
  for (const text of added) {
    pieces.push(encoder.encode(isFirst ? text : `,${text}`));
    isFirst = false;
  }
  pieces.push(bytes.subarray(parts.at(-1)?.valueEnd ?? from + 1, to));
}

/** `Array.isArray` alone does not tell a readonly list from a map. */
function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function isMap(value: Json): value is Fields {
  return typeof value === "object" && value !== null && !isList(value);
}
