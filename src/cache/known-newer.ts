/**
 * One caller, one clock: what one of its copies knows newer counts for all.
 *
 * A copy that is asleep, or cut off from an earlier moment than another, may
 * show an object as it was, or one that is gone, though the same caller has
 * heard so by another copy. Moments of one resource compare, so:
 *
 *   the other copy                                what is shown
 *   holds the object, changed since this copy     as it is there, if it is selected still
 *   would hold it, is newer than it, and does not nothing
 *
 * Whoever was shown more than this copy knows must not be told less at the
 * return: see shown-ahead.ts.
 */

import type { Item } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import { selectionOf } from "../kube/selectors.ts";
import type { ListedState, ScopeIdentity, ScopeSnapshot } from "../store/contract.ts";
import { decidedOn, partOf, representationOf } from "./containment.ts";
import { isLocalVersion } from "./edits.ts";
import type { Scope } from "./scope.ts";
import type { OnShown } from "./shown-ahead.ts";

/** So many objects are shown ahead of their copy; beyond that it is shown as it is. */
const MAX_AHEAD = 10_000;

/** A copy that would hold every object of a namespace. */
interface Cover {
  /** "" for all. */
  readonly namespace: string;
  readonly at: string;
  readonly keys: ReadonlySet<string>;
}

/** What other copies know. */
interface Newer {
  /** By key: the object since; undefined where it is not selected any more. */
  readonly changed: Map<string, { readonly at: string; readonly item: Item | undefined }>;
  readonly covers: Cover[];
}

/** Whether what a copy holds was undone by a restored backup, and what another holds was not: their moments do not compare. */
export function isUndone(copy: Pick<Scope, "hasRolledBack">, by: Pick<Scope, "hasRolledBack">): boolean {
  return copy.hasRolledBack && !by.hasRolledBack;
}

/**
 * A copy's view with what the same caller's other copies know newer.
 *
 * @param view of `scope`; disposed of with the result.
 * @param siblings the caller's copies of that resource.
 * @param onShown told of all that is shown newer, as it is read.
 */
export function withNewer(
  view: ScopeSnapshot,
  scope: Scope,
  siblings: Iterable<Scope>,
  onShown: OnShown,
): ScopeSnapshot {
  const at = scope.listed?.resourceVersion ?? "";
  const asked = scope.identity;
  const newer: Newer = { changed: new Map(), covers: [] };
  for (const sibling of siblings) {
    const { identity, listed } = sibling;
    if (sibling === scope || listed === undefined || !doMeet(identity, asked) || isUndone(sibling, scope)) continue;
    if (compareResourceVersions(listed.resourceVersion, at) > 0) learn(newer, sibling, listed, at, asked, view.listed);
  }
  const isNothing = newer.changed.size === 0 && newer.covers.length === 0;
  return isNothing || newer.changed.size > MAX_AHEAD ? view : new NewerSnapshot(view, newer, onShown);
}

function doMeet(one: ScopeIdentity, other: ScopeIdentity): boolean {
  return one.namespace === "" || other.namespace === "" || one.namespace === other.namespace;
}

/** Takes from a newer copy what it knows beyond `at`. */
function learn(
  newer: Newer,
  sibling: Scope,
  listed: ListedState,
  at: string,
  asked: ScopeIdentity,
  wanted: ListedState,
): void {
  using rows = sibling.rows();
  if (rows === undefined) return;
  const { identity } = sibling;
  const part = partOf({ identity, listed }, identity, representationOf(wanted));
  const selection = selectionOf(asked);
  const selects = selection === undefined ? undefined : decidedOn(listed, selection);
  const isCover = identity.labelSelector === "" && identity.fieldSelector === "";
  const keys = new Set<string>();
  for (const item of rows.items()) {
    const key = objectKey(item.meta.namespace, item.meta.name);
    if (isCover) keys.add(key);
    const moment = item.meta.resourceVersion;
    if (part === undefined || selects === undefined || compareResourceVersions(moment, at) <= 0) continue;
    if (compareResourceVersions(moment, newer.changed.get(key)?.at ?? "") <= 0) continue;
    const isSelected = selects(item);
    newer.changed.set(key, { at: moment, item: isSelected ? (part.form?.(item) ?? item) : undefined });
  }
  if (isCover) newer.covers.push({ namespace: identity.namespace, at: listed.resourceVersion, keys });
}

class NewerSnapshot implements ScopeSnapshot {
  constructor(
    private readonly view: ScopeSnapshot,
    private readonly newer: Newer,
    private readonly onShown: OnShown,
  ) {}

  get listed(): ListedState {
    return this.view.listed;
  }

  get itemCount(): number {
    let count = 0;
    for (const _ of this.items()) count++;
    return count;
  }

  *itemSizes(): Iterable<number> {
    for (const { bytes } of this.items()) yield bytes.length;
  }

  /** In the API server's order: what is new here stands in its place. */
  *items(): Iterable<Item> {
    const added = [...this.newer.changed].sort(([a], [b]) => (a < b ? -1 : 1));
    let next = 0;
    for (const item of this.view.items()) {
      const key = objectKey(item.meta.namespace, item.meta.name);
      while (next < added.length && added[next]![0] < key) yield* this.#shown(...added[next++]!);
      if (next < added.length && added[next]![0] === key) {
        const [, known] = added[next++]!;
        // What was edited here stands before all that the API server has said.
        if (isLocalVersion(item.meta.resourceVersion)) yield item;
        else yield* this.#shown(key, known);
      } else if (!this.#isGone(key, item.meta.namespace, item.meta.resourceVersion)) yield item;
    }
    for (const [key, known] of added.slice(next)) yield* this.#shown(key, known);
  }

  [Symbol.dispose](): void {
    this.view[Symbol.dispose]();
  }

  *#shown(key: string, { at, item }: { readonly at: string; readonly item: Item | undefined }): Generator<Item> {
    if (item === undefined) return this.onShown(key, { at, uid: undefined });
    if (this.#isGone(key, item.meta.namespace, at)) return;
    this.onShown(key, { at, uid: item.meta.uid });
    yield item;
  }

  #isGone(key: string, namespace: string, resourceVersion: string): boolean {
    if (isLocalVersion(resourceVersion)) return false;
    for (const cover of this.newer.covers) {
      if (cover.namespace !== "" && cover.namespace !== namespace) continue;
      if (cover.keys.has(key) || compareResourceVersions(cover.at, resourceVersion) <= 0) continue;
      this.onShown(key, { at: cover.at, uid: undefined });
      return true;
    }
    return false;
  }
}
