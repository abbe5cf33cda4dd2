/**
 * One upstream watch, from its question to its end: each frame goes into the
 * rows and into their history, or ends it.
 *
 * A collection that outgrows the scope's bounds event by event is noticed too,
 * at the latest a sixteenth beyond them: counting rows costs a look at them all.
 *
 * A watch whose bytes stop coming makes the link suspect, and is opened anew
 * when the link is found well all the same. Its events only grow: one that
 * does not means that the API server's history went back.
 */

import type { Clock } from "../base/clock.ts";
import { MalformedError, type Item, type WatchFrame } from "../kube/codec.ts";
import { compareResourceVersions, isResourceVersion } from "../kube/resource-version.ts";
import type { Copy } from "../store/contract.ts";
import { UnreachableError, UpstreamRefusedError, type LinkView, type ScopeSource } from "../uplink/scope-source.ts";
import { isNextBookmark, isNextEvent, type History } from "./history.ts";
import { ScopeTooLargeError, StoppedError } from "./scope-errors.ts";
import { watchSeconds } from "./watch-length.ts";

/** Without a byte for this long the link is looked at; bookmarks come about once a minute. */
const SILENCE_SUSPECT_MS = 90_000;
const SILENCE_CHECK_MS = 30_000;
/** Without a byte for this long, though the link is well, the watch is opened anew. */
const SILENCE_REOPEN_MS = 300_000;

/** Rows are counted again when they may have grown by this part of their bounds. */
const COUNTED_PER_BOUND = 16;

/** How a watch came to an end. */
export type WatchEnd =
  /** The API server ended it, or there are no rows any more that it could go on from. */
  | "ended"
  /** The API server has forgotten the moment it was to begin at. */
  | "expired"
  /** Its resourceVersions went backwards. */
  | "rollback";

/** What a watch reads from and into. */
export interface UpstreamWatchParts {
  readonly copy: Copy;
  readonly history: History;
  readonly source: ScopeSource;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly limits: { readonly scopeMaxItems: number; readonly scopeMaxBytes: number };
  /** In [0, 1): where the grid begins on which watches end. */
  readonly phase: number;
  /** Ends the watch; aborted here as well when it has come to its end. */
  readonly attempt: AbortController;
  /** The API server has answered. @param answeredInMs how long that took. */
  readonly onOpen: (answeredInMs: number) => void;
  /** An event is about to change the rows. */
  readonly onSpoken: () => void;
  /** Rows or history have moved. */
  readonly onAdvanced: () => void;
  /** Whether an event is to keep what stood before it. */
  readonly keepsBefore: () => boolean;
  /** Resolves when the next frame may be taken. */
  readonly paced: () => Promise<void>;
}

/**
 * Opens a watch at a moment and reads it to its end.
 *
 * @throws what the source throws, and the attempt's reason once it is aborted.
 * @throws {ScopeTooLargeError} when the rows outgrow the bounds.
 */
export async function readUpstreamWatch(from: string, parts: UpstreamWatchParts): Promise<WatchEnd> {
  const { attempt, clock, copy, link, onOpen, paced, phase, source } = parts;
  const stopListening = link.onChange((isOnline) => isOnline || attempt.abort(new UnreachableError("link lost")));
  const silence = new Silence(clock, link, attempt);
  const growth = new Growth(copy, parts.limits);
  try {
    const askedMs = clock.monotonicMs();
    const { shape, contentType } = copy.listed!;
    const seconds = watchSeconds(copy.identity, askedMs, phase);
    const stream = await source.watch(copy.identity, { resourceVersion: from, shape }, seconds, attempt.signal);
    attempt.signal.throwIfAborted();
    // An API server that has learned another format since the list: rows of two formats make no list.
    if (stream.codec.contentType !== contentType) return "expired";
    onOpen(clock.monotonicMs() - askedMs);
    const position = { at: from };
    for await (const frames of stream.batches) {
      silence.heard();
      for (const frame of frames) {
        attempt.signal.throwIfAborted();
        const end = take(frame, position, parts);
        if (end !== undefined) return end;
        growth.took(frame);
        await paced();
      }
    }
    return "ended";
  } finally {
    silence.stop();
    stopListening();
    attempt.abort(new StoppedError("done"));
  }
}

