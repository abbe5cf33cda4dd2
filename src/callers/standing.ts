/**
 * What the API server has refused to one caller, and since when: kept on disk.
 *
 *   whole        its credential itself (401)
 *   collections  lists and watches, by what was asked for
 *   objects      single objects and other paths
 *   gone         single objects that were not there (404): their recordings, by path
 *
 * All of it is withheld while it stands here. What was taken away for good
 * leaves one mark: recordings from before are not believed.
 */

import * as v from "valibot";
import type { ScopeIdentity } from "../store/contract.ts";

/** A collection's identity without its principal. */
export type RefusedCollection = Omit<ScopeIdentity, "principal">;

/** Refusals of one caller that stand. */
export interface Standing {
  /** Recordings from up to then are not believed, ms since the epoch. */
  doubtedAtMs: number;
  /** Since when its credential is refused, ms since the epoch. */
  whole: number | undefined;
  /** By the identity's text. */
  readonly collections: Map<string, { readonly identity: RefusedCollection; readonly sinceMs: number }>;
  /** By `GROUP/RESOURCE/NAMESPACE/NAME`, or a path. `path` is where it can be asked for; "" when that was done for good. */
  readonly objects: Map<string, { readonly path: string; readonly sinceMs: number }>;
  /** By canonical path; since when. */
  readonly gone: Map<string, number>;
}

/** Nothing refused. */
export function nothingStanding(): Standing {
  return { doubtedAtMs: 0, whole: undefined, collections: new Map(), objects: new Map(), gone: new Map() };
}

const text = v.string();
const identitySchema = v.object({
  group: text,
  version: text,
  resource: text,
  namespace: text,
  fieldSelector: text,
  labelSelector: text,
  representation: text,
});
const storedSchema = v.object({
  doubtedAtMs: v.number(),
  whole: v.optional(v.number()),
  collections: v.optional(v.array(v.object({ identity: identitySchema, sinceMs: v.number() })), []),
  // Files from before have the names alone.
  objects: v.array(v.union([v.string(), v.object({ key: text, path: text, sinceMs: v.number() })])),
  gone: v.optional(v.array(v.tuple([v.string(), v.number()])), []),
});

/** Reads what `standingBytes` made. @returns undefined for what is none. */
export function readStanding(bytes: Uint8Array | undefined): Standing | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes ?? []).toString("utf8"));
  } catch {
    return undefined;
  }
  const read = v.safeParse(storedSchema, value);
  if (!read.success) return undefined;
  const { doubtedAtMs, whole, collections, objects, gone } = read.output;
  return {
    doubtedAtMs,
    whole,
    collections: new Map(collections.map((one) => [collectionText(one.identity), one])),
    objects: new Map(
      objects.map((one) => (typeof one === "string" ? [one, { path: "", sinceMs: doubtedAtMs }] : [one.key, one])),
    ),
    gone: new Map(gone),
  };
}

/** As it is kept. */
export function standingBytes({ doubtedAtMs, whole, collections, objects, gone }: Standing): Uint8Array {
  const stored = {
    doubtedAtMs,
    whole,
    collections: [...collections.values()],
    objects: [...objects].map(([key, one]) => ({ ...one, key })),
    gone: [...gone],
  };
  return Buffer.from(JSON.stringify(stored));
}

/** Tells refused collections apart. */
export function collectionText(identity: RefusedCollection): string {
  const { group, version, resource, namespace, fieldSelector, labelSelector, representation } = identity;
  return [group, version, resource, namespace, fieldSelector, labelSelector, representation].join("\n");
}

/** One object as permissions name it, for they know no versions; or another path, of no resource. */
export interface AskedObject {
  readonly group: string;
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly canonicalPath: string;
}

/** How an object is named here. */
export function objectOf({ group, resource, namespace, name, canonicalPath }: AskedObject): string {
  if (resource === "") return canonicalPath;
  return `${group}/${resource}/${resource === "namespaces" ? "" : namespace}/${name}`;
}

/** Whether who may list `wide` may list `narrow`, as far as can be said without asking. */
export function isWithin(narrow: ScopeIdentity, wide: ScopeIdentity): boolean {
  if (wide.group !== narrow.group || wide.resource !== narrow.resource) return false;
  if (wide.namespace !== "" && wide.namespace !== narrow.namespace) return false;
  return isPart(narrow.fieldSelector, wide.fieldSelector) && isPart(narrow.labelSelector, wide.labelSelector);
}

function isPart(narrow: string, wide: string): boolean {
  return wide === "" || wide === narrow;
}
