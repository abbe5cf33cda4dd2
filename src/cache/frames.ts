/**
 * Events on their way to whoever watches a scope, before they have a format.
 *
 * A scope's watchers are clients, who get bytes, and parts of the scope (a
 * narrower watch, another caller's scope), who filter items and never see a
 * byte of an envelope. Both are fed alike; the format is written at the very
 * end, by `Encoder`.
 */

import type { Codec, Item, Shape, StatusFields, WatchFrame } from "../kube/codec.ts";

/** An event that carries an object, and where it is known the object before it. */
export interface ObjectFrame {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly item: Item;
  /** Of MODIFIED: the object as it was served before, if somebody asked for it to be kept. */
  readonly before?: Item | undefined;
}

/** What a watcher is told: an object's event, or where the rows stand. */
export type Frame = ObjectFrame | Extract<WatchFrame, { type: "BOOKMARK" }>;

/** Takes a watcher's frames. */
export interface FrameSink {
  /** It takes a part of what its scope holds: no reason to go on following the whole. Default false. */
  readonly isPart?: boolean;
  /** Whether its client was shown anything newer than this moment, beside the rows. Default no. */
  isAheadOf?(at: string): boolean;
  /** @returns false when it does not keep up; `onDrain` tells when to go on. */
  take(frames: readonly Frame[]): boolean;
  onDrain(resume: () => void): void;
  /** There will be no more. @param lastWord why, to be said before the end (an ERROR event); also to who does not read now. */
  end(lastWord?: StatusFields): void;
}

/** Where a client's bytes go: the response of its request. */
export interface WatchSink {
  /** @returns false when the client does not keep up; `onDrain` tells when to go on. */
  write(bytes: Uint8Array): boolean;
  onDrain(resume: () => void): void;
  /** Ends the stream cleanly: the client sees EOF and watches again. */
  end(): void;
}

/** The moment that a frame speaks of. */
export function momentOf(frame: Frame): string {
  return frame.type === "BOOKMARK" ? frame.resourceVersion : frame.item.meta.resourceVersion;
}

/** What a frame holds in memory, in bytes: its objects, for nothing else counts. */
export function sizeOf(frame: Frame): number {
  return frame.type === "BOOKMARK" ? 64 : frame.item.bytes.length + (frame.before?.bytes.length ?? 0);
}

/** Writes frames for one client. */
export class Encoder implements FrameSink {
  constructor(
    private readonly codec: Codec,
    private readonly shape: Shape,
    private readonly sink: WatchSink,
  ) {}

  take(frames: readonly Frame[]): boolean {
    const parts = frames.map((frame) =>
      frame.type === "BOOKMARK"
        ? this.codec.bookmark(this.shape, frame.resourceVersion, frame.isInitialEventsEnd)
        : this.codec.event(this.shape, frame.type, frame.item.bytes),
    );
    return this.sink.write(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
  }

  onDrain(resume: () => void): void {
    this.sink.onDrain(resume);
  }

  end(lastWord?: StatusFields): void {
    if (lastWord !== undefined) this.sink.write(this.codec.errorEvent(lastWord));
    this.sink.end();
  }
}
