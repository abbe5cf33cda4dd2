/**
 * The local watchers of one scope: who is told what, how fast, and how each ends.
 *
 * It knows rings and clients, and nothing of the API server. While the scope
 * is edited its watchers stand on the layer; who began ahead of the rows stays
 * off it, because an edit of a row that is older than what it has seen would
 * take it back in time.
 *
 * Bounds: a client that does not read holds a cursor and one last word.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { StatusFields } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { expired } from "../kube/status-error.ts";
import type { FrameSink } from "./frames.ts";
import type { Ring } from "./ring.ts";
import { ScopeWatcher, type WatcherOptions } from "./scope-watcher.ts";

/** A burst waits this long for watchers that are behind. */
const KEEP_UP_PATIENCE_MS = 500;
const KEEP_UP_CHECK_MS = 5;

/** What an audience needs. */
export interface AudienceParts {
  /** The recent events of the rows. */
  readonly rows: Ring;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: {
    readonly ringMaxEvents: number;
    readonly ringMaxBytes: number;
    readonly bookmarkIntervalMs: number;
  };
  /** Where the rows stand, or what is edited; undefined while that is no moment that a watcher has come to. */
  readonly bookmarkAt: (isEdited: boolean) => string | undefined;
  /** A watcher has left. */
  readonly onLeft: () => void;
}

/** Everybody who watches a scope here. */
export class Audience {
  readonly #watchers = new Set<ScopeWatcher>();
  /** Those that did not keep up when they were last waited for. */
  readonly #slow = new Set<ScopeWatcher>();
  #layer: Ring | undefined;
  #pausedAtBytes = 0;
  #pausedAtSeq = 0;
  #cancelBookmarks: (() => void) | undefined;

  constructor(private readonly parts: AudienceParts) {}

  /** Watchers attached now. */
  get size(): number {
    return this.#watchers.size;
  }

  /** Whether one of them takes all that the scope holds. */
  get hasWhole(): boolean {
    for (const { isPart } of this.#watchers) if (!isPart) return true;
    return false;
  }

  /** Whether some were told of edits that have ended, and not yet that they have to list. */
  get hasReturning(): boolean {
    return this.#layer === undefined && [...this.#watchers].some(({ isEdited }) => isEdited);
  }

  /**
   * Attaches a watcher.
   *
   * @param timeoutMs after which its stream ends cleanly.
   * @returns detaches it, to be called when the client goes away.
   */
  attach(options: WatcherOptions, timeoutMs: number, sink: FrameSink): () => void {
    const { clock, log } = this.parts;
    const watcher = new ScopeWatcher(sink, options, (left) => this.#left(left));
    this.#watchers.add(watcher);
    this.#scheduleBookmarks();
    const cancelTimeout = clock.after(timeoutMs, () => {
      this.#bookmark(watcher);
      watcher.close();
    });
    watcher.start().catch((error: unknown) => {
      log.error("watch broken off", { error: String(error) });
      watcher.close();
    });
    return () => {
      cancelTimeout();
      watcher.gone();
    };
  }

  /** Sends everybody what is new. */
  pump(): void {
    for (const watcher of this.#watchers) watcher.pump();
  }

  /** Ends streams with a last word. */
  end(status: StatusFields, isMeant: (watcher: ScopeWatcher) => boolean = () => true): void {
    for (const watcher of [...this.#watchers]) if (isMeant(watcher)) watcher.close(status);
  }

  /** Ends the streams of those who were told of edits: the resourceVersions they hold are none of the API server's. */
  endReturning(): void {
    const { status } = expired("too old resource version: the API server can be asked again; list anew");
    this.end(status, ({ isEdited }) => isEdited);
  }

  /** Ends the streams of those who began ahead of this moment, or were shown anything newer. */
  endAhead(of: string, status: StatusFields): void {
    this.end(status, (watcher) => watcher.isAheadOf(of));
  }

  /** Ends all streams where they are. */
  close(): void {
    for (const watcher of [...this.#watchers]) {
      this.#bookmark(watcher);
      watcher.close();
    }
    this.#cancelBookmarks?.();
    this.#cancelBookmarks = undefined;
  }

  // ---- edits ----

  /**
   * From now on those who stand at the rows are told of edits. Who began ahead of
   * them, by a list that went up, may have seen what the rows do not hold yet: so
   * until an event or a bookmark, a minute at most, nothing is laid over that.
   */
  enter(layer: Ring, rowsAt: string): void {
    this.#layer = layer;
    for (const watcher of [...this.#watchers]) {
      if (compareResourceVersions(watcher.startAt, rowsAt) <= 0) {
        watcher.isEdited = true;
        watcher.goOn(layer, layer.nextSeq);
      }
    }
  }

  /** The edits are taken off: what is left of the layer goes out, then the truth in the edits' places, then it is the rows' turn again. */
  leave(truth: Ring): void {
    if (this.#layer === undefined) return;
    this.#layer = undefined;
    const { rows } = this.parts;
    for (const watcher of this.#watchers) {
      if (!watcher.isEdited) continue;
      watcher.forgetBegin();
      watcher.goOn(truth, truth.firstSeq);
      watcher.goOn(rows, rows.nextSeq);
    }
  }

  // ---- pace ----

  /**
   * A burst larger than the ring would end every watcher, however fast it
   * reads: sockets drain only between two turns of the event loop. So after a
   * quarter of the ring the upstream waits for those who are behind, for a
   * moment and not for ever: who does not keep up is not waited for again
   * until it has.
   */
  async keptUp(): Promise<void> {
    const { clock, limits, rows } = this.parts;
    const grownBytes = rows.appendedBytes - this.#pausedAtBytes;
    const grownEvents = rows.nextSeq - this.#pausedAtSeq;
    if (grownBytes < limits.ringMaxBytes / 4 && grownEvents < limits.ringMaxEvents / 4) return;
    this.#pausedAtBytes = rows.appendedBytes;
    this.#pausedAtSeq = rows.nextSeq;
    for (const watcher of this.#slow) if (!watcher.isBehind || !this.#watchers.has(watcher)) this.#slow.delete(watcher);
    const untilMs = clock.monotonicMs() + KEEP_UP_PATIENCE_MS;
    const waitedFor = () => [...this.#watchers].filter((watcher) => watcher.isBehind && !this.#slow.has(watcher));
    while (waitedFor().length > 0 && clock.monotonicMs() < untilMs) {
      const { promise, resolve } = Promise.withResolvers<void>();
      clock.after(KEEP_UP_CHECK_MS, resolve);
      await promise;
    }
    for (const watcher of waitedFor()) this.#slow.add(watcher);
  }

  #scheduleBookmarks(): void {
    this.#cancelBookmarks ??= this.parts.clock.after(this.parts.limits.bookmarkIntervalMs, () => {
      this.#cancelBookmarks = undefined;
      if (this.#watchers.size === 0) return;
      for (const watcher of this.#watchers) this.#bookmark(watcher);
      this.#scheduleBookmarks();
    });
  }

  #bookmark(watcher: ScopeWatcher): void {
    const at = this.parts.bookmarkAt(watcher.isEdited && this.#layer !== undefined);
    if (at !== undefined) watcher.bookmark(at);
  }

  #left(watcher: ScopeWatcher): void {
    this.#slow.delete(watcher);
    if (this.#watchers.delete(watcher)) this.parts.onLeft();
  }
}
