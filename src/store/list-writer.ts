/**
 * A list on its way into a scope.
 *
 * A first list goes straight into rows, in small transactions, under a number
 * that no scope points to until `commit`; a crash leaves rows that the next
 * start removes. A later list is held against what is there: only objects
 * whose uid or resourceVersion differ are kept, packed, in memory up to a
 * bound and beyond it in rows; `commit` applies them in one transaction. An
 * identical list therefore writes no object at all.
 */

import type { Database } from "bun:sqlite";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ListChange, ListedState, ListWriter } from "./contract.ts";
import type { ObjectRow } from "./store.ts";

const BATCH_ROWS = 100;
const HELD_BYTES = 256 * 1024;
const COLUMNS = "key, uid, resource_version, size, packing, checksum, value";

/** What the store lends to a list. */
export interface StagedListParts {
  readonly database: () => Database;
  readonly write: (task: () => void) => void;
  /** A number for rows that nobody points to yet. */
  readonly stagingRows: number;
  readonly current: () => { readonly rows: number; readonly listed: ListedState | undefined };
  readonly packItem: (item: Item, rows: number) => ObjectRow;
  readonly readRow: (row: ObjectRow, rows: number) => Item | undefined;
  readonly countRows: (count: number) => void;
  readonly beforeCommit: () => void;
  /** Within the transaction: the scope now is this. */
  readonly committed: (listed: ListedState, rows: number) => void;
  readonly isGone: () => boolean;
}

/** The store's ListWriter. */
export class StagedList implements ListWriter {
  itemCount = 0;
  itemBytes = 0;
  readonly #startRows: number;
  readonly #isFirst: boolean;
  /** What the scope holds, by key: uid and resourceVersion. Empty for a first list. */
  readonly #before = new Map<string, string>();
  readonly #seen = new Set<string>();
  #held: ObjectRow[] = [];
  #heldBytes = 0;
  /** Keys of all differing objects with their resourceVersions, for the order of events. */
  #differing: { readonly key: string; readonly resourceVersion: string }[] = [];
  #hasSpilled = false;
  #isOver = false;

