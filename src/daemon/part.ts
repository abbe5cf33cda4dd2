/**
 * What the daemon is made of, and the order in which it all begins and ends.
 *
 *   build  opens nothing: it only knows its neighbours
 *   start  in the order of the list; the part's latch opens when it resolves
 *   drain  backwards: no new work, watches get their last bookmark, queues go to disk
 *   stop   backwards: what is open is closed, the state folder last
 *
 * One signal ends everything. A start that fails stops what has started, so
 * that an address that is taken leaves no other listener and no lock behind.
 */

import type { HealthCheck } from "../health/health.ts";

/** One part of the daemon; what it does not need it leaves out. */
export interface Part {
  /** As `/readyz?verbose` names it. */
  readonly name: string;
  /** Opens what it opens. What waits for the world (a link's first verdict) is no part of it: see `check`. */
  start?(): void | Promise<void>;
  /** Once started: why it cannot serve; undefined when it can. */
  check?(): string | undefined;
  /** Takes no new work and lets go of what is under way. Must not throw. */
  drain?(): void;
  /** Closes what it opened; also called when its own start has failed. Must not throw. */
  stop?(): void | Promise<void>;
}

/** Last bookmarks leave the process within this time, before the connections under them close. */
const PARTING_MS = 50;

/** The parts of one daemon, by the order in which they start. */
export class Parts {
  readonly #parts: Part[] = [];
  readonly #open = new Set<Part>();

  /** Adds a part behind those that are there. */
  add(part: Part): void {
    this.#parts.push(part);
  }

  /** One named check for each part: its latch, then what it says itself. */
  get checks(): readonly HealthCheck[] {
    return this.#parts.map((part) => ({
      name: part.name,
      check: () => (this.#open.has(part) ? part.check?.() : "not started yet"),
    }));
  }

  /**
   * Starts all of them.
   *
   * @throws what a part's start throws, after everything that had started is stopped.
   * @returns resolves, once the signal has aborted, when everything has ended.
   */
  async start(signal: AbortSignal): Promise<{ readonly ended: Promise<void> }> {
    const tried: Part[] = [];
    try {
      for (const part of this.#parts) {
        tried.push(part);
        await part.start?.();
        this.#open.add(part);
      }
    } catch (error) {
      await this.#stop(tried);
      throw error;
    }
    const ended = Promise.withResolvers<void>();
    const end = () => void this.#end().then(ended.resolve, ended.reject);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
    return { ended: ended.promise };
  }

  async #end(): Promise<void> {
    for (const part of this.#parts.toReversed()) part.drain?.();
    await new Promise((resolve) => setTimeout(resolve, PARTING_MS));
    await this.#stop(this.#parts);
  }

  async #stop(parts: readonly Part[]): Promise<void> {
    for (const part of parts.toReversed()) {
      this.#open.delete(part);
      await part.stop?.();
    }
  }
}
