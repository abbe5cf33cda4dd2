/**
 * The disk of a simulated node: what a crash leaves behind.
 *
 * Two of them. One is a model in memory with the store's group commit: after
 * a quiet second a write is committed at once, in a busy one once a second or
 * every hundred rows; bookmarks wait for the next real change. The other is
 * the real store on a folder in memory, copied at the moment of the crash as
 * the page cache would leave it.
 */

import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import type { Item } from "../../src/kube/codec.ts";
import { objectKey } from "../../src/kube/resource-path.ts";
import { compareResourceVersions, newerResourceVersion } from "../../src/kube/resource-version.ts";
import {
  identityText,
  type ListChange,
  type ListedState,
  type ListWriter,
  type ScopeIdentity,
  type ScopeRecord,
  type ScopeSnapshot,
  type Store,
  type StoreStatus,
} from "../../src/store/contract.ts";
import { openStore } from "../../src/store/store.ts";

/** Where a process opens its store, and what happens to it at a crash. */
export interface Disk {
  open(clock: Clock): Store;
  /** The process is gone without a word: what was not committed is lost. */
  crash(): void;
  /** The world ends. */
  dispose(): void;
}

interface Row {
  readonly identity: ScopeIdentity;
  listed: ListedState | undefined;
  lastUsedMs: number;
  items: ReadonlyMap<string, Item>;
}

/** In memory where there is such a place. */
const FOLDER = join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "holdfast-simulation-");
const COMMIT_EVERY_MS = 1_000;
const MAX_QUEUED = 100;
const BOOKMARKS_EVERY_MS = 600_000;

/** The model. */
export class MemoryDisk implements Disk {
  readonly committed = new Map<number, Row>();
  /** Named values; each is written at once. */
  readonly values = new Map<string, Uint8Array>();

  open(clock: Clock): Store {
    return new CommittingStore(this, clock);
  }

  crash(): void {}

  dispose(): void {}

  /** Writes one scope as it stands; the seam for a torn commit. */
  save(id: number, row: Row): void {
    this.committed.set(id, { ...row });
  }
}

/** The real store. */
export class RealDisk implements Disk {
  #dir = mkdtempSync(FOLDER);
  #opened: Store | undefined;

  open(clock: Clock): Store {
    this.#opened = openStore({ stateDir: join(this.#dir, "state"), clock, log: silentLog, maxBytes: 1e9 });
    return this.#opened;
  }

