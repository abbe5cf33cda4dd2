/**
 * What patches work on: copies in Maps, Go's view of their types, and the
 * directives of a strategic merge.
 *
 * No key (`__proto__`) reaches a prototype, and nothing given is changed.
 */

import { EdgeError } from "../base/errors.ts";
import type { Json } from "./exact-json.ts";

/** A patch that does not follow the format; becomes 400 or 422. */
export class PatchError extends EdgeError {
  override readonly name = "PatchError";
  readonly code = "BAD_PATCH";

  /**
   * @param problem what is wrong; fields and types, never values.
   * @param statusCode 400 for a malformed directive, 422 for a patch that does not fit the object.
   */
  constructor(
    problem: string,
    readonly statusCode: 400 | 422 = 422,
  ) {
    super(`Cannot apply the patch: ${problem}`);
  }
}

/** Working copy: a Map has no prototype to pollute, and may be changed. */
export type Value = null | boolean | number | bigint | string | Value[] | Fields;
/** A map of it. */
export type Fields = Map<string, Value>;

/** In a map or an item: "replace" or "delete". */
export const PATCH = "$patch";
/** In a map: the fields that stay. */
export const RETAIN_KEYS = "$retainKeys";
/** Beside a list: scalars that leave it. */
export const DELETE_FROM_LIST = "$deleteFromPrimitiveList";
/** Beside a list: its order. */
export const SET_ORDER = "$setElementOrder";

/** Deeper than any Pod or Node by far, shallower than the stack. */
const MAX_DEPTH = 1000;

/** Where in a list the map with this value of its merge key stands; -1 for nowhere. */
export function findItem(list: readonly Value[], mergeKey: string, value: Value): number {
  return list.findIndex((item) => {
    const candidate = asMap(item).get(mergeKey);
    return candidate !== undefined && isSame(candidate, value);
  });
}

/** The merge key's value of an item. @throws {PatchError} */
export function keyOf(item: Value, mergeKey: string): Value {
  const value = asMap(item).get(mergeKey);
  if (value === undefined) throw new PatchError(`an item of a list lacks its merge key "${mergeKey}"`);
  return value;
}

/** Go's == on what JSON holds, which panics on two maps or two lists. */
export function isSame(left: Value, right: Value): boolean {
  if (typeof left === "object" && left !== null && goType(left) === goType(right)) scalar(left);
  return left === right;
}

/** Scalars, to look them up. @throws {PatchError} on maps and lists. */
export function scalarSet(list: readonly Value[]): Set<Value> {
  return new Set(list.map(scalar));
}

/** A value that is neither map nor list. @throws {PatchError} */
export function scalar(value: Value): Value {
  if (typeof value === "object" && value !== null)
    throw new PatchError(`a ${goType(value)} stands where a scalar belongs`);
  return value;
}

/** A field that is a list, if it is there. @throws {PatchError} */
export function listAt(fields: Fields, key: string): Value[] | undefined {
  const value = fields.get(key);
  return value === undefined ? undefined : asList(value, key);
}

/** @throws {PatchError} on what is no list. */
export function asList(value: Value, key: string): Value[] {
  if (!Array.isArray(value)) throw new PatchError(`"${key}" is a ${goType(value)}, not a list`);
  return value;
}

/** @throws {PatchError} on what is no map. */
export function asMap(value: Value): Fields {
  if (!(value instanceof Map)) throw new PatchError(`a ${goType(value)} stands where a map belongs`);
  return value;
}

/** Integers within 64 bits are one type in Go, other numbers another. */
export function goType(value: Value): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "list";
  if (value instanceof Map) return "map";
  if (typeof value === "bigint") return "number";
  return typeof value === "number" && !Number.isSafeInteger(value) ? "float" : typeof value;
}

/** A working copy. @throws {PatchError} when nested beyond reason. */
export function toValue(json: Json, depth = 0): Value {
  if (depth > MAX_DEPTH) throw new PatchError(`nested more than ${MAX_DEPTH} deep`, 400);
  if (isList(json)) return json.map((item) => toValue(item, depth + 1));
  if (typeof json !== "object" || json === null) return json;
  return new Map(Object.entries(json).map(([key, value]) => [key, toValue(value, depth + 1)]));
}

/** `Object.fromEntries` defines fields and never assigns: `__proto__` stays data. */
export function toJson(value: Value, dropsDirectives = true): Json {
  if (Array.isArray(value)) return value.map((item) => toJson(item, dropsDirectives));
  if (!(value instanceof Map)) return value;
  const kept = [...value].filter(([key]) => !(dropsDirectives && isDirective(key)));
  return Object.fromEntries(kept.map(([key, field]) => [key, toJson(field, dropsDirectives)]));
}

function isDirective(key: string): boolean {
  return key === PATCH || key === RETAIN_KEYS || key.startsWith(SET_ORDER) || key.startsWith(DELETE_FROM_LIST);
}

/** `Array.isArray` alone does not tell a readonly list from a map. */
function isList(json: Json): json is readonly Json[] {
  return Array.isArray(json);
}
