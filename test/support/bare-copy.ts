/**
 * A copy in memory, by the contract of src/store: what its rows are after each
 * call. When they are committed, and what a crash leaves, is its store's.
 *
 * Its rows are never changed in place: a store may keep them as they are.
 */

import type { Item } from "../../src/kube/codec.ts";
import { objectKey } from "../../src/kube/resource-path.ts";
import { compareResourceVersions, newerResourceVersion } from "../../src/kube/resource-version.ts";
import type {
  Copy,
  ListChange,
  ListedState,
  ListWriter,
  ScopeIdentity,
  ScopeSnapshot,
} from "../../src/store/contract.ts";
import { CopyDroppedError } from "../../src/store/errors.ts";

/** What a store keeps of a copy. */
export interface Row {
  readonly identity: ScopeIdentity;
  listed: ListedState | undefined;
  lastUsedMs: number;
  isWithheld: boolean;
  items: ReadonlyMap<string, Item>;
}

interface ListUnderWay {
  /** Newest event for a key since the list began. */
  readonly events: Map<string, string>;
}

/** What a copy asks of its store. */
export interface BareCopyParts {
  readonly flush: () => void;
  readonly save: (copy: BareCopy) => void;
  readonly changed: (copy: BareCopy) => void;
  readonly hasChanged: (copy: BareCopy) => boolean;
  readonly touched: (copy: BareCopy, isUrgent: boolean) => void;
  readonly dropped: (copy: BareCopy) => void;
}

/** One copy. */
export class BareCopy implements Copy, Row {
  readonly identity: ScopeIdentity;
  listed: ListedState | undefined;
  lastUsedMs: number;
  items: ReadonlyMap<string, Item>;
  isDropped = false;
  isWithheld: boolean;
  readonly #lists = new Set<ListUnderWay>();

  constructor(
    { identity, listed, lastUsedMs, isWithheld, items }: Row,
    private readonly parts: BareCopyParts,
  ) {
    this.identity = identity;
    this.listed = listed;
    this.lastUsedMs = lastUsedMs;
    this.items = items;
    this.isWithheld = isWithheld;
  }

  beginList(): ListWriter {
    this.#checkAlive();
    this.parts.flush();
    const taken = new Map<string, Item>();
    const underWay: ListUnderWay = { events: new Map() };
    this.#lists.add(underWay);
    let itemCount = 0;
    let itemBytes = 0;
    return {
      add: (item) => {
        this.#checkAlive();
        if (!this.#lists.has(underWay)) return;
        taken.set(keyOf(item), item);
        itemCount++;
        itemBytes += item.bytes.length;
      },
      get itemCount() {
        return itemCount;
      },
      get itemBytes() {
        return itemBytes;
      },
      abort: () => void this.#lists.delete(underWay),
      commit: (state, onChange) => {
        this.#checkAlive();
        if (!this.#lists.delete(underWay)) throw new RangeError("Cannot commit a list twice");
        this.#commit(taken, underWay, state, onChange);
      },
    };
  }

  #commit(
    taken: Map<string, Item>,
    { events }: ListUnderWay,
    { shape, contentType, resourceVersion, nowMs, isPartlyTold = false }: Parameters<ListWriter["commit"]>[0],
    onChange: (change: ListChange) => void,
  ): void {
    this.parts.flush();
    const isFirst = this.listed === undefined;
    this.isWithheld = false;
    const next = new Map(taken);
    let newest = resourceVersion;
    for (const [key, at] of events) {
      if (compareResourceVersions(at, resourceVersion) <= 0) continue;
      newest = newerResourceVersion(newest, at);
      const item = this.items.get(key);
      if (item === undefined) next.delete(key);
      else next.set(key, item);
    }
    if (!isFirst) for (const change of changesBetween(this.items, next)) onChange(change);
    this.items = next;
    this.listed = {
      shape,
      contentType,
      resourceVersion: newest,
      changedAt: newest,
      epoch: newest,
      isPartlyTold,
      lastContactMs: nowMs,
    };
    this.parts.save(this);
  }

  put(item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(keyOf(item), item, resourceVersion, nowMs);
  }

  delete(item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(keyOf(item), undefined, resourceVersion, nowMs);
  }

  #enqueue(key: string, item: Item | undefined, resourceVersion: string, lastContactMs: number): void {
    this.#checkAlive();
    if (this.listed === undefined) return;
    const items = new Map(this.items);
    if (item === undefined) items.delete(key);
    else items.set(key, item);
    this.items = items;
    this.listed = { ...this.listed, resourceVersion, changedAt: resourceVersion, lastContactMs };
    for (const { events } of this.#lists) events.set(key, resourceVersion);
    this.parts.changed(this);
  }

  touch({ resourceVersion, lastContactMs, lastUsedMs, isWithheld, shownTo }: Parameters<Copy["touch"]>[0]): void {
    this.#checkAlive();
    if (lastUsedMs !== undefined) this.lastUsedMs = lastUsedMs;
    if (isWithheld !== undefined) this.isWithheld = isWithheld;
    if (this.listed !== undefined)
      this.listed = {
        ...this.listed,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
        ...(shownTo === undefined ? {} : { shownTo }),
      };
    this.parts.touched(this, isWithheld !== undefined || shownTo !== undefined);
  }

  get(namespace: string, name: string): Item | undefined {
    this.#checkAlive();
    return this.listed === undefined ? undefined : this.items.get(objectKey(namespace, name));
  }

  snapshot(): ScopeSnapshot | undefined {
    this.#checkAlive();
    const { listed } = this;
    if (listed === undefined) return undefined;
    if (this.parts.hasChanged(this)) this.parts.flush();
    const items = [...this.items].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
    return {
      listed,
      itemCount: items.length,
      itemSizes: () => items.map(({ bytes }) => bytes.length),
      items: () => items,
      [Symbol.dispose]() {},
    };
  }

  size(): { items: number; bytes: number } {
    this.#checkAlive();
    const sizes = this.listed === undefined ? [] : [...this.items.values()].map(({ bytes }) => bytes.length);
    return { items: sizes.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  }

  clear(): void {
    this.#checkAlive();
    if (this.listed === undefined) return;
    this.listed = undefined;
    this.items = new Map();
    this.parts.save(this);
  }

  drop(): void {
    if (this.isDropped) return;
    this.isDropped = true;
    this.listed = undefined;
    this.items = new Map();
    this.parts.dropped(this);
  }

  #checkAlive(): void {
    if (this.isDropped) throw new CopyDroppedError(this.identity.resource);
  }
}

function changesBetween(before: ReadonlyMap<string, Item>, now: ReadonlyMap<string, Item>): ListChange[] {
  const changes: ListChange[] = [];
  const changed = [...now].filter(([key, { meta }]) => {
    const old = before.get(key)?.meta;
    return old?.uid !== meta.uid || old.resourceVersion !== meta.resourceVersion;
  });
  changed.sort(([, a], [, b]) => compareResourceVersions(a.meta.resourceVersion, b.meta.resourceVersion));
  for (const [key, item] of changed) {
    const old = before.get(key);
    if (old !== undefined && old.meta.uid !== item.meta.uid) changes.push({ type: "DELETED", old });
    if (old?.meta.uid === item.meta.uid) changes.push({ type: "MODIFIED", item, before: () => old });
    else changes.push({ type: "ADDED", item });
  }
  for (const [key, old] of before) if (!now.has(key)) changes.push({ type: "DELETED", old });
  return changes;
}

function keyOf({ meta }: Item): string {
  return objectKey(meta.namespace, meta.name);
}
