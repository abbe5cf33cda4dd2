/**
 * One upstream watch for several scopes of one resource.
 *
 * kubelet, kube-proxy, CoreDNS and a CNI agent list the same services with
 * different selectors. Once one of them is followed without selectors (the
 * *base*), the others are cut out of its rows and frames, here, and ask the
 * API server nothing. A scope does not know: it lists and watches its source,
 * and this source answers.
 *
 * What lies within what containment.ts says; who may be a base, bases.ts; when
 * a scope is moved to one and when one is opened, base-review.ts. Here stands
 * who may be answered so: a caller that has proven (permissions.ts) that it may
 * list or watch as much. A proof is renewed when it is five minutes old, and at
 * once when any request of that caller is refused; without a verdict three
 * renewals half a minute apart are waited for, so that a shared watch ends
 * seven minutes after the last proof at the latest (the API server's own, as
 * clients ask for them, after five to ten), and at once when the caller's
 * credential is gone. Then the API server has the last word.
 *
 * Whenever anything is in doubt (the base ended, cannot tell from a moment,
 * was listed anew with other bounds, the proof is gone) the scope's watch ends
 * cleanly and its next one goes to the API server, at its own resourceVersion:
 * no list, nothing missed. Later it is moved back.
 */

import { betweenNow } from "../base/asked.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Permissions, type AccessReviewer, type Permission, type ReadVerb } from "../callers/permissions.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import {
  UnreachableError,
  UpstreamRefusedError,
  type LinkView,
  type ListPage,
  type ScopeSource,
  type WatchStart,
  type WatchStream,
} from "../uplink/scope-source.ts";
import { BaseReview } from "./base-review.ts";
import { Bases, type Feeding } from "./bases.ts";
import { CopyAnswer } from "./copy-answer.ts";
import type { Scope } from "./scope.ts";
import type { Scopes } from "./scopes.ts";
import { isWithin, partOfBase } from "./shareable.ts";
import { pageOf } from "./shared-list.ts";
import { batchesOf, Feed, type FeedSource } from "./shared-watch.ts";

/** How long a list or watch waits for the base it could be taken from. */
const BASE_PATIENCE_MS = 5_000;
/** As long for the base to reach the moment that is asked for: it lags by one event, or by a bookmark. */
const REACH_PATIENCE_MS = 500;
/** A watch of the base is renewed after an hour; it costs nothing upstream. */
const SHARED_WATCH_MS = 3_600_000;
/** Renewals of a proof without a verdict, so far apart, before sharing ends. */
const MAX_SILENT_RENEWALS = 3;
const SILENT_RENEWAL_MS = 30_000;

/** What sharing needs. */
export interface SharingParts {
  /** The API server. */
  readonly source: ScopeSource;
  readonly reviewer: AccessReviewer;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
  /** Bytes of objects that came from a base, uncompressed. */
  readonly onBytes: (bytes: number) => void;
  /** The API server refused a scope's own list or watch with 403. */
  readonly onForbidden?: (identity: ScopeIdentity) => void;
}

interface Fed {
  readonly scope: Scope;
  readonly feeding: Feeding;
}

/** A source that answers from another scope where it may, and asks the API server where not. */
export class SharingSource implements ScopeSource {
  readonly #permissions: Permissions;
  readonly #bases = new Bases();
  readonly #review: BaseReview;
  #bytes = 0;

  constructor(private readonly parts: SharingParts) {
    this.#permissions = new Permissions(parts.clock, parts.reviewer);
    this.#review = new BaseReview({ ...parts, bases: this.#bases, permissions: this.#permissions });
  }

  /** Shares among these scopes; before that everything goes to the API server. */
  serve(scopes: Scopes): void {
    scopes.onWithheld = (principal) => this.#permissions.forget(principal);
    this.#bases.serve(scopes);
    this.#review.serve(scopes);
  }

  /** Stops looking for what could be shared. */
  close(): void {
    this.#bases.serve(undefined);
    this.#review.close();
  }

  /** Bytes of objects that came from a base since start, uncompressed. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The scope whose watch this one shares now. */
  baseOf(scope: Scope): Scope | undefined {
    return this.#bases.of(scope)?.base;
  }

  /** How many of a scope's watchers are other scopes and no clients. */
  derivedCount(scope: Scope): number {
    return this.#bases.derivedFrom(scope).length;
  }

  hasCredential(principal: string): boolean {
    return this.parts.source.hasCredential(principal);
  }

