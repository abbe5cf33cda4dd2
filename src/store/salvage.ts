/**
 * Taking what can be believed from one database into another.
 *
 * Used when a file is damaged, when the disk can no longer be written, and on
 * the way back. A scope comes whole or not at all: every row's checksum is
 * looked at, then their number and their sum. So damage costs the scopes it
 * hit, and no list ever comes back shorter than it was.
 */

import { SQLiteError, type Database } from "bun:sqlite";
import { clearRows, insertRow, type Tally } from "./object-rows.ts";
import { copyResponses } from "./responses.ts";
import { sumsOf } from "./resum.ts";
import { readNumber, saveNumber } from "./schema.ts";
import { byDispensability, insertScope, readScopes, saveHead, saveMarks, type StoredScope } from "./scope-rows.ts";
import type { Sealer } from "./seal.ts";
import { BrokenSumError, dictionarySummedAnew, rowsSummedAnew, type SumChange } from "./summed-anew.ts";
import { Sums } from "./sums.ts";
import { valueRows, valueText } from "./values.ts";

/** What came across. */
export interface Salvaged {
  /** Numbers of object rows that are in the new database. */
  readonly rows: ReadonlySet<number>;
  /** Scopes that could not be taken because they are damaged. */
  readonly damaged: number;
  /** The target had no room for everything. */
  readonly isFull: boolean;
}

/** Whose node this is. */
export interface Belonging {
  readonly sealer: Sealer;
  /** Whether a principal is the node itself. */
  readonly isOwn: (principal: string) => boolean;
}

interface Way {
  readonly from: Database;
  readonly to: Database;
  readonly sealer: Sealer;
  readonly sums: SumChange;
}

/**
 * Copies scopes, answers and values, and sums them with our key; never throws because of a disk.
 *
 * @param maxBytes of values; the node's own come first, and of these what kubelet lives on.
 */
export function salvage(from: Database, to: Database, maxBytes: number, { sealer, isOwn }: Belonging): Salvaged {
  const rows = new Set<number>();
  let damaged = 0;
  let isFull = false;
  let bytesLeft = maxBytes;
  const attempt = <T>(task: () => T): T | undefined => {
    try {
      return to.transaction(task)();
    } catch (error) {
      if (!(error instanceof BrokenSumError) && !(error instanceof SQLiteError)) throw error;
      // A source is read only: whatever has no room is the target.
      isFull ||= (error as SQLiteError).code === "SQLITE_FULL";
      return undefined;
    }
  };
  const believed = attempt(() => ({ sums: sumsOf(from, sealer) }));
  if (believed?.sums === undefined) return { rows, damaged: 1, isFull };
  const way: Way = { from, to, sealer, sums: { from: believed.sums, to: Sums.keyed(sealer) } };
  attempt(() => copyPlain(way));
  const found = attempt(() => readScopes(from, way.sums.from));
  damaged += found?.damaged.length ?? 1;
  for (const scope of (found?.scopes ?? []).sort(byDispensability(isOwn)).reverse()) {
    attempt(() => insertScope(to, way.sums.to, scope));
    if (scope.listed === undefined) continue;
    const bytes = attempt(() => copyScope(way, scope, bytesLeft));
    if (bytes === undefined) damaged++;
    if (bytes === undefined || bytes > bytesLeft) continue;
    bytesLeft -= bytes;
    rows.add(scope.rows);
  }
  attempt(() => copyResponses(from, to, bytesLeft, { ...way.sums, isOwn }));
  return { rows, damaged, isFull };
}

/** @returns the bytes taken; more than `bytesLeft` means that nothing was. @throws {BrokenSumError} so that the transaction undoes what was begun. */
function copyScope({ from, to, sealer, sums }: Way, scope: StoredScope, bytesLeft: number): number {
  const { rows } = scope;
  const found: Tally = { objects: 0, digest: 0 };
  const tally: Tally = { objects: 0, digest: 0 };
  let bytes = 0;
  const dictionary = dictionarySummedAnew(from, rows, sums);
  if (dictionary !== undefined)
    to.query("INSERT OR REPLACE INTO dictionaries (rows, checksum, value) VALUES (?, ?, ?)").run(
      rows,
      dictionary.checksum,
      dictionary.value,
    );
  for (const page of rowsSummedAnew(from, scope, sealer, sums)) {
    for (const { row, kept } of page) {
      found.objects++;
      found.digest += row.checksum;
      tally.objects++;
      tally.digest += kept.checksum;
      bytes += row.value.length;
      insertRow(to, rows, kept);
    }
    if (bytes > bytesLeft) {
      clearRows(to, rows);
      return bytes;
    }
  }
  if (found.objects !== scope.tally.objects || found.digest !== scope.tally.digest) throw new BrokenSumError();
  saveHead(to, sums.to, scope);
  saveMarks(to, sums.to, { ...scope, tally });
  return bytes;
}

function copyPlain({ from, to, sums }: Way): void {
  for (const { name, packing, checksum: sum, value } of valueRows(from)) {
    if (!sums.from.holds(sum, value, valueText(name, packing))) continue;
    to.query("INSERT OR REPLACE INTO kept_values (name, packing, checksum, value) VALUES (?, ?, ?, ?)").run(
      name,
      packing,
      sums.to.of(value, valueText(name, packing)),
      value,
    );
  }
  for (const name of ["quarantined", "next_copy", "next_rows"]) saveNumber(to, name, readNumber(from, name));
}
