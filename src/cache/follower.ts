/**
 * The upstream side of one scope: in one state at any time.
 *
 *   idle ----> waiting (link, turn) ----> opening ----> streaming --+
 *                 ^       ^                  |              |       |
 *                 |       +---- listing <----+-- 410 -------+       |
 *                 +------------ waiting (pause) <-------------------+
 *
 *   refused     the API server does not let this principal, or the collection
 *               is beyond the scope's bounds: nothing is asked until a client
 *               asks again
 *
 * A *run* goes from the first question until nobody needs the scope, or until
 * a refusal. It owns its abort and its state; a run that has been followed by
 * another changes nothing and says nothing any more, however late it ends.
 *
 * It knows rows and their history, and no client.
 */

import { MalformedError } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import { CopyDroppedError } from "../store/errors.ts";
import { UnreachableError, UnsaidError, UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { FollowerParts, FollowerState, ListReason } from "./follower-parts.ts";
import { RolledBackError, ScopeTooLargeError, StoppedError } from "./scope-errors.ts";
import { readWholeList } from "./upstream-list.ts";
import { readUpstreamWatch, type WatchEnd } from "./upstream-watch.ts";
import { pause, untilLink } from "./waiting.ts";

/** A watch taken up again has brought what was missed when nothing came for this long, within these bounds. */
const QUIET_MS = 20;
const QUIET_MOST_MS = 250;
/** How long what was missed may take to come. */
const TRUTH_PATIENCE_MS = 3_000;
/** A watch that is to vouch for an older moment waits this long for the API server's word. */
const VERDICT_PATIENCE_MS = 1_800;
/** Our own certificate is asked again after this long. */
const OWN_REFUSAL_PAUSE_MS = 30_000;

interface Run {
  readonly stop: AbortController;
  /** Whether the API server goes on from where it was first asked to. */
  readonly verdict: PromiseWithResolvers<boolean>;
  state: FollowerState;
  attempt?: AbortController;
  listing?: Promise<void> | undefined;
}

/** How one question, list or watch, came out. */
interface Outcome {
  readonly kind: WatchEnd | "failed" | "over";
  readonly retryAfterMs?: number;
}

const IDLE: FollowerState = { kind: "idle" };

/** Asks the API server for one scope. */
export class Follower {
  #run: Run | undefined;
  /** The state while there is no run. */
  #rest: FollowerState = IDLE;
  #hasRolledBack = false;

  constructor(private readonly parts: FollowerParts) {}

  /** Where it stands now. */
  get state(): FollowerState {
    return this.#run?.state ?? this.#rest;
  }

  /** Whether a watch is open or being kept up. */
  get isRunning(): boolean {
    return this.#run !== undefined;
  }

  /** The API server's history went back and the list in its place has not come yet. */
  get hasRolledBack(): boolean {
    return this.#hasRolledBack;
  }

  /** Keeps a watch up from where the rows end. */
  start(): void {
    if (this.#run !== undefined) return;
    this.parts.history.endReplay();
    const run = this.#begin();
    void this.#follow(run);
  }

  /** Follows from an older moment than the rows, so that the history can vouch for it. @returns false if the API server has forgotten that moment, or does not say. */
  async startAt(at: string): Promise<boolean> {
    const run = this.#begin();
    this.parts.history.beginReplay(at, this.parts.copy.listed!.resourceVersion);
    void this.#follow(run);
    const { promise: timeout, resolve } = Promise.withResolvers<false>();
    const cancel = this.parts.clock.after(VERDICT_PATIENCE_MS, () => resolve(false));
    try {
      return await Promise.race([run.verdict.promise, timeout]);
    } finally {
      cancel();
    }
  }

  /** Lists at once, or joins the list that is under way; then follows. @throws as the list met it; it does not follow then. */
  firstList(): Promise<void> {
    if (this.#run?.listing !== undefined) return this.#run.listing;
    this.stop();
    const run = this.#begin();
    const listing = this.#list(run, "first");
    listing.then(
      () => this.#follow(run),
      (error: unknown) => this.#end(run, isFinal(error) ? { kind: "refused", error } : IDLE),
    );
    return listing;
  }

  /** The list that has begun to arrive, if there is one. */
  get arrivingList(): Promise<void> | undefined {
    const run = this.#run;
    return run?.state.kind === "listing" && run.state.hasHead ? run.listing : undefined;
  }

  /** Asks nothing more. */
  stop(): void {
    if (this.#run !== undefined) this.#end(this.#run, IDLE);
  }

  /** Asks nothing more, for this reason. */
  giveUp(error: ScopeTooLargeError): void {
    this.stop();
    this.#rest = { kind: "refused", error };
    this.parts.feeds.refused(error);
    this.parts.feeds.advanced();
  }

  /** The API server gave out an older resourceVersion than what is held: the next thing is a list. */
  distrust(): void {
    this.#hasRolledBack = true;
    // Between two attempts there is nothing to abort: the next one looks here first.
    this.#run?.attempt?.abort(new RolledBackError("The API server's resourceVersion went backwards"));
  }

  /** Resolves when a watch that has just been answered brings nothing more: it sends what was missed at once. */
  async untilQuiet(patienceMs: number): Promise<void> {
    const { clock, history, waiting } = this.parts;
    const { state } = this;
    if (state.kind !== "streaming") return;
    // Events follow the answer's head as far behind as the link is slow.
    const quietMs = Math.min(QUIET_MOST_MS, Math.max(QUIET_MS, 2 * state.answeredInMs));
    const untilMs = clock.monotonicMs() + patienceMs;
    for (let seen = -1; seen !== history.ring.nextSeq && clock.monotonicMs() < untilMs;) {
      seen = history.ring.nextSeq;
      await waiting.until(() => false, quietMs);
    }
  }

  // ---- runs ----

  #begin(): Run {
    const run: Run = { stop: new AbortController(), verdict: Promise.withResolvers<boolean>(), state: IDLE };
    this.#run = run;
    this.#rest = IDLE;
    return run;
  }

  /** A run that has been followed by another says nothing. */
  #enter(run: Run, state: FollowerState): void {
    run.state = state;
    if (this.#run === run) this.parts.feeds.advanced();
  }

  #end(run: Run, rest: FollowerState): void {
    const isPresent = this.#run === run;
    if (isPresent) {
      this.#run = undefined;
      this.#rest = rest;
      this.parts.feeds.ended();
    }
    run.stop.abort(new StoppedError("no longer used"));
    run.verdict.resolve(false);
    if (isPresent) this.parts.feeds.advanced();
  }

  async #follow(run: Run): Promise<void> {
    const { clock, link, log } = this.parts;
    try {
      for (let failures = 0; this.#run === run;) {
        if (!link.isOnline()) failures = 0;
        if (!(await this.#mayAsk(run))) break;
        const startedMs = clock.monotonicMs();
        const { kind, retryAfterMs } = await this.#ask(run);
        if (kind === "over" || this.#run !== run) break;
        failures = kind === "ended" && clock.monotonicMs() - startedMs >= 1_000 ? 0 : failures + 1;
        if (failures === 0) continue;
        this.#enter(run, { kind: "waiting", for: "pause" });
        await pause(clock, link, this.#pauseMs(failures, retryAfterMs), run.stop.signal);
      }
    } catch (error) {
      log.error("scope stopped following", { resource: this.parts.copy.identity.resource, error: String(error) });
    }
    this.#end(run, IDLE);
  }

  /** Waits for the link and for the scope's turn. @returns false when there is nothing to ask with. */
  async #mayAsk(run: Run): Promise<boolean> {
    const { link, source, turn } = this.parts;
    const { identity } = this.parts.copy;
    do {
      if (!link.isOnline()) this.#enter(run, { kind: "waiting", for: "link" });
      await untilLink(link, run.stop.signal);
      if (run.stop.signal.aborted || !source.hasCredential(identity.principal)) return false;
      this.#enter(run, { kind: "waiting", for: "turn" });
      await turn(identity);
      if (run.stop.signal.aborted) return false;
    } while (!link.isOnline());
    return true;
  }

  /** One question: a list if there has to be one, else a watch. */
  async #ask(run: Run): Promise<Outcome> {
    const heldBefore = this.parts.copy.listed?.resourceVersion ?? "";
    const end = await this.#attempt(run);
    if (this.#run !== run) return { kind: "over" };
    if (end.kind !== "expired" && end.kind !== "rollback") return end;
    const { feeds, history } = this.parts;
    if (end.kind === "expired" && history.isReplaying) {
      // The older moment is forgotten; ours may not be.
      run.verdict.resolve(false);
      feeds.forgotten(history.giveUpReplay(this.parts.copy.listed?.changedAt ?? ""));
      return { kind: "ended", retryAfterMs: 0 };
    }
    // Forgotten is what was held when it was asked for; events have gone on since.
    const held = this.parts.copy.listed?.resourceVersion ?? "";
    if (end.kind === "expired" && heldBefore !== "" && compareResourceVersions(held, heldBefore) > 0)
      return { kind: "ended", retryAfterMs: 0 };
    try {
      await this.#list(run, end.kind);
      return { kind: "ended" };
    } catch (error) {
      return this.#outcomeOf(run, error);
    }
  }

  async #attempt(run: Run): Promise<Outcome> {
    const attempt = new AbortController();
    const abort = () => attempt.abort(run.stop.signal.reason);
    run.stop.signal.addEventListener("abort", abort);
    run.attempt = attempt;
    try {
      if (this.#hasRolledBack) return { kind: "rollback" };
      if (this.parts.feeds.listed() === undefined) await this.#list(run, "first");
      return { kind: await this.#stream(run, attempt) };
    } catch (error) {
      return attempt.signal.reason instanceof RolledBackError ? { kind: "rollback" } : this.#outcomeOf(run, error);
    } finally {
      run.stop.signal.removeEventListener("abort", abort);
      delete run.attempt;
      // The watch is over: whatever comes next, it is not streaming.
      if (run.state.kind === "streaming") this.#enter(run, { kind: "waiting", for: "turn" });
    }
  }

  #stream(run: Run, attempt: AbortController): Promise<WatchEnd> {
    const { clock, feeds, history, limits, link, phase, source } = this.parts;
    const from = history.nextFrom(this.parts.copy.listed!.resourceVersion);
    this.#enter(run, { kind: "opening", at: from });
    const onOpen = (answeredInMs: number) => {
      const state: FollowerState = { kind: "streaming", answeredInMs, hasCaughtUp: false };
      run.state = state;
      feeds.spoken();
      run.verdict.resolve(true);
      feeds.advanced();
      void this.untilQuiet(TRUTH_PATIENCE_MS).then(() => {
        if (this.#run !== run || run.state !== state) return;
        state.hasCaughtUp = true;
        feeds.caughtUp();
      });
    };
    return readUpstreamWatch(from, {
      copy: this.parts.copy,
      history,
      source,
      link,
      clock,
      limits,
      phase,
      attempt,
      onOpen,
      onSpoken: () => feeds.spoken(),
      onAdvanced: () => feeds.advanced(),
      keepsBefore: () => feeds.keepsBefore(),
      paced: () => feeds.paced(),
    });
  }

  #list(run: Run, reason: ListReason): Promise<void> {
    const listing = this.#listOnce(run, reason).finally(() => (run.listing = undefined));
    run.listing = listing;
    return listing;
  }

  async #listOnce(run: Run, reason: ListReason): Promise<void> {
    const { clock, copy, countList, feeds, limits, link, onRolledBack, source } = this.parts;
    const beganMs = clock.nowMs();
    const state: FollowerState = { kind: "listing", hasHead: false };
    this.#enter(run, state);
    const controller = new AbortController();
    const stopListening = link.onChange((isOnline) => isOnline || controller.abort(new UnreachableError("link lost")));
    const abort = () => controller.abort(run.stop.signal.reason);
    run.stop.signal.addEventListener("abort", abort);
    countList(reason);
    try {
      const onHead = () => {
        state.hasHead = true;
      };
      const { signal } = controller;
      const list = await readWholeList({ copy, source, identity: copy.identity, limits, signal, onHead });
      if (this.#run !== run) {
        list.writer.abort();
        throw new StoppedError("no longer used");
      }
      this.#hasRolledBack = false;
      feeds.commit(list);
      const at = copy.listed?.resourceVersion;
      if (reason === "rollback" && at !== undefined) onRolledBack?.(copy.identity, at, beganMs);
    } finally {
      controller.abort(new StoppedError("list over"));
      run.stop.signal.removeEventListener("abort", abort);
      stopListening();
    }
  }

  #outcomeOf(run: Run, error: unknown): Outcome {
    const { log } = this.parts;
    const { resource } = this.parts.copy.identity;
    if (this.#run !== run || error instanceof CopyDroppedError) return { kind: "over" };
    if (error instanceof UpstreamRefusedError) {
      if (error.status === 410) return { kind: "expired" };
      if (error.status === 504 && error.body.includes("ResourceVersionTooLarge")) return { kind: "rollback" };
      if (isExempt(this.parts.copy.identity, error.status))
        return { kind: "failed", retryAfterMs: OWN_REFUSAL_PAUSE_MS };
    }
    if (isFinal(error)) {
      this.#end(run, { kind: "refused", error });
      this.parts.feeds.refused(error);
      return { kind: "over" };
    }
    if (error instanceof UpstreamRefusedError || error instanceof UnsaidError)
      return error.retryAfterSeconds === undefined
        ? { kind: "failed" }
        : { kind: "failed", retryAfterMs: error.retryAfterSeconds * 1_000 };
    if (error instanceof MalformedError)
      log.warn("upstream watch unreadable, opened anew", { resource, reason: error.message });
    else if (!(error instanceof UnreachableError))
      log.error("upstream watch failed", { resource, error: String(error) });
    return { kind: "failed" };
  }

  /** As long as it was asked to wait, at least, and never exactly: many were asked the same. */
  #pauseMs(failures: number, retryAfterMs: number | undefined): number {
    const backoffMs = Math.min(30_000, 100 * 2 ** Math.min(failures, 12)) * (0.5 + this.parts.random() / 2);
    if (retryAfterMs === undefined || retryAfterMs === 0) return retryAfterMs ?? backoffMs;
    return Math.max(retryAfterMs * (1 + this.parts.random()), backoffMs);
  }
}

/** What runs on a node must go on: of its own refusals only those of single objects count, as pods come and go. */
function isExempt({ principal, fieldSelector }: ScopeIdentity, status: number): boolean {
  if (status === 401) return principal.startsWith("certificate:");
  if (status !== 403 || !principal.startsWith("certificate:system:node:")) return false;
  return !/(^|,)metadata\.name=/.test(fieldSelector);
}

/** What ends a run for good. */
function isFinal(error: unknown): error is UpstreamRefusedError | ScopeTooLargeError {
  if (error instanceof ScopeTooLargeError) return true;
  return error instanceof UpstreamRefusedError && [401, 403, 404].includes(error.status);
}
