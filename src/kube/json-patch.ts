/**
 * A JSON patch (RFC 6902), as the API server applies one.
 *
 * One operation after the other; one that does not fit refuses the whole.
 * As evanphx/json-patch has it, which the API server uses: a `test` for null
 * passes where nothing stands.
 *
 * Invariant: the document is not changed, and no key (`__proto__`) reaches a prototype.
 * Source: RFC 6902, RFC 6901; k8s.io/apiserver pkg/endpoints/handlers/patch.go.
 */

import * as v from "valibot";
import type { Json } from "./exact-json.ts";
import { PatchError } from "./patch-values.ts";

/** As many as the API server takes. */
const MAX_OPERATIONS = 10_000;
const operationSchema = v.looseObject({
  op: v.picklist(["add", "remove", "replace", "move", "copy", "test"]),
  path: v.string(),
  from: v.optional(v.string()),
});

type Operation = v.InferOutput<typeof operationSchema>;
type Node = null | boolean | number | bigint | string | Node[] | Map<string, Node>;

/**
 * The document after the patch.
 *
 * @throws {PatchError} 400 for what is no patch, 422 for an operation that does not fit the document.
 */
export function jsonPatched(document: Json, patch: Json): Json {
  const operations = v.safeParse(v.array(operationSchema), patch);
  if (!operations.success || operations.output.length > MAX_OPERATIONS)
    throw new PatchError("it is not a list of JSON patch operations", 400);
  // A holder around the document, so that "" names a place like any other.
  const root = new Map([["", toNode(document)]]);
  for (const operation of operations.output) apply(root, operation);
  return toJson(root.get("")!);
}

function apply(root: Map<string, Node>, operation: Operation): void {
  const { op, path, from } = operation;
  if ((op === "add" || op === "replace" || op === "test") && !Object.hasOwn(operation, "value"))
    throw new PatchError(`the operation "${op}" has no value`, 400);
  const value = () => toNode(operation["value"] as Json);
  switch (op) {
    case "test": {
      const held = read(root, path);
      const wanted = value();
      if (held === undefined ? wanted !== null : !Bun.deepEquals(held, wanted)) throw misfit(op, path);
      return;
    }
    case "remove":
      return void take(root, path, op);
    case "replace":
      if (read(root, path) === undefined) throw misfit(op, path);
      return put(root, path, value(), op, false);
    case "add":
      return put(root, path, value(), op, true);
    case "copy": {
      const held = read(root, from ?? "");
      if (from === undefined || held === undefined) throw misfit(op, path);
      return put(root, path, structuredClone(held), op, true);
    }
    case "move": {
      if (from === undefined || path.startsWith(`${from}/`)) throw misfit(op, path);
      return put(root, path, take(root, from, op), op, true);
    }
  }
}

function read(root: Map<string, Node>, path: string): Node | undefined {
  const place = placeOf(root, path);
  if (place === undefined) return undefined;
  const { parent, key } = place;
  if (parent instanceof Map) return parent.get(key);
  const at = indexOf(key, parent.length - 1);
  return at === undefined ? undefined : parent[at];
}

function put(root: Map<string, Node>, path: string, value: Node, op: string, isInsertion: boolean): void {
  const place = placeOf(root, path);
  if (place === undefined) throw misfit(op, path);
  const { parent, key } = place;
  if (parent instanceof Map) return void parent.set(key, value);
  const at = isInsertion && key === "-" ? parent.length : indexOf(key, parent.length - (isInsertion ? 0 : 1));
  if (at === undefined) throw misfit(op, path);
  parent.splice(at, isInsertion ? 0 : 1, value);
}

function take(root: Map<string, Node>, path: string, op: string): Node {
  const value = read(root, path);
  const place = placeOf(root, path);
  if (value === undefined || place === undefined || path === "") throw misfit(op, path);
  if (place.parent instanceof Map) place.parent.delete(place.key);
  else place.parent.splice(Number(place.key), 1);
  return value;
}

/** Where the last step of a pointer leads from. */
function placeOf(root: Map<string, Node>, path: string) {
  if (path !== "" && !path.startsWith("/")) throw new PatchError("a path does not begin with /", 400);
  const steps = path.split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  const key = steps.pop()!;
  let parent: Node | undefined = root;
  for (const step of steps) {
    if (parent instanceof Map) parent = parent.get(step);
    else if (Array.isArray(parent)) {
      const at = indexOf(step, parent.length - 1);
      parent = at === undefined ? undefined : parent[at];
    } else return undefined;
  }
  return parent instanceof Map || Array.isArray(parent) ? { parent, key } : undefined;
}

function indexOf(step: string, last: number): number | undefined {
  return /^(0|[1-9][0-9]{0,8})$/.test(step) && Number(step) <= last ? Number(step) : undefined;
}

function misfit(op: string, path: string): PatchError {
  return new PatchError(`the operation "${op}" does not fit at "${path.slice(0, 128)}"`);
}

function toNode(json: Json): Node {
  if (Array.isArray(json)) return json.map(toNode);
  if (typeof json !== "object" || json === null) return json as Node;
  return new Map(Object.entries(json).map(([key, value]) => [key, toNode(value)]));
}

/** `Object.fromEntries` defines fields and never assigns: `__proto__` stays data. */
function toJson(node: Node): Json {
  if (Array.isArray(node)) return node.map(toJson);
  if (!(node instanceof Map)) return node;
  return Object.fromEntries([...node].map(([key, value]) => [key, toJson(value)]));
}
