/**
 * The dictionaries that rows are packed with: one for the rows of a number,
 * made of the first object that is packed for it, and never changed.
 */

import type { Database } from "bun:sqlite";
import { dictionaryOf } from "./packing.ts";
import type { Sums } from "./sums.ts";

interface Entry {
  /** Undefined where there is none, or where it is damaged. */
  readonly value: Uint8Array | undefined;
  isSaved: boolean;
}

/** Dictionaries by number, read once and kept: a few kilobytes a scope. */
export class Dictionaries {
  #entries = new Map<number, Entry>();

  constructor(
    private readonly database: () => Database,
    private readonly sums: Sums,
  ) {}

  /** The dictionary of a number. @param first becomes the dictionary where there is none. */
  of(rows: number, first?: Uint8Array): Uint8Array | undefined {
    const known = this.#entries.get(rows) ?? this.#read(rows);
    if (known.value !== undefined || known.isSaved || first === undefined) return known.value;
    const value = dictionaryOf(first);
    if (value !== undefined) this.#entries.set(rows, { value, isSaved: false });
    return value;
  }

  /** Within a transaction: the dictionary lies beside its rows. */
  save(rows: number): void {
    const entry = this.#entries.get(rows);
    if (entry?.value === undefined || entry.isSaved) return;
    this.database()
      .query("INSERT OR IGNORE INTO dictionaries (rows, checksum, value) VALUES (?, ?, ?)")
      .run(rows, this.sums.of(entry.value, dictionaryText(rows)), entry.value);
    entry.isSaved = true;
  }

  /** A transaction was undone, or another database took the place of the former: what was saved may not be there. */
  unsave(): void {
    for (const entry of this.#entries.values()) if (entry.value !== undefined) entry.isSaved = false;
  }

  forget(rows: number): void {
    this.#entries.delete(rows);
  }

  #read(rows: number): Entry {
    const row = this.database().query("SELECT checksum, value FROM dictionaries WHERE rows = ?").get(rows) as {
      checksum: number;
      value: Uint8Array;
    } | null;
    // A damaged one is never replaced: rows that need it must fail, not open with another.
    const isWhole = row !== null && this.sums.holds(row.checksum, row.value, dictionaryText(rows));
    const entry: Entry = { value: isWhole ? row.value : undefined, isSaved: row !== null };
    this.#entries.set(rows, entry);
    return entry;
  }
}

/** What a dictionary is the value of, for its sum. */
export function dictionaryText(rows: number): string {
  return String(rows);
}
