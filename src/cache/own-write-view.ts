/**
 * A copy as its caller may read it: with the caller's own newer writes in it,
 * and without what the caller deleted.
 */

import { asListItem } from "../kube/answered-object.ts";
import type { Item } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import { selectionOf } from "../kube/selectors.ts";
import type { ListedState, ScopeSnapshot } from "../store/contract.ts";
import { formatOf } from "./containment.ts";
import { objectOf, type OwnWrites } from "./own-writes.ts";
import type { Scope } from "./scope.ts";
import type { OnShown } from "./shown-ahead.ts";

/** Why a row is left out. */
interface Gone {
  /** "" for whichever object has the name. */
  readonly uid: string;
  /** The write after which it is not selected any more; undefined for one that was deleted. */
  readonly at?: string;
}

/**
 * A view with the writes in their places; itself when there are none.
 *
 * @param view of `scope`; disposed of with the result.
 * @param onShown told of all that is shown newer than the rows: no watch from there may take it back.
 */
export function withOwnWrites(writes: OwnWrites, view: ScopeSnapshot, scope: Scope, onShown: OnShown): ScopeSnapshot {
  const { principal, group, version, resource } = scope.identity;
  const selection = selectionOf(scope.identity);
  const format = formatOf(scope.codec(view.listed));
  const rowsAt = scope.listed?.resourceVersion ?? "";
  const put = new Map<string, Item>();
  const gone = new Map<string, Gone>();
  for (const write of writes.of(principal, group, version, resource)) {
    const key = objectKey(write.namespace, write.name);
    if (write.isGone) {
      // Without a uid only time tells whether a row of that name is the one that went.
      if (write.uid !== "" || view.listed.lastContactMs <= write.atMs) gone.set(key, { uid: write.uid });
      continue;
    }
    if (!isInNamespace(write, scope) || compareResourceVersions(write.resourceVersion, rowsAt) <= 0) continue;
    const object = objectOf(write);
    if (object === undefined || object.format !== format || selection === undefined) continue;
    const item = asListItem(object, view.listed.shape);
    if (item === undefined) continue;
    const isSelected = selection.matches(item, format);
    if (isSelected) put.set(key, item);
    else gone.set(key, { uid: "", at: write.resourceVersion });
    onShown(key, { at: write.resourceVersion, uid: isSelected ? item.meta.uid : undefined });
  }
  return put.size + gone.size === 0
    ? view
    : new WrittenSnapshot(view, put, gone, (key, uid) => onShown(key, { at: rowsAt, uid: undefined, goneUid: uid }));
}

function isInNamespace({ namespace }: { readonly namespace: string }, { identity }: Scope): boolean {
  return identity.namespace === "" || identity.namespace === namespace;
}

class WrittenSnapshot implements ScopeSnapshot {
  #itemCount: number | undefined;

  constructor(
    private readonly rows: ScopeSnapshot,
    private readonly put: ReadonlyMap<string, Item>,
    private readonly gone: ReadonlyMap<string, Gone>,
    private readonly onDeleted: (key: string, uid: string) => void,
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
    const gone = this.gone.get(key);
    if (gone === undefined || (gone.uid !== "" && gone.uid !== meta.uid)) return false;
    if (gone.at !== undefined) return compareResourceVersions(meta.resourceVersion, gone.at) <= 0;
    this.onDeleted(key, meta.uid);
    return true;
  }
}

/** An item edited here stands before what was written: it was edited later. */
function newer(row: Item, written: Item): Item {
  return compareResourceVersions(row.meta.resourceVersion, written.meta.resourceVersion) > 0 ? row : written;
}
