/**
 * Kubernetes' types as data, and objects brought into the form Go prints.
 *
 * `normalise` orders keys as Go's structs do, sorts maps, leaves out what Go
 * would leave out and adds the empty structs that Go always prints. Fields the
 * tables do not know are kept, after the known ones: the stand-in plays an API
 * server newer than its clients.
 */

import { FIELDS } from "../../kube/fields.ts";

/** Any JSON value; objects are handled as plain records throughout. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** An object of a Kubernetes kind, as JSON has it. */
export type JsonObject = { [key: string]: Json };

/** One field of a message. */
export interface Field {
  readonly jsonName: string;
  readonly number: number;
  /** A scalar's letter or a message's name; see fields.ts. */
  readonly type: string;
  readonly isList: boolean;
  readonly isMap: boolean;
  readonly isPointer: boolean;
  readonly isOmittedEmpty: boolean;
  readonly isInline: boolean;
  /** undefined: replaced whole; "": merged as a set of values; else merged by this key. */
  readonly mergeKey: string | undefined;
}

/** A message: its fields as JSON orders them. */
export interface Message {
  readonly name: string;
  readonly fields: readonly Field[];
}

const messages = new Map<string, Message>();
for (const line of FIELDS.trim().split("\n")) {
  const [name = "", ...fields] = line.split(" ");
  messages.set(name, { name, fields: fields.map(parseField) });
}

function parseField(text: string): Field {
  const [jsonName = "", number, rawType = "", flags = ""] = text.split(":");
  const [marks = "", mergeKey] = flags.split("~");
  return {
    jsonName,
    number: Number(number),
    type: rawType.replace(/^[*%]/, ""),
    isList: rawType.startsWith("*"),
    isMap: rawType.startsWith("%"),
    isPointer: marks.includes("p"),
    isOmittedEmpty: marks.includes("o"),
    isInline: marks.includes("^"),
    mergeKey,
  };
}

/** The message of that name; undefined for scalars and unknown types. */
export function message(name: string): Message | undefined {
  return messages.get(name);
}

/** The message of a kind, undefined for custom resources and kinds not in the tables. */
export function messageOf(group: string, kind: string): Message | undefined {
  const prefix = group === "" ? "" : `${group.split(".")[0]}.`;
  const meta = group === "meta.k8s.io" || (group === "" && /^(Status|DeleteOptions)$/.test(kind));
  return messages.get(meta ? `meta.${kind}` : prefix + kind);
}

/** An object of a kind with everything unset, as it stands in a bookmark. */
export function zeroObject(of: Message | undefined): JsonObject {
  const zero: JsonObject = {};
  for (const field of of?.fields ?? []) {
    const value = zeroValue(field);
    if (value !== undefined) zero[field.jsonName] = value;
  }
  return zero;
}

function zeroValue(field: Field): Json | undefined {
  const inner = messages.get(field.type);
  if (inner && !field.isPointer && !field.isList && !field.isMap && !field.isInline) return zeroObject(inner);
  if (field.isOmittedEmpty || field.isInline) return undefined;
  if (field.isPointer || field.isList || field.isMap || "tuyr".includes(field.type)) return null;
  return { s: "", b: false, i: 0, q: "0", x: 0 }[field.type] ?? null;
}

/** The value as Go would print it; `of` undefined means a custom resource, whose keys are sorted. */
export function normalise(value: Json, of: Message | undefined): Json {
  if (!of) return sortKeys(value);
  if (!isObject(value)) return value;
  const ordered: JsonObject = {};
  const known = new Set<string>();
  orderInto(ordered, value, of, known);
  for (const key of Object.keys(value)) if (!known.has(key)) ordered[key] = value[key]!;
  return ordered;
}

function orderInto(ordered: JsonObject, value: JsonObject, of: Message, known: Set<string>): void {
  for (const field of of.fields) {
    const inner = messages.get(field.type);
    if (field.isInline) {
      if (inner) orderInto(ordered, value, inner, known);
      continue;
    }
    known.add(field.jsonName);
    const given = value[field.jsonName];
    if (
      given === undefined ||
      given === null ||
      (field.isOmittedEmpty && !field.isPointer && isEmpty(given) && !(inner && !field.isList))
    ) {
      const zero = zeroValue(field);
      if (zero !== undefined) ordered[field.jsonName] = zero;
    } else if (field.isList && Array.isArray(given))
      ordered[field.jsonName] = given.map((item) => normaliseOne(item, inner));
    else if (field.isMap && isObject(given)) ordered[field.jsonName] = sortKeys(given);
    else ordered[field.jsonName] = normaliseOne(given, inner);
  }
}

const normaliseOne = (value: Json, inner: Message | undefined) => (inner ? normalise(value, inner) : value);

const isEmpty = (value: Json) =>
  value === "" ||
  value === 0 ||
  value === false ||
  (typeof value === "object" && value !== null && Object.keys(value).length === 0);

/** Keys sorted at every depth, as Go prints maps. */
export function sortKeys(value: Json): Json {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sortKeys(value[key]!)]),
  );
}

/** Whether the value is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The object at `key`, or an empty one. */
export function child(value: JsonObject | undefined, key: string): JsonObject {
  const found = value?.[key];
  return isObject(found) ? found : {};
}

/** The text at a dotted path, "" if there is none; numbers and booleans as text. */
export function textAt(value: Json | undefined, path: string): string {
  let at: Json | undefined = value;
  for (const key of path.split(".")) at = isObject(at) ? at[key] : undefined;
  return at === undefined || at === null || typeof at === "object" ? "" : String(at);
}
