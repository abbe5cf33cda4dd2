/**
 * Frozen views of a scope, on connections of their own.
 *
 * A reader holds a read transaction: in WAL it sees one moment for as long as
 * it likes while commits go on. Rows are read in pages, and a page is unpacked
 * at once. What is read is held against the scope's tally, so that a list is
 * whole or ends with an error: an answer that breaks off is asked for again,
 * one that is silently short deletes things.
 */

import { Database } from "bun:sqlite";
import type { Clock } from "../base/clock.ts";
import type { Item } from "../kube/codec.ts";
import type { ListedState, ScopeSnapshot } from "./contract.ts";
import {
  itemsOf,
  pagesOf,
  placesOf,
  tallyOf,
  type ObjectRow,
  type RowPacking,
  type RowPlace,
  type Tally,
} from "./object-rows.ts";
import type { Opened } from "./place.ts";

const MAX_IDLE = 2;
const IDLE_MS = 30_000;

/** Idle read connections, few and not for long. */
export class Readers {
  #idle: Database[] = [];
  #of: Opened | undefined;
  #cancelClose: (() => void) | undefined;

  constructor(private readonly clock: Clock) {}

  /** A connection to this database. @throws what SQLite says. */
  take(opened: Opened): Database {
    if (this.#of !== opened) this.close();
    this.#of = opened;
    const known = this.#idle.pop();
    if (known !== undefined) return known;
    const reader = new Database(opened.path, { readonly: true });
    reader.run("PRAGMA cache_size = -256");
    reader.run("PRAGMA mmap_size = 0");
    reader.run("PRAGMA temp_store = MEMORY");
    return reader;
  }

  /** Takes a connection back; one of a database that is no longer in use is closed. */
  give(reader: Database, opened: Opened): void {
    if (this.#of !== opened || this.#idle.length >= MAX_IDLE) return reader.close();
    this.#idle.push(reader);
    this.#cancelClose?.();
    this.#cancelClose = this.clock.after(IDLE_MS, () => this.close());
  }

  /** Closes the idle ones; those in use close when they are given back. */
  close(): void {
    this.#cancelClose?.();
    this.#cancelClose = undefined;
    this.#of = undefined;
    for (const reader of this.#idle.splice(0)) reader.close();
  }
}

/** What a view is taken of. */
export interface SnapshotParts {
  readonly listed: ListedState;
  readonly packing: RowPacking;
  /** What the rows must add up to. */
  readonly tally: Tally;
  /** Called once with what was found wrong; its answer is thrown. */
  readonly damaged: (row: ObjectRow | undefined) => Error;
}

/** A view on a reader's open transaction. @throws {ScopeDamagedError} if rows are missing. */
export function readingSnapshot(reader: Database, parts: SnapshotParts, release: () => void): ScopeSnapshot {
  const { rows } = parts.packing;
  reader.run("BEGIN");
  const found = (reader.query("SELECT count(*) AS n FROM objects WHERE rows = ?").get(rows) as { n: number }).n;
  if (found !== parts.tally.objects) throw parts.damaged(undefined);
  let places: readonly RowPlace[] | undefined;
  let isOpen = true;
  const inOrder = () => {
    if (!isOpen) throw new RangeError("Cannot read a snapshot: it is closed");
    return (places ??= placesOf(reader, rows, "key"));
  };
  return {
    listed: parts.listed,
    itemCount: found,
    *itemSizes() {
      for (const { size } of inOrder()) yield size;
    },
    *items() {
      let digest = 0;
      for (const page of guarded(pagesOf(reader, inOrder()), parts)) {
        for (const { checksum } of page) digest += checksum;
        yield* whole(page, parts);
        if (!isOpen) throw new RangeError("Cannot read a snapshot: it is closed");
      }
      if (digest !== parts.tally.digest) throw parts.damaged(undefined);
    },
    [Symbol.dispose]() {
      if (!isOpen) return;
      isOpen = false;
      release();
    },
  };
}

/** Where no second connection can see the rows: a copy, made at once. @throws {ScopeDamagedError} */
export function copiedSnapshot(database: Database, parts: SnapshotParts): ScopeSnapshot {
  const { rows } = parts.packing;
  const { objects, digest } = tallyOf(database, rows);
  if (objects !== parts.tally.objects || digest !== parts.tally.digest) throw parts.damaged(undefined);
  const copy = [...pagesOf(database, placesOf(database, rows, "key"))];
  return {
    listed: parts.listed,
    itemCount: objects,
    *itemSizes() {
      for (const page of copy) for (const { size } of page) yield size;
    },
    *items() {
      for (const page of copy) yield* whole(page, parts);
    },
    [Symbol.dispose]() {},
  };
}

/** Unpacks a page; stops with the error at a damaged row. */
function* whole(page: readonly ObjectRow[], parts: SnapshotParts): Generator<Item, void> {
  const { items, damaged } = itemsOf(page, parts.packing);
  yield* items;
  if (damaged !== undefined) throw parts.damaged(damaged);
}

/** A page that SQLite itself cannot read is damage, too. */
function* guarded<T>(pages: Iterator<T>, parts: SnapshotParts): Generator<T, void> {
  for (;;) {
    let next: IteratorResult<T>;
    try {
      next = pages.next();
    } catch (error) {
      if (error instanceof RangeError) throw error;
      throw parts.damaged(undefined);
    }
    if (next.done === true) return;
    yield next.value;
  }
}
