/**
 * Where the database lies, and what is done with a file that cannot be used.
 *
 * Start-up always succeeds. A file that is no database of ours, is damaged, or
 * was written by a newer program is set aside under another name; whatever of
 * a damaged one can be believed moves to the empty file in its place, and after
 * a rollback the copy from before the upgrade takes it (former.ts). When the
 * folder cannot be written, the same file lives on a tmpfs until the disk is
 * back, bounded, for there it takes memory.
 */

import { Database, SQLiteError, constants } from "bun:sqlite";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Log } from "../base/log.ts";
import { keepFormer, takeUpFormer } from "./former.ts";
import { ForeignKeyError, takeSums } from "./resum.ts";
import { salvage, type Belonging, type Salvaged } from "./salvage.ts";
import { NewerSchemaError, SCHEMA_VERSION, checkSchema, migrate, pragma } from "./schema.ts";
import type { Sealer } from "./seal.ts";

/** The database's name in its folder. */
export const FILE = "cache.db";
/** The file, its log, and the log's index. */
export const SUFFIXES = ["", "-wal", "-shm"];
const KEPT_ASIDE = 2;
const DAMAGED = "damaged-";
const KEYED = "key-";
const VOLATILE = "holdfast-store-";
/** In memory the store shares the process's own limit, 96 MB on small gateways. */
const VOLATILE_MAX_BYTES = 32 * 1024 * 1024;
/** A person with a shell in the file, or a copy being made, is waited for this long. */
const BUSY_TIMEOUT_MS = 250;

/** An opened database and how it came to be. */
export interface Opened {
  readonly database: Database;
  readonly path: string;
  readonly mode: "disk" | "memory";
  /** Why it is not on disk; "" when it is. */
  readonly reason: string;
  /** Whether readers of their own see one moment while writes go on (WAL); otherwise lists are copied at once. */
  readonly isConcurrent: boolean;
  /** Inode of the file, to notice that it was taken away; 0 in memory. */
  readonly inode: number;
}

/** An opened database, what had to be set aside for it, and what was saved. */
export interface Place extends Opened {
  /** Damaged files and scopes met while opening. */
  readonly quarantined: number;
}

/** How to open, and whom to tell. */
export interface PlaceOptions extends Belonging {
  readonly stateDir: string;
  readonly log: Log;
  /** Distinguishes files set aside; sorts by time. */
  readonly stamp: string;
  readonly nowMs: number;
  readonly maxBytes: number;
  /** Why the folder must not be written, if so. */
  readonly obstacle?: string | undefined;
}

/** Opens the database of a state folder; never throws. */
export function openPlace(options: PlaceOptions): Place {
  const { stateDir, log, obstacle } = options;
  try {
    if (obstacle !== undefined) throw Object.assign(new Error("no lock"), { code: obstacle });
    return openOnDisk(options);
  } catch (error) {
    const reason = reasonOf(error);
    log.error("state folder cannot be written, carrying on in memory", { stateDir, reason });
    const opened = openVolatile(reason, options.sealer);
    const saved = salvageFile(join(stateDir, FILE), opened.database, volatileBytes(options.maxBytes), options);
    return { ...opened, quarantined: saved?.damaged ?? 0 };
  }
}

function openOnDisk(options: PlaceOptions): Place {
  const { stateDir, sealer } = options;
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  chmodSync(stateDir, 0o700);
  const path = join(stateDir, FILE);
  for (const suffix of SUFFIXES) rmSync(`${path}.new${suffix}`, { force: true });
  if (!existsSync(path)) takeUpOwn(path, sealer);
  try {
    if (existsSync(path) && !statSync(path).isFile()) throw new Error("not a file");
    keepFormer(path, options.nowMs, options.log);
    return { ...openFile(path, sealer), quarantined: 0 };
  } catch (error) {
    if (isDiskTrouble(error)) throw error;
    return error instanceof ForeignKeyError ? changeKeys(path, error, options) : replaceFile(path, error, options);
  }
}

/** The file is summed with another key: it waits for that beside ours, whose own may be waiting there. */
function changeKeys(path: string, error: ForeignKeyError, options: PlaceOptions): Place {
  const { log, sealer, maxBytes } = options;
  const aside = setAside(path, `${KEYED}${error.keyName.toString(16)}`);
  const isKnown = takeUpOwn(path, sealer);
  const opened = openFile(path, sealer);
  const saved = isKnown ? undefined : salvageFile(aside, opened.database, maxBytes, options);
  log.warn("database of another sealing key set aside", {
    as: basename(aside),
    scopesSaved: saved?.rows.size ?? 0,
    isTakenUp: isKnown,
  });
  return { ...opened, quarantined: 0 };
}

