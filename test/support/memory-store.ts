/**
 * A store that forgets: the contract of src/store in memory, for tests of what stands above it.
 */

import { createHmac } from "node:crypto";
import type { Item } from "../../src/kube/codec.ts";
import { objectKey } from "../../src/kube/resource-path.ts";
import { compareResourceVersions, newerResourceVersion } from "../../src/kube/resource-version.ts";
import {
  identityText,
  type Copy,
  type ListChange,
  type ListedState,
  type ListWriter,
  type ResponseKey,
  type ScopeIdentity,
  type ScopeSnapshot,
  type Store,
  type StoredResponse,
  type StoreStatus,
} from "../../src/store/contract.ts";
import { CopyDroppedError } from "../../src/store/errors.ts";

class MemoryCopy implements Copy {
  listed: ListedState | undefined;
  isDropped = false;
  isWithheld = false;
  items = new Map<string, Item>();
  /** Of each list under way: the newest event for a key since it began. */
  readonly #lists = new Set<Map<string, string>>();

  constructor(
    readonly identity: ScopeIdentity,
    public lastUsedMs: number,
    private readonly onDropped: (copy: MemoryCopy) => void,
  ) {}

  beginList(): ListWriter {
    this.#checkAlive();
    const taken = new Map<string, Item>();
    const events = new Map<string, string>();
    this.#lists.add(events);
    let [itemCount, itemBytes] = [0, 0];
    return {
      add: (item) => {
        this.#checkAlive();
        if (!this.#lists.has(events)) return;
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
      abort: () => void this.#lists.delete(events),
      commit: (state, onChange) => {
        this.#checkAlive();
        if (!this.#lists.delete(events)) throw new RangeError("Cannot commit a list twice");
        this.#commit(this.#overtaken(taken, events, state.resourceVersion), events, state, onChange);
      },
    };
  }

  #commit(
    taken: Map<string, Item>,
    events: ReadonlyMap<string, string>,
    { shape, contentType, resourceVersion, nowMs, isPartlyTold = false }: Parameters<ListWriter["commit"]>[0],
    onChange: (change: ListChange) => void,
  ): void {
    const newest = [...events.values()].reduce(newerResourceVersion, resourceVersion);
    const before = this.items;
    const isFirst = this.listed === undefined;
    this.isWithheld = false;
    this.items = taken;
    this.listed = {
      shape,
      contentType,
      resourceVersion: newest,
      changedAt: newest,
      epoch: newest,
      isPartlyTold,
      lastContactMs: nowMs,
    };
    if (isFirst) return;
    const changed = [...taken.values()]
      .filter((item) => !same(before.get(keyOf(item)), item))
      .sort((a, b) => compareResourceVersions(a.meta.resourceVersion, b.meta.resourceVersion));
    const changes: ListChange[] = [];
    for (const item of changed) {
      const old = before.get(keyOf(item));
      if (old !== undefined && old.meta.uid !== item.meta.uid)
        changes.push({ type: "DELETED", old }, { type: "ADDED", item });
      else if (old === undefined) changes.push({ type: "ADDED", item });
      else changes.push({ type: "MODIFIED", item, before: () => old });
    }
    for (const [key, old] of before) if (!taken.has(key)) changes.push({ type: "DELETED", old });
    for (const change of changes) onChange(change);
  }

  /** Events that are newer than the list stand. */
  #overtaken(taken: Map<string, Item>, events: ReadonlyMap<string, string>, listedAt: string): Map<string, Item> {
    for (const [key, at] of events) {
      if (compareResourceVersions(at, listedAt) <= 0) continue;
      const item = this.items.get(key);
      if (item === undefined) taken.delete(key);
      else taken.set(key, item);
    }
    return taken;
  }

  put(item: Item, resourceVersion: string, nowMs: number): void {
    this.#checkAlive();
    if (this.listed === undefined) return;
    this.items.set(keyOf(item), item);
    this.#moved(item, this.listed, resourceVersion, nowMs);
  }

  delete(item: Item, resourceVersion: string, nowMs: number): void {
    this.#checkAlive();
    if (this.listed === undefined) return;
    this.items.delete(keyOf(item));
    this.#moved(item, this.listed, resourceVersion, nowMs);
  }

  touch({ resourceVersion, lastContactMs, lastUsedMs, isWithheld }: Parameters<Copy["touch"]>[0]): void {
    this.#checkAlive();
    if (lastUsedMs !== undefined) this.lastUsedMs = lastUsedMs;
    if (isWithheld !== undefined) this.isWithheld = isWithheld;
    if (this.listed !== undefined)
      this.listed = {
        ...this.listed,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
      };
  }

  get(namespace: string, name: string): Item | undefined {
    this.#checkAlive();
    return this.listed === undefined ? undefined : this.items.get(objectKey(namespace, name));
  }

  snapshot(): ScopeSnapshot | undefined {
    this.#checkAlive();
    const { listed } = this;
    if (listed === undefined) return undefined;
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
  }

  drop(): void {
    if (this.isDropped) return;
    this.isDropped = true;
    this.listed = undefined;
    this.items = new Map();
    this.onDropped(this);
  }

  #moved(item: Item, listed: ListedState, resourceVersion: string, lastContactMs: number): void {
    for (const events of this.#lists) events.set(keyOf(item), resourceVersion);
    this.listed = { ...listed, resourceVersion, changedAt: resourceVersion, lastContactMs };
  }

  #checkAlive(): void {
    if (this.isDropped) throw new CopyDroppedError(this.identity.resource);
  }
}

