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
  /** Of two that are due together the one that was set first fires first. */
  readonly order: number;
  readonly task: () => void;
  isCancelled: boolean;
}

/** Of one node. */
const MAX_TIMERS_AT_ONCE = 100_000;

/** Time that passes only when `pass` is called. */
export class VirtualClock implements Clock {
  #nowMs = 1_000_000;
  #wallMs = 1_790_000_000_000;
  /** A heap: each is due no later than the two that hang on it. */
  readonly #timers: Timer[] = [];
  #order = 0;

  /** @param maxTimersAtOnce more in one call of `pass` is a loop that never rests. */
  constructor(private readonly maxTimersAtOnce = MAX_TIMERS_AT_ONCE) {}

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
    const atMs = this.#nowMs + Math.max(0, delayMs);
    const timer: Timer = { atMs, order: this.#order++, task, isCancelled: false };
    const timers = this.#timers;
    let at = timers.length;
    timers.push(timer);
    for (let above = (at - 1) >> 1; at > 0 && isBefore(timer, timers[above]!); above = (at - 1) >> 1) {
      timers[at] = timers[above]!;
      at = above;
    }
    timers[at] = timer;
    return () => {
      timer.isCancelled = true;
    };
  }

  /** Takes the next one off. */
  #take(): void {
    const timers = this.#timers;
    const last = timers.pop()!;
    if (timers.length === 0) return;
    let at = 0;
    for (let below = 1; below < timers.length; below = 2 * at + 1) {
      if (below + 1 < timers.length && isBefore(timers[below + 1]!, timers[below]!)) below++;
      if (!isBefore(timers[below]!, last)) break;
      timers[at] = timers[below]!;
      at = below;
    }
    timers[at] = last;
  }

  /** Lets time pass, running what falls due in order. @returns false if there was no end to it. */
  pass(ms: number): boolean {
    const untilMs = this.#nowMs + ms;
    drainMicrotasks();
    for (let fired = 0; ; fired++) {
      const next = this.#timers[0];
      if (next === undefined || next.atMs > untilMs) break;
      if (fired > this.maxTimersAtOnce) return false;
      this.#take();
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

function isBefore(one: Timer, other: Timer): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** Lets everything that waits for a resolved promise run; nothing in a simulated world waits for anything else. */
export function settle(): void {
  drainMicrotasks();
}
