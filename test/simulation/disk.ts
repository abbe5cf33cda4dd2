/**
 * The disk of a simulated node: what a crash leaves behind.
 *
 * Two of them. One is a model in memory with the store's group commit: after
 * a quiet second a write is committed at once, in a busy one once a second or
 * every hundred rows; bookmarks wait for the next real change, what is
 * withheld does not wait. The other is
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
  type Copy,
  type ListChange,
  type ListedState,
  type ListWriter,
  type ScopeIdentity,
  type ScopeSnapshot,
  type Store,
  type StoreStatus,
} from "../../src/store/contract.ts";
import { CopyDroppedError } from "../../src/store/errors.ts";
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
  isWithheld: boolean;
  items: ReadonlyMap<string, Item>;
}

/** In memory where there is such a place. */
const FOLDER = join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "holdfast-simulation-");
const COMMIT_EVERY_MS = 1_000;
const MAX_QUEUED = 100;
const BOOKMARKS_EVERY_MS = 600_000;

/** The model. */
export class MemoryDisk implements Disk {
  readonly committed = new Map<string, Row>();
  /** Named values; each is written at once. */
  readonly values = new Map<string, Uint8Array>();

  open(clock: Clock): Store {
    return new CommittingStore(this, clock);
  }

  crash(): void {}

  dispose(): void {}

  /** Writes one scope as it stands; the seam for a torn commit. */
  save(id: string, { identity, listed, lastUsedMs, isWithheld, items }: Row): void {
    this.committed.set(id, { identity, listed, lastUsedMs, isWithheld, items });
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

/** What a copy asks of its store. */
interface CopyParts {
  readonly flush: () => void;
  readonly save: (copy: CommittingCopy) => void;
  readonly changed: (copy: CommittingCopy) => void;
  readonly hasChanged: (copy: CommittingCopy) => boolean;
  readonly touched: (copy: CommittingCopy, isUrgent: boolean) => void;
  readonly dropped: (copy: CommittingCopy) => void;
}

class CommittingCopy implements Copy, Row {
  readonly identity: ScopeIdentity;
  listed: ListedState | undefined;
  lastUsedMs: number;
  items: ReadonlyMap<string, Item>;
  isDropped = false;
  isWithheld: boolean;
  readonly #lists = new Set<ListUnderWay>();

  constructor(
    { identity, listed, lastUsedMs, isWithheld, items }: Row,
    private readonly parts: CopyParts,
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
    this.parts.touched(this, isWithheld !== undefined);
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
    return { items: this.items.size, bytes: 0 };
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

/** The contract of src/store in memory, with its commits. */
class CommittingStore implements Store {
  readonly #copies = new Map<string, CommittingCopy>();
  readonly #changed = new Set<CommittingCopy>();
  readonly #touched = new Set<CommittingCopy>();
  readonly #copyParts: CopyParts = {
    flush: () => this.flush(),
    save: (copy) => this.#save(copy),
    changed: (copy) => this.#queueGrew(copy),
    hasChanged: (copy) => this.#changed.has(copy),
    touched: (copy, isUrgent) => this.#holdBack(copy, isUrgent),
    dropped: (copy) => this.#forget(copy),
  };
  #queued = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;

  constructor(
    private readonly disk: MemoryDisk,
    private readonly clock: Clock,
  ) {
    for (const [id, row] of disk.committed) this.#copies.set(id, new CommittingCopy(row, this.#copyParts));
  }

  copies(): Copy[] {
    return [...this.#copies.values()];
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    const copy = new CommittingCopy(
      { identity, listed: undefined, lastUsedMs: nowMs, isWithheld: false, items: new Map() },
      this.#copyParts,
    );
    this.#copies.set(text, copy);
    this.#save(copy);
    return copy;
  }

  #forget(copy: CommittingCopy): void {
    const text = identityText(copy.identity);
    this.#changed.delete(copy);
    this.#touched.delete(copy);
    this.#copies.delete(text);
    this.disk.committed.delete(text);
  }

  #queueGrew(copy: CommittingCopy): void {
    this.#changed.add(copy);
    this.#queued++;
    if (this.#queued >= MAX_QUEUED) return this.flush();
    if (this.#cancelCommit !== undefined) return;
    const waitMs = COMMIT_EVERY_MS - (this.clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = this.clock.after(waitMs, () => this.flush());
  }

  #holdBack(copy: CommittingCopy, isUrgent: boolean): void {
    this.#touched.add(copy);
    if (isUrgent) return this.settle();
    this.#cancelBookmarks ??= this.clock.after(BOOKMARKS_EVERY_MS, () => this.settle());
  }

  putResponse(): void {}

  getResponse(): undefined {
    return undefined;
  }

  deleteResponse(): void {}

  deleteResponsesForPath(): void {}

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const copy of [...this.#copies.values()])
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
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

  excessBytes(): number {
    return 0;
  }

  onExcess(): void {}

  usage(): ReadonlyMap<Copy, number> {
    return new Map(this.copies().map((copy) => [copy, copy.size().bytes]));
  }

  flush(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#queued === 0) return;
    this.#queued = 0;
    for (const copy of this.#touched) this.#changed.add(copy);
    this.#touched.clear();
    for (const copy of this.#changed) this.#save(copy);
    this.#changed.clear();
    this.#lastCommitMs = this.clock.monotonicMs();
  }

  settle(): void {
    this.flush();
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    for (const copy of this.#touched) this.#save(copy);
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

  #save(copy: CommittingCopy): void {
    this.disk.save(identityText(copy.identity), copy);
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
