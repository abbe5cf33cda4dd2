/**
 * Taking what can be believed from one database into another.
 *
 * Used when a file is damaged, when the disk can no longer be written, and on
 * the way back. A scope comes whole or not at all: every row's checksum is
 * looked at, then their number and their sum. So damage costs the scopes it
 * hit, and no list ever comes back shorter than it was.
 */

import { SQLiteError, type Database } from "bun:sqlite";
import { clearRows, insertRow, isWhole, pagesOf, placesByScan, type Tally } from "./object-rows.ts";
import { checksum } from "./packing.ts";
import { copyResponses } from "./responses.ts";
import { byDispensability, insertScope, readScopes, saveHead, saveMarks, type StoredScope } from "./scope-rows.ts";

/** What came across. */
export interface Salvaged {
  /** Numbers of object rows that are in the new database. */
  readonly rows: ReadonlySet<number>;
  /** Scopes that could not be taken because they are damaged. */
  readonly damaged: number;
  /** The target had no room for everything. */
  readonly isFull: boolean;
}

/** Copies scopes, answers and values; never throws because of a disk. @param maxBytes of values; what kubelet lives on comes first. */
export function salvage(from: Database, to: Database, maxBytes: number): Salvaged {
  const rows = new Set<number>();
  let damaged = 0;
  let isFull = false;
  let bytesLeft = maxBytes;
  const attempt = <T>(task: () => T): T | undefined => {
    try {
      return to.transaction(task)();
    } catch (error) {
      if (!(error instanceof DamagedError) && !(error instanceof SQLiteError)) throw error;
      // A source is read only: whatever has no room is the target.
      isFull ||= (error as SQLiteError).code === "SQLITE_FULL";
      return undefined;
    }
  };
  attempt(() => copyPlain(from, to));
  const found = attempt(() => readScopes(from));
  damaged += found?.damaged.length ?? 1;
  for (const scope of (found?.scopes ?? []).sort(byDispensability).reverse()) {
    attempt(() => insertScope(to, scope.identity, scope.lastUsedMs, scope.id));
    if (scope.listed === undefined) continue;
    const bytes = attempt(() => copyScope(from, to, scope, bytesLeft));
    if (bytes === undefined) damaged++;
    if (bytes === undefined || bytes > bytesLeft) continue;
    bytesLeft -= bytes;
    rows.add(scope.rows);
  }
  attempt(() => copyResponses(from, to, bytesLeft));
  return { rows, damaged, isFull };
}

/** @returns the bytes taken; more than `bytesLeft` means that nothing was. @throws {DamagedError} so that the transaction undoes what was begun. */
function copyScope(from: Database, to: Database, scope: StoredScope, bytesLeft: number): number {
  const { rows } = scope;
  const tally: Tally = { objects: 0, digest: 0 };
  let bytes = 0;
  const dictionary = from.query("SELECT checksum, value FROM dictionaries WHERE rows = ?").get(rows) as {
    checksum: number;
    value: Uint8Array;
  } | null;
  if (dictionary !== null && checksum(dictionary.value, String(rows)) !== dictionary.checksum) throw new DamagedError();
  if (dictionary !== null)
    to.query("INSERT OR REPLACE INTO dictionaries (rows, checksum, value) VALUES (?, ?, ?)").run(
      rows,
      dictionary.checksum,
      dictionary.value,
    );
  for (const page of pagesOf(from, placesByScan(from, rows))) {
    for (const row of page) {
      if (!isWhole(rows, row)) throw new DamagedError();
      tally.objects++;
      tally.digest += row.checksum;
      bytes += row.value.length;
      insertRow(to, rows, row);
    }
    if (bytes > bytesLeft) {
      clearRows(to, rows);
      return bytes;
    }
  }
  if (tally.objects !== scope.tally.objects || tally.digest !== scope.tally.digest) throw new DamagedError();
  saveHead(to, scope);
  saveMarks(to, scope);
  return bytes;
}

function copyPlain(from: Database, to: Database): void {
  for (const { name, packing, checksum: sum, value } of from
    .query("SELECT name, packing, checksum, value FROM kept_values")
    .all() as { name: string; packing: number; checksum: number; value: Uint8Array }[]) {
    to.query("INSERT OR REPLACE INTO kept_values (name, packing, checksum, value) VALUES (?, ?, ?, ?)").run(
      name,
      packing,
      sum,
      value,
    );
  }
  for (const { name, n } of from.query("SELECT name, n FROM counts").all() as { name: string; n: number }[])
    to.query("INSERT OR REPLACE INTO counts (name, n) VALUES (?, ?)").run(name, n);
}

class DamagedError extends Error {
  override readonly name = "DamagedError";
}
