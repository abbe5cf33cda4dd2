/**
 * One process for a state folder.
 *
 * The lock is SQLite's own exclusive lock on an otherwise empty database: the
 * kernel holds it for the process and lets it go with it, however it ends. Our
 * pid stands in the file's header, where a second process can read it though
 * it cannot open the file:
 *
 *   lock: SQLite header, bytes 60 to 63 = pid, big endian (`PRAGMA user_version`)
 *
 * Invariant: a process that holds it opens the file in no other way. Closing
 * any descriptor of it would drop the lock (POSIX).
 */

import { Database } from "bun:sqlite";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readSync, truncateSync } from "node:fs";
import { join, resolve } from "node:path";
import { EdgeError } from "../base/errors.ts";

const FILE = "lock";
const PID_AT = 60;
/** Lock files that this process holds: it must not touch them a second time. */
const held = new Set<string>();

/** Another process uses the state folder; it was not touched. */
export class StateFolderLockedError extends EdgeError {
  override readonly name = "StateFolderLockedError";
  readonly code = "STATE_FOLDER_LOCKED";

  constructor(
    readonly stateDir: string,
    /** 0 where it could not be read. */
    readonly pid: number,
  ) {
    super(`Cannot use the state folder "${stateDir}": ${pid === 0 ? "another process" : `process ${pid}`} uses it`);
  }
}

/** The lock on a state folder. */
export class StateLock {
  #held: Database | undefined;
  #obstacle = "";

  /** @throws {StateFolderLockedError} if another process has it. A folder that takes no file leaves it not held. */
  constructor(private readonly stateDir: string) {
    this.#take();
  }

  /** Whether nobody else can have the folder. */
  get isHeld(): boolean {
    return this.#held !== undefined;
  }

  /** Why it is not held; undefined when it is. */
  get obstacle(): string | undefined {
    return this.isHeld ? undefined : this.#obstacle;
  }

  /** Takes it where that was not possible before. @returns whether it is held. */
  retake(): boolean {
    try {
      if (this.#held === undefined) this.#take();
    } catch (error) {
      if (!(error instanceof StateFolderLockedError)) throw error;
      this.#obstacle = error.code;
    }
    return this.isHeld;
  }

  #take(): void {
    const taken = take(this.stateDir);
    if (taken instanceof Database) this.#held = taken;
    else this.#obstacle = taken;
  }

  /** Lets it go. */
  release(): void {
    if (this.#held === undefined) return;
    this.#held.close();
    this.#held = undefined;
    held.delete(pathOf(this.stateDir));
  }
}

/** @returns the database whose lock it is, or why the folder takes none. */
function take(stateDir: string): Database | string {
  const path = pathOf(stateDir);
  if (held.has(path)) throw new StateFolderLockedError(stateDir, process.pid);
  for (let attempt = 0; ; attempt++) {
    let database: Database | undefined;
    try {
      mkdirSync(stateDir, { recursive: true, mode: 0o700 });
      if (!existsSync(path)) closeSync(openSync(path, "a", 0o600));
      database = new Database(path, { create: true });
      lock(database);
      sign(database);
      held.add(path);
      return database;
    } catch (error) {
      database?.close();
      const code = String((error as { code?: unknown }).code);
      if (/^SQLITE_(BUSY|LOCKED)/.test(code)) throw new StateFolderLockedError(stateDir, pidIn(path));
      // Torn by a power cut: whoever held it would have kept us from reading that far.
      if (attempt > 0 || !/^SQLITE_(NOTADB|CORRUPT)/.test(code) || !emptied(path)) return code;
    }
  }
}

function pathOf(stateDir: string): string {
  return join(resolve(stateDir), FILE);
}

function lock(database: Database): void {
  database.run("PRAGMA busy_timeout = 0");
  database.run("PRAGMA locking_mode = EXCLUSIVE");
  database.run("PRAGMA journal_mode = MEMORY");
  database.run("PRAGMA synchronous = OFF");
  database.run("BEGIN EXCLUSIVE");
}

/** Writes our pid; in exclusive mode the lock stays when the transaction ends. */
function sign(database: Database): void {
  try {
    database.run(`PRAGMA user_version = ${process.pid}`);
    database.run("COMMIT");
  } catch {
    // No room for a page: the lock holds without a name on it.
    if (database.inTransaction) database.run("ROLLBACK");
    database.run("BEGIN EXCLUSIVE");
  }
}

function pidIn(path: string): number {
  const bytes = Buffer.alloc(4);
  const file = openSync(path, "r");
  try {
    return readSync(file, bytes, 0, 4, PID_AT) === 4 ? bytes.readUInt32BE() : 0;
  } finally {
    closeSync(file);
  }
}

function emptied(path: string): boolean {
  try {
    truncateSync(path);
    chmodSync(path, 0o600);
    return true;
  } catch {
    return false;
  }
}
