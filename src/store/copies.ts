/**
 * All copies of a store: found by identity, read from the file at the start,
 * and what becomes of them when rows are damaged or the database changes.
 *
 * Invariants:
 * - Objects and their copy's resourceVersion move in one transaction.
 * - `scopes.head` is NULL until a list was committed whole; rows of a list in
 *   the making belong to a number that no copy points to yet.
 * - A row whose checksum fails is never served, and a copy that lost a row is
 *   not whole any more: it loses its listed state and will be listed again.
 *   Offline that costs the copy; a list that is silently short would tell
 *   kubelet to stop pods.
 * - A number, of a copy or of rows, is given out once in the life of a file.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Backing } from "./backing.ts";
import type { Commits } from "./commits.ts";
import { identityText, type ListWriter, type ScopeIdentity, type ScopeSnapshot } from "./contract.ts";
import { StoredCopy, type CopyParts } from "./copy.ts";
import { Dictionaries } from "./dictionaries.ts";
import { ScopeDamagedError, SnapshotGoneError } from "./errors.ts";
import { StagedList } from "./list-writer.ts";
import {
  clearRows,
  deleteRow,
  findMark,
  findRow,
  isSame,
  itemOf,
  putRow,
  rowOf,
  type ObjectRow,
  type RowPacking,
  type Tally,
} from "./object-rows.ts";
import { Readers } from "./readers.ts";
import { saveNumber } from "./schema.ts";
import {
  clearStrange,
  deleteScope,
  insertScope,
  readFile,
  readScopes,
  saveHead,
  saveMarks,
  type StoredScope,
} from "./scope-rows.ts";
import type { Sealer } from "./seal.ts";
import type { Sums } from "./sums.ts";
import { verifyRows } from "./verify.ts";
import { openSnapshot, type SnapshotParts } from "./snapshot.ts";

/** What copies need of their store. */
export interface CopiesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly sealer: Sealer;
  readonly sums: Sums;
  readonly isSealed: (identity: ScopeIdentity) => boolean;
  readonly backing: () => Backing;
  readonly commits: () => Commits;
  readonly quarantine: (what: string, value: Uint8Array | undefined) => void;
}

/** The store's copies. */
export class Copies {
  readonly #dictionaries: Dictionaries;
  readonly #readers: Readers;
  /** By identity; those on disk first, then as they are opened. */
  readonly #copies = new Map<string, StoredCopy>();
  readonly #copyParts: CopyParts;
  #nextId = 1;
  #nextRows = 1;
  #isLoaded = false;