  async list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<ListPage> {
    const found = page.continueToken === "" ? this.#bases.find(identity) : undefined;
    if (found !== undefined) {
      const answer = await this.#usable(found, "list", signal);
      const snapshot = answer?.snapshot();
      if (answer !== undefined && snapshot !== undefined)
        return pageOf(answer.codec(snapshot.listed), snapshot, (bytes) => this.#count(bytes));
      this.#becomesOwn(found.feeding);
    }
    return this.#observed(identity, "list", this.parts.source.list(identity, page, signal));
  }

  async watch(
    identity: ScopeIdentity,
    start: WatchStart,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    const found = this.#bases.find(identity);
    if (found === undefined)
      return this.#observed(identity, "watch", this.parts.source.watch(identity, start, timeoutSeconds, signal));
    const answer = await this.#usable(found, "watch", signal);
    const shared =
      answer === undefined ? undefined : await this.#watchFrom(answer, found, start, timeoutSeconds, signal);
    if (shared !== undefined) return shared;
    if (signal.aborted) throw new UnreachableError("given up");
    return this.#watchOwn(found, start, timeoutSeconds, signal);
  }

  /** The API server refused a request of this principal: what it had proven is in doubt. */
  refused(principal: string, status: number, of: { readonly group: string; readonly resource: string }): void {
    if (status !== 401 && status !== 403) return;
    const about = status === 401 ? undefined : of;
    this.#permissions.forget(principal, about);
    for (const scope of this.#bases.all()) {
      const { group, resource } = scope.identity;
      if (scope.identity.principal !== principal) continue;
      if (about !== undefined && (about.group !== group || about.resource !== resource)) continue;
      const feeding = this.#bases.of(scope);
      if (feeding?.endShared !== undefined) void this.#proveAgain(scope, feeding, MAX_SILENT_RENEWALS);
    }
  }

  // ---- asking the API server ----

  #becomesOwn(feeding: Feeding): void {
    if (!feeding.isOwn) feeding.ownSinceMs = this.parts.clock.monotonicMs();
    feeding.isOwn = true;
  }

