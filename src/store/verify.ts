/**
 * Every row of a copy, read and held against its sum and the copy's tally.
 */

import type { Database } from "bun:sqlite";
import { itemOf, pagesOf, placesOf, tallyOf, type ObjectRow, type RowPacking, type Tally } from "./object-rows.ts";

/** What was read of a copy's rows. */
export interface Verified {
  readonly checked: number;
  readonly broken: readonly ObjectRow[];
  /** Rows are missing, or are too many. */
  readonly isShort: boolean;
}

/** Reads all rows of a number. @throws what SQLite says. */
export function verifyRows(database: Database, packing: RowPacking, tally: Tally): Verified {
  const { rows } = packing;
  let checked = 0;
  const broken: ObjectRow[] = [];
  for (const page of pagesOf(() => database, placesOf(database, rows, "arrival"))) {
    checked += page.length;
    broken.push(...page.filter((row) => itemOf(row, packing) === undefined));
  }
  const { objects, digest } = tallyOf(database, rows);
  return { checked, broken, isShort: objects !== tally.objects || digest !== tally.digest };
}
