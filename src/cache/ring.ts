/**
 * The recent events of one scope.
 *
 * A watcher is a cursor into the ring, so twenty watchers of a scope hold one
 * copy of every frame, and a slow one costs nothing: when the ring has moved
 * past its cursor it is ended and comes back at its last resourceVersion.
 *
 * Bounds: events and bytes, whichever is met first; and what all rings share
 * (`ring-budget.ts`).
 */

import { compareResourceVersions } from "../kube/resource-version.ts";
import { momentOf, sizeOf, type Frame } from "./frames.ts";
import type { RingBudget } from "./ring-budget.ts";

/** One frame; `seq` grows by one with every append and is never used again. A bookmark closes a difference, and goes only to watchers that allow it. */
export interface RingEntry {
  readonly seq: number;
  readonly frame: Frame;
}

/** A bounded queue of frames with random access by sequence number. */
export class Ring {
  #entries: RingEntry[] = [];
  #head = 0;
  #nextSeq = 1;
  #bytes = 0;
  #appendedBytes = 0;
  #floor: string;

  constructor(
    private readonly maxEvents: number,
    private readonly maxBytes: number,
    floor: string,
    private readonly budget?: RingBudget,
  ) {
    this.#floor = floor;
  }

  /** Every event above this resourceVersion is in the ring: a watcher at or above it misses nothing. */
  get floor(): string {
    return this.#floor;
  }

  /** The sequence number that the next append will get. */
  get nextSeq(): number {
    return this.#nextSeq;
  }

  /** The oldest sequence number still held; equals `nextSeq` when empty. */
  get firstSeq(): number {
    return this.#entries[this.#head]?.seq ?? this.#nextSeq;
  }

  /** Bytes of frames held. */
  get sizeBytes(): number {
    return this.#bytes;
  }

  /** Bytes of all frames ever appended. */
  get appendedBytes(): number {
    return this.#appendedBytes;
  }

  /** Adds a frame and drops what no longer fits; the newest frame always stays. */
  append(frame: Frame): void {
    this.#entries.push({ seq: this.#nextSeq++, frame });
    const size = sizeOf(frame);
    this.#bytes += size;
    this.#appendedBytes += size;
    this.#drop(this.maxEvents, this.maxBytes);
    this.budget?.grew(size);
  }

  /** Gives up the oldest frames until no more than this is left; the newest always stays. */
  shed(toBytes: number): void {
    this.#drop(this.maxEvents, toBytes);
  }

  #drop(maxEvents: number, maxBytes: number): void {
    while (
      this.#entries.length - this.#head > 1 &&
      (this.#entries.length - this.#head > maxEvents || this.#bytes > maxBytes)
    ) {
      const dropped = this.#entries[this.#head]!;
      this.#bytes -= sizeOf(dropped.frame);
      this.#floor = momentOf(dropped.frame);
      this.#entries[this.#head++] = undefined as unknown as RingEntry;
    }
    if (this.#head > 256 && this.#head * 2 > this.#entries.length) {
      this.#entries.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** The entry with this sequence number, or undefined when it is not there yet or no longer. */
  at(seq: number): RingEntry | undefined {
    const first = this.#entries[this.#head];
    return first === undefined ? undefined : this.#entries[this.#head + seq - first.seq];
  }

  /** The sequence number of the first event above a resourceVersion that is at or above the floor. */
  seqAfter(resourceVersion: string): number {
    for (let i = this.#entries.length - 1; i >= this.#head; i--) {
      const entry = this.#entries[i]!;
      if (compareResourceVersions(momentOf(entry.frame), resourceVersion) <= 0) return entry.seq + 1;
    }
    return this.firstSeq;
  }

  /** Forgets all frames: from now on only watchers at or above `floor` can be served. Sequence numbers go on. */
  reset(floor: string): void {
    this.#entries = [];
    this.#head = 0;
    this.#bytes = 0;
    this.#floor = floor;
  }
}