/** @returns whether a file of our key was waiting. */
function takeUpOwn(path: string, sealer: Sealer): boolean {
  const ours = `${path}.${KEYED}${sealer.keyName.toString(16)}`;
  if (!existsSync(ours)) return false;
  for (const suffix of SUFFIXES) if (existsSync(ours + suffix)) renameSync(ours + suffix, path + suffix);
  return true;
}

function replaceFile(path: string, error: unknown, options: PlaceOptions): Place {
  const { log, stamp, maxBytes, sealer } = options;
  const isNewer = error instanceof NewerSchemaError;
  const aside = setAside(path, isNewer ? `schema-${error.version}` : `${DAMAGED}${stamp}`);
  const isTakenUp = isNewer && takeUpFormer(path);
  const opened = openFile(path, sealer);
  const saved = isNewer ? undefined : salvageFile(aside, opened.database, maxBytes, options);
  log.warn("database set aside", {
    reason: (error as Error).message,
    as: basename(aside),
    scopesSaved: saved?.rows.size ?? 0,
    isTakenUp,
  });
  return { ...opened, quarantined: isNewer ? 0 : 1 };
}

/** Opens an existing database beside the daemon that may be writing it. @throws what SQLite says, or that the file is of another version. */
export function openForReading(stateDir: string): Place {
  const path = join(stateDir, FILE);
  const database = new Database(path, { readonly: true });
  try {
    database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    const version = checkSchema(database);
    if (version !== SCHEMA_VERSION) throw new Error(`schema ${version}, this program reads ${SCHEMA_VERSION}`);
    return { database, path, mode: "disk", reason: "", isConcurrent: true, inode: 0, quarantined: 0 };
  } catch (error) {
    database.close();
    throw error;
  }
}

/** An empty database on a tmpfs, or as the last resort in the process's own memory. */
export function openVolatile(reason: string, sealer: Sealer): Opened {
  for (const parent of [process.env["RUNTIME_DIRECTORY"]?.split(":")[0], "/dev/shm"]) {
    if (parent === undefined || parent === "") continue;
    try {
      removeAbandoned(parent);
      const path = join(mkdtempSync(join(parent, `${VOLATILE}${process.pid}-`)), FILE);
      return { ...openFile(path, sealer), mode: "memory", reason, inode: 0 };
    } catch {
      // The next one may do.
    }
  }
  return openInProcess(reason, sealer);
}

/** An empty database that no disk can spoil. */
export function openInProcess(reason: string, sealer: Sealer): Opened {
  return { ...prepare(new Database(":memory:"), sealer), path: ":memory:", mode: "memory", reason, inode: 0 };
}

/** How much a store in memory may hold. */
export function volatileBytes(maxBytes: number): number {
  return Math.min(maxBytes, VOLATILE_MAX_BYTES);
}

/** Removes a volatile database's folder. */
export function removeVolatile(path: string): void {
  if (path !== ":memory:" && basename(dirname(path)).startsWith(VOLATILE))
    rmSync(dirname(path), { recursive: true, force: true });
}

/**
 * Puts a whole new file, filled from another database, in the place of the one
 * in the state folder.
 *
 * @returns undefined if the disk does not take it; what is there stays.
 */
export function moveToDisk(
  stateDir: string,
  from: Database,
  belonging: Belonging,
): { readonly opened: Opened; readonly saved: Salvaged } | undefined {
  const path = join(stateDir, FILE);
  const fresh = `${path}.new`;
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    proveWritable(`${fresh}.probe`);
    for (const suffix of SUFFIXES) rmSync(fresh + suffix, { force: true });
    const { database } = openFile(fresh, belonging.sealer);
    const saved = salvage(from, database, Number.MAX_SAFE_INTEGER, belonging);
    // Closing brings the log into the file and removes it: one file is left to be moved.
    database.close();
    if (saved.isFull || existsSync(`${fresh}-wal`)) throw new Error("no room");
    syncFolder(fresh);
    // The log first: replayed over another file it would spoil it.
    rmSync(`${path}-wal`, { force: true });
    rmSync(`${path}-shm`, { force: true });
    renameSync(fresh, path);
    syncFolder(stateDir);
    return { opened: openFile(path, belonging.sealer), saved };
  } catch {
    for (const name of [...SUFFIXES.map((suffix) => fresh + suffix), `${fresh}.probe`]) removeQuietly(name);
    return undefined;
  }
}

/** Whether the file that was opened still lies in its place. */
export function isInPlace({ path, inode }: Opened): boolean {
  if (inode === 0) return true;
  try {
    return statSync(path).ino === inode;
  } catch {
    return false;
  }
}

/** SQLite's and the system's words for a disk that is full, read-only, failing or locked: the file itself is not to blame. */
export function isDiskTrouble(error: unknown): boolean {
  const code = String((error as { code?: unknown } | undefined)?.code ?? "");
  return /^(SQLITE_(FULL|READONLY|IOERR|CANTOPEN|PERM|BUSY|LOCKED|PROTOCOL|NOMEM|AUTH|INTERRUPT)|E[A-Z0-9]+$)/.test(
    code,
  );
}

