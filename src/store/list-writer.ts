/**
 * A list on its way into a scope.
 *
 * A first list goes straight into rows, in small transactions, under a number
 * that no scope points to until `commit`; a crash leaves rows that the next
 * start removes. A later list is held against what is there: only items that
 * differ are kept, packed, in memory up to a bound and beyond it in rows;
 * `commit` applies them in one transaction. An identical list therefore
 * writes no object at all.
 *
 * Events may come while a list is under way. One that is newer than the list
 * stands: the list was taken before it, and the watch will not tell it again.
 */

import type { Database } from "bun:sqlite";
import type { Log } from "../base/log.ts";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import { compareResourceVersions, newerResourceVersion } from "../kube/resource-version.ts";
import type { ListChange, ListedState, ListWriter } from "./contract.ts";
import { CopyDroppedError, ScopeDamagedError } from "./errors.ts";
import {
  clearRows,
  deleteRow,
  findMark,
  findRow,
  insertRow,
  isSame,
  isSameState,
  itemOf,
  pagesOf,
  placesOf,
  putRow,
  rowOf,
  type ObjectRow,
  type RowPacking,
  type Tally,
} from "./object-rows.ts";
import type { StoredScope } from "./scope-rows.ts";

const BATCH_ROWS = 100;
const HELD_BYTES = 256 * 1024;

/** What the store lends to a list. */
export interface StagedListParts {
  readonly database: () => Database;
  /** Runs a task in a transaction; it may run twice. @returns whether it was done in the end. */
  readonly write: (task: () => void) => boolean;
  /** Runs a task that only reads. @throws {ScopeDamagedError} if the database cannot be read. */
  readonly read: <T>(task: () => T) => T;
  readonly log: Log;
  readonly scope: StoredScope;
  /** A number for rows that nobody points to yet. */
  readonly stagingRows: number;
  /** How items of a number are packed; the first item given becomes the number's dictionary. */
  readonly packing: (rows: number, first?: Uint8Array) => RowPacking;
  /** Within a transaction: the number's dictionary lies beside its rows. */
  readonly saveDictionary: (rows: number) => void;
  readonly flush: () => void;
  readonly countRows: (count: number) => void;
  /** A row that was read is damaged, or one that must be there is not found: the scope loses its listed state. */
  readonly lostRow: (row: ObjectRow | undefined) => void;
  /** Within the transaction: the scope is to be this. */
  readonly save: (listed: ListedState, rows: number, tally: Tally) => void;
  /** Within the transaction that first stages a row: the number is taken for good. */
  readonly stagingBegins: () => void;
  readonly ended: (list: StagedList) => void;
}

type CommitState = Parameters<ListWriter["commit"]>[0];

/** The store's ListWriter. */
export class StagedList implements ListWriter {
  itemCount = 0;
  itemBytes = 0;
  readonly #startRows: number;
  readonly #isFirst: boolean;
  readonly #seen = new Set<string>();
  /** What is to be written, by key, until it is spilled to rows. */
  #held = new Map<string, ObjectRow>();
  #heldBytes = 0;
  /** Of a first list: what is in rows under the staging number. */
  #tally: Tally = { objects: 0, digest: 0 };
  /** Keys that differ, with their resourceVersions and whether the API server calls it a change. */
  readonly #differing = new Map<string, { readonly resourceVersion: string; readonly isChange: boolean }>();
  /** Keys that have a row under the staging number. */
  readonly #stagedKeys = new Set<string>();
  /** Newest event for a key since the list began. */
  readonly #events = new Map<string, string>();
  #hasSpilled = false;
  /** Something it needs was lost on the way: adding goes on in vain, `commit` says so. */
  #isLost = false;
  #isOver = false;
  /** Its copy was dropped. */
  #isOrphaned = false;

  constructor(private readonly parts: StagedListParts) {
    this.#startRows = parts.scope.rows;
    this.#isFirst = parts.scope.listed === undefined;
  }

