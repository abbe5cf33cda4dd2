/**
 * A patch applied to a Pod or a Node, as the API server would have applied it.
 *
 * Kubelet reports its node and its pods with strategic merge patches only, so
 * while the link is cut this decides what kubelet reads back. Maps merge, null
 * deletes, lists merge by key where `merge-keys.ts` says so. A directive in the
 * patch says otherwise:
 *
 *   "$patch": "replace" | "delete"       in a map or in an item of a list
 *   "$retainKeys": [field…]              all other fields of this map go
 *   "$deleteFromPrimitiveList/F": [v…]   these scalars leave the list F
 *   "$setElementOrder/F": [item…]        the order of F; an item that only the
 *                                        server has comes right before the first
 *                                        of these that it preceded
 *
 * The code follows Go's step by step, oddities included, since kubelet computes
 * its next patch from what it believes the server made of the last one. Three
 * things differ on purpose. Directives that Go leaves lying in the result go, as
 * the API server drops them when it decodes its result into the type. Where
 * Go's outcome hangs on the random order of its maps (one list both added to and
 * deleted from), here the deletion comes first. And 1.0 is the integer 1, also
 * where items are compared (`exact-json.ts`). What the API server does after
 * merging is not done here: defaults, validation, and cutting podIPs to podIP
 * where its first entry is another.
 *
 * Invariant: neither argument is changed, and no key (`__proto__`) reaches a
 * prototype: the work is done on Maps.
 * Source: k8s.io/apimachinery/pkg/util/strategicpatch 0.37; RFC 7386.
 */
import type { Json } from "./exact-json.ts";
import { inOrder, partition, withoutRepeats } from "./patch-order.ts";
import {
  asList,
  asMap,
  DELETE_FROM_LIST,
  type Fields,
  findItem,
  goType,
  isSame,
  keyOf,
  listAt,
  PATCH,
  PatchError,
  RETAIN_KEYS,
  scalarSet,
  SET_ORDER,
  toJson,
  toValue,
  type Value,
} from "./patch-values.ts";
import { type FieldRule, type FieldRules, MERGE_KEYS, ruleOf } from "./merge-keys.ts";

/**
 * Applies a strategic merge patch.
 *
 * @param original the object as it stands; null counts as empty.
 * @param patch an object; null changes nothing.
 * @param kind decides the list merge keys.
 * @returns a new value that shares nothing with the arguments.
 * @throws {PatchError} if either is no object, or the patch breaks the format.
 */
export function strategicMerge(original: Json, patch: Json, kind: "Pod" | "Node"): Json {
  const merged = mergeMap(topLevel(original, "object"), topLevel(patch, "patch"), MERGE_KEYS[kind]);
  return toJson(merged);
}

/**
 * Applies a JSON merge patch, RFC 7386: maps merge, null deletes, all else replaces.
 *
 * @returns a new value that shares nothing with the arguments.
 * @throws {PatchError} if one of them is nested beyond reason.
 */
export function jsonMerge(original: Json, patch: Json): Json {
  return toJson(jsonMerged(toValue(original), toValue(patch)), false);
}

function jsonMerged(original: Value, patch: Value): Value {
  if (!(patch instanceof Map)) return patch;
  const merged: Fields = original instanceof Map ? original : new Map();
  for (const [key, value] of patch) {
    if (value === null) merged.delete(key);
    else merged.set(key, jsonMerged(merged.get(key) ?? null, value));
  }
  return merged;
}

function mergeMap(original: Fields, patch: Fields, rules: FieldRules | undefined): Fields {
  const directive = patch.get(PATCH);
  if (directive !== undefined) return mapDirective(directive, patch);
  retainKeys(original, patch);
  mergeOrderedLists(original, patch, rules);
  for (const [key, value] of deletionsFirst(patch)) mergeField(original, key, value, rules);
  return original;
}

function mapDirective(directive: Value, patch: Fields): Fields {
  if (directive === "delete") return new Map();
  if (directive !== "replace") throw unknownDirective();
  patch.delete(PATCH);
  return patch;
}

/** What `$retainKeys` does not name goes from the object, and must not be in the patch. */
function retainKeys(original: Fields, patch: Fields): void {
  const listed = patch.get(RETAIN_KEYS);
  if (listed === undefined) return;
  patch.delete(RETAIN_KEYS);
  if (!Array.isArray(listed)) throw new PatchError(`${RETAIN_KEYS} is not a list`, 400);
  const retained = scalarSet(listed);
  for (const [key, value] of patch) {
    const isDirective = key.startsWith(DELETE_FROM_LIST) || key.startsWith(SET_ORDER);
    if (value === null || isDirective || retained.has(key)) continue;
    throw new PatchError(`the field "${key}" is not in its ${RETAIN_KEYS}`, 400);
  }
  for (const key of [...original.keys()]) if (!retained.has(key)) original.delete(key);
}

