/**
 * One local watch: a cursor that goes through one ring after the other.
 *
 * First the initial events, if asked for, read from a frozen view at the pace
 * of the client; then what its route's rings hold behind the cursor. Nothing
 * is queued per watcher: when the client does not read, the cursor stands
 * still, and when the ring has moved past it the stream ends and the client
 * comes back at its last resourceVersion.
 *
 *   online                 rows
 *   edited while cut       rows up to the first edit, then the layer
 *   at the return          what is left of both, then the rows again
 *
 * Invariant: no frame at or below where it began is ever sent but the rows that
 * stood under edits, when these end and with them the watch; frames go out in
 * the ring's order, so one watcher never sees an object go backwards.
 */

import { passedThrough } from "../base/memory.ts";
import { nextTurn } from "../base/turns.ts";
import type { StatusFields } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ScopeSnapshot } from "../store/contract.ts";
import { momentOf, sizeOf, type Frame, type FrameSink } from "./frames.ts";
import type { Ring } from "./ring.ts";

/** A part of a watcher's way. */
export interface Station {
  readonly ring: Ring;
  /** The first entry to send. */
  cursor: number;
  /** The first that belongs to the next station; undefined while the ring goes on. */
  until?: number;
  /** Entries at or below it are not sent; "" for none. */
  readonly above: string;
}

/** How a local watch was asked for. */
export interface WatcherOptions {
  /** Where it began: events at or below it are not sent. */
  readonly startAt: string;
  readonly allowBookmarks: boolean;
  readonly route: readonly Station[];
  /** Whether it begins on edits. */
  readonly isEdited: boolean;
  /** Initial events, and whether a bookmark ends them. */
  readonly initial?: { readonly snapshot: ScopeSnapshot; readonly withEndBookmark: boolean };
}

/** Frames are handed on together, up to about this many bytes. */
const TAKE_BYTES = 64 * 1024;

/** One local watch on a scope. */
export class ScopeWatcher {
  /** Some of what it was told, or will be, is edited here: at the return it has to list. */
  isEdited: boolean;
  readonly #allowsBookmarks: boolean;
  #route: Station[];
  #begin: string;
  /** Let go of when it was sent: a view of many rows, and a watch may stand for hours. */
  #initial: WatcherOptions["initial"];
  #isBlocked = false;
  #isInitialising = false;
  #isClosed = false;

  constructor(
    private readonly sink: FrameSink,
    options: WatcherOptions,
    private readonly onLeft: (watcher: ScopeWatcher) => void,
  ) {
    this.#allowsBookmarks = options.allowBookmarks;
    this.#initial = options.initial;
    this.isEdited = options.isEdited;
    this.#route = options.route.map((station) => ({ ...station }));
    this.#begin = options.startAt;
    sink.onDrain(() => {
      this.#isBlocked = false;
      this.pump();
    });
  }

  /** Where it began; "" once it was told of edits and came back. */
  get startAt(): string {
    return this.#begin;
  }

  /** Whether it takes a part of what the scope holds. */
  get isPart(): boolean {
    return this.sink.isPart === true;
  }

  /** Whether its client began with, or was shown, anything newer than this moment. */
  isAheadOf(at: string): boolean {
    return compareResourceVersions(this.startAt, at) > 0 || this.sink.isAheadOf?.(at) === true;
  }

  /** Whether there is something that it has not been sent yet. */
  get isBehind(): boolean {
    const [first, next] = this.#route;
    return next !== undefined || first!.cursor < first!.ring.nextSeq;
  }

  /** Sends initial events if there are any, then follows its route. */
  async start(): Promise<void> {
    const initial = this.#initial;
    this.#initial = undefined;
    if (initial !== undefined) {
      this.#isInitialising = true;
      try {
        await this.#sendInitial(initial);
      } finally {
        initial.snapshot[Symbol.dispose]();
        this.#isInitialising = false;
      }
    }
    this.pump();
  }

  /** What comes next in its present ring is the end there; it goes on in another. */
  goOn(ring: Ring, cursor: number): void {
    const last = this.#route.at(-1)!;
    last.until = last.ring.nextSeq;
    this.#route.push({ ring, cursor, above: "" });
  }

  /** What it was told of edits has been taken back: where it began says nothing any more. */
  forgetBegin(): void {
    this.#begin = "";
  }

  /** Sends what its route holds behind the cursor, as far as the client takes it. */
  pump(): void {
    if (this.#isInitialising) return;
    while (!this.#isClosed && !this.#isBlocked) {
      const station = this.#route[0]!;
      const end = station.until ?? station.ring.nextSeq;
      if (station.cursor >= end) {
        if (this.#route.length === 1) return;
        this.#route.shift();
      } else if (station.cursor < station.ring.firstSeq) return this.close();
      else this.#sendFrom(station, end);
    }
  }

  #sendFrom(station: Station, end: number): void {
    const frames: Frame[] = [];
    let size = 0;
    while (station.cursor < end && size < TAKE_BYTES) {
      const { frame } = station.ring.at(station.cursor++)!;
      if (compareResourceVersions(momentOf(frame), station.above) <= 0) continue;
      if (frame.type === "BOOKMARK" && !this.#allowsBookmarks) continue;
      frames.push(frame);
      size += sizeOf(frame);
    }
    if (frames.length > 0) this.#take(frames);
  }

  /** Sends a bookmark if the watcher allows them and has seen everything up to it. */
  bookmark(resourceVersion: string): void {
    if (!this.#allowsBookmarks || this.#isInitialising || this.#isBlocked || this.#isClosed) return;
    if (this.isBehind || compareResourceVersions(resourceVersion, this.startAt) < 0) return;
    this.#take([{ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: false }]);
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

  async #sendInitial({ snapshot, withEndBookmark }: NonNullable<WatcherOptions["initial"]>): Promise<void> {
    let pending: Frame[] = [];
    let size = 0;
    for (const item of snapshot.items()) {
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
    const { resourceVersion } = snapshot.listed;
    if (withEndBookmark) pending.push({ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: true });
    if (pending.length > 0) this.#take(pending);
  }

  /** Resolves when the client takes more; yields at least once so that others get their turn. */
  async #writable(): Promise<void> {
    do {
      await new Promise<void>((resolve) => {
        if (this.#isBlocked && !this.#isClosed) setTimeout(resolve, 5);
        else void nextTurn().then(resolve);
      });
    } while (this.#isBlocked && !this.#isClosed);
  }
}
