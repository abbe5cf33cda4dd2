/**
 * A copy's rows and its dictionary, each believed by the sums that it has and
 * summed anew with others.
 */

import type { Database } from "bun:sqlite";
import { dictionaryText } from "./dictionaries.ts";
import { isWhole, pagesOf, placesByScan, summed, type ObjectRow, type RowPacking } from "./object-rows.ts";
import { rowIdentityOf, type StoredScope } from "./scope-rows.ts";
import type { Sealer } from "./seal.ts";
import type { Sums } from "./sums.ts";

/** The sums that are there, and those that are to be. */
export interface SumChange {
  readonly from: Sums;
  readonly to: Sums;
}

/** A row or a dictionary is not what its sum says: the copy is not to be believed. */
export class BrokenSumError extends Error {
  override readonly name = "BrokenSumError";
}

/**
 * The rows as they lie there and as they are to be, page by page.
 *
 * @throws {BrokenSumError} at the first that cannot be believed.
 */
export function* rowsSummedAnew(
  database: Database,
  scope: StoredScope,
  sealer: Sealer,
  sums: SumChange,
): Generator<readonly { readonly row: ObjectRow & { readonly id: number }; readonly kept: ObjectRow }[]> {
  const { rows } = scope;
  const packing: Omit<RowPacking, "sums"> = {
    rows,
    identity: rowIdentityOf(scope),
    sealer,
    isSealed: false,
    dictionary: undefined,
  };
  for (const page of pagesOf(() => database, placesByScan(database, rows)))
    yield page.map((row) => {
      if (!isWhole(row, { ...packing, sums: sums.from })) throw new BrokenSumError();
      return { row, kept: summed(row, { ...packing, sums: sums.to }) };
    });
}

/** The dictionary of these rows with its new sum; undefined where there is none. @throws {BrokenSumError} */
export function dictionarySummedAnew(
  database: Database,
  rows: number,
  sums: SumChange,
): { readonly checksum: number; readonly value: Uint8Array } | undefined {
  const found = database.query("SELECT checksum, value FROM dictionaries WHERE rows = ?").get(rows) as {
    checksum: number;
    value: Uint8Array;
  } | null;
  if (found === null) return undefined;
  const { checksum, value } = found;
  if (!sums.from.holds(checksum, value, dictionaryText(rows))) throw new BrokenSumError();
  return { checksum: sums.to.of(value, dictionaryText(rows)), value };
}
