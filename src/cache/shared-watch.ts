/**
 * One scope's upstream watch, put together from another scope's events.
 *
 * The base follows a whole collection; the derived scope selects from it. What
 * reaches the derived scope is what the API server would have sent:
 *
 *   in the base        was selected   is selected   sent
 *   added, modified    no             yes           ADDED
 *   modified           yes            yes           MODIFIED
 *   modified           yes            no            DELETED, its last selected state at the event's resourceVersion
 *   deleted            yes            -             DELETED
 *   anything           no             no            nothing
 *
 * What "was" selected at the moment the watch starts from is what the derived
 * scope's rows hold, which is why a watch from an older moment cannot be
 * shared. Frames are handed over one at a time: the row of an object is the
 * state before this event only once the event before it was taken.
 *
 * When the base was listed anew, what it tells is a difference and no history:
 * the derived scope gets 410 and lists, from the base and not from upstream.
 */

import type { Codec, Item, Shape, WatchFrame } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Selection } from "../kube/selectors.ts";
import { expired } from "../kube/status-error.ts";
import type { Scope } from "./scope.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import type { WatchSink } from "./frames.ts";

/** A reader that lags by more than this is waited for by the base's watcher. */
const FEED_BYTES = 256 * 1024;

/** The base's frames on their way to one derived scope. */
export class Feed implements WatchSink {
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #isEnded = false;
  #wake: () => void = () => {};
  #resume: () => void = () => {};

  write(bytes: Uint8Array): boolean {
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
    this.#wake();
    return this.#bytes < FEED_BYTES;
  }

  onDrain(resume: () => void): void {
    this.#resume = resume;
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** Ends it at once: what waits is dropped. */
  cut(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.end();
  }

  /** The next bytes; undefined when there will be none. */
  async take(): Promise<Uint8Array | undefined> {
    while (this.#parts.length === 0) {
      if (this.#isEnded) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const bytes = this.#parts.shift()!;
    const wasFull = this.#bytes >= FEED_BYTES;
    this.#bytes -= bytes.length;
    if (wasFull && this.#bytes < FEED_BYTES) this.#resume();
    return bytes;
  }
}

/** What a derived watch is made of. */
export interface DerivationOptions {
  readonly base: Scope;
  /** The base's content at the start. */
  readonly shape: Shape;
  readonly epoch: string;
  readonly codec: Codec;
  /** The scope that it feeds. */
  readonly derived: Scope;
  readonly selection: Selection;
  readonly onBytes: (bytes: number) => void;
}

type TellingFrame = Exclude<WatchFrame, { type: "ERROR" }>;

/** Translates the base's frames for one derived scope. */
export class Derivation {
  /** Keys of what is selected; undefined where being selected never changes. */
  readonly #selected: Set<string> | undefined;

  /** @param rows the derived scope's, at the moment the watch starts from. */
  constructor(
    private readonly options: DerivationOptions,
    rows: Iterable<Item>,
  ) {
    if (!options.selection.mayChange) return;
    this.#selected = new Set();
    for (const { meta } of rows) this.#selected.add(objectKey(meta.namespace, meta.name));
  }

  /** The derived watch's frames, one at a time; ends with the feed. @throws {UnreachableError} when given up by the signal. */
  async *batches(feed: Feed, signal: AbortSignal, stop: () => void): AsyncGenerator<readonly WatchFrame[], void> {
    const { base, codec, epoch, onBytes, shape } = this.options;
    const reader = codec.watchReader(shape);
    try {
      for (;;) {
        const bytes = await feed.take();
        if (signal.aborted) throw new UnreachableError("given up");
        if (bytes === undefined) return;
        for (const frame of reader.push(bytes)) {
          const listed = base.listed;
          if (listed === undefined) return;
          const isHistoryGone = listed.epoch !== epoch || (frame.type === "ERROR" && frame.code === 410);
          if (isHistoryGone && !base.isOversize) {
            const { code, message, reason } = expired("too old resource version: listed anew").status;
            yield [{ type: "ERROR", code, message, reason }];
            return;
          }
          // Any other end of the base is no concern of this scope: it goes on by itself.
          if (frame.type === "ERROR" || isHistoryGone) return;
          const out = this.#translate(frame);
          if (out === undefined) continue;
          if (out.type !== "BOOKMARK") onBytes(out.item.bytes.length);
          yield [out];
          if (signal.aborted) throw new UnreachableError("given up");
        }
      }
    } finally {
      stop();
    }
  }

  #translate(frame: TellingFrame): TellingFrame | undefined {
    if (frame.type === "BOOKMARK") return frame;
    const { item, type } = frame;
    const isSelected = this.options.selection.matches(item, formatOf(this.options.codec));
    const selected = this.#selected;
    if (selected === undefined) return isSelected ? frame : undefined;
    const key = objectKey(item.meta.namespace, item.meta.name);
    if (type !== "DELETED" && isSelected) {
      const wasSelected = selected.has(key);
      selected.add(key);
      return { type: wasSelected ? "MODIFIED" : "ADDED", item };
    }
    if (!selected.delete(key)) return undefined;
    return { type: "DELETED", item: type === "DELETED" ? item : this.#lastSelected(item) };
  }

  #lastSelected(item: Item): Item {
    const { namespace, name, resourceVersion } = item.meta;
    const last = this.options.derived.row(namespace, name);
    if (last === undefined) return item;
    return {
      meta: { ...last.meta, resourceVersion },
      bytes: this.options.codec.withResourceVersion(last.bytes, resourceVersion),
    };
  }
}

/** The format a codec writes. */
export function formatOf(codec: Codec): "json" | "protobuf" {
  return codec.contentType === "application/json" ? "json" : "protobuf";
}
