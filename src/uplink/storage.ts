/**
 * Whether the API server's storage stands behind it.
 *
 * With etcd frozen the API server lives: it answers probes, discovery and what
 * its watch cache holds, and lets everything else wait for half a minute. For
 * what can be answered from here that is as good as a cut; the rest goes on.
 *
 *   well -> a request was not answered in its time, or with 5xx -> asked
 *   asked -> storage is silent -> silent -> asked again until it answers -> well
 *
 * The question goes over kept connections, and so tells something else too: if
 * it gets no answer at all while the link stands, those are dead, and are left
 * behind for new ones. A slow answer alone renews nothing.
 *
 * Writes that were answered from here leave marks, which end as those of a cut
 * do: `onChange` says when storage was lost and when it is back.
 */

import { afterAwake } from "../base/awake-time.ts";
import type { Clock } from "../base/clock.ts";
import type { Finding } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";

/** What the API server says of its storage. */
export type StorageWord = "well" | "silent" | "unanswered";

/** What it is told by. */
export interface StorageParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly link: { isOnline(): boolean; onChange(listener: (isOnline: boolean) => void): () => void };
  /** Asks over kept connections. Never rejects; "unanswered" also when the signal aborts. */
  readonly ask: (signal: AbortSignal) => Promise<StorageWord>;
  /** Leaves kept connections behind. */
  readonly renewConnections: () => void;
}

/** The API server gives its own check two seconds. */
const ASK_DEADLINE_MS = 3_000;
/** Slow answers of a storage that is well are looked into this often. */
const LOOK_EVERY_MS = 10_000;
const AGAIN_MS = { first: 1_000, most: 5_000 } as const;

/** The storage's state machine. */
export class Storage {
  #isSilent = false;
  #sinceMs = 0;
  #asking: Promise<boolean> | undefined;
  #wellAtMs = Number.NEGATIVE_INFINITY;
  #listeners = new Set<(isWell: boolean) => void>();
  #cancelAgain: (() => void) | undefined;

  constructor(private readonly parts: StorageParts) {
    // Without the link nothing is known of what stands behind it, and the cut's own return takes all marks off.
    parts.link.onChange((isOnline) => isOnline || this.#become(false));
  }

  /** Whether it is known to be silent now. */
  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** Calls back with false when storage is lost behind a standing link, with true when it is back (or the link is lost too). */
  onChange(listener: (isWell: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A request was not answered in its time, or with 5xx. @returns whether storage is silent, once that is known. */
  suspect(): Promise<boolean> {
    if (this.#isSilent || !this.parts.link.isOnline()) return Promise.resolve(this.#isSilent);
    if (this.parts.clock.monotonicMs() - this.#wellAtMs < LOOK_EVERY_MS) return Promise.resolve(false);
    return this.#look();
  }

  /** What is to be said of it; undefined while it is well. */
  finding(): Finding | undefined {
    if (!this.#isSilent) return undefined;
    const seconds = Math.round((this.parts.clock.monotonicMs() - this.#sinceMs) / 1_000);
    return {
      reason: "StorageSilent",
      message: `The API server answers, its storage has not for ${seconds} s: what is kept is served as in a cut`,
      next: "Look after etcd; on a control plane node: crictl ps --name etcd",
    };
  }

  #look(): Promise<boolean> {
    this.#asking ??= this.#askOn().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  async #askOn(): Promise<boolean> {
    let word = await this.#ask();
    if (word === "unanswered" && this.parts.link.isOnline()) {
      this.parts.renewConnections();
      word = await this.#ask();
    }
    if (!this.parts.link.isOnline()) return false;
    if (word === "well") this.#wellAtMs = this.parts.clock.monotonicMs();
    this.#become(word !== "well");
    return this.#isSilent;
  }

  async #ask(): Promise<StorageWord> {
    const controller = new AbortController();
    const cancel = afterAwake(this.parts.clock, ASK_DEADLINE_MS, () =>
      controller.abort(new Error("no answer in time")),
    );
    try {
      return await this.parts.ask(controller.signal);
    } finally {
      cancel();
    }
  }

  #become(isSilent: boolean): void {
    if (isSilent === this.#isSilent) return;
    const { clock, log } = this.parts;
    this.#isSilent = isSilent;
    this.#sinceMs = clock.monotonicMs();
    this.#cancelAgain?.();
    if (isSilent) {
      log.warn("the API server's storage does not answer: what is kept is served as in a cut");
      this.#again(AGAIN_MS.first);
    } else log.info("the API server's storage answers again");
    for (const listener of [...this.#listeners]) listener(!isSilent);
  }

  #again(delayMs: number): void {
    this.#cancelAgain = this.parts.clock.after(delayMs, async () => {
      if (await this.#look()) this.#again(Math.min(AGAIN_MS.most, 2 * delayMs));
    });
  }
}
