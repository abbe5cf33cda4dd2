/**
 * Rows of `objects`: one kept item each.
 *
 * Rows belong to a number that a scope's head points to, not to the scope: a
 * list in the making has its own number, and becomes the scope's content by
 * one change of the head.
 */

import type { Database } from "bun:sqlite";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import { boundPacking, isBound, isSealed, pack, unpack, unpackTogether } from "./packing.ts";
import type { Sealer } from "./seal.ts";
import type { Sums } from "./sums.ts";

/** An item as it is stored. */
export interface ObjectRow {
  readonly key: string;
  readonly uid: string;
  readonly resource_version: string;
  readonly size: number;
  readonly packing: number;
  readonly content: number;
  readonly checksum: number;
  readonly value: Uint8Array;
  /** Of the key, where it was read: a row that cannot be found by its key is damaged, too. */
  readonly hash?: number;
}

/** What tells one state of an object from another, without its value. */
export interface RowMark {
  readonly id: number;
  readonly uid: string;
  readonly resource_version: string;
  readonly content: number;
  readonly checksum: number;
}

/** How many rows a number has, and the sum of their checksums. */
export interface Tally {
  objects: number;
  digest: number;
}

/** The columns of an ObjectRow. */
export const ROW_COLUMNS = "key, uid, resource_version, size, packing, content, checksum, value";

/** The same where another table has columns of these names. */
const ROW_COLUMNS_OF_OBJECTS =
  "objects.hash, objects.key, objects.uid, objects.resource_version, objects.size, objects.packing, objects.content, objects.checksum, objects.value";
const PAGE_ROWS = 64;
const PAGE_BYTES = 256 * 1024;

/** Packs items for rows of one number, and opens them again. */
export interface RowPacking {
  readonly rows: number;
  /** What the copy is: rows are bound to it. */
  readonly identity: string;
  readonly sums: Sums;
  readonly sealer: Sealer;
  readonly isSealed: boolean;
  readonly dictionary: Uint8Array | undefined;
}

/** An item as a row. */
export function rowOf({ meta, bytes }: Item, packing: RowPacking): ObjectRow {
  const row = {
    key: objectKey(meta.namespace, meta.name),
    uid: meta.uid,
    resource_version: meta.resourceVersion,
    size: bytes.length,
    content: contentOf(bytes, packing.isSealed ? packing.sealer : undefined),
  };
  const place = placeOf(packing.rows, row);
  const { value, packing: how } = packing.isSealed
    ? pack(bytes, `${packing.identity}\n${place}`, { sealer: packing.sealer })
    : pack(bytes, place, { dictionary: packing.dictionary });
  return summed({ ...row, value, packing: packing.isSealed ? boundPacking(how) : how, checksum: 0 }, packing);
}

/** A row as an item. @returns undefined when it is damaged or does not open. */
export function itemOf(row: ObjectRow, packing: RowPacking): Item | undefined {
  if (!isWhole(row, packing)) return undefined;
  const place = placeOf(packing.rows, row);
  const bytes = unpack(row, isBound(row.packing) ? `${packing.identity}\n${place}` : place, packing.sealer, {
    dictionary: packing.dictionary,
    sizeBytes: row.size,
  });
  return bytes === undefined ? undefined : checkedItem(row, bytes, packing.sealer);
}

/** Rows as items, up to the first that is damaged. Their bytes share memory. */
export function itemsOf(
  rows: readonly ObjectRow[],
  packing: RowPacking,
): { readonly items: Item[]; readonly damaged: ObjectRow | undefined } {
  const broken = rows.findIndex((row) => !isWhole(row, packing));
  const whole = broken < 0 ? rows : rows.slice(0, broken);
  const together = unpackTogether(whole, packing.dictionary);
  const items: Item[] = [];
  for (const [index, row] of whole.entries()) {
    const item = together === undefined ? itemOf(row, packing) : checkedItem(row, together[index]!, packing.sealer);
    if (item === undefined) return { items, damaged: row };
    items.push(item);
  }
  return { items, damaged: broken < 0 ? undefined : rows[broken] };
}

