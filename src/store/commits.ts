/**
 * Group commit: a write that comes after a quiet second is committed at once,
 * so a quiet node loses nothing when it is killed; in a busy one commits come
 * at most once a second or every hundred rows, so that a card is not worn and
 * the event loop never stalls. Readers commit what is queued first.
 *
 *   an event              at once, or within 1 s of the last commit
 *   a bookmark, a use     with the next event, at a cut, or within 20 min
 *   a Node's heartbeat    as a bookmark
 *   withheld, released    at once: no crash gives back what was just refused
 */

import type { Clock } from "../base/clock.ts";
import type { Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Backing } from "./backing.ts";
import type { StoredCopy } from "./copy.ts";
import { isHeartbeat } from "./heartbeat.ts";
import type { Tally } from "./object-rows.ts";
import type { Responses } from "./responses.ts";
import { saveMarks } from "./scope-rows.ts";
import type { Sums } from "./sums.ts";

/** How often a busy store commits. */
const COMMIT_EVERY_MS = 1_000;
/** Rows in one transaction at most. */
const MAX_QUEUED = 100;
const MAX_QUEUED_BYTES = 1024 * 1024;
/** What only moves time waits so long for company; a lost link writes it at once. */
const BOOKMARKS_EVERY_MS = 1_200_000;

interface Queued {
  readonly copy: StoredCopy;
  readonly key: string;
  /** Undefined deletes it. */
  readonly item: Item | undefined;
}

/** What commits are made of. */
export interface CommitParts {
  readonly clock: Clock;
  readonly backing: () => Backing;
  readonly responses: Responses;
  readonly sums: Sums;
  readonly copies: () => Iterable<StoredCopy>;
  /** One object of a copy as it is kept now, queued or not. */
  readonly get: (copy: StoredCopy, namespace: string, name: string) => Item | undefined;
  /** Within a transaction. @returns whether a row was written. */
  readonly writeObject: (copy: StoredCopy, key: string, item: Item | undefined, tally: Tally) => boolean;
  /** What was said of this copy cannot be kept: its rows would be older than their resourceVersion. */
  readonly lost: (copy: StoredCopy) => void;
  /** After each commit, for what is looked after from time to time. */
  readonly committed: () => void;
}

/** The queue of writes. */
export class Commits {
  readonly #queue = new Map<string, Queued>();
  #queuedBytes = 0;
  #lastCommitMs = Number.NEGATIVE_INFINITY;
  #cancelCommit: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;
  #bookmarksAtMs = 0;
  #isClosed = false;
  /** Rows written or deleted since start. */
  rowsWritten = 0;

  constructor(private readonly parts: CommitParts) {}

  /** Queues one object of a listed copy. @param item undefined deletes it. */
  enqueue(
    copy: StoredCopy,
    meta: Item["meta"],
    item: Item | undefined,
    resourceVersion: string,
    lastContactMs: number,
  ): void {
    if (copy.listed === undefined) return;
    const key = objectKey(meta.namespace, meta.name);
    const isLazy =
      item !== undefined &&
      copy.identity.resource === "nodes" &&
      isHeartbeat(this.parts.get(copy, meta.namespace, meta.name), item);
    this.#queue.set(`${copy.id}\n${key}`, { copy, key, item });
    this.#queuedBytes += item?.bytes.length ?? 0;
    for (const list of copy.lists) list.overtake(key, resourceVersion);
    copy.listed = { ...copy.listed, resourceVersion, changedAt: resourceVersion, lastContactMs };
    this.grew(isLazy);
  }

