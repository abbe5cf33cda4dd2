/**
 * Whether the API servers can be reached.
 *
 * Passive first: every byte that arrives proves the link, so an idle link that
 * works is almost never probed. A failed request, or one that has waited a
 * second, starts a probe at once; only a failed probe makes the link offline,
 * one odd error does not. While offline a probe goes out every second: a SYN
 * into a dead link costs nothing that anybody meters.
 *
 * A node of a large fleet is not back at the first good probe but in its turn
 * (`fleet.ts`): until then the link counts as lost, and only heartbeats go up.
 *
 * Hysteresis: after three changes within a minute two good probes in a row are
 * needed before the link counts as back.
 *
 * Deadlines are monotonic and count only time in which the process could work:
 * a probe that was looked at late, because the machine was busy, says nothing
 * of the link. Its health never depends on kubelet.
 */

import { afterAwake } from "../base/awake-time.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Turns } from "./fleet.ts";
import type { LinkView } from "./scope-source.ts";

/** Where the link stands; "starting" until the first verdict. */
export type LinkState = "starting" | "online" | "offline";

/** What the link needs. */
export interface LinkParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Asks any API server for a trifle over a fresh connection; rejects when there is no sound answer. */
  readonly probe: (signal: AbortSignal) => Promise<void>;
  /** When this node comes back. Default: at once. */
  readonly turns?: Turns;
}

const PROBE_EVERY_OFFLINE_MS = 1_000;
/** While its turn has not come, which may come sooner than it was to. */
const TURN_CHECK_MS = 500;
/** With nothing heard for this long, one probe: bookmarks make it rare. */
const PROBE_EVERY_IDLE_MS = 120_000;
/** A probe takes three round trips: four times the last good one, within these bounds, tells a dead link from a slow one. */
const PROBE_DEADLINE_MS = { least: 2_000, first: 5_000, most: 10_000 } as const;
/**
 * Two seconds from asking to the copy is the promise; while a request waits
 * without a byte and no probe has cleared the link, or before the first
 * verdict after start, nobody should wait as long again.
 */
export const PATIENCE_MS = { normal: 1_450, suspect: 300, starting: 100, least: 20 } as const;
const FLAP_WINDOW_MS = 60_000;

/** The link's state machine. */
export class Link implements LinkView {
  #state: LinkState = "starting";
  #changedMs: number;
  #startedMs: number;
  #lastHeardMs: number;
  #listeners = new Set<(isOnline: boolean) => void>();
  #firstVerdict = Promise.withResolvers<void>();
  #probing: Promise<boolean> | undefined;
  #goodProbes = 0;
  #deadlineMs: number = PROBE_DEADLINE_MS.first;
  #changesMs: number[] = [];
  #isSuspect = false;
  #failure: unknown;
  /** The first good probe of a link that is lost. */
  #contactMs: number | undefined;
  #cancelTimer: (() => void) | undefined;
  #stopped = new AbortController();

  constructor(private readonly parts: LinkParts) {
    this.#changedMs = parts.clock.monotonicMs();
    this.#startedMs = parts.clock.monotonicMs();
    this.#lastHeardMs = parts.clock.monotonicMs();
  }

  /** Where the link stands. */
  get state(): LinkState {
    return this.#state;
  }