/** Whether a row holds exactly this item. */
export function isSame(mark: RowMark, { meta, bytes }: Item, sealer: Sealer | undefined): boolean {
  return isSameState(mark, meta) && mark.content === contentOf(bytes, sealer);
}

/** Whether a row holds this state of the object, by the API server's own measure. */
export function isSameState(mark: RowMark, meta: Item["meta"]): boolean {
  return meta.resourceVersion !== "" && mark.resource_version === meta.resourceVersion && mark.uid === meta.uid;
}

/** Whether a row's bytes are those that were written, for this copy. */
export function isWhole(row: ObjectRow, packing: RowPacking): boolean {
  return packing.sums.holds(row.checksum, row.value, summedOf(row, packing));
}

/** The row with its sum. */
export function summed(row: ObjectRow, packing: RowPacking): ObjectRow {
  return { ...row, checksum: packing.sums.of(row.value, summedOf(row, packing)) };
}

// ---- statements ----

/** The state of a key's row. */
export function findMark(database: Database, rows: number, key: string): RowMark | undefined {
  return (
    (database
      .query("SELECT id, uid, resource_version, content, checksum FROM objects WHERE rows = ? AND hash = ? AND key = ?")
      .get(rows, hashOf(key), key) as RowMark | null) ?? undefined
  );
}

/** A key's row. */
export function findRow(database: Database, rows: number, key: string): ObjectRow | undefined {
  return (
    (database
      .query(`SELECT ${ROW_COLUMNS} FROM objects WHERE rows = ? AND hash = ? AND key = ?`)
      .get(rows, hashOf(key), key) as ObjectRow | null) ?? undefined
  );
}