/** A short word for what happened, for `status` and the log. */
export function reasonOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? (error as Error).message);
}

function openFile(path: string, sealer: Sealer): Opened {
  // The file is made before SQLite does, so that at no moment others may read it; the log takes its mode.
  closeSync(openSync(path, "a", 0o600));
  chmodSync(path, 0o600);
  const database = new Database(path, { create: true });
  try {
    return { ...prepare(database, sealer), path, mode: "disk", reason: "", inode: statSync(path).ino };
  } catch (error) {
    database.close();
    throw error;
  }
}

function prepare(database: Database, sealer: Sealer): { readonly database: Database; readonly isConcurrent: boolean } {
  database.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
  checkSchema(database);
  const mode = Object.values(database.query("PRAGMA journal_mode = WAL").get() as Record<string, string>)[0];
  const isConcurrent = mode === "wal";
  // NORMAL: a power cut may take the last commits, never leave half of one. Without a write-ahead log that holds only for FULL.
  database.run(`PRAGMA synchronous = ${isConcurrent ? "NORMAL" : "FULL"}`);
  database.run("PRAGMA cache_size = -1024");
  database.run("PRAGMA mmap_size = 0");
  database.run("PRAGMA temp_store = MEMORY");
  database.run("PRAGMA wal_autocheckpoint = 1000");
  database.run("PRAGMA journal_size_limit = 4194304");
  // Twice the time of quick_check (0.1 s for 40 MB), which does not hold indexes against tables: a flipped bit in one
  // hides an object, and "not found" would be an answer that nobody gave.
  const [check] = database.query("PRAGMA integrity_check(1)").values() as [[string]];
  if (check[0] !== "ok") throw new Error(`integrity_check: ${check[0].split("\n")[0]}`);
  migrate(database);
  if (pragma(database, "user_version") !== SCHEMA_VERSION) throw new Error("migration failed");
  takeSums(database, sealer);
  return { database, isConcurrent };
}

/** Reads a file that is damaged or lies on a disk that cannot be written, as far as it goes. */
function salvageFile(path: string, to: Database, maxBytes: number, belonging: Belonging): Salvaged | undefined {
  // Where not even the log's index can be made, the file is read without its log: older, and checked all the same.
  for (const open of [
    () => new Database(path, { readonly: true }),
    () =>
      new Database(`file:${encodeURI(path)}?immutable=1`, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI),
  ]) {
    let from: Database | undefined;
    try {
      from = open();
      checkSchema(from);
      return salvage(from, to, maxBytes, belonging);
    } catch (error) {
      if (!(error instanceof SQLiteError)) return undefined;
    } finally {
      from?.close();
    }
  }
  return undefined;
}

/** Renames the file with its log; keeps the two newest of the damaged ones. @returns its new path. */
function setAside(path: string, label: string): string {
  let aside = `${path}.${label}`;
  for (let n = 2; existsSync(aside); n++) aside = `${path}.${label}-${n}`;
  for (const suffix of SUFFIXES) {
    try {
      renameSync(path + suffix, aside + suffix);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
  }
  for (const kind of [DAMAGED, KEYED]) forgetOldest(dirname(path), kind);
  return aside;
}

function forgetOldest(folder: string, kind: string): void {
  const found = readdirSync(folder)
    .filter((name) => name.startsWith(`${FILE}.${kind}`) && !/-(wal|shm)$/.test(name))
    .map((name) => ({ name, ms: kind === KEYED ? statSync(join(folder, name)).mtimeMs : 0 }))
    .sort((a, b) => a.ms - b.ms || (a.name < b.name ? -1 : 1));
  for (const { name } of found.slice(0, -KEPT_ASIDE))
    for (const suffix of SUFFIXES) rmSync(join(folder, name + suffix), { recursive: true, force: true });
}

/** Removes what a killed process of ours left on a tmpfs. */
function removeAbandoned(parent: string): void {
  for (const name of readdirSync(parent)) {
    const [, pid] = /^holdfast-store-([0-9]+)-/.exec(name) ?? [];
    if (pid === undefined || Number(pid) === process.pid || existsSync(`/proc/${pid}`)) continue;
    const path = join(parent, name);
    // Anyone may make folders in /dev/shm; only our own are ours to remove.
    if (lstatSync(path).uid === process.getuid?.()) rmSync(path, { recursive: true, force: true });
  }
}

function proveWritable(path: string): void {
  const file = openSync(path, "w", 0o600);
  try {
    writeSync(file, Buffer.alloc(64 * 1024));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  rmSync(path, { force: true });
}

/** Brings what was renamed in a folder, or written to a file, to the disk. */
export function syncFolder(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function removeQuietly(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // The next start removes it.
  }
}
