/**
 * A copy as its caller may read it: with the caller's own newer writes in it,
 * and without what the caller deleted.
 */

import { formatOf } from "../cache/containment.ts";
import type { OnShown } from "../cache/shown-ahead.ts";
import { asListItem } from "../kube/answered-object.ts";
import type { Codec, Item } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import { selectionOf } from "../kube/selectors.ts";
import type { ListedState, ScopeIdentity, ScopeSnapshot } from "../store/contract.ts";
import { objectOf, type OwnWrites } from "./own-writes.ts";

/**
 * The rows with the writes in their places; the snapshot itself when there are none.
 *
 * @param onShown told of all that is shown newer than the rows: no watch from there may take it back.
 */
export function withOwnWrites(
  writes: OwnWrites,
  identity: ScopeIdentity,
  snapshot: ScopeSnapshot,
  codec: Codec,
  onShown: OnShown = () => {},
): ScopeSnapshot {
  const { principal, group, version, resource } = identity;
  const selection = selectionOf(identity);
  const format = formatOf(codec);
  const put = new Map<string, Item>();
  const gone = new Map<string, string>();
  for (const write of writes.of(principal, group, version, resource)) {
    const key = objectKey(write.namespace, write.name);
    if (write.isGone) {
      // Without a uid only time tells whether a row of that name is the one that went.
      if (write.uid !== "" || snapshot.listed.lastContactMs <= write.atMs) gone.set(key, write.uid);
      continue;
    }
    if (compareResourceVersions(write.resourceVersion, snapshot.listed.resourceVersion) <= 0) continue;
    const object = objectOf(write);
    if (object === undefined || object.format !== format || selection === undefined) continue;
    const item = asListItem(object, snapshot.listed.shape);
    if (item === undefined) continue;
    const isSelected = selection.matches(item, format);
    if (isSelected) put.set(key, item);
    else gone.set(key, "");
    onShown(key, { at: write.resourceVersion, uid: isSelected ? item.meta.uid : undefined });
  }
  return put.size + gone.size === 0 ? snapshot : new WrittenSnapshot(snapshot, put, gone);
}

class WrittenSnapshot implements ScopeSnapshot {
  #itemCount: number | undefined;

  constructor(
    private readonly rows: ScopeSnapshot,
    private readonly put: ReadonlyMap<string, Item>,
    private readonly gone: ReadonlyMap<string, string>,
  ) {}

  get listed(): ListedState {
    return this.rows.listed;
  }

  get itemCount(): number {
    return (this.#itemCount ??= [...this.items()].length);
  }

  *itemSizes(): Iterable<number> {
    for (const { bytes } of this.items()) yield bytes.length;
  }

  *items(): Iterable<Item> {
    const added = [...this.put].sort(([a], [b]) => (a < b ? -1 : 1));
    let next = 0;
    for (const item of this.rows.items()) {
      const key = objectKey(item.meta.namespace, item.meta.name);
      while (next < added.length && added[next]![0] < key) yield added[next++]![1];
      if (next < added.length && added[next]![0] === key) {
        const [, written] = added[next++]!;
        yield newer(item, written);
      } else if (!this.#isGone(key, item)) yield item;
    }
    for (const [, item] of added.slice(next)) yield item;
  }

  [Symbol.dispose](): void {
    this.rows[Symbol.dispose]();
  }

  #isGone(key: string, { meta }: Item): boolean {
    const uid = this.gone.get(key);
    return uid !== undefined && (uid === "" || uid === meta.uid);
  }
}

/** An item edited here stands before what was written: it was edited later. */
function newer(row: Item, written: Item): Item {
  return compareResourceVersions(row.meta.resourceVersion, written.meta.resourceVersion) > 0 ? row : written;
}