  /** Since when, ms since the epoch by the clock as it is set now. */
  get sinceMs(): number {
    const { clock } = this.parts;
    return clock.nowMs() - (clock.monotonicMs() - this.#changedMs);
  }

  get patienceMs(): number {
    // Counted from the start and not for each request anew: after a reboot kubelet asks one thing after the other.
    if (this.#state === "starting")
      return Math.max(PATIENCE_MS.least, PATIENCE_MS.starting - (this.parts.clock.monotonicMs() - this.#startedMs));
    return this.#isSuspect ? PATIENCE_MS.suspect : PATIENCE_MS.normal;
  }

  /** Why the link is lost; undefined while it is not. */
  get failure(): unknown {
    return this.#failure;
  }

  isOnline(): boolean {
    return this.#state !== "offline";
  }

  /** Until this node's turn, while the API server answers again and the link still counts as lost; undefined otherwise. */
  get turnInMs(): number | undefined {
    const { clock, turns } = this.parts;
    if (this.#contactMs === undefined || turns === undefined) return undefined;
    return Math.max(0, this.#contactMs + turns.turnAfterMs() - clock.monotonicMs());
  }

  onChange(listener: (isOnline: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begins to probe; ends when the signal aborts. */
  start(signal: AbortSignal): void {
    signal.addEventListener("abort", () => {
      this.#stopped.abort();
      this.#cancelTimer?.();
    });
    void this.#probeNow();
  }

  /** Resolves at the first verdict after start. */
  firstVerdict(): Promise<void> {
    return this.#firstVerdict.promise;
  }

  /** Bytes of an API server arrived on a verified connection. */
  heard(): void {
    this.#lastHeardMs = this.parts.clock.monotonicMs();
    this.#isSuspect = false;
    if (this.#state === "starting") this.#become("online");
  }

  /** A request failed without an answer. */
  failed(): void {
    if (this.#state !== "offline" || this.#contactMs !== undefined) void this.#probeNow();
  }

  /** After a failure: resolves with whether the link stands all the same, once that is known. */
  standsAfterFailure(): Promise<boolean> {
    return this.#state === "offline" ? Promise.resolve(false) : this.#probeNow();
  }

  suspect(unlessHeardForMs = 0): void {
    if (this.#state === "offline" || this.#probing !== undefined) return;
    if (this.parts.clock.monotonicMs() - this.#lastHeardMs < unlessHeardForMs) return;
    this.#isSuspect = true;
    void this.#probeNow();
  }

  async #probeNow(): Promise<boolean> {
    this.#probing ??= this.#probeOnce().finally(() => (this.#probing = undefined));
    return this.#probing;
  }

  async #probeOnce(): Promise<boolean> {
    const { clock, probe } = this.parts;
    this.#cancelTimer?.();
    const controller = new AbortController();
    const startedMs = clock.monotonicMs();
    const deadlineMs = this.#deadlineMs;
    const cancelDeadline = afterAwake(clock, deadlineMs, () =>
      controller.abort(new Error(`no answer within ${(deadlineMs / 1_000).toFixed(1)} s`)),
    );
    const stop = () => controller.abort(new Error("stopping"));
    this.#stopped.signal.addEventListener("abort", stop);
    let failure: unknown;
    try {
      await probe(controller.signal);
      if (this.#state === "offline" && this.#contactMs === undefined)
        await this.parts.turns?.contact(controller.signal).catch(() => {});
      this.#deadlineMs = Math.min(
        PROBE_DEADLINE_MS.most,
        Math.max(PROBE_DEADLINE_MS.least, 4 * (clock.monotonicMs() - startedMs)),
      );
    } catch (error) {
      failure = error;
    } finally {
      cancelDeadline();
      this.#stopped.signal.removeEventListener("abort", stop);
    }
    if (this.#stopped.signal.aborted) return false;
    this.#judge(failure);
    this.#schedule();
    return failure === undefined;
  }

  #judge(failure: unknown): void {
    this.#isSuspect = false;
    if (failure !== undefined) {
      this.#goodProbes = 0;
      this.#contactMs = undefined;
      this.#failure = failure;
      if (this.#state !== "offline") this.#become("offline", String((failure as Error)?.message ?? failure));
      return;
    }
    this.#goodProbes++;
    this.#lastHeardMs = this.parts.clock.monotonicMs();
    if (this.#state === "online") return;
    if (this.#state === "offline") {
      if (this.#goodProbes < this.#probesNeeded()) return;
      this.#contactMs ??= this.parts.clock.monotonicMs();
      if ((this.turnInMs ?? 0) > 0) return;
    }
    this.#become("online");
  }

  #probesNeeded(): number {
    const since = this.parts.clock.monotonicMs() - FLAP_WINDOW_MS;
    return this.#changesMs.filter((at) => at > since).length >= 3 ? 2 : 1;
  }

  #become(state: LinkState, reason?: string): void {
    const { clock, log } = this.parts;
    const wasStarting = this.#state === "starting";
    this.#state = state;
    this.#contactMs = undefined;
    if (state === "online") {
      this.#failure = undefined;
      this.parts.turns?.back();
    } else this.parts.turns?.lost();
    this.#changedMs = clock.monotonicMs();
    this.#changesMs = [...this.#changesMs.slice(-9), clock.monotonicMs()];
    if (state === "offline") log.warn("link to the API server lost", { reason });
    else log.info("link to the API server up");
    if (wasStarting) this.#firstVerdict.resolve();
    for (const listener of [...this.#listeners]) this.#tell(listener, state === "online");
  }

  /** One that fails keeps the news from nobody else: requests wait for it. */
  #tell(listener: (isOnline: boolean) => void, isOnline: boolean): void {
    try {
      listener(isOnline);
    } catch (error) {
      this.parts.log.error("a change of the link was not dealt with", { error: String(error) });
    }
  }

  #schedule(): void {
    if (this.#stopped.signal.aborted) return;
    this.#cancelTimer?.();
    this.#cancelTimer = this.parts.clock.after(this.#pauseMs(), () => {
      const idleMs = this.parts.clock.monotonicMs() - this.#lastHeardMs;
      const isWell = this.#state === "online" && idleMs < PROBE_EVERY_IDLE_MS - 1_000;
      if (isWell || (this.turnInMs ?? 0) > 0) this.#schedule();
      else void this.#probeNow();
    });
  }

  /** Until the link is looked at again. */
  #pauseMs(): number {
    if (this.#state !== "offline") return PROBE_EVERY_IDLE_MS;
    const { turnInMs } = this;
    if (turnInMs !== undefined) return Math.min(turnInMs, TURN_CHECK_MS);
    if (this.#goodProbes > 0) return 200;
    return this.parts.turns?.nextProbeMs() ?? PROBE_EVERY_OFFLINE_MS;
  }
}
