/**
 * What was found damaged: set aside for a person to look at, and counted for
 * the life of the folder. A sealed value is set aside as sealed as it was.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Backing } from "./backing.ts";
import { readNumber, saveNumber } from "./schema.ts";

const KEPT = 20;
const MAX_BYTES = 64 * 1024;

/** The quarantine of a store. */
export class Quarantine {
  #count = 0;

  constructor(private readonly parts: { readonly backing: () => Backing; readonly clock: Clock; readonly log: Log }) {}

  /** Rows and files found damaged since the folder was made. */
  get count(): number {
    return this.#count;
  }

  /** Reads the count at the start. */
  load(): void {
    const backing = this.parts.backing();
    this.#count = backing.read(
      () => readNumber(backing.database, "quarantined"),
      () => this.#count,
    );
  }

  /** Sets a row aside. */
  put(what: string, value: Uint8Array | undefined): void {
    this.parts.log.error("damaged row set aside", { what });
    const kept = value instanceof Uint8Array && value.length <= MAX_BYTES ? value : null;
    const backing = this.parts.backing();
    backing.write(() => {
      const { database } = backing;
      database
        .query("INSERT INTO quarantine (at, what, value) VALUES (?, ?, ?)")
        .run(this.parts.clock.nowMs(), what, kept);
      database
        .query("DELETE FROM quarantine WHERE rowid NOT IN (SELECT rowid FROM quarantine ORDER BY rowid DESC LIMIT ?)")
        .run(KEPT);
    });
    this.add(1);
  }

  /** Counts what was set aside as a whole. */
  add(more: number): void {
    this.#count += more;
    const backing = this.parts.backing();
    backing.write(() => saveNumber(backing.database, "quarantined", this.#count));
  }
}
