/**
 * One local watch: a cursor into its scope's ring.
 *
 * First the initial events, if asked for, read from a frozen view of the rows
 * at the pace of the client; then whatever the ring holds behind the cursor.
 * Nothing is queued per watcher: when the client does not read, the cursor
 * stands still, and when the ring has moved past it the stream ends and the
 * client comes back at its last resourceVersion.
 *
 * Invariant: no frame at or below `startAt` is ever sent, and frames go out in
 * the ring's order, so one watcher never sees an object go backwards.
 */

import { passedThrough } from "../base/memory.ts";
import type { StatusFields } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import { isLocalVersion } from "./edits.ts";
import { momentOf, sizeOf, type Frame, type FrameSink } from "./frames.ts";
import type { Ring } from "./ring.ts";

/** How a local watch was asked for. */
export interface WatcherOptions {
  /** Events at or below it are not sent. */
  readonly startAt: string;
  readonly allowBookmarks: boolean;
  /** The first ring entry to send. */
  readonly cursor: number;
  /** Initial events, and whether a bookmark ends them. */
  readonly initial?: { readonly snapshot: ScopeSnapshot; readonly withEndBookmark: boolean };
}

/** Frames are handed on together, up to about this many bytes. */
const TAKE_BYTES = 64 * 1024;

/** One local watch on a scope. */
export class ScopeWatcher {
  #cursor: number;
  #begin: string;
  #isBlocked = false;
  #isInitialising = false;
  /**
   * Whether it is told of no edits: it began ahead of the rows, and an edit of
   * a row that is older than what it has seen would take it back in time.
   */
  withholdsEdits = false;
  #isClosed = false;

  constructor(
    private readonly ring: Ring,
    private readonly sink: FrameSink,
    private readonly options: WatcherOptions,
    private readonly onLeft: (watcher: ScopeWatcher) => void,
  ) {
    this.#cursor = options.cursor;
    this.#begin = options.startAt;
    sink.onDrain(() => {
      this.#isBlocked = false;
      this.pump();
    });
  }

  /** Whether it takes a part of what the scope holds. */
  get isPart(): boolean {
    return this.sink.isPart === true;
  }

  /** No event at or below it is sent. */
  get startAt(): string {
    return this.#begin;
  }

  /** The sequence number of the next ring entry this watcher will send. */
  get cursor(): number {
    return this.#cursor;
  }

  /** Sends initial events if there are any, then follows the ring. */
  async start(): Promise<void> {
    if (this.options.initial !== undefined) {
      this.#isInitialising = true;
      try {
        await this.#sendInitial(this.options.initial);
      } finally {
        this.options.initial.snapshot[Symbol.dispose]();
        this.#isInitialising = false;
      }
    }
    this.pump();
  }

  /** Sends what the ring holds behind the cursor, as far as the client takes it. */
  pump(): void {
    if (this.#isInitialising) return;
    while (!this.#isClosed && !this.#isBlocked && this.#cursor < this.ring.nextSeq) {
      if (this.#cursor < this.ring.firstSeq) return this.close();
      const frames: Frame[] = [];
      let size = 0;
      while (this.#cursor < this.ring.nextSeq && size < TAKE_BYTES) {
        const { frame } = this.ring.at(this.#cursor++)!;
        const moment = momentOf(frame);
        if (compareResourceVersions(moment, this.startAt) <= 0) continue;
        if (frame.type === "BOOKMARK" && !this.options.allowBookmarks) continue;
        if (this.withholdsEdits && isLocalVersion(moment)) continue;
        frames.push(frame);
        size += sizeOf(frame);
      }
      if (frames.length > 0) this.#take(frames);
    }
  }

  /** Sends a bookmark if the watcher allows them and has seen everything up to it. */
  bookmark(resourceVersion: string): void {
    if (!this.options.allowBookmarks || this.#isInitialising || this.#isBlocked || this.#isClosed) return;
    if (this.withholdsEdits && isLocalVersion(resourceVersion)) return;
    if (this.#cursor !== this.ring.nextSeq || compareResourceVersions(resourceVersion, this.startAt) < 0) return;
    this.#take([{ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: false }]);
  }

  /** From now on everything behind the cursor is sent, whatever its resourceVersion: what was served before was edited, and the truth is below it. */
  restart(): void {
    if (!this.withholdsEdits) this.#begin = "";
  }

  /** Ends the stream cleanly, after a last word if there is one (an ERROR event): also a client that does not read now finds it there. */
  close(lastWord?: StatusFields): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.sink.end(lastWord);
    this.onLeft(this);
  }

  /** The client went away, or has taken the end of a closed stream. */
  gone(): void {
    this.#isClosed = true;
    this.onLeft(this);
  }

  #take(frames: readonly Frame[]): void {
    if (!this.sink.take(frames)) this.#isBlocked = true;
  }

  async #sendInitial(initial: NonNullable<WatcherOptions["initial"]>): Promise<void> {
    let pending: Frame[] = [];
    let size = 0;
    for (const item of initial.snapshot.items()) {
      pending.push({ type: "ADDED", item });
      size += item.bytes.length;
      if (size < TAKE_BYTES) continue;
      this.#take(pending);
      passedThrough(size);
      pending = [];
      size = 0;
      await this.#writable();
      if (this.#isClosed) return;
    }
    const { resourceVersion } = initial.snapshot.listed;
    if (initial.withEndBookmark) pending.push({ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: true });
    if (pending.length > 0) this.#take(pending);
  }

  /** Resolves when the client takes more; yields at least once so that others get their turn. */
  async #writable(): Promise<void> {
    do {
      await new Promise<void>((resolve) => {
        if (this.#isBlocked && !this.#isClosed) setTimeout(resolve, 5);
        else setImmediate(resolve);
      });
    } while (this.#isBlocked && !this.#isClosed);
  }
}
