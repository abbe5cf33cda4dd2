/**
 * What one caller was told of one object, from whichever side: one caller has
 * one clock, and the newest word counts.
 *
 *   a copy of its own        the item, as it is served
 *   a recording              a GET that was answered
 *   an own write             what the API server made of it
 *
 * Older than all of these is a complete list that is newer and has it no more,
 * and its own DELETE.
 */

import { coversObject } from "../cache/containment.ts";
import type { Scopes } from "../cache/scopes.ts";
import { readAnsweredObject } from "../kube/answered-object.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { StoredResponse } from "../store/contract.ts";
import type { WrittenWhere } from "../cache/own-writes.ts";
import type { Written } from "../cache/written.ts";

/** Something that this caller was told of an object, and how to tell it again. */
export interface Told {
  /** "" where it does not say. */
  readonly uid: string;
  readonly resourceVersion: string;
  readonly atMs: number;
  readonly give: () => void;
  readonly read: () => { readonly contentType: string; readonly body: Uint8Array };
}

/** The newer of two; where one does not say how old its object is, it counts when it was heard. */
export function newest(best: Told | undefined, one: Told): Told {
  if (best === undefined) return one;
  const isNewer =
    best.resourceVersion === "" || one.resourceVersion === ""
      ? one.atMs >= best.atMs
      : compareResourceVersions(one.resourceVersion, best.resourceVersion) >= 0;
  return isNewer ? one : best;
}

/** Whether the caller has deleted it. */
export function isGoneBy(write: Written | undefined, { uid, atMs }: Told): boolean {
  if (write?.isGone !== true) return false;
  return write.uid !== "" && uid !== "" ? write.uid === uid : atMs <= write.atMs;
}

/** Which object a recorded answer is about: of a Table the one in its row. */
export function metaOfAnswer({ headers, body }: StoredResponse): {
  readonly uid: string;
  readonly resourceVersion: string;
} {
  const object = readAnsweredObject(headers["content-type"] ?? "", body);
  return object?.meta ?? { uid: "", resourceVersion: "" };
}

/** A complete list that is newer no longer has the object. */
export function wasSeenGone(
  scopes: Pick<Scopes, "of">,
  { principal, group, version, resource, namespace, name }: WrittenWhere,
  one: Told,
): boolean {
  for (const scope of scopes.of(principal, group, version, resource)) {
    const { identity, listed } = scope;
    if (listed === undefined || scope.hasRolledBack || !coversObject(identity, namespace, name)) continue;
    if (scope.row(namespace, name) !== undefined) continue;
    const isNewer =
      one.resourceVersion === ""
        ? listed.lastContactMs > one.atMs
        : compareResourceVersions(listed.resourceVersion, one.resourceVersion) >= 0;
    if (isNewer) return true;
  }
  return false;
}