/** One frame. @returns how the watch ends, if it cannot go on. */
function take(frame: WatchFrame, position: { at: string }, parts: UpstreamWatchParts): WatchEnd | undefined {
  const { copy, clock, history, onAdvanced } = parts;
  const { listed } = copy;
  // Its rows were lost or dropped meanwhile: there is nothing that an event could be applied to.
  if (listed === undefined) return "ended";
  if (frame.type === "ERROR") {
    if (frame.code === 410) return "expired";
    throw new UpstreamRefusedError(frame.code, "application/json", "", undefined);
  }
  if (frame.type === "BOOKMARK") {
    const { resourceVersion } = frame;
    if (!isResourceVersion(resourceVersion)) return undefined;
    if (!isNextBookmark(resourceVersion, position.at)) return "rollback";
    position.at = resourceVersion;
    const isNews = compareResourceVersions(resourceVersion, listed.resourceVersion) > 0;
    if (isNews) copy.touch({ resourceVersion, lastContactMs: clock.nowMs() });
    history.passed(resourceVersion);
    if (isNews) onAdvanced();
    return undefined;
  }
  const { resourceVersion } = frame.item.meta;
  if (!isResourceVersion(resourceVersion))
    throw new MalformedError("Cannot follow a watch whose objects carry no resourceVersion");
  if (!isNextEvent(resourceVersion, position.at)) return "rollback";
  position.at = resourceVersion;
  apply(frame, listed.resourceVersion, parts);
  return undefined;
}

function apply(
  frame: { readonly type: "ADDED" | "MODIFIED" | "DELETED"; readonly item: Item },
  now: string,
  { copy, clock, history, keepsBefore, onAdvanced, onSpoken }: UpstreamWatchParts,
): void {
  const { item, type } = frame;
  const { name, namespace, resourceVersion } = item.meta;
  const place = history.placeOf(resourceVersion, now);
  if (place !== "known") onSpoken();
  const before = place === "new" && type === "MODIFIED" && keepsBefore() ? copy.get(namespace, name) : undefined;
  if (place === "new" && type === "DELETED") copy.delete(item, resourceVersion, clock.nowMs());
  else if (place === "new") copy.put(item, resourceVersion, clock.nowMs());
  if (place !== "known") history.ring.append({ type, item, before });
  history.passed(resourceVersion);
  if (place !== "known") onAdvanced();
}

/** Notices that the rows have outgrown their bounds. */
class Growth {
  #items = 0;
  #bytes = 0;

  constructor(
    private readonly copy: Copy,
    private readonly limits: UpstreamWatchParts["limits"],
  ) {}

  took(frame: WatchFrame): void {
    if (frame.type !== "ADDED" && frame.type !== "MODIFIED") return;
    this.#items++;
    this.#bytes += frame.item.bytes.length;
    const { scopeMaxBytes, scopeMaxItems } = this.limits;
    if (this.#items < scopeMaxItems / COUNTED_PER_BOUND && this.#bytes < scopeMaxBytes / COUNTED_PER_BOUND) return;
    this.#items = this.#bytes = 0;
    const { bytes, items } = this.copy.size();
    if (items > scopeMaxItems || bytes > scopeMaxBytes)
      throw new ScopeTooLargeError(
        `Cannot keep ${this.copy.identity.resource}: more than ${scopeMaxItems} items or ${scopeMaxBytes} bytes`,
      );
  }
}

/** Notices that nothing comes any more. */
class Silence {
  #heardMs: number;
  #cancel: () => void;

  constructor(
    private readonly clock: Clock,
    private readonly link: LinkView,
    private readonly attempt: AbortController,
  ) {
    this.#heardMs = clock.monotonicMs();
    this.#cancel = clock.after(SILENCE_CHECK_MS, () => this.#check());
  }

  heard(): void {
    this.#heardMs = this.clock.monotonicMs();
  }

  stop(): void {
    this.#cancel();
  }

  #check(): void {
    const silentMs = this.clock.monotonicMs() - this.#heardMs;
    if (silentMs > SILENCE_REOPEN_MS) return this.attempt.abort(new UnreachableError("watch silent"));
    // Quiet resources get no bookmark for minutes; a probe would say no more than kubelet's lease a moment ago, and costs a handshake.
    if (silentMs > SILENCE_SUSPECT_MS) this.link.suspect(SILENCE_CHECK_MS);
    this.#cancel = this.clock.after(SILENCE_CHECK_MS, () => this.#check());
  }
}
