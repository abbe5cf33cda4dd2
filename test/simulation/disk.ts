/**
 * The disk of a simulated node: what a crash leaves behind.
 *
 * Two of them. One is a model in memory with the store's group commit: after
 * a quiet second a write is committed at once, in a busy one once a second or
 * every hundred rows; bookmarks wait for the next real change, what is withheld
 * does not wait. The other is the real store on a folder in memory, copied at
 * the moment of the crash as the page cache would leave it.
 */

import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { identityText, type Copy, type ScopeIdentity, type Store, type StoreStatus } from "../../src/store/contract.ts";
import { openStore } from "../../src/store/store.ts";
import { BareCopy, type BareCopyParts, type Row } from "../support/bare-copy.ts";

/** Where a process opens its store, and what happens to it at a crash. */
export interface Disk {
  open(clock: Clock): Store;
  /** The process is gone without a word: what was not committed is lost. */
  crash(): void;
  /** The world ends. */
  dispose(): void;
}

/** In memory where there is such a place. */
const FOLDER = join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "holdfast-simulation-");
const COMMIT_EVERY_MS = 1_000;
const MAX_QUEUED = 100;
const BOOKMARKS_EVERY_MS = 600_000;

/** The model. */
export class MemoryDisk implements Disk {
  readonly committed = new Map<string, Row>();
  /** Named values; each is written at once. */
  readonly values = new Map<string, Uint8Array>();

  open(clock: Clock): Store {
    return new CommittingStore(this, clock);
  }

  crash(): void {}

  dispose(): void {}

  /** Writes one scope as it stands; the seam for a torn commit. */
  save(id: string, { identity, listed, lastUsedMs, isWithheld, items }: Row): void {
    this.committed.set(id, { identity, listed, lastUsedMs, isWithheld, items });
  }
}

/** The real store. */
export class RealDisk implements Disk {
  #dir = mkdtempSync(FOLDER);
  #opened: Store | undefined;

  open(clock: Clock): Store {
    this.#opened = openStore({ stateDir: join(this.#dir, "state"), clock, log: silentLog, maxBytes: 1e9 });
    return this.#opened;
  }

  crash(): void {
    const next = mkdtempSync(FOLDER);
    cpSync(join(this.#dir, "state"), join(next, "state"), { recursive: true });
    this.dispose();
    this.#dir = next;
  }

  dispose(): void {
    this.#opened?.close();
    this.#opened = undefined;
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** The contract of src/store in memory, with its commits. */
class CommittingStore implements Store {
  readonly #copies = new Map<string, BareCopy>();
  readonly #changed = new Set<BareCopy>();
  readonly #touched = new Set<BareCopy>();
  readonly #copyParts: BareCopyParts = {
    flush: () => this.flush(),
    save: (copy) => this.#save(copy),
    changed: (copy) => this.#queueGrew(copy),
    hasChanged: (copy) => this.#changed.has(copy),
    touched: (copy, isUrgent) => this.#holdBack(copy, isUrgent),
    dropped: (copy) => this.#forget(copy),
  };
  #queued = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;

  constructor(
    private readonly disk: MemoryDisk,
    private readonly clock: Clock,
  ) {
    for (const [id, row] of disk.committed) this.#copies.set(id, new BareCopy(row, this.#copyParts));
  }

  copies(): Copy[] {
    return [...this.#copies.values()];
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    const copy = new BareCopy(
      { identity, listed: undefined, lastUsedMs: nowMs, isWithheld: false, items: new Map() },
      this.#copyParts,
    );
    this.#copies.set(text, copy);
    this.#save(copy);
    return copy;
  }

  #forget(copy: BareCopy): void {
    const text = identityText(copy.identity);
    this.#changed.delete(copy);
    this.#touched.delete(copy);
    this.#copies.delete(text);
    this.disk.committed.delete(text);
  }

  #queueGrew(copy: BareCopy): void {
    this.#changed.add(copy);
    this.#queued++;
    if (this.#queued >= MAX_QUEUED) return this.flush();
    if (this.#cancelCommit !== undefined) return;
    const waitMs = COMMIT_EVERY_MS - (this.clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = this.clock.after(waitMs, () => this.flush());
  }

  #holdBack(copy: BareCopy, isUrgent: boolean): void {
    this.#touched.add(copy);
    if (isUrgent) return this.settle();
    this.#cancelBookmarks ??= this.clock.after(BOOKMARKS_EVERY_MS, () => this.settle());
  }

  putResponse(): void {}

  getResponse(): undefined {
    return undefined;
  }

  deleteResponse(): void {}

  deleteResponsesForPath(): void {}

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const copy of [...this.#copies.values()])
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
  }

  listResponses(): [] {
    return [];
  }

  getValue(name: string): Uint8Array | undefined {
    return this.disk.values.get(name);
  }

  putValue(name: string, value: Uint8Array): void {
    this.disk.values.set(name, value);
  }

  deleteValue(name: string): void {
    this.disk.values.delete(name);
  }

  valueNames(prefix: string): string[] {
    return [...this.disk.values.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  keyedHash(text: string): string {
    return text;
  }

  excessBytes(): number {
    return 0;
  }

  onExcess(): void {}

  usage(): ReadonlyMap<Copy, number> {
    return new Map(this.copies().map((copy) => [copy, copy.size().bytes]));
  }

  flush(): void {
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#queued === 0) return;
    this.#queued = 0;
    for (const copy of this.#touched) this.#changed.add(copy);
    this.#touched.clear();
    for (const copy of this.#changed) this.#save(copy);
    this.#changed.clear();
    this.#lastCommitMs = this.clock.monotonicMs();
  }

  settle(): void {
    this.flush();
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    for (const copy of this.#touched) this.#save(copy);
    this.#touched.clear();
  }

  verify(): { checked: number; damaged: number } {
    return { checked: 0, damaged: 0 };
  }

  status(): StoreStatus {
    throw new Error("nobody asks in a simulation");
  }

  close(): void {
    this.settle();
  }

  #save(copy: BareCopy): void {
    this.disk.save(identityText(copy.identity), copy);
  }
}
