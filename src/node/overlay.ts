/**
 * What is laid over one object while nobody can be told: kubelet's status of
 * it, and what agents of the node changed beside that.
 *
 *   the API server's row
 *     <- status, and what kubelet's status writes changed of metadata
 *     <- each agent's change: one label, annotation or condition
 *
 * Of metadata only what was changed is kept: a copy's row may be of another
 * age than kubelet's, and nobody is shown labels that it was never told.
 *
 * A change remembers what the API server's row held when it was made: at the
 * return it goes up only where that is still so.
 */

import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import type { Item } from "../kube/codec.ts";
import { parseExact, rewritten, writeExact, type Json } from "../kube/exact-json.ts";
import type { Fields } from "./pod-status.ts";
import { refuseMisshapen, type StatusTarget } from "./status-patch.ts";

/** A kept overlay that is not what was written. */
export class OverlayDamagedError extends EdgeError {
  override readonly name = "OverlayDamagedError";
  readonly code = "OVERLAY_DAMAGED";
}

/** One label, annotation or condition that an agent wrote; null stands for none. */
export interface Change {
  /** Whose credential sends it up, and with which verb it may. */
  readonly principal: string;
  readonly verb: "patch" | "update";
  readonly field: "labels" | "annotations" | "conditions";
  /** The label's or annotation's key, or the condition's type. */
  readonly key: string;
  /** What the API server's row held, and then what the agent wrote before: that may have gone up, its answer lost. */
  readonly was: readonly Json[];
  readonly now: Json;
  /** The resource it was written to: "" for the object itself. */
  readonly subresource: "" | "status";
}

/** All that is laid over one object. */
export interface Overlay extends StatusTarget {
  readonly uid: string;
  /** Kubelet's; undefined where it said nothing. */
  readonly status?: Fields | undefined;
  /** What kubelet's status writes changed: labels and annotations by key, finalizers whole; null for what they took away. */
  readonly metadata?: Fields | undefined;
  /** True: a link returned since, and of the status only the terminal phase is remembered, until the cloud knows it too. */
  readonly isRemembered?: boolean | undefined;
  readonly changes: readonly Change[];
}

/** Under which key an object's overlay is kept. */
export function keyOf({ resource, namespace, name }: StatusTarget): string {
  return `${resource}/${namespace}/${name}`;
}

/** A row with its overlay laid over it. */
export function laidOver(row: Item, overlay: Overlay, resourceVersion: string): Item {
  return { meta: { ...row.meta, resourceVersion }, bytes: laidOverBytes(row.bytes, overlay, resourceVersion) };
}

/** The same of an object's text alone. */
export function laidOverBytes(bytes: Uint8Array, overlay: Overlay, resourceVersion: string): Uint8Array {
  const object = parseExact(bytes) as Fields;
  const after = shown(object, overlay);
  const metadata = { ...(after["metadata"] as Fields), resourceVersion };
  return rewritten(bytes, object, { ...after, metadata });
}

/** An object of the API server as it reads under its overlay. */
export function shown(object: Fields, overlay: Overlay): Fields {
  let after = object;
  if (overlay.status !== undefined) {
    const metadata = withMetadata((object["metadata"] ?? {}) as Fields, overlay.metadata ?? {});
    after = { ...object, metadata, status: overlay.status };
  }
  for (const change of overlay.changes) after = withChange(after, change);
  return after;
}

/** What a status write changed of metadata, on top of what others of them did before. */
export function metadataChanges(known: Fields | undefined, before: Fields, after: Fields): Fields {
  const changes: Record<string, Json> = { ...known };
  for (const field of ["labels", "annotations"]) {
    const [was, now] = [(before[field] ?? {}) as Fields, (after[field] ?? {}) as Fields];
    const keys = Object.keys({ ...was, ...now }).filter((key) => was[key] !== now[key]);
    if (keys.length === 0) continue;
    const entries = keys.map((key): [string, Json] => [key, now[key] ?? null]);
    changes[field] = { ...((changes[field] ?? {}) as Fields), ...Object.fromEntries(entries) };
  }
  const { finalizers = null } = after;
  if (!Bun.deepEquals(before["finalizers"] ?? null, finalizers)) changes["finalizers"] = finalizers;
  return changes;
}

