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
 * - A row whose checksum fails is never served: its scope loses its listed
 *   state and will be listed again.
 */

import { Database } from "bun:sqlite";
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { ListedState, ListWriter, ResponseKey, ScopeIdentity, ScopeRecord, ScopeSnapshot, Store, StoredResponse, StoreStatus } from "./contract.ts";
import { StagedList } from "./list-writer.ts";
import { checksum, pack, unpack } from "./packing.ts";
import { isDiskTrouble, openForReading, openPlace, openVolatile, removeVolatile, type Opened } from "./place.ts";
import { openSealer, type Sealer } from "./seal.ts";

/** How a store is opened. */
export interface StoreOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Beyond it recorded answers go first, then scopes by last use. */
  readonly maxBytes: number;
  /** For looking at a file that a daemon may be using: nothing is ever written. */
  readonly isReadOnly?: boolean;
}

/** A row of the scope failed its checksum while it was read; the scope is unlisted now. */
export class ScopeDamagedError extends EdgeError {
  override readonly name = "ScopeDamagedError";
  readonly code = "SCOPE_DAMAGED";
}

/** A row of `objects`. */
export interface ObjectRow {
  readonly key: string;
  readonly uid: string;
  readonly resource_version: string;
  readonly size: number;
  readonly packing: number;
  readonly checksum: number;
  readonly value: Uint8Array;
}

interface ScopeEntry {
  readonly id: number;
  readonly identity: ScopeIdentity;
  /** The number its object rows carry; 0 when it has none. */
  rows: number;
  listed: ListedState | undefined;
  lastUsedMs: number;
  isTouched: boolean;
}

const COMMIT_EVERY_MS = 1_000;
const MAX_QUEUED = 100;
const BOOKMARKS_EVERY_MS = 600_000;
const RETRY_DISK_MS = 60_000;
const TRIM_EVERY_MS = 60_000;
const IDLE_READERS = 2;
const ROW = "key, uid, resource_version, size, packing, checksum, value";

/** Opens the store of a state folder; never throws because of the disk. */
export function openStore(options: StoreOptions): SqliteStore {
  return new SqliteStore(options);
}

/** The store on SQLite. */
export class SqliteStore implements Store {
  #opened: Opened;
  #sealer: Sealer;
  #scopes = new Map<number, ScopeEntry>();
  #idByIdentity = new Map<string, number>();
  #nextRows = 1;
  #queue = new Map<string, { readonly entry: ScopeEntry; readonly key: string; readonly item: Item | undefined }>();
  #responses = new Map<string, { readonly key: ResponseKey; readonly response: StoredResponse | undefined; readonly isSecret: boolean }>();
  #storedAt = new Map<string, number>();
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;
  #cancelRetry: (() => void) | undefined;
  #lastTrimMs = 0;
  #readers: Database[] = [];
  #quarantined: number;
  #commits = 0;
  #rowsWritten = 0;
  #isClosed = false;

  constructor(private readonly options: StoreOptions) {
    const { stateDir, log, clock } = options;
    this.#opened = options.isReadOnly === true ? openForReading(stateDir) : openPlace(stateDir, log, new Date(clock.nowMs()).toISOString().replaceAll(/[:.]/g, "-"));
    this.#sealer = openSealer(stateDir, options.isReadOnly === true);
    this.#quarantined = this.#opened.quarantined;
    this.#load();
    if (this.#opened.mode === "memory") this.#scheduleRetry();
  }

  // ---- scopes ----

  scopes(): ScopeRecord[] {
    return [...this.#scopes.values()].map(recordOf);
  }

  openScope(identity: ScopeIdentity, nowMs: number): ScopeRecord {
    const text = identityText(identity);
    const known = this.#idByIdentity.get(text);
    if (known !== undefined) return recordOf(this.#scopes.get(known)!);
    let id = 0;
    this.#write(() => {
      id = Number(this.#db.query("INSERT INTO scopes (identity, last_used) VALUES (?, ?)").run(text, nowMs).lastInsertRowid);
    });
    const entry: ScopeEntry = { id, identity, rows: 0, listed: undefined, lastUsedMs: nowMs, isTouched: false };
    this.#scopes.set(id, entry);
    this.#idByIdentity.set(text, id);
    return recordOf(entry);
  }

  dropScope(scopeId: number): void {
    const entry = this.#scopes.get(scopeId);
    if (entry === undefined) return;
    this.#unqueue(entry);
    this.#scopes.delete(scopeId);
    this.#idByIdentity.delete(identityText(entry.identity));
    this.#write(() => {
      this.#db.query("DELETE FROM objects WHERE scope = ?").run(entry.rows);
      this.#db.query("DELETE FROM scopes WHERE id = ?").run(scopeId);
    });
  }

