/**
 * Work on many objects, so that none waits for another that cannot be done.
 *
 * At most so many run at once; who was tried longest ago is next; what failed
 * waits twice as long each time. A round does not wait for what an earlier one
 * began: an API server that takes ten seconds over twenty nodes holds up these
 * twenty.
 */

import type { Clock } from "../base/clock.ts";

/** A piece of work. */
export interface Work {
  /** What it is about; one piece at a time runs for it. */
  readonly key: string;
  readonly act: () => Promise<void>;
}

/** How it is done. */
export interface FairQueueOptions {
  readonly clock: Clock;
  readonly mostAtOnce: number;
  /** Told of every failure. @returns false: it is no reason to wait, as when another writer was first. */
  readonly failed: (key: string, error: unknown) => boolean;
}

const FIRST_PAUSE_MS = 1_000;
const LAST_PAUSE_MS = 60_000;

interface Turn {
  isRunning: boolean;
  triedMs: number;
  failures: number;
  notBeforeMs: number;
}

/** The queue; it remembers no more than what is due and what runs. */
export class FairQueue {
  readonly #turns = new Map<string, Turn>();

  constructor(private readonly options: FairQueueOptions) {}

  /**
   * Begins what has its turn.
   *
   * @param due everything that is to be done now; what is left out is forgotten.
   * @returns when all that this round began has ended. Never throws.
   */
  async round(due: Iterable<Work>): Promise<void> {
    const nowMs = this.options.clock.monotonicMs();
    const waiting = [...due];
    const keys = new Set(waiting.map(({ key }) => key));
    let running = 0;
    for (const [key, turn] of this.#turns) {
      if (turn.isRunning) running++;
      else if (!keys.has(key)) this.#turns.delete(key);
    }
    const triedMs = ({ key }: Work) => this.#turns.get(key)?.triedMs ?? Number.NEGATIVE_INFINITY;
    const next = waiting
      .filter(({ key }) => this.#mayBegin(key, nowMs))
      .toSorted((a, b) => (triedMs(a) < triedMs(b) ? -1 : Number(triedMs(a) > triedMs(b))))
      .slice(0, Math.max(0, this.options.mostAtOnce - running));
    await Promise.all(next.map((work) => this.#run(work)));
  }

  #mayBegin(key: string, nowMs: number): boolean {
    const turn = this.#turns.get(key);
    return turn === undefined || (!turn.isRunning && turn.notBeforeMs <= nowMs);
  }

  async #run({ key, act }: Work): Promise<void> {
    const { clock, failed } = this.options;
    const failures = this.#turns.get(key)?.failures ?? 0;
    const turn: Turn = { isRunning: true, triedMs: clock.monotonicMs(), failures, notBeforeMs: 0 };
    this.#turns.set(key, turn);
    try {
      await act();
      turn.failures = 0;
    } catch (error) {
      if (failed(key, error)) {
        turn.failures++;
        turn.notBeforeMs = clock.monotonicMs() + Math.min(LAST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (turn.failures - 1));
      }
    } finally {
      turn.isRunning = false;
    }
  }
}