/** The lists with a `$setElementOrder`: merged, put in order, and taken out of the patch. */
function mergeOrderedLists(original: Fields, patch: Fields, rules: FieldRules | undefined): void {
  for (const [directive, order] of [...patch]) {
    if (!directive.startsWith(SET_ORDER)) continue;
    patch.delete(directive);
    const wanted = asList(order, directive);
    const key = fieldOf(directive, SET_ORDER);
    const merged = mergeOrderedList(listAt(original, key), listAt(patch, key), wanted, ruleOf(rules, key), key);
    if (merged === undefined) continue;
    original.set(key, merged);
    patch.delete(key);
  }
}

function mergeOrderedList(
  original: Value[] | undefined,
  patch: Value[] | undefined,
  wanted: Value[],
  rule: FieldRule,
  key: string,
): Value[] | undefined {
  const mergeKey = rule.mergeKey ?? "";
  if (patch !== undefined) checkOrder(patch, wanted, mergeKey, key);
  const merged = original === undefined ? patch?.flatMap(withoutDirectives) : mergedWith(original, patch, rule, key);
  if (merged === undefined) return undefined;
  const parts = partition(merged, wanted, mergeKey);
  const areMaps = haveMaps([...(original ?? []), ...(patch ?? [])], key);
  return inOrder(parts, wanted, original ?? [], mergeKey, areMaps);
}

function mergedWith(original: Value[], patch: Value[] | undefined, rule: FieldRule, key: string): Value[] {
  return patch === undefined ? original : mergeList(original, patch, rule, key, false);
}

/** The patch's items must all be in the wanted order, and in that order. */
function checkOrder(patch: Value[], wanted: Value[], mergeKey: string, key: string): void {
  if (patch.length === 0 || wanted.length === 0) return;
  const present = mergeKey === "" ? patch : patch.filter((item) => asMap(item).get(PATCH) !== "delete");
  let next = 0;
  for (const place of wanted) {
    while (next < present.length && hasDirective(present[next])) next++;
    const item = present[next];
    if (item === undefined) return;
    if (mergeKey === "" ? isSame(item, place) : isSame(keyOf(item, mergeKey), keyOf(place, mergeKey))) next++;
  }
  if (next < present.length) throw new PatchError(`the order of "${key}" is not that of its ${SET_ORDER}`);
}

function mergeField(original: Fields, patchKey: string, value: Value, rules: FieldRules | undefined): void {
  const isDeletion = patchKey.startsWith(DELETE_FROM_LIST);
  const key = (isDeletion && fieldOf(patchKey, DELETE_FROM_LIST)) || patchKey;
  if (value === null) return void original.delete(key);
  const present = original.get(key);
  if (present === undefined || goType(present) !== goType(value)) {
    if (!isDeletion) setOrDelete(original, key, withoutDirectives(withoutNulls(value)));
    return;
  }
  const rule = ruleOf(rules, key);
  if (present instanceof Map) original.set(key, mergeMap(present, asMap(value), rule.fields));
  else if (Array.isArray(present)) original.set(key, mergeList(present, asList(value, key), rule, key, isDeletion));
  else original.set(key, value);
}

/** @param original its first items become what Go leaves in the array they share, see `mergeItems`. */
function mergeList(original: Value[], patch: Value[], rule: FieldRule, key: string, isDeletion: boolean): Value[] {
  if (rule.mergeKey === undefined && !isDeletion) return patch;
  if (original.length === 0 && patch.length === 0) return original;
  const mergeKey = rule.mergeKey ?? "";
  if (haveMaps([...original, ...patch], key)) {
    if (mergeKey === "") throw new PatchError(`the list "${key}" has no merge key`);
    return mergeListOfMaps(original, patch, mergeKey, rule.fields);
  }
  if (isDeletion) {
    const deleted = new Set(patch);
    return original.filter((item) => !deleted.has(item));
  }
  const merged = withoutRepeats([...original, ...patch]);
  return inOrder(partition(merged, patch, mergeKey), patch, original, mergeKey, false);
}