  crash(): void {
    const next = mkdtempSync(FOLDER);
    cpSync(join(this.#dir, "state"), join(next, "state"), { recursive: true });
    this.dispose();
    this.#dir = next;
  }

  dispose(): void {
    this.#opened?.close();
    this.#opened = undefined;
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

interface ListUnderWay {
  /** Newest event for a key since the list began. */
  readonly events: Map<string, string>;
}

/** The contract of src/store in memory, with its commits. */
class CommittingStore implements Store {
  readonly #rows = new Map<number, Row>();
  readonly #lists = new Map<number, Set<ListUnderWay>>();
  readonly #changed = new Set<number>();
  readonly #touched = new Set<number>();
  #queued = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;
  #bookmarksAtMs = 0;

  constructor(
    private readonly disk: MemoryDisk,
    private readonly clock: Clock,
  ) {
    for (const [id, row] of disk.committed) this.#rows.set(id, { ...row });
  }

  scopes(): ScopeRecord[] {
    return [...this.#rows].map(([id, row]) => recordOf(id, row));
  }

  openScope(identity: ScopeIdentity, nowMs: number): ScopeRecord {
    const text = identityText(identity);
    for (const [id, row] of this.#rows) if (identityText(row.identity) === text) return recordOf(id, row);
    const id = Math.max(0, ...this.#rows.keys()) + 1;
    this.#rows.set(id, { identity, listed: undefined, lastUsedMs: nowMs, items: new Map() });
    this.#save(id);
    return recordOf(id, this.#rows.get(id)!);
  }

  dropScope(scopeId: number): void {
    this.#rows.delete(scopeId);
    this.disk.committed.delete(scopeId);
  }

  beginList(scopeId: number): ListWriter {
    if (!this.#rows.has(scopeId)) throw new RangeError(`Cannot begin a list: no scope ${scopeId}`);
    this.flush();
    const taken = new Map<string, Item>();
    const underWay: ListUnderWay = { events: new Map() };
    const lists = this.#lists.get(scopeId) ?? new Set();
    this.#lists.set(scopeId, lists.add(underWay));
    let itemCount = 0;
    let itemBytes = 0;
    return {
      add: (item) => {
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
      abort: () => void lists.delete(underWay),
      commit: (state, onChange) => {
        if (!lists.delete(underWay)) throw new RangeError("Cannot commit a list twice");
        this.#commitList(scopeId, taken, underWay, state, onChange);
      },
    };
  }

  #commitList(
    scopeId: number,
    taken: Map<string, Item>,
    { events }: ListUnderWay,
    { shape, contentType, resourceVersion, nowMs, isPartlyTold = false }: Parameters<ListWriter["commit"]>[0],
    onChange: (change: ListChange) => void,
  ): void {
    const row = this.#rows.get(scopeId);
    if (row === undefined) return;
    this.flush();
    const isFirst = row.listed === undefined;
    const next = new Map(taken);
    let newest = resourceVersion;
    for (const [key, at] of events) {
      if (compareResourceVersions(at, resourceVersion) <= 0) continue;
      newest = newerResourceVersion(newest, at);
      const item = row.items.get(key);
      if (item === undefined) next.delete(key);
      else next.set(key, item);
    }
    if (!isFirst) for (const change of changesBetween(row.items, next)) onChange(change);
    row.items = next;
    row.listed = {
      shape,
      contentType,
      resourceVersion: newest,
      changedAt: newest,
      epoch: newest,
      isPartlyTold,
      lastContactMs: nowMs,
    };
    this.#save(scopeId);
  }

  putObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(scopeId, keyOf(item), item, resourceVersion, nowMs);
  }

  deleteObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(scopeId, keyOf(item), undefined, resourceVersion, nowMs);
  }

  #enqueue(id: number, key: string, item: Item | undefined, resourceVersion: string, lastContactMs: number): void {
    const row = this.#rows.get(id);
    if (row?.listed === undefined) return;
    const items = new Map(row.items);
    if (item === undefined) items.delete(key);
    else items.set(key, item);
    row.items = items;
    row.listed = { ...row.listed, resourceVersion, changedAt: resourceVersion, lastContactMs };
    for (const { events } of this.#lists.get(id) ?? []) events.set(key, resourceVersion);
    this.#changed.add(id);
    this.#queued++;
    if (this.#queued >= MAX_QUEUED) return this.flush();
    if (this.#cancelCommit !== undefined) return;
    const waitMs = COMMIT_EVERY_MS - (this.clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = this.clock.after(waitMs, () => this.flush());
  }

  touchScope(
    scopeId: number,
    { resourceVersion, lastContactMs, lastUsedMs, isPartlyTold }: Parameters<Store["touchScope"]>[1],
  ): void {
    const row = this.#rows.get(scopeId);
    if (row === undefined) return;
    if (lastUsedMs !== undefined) row.lastUsedMs = lastUsedMs;
    if (row.listed !== undefined)
      row.listed = {
        ...row.listed,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
        ...(isPartlyTold === undefined ? {} : { isPartlyTold }),
      };
    this.#touched.add(scopeId);
    const withinMs = isPartlyTold === undefined ? BOOKMARKS_EVERY_MS : COMMIT_EVERY_MS;
    const atMs = this.clock.monotonicMs() + withinMs;
    if (this.#cancelBookmarks !== undefined && this.#bookmarksAtMs <= atMs) return;
    this.#cancelBookmarks?.();
    this.#bookmarksAtMs = atMs;
    this.#cancelBookmarks = this.clock.after(withinMs, () => this.settle());
  }

  getObject(scopeId: number, namespace: string, name: string): Item | undefined {
    const row = this.#rows.get(scopeId);
    return row?.listed === undefined ? undefined : row.items.get(objectKey(namespace, name));
  }

  snapshot(scopeId: number): ScopeSnapshot | undefined {
    const row = this.#rows.get(scopeId);
    if (row?.listed === undefined) return undefined;
    if (this.#changed.has(scopeId)) this.flush();
    const items = [...row.items].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
    return {
      listed: row.listed,
      itemCount: items.length,
      itemSizes: () => items.map(({ bytes }) => bytes.length),
      items: () => items,
      [Symbol.dispose]() {},
    };
  }

  listedState(scopeId: number): ListedState | undefined {
    return this.#rows.get(scopeId)?.listed;
  }

  putResponse(): void {}

  getResponse(): undefined {
    return undefined;
  }

  deleteResponse(): void {}

  deleteResponsesForPath(): void {}

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const [id, { identity }] of this.#rows)
      if (identity.principal === principal && matches(identity)) this.dropScope(id);
  }

  listResponses(): [] {
    return [];
  }

  getValue(name: string): Uint8Array | undefined {
    return this.disk.values.get(name);
  }

  putValue(name: string, value: Uint8Array): void {
    this.disk.values.set(name, value);
  }

  deleteValue(name: string): void {
    this.disk.values.delete(name);
  }

  valueNames(prefix: string): string[] {
    return [...this.disk.values.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  keyedHash(text: string): string {
    return text;
  }

  flush(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#queued === 0) return;
    this.#queued = 0;
    for (const id of this.#touched) this.#changed.add(id);
    this.#touched.clear();
    for (const id of this.#changed) this.#save(id);
    this.#changed.clear();
    this.#lastCommitMs = this.clock.monotonicMs();
  }

  settle(): void {
    this.flush();
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    for (const id of this.#touched) this.#save(id);
    this.#touched.clear();
  }

  verify(): { checked: number; damaged: number } {
    return { checked: 0, damaged: 0 };
  }

  status(): StoreStatus {
    throw new Error("nobody asks in a simulation");
  }

  close(): void {
    this.settle();
  }

  #save(id: number): void {
    const row = this.#rows.get(id);
    if (row !== undefined) this.disk.save(id, row);
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
    changes.push({ type: old?.meta.uid === item.meta.uid ? "MODIFIED" : "ADDED", item });
  }
  for (const [key, old] of before) if (!now.has(key)) changes.push({ type: "DELETED", old });
  return changes;
}

function recordOf(id: number, { identity, listed, lastUsedMs }: Row): ScopeRecord {
  return { id, identity, ...(listed === undefined ? {} : { listed }), lastUsedMs };
}

function keyOf({ meta }: Item): string {
  return objectKey(meta.namespace, meta.name);
}
