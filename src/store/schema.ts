/**
 * The tables, and how older files become newer ones.
 *
 * Objects are clustered by arrival (rowid), with one narrow index by scope and
 * key: events of one object rewrite one leaf page and no index page.
 */

import type { Database } from "bun:sqlite";

/** The version this program writes; kept in `PRAGMA user_version`. */
export const SCHEMA_VERSION = 1;

/** Step N brings a file of version N to version N + 1. Never edit a step that was released; add one. */
const STEPS: readonly string[] = [
  `
  CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    head TEXT,                       -- JSON: shape, contentType, epoch; NULL until a list was committed
    resource_version TEXT NOT NULL DEFAULT '',
    changed_at TEXT NOT NULL DEFAULT '',
    last_contact INTEGER NOT NULL DEFAULT 0,
    last_used INTEGER NOT NULL DEFAULT 0
  );
  CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    scope INTEGER NOT NULL,
    key TEXT NOT NULL,
    uid TEXT NOT NULL,
    resource_version TEXT NOT NULL,
    size INTEGER NOT NULL,           -- of the item's bytes, unpacked
    packing INTEGER NOT NULL,        -- bit 0: zstd, bit 1: sealed
    checksum INTEGER NOT NULL,
    value BLOB NOT NULL
  );
  CREATE UNIQUE INDEX objects_by_key ON objects (scope, key);
  CREATE TABLE bodies (
    hash BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    packing INTEGER NOT NULL,
    value BLOB NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE responses (
    principal TEXT NOT NULL,
    target TEXT NOT NULL,
    accept TEXT NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (principal, target, accept)
  ) WITHOUT ROWID;
  CREATE TABLE kept_values (name TEXT PRIMARY KEY, packing INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE quarantine (at INTEGER NOT NULL, what TEXT NOT NULL, value BLOB);
  `,
];

/** Brings a database to the present version. */
export function migrate(database: Database, steps: readonly string[] = STEPS): void {
  const { user_version: from } = database.query("PRAGMA user_version").get() as { user_version: number };
  for (let version = from; version < steps.length; version++) {
    database.transaction(() => {
      database.run(steps[version]!);
      database.run(`PRAGMA user_version = ${version + 1}`);
    })();
  }
}
