/**
 * What etcd does for the API server, in memory: objects, one counter of
 * revisions over all of them, and the history between the oldest revision
 * still known and now.
 *
 * Objects are never changed in place; a write puts a new one. The history is
 * enough to list at any revision inside the window and to start a watch there.
 */

import type { JsonObject } from "./schema.ts";

/** One write: what is there now and what was there before. */
export interface Change {
  readonly revision: number;
  readonly storageName: string;
  readonly key: string;
  /** After the write; for a deletion the last state, with the deletion's resourceVersion. */
  readonly object: JsonObject;
  readonly previous: JsonObject | undefined;
  readonly isDeletion: boolean;
  readonly atMs: number;
}

/** How much history is kept; the newest change beyond either limit is the oldest one known. */
export interface HistoryLimits {
  readonly changes: number;
  readonly ageMs: number;
}

/** Objects of one resource at one revision, ordered by key. */
export type Snapshot = readonly (readonly [key: string, object: JsonObject])[];

/** Objects and their history: an etcd of a few lines. */
export class Store {
  readonly #tables = new Map<string, Map<string, JsonObject>>();
  readonly #sorted = new Map<string, Snapshot>();
  readonly #watchers = new Set<(change: Change) => void>();
  #history: Change[] = [];
  #revision: number;
  #compacted: number;

  constructor(
    firstRevision: number,
    readonly limits: HistoryLimits,
  ) {
    this.#revision = firstRevision;
    this.#compacted = firstRevision;
  }

  /** The revision of the last write. */
  get revision(): number {
    return this.#revision;
  }

  /** The newest revision whose successors may be forgotten: reads below it are Expired. */
  get compactedRevision(): number {
    this.#forgetOld();
    return this.#compacted;
  }

  get(storageName: string, key: string): JsonObject | undefined {
    return this.#tables.get(storageName)?.get(key);
  }

  /** The objects now. */
  list(storageName: string): Snapshot {
    let sorted = this.#sorted.get(storageName);
    if (!sorted) {
      sorted = [...(this.#tables.get(storageName) ?? [])].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      this.#sorted.set(storageName, sorted);
    }
    return sorted;
  }

  /** The objects as they were right after `revision`; undefined when that is compacted. */
  listAt(storageName: string, revision: number): Snapshot | undefined {
    if (revision === this.#revision) return this.list(storageName);
    if (revision < this.compactedRevision) return undefined;
    const then = new Map(this.list(storageName));
    for (let at = this.#history.length - 1; at >= 0 && this.#history[at]!.revision > revision; at--) {
      const { storageName: table, key, previous } = this.#history[at]!;
      if (table !== storageName) continue;
      if (previous) then.set(key, previous);
      else then.delete(key);
    }
    return [...then].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  }

  /** The changes after `revision`; undefined when some of them are forgotten. */
  changesAfter(storageName: string, revision: number): Change[] | undefined {
    if (revision < this.compactedRevision) return undefined;
    return this.#history.filter((change) => change.revision > revision && change.storageName === storageName);
  }

  /** Writes what `make` returns for the next revision. */
  put(storageName: string, key: string, make: (revision: number) => JsonObject): JsonObject {
    const object = make(++this.#revision);
    const previous = this.get(storageName, key);
    this.#table(storageName).set(key, object);
    this.#record({ revision: this.#revision, storageName, key, object, previous, isDeletion: false, atMs: Date.now() });
    return object;
  }

  /** Removes an object; `last` makes its final state from the next revision. */
  delete(
    storageName: string,
    key: string,
    last: (revision: number, object: JsonObject) => JsonObject,
  ): JsonObject | undefined {
    const previous = this.get(storageName, key);
    if (!previous) return undefined;
    const object = last(++this.#revision, previous);
    this.#table(storageName).delete(key);
    this.#record({ revision: this.#revision, storageName, key, object, previous, isDeletion: true, atMs: Date.now() });
    return object;
  }

  /** Takes revisions without a visible write, as other resources' writes do. */
  advance(by: number): void {
    this.#revision += by;
  }

  /** Calls `listener` for every write from now on; the returned function stops that. */
  watch(listener: (change: Change) => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  /** Forgets the history up to `revision` (default: all of it). */
  compact(revision = this.#revision): void {
    this.#compacted = Math.max(this.#compacted, revision);
    this.#history = this.#history.filter((change) => change.revision > this.#compacted);
  }

  /**
   * Undoes the last `changes` writes as a restored backup does: content and
   * revision go back, and the history from before is gone.
   */
  rollback(changes: number): void {
    const undone = this.#history.splice(Math.max(0, this.#history.length - changes));
    for (const { storageName, key, previous } of undone.toReversed()) {
      if (previous) this.#table(storageName).set(key, previous);
      else this.#table(storageName).delete(key);
    }
    this.#revision = (undone[0]?.revision ?? this.#revision + 1) - 1;
    this.#sorted.clear();
    this.#history = [];
    this.#compacted = this.#revision;
  }

  #table(storageName: string): Map<string, JsonObject> {
    let table = this.#tables.get(storageName);
    if (!table) this.#tables.set(storageName, (table = new Map()));
    return table;
  }

  #record(change: Change): void {
    this.#sorted.delete(change.storageName);
    this.#history.push(change);
    this.#forgetOld();
    for (const watcher of this.#watchers) watcher(change);
  }

  #forgetOld(): void {
    const oldest = Date.now() - this.limits.ageMs;
    let drop = Math.max(0, this.#history.length - this.limits.changes);
    while (drop < this.#history.length && this.#history[drop]!.atMs < oldest) drop++;
    if (drop === 0) return;
    this.#compacted = this.#history[drop - 1]!.revision;
    this.#history.splice(0, drop);
  }
}