  add(item: Item): void {
    this.#checkOwned();
    if (this.#isOver) return;
    this.itemCount++;
    this.itemBytes += item.bytes.length;
    if (this.#isLost) return;
    try {
      this.#take(item);
    } catch (error) {
      if (!(error instanceof ScopeDamagedError)) throw error;
      this.#isLost = true;
    }
  }

  #take(item: Item): void {
    const key = objectKey(item.meta.namespace, item.meta.name);
    if (!this.#isFirst && this.parts.read(() => this.#isKnown(item, key))) return;
    const row = rowOf(item, this.parts.packing(this.#isFirst ? this.parts.stagingRows : this.#startRows, item.bytes));
    this.#heldBytes += row.value.length - (this.#held.get(key)?.value.length ?? 0);
    this.#held.set(key, row);
    if (this.#isFirst ? this.#held.size >= BATCH_ROWS || this.#heldBytes >= HELD_BYTES : this.#heldBytes >= HELD_BYTES)
      this.#spill();
  }

  /** An event of the scope's watch, while the list is under way. */
  overtake(key: string, resourceVersion: string): void {
    this.#events.set(key, newerResourceVersion(this.#events.get(key) ?? "", resourceVersion));
  }

  commit(state: CommitState, onChange: (change: ListChange) => void): void {
    this.#checkOwned();
    if (this.#isOver) throw new RangeError("Cannot commit a list twice");
    this.parts.flush();
    try {
      if (this.#isFirst) this.#commitFirst(state);
      else this.parts.read(() => this.#commitDifference(state, onChange));
    } catch (error) {
      this.abort();
      throw error;
    }
    this.#end();
  }

  abort(): void {
    if (this.#isOver) return;
    this.#end();
    if (this.#hasSpilled) this.parts.write(() => clearRows(this.parts.database(), this.parts.stagingRows));
  }

  /** Its copy is dropped, and with it whatever was added. @returns the number of rows that are staged, if any are: to be cleared with the copy's own. */
  orphaned(): number | undefined {
    this.#isOrphaned = true;
    if (this.#isOver) return undefined;
    this.#end();
    return this.#hasSpilled ? this.parts.stagingRows : undefined;
  }

  #end(): void {
    this.#isOver = true;
    this.#held.clear();
    this.parts.ended(this);
  }

  #checkOwned(): void {
    if (this.#isOrphaned) throw new CopyDroppedError(this.parts.scope.identity.resource);
  }

  /** Whether the scope holds exactly this item; if not, it is noted. */
  #isKnown(item: Item, key: string): boolean {
    this.#seen.add(key);
    const mark = findMark(this.parts.database(), this.#startRows, key);
    const { sealer, isSealed } = this.parts.packing(this.#startRows);
    // A key that came twice: what is staged must not outlive the later one.
    if (mark !== undefined && !this.#differing.has(key) && isSame(mark, item, isSealed ? sealer : undefined))
      return true;
    this.#differing.set(key, {
      resourceVersion: item.meta.resourceVersion,
      isChange: mark === undefined || !isSameState(mark, item.meta),
    });
    return false;
  }

  #commitFirst(state: CommitState): void {
    const { scope, stagingRows } = this.parts;
    this.#spill();
    const before = scope.listed;
    if (this.#isLost)
      return this.parts.log.warn("a list is not kept: rows written meanwhile are lost", {
        resource: scope.identity.resource,
      });
    // Another list was first, and events took it further: what it holds is newer.
    if (before !== undefined && compareResourceVersions(before.resourceVersion, state.resourceVersion) > 0)
      return clearedOf(this.parts);
    this.parts.write(() => {
      const database = this.parts.database();
      const { n } = database.query("SELECT count(*) AS n FROM objects WHERE rows = ?").get(stagingRows) as {
        n: number;
      };
      if (n !== this.#tally.objects) return clearRows(database, stagingRows);
      if (scope.rows !== 0) clearRows(database, scope.rows);
      this.parts.save(listedAs(state, state.resourceVersion), stagingRows, { ...this.#tally });
    });
  }

  #commitDifference(state: CommitState, onChange: (change: ListChange) => void): void {
    const { scope, stagingRows } = this.parts;
    if (this.#hasSpilled) this.#spill();
    this.#checkUnmoved();
    const gone = this.#goneKeys(state);
    this.#report(state, gone, onChange);
    this.#checkUnmoved();
    const newest = this.#newestEvent(state);
    const isDone = this.parts.write(() => {
      this.#checkUnmoved();
      const database = this.parts.database();
      const tally = { ...scope.tally };
      for (const key of gone) deleteRow(database, this.#startRows, key, tally);
      this.parts.saveDictionary(this.#startRows);
      for (const row of this.#staged())
        if (!this.#isOvertaken(row.key, state)) putRow(database, this.#startRows, row, tally);
      if (this.#hasSpilled) clearRows(database, stagingRows);
      this.parts.save(listedAs(state, newest), this.#startRows, tally);
    });
    if (!isDone) throw this.#lost();
    this.parts.countRows(gone.length + this.#differing.size);
  }

  /** A list is a difference to rows; once these are gone it is worth nothing. */
  #checkUnmoved(): void {
    this.#checkOwned();
    const { scope } = this.parts;
    if (this.#isLost || scope.listed === undefined || scope.rows !== this.#startRows) throw this.#lost();
  }

  #lost(): ScopeDamagedError {
    return new ScopeDamagedError(
      `Cannot keep a list of ${this.parts.scope.identity.resource}: what it was compared with is lost`,
    );
  }

  #isOvertaken(key: string, { resourceVersion }: CommitState): boolean {
    return compareResourceVersions(this.#events.get(key) ?? "", resourceVersion) > 0;
  }

  /** The list's resourceVersion, or that of the newest event that stands above it. */
  #newestEvent({ resourceVersion }: CommitState): string {
    return [...this.#events.values()].reduce(newerResourceVersion, resourceVersion);
  }

  #goneKeys(state: CommitState): string[] {
    const known = this.parts
      .database()
      .query("SELECT key FROM objects WHERE rows = ? ORDER BY key")
      .all(this.#startRows) as { key: string }[];
    return known.map(({ key }) => key).filter((key) => !this.#seen.has(key) && !this.#isOvertaken(key, state));
  }

  /** ADDED and MODIFIED in resourceVersion order, each new uid right behind its predecessor's end, then DELETED. */
  #report(state: CommitState, gone: readonly string[], onChange: (change: ListChange) => void): void {
    const changes = [...this.#differing].filter(([key, { isChange }]) => isChange && !this.#isOvertaken(key, state));
    changes.sort(([, a], [, b]) => compareResourceVersions(a.resourceVersion, b.resourceVersion));
    for (const [key] of changes) {
      const item = this.#open(this.#held.get(key) ?? findRow(this.parts.database(), this.parts.stagingRows, key));
      const mark = findMark(this.parts.database(), this.#startRows, key);
      if (mark !== undefined && isSameState(mark, item.meta)) continue;
      if (mark !== undefined && mark.uid !== item.meta.uid) onChange({ type: "DELETED", old: this.#oldItem(key) });
      if (mark?.uid === item.meta.uid) onChange({ type: "MODIFIED", item, before: () => this.#oldItem(key) });
      else onChange({ type: "ADDED", item });
    }
    for (const key of gone) onChange({ type: "DELETED", old: this.#oldItem(key) });
  }

  #oldItem(key: string): Item {
    return this.#open(findRow(this.parts.database(), this.#startRows, key));
  }

  /** @throws {ScopeDamagedError} when the row is gone or damaged. */
  #open(row: ObjectRow | undefined): Item {
    const item = row === undefined ? undefined : itemOf(row, this.parts.packing(this.#startRows));
    if (item !== undefined) return item;
    this.parts.lostRow(row);
    throw new ScopeDamagedError(
      `Cannot compare a list of ${this.parts.scope.identity.resource}: a kept row is damaged`,
    );
  }

  #staged(): Iterable<ObjectRow> {
    return this.#hasSpilled ? stagedRows(this.parts.database(), this.parts.stagingRows) : this.#held.values();
  }

  /** Writes what is held to rows nobody points to, in small transactions. */
  #spill(): void {
    const held = [...this.#held.values()];
    this.#held.clear();
    this.#heldBytes = 0;
    for (let at = 0; at < held.length; at += BATCH_ROWS) this.#stage(held.slice(at, at + BATCH_ROWS));
    if (this.#isFirst) this.parts.countRows(held.length);
  }

  #stage(batch: readonly ObjectRow[]): void {
    const { stagingRows } = this.parts;
    let tally = this.#tally;
    const isNew = !this.#hasSpilled;
    this.#hasSpilled = true;
    const isDone = this.parts.write(() => {
      const database = this.parts.database();
      tally = { ...this.#tally };
      if (isNew) this.parts.stagingBegins();
      if (this.#isFirst) this.parts.saveDictionary(stagingRows);
      for (const row of batch) {
        // Nearly every key comes once: only a second one is looked for.
        if (this.#stagedKeys.has(row.key)) putRow(database, stagingRows, row, tally);
        else {
          insertRow(database, stagingRows, row);
          tally.objects++;
          tally.digest += row.checksum;
        }
      }
    });
    this.#isLost ||= !isDone;
    this.#tally = tally;
    for (const { key } of batch) this.#stagedKeys.add(key);
  }
}

function clearedOf({ write, database, stagingRows }: StagedListParts): void {
  write(() => clearRows(database(), stagingRows));
}

function listedAs(
  { shape, contentType, nowMs, isPartlyTold = false }: CommitState,
  resourceVersion: string,
): ListedState {
  return {
    shape,
    contentType,
    resourceVersion,
    changedAt: resourceVersion,
    epoch: resourceVersion,
    isPartlyTold,
    lastContactMs: nowMs,
  };
}

function* stagedRows(database: Database, rows: number): Generator<ObjectRow, void> {
  for (const page of pagesOf(() => database, placesOf(database, rows, "arrival"))) yield* page;
}