  listedState(scopeId: number): ListedState | undefined {
    return this.#scopes.get(scopeId)?.listed;
  }

  touchScope(scopeId: number, { resourceVersion, lastContactMs, lastUsedMs }: { readonly resourceVersion?: string; readonly lastContactMs?: number; readonly lastUsedMs?: number }): void {
    const entry = this.#scopes.get(scopeId);
    if (entry === undefined) return;
    if (lastUsedMs !== undefined) entry.lastUsedMs = lastUsedMs;
    if (entry.listed !== undefined) {
      entry.listed = { ...entry.listed, ...(resourceVersion === undefined ? {} : { resourceVersion }), ...(lastContactMs === undefined ? {} : { lastContactMs }) };
    }
    entry.isTouched = true;
    this.#cancelBookmarks ??= this.options.clock.after(BOOKMARKS_EVERY_MS, () => this.settle());
  }

  // ---- objects ----

  beginList(scopeId: number): ListWriter {
    const entry = this.#scopes.get(scopeId);
    if (entry === undefined) throw new RangeError(`Cannot begin a list: no scope ${scopeId}`);
    this.flush();
    const rows = this.#nextRows++;
    return new StagedList({
      database: () => this.#db,
      write: (task) => this.#write(task),
      stagingRows: rows,
      current: () => ({ rows: entry.rows, listed: entry.listed }),
      packItem: (item, into) => this.#pack(entry, item, into),
      readRow: (row, from) => this.#readRow(entry, row, from),
      countRows: (count) => (this.#rowsWritten += count),
      beforeCommit: () => this.flush(),
      committed: (listed, newRows) => {
        entry.listed = listed;
        entry.rows = newRows;
        entry.isTouched = false;
        this.#saveScope(entry);
      },
      isGone: () => !this.#scopes.has(scopeId),
    });
  }

  putObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(scopeId, item, item, resourceVersion, nowMs);
  }

  deleteObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    this.#enqueue(scopeId, item, undefined, resourceVersion, nowMs);
  }

  getObject(scopeId: number, namespace: string, name: string): Item | undefined {
    const entry = this.#scopes.get(scopeId);
    if (entry?.listed === undefined) return undefined;
    const key = objectKey(namespace, name);
    const queued = this.#queue.get(`${scopeId}\n${key}`);
    if (queued !== undefined) return queued.item;
    const row = this.#db.query(`SELECT ${ROW} FROM objects WHERE scope = ? AND key = ?`).get(entry.rows, key) as ObjectRow | null;
    if (row === null) return undefined;
    return this.#readRow(entry, row, entry.rows);
  }

  snapshot(scopeId: number): ScopeSnapshot | undefined {
    this.flush();
    const entry = this.#scopes.get(scopeId);
    if (entry?.listed === undefined) return undefined;
    return this.#opened.path === ":memory:" ? this.#copyingSnapshot(entry, entry.listed) : this.#readingSnapshot(entry, entry.listed);
  }

  // ---- recorded answers and values ----

  putResponse(key: ResponseKey, response: StoredResponse, { isSecret }: { readonly isSecret: boolean }): void {
    this.#responses.set(responseText(key), { key, response, isSecret });
    this.#scheduleCommit();
  }

  getResponse(key: ResponseKey): StoredResponse | undefined {
    const queued = this.#responses.get(responseText(key));
    if (queued !== undefined) return queued.response;
    const row = this.#db.query("SELECT status, headers, body, stored_at FROM responses WHERE principal = ? AND target = ? AND accept = ?").get(key.principal, key.target, key.accept) as { status: number; headers: string; body: Uint8Array; stored_at: number } | null;
    if (row === null) return undefined;
    const hash = Buffer.from(row.body).toString("hex");
    const stored = this.#db.query("SELECT packing, value FROM bodies WHERE hash = ?").get(row.body) as { packing: number; value: Uint8Array } | null;
    const body = stored === null ? undefined : unpack(stored, hash, this.#sealer);
    if (body === undefined || this.#bodyHash(body, (stored!.packing & 2) !== 0, key) !== hash) {
      this.#quarantine(`answer ${key.target}`, stored?.value);
      this.deleteResponse(key);
      return undefined;
    }
    return { status: row.status, headers: JSON.parse(row.headers) as Record<string, string>, body, storedAtMs: this.#storedAt.get(responseText(key)) ?? row.stored_at };
  }

  deleteResponse(key: ResponseKey): void {
    this.#responses.set(responseText(key), { key, response: undefined, isSecret: false });
    this.#scheduleCommit();
  }

  deleteResponsesForPath(principal: string, path: string): void {
    for (const [text, { key }] of [...this.#responses]) if (key.principal === principal && pathOf(key.target) === path) this.#responses.delete(text);
    const rows = this.#db.query("SELECT target, accept FROM responses WHERE principal = ? AND target >= ? AND target < ?").all(principal, path, `${path}@`) as { target: string; accept: string }[];
    for (const { target, accept } of rows) if (pathOf(target) === path) this.deleteResponse({ principal, target, accept });
  }

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const entry of [...this.#scopes.values()]) if (entry.identity.principal === principal && matches(entry.identity)) this.dropScope(entry.id);
    // A recorded answer has no scope; it goes when everything of its principal goes.
    const nothing: ScopeIdentity = { principal, group: "", version: "", resource: "", namespace: "", fieldSelector: "", labelSelector: "", representation: "" };
    if (!matches(nothing)) return;
    for (const { key } of this.listResponses()) if (key.principal === principal) this.deleteResponse(key);
    this.flush();
  }

  listResponses(): { readonly key: ResponseKey; readonly status: number; readonly sizeBytes: number; readonly storedAtMs: number }[] {
    this.flush();
    const rows = this.#db.query("SELECT r.principal, r.target, r.accept, r.status, r.stored_at, b.size FROM responses r LEFT JOIN bodies b ON b.hash = r.body ORDER BY r.principal, r.target").all() as { principal: string; target: string; accept: string; status: number; stored_at: number; size: number | null }[];
    return rows.map(({ principal, target, accept, status, stored_at: storedAtMs, size }) => ({ key: { principal, target, accept }, status, sizeBytes: size ?? 0, storedAtMs }));
  }

  getValue(name: string): Uint8Array | undefined {
    const row = this.#db.query("SELECT packing, value FROM kept_values WHERE name = ?").get(name) as { packing: number; value: Uint8Array } | null;
    return row === null ? undefined : unpack(row, name, this.#sealer);
  }

  putValue(name: string, value: Uint8Array, options: { readonly isSecret?: boolean } = {}): void {
    const { packing, value: packed } = pack(value, name, options.isSecret === true ? this.#sealer : undefined);
    this.#write(() => void this.#db.query("INSERT INTO kept_values (name, packing, value) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET packing = excluded.packing, value = excluded.value").run(name, packing, packed));
  }

  keyedHash(text: string): string {
    return this.#sealer.hash(text);
  }

  // ---- commits ----

  flush(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#queue.size === 0 && this.#responses.size === 0) return;
    const queue = [...this.#queue.values()];
    const responses = [...this.#responses.values()];
    this.#queue.clear();
    this.#responses.clear();
    const touched = new Set(queue.map(({ entry }) => entry));
    for (const entry of this.#scopes.values()) if (entry.isTouched) touched.add(entry);
    this.#write(() => {
      for (const { entry, key, item } of queue) this.#writeObject(entry, key, item);
      for (const entry of touched) this.#saveScope(entry);
      for (const { key, response, isSecret } of responses) this.#writeResponse(key, response, isSecret);
    });
    this.#lastCommitMs = this.options.clock.monotonicMs();
    this.#trim();
  }

  settle(): void {
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    this.flush();
    const touched = [...this.#scopes.values()].filter(({ isTouched }) => isTouched);
    if (touched.length === 0 && this.#storedAt.size === 0) return;
    this.#write(() => {
      for (const entry of touched) this.#saveScope(entry);
      for (const [text, storedAtMs] of this.#storedAt) {
        const [principal, target, accept] = JSON.parse(text) as [string, string, string];
        this.#db.query("UPDATE responses SET stored_at = ? WHERE principal = ? AND target = ? AND accept = ?").run(storedAtMs, principal, target, accept);
      }
    });
    this.#storedAt.clear();
  }

  verify(): { readonly checked: number; readonly damaged: number } {
    this.flush();
    let checked = 0;
    let damaged = 0;
    for (const entry of [...this.#scopes.values()]) {
      if (entry.listed === undefined) continue;
      for (const row of this.#db.query(`SELECT ${ROW} FROM objects WHERE scope = ?`).all(entry.rows) as ObjectRow[]) {
        checked++;
        if (this.#open(entry, row, entry.rows) !== undefined) continue;
        damaged++;
        this.#lostRow(entry, row);
        break;
      }
    }
    for (const { key } of this.listResponses()) {
      checked++;
      if (this.getResponse(key) === undefined) damaged++;
    }
    this.flush();
    return { checked, damaged };
  }

  status(): StoreStatus {
    const { mode, reason, path } = this.#opened;
    const count = (table: string) => (this.#db.query(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
    const sizeBytes = path === ":memory:" ? 0 : ["", "-wal"].reduce((sum, suffix) => sum + (existsSync(path + suffix) ? statSync(path + suffix).size : 0), 0);
    return { mode, reason, path, sizeBytes, scopes: this.#scopes.size, objects: count("objects"), responses: count("responses"), quarantined: this.#quarantined, commits: this.#commits, rowsWritten: this.#rowsWritten, sealing: this.#sealer.source };
  }

  /** Items and bytes of one scope, for `status`. */
  sizeOf(scopeId: number): { readonly items: number; readonly bytes: number } {
    const entry = this.#scopes.get(scopeId);
    if (entry === undefined || entry.rows === 0) return { items: 0, bytes: 0 };
    return this.#db.query("SELECT count(*) AS items, coalesce(sum(size), 0) AS bytes FROM objects WHERE scope = ?").get(entry.rows) as { items: number; bytes: number };
  }

  close(): void {
    if (this.#isClosed) return;
    this.settle();
    this.#isClosed = true;
    this.#cancelCommit?.();
    this.#cancelRetry?.();
    this.#cancelBookmarks?.();
    for (const reader of this.#readers.splice(0)) reader.close();
    this.#db.close();
    if (this.#opened.mode === "memory") removeVolatile(this.#opened.path);
  }

  // ---- inside ----

  get #db(): Database {
    return this.#opened.database;
  }

  #load(): void {
    const scopes = this.#db.query("SELECT id, identity, head, resource_version, changed_at, last_contact, last_used FROM scopes").all() as { id: number; identity: string; head: string | null; resource_version: string; changed_at: string; last_contact: number; last_used: number }[];
    const { top } = this.#db.query("SELECT coalesce(max(scope), 0) AS top FROM objects").get() as { top: number };
    this.#nextRows = top + 1;
    for (const row of scopes) {
      const head = row.head === null ? undefined : (JSON.parse(row.head) as Pick<ListedState, "shape" | "contentType" | "epoch"> & { rows: number });
      const entry: ScopeEntry = {
        id: row.id,
        identity: identityOf(row.identity),
        rows: head?.rows ?? 0,
        listed: head === undefined ? undefined : { shape: head.shape, contentType: head.contentType, epoch: head.epoch, resourceVersion: row.resource_version, changedAt: row.changed_at, lastContactMs: row.last_contact },
        lastUsedMs: row.last_used,
        isTouched: false,
      };
      this.#nextRows = Math.max(this.#nextRows, entry.rows + 1);
      this.#scopes.set(row.id, entry);
      this.#idByIdentity.set(row.identity, row.id);
    }
    // Rows of lists that never came to their end.
    const used = new Set([...this.#scopes.values()].map(({ rows }) => rows));
    const present = this.#db.query("SELECT DISTINCT scope FROM objects").all() as { scope: number }[];
    const stray = present.filter(({ scope }) => !used.has(scope));
    if (this.options.isReadOnly === true) return;
    if (stray.length > 0) this.#write(() => stray.forEach(({ scope }) => this.#db.query("DELETE FROM objects WHERE scope = ?").run(scope)));
  }

  #enqueue(scopeId: number, { meta }: Item, item: Item | undefined, resourceVersion: string, nowMs: number): void {
    const entry = this.#scopes.get(scopeId);
    if (entry?.listed === undefined) return;
    const key = objectKey(meta.namespace, meta.name);
    this.#queue.set(`${scopeId}\n${key}`, { entry, key, item });
    entry.listed = { ...entry.listed, resourceVersion, changedAt: resourceVersion, lastContactMs: nowMs };
    if (this.#queue.size >= MAX_QUEUED) this.flush();
    else this.#scheduleCommit();
  }

  #unqueue(entry: ScopeEntry): void {
    for (const [text, queued] of this.#queue) if (queued.entry === entry) this.#queue.delete(text);
  }

  #scheduleCommit(): void {
    if (this.#cancelCommit !== undefined) return;
    const { clock } = this.options;
    const waitMs = COMMIT_EVERY_MS - (clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = clock.after(waitMs, () => this.flush());
  }

  #writeObject(entry: ScopeEntry, key: string, item: Item | undefined): void {
    this.#rowsWritten++;
    if (item === undefined) {
      this.#db.query("DELETE FROM objects WHERE scope = ? AND key = ?").run(entry.rows, key);
      return;
    }
    this.#pack(entry, item, entry.rows, (row) => this.#upsert(entry.rows, row));
  }

  #upsert(rows: number, { key, uid, resource_version: resourceVersion, size, packing, checksum: sum, value }: ObjectRow): void {
    this.#db
      .query("INSERT INTO objects (scope, key, uid, resource_version, size, packing, checksum, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, key) DO UPDATE SET uid = excluded.uid, resource_version = excluded.resource_version, size = excluded.size, packing = excluded.packing, checksum = excluded.checksum, value = excluded.value")
      .run(rows, key, uid, resourceVersion, size, packing, sum, value);
  }

  #pack(entry: ScopeEntry, { meta, bytes }: Item, rows: number, use?: (row: ObjectRow) => void): ObjectRow {
    const key = objectKey(meta.namespace, meta.name);
    const name = rowName(rows, key, meta.resourceVersion);
    const { packing, value } = pack(bytes, name, isSealed(entry.identity) ? this.#sealer : undefined);
    const row: ObjectRow = { key, uid: meta.uid, resource_version: meta.resourceVersion, size: bytes.length, packing, checksum: checksum(value, name), value };
    use?.(row);
    return row;
  }

  #open(_entry: ScopeEntry, row: ObjectRow, rows: number): Item | undefined {
    const name = rowName(rows, row.key, row.resource_version);
    if (checksum(row.value, name) !== row.checksum) return undefined;
    const bytes = unpack(row, name, this.#sealer);
    if (bytes === undefined || bytes.length !== row.size) return undefined;
    const slash = row.key.indexOf("/");
    return { meta: { namespace: slash < 0 ? "" : row.key.slice(0, slash), name: row.key.slice(slash + 1), uid: row.uid, resourceVersion: row.resource_version }, bytes };
  }

  #readRow(entry: ScopeEntry, row: ObjectRow, rows: number): Item | undefined {
    const item = this.#open(entry, row, rows);
    if (item === undefined) this.#lostRow(entry, row);
    return item;
  }

  /** A scope that lost a row cannot be served as a whole any more. */
  #lostRow(entry: ScopeEntry, row: ObjectRow): void {
    this.#quarantine(`${entry.identity.resource} ${row.key}`, row.value);
    this.#unqueue(entry);
    const { rows } = entry;
    entry.listed = undefined;
    entry.rows = 0;
    this.#write(() => {
      this.#db.query("DELETE FROM objects WHERE scope = ?").run(rows);
      this.#saveScope(entry);
    });
  }

  #quarantine(what: string, value: Uint8Array | undefined): void {
    this.#quarantined++;
    this.options.log.error("damaged row set aside", { what });
    this.#write(() => {
      this.#db.query("INSERT INTO quarantine (at, what, value) VALUES (?, ?, ?)").run(this.options.clock.nowMs(), what, value ?? null);
      this.#db.run("DELETE FROM quarantine WHERE rowid NOT IN (SELECT rowid FROM quarantine ORDER BY rowid DESC LIMIT 20)");
    });
  }

  #saveScope(entry: ScopeEntry): void {
    entry.isTouched = false;
    const { listed, rows } = entry;
    const head = listed === undefined ? null : JSON.stringify({ shape: listed.shape, contentType: listed.contentType, epoch: listed.epoch, rows });
    this.#db.query("UPDATE scopes SET head = ?, resource_version = ?, changed_at = ?, last_contact = ?, last_used = ? WHERE id = ?").run(head, listed?.resourceVersion ?? "", listed?.changedAt ?? "", listed?.lastContactMs ?? 0, entry.lastUsedMs, entry.id);
  }

  #writeResponse(key: ResponseKey, response: StoredResponse | undefined, isSecret: boolean): void {
    const { principal, target, accept } = key;
    const before = this.#db.query("SELECT body FROM responses WHERE principal = ? AND target = ? AND accept = ?").get(principal, target, accept) as { body: Uint8Array } | null;
    const hash = response === undefined ? undefined : this.#bodyHash(response.body, isSecret, key);
    if (before !== null && hash !== undefined && Buffer.from(before.body).toString("hex") === hash) {
      this.#storedAt.set(responseText(key), response!.storedAtMs);
      this.#cancelBookmarks ??= this.options.clock.after(BOOKMARKS_EVERY_MS, () => this.settle());
      return;
    }
    this.#rowsWritten++;
    this.#storedAt.delete(responseText(key));
    if (response === undefined || hash === undefined) {
      this.#db.query("DELETE FROM responses WHERE principal = ? AND target = ? AND accept = ?").run(principal, target, accept);
    } else {
      const { packing, value } = pack(response.body, hash, isSecret ? this.#sealer : undefined);
      this.#db.query("INSERT OR IGNORE INTO bodies (hash, size, packing, value) VALUES (?, ?, ?, ?)").run(Buffer.from(hash, "hex"), response.body.length, packing, value);
      this.#db.query("INSERT OR REPLACE INTO responses (principal, target, accept, status, headers, body, stored_at) VALUES (?, ?, ?, ?, ?, ?, ?)").run(principal, target, accept, response.status, JSON.stringify(response.headers), Buffer.from(hash, "hex"), response.storedAtMs);
    }
    if (before !== null) this.#db.query("DELETE FROM bodies WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM responses WHERE body = ?1)").run(before.body);
  }

  /** Equal bodies of different callers share a row; secret ones are named with a key and shared with nobody. */
  #bodyHash(body: Uint8Array, isSecret: boolean, { principal, target }: ResponseKey): string {
    const hash = new Bun.CryptoHasher("sha256").update(body).digest("hex");
    return (isSecret ? this.#sealer.hash(`${principal}\n${target}\n${hash}`) : hash).slice(0, 32);
  }

  /** Runs a task in a transaction. A disk that fails makes the store carry on in memory; the task then runs there. */
  #write(task: () => void): void {
    if (this.options.isReadOnly === true) return;
    for (let attempt = 0; ; attempt++) {
      try {
        this.#commits++;
        this.#db.transaction(task)();
        return;
      } catch (error) {
        if (attempt > 0) {
          this.options.log.error("write given up", { error: String((error as Error).message) });
          return;
        }
        this.#leaveDisk(error);
      }
    }
  }

  /** Takes what can be read along to a tmpfs. */
  #leaveDisk(error: unknown): void {
    const reason = String((error as { code?: unknown }).code ?? (error as Error).message);
    this.options.log.error("database cannot be written, carrying on in memory", { reason });
    const old = this.#opened;
    const next = openVolatile();
    let isCopied = false;
    if (isDiskTrouble(error) && next.path !== ":memory:") {
      try {
        next.database.close();
        rmSync(next.path, { force: true });
        for (const suffix of ["-wal", "-shm"]) rmSync(next.path + suffix, { force: true });
        old.database.query("VACUUM INTO ?").run(next.path);
        isCopied = true;
      } catch {
        // Unreadable too: what was there is lost until the disk is back.
      }
    }
    for (const reader of this.#readers.splice(0)) reader.close();
    old.database.close();
    const opened = isCopied ? { database: reopen(next.path), path: next.path, mode: "memory" as const } : isCopied || next.path === ":memory:" ? next : openVolatile();
    this.#opened = { ...opened, reason, quarantined: old.quarantined };
    if (!isCopied) this.#restateScopes();
    if (!isDiskTrouble(error)) this.#quarantined++;
    this.#scheduleRetry();
  }

  /** After the rows are gone: the scopes are known, nothing of them is. */
  #restateScopes(): void {
    this.#queue.clear();
    this.#db.transaction(() => {
      for (const entry of this.#scopes.values()) {
        entry.listed = undefined;
        entry.rows = 0;
        this.#db.query("INSERT OR REPLACE INTO scopes (id, identity, last_used) VALUES (?, ?, ?)").run(entry.id, identityText(entry.identity), entry.lastUsedMs);
      }
    })();
  }

  #scheduleRetry(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = this.options.clock.after(RETRY_DISK_MS, () => this.#returnToDisk());
  }

  /** Moves back once the folder can be written again. */
  #returnToDisk(): void {
    if (this.#isClosed || this.#opened.mode !== "memory") return;
    const path = join(this.options.stateDir, "cache.db");
    const fresh = `${path}.new`;
    try {
      rmSync(fresh, { force: true });
      const probe = openSync(`${fresh}.probe`, "w", 0o600);
      writeSync(probe, Buffer.alloc(64 * 1024));
      fsyncSync(probe);
      closeSync(probe);
      rmSync(`${fresh}.probe`, { force: true });
      this.flush();
      this.#db.query("VACUUM INTO ?").run(fresh);
      for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
      renameSync(fresh, path);
      const old = this.#opened;
      for (const reader of this.#readers.splice(0)) reader.close();
      this.#opened = { database: reopen(path), path, mode: "disk", reason: "", quarantined: old.quarantined };
      old.database.close();
      removeVolatile(old.path);
      this.options.log.info("state folder can be written again");
    } catch {
      rmSync(fresh, { force: true });
      this.#scheduleRetry();
    }
  }

  #readingSnapshot(entry: ScopeEntry, listed: ListedState): ScopeSnapshot {
    const { rows } = entry;
    const { path } = this.#opened;
    const reader = this.#readers.pop() ?? openReader(path);
    reader.run("BEGIN");
    const { n } = reader.query("SELECT count(*) AS n FROM objects WHERE scope = ?").get(rows) as { n: number };
    let isOpen = true;
    const store = this;
    return {
      listed,
      itemCount: n,
      itemSizes: () => (reader.query("SELECT size FROM objects WHERE scope = ? ORDER BY key").all(rows) as { size: number }[]).map(({ size }) => size),
      *items() {
        // Pages of rows instead of one open cursor: a cursor would hold its statement while other readers reuse it.
        let after = "";
        for (;;) {
          const page = reader.query(`SELECT ${ROW} FROM objects WHERE scope = ? AND key > ? ORDER BY key LIMIT 64`).all(rows, after) as ObjectRow[];
          for (const row of page) yield store.#whole(entry, row, rows);
          if (page.length < 64) return;
          after = page.at(-1)!.key;
        }
      },
      [Symbol.dispose]: () => {
        if (!isOpen) return;
        isOpen = false;
        reader.run("COMMIT");
        if (this.#readers.length < IDLE_READERS && path === this.#opened.path && !this.#isClosed) this.#readers.push(reader);
        else reader.close();
      },
    };
  }

  /** Where no second connection can see the rows: an eager copy. */
  #copyingSnapshot(entry: ScopeEntry, listed: ListedState): ScopeSnapshot {
    const all = this.#db.query(`SELECT ${ROW} FROM objects WHERE scope = ? ORDER BY key`).all(entry.rows) as ObjectRow[];
    const { rows } = entry;
    const store = this;
    return {
      listed,
      itemCount: all.length,
      itemSizes: () => all.map(({ size }) => size),
      *items() {
        for (const row of all) yield store.#whole(entry, row, rows);
      },
      [Symbol.dispose]() {},
    };
  }

  #whole(entry: ScopeEntry, row: ObjectRow, rows: number): Item {
    const item = this.#open(entry, row, rows);
    if (item !== undefined) return item;
    if (entry.rows === rows) this.#lostRow(entry, row);
    throw new ScopeDamagedError(`Cannot read ${entry.identity.resource}: a kept row is damaged`);
  }

  /** Gives way when the file outgrows its quota: recorded answers first, what kubelet lives on last. */
  #trim(): void {
    const now = this.options.clock.monotonicMs();
    if (now - this.#lastTrimMs < TRIM_EVERY_MS) return;
    this.#lastTrimMs = now;
    const usedBytes = () => {
      const read = (pragma: string) => Object.values(this.#db.query(`PRAGMA ${pragma}`).get() as object)[0] as number;
      return (read("page_count") - read("freelist_count")) * read("page_size");
    };
    if (usedBytes() <= this.options.maxBytes) return;
    for (const { key } of this.listResponses().sort((a, b) => a.storedAtMs - b.storedAtMs)) {
      if (usedBytes() <= this.options.maxBytes) return;
      this.#write(() => this.#writeResponse(key, undefined, false));
    }
    const vital = new Set(["pods", "nodes", "secrets", "configmaps"]);
    const scopes = [...this.#scopes.values()].filter(({ listed }) => listed !== undefined);
    scopes.sort((a, b) => Number(vital.has(a.identity.resource)) - Number(vital.has(b.identity.resource)) || a.lastUsedMs - b.lastUsedMs);
    for (const entry of scopes) {
      if (usedBytes() <= this.options.maxBytes) return;
      this.options.log.warn("store beyond its quota: a scope's copy is dropped", { resource: entry.identity.resource });
      const { rows } = entry;
      entry.listed = undefined;
      entry.rows = 0;
      this.#write(() => {
        this.#db.query("DELETE FROM objects WHERE scope = ?").run(rows);
        this.#saveScope(entry);
      });
    }
  }
}

