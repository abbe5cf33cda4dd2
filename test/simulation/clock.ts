/**
 * Chance and time of a simulated world.
 *
 * Nothing here waits: time passes when it is told to, and after every timer
 * the promises that it resolved run to their end before the next one fires.
 * A run is therefore one synchronous call, and its seed decides all of it.
 */

import { drainMicrotasks } from "bun:jsc";
import type { Clock } from "../../src/base/clock.ts";

/** Numbers that a seed decides (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e3779b1) | 0;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** A whole number in [from, to]. */
  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.next() * from.length)]!;
  }

  /** One of the names, each as often as its weight says. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const entries = Object.entries(weights) as [T, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) if ((left -= weight) < 0) return name;
    return entries[0]![0];
  }
}

interface Timer {
  readonly atMs: number;
  readonly task: () => void;
  isCancelled: boolean;
}

/** More timers than this in one call of `pass` is a loop that never rests. */
const MAX_TIMERS_AT_ONCE = 100_000;

/** Time that passes only when `pass` is called. */
export class VirtualClock implements Clock {
  #nowMs = 1_000_000;
  #wallMs = 1_790_000_000_000;
  /** Latest first, so that the next one is popped. */
  #timers: Timer[] = [];

  nowMs(): number {
    return this.#wallMs + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** The system's clock is set; no deadline may notice. */
  jump(ms: number): void {
    this.#wallMs += ms;
  }

  after(delayMs: number, task: () => void): () => void {
    const timer: Timer = { atMs: this.#nowMs + Math.max(0, delayMs), task, isCancelled: false };
    let low = 0;
    let high = this.#timers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#timers[middle]!.atMs > timer.atMs) low = middle + 1;
      else high = middle;
    }
    this.#timers.splice(low, 0, timer);
    return () => {
      timer.isCancelled = true;
    };
  }

  /** Lets time pass, running what falls due in order. @returns false if there was no end to it. */
  pass(ms: number): boolean {
    const untilMs = this.#nowMs + ms;
    drainMicrotasks();
    for (let fired = 0; ; fired++) {
      const next = this.#timers.at(-1);
      if (next === undefined || next.atMs > untilMs) break;
      if (fired > MAX_TIMERS_AT_ONCE) return false;
      this.#timers.pop();
      if (next.isCancelled) continue;
      this.#nowMs = next.atMs;
      next.task();
      drainMicrotasks();
    }
    this.#nowMs = untilMs;
    return true;
  }

  /** Resolves after that long. */
  sleep(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.after(ms, resolve);
    return promise;
  }

  /** This clock as one process sees it: its timers end with it. */
  ofProcess(isAlive: () => boolean): Clock {
    return {
      nowMs: () => this.nowMs(),
      monotonicMs: () => this.monotonicMs(),
      after: (delayMs, task) => this.after(delayMs, () => isAlive() && task()),
    };
  }
}

/** Lets everything that waits for a resolved promise run; nothing in a simulated world waits for anything else. */
export function settle(): void {
  drainMicrotasks();
}