function mergeListOfMaps(original: Value[], patch: Value[], mergeKey: string, rules: FieldRules | undefined): Value[] {
  const { left, added, isReplaced } = applyItemDirectives(original, patch, mergeKey);
  const base = isReplaced ? added : original.slice(0, left);
  const changes = isReplaced ? [] : added;
  const merged = mergeItems(isReplaced ? [] : original, base, changes, mergeKey, rules);
  return inOrder(partition(merged, changes, mergeKey), changes, base, mergeKey, true);
}

/**
 * Deletes what `$patch: delete` names, and tells what remains to be merged.
 *
 * As in Go, what follows a deleted item moves up within the same array, and the
 * places left over at its end keep what was there.
 */
function applyItemDirectives(original: Value[], patch: Value[], mergeKey: string) {
  const added: Value[] = [];
  let left = original.length;
  let isReplaced = false;
  for (const item of patch) {
    const directive = asMap(item).get(PATCH);
    if (directive === undefined) added.push(item);
    else if (directive === "replace") isReplaced = true;
    else if (directive === "delete") left = deleteMatching(original, left, mergeKey, keyOf(item, mergeKey));
    else throw unknownDirective();
  }
  return { left, added, isReplaced };
}

function deleteMatching(list: Value[], length: number, mergeKey: string, value: Value): number {
  let left = length;
  for (;;) {
    const at = findItem(list.slice(0, left), mergeKey, value);
    if (at === -1) return left;
    list.copyWithin(at, at + 1, left);
    left--;
  }
}

/**
 * Merges each change into its item, or appends it.
 *
 * @param shared the array of the original list. Go appends in place while there
 *   is room, so that after deletions the new items show up in the list by which
 *   `$setElementOrder` later places the server's own; the order depends on it.
 */
function mergeItems(
  shared: Value[],
  base: readonly Value[],
  changes: readonly Value[],
  mergeKey: string,
  rules: FieldRules | undefined,
): Value[] {
  const merged = [...base];
  for (const change of changes) {
    const fields = asMap(change);
    const at = findItem(merged, mergeKey, keyOf(change, mergeKey));
    const present = merged[at];
    if (present instanceof Map) {
      merged[at] = mergeMap(present, fields, rules);
      continue;
    }
    if (merged.length < shared.length) shared[merged.length] = fields;
    merged.push(fields);
  }
  return merged;
}

/** Whether the items are maps; all must be of one type, and no list. */
function haveMaps(items: readonly Value[], key: string): boolean {
  const types = new Set(items.map(goType));
  const [type] = types;
  if (types.size !== 1 || type === "list" || type === "null")
    throw new PatchError(`the items of "${key}" are not maps alone or scalars of one type alone`);
  return type === "map";
}

/** A value as it enters the object: `$patch` takes the map that bears it along. Empty when nothing is left. */
function withoutDirectives(value: Value): [Value] | [] {
  if (Array.isArray(value)) return [value.flatMap(withoutDirectives)];
  if (!(value instanceof Map)) return [value];
  if (value.has(PATCH)) return [];
  for (const [key, field] of [...value]) setOrDelete(value, key, withoutDirectives(field));
  return [value];
}

function setOrDelete(fields: Fields, key: string, kept: [Value] | []): void {
  const [value] = kept;
  if (value === undefined) fields.delete(key);
  else fields.set(key, value);
}

function withoutNulls(value: Value): Value {
  if (Array.isArray(value)) value.forEach(withoutNulls);
  if (!(value instanceof Map)) return value;
  for (const [key, field] of [...value]) {
    if (field === null) value.delete(key);
    else withoutNulls(field);
  }
  return value;
}

/** Deletions from a list, then the rest: Go takes them as they come, in random order. */
function deletionsFirst(patch: Fields): [string, Value][] {
  const isDeletion = ([key]: [string, Value]) => key.startsWith(DELETE_FROM_LIST);
  const fields = [...patch];
  return [...fields.filter(isDeletion), ...fields.filter((field) => !isDeletion(field))];
}

/** The F of `$directive/F`. */
function fieldOf(directive: string, prefix: string): string {
  if (!directive.startsWith(`${prefix}/`)) throw new PatchError(`"${directive}" names no field`, 400);
  return directive.slice(prefix.length + 1);
}

function hasDirective(item: Value | undefined): boolean {
  return item instanceof Map && item.has(PATCH);
}

function unknownDirective(): PatchError {
  return new PatchError(`a ${PATCH} says neither "delete" nor "replace"`);
}

function topLevel(value: Json, role: string): Fields {
  if (value === null) return new Map();
  const fields = toValue(value);
  if (!(fields instanceof Map)) throw new PatchError(`the ${role} is a ${goType(fields)}, not a map`, 400);
  return fields;
}