  /** What the API server's answer proves; only an unselected request speaks of the whole collection. */
  async #observed<T>(identity: ScopeIdentity, verb: ReadVerb, asking: Promise<T>): Promise<T> {
    const { fieldSelector, labelSelector, principal } = identity;
    const asked = betweenNow();
    const isWhole = fieldSelector === "" && labelSelector === "";
    try {
      const answer = await asking;
      if (isWhole) this.#permissions.observed(principal, verb, identity, true, asked);
      return answer;
    } catch (error) {
      if (!(error instanceof UpstreamRefusedError)) throw error;
      const { status } = error;
      if (status === 401 || status === 403) this.refused(principal, status, identity);
      if (status === 403) this.parts.onForbidden?.(identity);
      if (status === 403 && isWhole) this.#permissions.observed(principal, verb, identity, false, asked);
      throw error;
    }
  }

  async #watchOwn(
    { scope, feeding }: Fed,
    start: WatchStart,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    this.#becomesOwn(feeding);
    const controller = new AbortController();
    const giveUp = () => controller.abort(signal.reason);
    signal.addEventListener("abort", giveUp);
    const asking = this.parts.source.watch(scope.identity, start, timeoutSeconds, controller.signal);
    const { batches, codec } = await this.#observed(scope.identity, "watch", asking).catch((error: unknown) => {
      signal.removeEventListener("abort", giveUp);
      throw error;
    });
    let isMoved = false;
    const end = () => {
      isMoved = true;
      controller.abort(new UnreachableError("moved to a shared watch"));
    };
    const schedule = () => this.#review.schedule();
    return {
      codec,
      batches: (async function* () {
        feeding.endOwn = end;
        schedule();
        try {
          yield* batches;
        } catch (error) {
          if (!isMoved) throw error;
        } finally {
          signal.removeEventListener("abort", giveUp);
          if (feeding.endOwn === end) feeding.endOwn = undefined;
        }
      })(),
    };
  }

  // ---- answering from a base ----

  /** What a live base answers a caller that may. */
  async #usable({ scope, feeding }: Fed, verb: ReadVerb, signal: AbortSignal): Promise<CopyAnswer | undefined> {
    const base = this.#bases.baseFor(scope);
    // Decided before the first wait: of two that begin together the first asks upstream, the second waits for it.
    if (base === undefined) this.#becomesOwn(feeding);
    if (base === undefined || !this.parts.link.isOnline()) return undefined;
    feeding.isOwn = false;
    const both = Promise.all([
      this.#permissions.prove(scope.identity.principal, verb, scope.identity),
      untilLive(base),
    ]);
    // Who gives up, or a base that takes too long, must not hold up a client.
    const [permission] = await this.#atMost<[Permission, void]>(both, signal, ["unknown", undefined]);
    if (permission !== "proven" || base.state !== "live" || signal.aborted) return undefined;
    // Taken back while the base was waited for.
    if (this.#permissions.known(scope.identity.principal, verb, scope.identity) !== "proven") return undefined;
    if (base.isReturning || !this.#bases.canFeed(base, scope) || !isWithin(scope, base)) return undefined;
    const part = partOfBase(scope, base);
    return part === undefined ? undefined : new CopyAnswer(base, scope.identity, part);
  }

  /** The promise's value, or the other one when it is late or given up. */
  async #atMost<T>(promise: Promise<T>, signal: AbortSignal, otherwise: T): Promise<T> {
    const { promise: given, resolve } = Promise.withResolvers<T>();
    const cancel = this.parts.clock.after(BASE_PATIENCE_MS, () => resolve(otherwise));
    const giveUp = () => resolve(otherwise);
    signal.addEventListener("abort", giveUp);
    try {
      return await Promise.race([promise, given]);
    } finally {
      cancel();
      signal.removeEventListener("abort", giveUp);
    }
  }

  async #watchFrom(
    answer: CopyAnswer,
    found: Fed,
    { resourceVersion, shape }: WatchStart,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream | undefined> {
    const base = answer.scope;
    const { scope, feeding } = found;
    answer.expectWatch();
    if (!(await base.reaches(resourceVersion, REACH_PATIENCE_MS)) || signal.aborted) return undefined;
    const { listed } = base;
    if (listed === undefined || !answer.canTellFrom(resourceVersion)) return undefined;
    const feed = new Feed();
    const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: SHARED_WATCH_MS };
    // A base that cannot vouch for this moment after all: the API server may.
    const detach = await answer.tap(request, () => feed).catch(() => undefined);
    if (detach === undefined) return undefined;
    if (signal.aborted) {
      detach();
      return undefined;
    }
    const stop = this.#share(scope, feeding, base, feed, detach, signal);
    const codec = answer.codec(listed);
    const watchOwn = (at: string) => this.#watchOwn(found, { resourceVersion: at, shape }, timeoutSeconds, signal);
    const source: FeedSource = {
      base,
      at: resourceVersion,
      epoch: listed.epoch,
      onBytes: (bytes) => this.#count(bytes),
      own: async function* (at) {
        const own = await watchOwn(at);
        if (own.codec === codec) yield* own.batches;
      },
    };
    return { codec, batches: batchesOf(feed, source, signal, stop) };
  }

  /** Keeps account of a shared watch, and of its proof. @returns ends that. */
  #share(scope: Scope, feeding: Feeding, base: Scope, feed: Feed, detach: () => void, signal: AbortSignal): () => void {
    const cut = () => feed.cut();
    let cancelProof = () => {};
    const stop = () => {
      detach();
      cancelProof();
      signal.removeEventListener("abort", giveUp);
      if (feeding.endShared !== cut) return;
      feeding.base = undefined;
      feeding.endShared = undefined;
    };
    const giveUp = () => {
      cut();
      stop();
    };
    signal.addEventListener("abort", giveUp);
    feeding.base = base;
    feeding.endShared = cut;
    const isCurrent = () => feeding.endShared === cut;
    const renew = (silences: number) => {
      // Counted from the proof and not from here: it may be as old as proofs are believed.
      const believedMs = this.#permissions.believedForMs(scope.identity.principal, "watch", scope.identity);
      cancelProof = this.parts.clock.after(silences === 0 ? believedMs : SILENT_RENEWAL_MS, () => {
        if (!isCurrent()) return;
        if (!this.#bases.pays(base)) return cut();
        void this.#proveAgain(scope, feeding, silences).then(
          (next) => next !== undefined && isCurrent() && renew(next),
        );
      });
    };
    renew(0);
    return stop;
  }

  /** @returns how many renewals have gone without a verdict, or undefined when sharing has ended. */
  async #proveAgain(scope: Scope, feeding: Feeding, silences: number): Promise<number | undefined> {
    const { principal } = scope.identity;
    const canAsk = this.hasCredential(principal);
    const permission = canAsk ? await this.#permissions.renew(principal, "watch", scope.identity) : "denied";
    if (permission === "proven") return 0;
    if (permission === "unknown" && silences < MAX_SILENT_RENEWALS) return silences + 1;
    // Its next watch goes to the API server, which has the last word.
    feeding.endShared?.();
    return undefined;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.parts.onBytes(bytes);
  }
}

/** Listed, connected and caught up, or as far as it comes. */
async function untilLive(base: Scope): Promise<void> {
  const wasListed = base.listed !== undefined;
  try {
    await base.ensureFresh();
    // Once until it is listed, once more until its watch is there.
    if (!wasListed) await base.ensureFresh();
  } catch {
    // Whoever waits looks at its state; what went wrong is the base's matter.
  }
}
