/**
 * Waits for what changes without saying what.
 */

import type { Clock } from "../base/clock.ts";
import type { LinkView } from "../uplink/scope-source.ts";

/** Conditions that are looked at again whenever something moved. */
export class Waiting {
  readonly #checks = new Set<() => void>();

  constructor(private readonly clock: Clock) {}

  /** Something moved. */
  tell(): void {
    for (const check of [...this.#checks]) check();
  }

  /** Resolves when it is true, or with false when time is up. */
  async until(isTrue: () => boolean, timeoutMs: number): Promise<boolean> {
    if (isTrue()) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const check = () => isTrue() && resolve(true);
    this.#checks.add(check);
    const cancel = this.clock.after(timeoutMs, () => resolve(isTrue()));
    try {
      return await promise;
    } finally {
      cancel();
      this.#checks.delete(check);
    }
  }
}

/** Resolves when the link is there, or the signal aborts. */
export async function untilLink(link: LinkView, signal: AbortSignal): Promise<void> {
  if (signal.aborted || link.isOnline()) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const check = () => (signal.aborted || link.isOnline()) && resolve();
  const stopListening = link.onChange(check);
  signal.addEventListener("abort", check);
  await promise;
  stopListening();
  signal.removeEventListener("abort", check);
}

/** Resolves when time is up, the link changes or the signal aborts. */
export async function pause(clock: Clock, link: LinkView, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const wake = () => resolve();
  const cancel = clock.after(delayMs, wake);
  const stopListening = link.onChange(wake);
  signal.addEventListener("abort", wake);
  await promise;
  cancel();
  stopListening();
  signal.removeEventListener("abort", wake);
}