  /** Something was queued. @param isLazy it can wait as long as bookmarks do. */
  grew(isLazy = false): void {
    const { clock, responses } = this.parts;
    if (
      this.#queue.size + responses.queued >= MAX_QUEUED ||
      this.#queuedBytes + responses.queuedBytes >= MAX_QUEUED_BYTES
    )
      return this.flush();
    if (isLazy) return this.#scheduleBookmarks(BOOKMARKS_EVERY_MS);
    if (this.#cancelCommit !== undefined) return;
    const waitMs = COMMIT_EVERY_MS - (clock.monotonicMs() - this.#lastCommitMs);
    if (waitMs <= 0) this.flush();
    else this.#cancelCommit = clock.after(waitMs, () => this.flush());
  }

  /** A copy's marks moved. @param isUrgent they are more than a time: written at once. */
  touched(isUrgent: boolean): void {
    if (isUrgent) this.settle();
    else this.#scheduleBookmarks(BOOKMARKS_EVERY_MS);
  }

  /** What waits to be written of one object; its `item` is undefined for one that is to go. */
  queued(copy: StoredCopy, key: string): { readonly item: Item | undefined } | undefined {
    return this.#queue.get(`${copy.id}\n${key}`);
  }

  /** Commits what waits, if any of it is this copy's. */
  flushFor(copy: StoredCopy): void {
    for (const queued of this.#queue.values()) if (queued.copy === copy) return this.flush();
  }

  /** Forgets what waits of one copy. */
  forget(copy: StoredCopy): void {
    for (const [text, queued] of this.#queue) if (queued.copy === copy) this.#queue.delete(text);
  }

  /** Forgets what waits of copies that lost their rows. */
  forgetUnlisted(): void {
    for (const [text, { copy }] of this.#queue) if (copy.listed === undefined) this.#queue.delete(text);
  }

  /** Commits what is queued. */
  flush(): void {
    const { clock, responses } = this.parts;
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    if (this.#isClosed || (this.#queue.size === 0 && responses.queued === 0)) return;
    this.#write();
    this.#lastCommitMs = clock.monotonicMs();
    if (responses.isHoldingBack) this.#scheduleBookmarks(BOOKMARKS_EVERY_MS);
    this.parts.committed();
  }

  #write(): void {
    const { responses } = this.parts;
    const queue = [...this.#queue.values()];
    const answers = responses.takeQueue();
    this.#queue.clear();
    this.#queuedBytes = 0;
    const touched = new Set(queue.map(({ copy }) => copy));
    for (const copy of this.parts.copies()) if (copy.isTouched) touched.add(copy);
    let written = 0;
    const tallies = new Map<StoredCopy, Tally>();
    const backing = this.parts.backing();
    const isDone = backing.write(() => {
      written = 0;
      for (const copy of touched) tallies.set(copy, { ...copy.tally });
      for (const { copy, key, item } of queue)
        written += Number(this.parts.writeObject(copy, key, item, tallies.get(copy)!));
      for (const [copy, tally] of tallies) saveMarks(backing.database, this.parts.sums, { ...copy.state, tally });
      for (const answer of answers) written += Number(responses.write(answer));
    });
    if (!isDone) return queue.forEach(({ copy }) => this.parts.lost(copy));
    this.rowsWritten += written;
    for (const [copy, tally] of tallies) {
      if (copy.listed === undefined) continue;
      copy.tally = tally;
      copy.isTouched = false;
    }
  }

  /** `flush`, and what is held back too. */
  settle(): void {
    if (this.#isClosed) return;
    this.flush();
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
    const { responses } = this.parts;
    const touched = [...this.parts.copies()].filter(({ isTouched }) => isTouched);
    if (touched.length === 0 && !responses.isHoldingBack) return;
    const backing = this.parts.backing();
    const isDone = backing.write(() => {
      for (const copy of touched) saveMarks(backing.database, this.parts.sums, copy);
      responses.writeHeldBack();
    });
    if (!isDone) return;
    for (const copy of touched) copy.isTouched = false;
    responses.forgetHeldBack();
  }

  /** Nothing is committed any more. */
  close(): void {
    this.#isClosed = true;
    this.#cancelCommit?.();
    this.#cancelBookmarks?.();
  }

  #scheduleBookmarks(withinMs: number): void {
    const { clock } = this.parts;
    const atMs = clock.monotonicMs() + withinMs;
    if (this.#cancelBookmarks !== undefined && this.#bookmarksAtMs <= atMs) return;
    this.#cancelBookmarks?.();
    this.#bookmarksAtMs = atMs;
    this.#cancelBookmarks = clock.after(withinMs, () => this.settle());
  }
}