function openReader(path: string): Database {
  const reader = new Database(path, { readonly: true });
  reader.run("PRAGMA cache_size = -256");
  reader.run("PRAGMA mmap_size = 0");
  return reader;
}

function reopen(path: string): Database {
  const database = new Database(path);
  for (const pragma of ["journal_mode = WAL", "synchronous = NORMAL", "cache_size = -1024", "temp_store = MEMORY", "journal_size_limit = 4194304"]) database.run(`PRAGMA ${pragma}`);
  return database;
}

function recordOf({ id, identity, listed, lastUsedMs }: ScopeEntry): ScopeRecord {
  return { id, identity, lastUsedMs, ...(listed === undefined ? {} : { listed }) };
}

/** Secrets, and whatever carries tokens, never lie open on the card. */
function isSealed({ group, resource }: ScopeIdentity): boolean {
  return group === "" && resource === "secrets";
}

function rowName(rows: number, key: string, resourceVersion: string): string {
  return `${rows}\n${key}\n${resourceVersion}`;
}

function identityText({ principal, group, version, resource, namespace, fieldSelector, labelSelector, representation }: ScopeIdentity): string {
  return JSON.stringify([principal, group, version, resource, namespace, fieldSelector, labelSelector, representation]);
}

function identityOf(text: string): ScopeIdentity {
  const [principal, group, version, resource, namespace, fieldSelector, labelSelector, representation] = JSON.parse(text) as [string, string, string, string, string, string, string, string];
  return { principal, group, version, resource, namespace, fieldSelector, labelSelector, representation };
}

function responseText({ principal, target, accept }: ResponseKey): string {
  return JSON.stringify([principal, target, accept]);
}

function pathOf(target: string): string {
  const mark = target.indexOf("?");
  return mark < 0 ? target : target.slice(0, mark);
}