function withMetadata(metadata: Fields, { labels, annotations, finalizers }: Fields): Fields {
  const after: Record<string, Json> = { ...metadata };
  for (const [field, changes] of [
    ["labels", labels],
    ["annotations", annotations],
  ] as const)
    if (changes !== undefined) {
      const entries = Object.entries({ ...((after[field] ?? {}) as Fields), ...(changes as Fields) });
      const kept = entries.filter(([, value]) => value !== null);
      if (kept.length === 0) delete after[field];
      else after[field] = Object.fromEntries(kept);
    }
  if (finalizers === null) delete after["finalizers"];
  else if (finalizers !== undefined) after["finalizers"] = finalizers;
  return after;
}

/** What an object holds of one label, annotation or condition; null for none. */
export function valueOf(object: Fields, { field, key }: Pick<Change, "field" | "key">): Json {
  if (field === "conditions") return conditionsOf(object).find(({ type }) => type === key) ?? null;
  const map = ((object["metadata"] as Fields | undefined)?.[field] ?? {}) as Fields;
  return Object.hasOwn(map, key) ? map[key]! : null;
}

/** An object's conditions. */
export function conditionsOf(object: Fields): readonly Fields[] {
  return ((object["status"] as Fields | undefined)?.["conditions"] ?? []) as readonly Fields[];
}

function withChange(object: Fields, { field, key, now }: Change): Fields {
  if (field === "conditions") {
    const conditions = conditionsOf(object);
    const at = conditions.findIndex(({ type }) => type === key);
    const others = at < 0 ? [...conditions] : conditions.toSpliced(at, 1);
    if (now !== null) others.splice(at < 0 ? others.length : at, 0, now as Fields);
    return { ...object, status: { ...(object["status"] as Fields | undefined), conditions: others } };
  }
  const metadata = { ...(object["metadata"] as Fields) };
  const map: Record<string, Json> = Object.fromEntries(Object.entries((metadata[field] ?? {}) as Fields));
  if (now === null) delete map[key];
  else Object.defineProperty(map, key, { value: now, enumerable: true, configurable: true, writable: true });
  const { [field]: _, ...rest } = metadata;
  const isEmpty = Object.keys(map).length === 0;
  return { ...object, metadata: isEmpty ? rest : { ...metadata, [field]: map } };
}

const isMap = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const fields = v.custom<Fields>(isMap);
const value = v.union([v.null(), v.string(), fields]);
const changedMap = v.record(v.string(), v.nullable(v.string()));
const overlaySchema = v.object({
  resource: v.picklist(["pods", "nodes"]),
  namespace: v.string(),
  name: v.string(),
  uid: v.string(),
  status: v.optional(fields),
  metadata: v.optional(
    v.object({
      labels: v.optional(changedMap),
      annotations: v.optional(changedMap),
      finalizers: v.optional(v.nullable(v.array(v.string()))),
    }),
  ),
  isRemembered: v.optional(v.boolean()),
  changes: v.optional(
    v.array(
      v.object({
        principal: v.string(),
        verb: v.picklist(["patch", "update"]),
        field: v.picklist(["labels", "annotations", "conditions"]),
        key: v.string(),
        was: v.array(value),
        now: value,
        subresource: v.picklist(["", "status"]),
      }),
    ),
    [],
  ),
});

/** An overlay as it is kept on disk. */
export function overlayBytes(overlay: Overlay): Uint8Array {
  return Buffer.from(writeExact(overlay));
}

/** Reads one back. @throws {OverlayDamagedError} */
export function readOverlay(bytes: Uint8Array | undefined): Overlay {
  try {
    const overlay = v.parse(overlaySchema, bytes === undefined ? undefined : parseExact(bytes));
    refuseMisshapen({ status: overlay.status ?? {} });
    return overlay as Overlay;
  } catch {
    // The cause would quote what is kept.
    throw new OverlayDamagedError("Cannot read a kept overlay: it is not what was written");
  }
}