  constructor(private readonly parts: CopiesParts) {
    this.#dictionaries = new Dictionaries(() => this.#db, parts.sums);
    this.#readers = new Readers(parts.clock);
    this.#copyParts = {
      beginList: (copy) => this.#beginList(copy),
      enqueue: (...args) => parts.commits().enqueue(...args),
      get: (copy, namespace, name) => this.get(copy, namespace, name),
      snapshot: (copy) => this.#snapshot(copy),
      size: (copy) => this.#sizeOf(copy),
      touched: (_, isUrgent) => parts.commits().touched(isUrgent),
      clear: (copy) => this.unlist(copy),
      drop: (copy) => this.#drop(copy),
    };
  }

  get count(): number {
    return this.#copies.size;
  }

  /** All, the longest known first. */
  all(): StoredCopy[] {
    return [...this.#copies.values()];
  }

  /** The copy of this identity, made empty if there is none; on disk it comes with its first list. */
  open(identity: ScopeIdentity, nowMs: number): StoredCopy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    return this.#remember({
      id: this.#nextId++,
      identity,
      rows: 0,
      listed: undefined,
      tally: { objects: 0, digest: 0 },
      lastUsedMs: nowMs,
      isWithheld: false,
    });
  }

  /** One object as it is kept now, queued or not. */
  get(copy: StoredCopy, namespace: string, name: string): Item | undefined {
    if (copy.listed === undefined) return undefined;
    const key = objectKey(namespace, name);
    const queued = this.parts.commits().queued(copy, key);
    if (queued !== undefined) return queued.item;
    return this.#backing.read(() => {
      const row = findRow(this.#db, copy.rows, key);
      if (row === undefined) return undefined;
      const item = itemOf(row, this.#packing(copy, copy.rows));
      if (item === undefined) this.#lose(copy, row);
      return item;
    }, nothing);
  }

  /** Within a transaction: one object of a listed copy. @returns whether a row was written. */
  writeObject(copy: StoredCopy, key: string, item: Item | undefined, tally: Tally): boolean {
    const { rows } = copy;
    // Lost while this waited: it will be listed again.
    if (copy.listed === undefined) return false;
    if (item === undefined) return deleteRow(this.#db, rows, key, tally);
    const packing = this.#packing(copy, rows, item.bytes);
    const before = findMark(this.#db, rows, key);
    if (before !== undefined && isSame(before, item, copy.isSealed ? this.parts.sealer : undefined)) return false;
    this.#dictionaries.save(rows);
    putRow(this.#db, rows, rowOf(item, packing), tally);
    return true;
  }

  /** Takes a copy's rows away; it will be listed anew. */
  unlist(copy: StoredCopy): void {
    const { rows } = copy;
    this.parts.commits().forget(copy);
    copy.forgetRows();
    if (!copy.isStored) return;
    this.#backing.write(() => {
      if (rows !== 0) this.#clear(rows);
      saveHead(this.#db, this.parts.sums, copy);
      saveMarks(this.#db, this.parts.sums, copy);
    });
  }

  /** Bytes of each, unpacked; one scan for all. */
  usage(): ReadonlyMap<StoredCopy, number> {
    const sizes = this.#backing.read(
      () => this.#db.query("SELECT rows, sum(size) FROM objects GROUP BY rows").values() as [number, number][],
      () => [],
    );
    const byRows = new Map(sizes);
    return new Map(this.all().map((copy) => [copy, byRows.get(copy.rows) ?? 0]));
  }

  /** Reads every row of a copy and checks it. */
  verify(copy: StoredCopy): { readonly checked: number; readonly damaged: number } {
    if (copy.listed === undefined) return { checked: 0, damaged: 0 };
    return this.#backing.read(
      () => this.#verify(copy),
      () => ({ checked: 1, damaged: 1 }),
    );
  }

  /** A transaction was undone: a dictionary saved in it is not there. */
  undone(): void {
    this.#dictionaries.unsave();
  }

  /** The database is about to be left. */
  leave(): void {
    this.#readers.close();
  }

  /** Reads the file. A file that passes its check and still cannot be read is replaced; the second time it is an empty one. */
  load(isReadOnly: boolean): void {
    const found = this.#backing.read(
      () => readFile(this.#db, this.parts.sums),
      () => readFile(this.#db, this.parts.sums),
    );
    for (const scope of found.scopes) this.#remember(scope).isStored = true;
    this.#isLoaded = true;
    const last = (numbers: Iterable<number>) => Math.max(0, ...numbers);
    this.#nextRows = Math.max(
      found.nextRows,
      last([...found.counts.keys(), ...found.scopes.map(({ rows }) => rows)]) + 1,
    );
    this.#nextId = Math.max(found.nextCopy, last([...found.damaged, ...found.scopes.map(({ id }) => id)]) + 1);
    if (isReadOnly) return;
    for (const id of found.damaged) {
      this.parts.quarantine(`scope ${id}`, undefined);
      this.#backing.write(() => deleteScope(this.#db, id));
    }
    for (const copy of this.all()) {
      if (copy.listed !== undefined && (found.counts.get(copy.rows) ?? 0) !== copy.tally.objects)
        this.#lose(copy, undefined);
    }
    // Rows of lists that never came to their end.
    const used = new Set(this.all().map(({ rows }) => rows));
    const stray = [...found.counts.keys()].filter((rows) => !used.has(rows));
    if (stray.length > 0) this.#backing.write(() => stray.forEach((rows) => this.#clear(rows)));
    if (found.hasStrange) this.#backing.write(() => clearStrange(this.#db));
  }

  /** Goes on with another database. A copy whose rows are not all in it, as they were last written, is known, and nothing of it is. */
  adopt(): void {
    this.#dictionaries.unsave();
    // At the start nothing is known yet: it is about to be read.
    if (!this.#isLoaded) return;
    this.#db.transaction(() => {
      const stored = new Map(readScopes(this.#db, this.parts.sums).scopes.map((scope) => [scope.id, scope]));
      const known = new Set(this.all().map(({ id }) => id));
      for (const { id, rows } of stored.values()) {
        if (known.has(id)) continue;
        clearRows(this.#db, rows);
        deleteScope(this.#db, id);
      }
      for (const copy of this.all()) this.#adoptCopy(copy, stored.get(copy.id));
    })();
    this.parts.commits().forgetUnlisted();
  }

  #adoptCopy(copy: StoredCopy, found: StoredScope | undefined): void {
    if (!copy.isStored) return;
    if (found === undefined) insertScope(this.#db, this.parts.sums, copy);
    if (
      found?.rows === copy.rows &&
      found.tally.objects === copy.tally.objects &&
      found.tally.digest === copy.tally.digest
    )
      return;
    if (found !== undefined) clearRows(this.#db, found.rows);
    copy.forgetRows();
    saveHead(this.#db, this.parts.sums, copy);
    saveMarks(this.#db, this.parts.sums, copy);
  }

  get #backing(): Backing {
    return this.parts.backing();
  }

  get #db() {
    return this.#backing.database;
  }

  #remember(stored: StoredScope): StoredCopy {
    const copy = new StoredCopy(stored, this.parts.isSealed(stored.identity), this.#copyParts);
    this.#copies.set(identityText(copy.identity), copy);
    return copy;
  }

  #drop(copy: StoredCopy): void {
    this.parts.commits().forget(copy);
    this.#copies.delete(identityText(copy.identity));
    const { rows } = copy;
    const staged = [...copy.lists].flatMap((list) => list.orphaned() ?? []);
    copy.isDropped = true;
    copy.forgetRows();
    if (!copy.isStored && staged.length === 0) return;
    this.#backing.write(() => {
      for (const number of [rows, ...staged]) if (number !== 0) this.#clear(number);
      deleteScope(this.#db, copy.id);
    });
  }

  #beginList(copy: StoredCopy): ListWriter {
    const commits = this.parts.commits();
    commits.flush();
    const stagingRows = this.#nextRows++;
    const list = new StagedList({
      database: () => this.#db,
      log: this.parts.log,
      write: (task) => this.#backing.write(task),
      read: (task) =>
        this.#backing.read(task, () => {
          throw new ScopeDamagedError(`Cannot keep a list of ${copy.identity.resource}: the database cannot be read`);
        }),
      scope: copy,
      stagingRows,
      packing: (rows, first) => this.#packing(copy, rows, first),
      saveDictionary: (rows) => this.#dictionaries.save(rows),
      stagingBegins: () => saveNumber(this.#db, "next_rows", this.#nextRows),
      flush: () => commits.flush(),
      countRows: (count) => (commits.rowsWritten += count),
      lostRow: (row) => this.#lose(copy, row),
      save: (listed, rows, tally) => this.#saveWhole({ ...copy.state, listed, rows, tally, isWithheld: false }, copy),
      ended: (ended) => {
        copy.lists.delete(ended);
        if (copy.rows !== stagingRows) this.#dictionaries.forget(stagingRows);
      },
    });
    copy.lists.add(list);
    return list;
  }

  /** Within a transaction: the copy as it is to be; what is remembered follows once that is written. */
  #saveWhole(next: StoredScope, copy: StoredCopy): void {
    if (!copy.isStored) {
      insertScope(this.#db, this.parts.sums, next);
      saveNumber(this.#db, "next_copy", this.#nextId);
    }
    saveHead(this.#db, this.parts.sums, next);
    saveMarks(this.#db, this.parts.sums, next);
    this.#backing.afterCommit(() => {
      copy.isStored = true;
      copy.listed = next.listed;
      copy.rows = next.rows;
      copy.tally = next.tally;
      copy.isWithheld = next.isWithheld;
      copy.isTouched = false;
    });
  }

  #snapshot(copy: StoredCopy): ScopeSnapshot | undefined {
    this.parts.commits().flushFor(copy);
    const { listed, rows, tally } = copy;
    const { opened } = this.#backing;
    if (listed === undefined) return undefined;
    const parts: SnapshotParts = {
      listed,
      packing: this.#packing(copy, rows),
      tally: { ...tally },
      damaged: (row) => {
        if (copy.rows === rows) this.#lose(copy, row);
        return new ScopeDamagedError(`Cannot read ${copy.identity.resource}: kept rows are damaged`);
      },
      gone: () => new SnapshotGoneError(copy.identity.resource),
      present: () => (this.#backing.opened === opened ? this.#db : undefined),
    };
    return this.#backing.read(() => openSnapshot(opened, parts, this.#readers), nothing);
  }

  /** Readers that stand give the log free, wherever their clients are. */
  releaseReaders(): void {
    this.#readers.releaseAll();
  }

  #sizeOf({ rows }: StoredCopy): { readonly items: number; readonly bytes: number } {
    if (rows === 0) return { items: 0, bytes: 0 };
    return this.#backing.read(
      () =>
        this.#db
          .query("SELECT count(*) AS items, coalesce(sum(size), 0) AS bytes FROM objects WHERE rows = ?")
          .get(rows) as { items: number; bytes: number },
      () => ({ items: 0, bytes: 0 }),
    );
  }

  #verify(copy: StoredCopy): { readonly checked: number; readonly damaged: number } {
    const { checked, broken, isShort } = verifyRows(this.#db, this.#packing(copy, copy.rows), copy.tally);
    for (const row of broken.slice(1)) this.parts.quarantine(`${copy.identity.resource} ${row.key}`, row.value);
    if (broken.length > 0 || isShort) this.#lose(copy, broken[0]);
    return { checked, damaged: Math.max(broken.length, Number(isShort)) };
  }

  /** A copy that lost a row cannot be served as a whole any more. */
  #lose(copy: StoredCopy, row: ObjectRow | undefined): void {
    this.parts.quarantine(`${copy.identity.resource} ${row?.key ?? "rows missing"}`, row?.value);
    this.unlist(copy);
  }

  #packing(copy: StoredCopy, rows: number, first?: Uint8Array): RowPacking {
    return {
      rows,
      identity: copy.rowIdentity,
      sums: this.parts.sums,
      sealer: this.parts.sealer,
      isSealed: copy.isSealed,
      dictionary: copy.isSealed ? undefined : this.#dictionaries.of(rows, first),
    };
  }

  #clear(rows: number): void {
    clearRows(this.#db, rows);
    this.#dictionaries.forget(rows);
  }
}

function nothing(): undefined {
  return undefined;
}
