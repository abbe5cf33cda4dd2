/**
 * The database under the store, and what becomes of it.
 *
 * No disk makes a caller fail: a database that cannot be written goes on in
 * memory with what could be read, one that is damaged is set aside and
 * replaced by what could be believed, one in memory moves back once the folder
 * can be written again. Who writes hands in a task that may run twice.
 */

import { SQLiteError, type Database } from "bun:sqlite";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import {
  isDiskTrouble,
  isInPlace,
  moveToDisk,
  openForReading,
  openInProcess,
  openPlace,
  openVolatile,
  reasonOf,
  removeVolatile,
  volatileBytes,
  type Opened,
  type PlaceOptions,
} from "./place.ts";
import { salvage } from "./salvage.ts";

const RETRY_DISK_MS = 60_000;

/** What a database lies under, and whom its fate concerns. */
export interface BackingParts {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly maxBytes: number;
  readonly isReadOnly: boolean;
  /** A transaction was undone: nothing that it saved is there. */
  readonly undone: () => void;
  /** This database is about to be left: whoever reads from it ends. */
  readonly leaving: () => void;
  /** Another database took its place; `damaged` files and scopes were met on the way. */
  readonly replaced: (damaged: number) => void;
  /** Brings down what is only in memory, before a move. */
  readonly settle: () => void;
  /** The folder can be written again. */
  readonly returned: () => void;
}

/** One database at a time. */
export class Backing {
  #opened: Opened;
  #cancelRetry: (() => void) | undefined;
  #isClosed = false;
  /** What a transaction changes in memory, once it is committed. */
  #afterCommit: (() => void)[] = [];
  /** Damaged files and scopes met while opening. */
  readonly damagedAtStart: number;
  commits = 0;

  constructor(private readonly parts: BackingParts) {
    const place = parts.isReadOnly ? openForReading(parts.stateDir) : openPlace(this.#placeOptions());
    this.#opened = place;
    this.damagedAtStart = place.quarantined;
    if (place.mode === "memory") this.#scheduleRetry();
  }

  get database(): Database {
    return this.#opened.database;
  }

  get opened(): Opened {
    return this.#opened;
  }

  /** How many bytes of rows it may hold where it lies now. */
  get maxBytes(): number {
    const { maxBytes } = this.parts;
    return this.#opened.mode === "disk" ? maxBytes : volatileBytes(maxBytes);
  }

  /** Runs a task in a transaction. A database that fails is replaced and the task runs once more, there. @returns whether it was done. */
  write(task: () => void): boolean {
    if (this.parts.isReadOnly) return false;
    for (let attempt = 0; ; attempt++) {
      this.#afterCommit = [];
      try {
        this.database.transaction(task)();
      } catch (error) {
        this.parts.undone();
        if (!(error instanceof SQLiteError)) throw error;
        if (attempt === 2) {
          this.parts.log.error("write given up", { error: reasonOf(error) });
          return false;
        }
        this.#replace(error, attempt > 0);
        continue;
      }
      this.commits++;
      for (const step of this.#afterCommit.splice(0)) step();
      return true;
    }
  }

  /** Within a transaction: what is to be remembered once it is committed. */
  afterCommit(step: () => void): void {
    this.#afterCommit.push(step);
  }

  /** Runs a task that reads. A database that fails is replaced, and the answer is `otherwise`. */
  read<T>(task: () => T, otherwise: () => T): T {
    try {
      return task();
    } catch (error) {
      if (!(error instanceof SQLiteError)) throw error;
      if (!this.parts.isReadOnly) this.#replace(error, false);
      return otherwise();
    }
  }

  /** Whether the file still lies in its place; if not, what is in memory goes to a new one. SQLite writes on into a file that was removed, and nobody would find it after a restart. */
  checkPlace(): void {
    if (isInPlace(this.#opened)) return;
    this.#replace(Object.assign(new Error("file removed"), { code: "ENOENT" }), false);
    this.#returnToDisk();
  }

  close(): void {
    // The last chance for what was only in memory.
    if (this.#opened.mode === "memory" && !this.parts.isReadOnly) this.#returnToDisk();
    this.#isClosed = true;
    this.#cancelRetry?.();
    this.parts.leaving();
    this.database.close();
    if (this.#opened.mode === "memory") removeVolatile(this.#opened.path);
  }

  /** Goes on with another database, and takes along what can be read. @param isLastResort gives up files altogether. */
  #replace(error: unknown, isLastResort: boolean): void {
    const reason = reasonOf(error);
    const old = this.#opened;
    this.parts.leaving();
    try {
      if (!isLastResort && !isDiskTrouble(error) && old.mode === "disk") this.#setAside(reason);
      else this.#leaveDisk(isLastResort ? openInProcess(reason) : openVolatile(reason));
    } catch (another) {
      if (!(another instanceof SQLiteError)) throw another;
      this.#leaveDisk(openInProcess(reason));
    }
    if (this.#opened.mode === "memory") this.#scheduleRetry();
  }

  #setAside(reason: string): void {
    this.parts.log.error("database damaged, it is set aside", { reason });
    // Closed first: closing removes the log by its name, which will be another file's.
    this.database.close();
    const place = openPlace(this.#placeOptions());
    this.#opened = place;
    this.parts.replaced(Math.max(1, place.quarantined));
  }

  #leaveDisk(opened: Opened): void {
    this.parts.log.error("database cannot be written, carrying on in memory", { reason: opened.reason });
    const old = this.#opened;
    salvage(old.database, opened.database, volatileBytes(this.parts.maxBytes));
    this.#opened = opened;
    this.parts.replaced(0);
    old.database.close();
    if (old.mode === "memory") removeVolatile(old.path);
  }

  #scheduleRetry(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = this.parts.clock.after(RETRY_DISK_MS, () => this.#returnToDisk());
  }

  /** Moves back once the folder can be written again. */
  #returnToDisk(): void {
    if (this.#isClosed || this.#opened.mode !== "memory") return;
    this.parts.settle();
    const old = this.#opened;
    const moved = moveToDisk(this.parts.stateDir, old.database);
    if (moved === undefined) return this.#scheduleRetry();
    this.parts.leaving();
    this.#opened = moved.opened;
    this.parts.replaced(0);
    this.parts.returned();
    old.database.close();
    removeVolatile(old.path);
    this.parts.log.info("state folder can be written again");
  }

  #placeOptions(): PlaceOptions {
    const { stateDir, log, clock, maxBytes } = this.parts;
    return { stateDir, log, maxBytes, stamp: new Date(clock.nowMs()).toISOString().replaceAll(/[:.]/g, "-") };
  }
}
