/**
 * Everything the node remembers, in one SQLite file.
 *
 * Group commit: a write that comes after a quiet second is committed at once,
 * so a quiet node loses nothing when it is killed; in a busy one commits come
 * at most once a second or every hundred rows, so that a card is not worn and
 * the event loop never stalls. Readers commit what is queued first.
 *
 * Invariants:
 * - Objects and their scope's resourceVersion move in one transaction.
 * - `scopes.head` is NULL until a list was committed whole; rows of a list in
 *   the making belong to a number that no scope points to yet.
 * - A row whose checksum fails is never served, and a scope that lost a row is
 *   not whole any more: it loses its listed state and will be listed again.
 *   Offline that costs the scope; a list that is silently short would tell
 *   kubelet to stop pods.
 * - No disk makes a caller fail: a database that cannot be written goes on in
 *   memory with what could be read, one that is damaged is set aside and
 *   replaced by what could be believed.
 */

import { SQLiteError, type Database } from "bun:sqlite";
import { statSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type {
  Copy,
  ListWriter,
  ResponseKey,
  ScopeIdentity,
  ScopeSnapshot,
  Store,
  StoredResponse,
  StoreStatus,
} from "./contract.ts";
import { identityText } from "./contract.ts";
import { StoredCopy, type CopyParts } from "./copy.ts";
import { Dictionaries } from "./dictionaries.ts";
import { ScopeDamagedError } from "./errors.ts";
import { isHeartbeat } from "./heartbeat.ts";
import { StagedList } from "./list-writer.ts";
import {
  clearRows,
  deleteRow,
  findMark,
  findRow,
  isSame,
  itemOf,
  pagesOf,
  placesOf,
  putRow,
  rowOf,
  tallyOf,
  type ObjectRow,
  type RowPacking,
  type Tally,
} from "./object-rows.ts";
import { checksum, pack, unpack } from "./packing.ts";
import {
  isDiskTrouble,
  isInPlace,
  moveToDisk,
  openForReading,
  openInProcess,
  openPlace,
  openVolatile,
  reasonOf,
  removeVolatile,
  volatileBytes,
  type Opened,
  type PlaceOptions,
} from "./place.ts";
import { Responses } from "./responses.ts";
import { salvage } from "./salvage.ts";
import { pragma } from "./schema.ts";
import {
  byDispensability,
  deleteScope,
  insertScope,
  readScopes,
  saveHead,
  saveMarks,
  type StoredScope,
} from "./scope-rows.ts";
import { openSealer, type Sealer } from "./seal.ts";
import { Readers, copiedSnapshot, readingSnapshot, type SnapshotParts } from "./snapshot.ts";

/** How a store is opened. */
export interface StoreOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Beyond it recorded answers go first, then scopes by last use, what kubelet lives on last. */
  readonly maxBytes: number;
  /** For looking at a file that a daemon may be using: nothing is ever written. Default false. */
  readonly isReadOnly?: boolean;
  /** Which scopes' objects are sealed. Default: Secrets. */
  readonly isSealed?: (identity: ScopeIdentity) => boolean;
}

interface Queued {
  readonly copy: StoredCopy;
  readonly key: string;
  /** Undefined deletes it. */
  readonly item: Item | undefined;
}

const COMMIT_EVERY_MS = 1_000;
const MAX_QUEUED = 100;
const MAX_QUEUED_BYTES = 1024 * 1024;
/** What only moves time waits so long for company; a lost link writes it at once. */
const BOOKMARKS_EVERY_MS = 1_200_000;
const RETRY_DISK_MS = 60_000;
const TRIM_EVERY_MS = 60_000;
const KEPT_IN_QUARANTINE = 20;
const MAX_QUARANTINED_BYTES = 64 * 1024;

/** Opens the store of a state folder; never throws because of the disk, unless it is opened to be read only. */
export function openStore(options: StoreOptions): SqliteStore {
  return new SqliteStore(options);
}

