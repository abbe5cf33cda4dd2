/**
 * The three patch formats, and server-side apply taken as a merge.
 *
 * Strategic merge follows the merge keys in the field tables and honours
 * `$patch: delete|replace`, `$deleteFromPrimitiveList/...`, `$setElementOrder`
 * and `$retainKeys`. A merged list is put in order as Go does it (`inOrder`), so
 * that of two items with one merge key, as a node's addresses have, the later
 * one moves up to the first.
 *
 * Source: RFC 6902 (JSON patch), RFC 7386 (merge patch).
 */

import { Failure, badRequest, statusObject, unsupportedMediaType } from "./failure.ts";
import { isObject, message, type Field, type Json, type JsonObject, type Message } from "./schema.ts";

const STRATEGIC = "application/strategic-merge-patch+json";
const ACCEPTED = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/** Whether the patch may create the object: server-side apply. */
export const isApply = (contentType: string) => contentType.startsWith("application/apply-patch");

/**
 * The object with the patch applied; the object itself stays as it is.
 *
 * @param of the field table; undefined for custom resources, which refuse strategic merge.
 * @throws {Failure} 415, 400 or 422.
 */
export function applyPatch(object: JsonObject, contentType: string, patch: Json, of: Message | undefined): JsonObject {
  const type = contentType.split(";")[0]!.trim();
  if (type === "application/json-patch+json") return jsonPatch(object, patch);
  if (!isObject(patch)) throw badRequest("patch is not an object");
  if (type === "application/merge-patch+json") return mergePatch(object, patch) as JsonObject;
  if (isApply(type)) return of ? strategicMerge(object, patch, of) : (mergePatch(object, patch) as JsonObject);
  if (type === STRATEGIC && of) return strategicMerge(object, patch, of);
  const accepted = of ? [...ACCEPTED, STRATEGIC] : ACCEPTED;
  throw unsupportedMediaType(
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(", ")}`,
  );
}

function mergePatch(target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const merged: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key] ?? null, value);
  }
  return merged;
}

function strategicMerge(target: JsonObject, patch: JsonObject, of: Message | undefined): JsonObject {
  if (patch["$patch"] === "replace") return withoutDirectives(patch);
  if (patch["$patch"] === "delete") return {};
  const merged: JsonObject = { ...target };
  const retained = patch["$retainKeys"];
  if (Array.isArray(retained)) for (const key of Object.keys(merged)) if (!retained.includes(key)) delete merged[key];
  for (const [key, value] of Object.entries(patch)) {
    const gone = /^\$deleteFromPrimitiveList\/(.+)$/.exec(key)?.[1];
    if (gone !== undefined && Array.isArray(value))
      merged[gone] = (Array.isArray(merged[gone]) ? merged[gone] : []).filter((item) => !value.includes(item));
    if (key.startsWith("$")) continue;
    if (value === null) delete merged[key];
    else merged[key] = mergeField(merged[key], value, fieldOf(of, key));
  }
  for (const [key, order] of Object.entries(patch)) {
    const name = /^\$setElementOrder\/(.+)$/.exec(key)?.[1];
    const list = name === undefined ? undefined : merged[name];
    const mergeKey = name === undefined ? undefined : fieldOf(of, name)?.mergeKey;
    if (!Array.isArray(list) || !Array.isArray(order) || mergeKey === undefined) continue;
    merged[name!] = inOrder(list, order, asList(target[name!]), mergeKey);
  }
  return merged;
}

function mergeField(target: Json | undefined, value: Json, field: Field | undefined): Json {
  if (isObject(value)) return strategicMerge(isObject(target) ? target : {}, value, field && message(field.type));
  if (!Array.isArray(value) || field?.mergeKey === undefined) return value;
  // What was not there is taken as it comes, directives aside.
  if (target === undefined) return value.filter((item) => !hasDirective(item));
  const present = asList(target);
  if (field.mergeKey === "") return [...present, ...value.filter((item) => !present.includes(item))];
  return mergeList(present, value, field.mergeKey, message(field.type));
}

function mergeList(present: Json[], patch: Json[], mergeKey: string, of: Message | undefined): Json[] {
  const changes = patch.filter((item) => !hasDirective(item));
  if (patch.some((item) => isObject(item) && item["$patch"] === "replace"))
    return inOrder(changes, [], changes, mergeKey);
  const merged = [...present];
  for (const item of patch) {
    if (!isObject(item)) continue;
    const at = merged.findIndex((one) => isObject(one) && one[mergeKey] === item[mergeKey]);
    if (item["$patch"] === "delete") merged.splice(at, at >= 0 ? 1 : 0);
    else if (at >= 0) merged[at] = strategicMerge(merged[at] as JsonObject, item, of);
    else merged.push(withoutDirectives(item));
  }
  return inOrder(merged, changes, present, mergeKey);
}

/**
 * What the patch speaks of in its order, what the server alone has in its own,
 * and that before the first of the patch's that it preceded.
 *
 * Source: k8s.io/apimachinery/pkg/util/strategicpatch, normalizeElementOrder.
 */
function inOrder(merged: Json[], order: Json[], serverOrder: Json[], mergeKey: string): Json[] {
  const keyOf = (item: Json) => (isObject(item) ? item[mergeKey] : item);
  const placeIn = (list: Json[], item: Json) => list.findIndex((one) => keyOf(one) === keyOf(item));
  const by = (list: Json[]) => (a: Json, b: Json) => placeIn(list, a) - placeIn(list, b);
  const named = merged.filter((item) => placeIn(order, item) >= 0).toSorted(by(order));
  const others = merged.filter((item) => placeIn(order, item) < 0).toSorted(by(serverOrder));
  const result: Json[] = [];
  for (const item of named) {
    const place = placeIn(serverOrder, item);
    while (others.length > 0 && place >= 0 && placeIn(serverOrder, others[0]!) < place) result.push(others.shift()!);
    result.push(item);
  }
  return [...result, ...others];
}

const asList = (value: Json | undefined): Json[] => (Array.isArray(value) ? value : []);
const hasDirective = (item: Json) => isObject(item) && item["$patch"] !== undefined;

const withoutDirectives = (value: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(value).filter(([key]) => !key.startsWith("$")));

/** A field by its JSON name, also among the inlined ones. */
function fieldOf(of: Message | undefined, jsonName: string): Field | undefined {
  for (const field of of?.fields ?? []) {
    if (field.jsonName === jsonName) return field;
    const inner = field.isInline ? fieldOf(message(field.type), jsonName) : undefined;
    if (inner) return inner;
  }
  return undefined;
}

function jsonPatch(object: JsonObject, patch: Json): JsonObject {
  if (!Array.isArray(patch)) throw badRequest("cannot unmarshal object into Go value of type jsonpatch.Patch");
  const result = structuredClone(object);
  for (const operation of patch) if (isObject(operation)) applyOperation(result, operation);
  return result;
}

function applyOperation(root: JsonObject, operation: JsonObject): void {
  const path = String(operation["path"]);
  const value = structuredClone(operation["value"] ?? null);
  switch (operation["op"]) {
    case "test":
      if (!Bun.deepEquals(read(root, path), value))
        throw unprocessable("the server rejected our request due to an error in our request", path);
      return;
    case "remove":
      return remove(root, path);
    case "add":
      return write(root, path, value, true);
    case "replace":
      if (read(root, path) === undefined)
        throw unprocessable("the server rejected our request due to an error in our request", path);
      return write(root, path, value, false);
    case "copy":
      return write(root, path, structuredClone(read(root, String(operation["from"])) ?? null), true);
    case "move": {
      const moved = read(root, String(operation["from"])) ?? null;
      remove(root, String(operation["from"]));
      return write(root, path, moved, true);
    }
    default:
      throw badRequest(`Unexpected kind: ${String(operation["op"])}`);
  }
}

const unprocessable = (text: string, path: string) =>
  new Failure({ ...statusObject(422, "Invalid", text), details: { causes: [{ message: `path ${path}` }] } });
const pointer = (path: string) =>
  path
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));

function parentOf(root: Json, path: string): [Json | undefined, string] {
  const parts = pointer(path);
  const last = parts.pop() ?? "";
  return [parts.reduce<Json | undefined>(step, root), last];
}

function step(at: Json | undefined, part: string): Json | undefined {
  if (Array.isArray(at)) return at[Number(part)];
  return isObject(at) ? at[part] : undefined;
}

const read = (root: Json, path: string): Json | undefined => pointer(path).reduce<Json | undefined>(step, root);

function write(root: Json, path: string, value: Json, isInsert: boolean): void {
  const [parent, last] = parentOf(root, path);
  if (Array.isArray(parent)) {
    const at = last === "-" ? parent.length : Number(last);
    parent.splice(at, isInsert ? 0 : 1, value);
  } else if (isObject(parent)) parent[last] = value;
  else throw unprocessable("the server rejected our request due to an error in our request", path);
}

function remove(root: Json, path: string): void {
  const [parent, last] = parentOf(root, path);
  if (Array.isArray(parent) && Number(last) < parent.length) parent.splice(Number(last), 1);
  else if (isObject(parent) && last in parent) delete parent[last];
  else throw unprocessable("the server rejected our request due to an error in our request", path);
}
