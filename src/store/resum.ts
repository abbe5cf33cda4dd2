/**
 * With which key a file's sums were made, and making them anew with ours.
 *
 *   none    a file from before version 3, or one whose change was cut off: summed now, in place
 *   ours    the usual
 *   other   where the key is a credential nothing of it is believed: the file is set
 *           aside and taken up again with its key; where the key lay in a file and is
 *           lost, so is what it sealed, and the rest is worth more than its sums
 *
 * In place and a copy at a time: a crash leaves each copy summed in one way or
 * the other, and the next start goes on.
 */

import type { Database } from "bun:sqlite";
import { resumResponses } from "./responses.ts";
import { pragma, readNumber, saveNumber } from "./schema.ts";
import { readScopes, saveHead, saveMarks, type StoredScope } from "./scope-rows.ts";
import type { Sealer } from "./seal.ts";
import { BrokenSumError, dictionarySummedAnew, rowsSummedAnew, type SumChange } from "./summed-anew.ts";
import { Sums } from "./sums.ts";
import { resumValues } from "./values.ts";

const KEY = "sum_key";

/** The file's sums are of another key, which this one is not to replace. */
export class ForeignKeyError extends Error {
  override readonly name = "ForeignKeyError";

  constructor(readonly keyName: number) {
    super("its sums were made with another key");
  }
}

/** How a file's sums are to be read; undefined where nothing of it is to be believed. */
export function sumsOf(database: Database, sealer: Sealer): Sums | undefined {
  const name = pragma(database, "user_version") < 3 ? 0 : readNumber(database, KEY);
  if (name === 0) return Sums.plain;
  if (name === sealer.keyName) return Sums.keyed(sealer);
  return sealer.source === "credential" ? undefined : Sums.trusting(sealer);
}

/** Brings a file's sums to our key. @throws {ForeignKeyError} if they are of another. */
export function takeSums(database: Database, sealer: Sealer): void {
  const name = readNumber(database, KEY);
  if (name === sealer.keyName) return;
  if (name !== 0) throw new ForeignKeyError(name);
  const sums = { from: Sums.plain, to: Sums.keyed(sealer) };
  for (const scope of readScopes(database, sums.from).scopes) {
    try {
      database.transaction(() => resumScope(database, scope, sealer, sums))();
    } catch (error) {
      if (!(error instanceof BrokenSumError)) throw error;
      // Left as it is: with our key it is damaged, and is counted as that.
    }
  }
  database.transaction(() => {
    resumValues(database, sums);
    resumResponses(database, sums);
    saveNumber(database, KEY, sealer.keyName);
  })();
}

/** A copy's rows, its dictionary, its head and its marks, or nothing of it. */
function resumScope(database: Database, scope: StoredScope, sealer: Sealer, sums: SumChange): void {
  const tally = { objects: 0, digest: 0 };
  const update = database.query("UPDATE objects SET checksum = ? WHERE id = ?");
  for (const page of rowsSummedAnew(database, scope, sealer, sums))
    for (const { row, kept } of page) {
      tally.objects++;
      tally.digest += kept.checksum;
      update.run(kept.checksum, row.id);
    }
  if (tally.objects !== scope.tally.objects) throw new BrokenSumError();
  const dictionary = dictionarySummedAnew(database, scope.rows, sums);
  if (dictionary !== undefined)
    database.query("UPDATE dictionaries SET checksum = ? WHERE rows = ?").run(dictionary.checksum, scope.rows);
  saveHead(database, sums.to, scope);
  saveMarks(database, sums.to, { ...scope, tally });
}