  constructor(private readonly parts: StagedListParts) {
    const { rows, listed } = parts.current();
    this.#startRows = rows;
    this.#isFirst = listed === undefined;
    if (this.#isFirst) return;
    const known = parts.database().query("SELECT key, uid, resource_version FROM objects WHERE scope = ?").all(rows) as { key: string; uid: string; resource_version: string }[];
    for (const { key, uid, resource_version: resourceVersion } of known) this.#before.set(key, `${uid}\n${resourceVersion}`);
  }

  add(item: Item): void {
    if (this.#isOver) return;
    this.itemCount++;
    this.itemBytes += item.bytes.length;
    const { namespace, name, uid, resourceVersion } = item.meta;
    const key = objectKey(namespace, name);
    if (!this.#isFirst) {
      this.#seen.add(key);
      if (this.#before.get(key) === `${uid}\n${resourceVersion}` && resourceVersion !== "") return;
      this.#differing.push({ key, resourceVersion });
    }
    const row = this.parts.packItem(item, this.#isFirst ? this.parts.stagingRows : this.#startRows);
    this.#held.push(row);
    this.#heldBytes += row.value.length;
    if (this.#isFirst ? this.#held.length >= BATCH_ROWS : this.#heldBytes >= HELD_BYTES) this.#spill();
  }

  commit(state: { readonly shape: ListedState["shape"]; readonly contentType: string; readonly resourceVersion: string; readonly nowMs: number }, onChange: (change: ListChange) => void): void {
    if (this.#isOver) throw new RangeError("Cannot commit a list twice");
    if (this.parts.isGone()) return this.abort();
    this.parts.beforeCommit();
    this.#isOver = true;
    const { shape, contentType, resourceVersion, nowMs } = state;
    const listed: ListedState = { shape, contentType, resourceVersion, changedAt: resourceVersion, epoch: resourceVersion, lastContactMs: nowMs };
    if (this.#isFirst) return this.#commitFirst(listed);
    const { rows } = this.parts.current();
    if (rows !== this.#startRows) throw new RangeError("Cannot commit a list: its scope was listed anew meanwhile");
    if (this.#hasSpilled) this.#spill();
    this.#report(onChange);
    const database = this.parts.database();
    const gone = [...this.#before.keys()].filter((key) => !this.#seen.has(key));
    this.parts.write(() => {
      for (const key of gone) database.query("DELETE FROM objects WHERE scope = ? AND key = ?").run(rows, key);
      if (this.#hasSpilled) {
        database.query(`INSERT OR REPLACE INTO objects (scope, ${COLUMNS}) SELECT ?, ${COLUMNS} FROM objects WHERE scope = ?`).run(rows, this.parts.stagingRows);
        database.query("DELETE FROM objects WHERE scope = ?").run(this.parts.stagingRows);
      } else {
        for (const row of this.#held) insert(database, rows, row);
      }
      this.parts.committed(listed, rows);
    });
    this.parts.countRows(gone.length + this.#differing.length);
  }

  abort(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#held = [];
    if (this.#hasSpilled) this.parts.write(() => void this.parts.database().query("DELETE FROM objects WHERE scope = ?").run(this.parts.stagingRows));
  }

  #commitFirst(listed: ListedState): void {
    if (this.#held.length > 0 || !this.#hasSpilled) this.#spill();
    const { rows: old } = this.parts.current();
    this.parts.write(() => {
      if (old !== 0) this.parts.database().query("DELETE FROM objects WHERE scope = ?").run(old);
      this.parts.committed(listed, this.parts.stagingRows);
    });
  }

  #spill(): void {
    const held = this.#held;
    this.#held = [];
    this.#heldBytes = 0;
    this.#hasSpilled = true;
    if (held.length === 0) return;
    const database = this.parts.database();
    this.parts.write(() => {
      for (const row of held) insert(database, this.parts.stagingRows, row);
    });
    if (this.#isFirst) this.parts.countRows(held.length);
  }

  /** ADDED and MODIFIED in resourceVersion order, each new uid right behind its predecessor's end, then DELETED. */
  #report(onChange: (change: ListChange) => void): void {
    const rows = this.#startRows;
    const heldByKey = new Map(this.#held.map((row) => [row.key, row]));
    const latest = new Map(this.#differing.map((entry) => [entry.key, entry]));
    const inOrder = [...latest.values()].sort((a, b) => compareResourceVersions(a.resourceVersion, b.resourceVersion));
    for (const { key } of inOrder) {
      const row = heldByKey.get(key) ?? this.#rowOf(this.parts.stagingRows, key);
      const item = row === undefined ? undefined : this.parts.readRow(row, rows);
      if (item === undefined) continue;
      const before = this.#before.get(key);
      if (before === undefined) onChange({ type: "ADDED", item });
      else if (before.startsWith(`${item.meta.uid}\n`)) onChange({ type: "MODIFIED", item });
      else {
        const old = this.#oldItem(key);
        if (old !== undefined) onChange({ type: "DELETED", old });
        onChange({ type: "ADDED", item });
      }
    }
    for (const key of this.#before.keys()) {
      if (this.#seen.has(key)) continue;
      const old = this.#oldItem(key);
      if (old !== undefined) onChange({ type: "DELETED", old });
    }
  }

  #oldItem(key: string): Item | undefined {
    const row = this.#rowOf(this.#startRows, key);
    return row === undefined ? undefined : this.parts.readRow(row, this.#startRows);
  }

  #rowOf(rows: number, key: string): ObjectRow | undefined {
    return (this.parts.database().query(`SELECT ${COLUMNS} FROM objects WHERE scope = ? AND key = ?`).get(rows, key) as ObjectRow | null) ?? undefined;
  }
}

function insert(database: Database, rows: number, { key, uid, resource_version: resourceVersion, size, packing, checksum, value }: ObjectRow): void {
  database
    .query(`INSERT OR REPLACE INTO objects (scope, ${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
    .run(rows, key, uid, resourceVersion, size, packing, checksum, value);
}
