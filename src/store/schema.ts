/**
 * The tables, and how older files become newer ones.
 *
 * Laid out for a card that wears. Objects are kept in order of arrival, so
 * that a second's events fill a few new pages instead of touching one page
 * each; the only index is by a hash of the key, a dozen bytes an object, and
 * key order is made when a list is read. What every commit moves (a scope's
 * resourceVersion and its times) lies apart in `marks`, some forty to a page.
 *
 * Every row carries a sum (sums.ts): SQLite reads overwritten pages without a
 * word. `counts` names the key that the sums are made with.
 * `marks` also counts a scope's rows and sums their checksums, so that a row
 * that vanished without a trace is missed too.
 */

import type { Database } from "bun:sqlite";
import * as v from "valibot";
import { counted, rowOr } from "./row-shapes.ts";

/** The version this program writes; kept in `PRAGMA user_version`. */
export const SCHEMA_VERSION = 4;

/** Marks a file as ours: "hldf". A stranger's database is set aside, never added to. */
export const APPLICATION_ID = 0x686c6466;

/** Step N brings a file of version N to version N + 1. Never edit a step that was released; add one. */
const STEPS: readonly string[] = [
  `
  PRAGMA application_id = ${APPLICATION_ID};
  CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    head TEXT,                       -- JSON: shape, contentType, epoch, rows; NULL until a list was committed
    checksum INTEGER NOT NULL
  );
  CREATE TABLE marks (
    scope INTEGER PRIMARY KEY,
    resource_version TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    last_contact INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    objects INTEGER NOT NULL,        -- how many rows the scope has
    digest INTEGER NOT NULL,         -- the sum of their checksums
    checksum INTEGER NOT NULL
  );
  CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,           -- the number a scope's head points to
    hash INTEGER NOT NULL,           -- of the key
    key TEXT NOT NULL,
    uid TEXT NOT NULL,
    resource_version TEXT NOT NULL,
    size INTEGER NOT NULL,           -- of the item's bytes, unpacked
    packing INTEGER NOT NULL,        -- bit 0: zstd, bit 1: sealed, bit 2: with the dictionary
    content INTEGER NOT NULL,        -- a hash of the item's bytes, keyed where they are sealed
    checksum INTEGER NOT NULL,       -- of all the above and the value
    value BLOB NOT NULL
  );
  CREATE INDEX objects_by_key ON objects (rows, hash);
  CREATE TABLE dictionaries (rows INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL);
  CREATE TABLE bodies (
    hash BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    packing INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    value BLOB NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE responses (
    principal TEXT NOT NULL,
    target TEXT NOT NULL,
    accept TEXT NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,              -- a hash in bodies
    stored_at INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (principal, target, accept)
  ) WITHOUT ROWID;
  CREATE INDEX responses_by_body ON responses (body);
  CREATE TABLE kept_values (name TEXT PRIMARY KEY, packing INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE quarantine (at INTEGER NOT NULL, what TEXT NOT NULL, value BLOB);
  CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
  `,
  // Whether a list's difference was told to its end; 1 counts in the row's checksum, 0 does not, so that older rows stand.
  "ALTER TABLE marks ADD COLUMN partly_told INTEGER NOT NULL DEFAULT 0",
  // Whether the API server refuses the copy; counts in the sum as the one before. From here on sums are keyed: resum.ts.
  "ALTER TABLE marks ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0",
  // Up to which moment clients were shown more than the rows; counts in the sum where there is one.
  "ALTER TABLE marks ADD COLUMN shown_to TEXT NOT NULL DEFAULT ''",
];

/** The file was written by a program newer than this one; it is set aside untouched. */
export class NewerSchemaError extends Error {
  override readonly name = "NewerSchemaError";

  constructor(readonly version: number) {
    super(`written by a newer program (schema ${version}, this one knows ${SCHEMA_VERSION})`);
  }
}

/** The file is a database, but no store of ours. */
export class ForeignFileError extends Error {
  override readonly name = "ForeignFileError";

  constructor() {
    super("a database of another program");
  }
}

/**
 * Looks at a file before anything is written to it.
 *
 * @returns the version it has; 0 for an empty file.
 * @throws {NewerSchemaError} {ForeignFileError}
 */
export function checkSchema(database: Database): number {
  const version = pragma(database, "user_version");
  const { tables } = database.query("SELECT count(*) AS tables FROM sqlite_schema").get() as { tables: number };
  const isOurs = pragma(database, "application_id") === APPLICATION_ID;
  if (!isOurs && (version > 0 || tables > 0)) throw new ForeignFileError();
  if (version > SCHEMA_VERSION) throw new NewerSchemaError(version);
  return version;
}

/** Brings a database to the present version, one transaction a step. @param steps only tests hand in others. */
export function migrate(database: Database, steps: readonly string[] = STEPS): void {
  for (let version = pragma(database, "user_version"); version < steps.length; version++) {
    database.transaction(() => {
      database.run(steps[version]!);
      database.run(`PRAGMA user_version = ${version + 1}`);
    })();
  }
}

/** A pragma whose answer is one number. */
export function pragma(database: Database, name: string): number {
  return Object.values(database.query(`PRAGMA ${name}`).get() as Record<string, number>)[0]!;
}

const numberSchema = v.object({ n: counted });

/** A number that is kept by name; 0 where there is none. */
export function readNumber(database: Database, name: string): number {
  const row = database.query("SELECT n FROM counts WHERE name = ?").get(name);
  return rowOr(numberSchema, row)?.n ?? 0;
}

/** Keeps a number by name. */
export function saveNumber(database: Database, name: string, n: number): void {
  database.query("INSERT OR REPLACE INTO counts (name, n) VALUES (?, ?)").run(name, n);
}
