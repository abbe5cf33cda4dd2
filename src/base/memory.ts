/**
 * Giving memory back while much passes through.
 *
 * What requests leave behind is small garbage, many megabytes of it; the
 * runtime's collector, which sees a small heap, takes its time, and its
 * allocators keep what is free for seconds. So the process looks at its own
 * resident memory after every megabyte that has passed, and above a mark
 * collects at once, which also hands free pages back. On a heap of this size
 * that takes ten to twenty milliseconds; then it is left alone for twice as
 * long. Where what is left after a collection is really held, the mark moves up
 * with it.
 *
 * A look costs about four microseconds.
 */

/** What a collector looks at and does. */
export interface MemoryParts {
  /** Resident bytes. */
  readonly residentBytes: () => number;
  /** Collects, and gives free pages back. */
  readonly collect: () => void;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Below this nothing is done. */
  readonly markBytes: number;
}

const LOOK_AFTER_BYTES = 1024 * 1024;
/** What a request, or a piece of one, leaves behind beside its bytes: text, objects, promises. */
const PIECE_BYTES = 16 * 1024;
/** Above what the last collection left: so much, or this part of it, for large heaps take long to collect. */
const STEP_BYTES = 10e6;
const STEP_SHARE = 0.125;
/** Collections take a third of the time at most. */
const PAUSE_FACTOR = 2;
/** By profile; both stay well below the limits that the unit sets. */
const MARK_BYTES = { default: 92e6, small: 74e6 } as const;

/** Collects when resident memory has grown. */
export class Collector {
  #passedBytes = 0;
  /** What was resident after the last collection, or less since. */
  #floorBytes = 0;
  #notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(private readonly parts: MemoryParts) {}

  /** Notes a piece of this size that was made or taken in, and will be garbage soon. */
  note(bytes: number): void {
    this.#passedBytes += bytes + PIECE_BYTES;
    if (this.#passedBytes < LOOK_AFTER_BYTES) return;
    this.#passedBytes = 0;
    const { residentBytes, collect, nowMs, markBytes } = this.parts;
    const resident = residentBytes();
    this.#floorBytes = Math.min(this.#floorBytes, resident);
    if (resident < Math.max(markBytes, this.#floorBytes + Math.max(STEP_BYTES, this.#floorBytes * STEP_SHARE))) return;
    const beganMs = nowMs();
    if (beganMs < this.#notBeforeMs) return;
    collect();
    const endedMs = nowMs();
    this.#notBeforeMs = endedMs + PAUSE_FACTOR * (endedMs - beganMs);
    this.#floorBytes = residentBytes();
  }
}

let collector: Collector | undefined;

/**
 * Notes a piece that has come in or was made to be sent, and is soon no longer
 * needed.
 *
 * @param bytes its size; zero counts as the little that every piece costs.
 */
export function passedThrough(bytes: number): void {
  collector ??= new Collector({
    residentBytes: () => process.memoryUsage.rss(),
    collect: () => Bun.gc(true),
    nowMs: () => performance.now(),
    markBytes: process.env["HOLDFAST_PROFILE"] === "small" ? MARK_BYTES.small : MARK_BYTES.default,
  });
  collector.note(bytes);
}