export class MemoryStore implements Store {
  #copies = new Map<string, MemoryCopy>();
  #responses = new Map<string, { key: ResponseKey; response: StoredResponse }>();
  #values = new Map<string, Uint8Array>();

  copies(): Copy[] {
    return [...this.#copies.values()];
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    const copy = new MemoryCopy(identity, nowMs, () => this.#copies.delete(text));
    this.#copies.set(text, copy);
    return copy;
  }

  putResponse(key: ResponseKey, response: StoredResponse): void {
    this.#responses.set(JSON.stringify(key), { key, response });
  }

  getResponse(key: ResponseKey): StoredResponse | undefined {
    return this.#responses.get(JSON.stringify(key))?.response;
  }

  deleteResponse(key: ResponseKey): void {
    this.#responses.delete(JSON.stringify(key));
  }

  deleteResponsesForPath(principal: string, path: string): void {
    for (const [text, { key }] of this.#responses)
      if (key.principal === principal && key.target.split("?")[0] === path) this.#responses.delete(text);
  }

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const copy of [...this.#copies.values()])
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
  }

  listResponses(): ReturnType<Store["listResponses"]> {
    return [...this.#responses.values()].map(({ key, response }) => ({
      key,
      status: response.status,
      sizeBytes: response.body.length,
      storedAtMs: response.storedAtMs,
    }));
  }

  getValue(name: string): Uint8Array | undefined {
    return this.#values.get(name);
  }

  putValue(name: string, value: Uint8Array): void {
    this.#values.set(name, value);
  }

  deleteValue(name: string): void {
    this.#values.delete(name);
  }

  valueNames(prefix: string): string[] {
    return [...this.#values.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  keyedHash(text: string): string {
    return createHmac("sha256", "test").update(text).digest("hex");
  }

  excessBytes(): number {
    return 0;
  }

  onExcess(): void {}

  usage(): ReadonlyMap<Copy, number> {
    return new Map(this.copies().map((copy) => [copy, copy.size().bytes]));
  }

  flush(): void {}
  settle(): void {}

  verify(): { checked: number; damaged: number } {
    return { checked: 0, damaged: 0 };
  }

  status(): StoreStatus {
    return {
      mode: "memory",
      reason: "test",
      path: "",
      sizeBytes: 0,
      scopes: this.#copies.size,
      objects: 0,
      responses: this.#responses.size,
      quarantined: 0,
      commits: 0,
      rowsWritten: 0,
      sealing: "memory",
    };
  }

  close(): void {}
}

function keyOf({ meta }: Item): string {
  return objectKey(meta.namespace, meta.name);
}

function same(a: Item | undefined, b: Item): boolean {
  return a !== undefined && Buffer.from(a.bytes).equals(b.bytes);
}
