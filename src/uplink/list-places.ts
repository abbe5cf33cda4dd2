/**
 * Lists of the API server that are read at once, for the copies.
 *
 * Hundreds of scopes opened together would have hundreds of answers parsed and
 * stored between two of kubelet's requests, and all of them in memory. So a few
 * pages are read at a time and the rest wait in order; the node's own wait for
 * nobody.
 */

import type { Clock } from "../base/clock.ts";
import type { Item } from "../kube/codec.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { ListPage, ScopeSource, WatchStart, WatchStream } from "./scope-source.ts";

const MAX_LISTS = 8;
/** A list that takes longer is slow by its link or its size, and keeps nobody else waiting any more. */
const MAX_HELD_MS = 10_000;

/** A source whose lists wait for a place. */
export class PlacedLists implements ScopeSource {
  #taken = 0;
  readonly #waiting = new Set<() => void>();

  constructor(
    private readonly source: ScopeSource,
    /** Whether a principal's lists wait for nobody. */
    private readonly isFirst: (principal: string) => boolean,
    private readonly clock: Clock,
  ) {}

  hasCredential(principal: string): boolean {
    return this.source.hasCredential(principal);
  }

  /** @throws as the source, and the signal's reason when it aborts before there is a place. */
  async list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<ListPage> {
    if (this.isFirst(identity.principal)) return this.source.list(identity, page, signal);
    await this.#place(signal);
    const leave = this.#leaving();
    try {
      const answer = await this.source.list(identity, page, signal);
      const { codec } = answer;
      return { codec, batches: untilRead(answer, leave), head: () => answer.head() };
    } catch (error) {
      leave();
      throw error;
    }
  }

  watch(identity: ScopeIdentity, start: WatchStart, timeoutSeconds: number, signal: AbortSignal): Promise<WatchStream> {
    return this.source.watch(identity, start, timeoutSeconds, signal);
  }

  /** What gives the present place back, once; by itself after a while. */
  #leaving(): () => void {
    let isHeld = true;
    const leave = () => {
      if (!isHeld) return;
      isHeld = false;
      cancel();
      this.#leave();
    };
    const cancel = this.clock.after(MAX_HELD_MS, leave);
    return leave;
  }

  async #place(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#taken < MAX_LISTS) {
      this.#taken++;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    const onAbort = () => this.#waiting.delete(resolve) && reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    await promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** The place goes to who has waited longest. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#taken--;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

async function* untilRead({ batches }: ListPage, leave: () => void): AsyncGenerator<readonly Item[], void> {
  try {
    yield* batches;
  } finally {
    leave();
  }
}
