/**
 * Where the database lies, and what is done with a file that cannot be used.
 *
 * Start-up always succeeds: a file that is no database, is damaged, or was
 * written by a newer program is set aside under another name and an empty one
 * takes its place. When the folder cannot be written at all, the same file
 * lives on a tmpfs until the disk is back.
 */

import { Database } from "bun:sqlite";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Log } from "../base/log.ts";
import { SCHEMA_VERSION, migrate } from "./schema.ts";

const FILE = "cache.db";
const KEPT_ASIDE = 2;

/** An opened database and how it came to be. */
export interface Opened {
  readonly database: Database;
  readonly path: string;
  readonly mode: "disk" | "memory";
  /** Why it is not on disk; "" when it is. */
  readonly reason: string;
  /** Files set aside while opening. */
  readonly quarantined: number;
}

/** Opens the database of a state folder; never throws. */
export function openPlace(stateDir: string, log: Log, stamp: string): Opened {
  let quarantined = 0;
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const path = join(stateDir, FILE);
    for (let attempt = 0; ; attempt++) {
      try {
        return { database: openFile(path), path, mode: "disk", reason: "", quarantined };
      } catch (error) {
        if (attempt > 0 || isDiskTrouble(error)) throw error;
        const label = error instanceof NewerSchemaError ? `schema-${error.version}` : `damaged-${stamp}`;
        log.warn("database set aside, starting empty", { reason: String((error as Error).message), as: `${FILE}.${label}` });
        setAside(path, label);
        if (!(error instanceof NewerSchemaError)) quarantined++;
      }
    }
  } catch (error) {
    const reason = String((error as { code?: string }).code ?? (error as Error).message);
    log.error("state folder cannot be written, carrying on in memory", { stateDir, reason });
    return { ...openVolatile(), reason, quarantined };
  }
}

/** Opens an existing database beside the daemon that may be writing it. @throws what SQLite says. */
export function openForReading(stateDir: string): Opened {
  const path = join(stateDir, FILE);
  return { database: new Database(path, { readonly: true }), path, mode: "disk", reason: "", quarantined: 0 };
}

/** An empty database on a tmpfs, or as the last resort in the process's own memory. */
export function openVolatile(): { database: Database; path: string; mode: "memory" } {
  for (const parent of [process.env["RUNTIME_DIRECTORY"], "/dev/shm"]) {
    if (parent === undefined) continue;
    try {
      const path = join(mkdtempSync(join(parent, "holdfast-")), FILE);
      return { database: openFile(path), path, mode: "memory" };
    } catch {
      // The next one may do.
    }
  }
  return { database: prepare(new Database(":memory:")), path: ":memory:", mode: "memory" };
}

/** Removes a volatile database's folder. */
export function removeVolatile(path: string): void {
  if (path !== ":memory:" && basename(dirname(path)).startsWith("holdfast-")) rmSync(dirname(path), { recursive: true, force: true });
}

function openFile(path: string): Database {
  const database = new Database(path, { create: true });
  try {
    chmodSync(path, 0o600);
    return prepare(database);
  } catch (error) {
    database.close();
    throw error;
  }
}

function prepare(database: Database): Database {
  const { user_version: version } = database.query("PRAGMA user_version").get() as { user_version: number };
  if (version > SCHEMA_VERSION) throw new NewerSchemaError(version);
  // NORMAL: a power cut may take the last commits, never leave half of one. FULL would sync the card at every commit.
  database.run("PRAGMA journal_mode = WAL");
  database.run("PRAGMA synchronous = NORMAL");
  database.run("PRAGMA cache_size = -1024");
  database.run("PRAGMA mmap_size = 0");
  database.run("PRAGMA temp_store = MEMORY");
  database.run("PRAGMA wal_autocheckpoint = 1000");
  database.run("PRAGMA journal_size_limit = 4194304");
  const [check] = database.query("PRAGMA quick_check(1)").values() as [[string]];
  if (check[0] !== "ok") throw new Error("quick_check failed");
  migrate(database);
  return database;
}

/** SQLite's words for a disk that is full, read-only or failing: the file itself is not to blame. */
export function isDiskTrouble(error: unknown): boolean {
  const code = String((error as { code?: unknown } | undefined)?.code ?? "");
  return /^(SQLITE_(FULL|READONLY|IOERR|CANTOPEN|PERM)|EROFS|ENOSPC|EACCES|EPERM|ENOTDIR|EDQUOT)/.test(code);
}

class NewerSchemaError extends Error {
  constructor(readonly version: number) {
    super(`written by a newer program (schema ${version}, this one knows ${SCHEMA_VERSION})`);
  }
}

/** Renames the file with its log; keeps the two newest of the damaged ones. */
function setAside(path: string, label: string): void {
  for (const suffix of ["", "-wal", "-shm"]) {
    try {
      renameSync(path + suffix, `${path}.${label}${suffix}`);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
  }
  const damaged = readdirSync(dirname(path)).filter((name) => name.startsWith(`${FILE}.damaged-`) && !/-(wal|shm)$/.test(name)).sort();
  for (const name of damaged.slice(0, -KEPT_ASIDE)) {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(join(dirname(path), name + suffix), { force: true });
  }
}
