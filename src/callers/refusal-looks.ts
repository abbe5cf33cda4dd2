/**
 * When a refusal is looked at again, and when it is believed.
 *
 *   refused -> 1 s, 2 s, 4 s ... 1 min apart: asked again -> allowed: lifted
 *                                                         -> refused, for five minutes, by an API server
 *                                                            that has been ready for one: believed
 *
 * Counted by the monotonic clock and within this process: no clock that is set
 * and no restart in between makes one observation of it.
 */

import type { Clock } from "../base/clock.ts";

/** The API server's present word on a refusal; undefined when it says nothing. */
export type LookedAt = "allowed" | "refused" | undefined;

/** What is looked at, and what follows. */
export interface LookParts {
  readonly clock: Clock;
  readonly link: { isOnline(): boolean; onChange(listener: (isOnline: boolean) => void): () => void };
  /** Whether the API server says that it is ready. */
  readonly isReady: () => Promise<boolean>;
  /** Refusals of a caller that stand, by keys of their owner's. */
  readonly standing: (principal: string) => readonly string[];
  readonly ask: (principal: string, key: string) => Promise<LookedAt>;
  readonly lift: (principal: string, key: string) => void;
  readonly believe: (principal: string, key: string) => void;
}

const PAUSE_MS = { first: 1_000, most: 60_000 } as const;
const HASTEN_EVERY_MS = 10_000;
const STAND_MS = 300_000;
const READY_MS = 60_000;

interface Look {
  /** When each was first seen to stand, by key. */
  readonly seenMs: Map<string, number>;
  pauseMs: number;
  /** When the pauses began at the shortest. */
  begunMs: number;
  cancel: () => void;
}

/** Looks at refusals again. */
export class RefusalLooks {
  #looks = new Map<string, Look>();
  #readySinceMs: number | undefined;
  #isClosed = false;

  constructor(private readonly parts: LookParts) {
    parts.link.onChange((isOnline) => {
      this.#readySinceMs = undefined;
      if (isOnline) for (const [principal, look] of this.#looks) this.#again(principal, look);
    });
  }

  /** Begins to look at what stands against a caller, soon. */
  begin(principal: string): void {
    if (this.#isClosed || this.#looks.has(principal) || this.parts.standing(principal).length === 0) return;
    const look: Look = {
      seenMs: new Map(),
      pauseMs: PAUSE_MS.first,
      begunMs: this.parts.clock.monotonicMs(),
      cancel: () => {},
    };
    this.#looks.set(principal, look);
    this.#schedule(principal, look);
  }

  /** The API server has just said yes to something of this caller: perhaps to all. */
  hasten(principal: string): void {
    const look = this.#looks.get(principal);
    if (look !== undefined && this.parts.clock.monotonicMs() - look.begunMs > HASTEN_EVERY_MS)
      this.#again(principal, look);
  }

  #again(principal: string, look: Look): void {
    look.cancel();
    look.pauseMs = PAUSE_MS.first;
    look.begunMs = this.parts.clock.monotonicMs();
    this.#schedule(principal, look);
  }

  /** No more looks. */
  close(): void {
    this.#isClosed = true;
    for (const { cancel } of this.#looks.values()) cancel();
    this.#looks.clear();
  }

  #schedule(principal: string, look: Look): void {
    look.cancel = this.parts.clock.after(look.pauseMs, () => void this.#lookAt(principal, look));
    look.pauseMs = Math.min(PAUSE_MS.most, 2 * look.pauseMs);
  }

  async #lookAt(principal: string, look: Look): Promise<void> {
    const { ask, believe, isReady, lift, link, standing } = this.parts;
    if (link.isOnline()) {
      if (!(await isReady())) this.#readySinceMs = undefined;
      else this.#readySinceMs ??= this.parts.clock.monotonicMs();
      for (const key of standing(principal)) {
        const word = await ask(principal, key);
        if (this.#isClosed) return;
        if (word === "allowed") lift(principal, key);
        else if (word === "refused" && this.#hasStood(key, look)) believe(principal, key);
      }
    }
    if (this.#isClosed) return;
    if (standing(principal).length === 0) this.#looks.delete(principal);
    else this.#schedule(principal, look);
  }

  #hasStood(key: string, { seenMs }: Look): boolean {
    const nowMs = this.parts.clock.monotonicMs();
    const sinceMs = seenMs.get(key) ?? nowMs;
    seenMs.set(key, sinceMs);
    return nowMs - sinceMs >= STAND_MS && nowMs - (this.#readySinceMs ?? nowMs) >= READY_MS;
  }
}