/** Writes a row whose key is known to have none. */
export function insertRow(database: Database, rows: number, row: ObjectRow): void {
  const { key, uid, resource_version: resourceVersion, size, packing, content, checksum: sum, value } = row;
  database
    .query(`INSERT INTO objects (rows, hash, ${ROW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
    .run(rows, hashOf(key), key, uid, resourceVersion, size, packing, content, sum, value);
}

/** Writes a row in the place of the one its key has, and keeps the tally. */
export function putRow(database: Database, rows: number, row: ObjectRow, tally: Tally): void {
  const before = findMark(database, rows, row.key);
  tally.digest += row.checksum - (before?.checksum ?? 0);
  if (before === undefined) {
    tally.objects++;
    insertRow(database, rows, row);
    return;
  }
  const { uid, resource_version: resourceVersion, size, packing, content, checksum: sum, value } = row;
  database
    .query(
      "UPDATE objects SET uid = ?, resource_version = ?, size = ?, packing = ?, content = ?, checksum = ?, value = ? WHERE id = ?",
    )
    .run(uid, resourceVersion, size, packing, content, sum, value, before.id);
}

/** Removes a key's row and keeps the tally. @returns whether there was one. */
export function deleteRow(database: Database, rows: number, key: string, tally: Tally): boolean {
  const before = findMark(database, rows, key);
  if (before === undefined) return false;
  tally.objects--;
  tally.digest -= before.checksum;
  database.query("DELETE FROM objects WHERE id = ?").run(before.id);
  return true;
}

/** Removes all rows of a number, and its dictionary. */
export function clearRows(database: Database, rows: number): void {
  database.query("DELETE FROM objects WHERE rows = ?").run(rows);
  database.query("DELETE FROM dictionaries WHERE rows = ?").run(rows);
}

/** Counts and sums the rows of a number. */
export function tallyOf(database: Database, rows: number): Tally {
  return database
    .query("SELECT count(*) AS objects, coalesce(sum(checksum), 0) AS digest FROM objects WHERE rows = ?")
    .get(rows) as Tally;
}

/** Where rows lie, how long their items are, and their sums: sixteen bytes a row, for a reader may stand long. */
export interface RowPlaces {
  readonly ids: Float64Array;
  readonly sizes: Uint32Array;
  readonly checksums: Int32Array;
}

/** Where the rows of a number lie: in key order for a list, in order of arrival for a scan. */
export function placesOf(database: Database, rows: number, order: "key" | "arrival"): RowPlaces {
  // The inner query sorts the numbers, so that pages are read in the order they lie.
  const inner = "SELECT id FROM objects WHERE rows = ?";
  const sorted = order === "key" ? "key" : "id";
  return placesFrom(
    database.query(`SELECT id, size, checksum FROM objects WHERE id IN (${inner}) ORDER BY ${sorted}`).values(rows) as [
      number,
      number,
      number,
    ][],
  );
}

/** The same by reading the whole table, for a file whose index may be what is damaged. */
export function placesByScan(database: Database, rows: number): RowPlaces {
  return placesFrom(
    database.query("SELECT id, size, checksum FROM objects NOT INDEXED WHERE rows = ? ORDER BY id").values(rows) as [
      number,
      number,
      number,
    ][],
  );
}

function placesFrom(values: readonly (readonly [id: number, size: number, checksum: number])[]): RowPlaces {
  return {
    ids: Float64Array.from(values, ([id]) => id),
    sizes: Uint32Array.from(values, ([, size]) => size),
    checksums: Int32Array.from(values, ([, , checksum]) => checksum),
  };
}

/** How many rows are read at once from here: at most 64, or some 256 KB of items, so that large objects do not add up. */
export function pageLength({ sizes }: RowPlaces, from: number): number {
  let at = from;
  for (let bytes = 0; at < sizes.length && at - from < PAGE_ROWS; at++) {
    bytes += sizes[at]!;
    if (bytes > PAGE_BYTES && at > from) break;
  }
  return at - from;
}

/** Rows, a page at a time. @param database asked for each page anew. */
export function* pagesOf(
  database: () => Database,
  places: RowPlaces,
): Generator<(ObjectRow & { readonly id: number })[], void> {
  for (let at = 0; at < places.ids.length;) {
    const ids = places.ids.subarray(at, (at += pageLength(places, at)));
    yield database()
      .query(
        `SELECT objects.id, ${ROW_COLUMNS_OF_OBJECTS} FROM json_each(?) AS wanted CROSS JOIN objects ON objects.id = wanted.value`,
      )
      .all(JSON.stringify([...ids])) as (ObjectRow & { readonly id: number })[];
  }
}

function hashOf(key: string): number {
  return Bun.hash.xxHash32(key) | 0;
}

/** Of a sealed item not even a hash lies open: it would confirm a guess. */
function contentOf(bytes: Uint8Array, sealer: Sealer | undefined): number {
  return sealer === undefined
    ? Bun.hash.xxHash32(bytes as Uint8Array<ArrayBuffer>) | 0
    : Number.parseInt(sealer.hash(bytes).slice(0, 8), 16) | 0;
}

function checkedItem(row: ObjectRow, bytes: Uint8Array, sealer: Sealer): Item | undefined {
  const { key, uid, resource_version: resourceVersion } = row;
  if (typeof key !== "string" || typeof uid !== "string" || typeof resourceVersion !== "string") return undefined;
  if (row.hash !== undefined && row.hash !== hashOf(key)) return undefined;
  if (bytes.length !== row.size || contentOf(bytes, isSealed(row.packing) ? sealer : undefined) !== row.content)
    return undefined;
  const slash = row.key.indexOf("/");
  return {
    meta: {
      namespace: slash < 0 ? "" : row.key.slice(0, slash),
      name: row.key.slice(slash + 1),
      uid: row.uid,
      resourceVersion: row.resource_version,
    },
    bytes,
  };
}

function placeOf(
  rows: number,
  { key, uid, resource_version: resourceVersion }: Pick<ObjectRow, "key" | "uid" | "resource_version">,
): string {
  return `${rows}\n${key}\n${uid}\n${resourceVersion}`;
}

function summedOf(row: ObjectRow, { rows, identity, sums }: RowPacking): string {
  const fields = `${placeOf(rows, row)}\n${row.size}\n${row.packing}\n${row.content}`;
  return sums.isKeyed ? `${identity}\n${fields}` : fields;
}
