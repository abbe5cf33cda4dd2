/**
 * One scope's upstream watch, fed by another scope's frames.
 *
 * What is selected was decided before (copy-answer.ts); here frames wait until
 * the derived scope takes them. When the base was listed anew, what it tells
 * is a difference and no history: a scope that heard only a part of it must
 * not stand on a moment of it. It gets 410 and lists, from the base and not
 * from upstream.
 */

import type { StatusFields, WatchFrame } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { expired } from "../kube/status-error.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import { isLocalVersion } from "./edits.ts";
import { momentOf, sizeOf, type Frame, type FrameSink } from "./frames.ts";
import type { Scope } from "./scope.ts";

/** A reader that lags by more than this is waited for by the base's watcher. */
const FEED_BYTES = 256 * 1024;

/** The base's frames on their way to one derived scope. */
export class Feed implements FrameSink {
  /** A derived scope is followed for clients of its own. */
  readonly isPart = false;
  #frames: Frame[] = [];
  #bytes = 0;
  #isEnded = false;
  #lastWord: StatusFields | undefined;
  #wake: () => void = () => {};
  #resume: () => void = () => {};

  take(frames: readonly Frame[]): boolean {
    if (this.#isEnded) return true;
    for (const frame of frames) {
      this.#frames.push(frame);
      this.#bytes += sizeOf(frame);
    }
    this.#wake();
    return this.#bytes < FEED_BYTES;
  }

  onDrain(resume: () => void): void {
    this.#resume = resume;
  }

  end(lastWord?: StatusFields): void {
    this.#isEnded = true;
    this.#lastWord ??= lastWord;
    this.#wake();
  }

  /** Ends it at once: what waits is dropped. */
  cut(): void {
    this.#frames = [];
    this.#bytes = 0;
    this.end();
  }

  /** The next frames, or how it ended once there will be none. */
  async next(): Promise<readonly Frame[] | { readonly lastWord: StatusFields | undefined }> {
    while (this.#frames.length === 0) {
      if (this.#isEnded) return { lastWord: this.#lastWord };
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const frames = this.#frames;
    const wasFull = this.#bytes >= FEED_BYTES;
    this.#frames = [];
    this.#bytes = 0;
    if (wasFull) this.#resume();
    return frames;
  }
}

/** What the frames of a feed come from. */
export interface FeedSource {
  readonly base: Scope;
  /** Where the watch begins. */
  readonly at: string;
  /** Of the base when the watch began. */
  readonly epoch: string;
  /** Bytes of objects that were handed on. */
  readonly onBytes: (bytes: number) => void;
  /** The derived scope's own watch, from where it stands. */
  readonly own: (at: string) => AsyncIterable<readonly WatchFrame[]>;
}

/**
 * The derived scope's watch; ends with the feed.
 *
 * @throws {UnreachableError} when given up by the signal.
 */
export async function* batchesOf(
  feed: Feed,
  { base, at, epoch, onBytes, own }: FeedSource,
  signal: AbortSignal,
  stop: () => void,
): AsyncGenerator<readonly WatchFrame[], void> {
  let position = at;
  try {
    for (;;) {
      const next = await feed.next();
      if (signal.aborted) throw new UnreachableError("given up");
      const { listed } = base;
      if (listed === undefined) return;
      const isExpired = "lastWord" in next && next.lastWord?.code === 410;
      if ((isExpired || listed.epoch !== epoch) && !base.isOversize) {
        const { code, message, reason } = expired("too old resource version: listed anew").status;
        yield [{ type: "ERROR", code, message, reason }];
        return;
      }
      // Any other end of the base is no concern of this scope: it goes on by itself.
      if ("lastWord" in next || listed.epoch !== epoch) return;
      const moments = next.map(momentOf);
      // Edits of a cut, and the rows that are told again when they end, are no word of the API server's: who is not
      // cut off goes on by itself, without a moment between two watches in which it would count as cut off too.
      if (!isHistory(moments, position)) {
        stop();
        return yield* own(position);
      }
      position = moments.at(-1)!;
      for (const frame of next) if (frame.type !== "BOOKMARK") onBytes(frame.item.bytes.length);
      yield next;
      if (signal.aborted) throw new UnreachableError("given up");
    }
  } finally {
    stop();
  }
}

/** Whether these moments go on from a position, each at or after the one before it, and all are the API server's. */
function isHistory(moments: readonly string[], position: string): boolean {
  let at = position;
  for (const moment of moments) {
    if (isLocalVersion(moment) || compareResourceVersions(moment, at) < 0) return false;
    at = moment;
  }
  return true;
}
