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
import type { Codec, Shape } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import { isLocalVersion } from "./edits.ts";
import type { Ring } from "./ring.ts";

/** Where a watcher's bytes go: the response of the client's request. */
export interface WatchSink {
  /** @returns false when the client does not keep up; `onDrain` tells when to go on. */
  write(bytes: Uint8Array): boolean;
  onDrain(resume: () => void): void;
  /** Ends the stream cleanly: the client sees EOF and watches again. */
  end(): void;
}

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

/** Frames are joined up to about this many bytes before they are written. */
const WRITE_BYTES = 64 * 1024;

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
    private readonly codec: Codec,
    private readonly shape: Shape,
    private readonly sink: WatchSink,
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
      const frames: Uint8Array[] = [];
      let size = 0;
      while (this.#cursor < this.ring.nextSeq && size < WRITE_BYTES) {
        const entry = this.ring.at(this.#cursor++)!;
        if (compareResourceVersions(entry.resourceVersion, this.startAt) <= 0) continue;
        if (entry.isBookmark && !this.options.allowBookmarks) continue;
        if (this.withholdsEdits && isLocalVersion(entry.resourceVersion)) continue;
        frames.push(entry.frame);
        size += entry.frame.length;
      }
      if (frames.length > 0) this.#write(frames.length === 1 ? frames[0]! : Buffer.concat(frames));
    }
  }

  /** Sends a bookmark if the watcher allows them and has seen everything up to it. */
  bookmark(resourceVersion: string): void {
    if (!this.options.allowBookmarks || this.#isInitialising || this.#isBlocked || this.#isClosed) return;
    if (this.withholdsEdits && isLocalVersion(resourceVersion)) return;
    if (this.#cursor !== this.ring.nextSeq || compareResourceVersions(resourceVersion, this.startAt) < 0) return;
    this.#write(this.codec.bookmark(this.shape, resourceVersion, false));
  }

  /** From now on everything behind the cursor is sent, whatever its resourceVersion: what was served before was edited, and the truth is below it. */
  restart(): void {
    if (!this.withholdsEdits) this.#begin = "";
  }

  /** Ends the stream cleanly, after a last word if there is one (an ERROR event): also a client that does not read now finds it there. */
  close(lastFrame?: Uint8Array): void {
    if (this.#isClosed) return;
    if (lastFrame !== undefined) this.sink.write(lastFrame);
    this.#isClosed = true;
    this.sink.end();
    this.onLeft(this);
  }

  /** The client went away, or has taken the end of a closed stream. */
  gone(): void {
    this.#isClosed = true;
    this.onLeft(this);
  }

  #write(bytes: Uint8Array): void {
    if (!this.sink.write(bytes)) this.#isBlocked = true;
  }

  async #sendInitial(initial: NonNullable<WatcherOptions["initial"]>): Promise<void> {
    let pending: Uint8Array[] = [];
    let size = 0;
    for (const item of initial.snapshot.items()) {
      const frame = this.codec.event(this.shape, "ADDED", item.bytes);
      pending.push(frame);
      size += frame.length;
      if (size < WRITE_BYTES) continue;
      this.#write(Buffer.concat(pending));
      passedThrough(size);
      pending = [];
      size = 0;
      await this.#writable();
      if (this.#isClosed) return;
    }
    const { resourceVersion } = initial.snapshot.listed;
    if (initial.withEndBookmark) pending.push(this.codec.bookmark(this.shape, resourceVersion, true));
    if (pending.length > 0) this.#write(Buffer.concat(pending));
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
