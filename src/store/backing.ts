/**
 * The database under the store, and what becomes of it.
 *
 * No disk makes a caller fail: a database that cannot be written goes on in
 * memory with what could be read, one that is damaged is set aside and
 * replaced by what could be believed, one in memory moves back once the folder
 * can be written again. Who writes hands in a task that may run twice.
 */

import { SQLiteError, type Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { isSameCluster, ownerIn, ownerOf, setAsideOf, setClusterAside, takeUp, type Cluster } from "./clusters.ts";
import type { StateLock } from "./lock.ts";
import {
  FILE,
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
  type Place,
  type PlaceOptions,
} from "./place.ts";
import { salvage, type Belonging } from "./salvage.ts";

const RETRY_DISK_MS = 60_000;

/** What a database lies under, and whom its fate concerns. */
export interface BackingParts extends Belonging {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly maxBytes: number;
  readonly isReadOnly: boolean;
  /** Held by this process where the folder takes one; undefined for who only reads. */
  readonly lock: StateLock | undefined;
  /** The configured cluster; undefined where the state is nobody's in particular. */
  readonly cluster: Cluster | undefined;
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
  /** Where the file lies or is to lie; undefined while that is another cluster's and ours has not proven itself. */
  #home: string | undefined;
  /** Whose the file in the state folder is, while it is not ours. */
  #other: Cluster | undefined;
  #cancelRetry: (() => void) | undefined;
  #isClosed = false;
  /** What a transaction changes in memory, once it is committed. */
  #afterCommit: (() => void)[] = [];
  /** Damaged files and scopes met while opening. */
  readonly damagedAtStart: number;
  commits = 0;

  constructor(private readonly parts: BackingParts) {
    this.#home = parts.stateDir;
    const place = parts.isReadOnly ? openForReading(parts.stateDir) : this.#open();
    this.#opened = place;
    this.damagedAtStart = place.quarantined;
    if (place.mode === "memory") this.#scheduleRetry();
  }

  /** Opens what is ours: in the folder, or where it was set aside; another cluster's is left alone. */
  #open(): Place {
    const { stateDir, cluster, sealer, log } = this.parts;
    if (cluster === undefined) return openPlace(this.#placeOptions());
    const aside = setAsideOf(stateDir, cluster, sealer);
    // Half-way through a change of clusters, or taken away by a person: nothing is in the way.
    if (aside !== undefined && !existsSync(join(stateDir, FILE))) this.#takeUp(aside);
    let owner = ownerIn(stateDir, sealer);
    if (owner === undefined) {
      const place = openPlace(this.#placeOptions());
      owner = ownerOf(place.database, sealer);
      if (owner === undefined || isSameCluster(owner, cluster)) return place;
      place.database.close();
      removeVolatile(place.path);
    } else if (isSameCluster(owner, cluster)) return openPlace(this.#placeOptions());
    log.warn("state folder belongs to another cluster: it is left alone until an API server of this one answers", {
      isKnown: aside !== undefined,
    });
    this.#other = owner;
    this.#home = aside;
    return aside === undefined
      ? { ...openVolatile("state folder of another cluster", sealer), quarantined: 0 }
      : openPlace(this.#placeOptions());
  }

  /** Whether the file in the state folder is another cluster's still. */
  get isOthers(): boolean {
    return this.#other !== undefined;
  }

  /** An API server of our cluster has answered: what is another's goes aside, and ours into its place. @returns whether the folder is ours. */
  proven(): boolean {
    if (this.#other === undefined) return true;
    const { stateDir, log, lock } = this.parts;
    if (lock?.retake() === false) return false;
    this.parts.settle();
    try {
      setClusterAside(stateDir, this.#other);
    } catch (error) {
      log.error("another cluster's state cannot be set aside", { error: reasonOf(error) });
      return false;
    }
    this.#other = undefined;
    log.warn("another cluster's state is set aside");
    const aside = this.#home;
    this.#home = stateDir;
    if (this.#opened.mode === "memory") this.#returnToDisk();
    else this.#moveHome(aside!);
    return true;
  }

  #moveHome(aside: string): void {
    this.parts.leaving();
    // Closing brings the log into the file.
    this.database.close();
    this.#takeUp(aside);
    const place = openPlace(this.#placeOptions());
    this.#opened = place;
    this.parts.replaced(place.quarantined);
    if (place.mode === "memory") this.#scheduleRetry();
  }

  #takeUp(aside: string): void {
    try {
      takeUp(aside, this.parts.stateDir);
      this.parts.log.info("state that was set aside for this cluster is taken up again");
    } catch (error) {
      this.parts.log.error("state that was set aside cannot be taken up", { error: reasonOf(error) });
    }
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
      else
        this.#leaveDisk(
          isLastResort ? openInProcess(reason, this.parts.sealer) : openVolatile(reason, this.parts.sealer),
        );
    } catch (another) {
      if (!(another instanceof SQLiteError)) throw another;
      this.#leaveDisk(openInProcess(reason, this.parts.sealer));
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
    salvage(old.database, opened.database, volatileBytes(this.parts.maxBytes), this.parts);
    this.#opened = opened;
    this.parts.replaced(0);
    old.database.close();
    if (old.mode === "memory") removeVolatile(old.path);
  }

  #scheduleRetry(): void {
    if (this.#home === undefined) return;
    this.#cancelRetry?.();
    this.#cancelRetry = this.parts.clock.after(RETRY_DISK_MS, () => this.#returnToDisk());
  }

  /** Moves back once the folder can be written again. */
  #returnToDisk(): void {
    if (this.#isClosed || this.#opened.mode !== "memory" || this.#home === undefined) return;
    this.parts.settle();
    const old = this.#opened;
    const moved = this.parts.lock?.retake() === false ? undefined : moveToDisk(this.#home, old.database, this.parts);
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
    const { log, clock, maxBytes, lock } = this.parts;
    return {
      stateDir: this.#home ?? this.parts.stateDir,
      obstacle: lock?.obstacle,
      sealer: this.parts.sealer,
      isOwn: this.parts.isOwn,
      log,
      maxBytes,
      nowMs: clock.nowMs(),
      stamp: new Date(clock.nowMs()).toISOString().replaceAll(/[:.]/g, "-"),
    };
  }
}
