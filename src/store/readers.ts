/**
 * Connections that only read: a few idle ones, not for long, and those with a
 * transaction, which is given back in time.
 */

import { Database } from "bun:sqlite";
import type { Clock } from "../base/clock.ts";
import type { Opened } from "./place.ts";

const MAX_IDLE = 2;
const IDLE_MS = 30_000;
/** How long a reader may hold the log. */
const HOLD_MS = 5_000;

/** Read connections: idle ones, few and not for long, and those with a transaction. */
export class Readers {
  #idle: Database[] = [];
  #of: Opened | undefined;
  #cancelClose: (() => void) | undefined;
  readonly #standing = new Set<() => void>();

  constructor(private readonly clock: Clock) {}

  /** How many hold a transaction. */
  get standing(): number {
    return this.#standing.size;
  }

  /** A connection to this database. @throws what SQLite says. */
  take(opened: Opened): Database {
    if (this.#of !== opened) this.close();
    this.#of = opened;
    const known = this.#idle.pop();
    if (known !== undefined) return known;
    const reader = new Database(opened.path, { readonly: true });
    reader.run("PRAGMA cache_size = -256");
    reader.run("PRAGMA mmap_size = 0");
    reader.run("PRAGMA temp_store = MEMORY");
    return reader;
  }

  /** Takes a connection back; one of a database that is no longer in use is closed. */
  give(reader: Database, opened: Opened): void {
    if (this.#of !== opened || this.#idle.length >= MAX_IDLE) return reader.close();
    this.#idle.push(reader);
    this.#cancelClose?.();
    this.#cancelClose = this.clock.after(IDLE_MS, () => this.close());
  }

  /** Ends a connection's transaction, and takes it back. */
  end(reader: Database, opened: Opened): void {
    try {
      reader.run("ROLLBACK");
      this.give(reader, opened);
    } catch {
      reader.close();
    }
  }

  /** Has a transaction given back when its time is over, or the log is too long. @returns takes it off the list. */
  hold(release: () => void): () => void {
    this.#standing.add(release);
    const cancel = this.clock.after(HOLD_MS, release);
    return () => {
      cancel();
      this.#standing.delete(release);
    };
  }

  /** All transactions are given back now. */
  releaseAll(): void {
    for (const release of [...this.#standing]) release();
  }

  /** Closes the idle ones; those in use close when they are given back. */
  close(): void {
    this.#cancelClose?.();
    this.#cancelClose = undefined;
    this.#of = undefined;
    for (const reader of this.#idle.splice(0)) reader.close();
  }
}
