/**
 * Frozen views of a scope, on connections of their own.
 *
 * A reader begins with a read transaction: in WAL it sees one moment while
 * commits go on. As long as any reader stands, the log cannot begin anew, so a
 * client that reads slowly must not hold one:
 *
 *   0 s     transaction opened; most lists are read to their end within it
 *   5 s     given back; what is kept is where each row lies, and its sum
 *   later   rows are read as they lie now: the same sum is the same row,
 *           any other means that the moment is gone, and the answer breaks off
 *
 * The same when the log has grown beyond its bound, without waiting. What is
 * read is held against the scope's tally, so that a list is whole or ends with
 * an error: an answer that breaks off is asked for again, one that is silently
 * short deletes things.
 */

import type { Database } from "bun:sqlite";
import type { Item } from "../kube/codec.ts";
import type { ListedState, ScopeSnapshot } from "./contract.ts";
import { ScopeDamagedError } from "./errors.ts";
import {
  itemsOf,
  pageLength,
  pagesOf,
  placesOf,
  tallyOf,
  type ObjectRow,
  type RowPacking,
  type RowPlaces,
  type Tally,
} from "./object-rows.ts";
import type { Opened } from "./place.ts";
import type { Readers } from "./readers.ts";

/** What a view is taken of. */
export interface SnapshotParts {
  readonly listed: ListedState;
  readonly packing: RowPacking;
  /** What the rows must add up to. */
  readonly tally: Tally;
  /** Called once with what was found wrong; its answer is thrown. */
  readonly damaged: (row: ObjectRow | undefined) => Error;
  /** The moment cannot be read any more; its answer is thrown. */
  readonly gone: () => Error;
  /** The database that the rows lie in now; undefined if it is another by now. */
  readonly present: () => Database | undefined;
}

/** A view of rows as they are now; undefined if they are damaged. @throws what SQLite says. */
export function openSnapshot(opened: Opened, parts: SnapshotParts, readers: Readers): ScopeSnapshot | undefined {
  try {
    if (!opened.isConcurrent) return copiedSnapshot(opened.database, parts);
    const reader = readers.take(opened);
    try {
      return new ReadingSnapshot(reader, parts, readers, (given) => readers.end(given, opened));
    } catch (error) {
      reader.close();
      throw error;
    }
  } catch (error) {
    if (error instanceof ScopeDamagedError) return undefined;
    throw error;
  }
}

/** A view on a reader's transaction, for as long as it may have one. @throws {ScopeDamagedError} if rows are missing. */
class ReadingSnapshot implements ScopeSnapshot {
  readonly listed: ListedState;
  readonly itemCount: number;
  /** Undefined once the transaction was given back. */
  #reader: Database | undefined;
  #places: RowPlaces | undefined;
  #isOpen = true;
  readonly #unhold: () => void;

  constructor(
    reader: Database,
    private readonly parts: SnapshotParts,
    readers: Readers,
    private readonly give: (reader: Database) => void,
  ) {
    this.listed = parts.listed;
    reader.run("BEGIN");
    const { rows } = parts.packing;
    this.itemCount = (reader.query("SELECT count(*) AS n FROM objects WHERE rows = ?").get(rows) as { n: number }).n;
    if (this.itemCount !== parts.tally.objects) throw parts.damaged(undefined);
    this.#reader = reader;
    this.#unhold = readers.hold(() => this.#release());
  }

  *itemSizes(): Generator<number, void> {
    const { sizes } = this.#inOrder();
    for (const size of sizes) yield size;
  }

  *items(): Generator<Item, void> {
    const places = this.#inOrder();
    let digest = 0;
    let at = 0;
    for (const page of this.#guarded(pagesOf(() => this.#database(), places))) {
      // A row that is gone, or another state of it, is damage only within the transaction.
      if (this.#reader === undefined) this.#checkUnmoved(page, places, at);
      at += page.length;
      for (const { checksum } of page) digest += checksum;
      yield* whole(page, this.parts);
      if (!this.#isOpen) throw closed();
    }
    if (digest !== this.parts.tally.digest) throw this.parts.damaged(undefined);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#giveBack();
  }

  #inOrder(): RowPlaces {
    if (!this.#isOpen) throw closed();
    return (this.#places ??= placesOf(this.#database(), this.parts.packing.rows, "key"));
  }

  #database(): Database {
    const database = this.#reader ?? this.parts.present();
    if (database === undefined) throw this.parts.gone();
    return database;
  }

  #checkUnmoved(page: readonly (ObjectRow & { readonly id: number })[], places: RowPlaces, from: number): void {
    const isSame = page.every(
      ({ id, checksum }, n) => id === places.ids[from + n] && checksum === places.checksums[from + n],
    );
    const asked = pageLength(places, from);
    if (!isSame || page.length !== asked) throw this.parts.gone();
  }

  /** What is still to be read must be found without the transaction. */
  #release(): void {
    if (this.#reader === undefined) return;
    try {
      this.#inOrder();
    } catch {
      // The file cannot be read: who goes on reading is told so.
    }
    this.#giveBack();
  }

  #giveBack(): void {
    this.#unhold();
    const reader = this.#reader;
    this.#reader = undefined;
    if (reader !== undefined) this.give(reader);
  }

  /** A page that SQLite itself cannot read is damage, too. */
  *#guarded<T>(pages: Iterator<T>): Generator<T, void> {
    for (;;) {
      let next: IteratorResult<T>;
      const isStanding = this.#reader !== undefined;
      try {
        next = pages.next();
      } catch (error) {
        if (error instanceof RangeError) throw error;
        throw isStanding ? this.parts.damaged(undefined) : this.parts.gone();
      }
      if (next.done === true) return;
      yield next.value;
    }
  }
}

/** Where no second connection can see the rows: a copy, made at once. @throws {ScopeDamagedError} */
function copiedSnapshot(database: Database, parts: SnapshotParts): ScopeSnapshot {
  const { rows } = parts.packing;
  const { objects, digest } = tallyOf(database, rows);
  if (objects !== parts.tally.objects || digest !== parts.tally.digest) throw parts.damaged(undefined);
  const copy = [...pagesOf(() => database, placesOf(database, rows, "key"))];
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

function closed(): RangeError {
  return new RangeError("Cannot read a snapshot: it is closed");
}