/** The store on SQLite. */
export class SqliteStore implements Store {
  readonly #sealer: Sealer;
  readonly #readers: Readers;
  readonly #responses: Responses;
  readonly #dictionaries = new Dictionaries(() => this.#db);
  readonly #isSealed: (identity: ScopeIdentity) => boolean;
  #opened: Opened;
  /** By identity; those on disk first, then as they are opened. */
  #copies = new Map<string, StoredCopy>();
  readonly #copyParts: CopyParts = {
    beginList: (copy) => this.#beginList(copy),
    enqueue: (...args) => this.#enqueue(...args),
    get: (copy, namespace, name) => this.#getObject(copy, namespace, name),
    snapshot: (copy) => this.#snapshot(copy),
    size: (copy) => this.#sizeOf(copy),
    touched: (_, isTold) => this.#scheduleBookmarks(isTold ? COMMIT_EVERY_MS : BOOKMARKS_EVERY_MS),
    drop: (copy) => this.#dropCopy(copy),
  };
  /** Neither is ever given out twice in the life of a file. */
  #nextId = 1;
  #nextRows = 1;
  #queue = new Map<string, Queued>();
  #queuedBytes = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #lastTrimMs: number;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;
  #bookmarksAtMs = 0;
  #cancelRetry: (() => void) | undefined;
  #quarantined = 0;
  #commits = 0;
  #rowsWritten = 0;
  /** What a transaction changes in memory, once it is committed. */
  #afterCommit: (() => void)[] = [];
  #isLoaded = false;
  #isClosed = false;

  constructor(private readonly options: StoreOptions) {
    const { stateDir, clock } = options;
    const isReadOnly = options.isReadOnly === true;
    const place = isReadOnly ? openForReading(stateDir) : openPlace(this.#placeOptions());
    this.#opened = place;
    this.#sealer = openSealer(stateDir, isReadOnly);
    this.#isSealed = options.isSealed ?? isSecret;
    this.#readers = new Readers(clock);
    this.#responses = new Responses({
      database: () => this.#db,
      sealer: this.#sealer,
      write: (task) => this.#write(task),
      quarantine: (what, value) => this.#quarantine(what, value),
    });
    this.#lastTrimMs = clock.monotonicMs();
    this.#load();
    if (place.quarantined > 0) this.#count(place.quarantined);
    if (this.#opened.mode === "memory") this.#scheduleRetry();
  }

  // ---- copies ----

  copies(): Copy[] {
    return [...this.#copies.values()];
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    const copy = this.#remember({
      id: this.#nextId++,
      identity,
      rows: 0,
      listed: undefined,
      tally: { objects: 0, digest: 0 },
      lastUsedMs: nowMs,
    });
    this.#write(() => {
      insertScope(this.#db, identity, nowMs, copy.id);
      saveNumber(this.#db, "next_copy", this.#nextId);
    });
    return copy;
  }

  #dropCopy(copy: StoredCopy): void {
    this.#unqueue(copy);
    this.#copies.delete(identityText(copy.identity));
    const { rows } = copy;
    const staged = [...copy.lists].flatMap((list) => list.orphaned() ?? []);
    copy.isDropped = true;
    copy.forgetRows();
    this.#write(() => {
      for (const number of [rows, ...staged]) if (number !== 0) this.#clear(number);
      deleteScope(this.#db, copy.id);
    });
  }

  #beginList(copy: StoredCopy): ListWriter {
    this.flush();
    const stagingRows = this.#nextRows++;
    const list = new StagedList({
      database: () => this.#db,
      log: this.options.log,
      write: (task) => this.#write(task),
      read: (task) =>
        this.#read(task, () => {
          throw new ScopeDamagedError(`Cannot keep a list of ${copy.identity.resource}: the database cannot be read`);
        }),
      scope: copy,
      stagingRows,
      packing: (rows, first) => this.#packing(copy, rows, first),
      saveDictionary: (rows) => this.#dictionaries.save(rows),
      stagingBegins: () => saveNumber(this.#db, "next_rows", this.#nextRows),
      flush: () => this.flush(),
      countRows: (count) => (this.#rowsWritten += count),
      lostRow: (row) => this.#lose(copy, row),
      save: (listed, rows, tally) => this.#saveWhole({ ...stateOf(copy), listed, rows, tally }, copy),
      ended: (ended) => {
        copy.lists.delete(ended);
        if (copy.rows !== stagingRows) this.#dictionaries.forget(stagingRows);
      },
    });
    copy.lists.add(list);
    return list;
  }

  #getObject(copy: StoredCopy, namespace: string, name: string): Item | undefined {
    if (copy.listed === undefined) return undefined;
    const key = objectKey(namespace, name);
    const queued = this.#queue.get(`${copy.id}\n${key}`);
    if (queued !== undefined) return queued.item;
    return this.#read(() => {
      const row = findRow(this.#db, copy.rows, key);
      if (row === undefined) return undefined;
      const item = itemOf(row, this.#packing(copy, copy.rows));
      if (item === undefined) this.#lose(copy, row);
      return item;
    }, nothing);
  }

  #snapshot(copy: StoredCopy): ScopeSnapshot | undefined {
    if (this.#hasQueued(copy)) this.flush();
    const { listed, rows, tally } = copy;
    if (listed === undefined) return undefined;
    const damaged = (row: ObjectRow | undefined) => {
      if (copy.rows === rows) this.#lose(copy, row);
      return new ScopeDamagedError(`Cannot read ${copy.identity.resource}: kept rows are damaged`);
    };
    return this.#read(() => {
      const parts: SnapshotParts = { listed, packing: this.#packing(copy, rows), tally: { ...tally }, damaged };
      try {
        return this.#opened.isConcurrent ? this.#readingSnapshot(parts) : copiedSnapshot(this.#db, parts);
      } catch (error) {
        if (error instanceof ScopeDamagedError) return undefined;
        throw error;
      }
    }, nothing);
  }

  // ---- recorded answers and values ----

  putResponse(key: ResponseKey, response: StoredResponse, { isSecret }: { readonly isSecret: boolean }): void {
    this.#responses.put(key, response, isSecret);
    this.#queueGrew();
  }

  getResponse(key: ResponseKey): StoredResponse | undefined {
    return this.#read(() => this.#responses.get(key), nothing);
  }

  deleteResponse(key: ResponseKey): void {
    this.#responses.put(key, undefined, false);
    this.#queueGrew();
  }

  deleteResponsesForPath(principal: string, path: string): void {
    for (const key of this.#read(() => this.#responses.keysForPath(principal, path), none)) this.deleteResponse(key);
  }

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const copy of [...this.#copies.values()])
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
    // A recorded answer has no scope; it goes when everything of its principal goes.
    if (
      !matches({
        principal,
        group: "",
        version: "",
        resource: "",
        namespace: "",
        fieldSelector: "",
        labelSelector: "",
        representation: "",
      })
    )
      return;
    for (const { key } of this.listResponses()) if (key.principal === principal) this.deleteResponse(key);
    this.flush();
  }

  listResponses(): {
    readonly key: ResponseKey;
    readonly status: number;
    readonly sizeBytes: number;
    readonly storedAtMs: number;
  }[] {
    this.flush();
    return this.#read(() => this.#responses.list(), none);
  }

  getValue(name: string): Uint8Array | undefined {
    return this.#read(() => {
      const row = this.#db.query("SELECT packing, checksum, value FROM kept_values WHERE name = ?").get(name) as {
        packing: number;
        checksum: number;
        value: Uint8Array;
      } | null;
      if (row === null) return undefined;
      const value =
        checksum(row.value, `${name}\n${row.packing}`) === row.checksum ? unpack(row, name, this.#sealer) : undefined;
      if (value !== undefined) return value;
      this.#quarantine(`value ${name}`, row.value);
      this.#write(() => void this.#db.query("DELETE FROM kept_values WHERE name = ?").run(name));
      return undefined;
    }, nothing);
  }

  putValue(name: string, value: Uint8Array, options: { readonly isSecret?: boolean } = {}): void {
    const before = this.getValue(name);
    if (before !== undefined && Buffer.from(before).equals(value)) return;
    const { packing, value: packed } = pack(value, name, {
      sealer: options.isSecret === true ? this.#sealer : undefined,
    });
    this.#write(
      () =>
        void this.#db
          .query("INSERT OR REPLACE INTO kept_values (name, packing, checksum, value) VALUES (?, ?, ?, ?)")
          .run(name, packing, checksum(packed, `${name}\n${packing}`), packed),
    );
  }

  deleteValue(name: string): void {
    if (this.getValue(name) === undefined) return;
    this.#write(() => void this.#db.query("DELETE FROM kept_values WHERE name = ?").run(name));
  }

  valueNames(prefix: string): string[] {
    return this.#read(
      () =>
        (
          this.#db
            .query("SELECT name FROM kept_values WHERE substr(name, 1, ?) = ? ORDER BY name")
            .all(prefix.length, prefix) as { name: string }[]
        ).map(({ name }) => name),
      none,
    );
  }

  keyedHash(text: string): string {
    return this.#sealer.hash(text);
  }

  // ---- commits ----

  flush(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#isClosed || (this.#queue.size === 0 && this.#responses.queued === 0)) return;
    const queue = [...this.#queue.values()];
    const responses = this.#responses.takeQueue();
    this.#queue.clear();
    this.#queuedBytes = 0;
    const touched = new Set(queue.map(({ copy }) => copy));
    for (const scope of this.#copies.values()) if (scope.isTouched) touched.add(scope);
    let written = 0;
    const tallies = new Map<StoredCopy, Tally>();
    const isDone = this.#write(() => {
      written = 0;
      for (const scope of touched) tallies.set(scope, { ...scope.tally });
      for (const { copy: scope, key, item } of queue)
        written += Number(this.#writeObject(scope, key, item, tallies.get(scope)!));
      for (const [scope, tally] of tallies) saveMarks(this.#db, { ...stateOf(scope), tally });
      for (const response of responses) written += Number(this.#responses.write(response));
    });
    this.#lastCommitMs = this.options.clock.monotonicMs();
    if (isDone) {
      this.#rowsWritten += written;
      for (const [scope, tally] of tallies) {
        if (scope.listed === undefined) continue;
        scope.tally = tally;
        scope.isTouched = false;
      }
    } else {
      // What was said of them cannot be kept anywhere: their rows would be older than their resourceVersion.
      for (const { copy } of queue) this.#unlist(copy);
    }
    if (this.#responses.isHoldingBack) this.#scheduleBookmarks(BOOKMARKS_EVERY_MS);
    this.#maintain();
  }

  settle(): void {
    if (this.#isClosed) return;
    this.flush();
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    const touched = [...this.#copies.values()].filter(({ isTouched }) => isTouched);
    if (touched.length === 0 && !this.#responses.isHoldingBack) return;
    const isDone = this.#write(() => {
      for (const scope of touched) saveMarks(this.#db, scope);
      this.#responses.writeHeldBack();
    });
    if (!isDone) return;
    for (const scope of touched) scope.isTouched = false;
    this.#responses.forgetHeldBack();
  }

  verify(): { readonly checked: number; readonly damaged: number } {
    this.flush();
    let checked = 0;
    let damaged = 0;
    for (const scope of [...this.#copies.values()]) {
      if (scope.listed === undefined) continue;
      const found = this.#read(
        () => this.#verifyScope(scope),
        () => ({ checked: 1, damaged: 1 }),
      );
      checked += found.checked;
      damaged += found.damaged;
    }
    for (const { key } of this.listResponses()) {
      checked++;
      if (this.getResponse(key) === undefined) damaged++;
    }
    return { checked, damaged };
  }

  /**
   * Gives way when the file outgrows its quota: recorded answers first, the
   * oldest before the newer, then scopes by last use, what kubelet lives on
   * last. Called by the store itself after commits, at most once a minute.
   */
  trim(): void {
    const { maxBytes, log } = this.options;
    const limit = this.#opened.mode === "disk" ? maxBytes : volatileBytes(maxBytes);
    const isBeyond = () =>
      this.#read(
        () => usedBytes(this.#db) > limit,
        () => false,
      );
    if (!isBeyond()) return;
    const answers = this.#read(() => this.#responses.list(), none).sort((a, b) => a.storedAtMs - b.storedAtMs);
    for (let at = 0; at < answers.length && isBeyond(); at += MAX_QUEUED) {
      this.#write(() => {
        for (const { key } of answers.slice(at, at + MAX_QUEUED))
          this.#responses.write({ key, response: undefined, isSecret: false });
      });
    }
    const scopes = [...this.#copies.values()].filter(({ listed, lists }) => listed !== undefined && lists.size === 0);
    for (const scope of scopes.sort(byDispensability)) {
      if (!isBeyond()) return;
      log.warn("store beyond its quota: a scope's copy is dropped", {
        resource: scope.identity.resource,
        objects: scope.tally.objects,
      });
      this.#unlist(scope);
    }
  }

  status(): StoreStatus {
    const { mode, reason, path } = this.#opened;
    const counts = this.#read(
      () => ({ objects: countOf(this.#db, "objects"), responses: countOf(this.#db, "responses") }),
      () => ({ objects: 0, responses: 0 }),
    );
    return {
      mode,
      reason,
      path,
      sizeBytes: sizeOf(path) + sizeOf(`${path}-wal`),
      scopes: this.#copies.size,
      ...counts,
      quarantined: this.#quarantined,
      commits: this.#commits,
      rowsWritten: this.#rowsWritten,
      sealing: this.#sealer.source,
    };
  }

  #sizeOf({ rows }: StoredCopy): { readonly items: number; readonly bytes: number } {
    if (rows === 0) return { items: 0, bytes: 0 };
    return this.#read(
      () =>
        this.#db
          .query("SELECT count(*) AS items, coalesce(sum(size), 0) AS bytes FROM objects WHERE rows = ?")
          .get(rows) as { items: number; bytes: number },
      () => ({ items: 0, bytes: 0 }),
    );
  }

  close(): void {
    if (this.#isClosed) return;
    this.settle();
    // The last chance for what was only in memory.
    if (this.#opened.mode === "memory" && this.options.isReadOnly !== true) this.#returnToDisk();
    this.#isClosed = true;
    this.#cancelCommit?.();
    this.#cancelRetry?.();
    this.#cancelBookmarks?.();
    this.#readers.close();
    this.#db.close();
    if (this.#opened.mode === "memory") removeVolatile(this.#opened.path);
  }

  // ---- reading and writing rows ----

  get #db(): Database {
    return this.#opened.database;
  }

  #packing(scope: StoredCopy, rows: number, first?: Uint8Array): RowPacking {
    const { isSealed } = scope;
    return {
      rows,
      sealer: this.#sealer,
      isSealed,
      dictionary: isSealed ? undefined : this.#dictionaries.of(rows, first),
    };
  }

  #enqueue(
    scope: StoredCopy,
    meta: Item["meta"],
    item: Item | undefined,
    resourceVersion: string,
    nowMs: number,
  ): void {
    if (scope.listed === undefined) return;
    const key = objectKey(meta.namespace, meta.name);
    const isLazy =
      item !== undefined &&
      scope.identity.resource === "nodes" &&
      isHeartbeat(this.#getObject(scope, meta.namespace, meta.name), item);
    this.#queue.set(`${scope.id}\n${key}`, { copy: scope, key, item });
    this.#queuedBytes += item?.bytes.length ?? 0;
    for (const list of scope.lists) list.overtake(key, resourceVersion);
    scope.listed = { ...scope.listed, resourceVersion, changedAt: resourceVersion, lastContactMs: nowMs };
    this.#queueGrew(isLazy);
  }

  /** @param isLazy what was queued can wait as long as bookmarks do. */
  #queueGrew(isLazy = false): void {
    if (
      this.#queue.size + this.#responses.queued >= MAX_QUEUED ||
      this.#queuedBytes + this.#responses.queuedBytes >= MAX_QUEUED_BYTES
    )
      return this.flush();
    if (isLazy) return this.#scheduleBookmarks(BOOKMARKS_EVERY_MS);
    if (this.#cancelCommit !== undefined) return;
    const { clock } = this.options;
    const waitMs = COMMIT_EVERY_MS - (clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = clock.after(waitMs, () => this.flush());
  }

  #scheduleBookmarks(withinMs: number): void {
    const atMs = this.options.clock.monotonicMs() + withinMs;
    if (this.#cancelBookmarks !== undefined && this.#bookmarksAtMs <= atMs) return;
    this.#cancelBookmarks?.();
    this.#bookmarksAtMs = atMs;
    this.#cancelBookmarks = this.options.clock.after(withinMs, () => this.settle());
  }

  #hasQueued(scope: StoredCopy): boolean {
    for (const queued of this.#queue.values()) if (queued.copy === scope) return true;
    return false;
  }

  #unqueue(scope: StoredCopy): void {
    for (const [text, queued] of this.#queue) if (queued.copy === scope) this.#queue.delete(text);
  }

  /** @returns whether a row was written. */
  #writeObject(scope: StoredCopy, key: string, item: Item | undefined, tally: Tally): boolean {
    const { rows } = scope;
    // Lost while this waited: it will be listed again.
    if (scope.listed === undefined) return false;
    if (item === undefined) return deleteRow(this.#db, rows, key, tally);
    const packing = this.#packing(scope, rows, item.bytes);
    const before = findMark(this.#db, rows, key);
    if (before !== undefined && isSame(before, item, scope.isSealed ? this.#sealer : undefined)) return false;
    this.#dictionaries.save(rows);
    putRow(this.#db, rows, rowOf(item, packing), tally);
    return true;
  }

  /** Within a transaction: the scope as it is to be; what is remembered follows once that is written. */
  #saveWhole(next: StoredScope, scope: StoredCopy): void {
    saveHead(this.#db, next);
    saveMarks(this.#db, next);
    this.#afterCommit.push(() => {
      scope.listed = next.listed;
      scope.rows = next.rows;
      scope.tally = next.tally;
      scope.isTouched = false;
    });
  }

  #readingSnapshot(parts: SnapshotParts): ScopeSnapshot {
    const opened = this.#opened;
    const reader = this.#readers.take(opened);
    const release = () => {
      try {
        reader.run("ROLLBACK");
        this.#readers.give(reader, opened);
      } catch {
        reader.close();
      }
    };
    try {
      return readingSnapshot(reader, parts, release);
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  #verifyScope(scope: StoredCopy): { readonly checked: number; readonly damaged: number } {
    const { rows } = scope;
    const packing = this.#packing(scope, rows);
    let checked = 0;
    const broken: ObjectRow[] = [];
    for (const page of pagesOf(this.#db, placesOf(this.#db, rows, "arrival"))) {
      for (const row of page) {
        checked++;
        if (itemOf(row, packing) === undefined) broken.push(row);
      }
    }
    const { objects, digest } = tallyOf(this.#db, rows);
    const isShort = objects !== scope.tally.objects || digest !== scope.tally.digest;
    for (const row of broken.slice(1)) this.#quarantine(`${scope.identity.resource} ${row.key}`, row.value);
    if (broken.length > 0 || isShort) this.#lose(scope, broken[0]);
    return { checked, damaged: Math.max(broken.length, Number(isShort)) };
  }

  // ---- damage ----

  /** A scope that lost a row cannot be served as a whole any more. */
  #lose(scope: StoredCopy, row: ObjectRow | undefined): void {
    this.#quarantine(`${scope.identity.resource} ${row?.key ?? "rows missing"}`, row?.value);
    this.#unlist(scope);
  }

  #unlist(scope: StoredCopy): void {
    const { rows } = scope;
    this.#unqueue(scope);
    scope.forgetRows();
    this.#write(() => {
      if (rows !== 0) this.#clear(rows);
      saveHead(this.#db, scope);
      saveMarks(this.#db, scope);
    });
  }

  #clear(rows: number): void {
    clearRows(this.#db, rows);
    this.#dictionaries.forget(rows);
  }

  #quarantine(what: string, value: Uint8Array | undefined): void {
    this.options.log.error("damaged row set aside", { what });
    const kept = value === undefined || value.length > MAX_QUARANTINED_BYTES ? null : value;
    this.#write(() => {
      this.#db
        .query("INSERT INTO quarantine (at, what, value) VALUES (?, ?, ?)")
        .run(this.options.clock.nowMs(), what, kept);
      this.#db
        .query("DELETE FROM quarantine WHERE rowid NOT IN (SELECT rowid FROM quarantine ORDER BY rowid DESC LIMIT ?)")
        .run(KEPT_IN_QUARANTINE);
    });
    this.#count(1);
  }

  /** The count outlives the process: it is of the folder. */
  #count(more: number): void {
    this.#quarantined += more;
    this.#write(() => saveNumber(this.#db, "quarantined", this.#quarantined));
  }

  // ---- the database, and what becomes of it ----

  /** Runs a task in a transaction. A database that fails is replaced and the task runs once more, there. @returns whether it was done. */
  #write(task: () => void): boolean {
    if (this.options.isReadOnly === true) return false;
    for (let attempt = 0; ; attempt++) {
      this.#afterCommit = [];
      try {
        this.#db.transaction(task)();
      } catch (error) {
        this.#dictionaries.unsave();
        if (!(error instanceof SQLiteError)) throw error;
        if (attempt === 2) {
          this.options.log.error("write given up", { error: reasonOf(error) });
          return false;
        }
        this.#replace(error, attempt > 0);
        continue;
      }
      this.#commits++;
      for (const step of this.#afterCommit.splice(0)) step();
      return true;
    }
  }

  /** Runs a task that reads. A database that fails is replaced, and the answer is `otherwise`. */
  #read<T>(task: () => T, otherwise: () => T): T {
    try {
      return task();
    } catch (error) {
      if (!(error instanceof SQLiteError)) throw error;
      if (this.options.isReadOnly !== true) this.#replace(error, false);
      return otherwise();
    }
  }

  /** Goes on with another database, and takes along what can be read. @param isLastResort gives up files altogether. */
  #replace(error: unknown, isLastResort: boolean): void {
    const reason = reasonOf(error);
    const old = this.#opened;
    this.#readers.close();
    try {
      if (!isLastResort && !isDiskTrouble(error) && old.mode === "disk") this.#setAside(reason);
      else this.#leaveDisk(isLastResort ? openInProcess(reason) : openVolatile(reason));
    } catch (another) {
      if (!(another instanceof SQLiteError)) throw another;
      this.#leaveDisk(openInProcess(reason));
    }
    if (this.#opened.mode === "memory") this.#scheduleRetry();
  }

  #setAside(reason: string): void {
    this.options.log.error("database damaged, it is set aside", { reason });
    // Closed first: closing removes the log by its name, which will be another file's.
    this.#db.close();
    const place = openPlace(this.#placeOptions());
    this.#adopt(place);
    this.#count(Math.max(1, place.quarantined));
  }

  #leaveDisk(opened: Opened): void {
    this.options.log.error("database cannot be written, carrying on in memory", { reason: opened.reason });
    const old = this.#opened;
    salvage(old.database, opened.database, volatileBytes(this.options.maxBytes));
    this.#adopt(opened);
    old.database.close();
    if (old.mode === "memory") removeVolatile(old.path);
  }

  /** Goes on with this database. A scope whose rows are not all in it, as they were last written, is known, and nothing of it is. */
  #adopt(opened: Opened): void {
    this.#opened = opened;
    this.#dictionaries.unsave();
    // At the start nothing is known yet: it is about to be read.
    if (!this.#isLoaded) return;
    this.#db.transaction(() => {
      const stored = new Map(readScopes(this.#db).scopes.map((scope) => [scope.id, scope]));
      const known = new Set([...this.#copies.values()].map(({ id }) => id));
      for (const { id, rows } of stored.values()) {
        if (known.has(id)) continue;
        clearRows(this.#db, rows);
        deleteScope(this.#db, id);
      }
      for (const scope of this.#copies.values()) {
        const found = stored.get(scope.id);
        if (found === undefined) insertScope(this.#db, scope.identity, scope.lastUsedMs, scope.id);
        if (
          found?.rows === scope.rows &&
          found.tally.objects === scope.tally.objects &&
          found.tally.digest === scope.tally.digest
        )
          continue;
        if (found !== undefined) clearRows(this.#db, found.rows);
        scope.forgetRows();
        saveHead(this.#db, scope);
        saveMarks(this.#db, scope);
      }
    })();
    for (const [text, { copy }] of this.#queue) if (copy.listed === undefined) this.#queue.delete(text);
  }

  #scheduleRetry(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = this.options.clock.after(RETRY_DISK_MS, () => this.#returnToDisk());
  }

  /** Moves back once the folder can be written again. */
  #returnToDisk(): void {
    if (this.#isClosed || this.#opened.mode !== "memory") return;
    this.settle();
    const old = this.#opened;
    const moved = moveToDisk(this.options.stateDir, old.database);
    if (moved === undefined) return this.#scheduleRetry();
    this.#readers.close();
    this.#adopt(moved.opened);
    this.#sealer.keep(this.options.stateDir);
    old.database.close();
    removeVolatile(old.path);
    this.options.log.info("state folder can be written again");
  }

  /** Once a minute, behind a commit: is the file still there, and does it stay within its bounds? */
  #maintain(): void {
    const now = this.options.clock.monotonicMs();
    if (now - this.#lastTrimMs < TRIM_EVERY_MS || this.options.isReadOnly === true) return;
    this.#lastTrimMs = now;
    // SQLite writes on into a file that was removed, and nobody would find it after a restart.
    if (!isInPlace(this.#opened)) {
      this.#replace(Object.assign(new Error("file removed"), { code: "ENOENT" }), false);
      this.#returnToDisk();
    }
    this.trim();
  }

  #placeOptions(): PlaceOptions {
    const { stateDir, log, clock, maxBytes } = this.options;
    return { stateDir, log, maxBytes, stamp: new Date(clock.nowMs()).toISOString().replaceAll(/[:.]/g, "-") };
  }

  #remember(stored: StoredScope): StoredCopy {
    const copy = new StoredCopy(stored, this.#isSealed(stored.identity), this.#copyParts);
    this.#copies.set(identityText(copy.identity), copy);
    return copy;
  }

  #load(): void {
    // A file that passes its check and still cannot be read is replaced; the second time it is an empty one.
    const found = this.#read(
      () => this.#readAll(),
      () => this.#readAll(),
    );
    this.#quarantined = found.quarantined;
    for (const scope of found.scopes) this.#remember(scope);
    this.#isLoaded = true;
    const last = (numbers: Iterable<number>) => Math.max(0, ...numbers);
    this.#nextRows = Math.max(
      found.nextRows,
      last([...found.counts.keys(), ...found.scopes.map(({ rows }) => rows)]) + 1,
    );
    this.#nextId = Math.max(found.nextCopy, last([...found.damaged, ...found.scopes.map(({ id }) => id)]) + 1);
    if (this.options.isReadOnly === true) return;
    for (const id of found.damaged) {
      this.#quarantine(`scope ${id}`, undefined);
      this.#write(() => deleteScope(this.#db, id));
    }
    for (const scope of [...this.#copies.values()]) {
      if (scope.listed !== undefined && (found.counts.get(scope.rows) ?? 0) !== scope.tally.objects)
        this.#lose(scope, undefined);
    }
    // Rows of lists that never came to their end.
    const used = new Set([...this.#copies.values()].map(({ rows }) => rows));
    const stray = [...found.counts.keys()].filter((rows) => !used.has(rows));
    if (stray.length > 0) this.#write(() => stray.forEach((rows) => this.#clear(rows)));
  }

  #readAll() {
    const counts = new Map(
      (
        this.#db.query("SELECT rows, count(*) AS n FROM objects GROUP BY rows").all() as { rows: number; n: number }[]
      ).map(({ rows, n }) => [rows, n]),
    );
    for (const { rows } of this.#db.query("SELECT rows FROM dictionaries").all() as { rows: number }[])
      if (!counts.has(rows)) counts.set(rows, 0);
    const numberOf = (name: string) =>
      (this.#db.query("SELECT n FROM counts WHERE name = ?").get(name) as { n: number } | null)?.n ?? 0;
    return {
      ...readScopes(this.#db),
      counts,
      quarantined: numberOf("quarantined"),
      nextCopy: numberOf("next_copy"),
      nextRows: numberOf("next_rows"),
    };
  }
}

function stateOf({ id, identity, rows, listed, tally, lastUsedMs }: StoredCopy): StoredScope {
  return { id, identity, rows, listed, tally, lastUsedMs };
}

/** Secrets never lie open on the card; neither do the tokens in them. */
function isSecret({ group, resource }: ScopeIdentity): boolean {
  return group === "" && (resource === "secrets" || resource === "serviceaccounts/token");
}

function saveNumber(database: Database, name: string, n: number): void {
  database.query("INSERT OR REPLACE INTO counts (name, n) VALUES (?, ?)").run(name, n);
}

function usedBytes(database: Database): number {
  return (pragma(database, "page_count") - pragma(database, "freelist_count")) * pragma(database, "page_size");
}

function countOf(database: Database, table: "objects" | "responses"): number {
  return (database.query(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function nothing(): undefined {
  return undefined;
}

function none(): never[] {
  return [];
}
