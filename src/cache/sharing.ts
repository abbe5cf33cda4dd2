/**
 * One upstream watch for several scopes of one resource.
 *
 * kubelet, kube-proxy, CoreDNS and a CNI agent list the same services with
 * different selectors. Once one of them is followed without selectors (the
 * *base*), the others are cut out of its rows and events, here, and ask the
 * API server nothing. A scope does not know: it lists and watches its source,
 * and this source answers.
 *
 * Who may share: a scope whose selectors are understood to the last detail, in
 * the base's format, and whose principal has proven (permissions.ts) that it
 * may list or watch as much. A proof is renewed every ten minutes while it is
 * used, and at once when any request of that principal is refused.
 *
 * Whenever anything is in doubt (the base ended, cannot vouch for a moment,
 * was listed anew with other bounds, the proof is gone) the scope's watch ends
 * cleanly and its next one goes to the API server, at its own resourceVersion:
 * no list, nothing missed. Later it is moved back, when the base vouches for
 * the moment where it stands.
 *
 * Invariants:
 * - Nothing is shared while the base is not live: offline each principal has
 *   its own rows and no others.
 * - A scope is derived from one that asks upstream itself, and among scopes
 *   that select alike only from an older one, so there is no circle.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import type { Selection } from "../kube/selectors.ts";
import { identityText, type ScopeIdentity, type ScopeSnapshot, type Store } from "../store/contract.ts";
import { Permissions, PROOF_MS, type AccessReviewer, type Permission, type ReadVerb } from "../callers/permissions.ts";
import {
  UnreachableError,
  UpstreamRefusedError,
  type LinkView,
  type ListPage,
  type ScopeSource,
  type WatchStart,
  type WatchStream,
} from "../uplink/scope-source.ts";
import type { Scope } from "./scope.ts";
import type { Scopes } from "./scopes.ts";
import { firstForm, isWholeOnly, isWithin, shareableSelection } from "./shareable.ts";
import { pageOf, selected } from "./shared-list.ts";
import { Derivation, Feed, formatOf } from "./shared-watch.ts";

/** How long a list or watch waits for the base it could be taken from. */
const BASE_PATIENCE_MS = 5_000;
/** As long for the base to reach the moment that is asked for: it lags by one event, or by a bookmark. */
const REACH_PATIENCE_MS = 500;
/** A watch of the base is renewed after an hour; it costs nothing upstream. */
const SHARED_WATCH_MS = 3_600_000;
/** A scope's own new watch is looked at after this long, and while it could soon be moved. */
const REVIEW_MS = 2_000;
const REVIEW_AGAIN_MS = 15_000;
/** A move that failed is not tried again before. */
const MOVE_AGAIN_MS = 300_000;
/** Two scopes side by side for this long have come to stay: a base for both will pay. */
const OPEN_AFTER_MS = 60_000;
/** A base that could not be opened is not tried again before. */
const OPEN_AGAIN_MS = 3_600_000;
/** Renewals of a proof without a verdict, a minute apart, before sharing ends. */
const MAX_SILENT_RENEWALS = 3;

/** What sharing needs. */
export interface SharingParts {
  /** The API server. */
  readonly source: ScopeSource;
  readonly reviewer: AccessReviewer;
  readonly store: Store;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
  /** Bytes of lists and events that came from a base, uncompressed. */
  readonly onBytes: (bytes: number) => void;
  /** The API server refused a scope's own list or watch with 403. */
  readonly onForbidden?: (identity: ScopeIdentity) => void;
}

/** How a scope is fed at present. */
interface Feeding {
  readonly selection: Selection;
  /** Its last list or watch went to the API server: others may be derived from it. */
  isOwn: boolean;
  /** Ends its own upstream watch cleanly, so that the next one is decided anew. */
  endOwn?: (() => void) | undefined;
  ownSinceMs: number;
  /** What it is derived from now. */
  base?: Scope | undefined;
  endShared?: (() => void) | undefined;
  moveAfterMs: number;
  /** As a base it no longer pays, until a client of its own comes. */
  isRetired: boolean;
}

/** A source that answers from another scope where it may, and asks the API server where not. */
export class SharingSource implements ScopeSource {
  readonly #permissions: Permissions;
  readonly #feedings = new WeakMap<Scope, Feeding>();
  readonly #openNotBeforeMs = new Map<string, number>();
  #scopes: Scopes | undefined;
  #cancelReview: (() => void) | undefined;
  #bytes = 0;

  constructor(private readonly parts: SharingParts) {
    this.#permissions = new Permissions(parts.clock, parts.reviewer);
  }

  /** Shares among these scopes; before that everything goes to the API server. */
  serve(scopes: Scopes): void {
    this.#scopes = scopes;
  }

  /** Stops looking for what could be shared. */
  close(): void {
    this.#cancelReview?.();
    this.#scopes = undefined;
  }

  /** Bytes that came from a base since start, uncompressed. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The scope whose watch this one shares now. */
  baseOf(scope: Scope): Scope | undefined {
    return this.#feedings.get(scope)?.base;
  }

  /** How many of a scope's watchers are other scopes and no clients. */
  derivedCount(scope: Scope): number {
    return this.#derivedFrom(scope).length;
  }

  hasCredential(principal: string): boolean {
    return this.parts.source.hasCredential(principal);
  }

  async list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<ListPage> {
    const found = page.continueToken === "" ? this.#feedingOf(identity) : undefined;
    if (found !== undefined) {
      const base = await this.#usableBase(found.scope, found.feeding, "list", signal);
      const answer = base === undefined ? undefined : this.#listFrom(base, found.feeding);
      if (answer !== undefined) return answer;
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
    const found = this.#feedingOf(identity);
    if (found === undefined)
      return this.#observed(identity, "watch", this.parts.source.watch(identity, start, timeoutSeconds, signal));
    const { scope, feeding } = found;
    const base = await this.#usableBase(scope, feeding, "watch", signal);
    const shared =
      base === undefined ? undefined : await this.#watchFrom(base, scope, feeding, start.resourceVersion, signal);
    if (shared !== undefined) return shared;
    if (signal.aborted) throw new UnreachableError("given up");
    return this.#watchOwn(scope, feeding, start, timeoutSeconds, signal);
  }

  /** The API server refused a request of this principal: what it had proven is in doubt. */
  refused(principal: string, status: number, of: { readonly group: string; readonly resource: string }): void {
    if (status !== 401 && status !== 403) return;
    const about = status === 401 ? undefined : of;
    this.#permissions.forget(principal, about);
    for (const scope of this.#all()) {
      const { group, resource } = scope.identity;
      if (scope.identity.principal !== principal) continue;
      if (about !== undefined && (about.group !== group || about.resource !== resource)) continue;
      const feeding = this.#feedings.get(scope);
      if (feeding?.endShared !== undefined) void this.#proveAgain(scope, feeding, MAX_SILENT_RENEWALS);
    }
  }

  // ---- who is fed by what ----

  #all(): Iterable<Scope> {
    return this.#scopes?.all() ?? [];
  }

  /** Only for a scope that may take part, as base or derived. */
  #feedingOf(identity: ScopeIdentity): { readonly scope: Scope; readonly feeding: Feeding } | undefined {
    const scope = this.#scopes?.find(identity);
    if (scope === undefined) return undefined;
    let feeding = this.#feedings.get(scope);
    if (feeding === undefined) {
      const selection = shareableSelection(identity);
      if (selection === undefined) return undefined;
      feeding = { selection, isOwn: false, ownSinceMs: 0, moveAfterMs: 0, isRetired: false };
      this.#feedings.set(scope, feeding);
    }
    return { scope, feeding };
  }

  #becomesOwn(feeding: Feeding): void {
    if (!feeding.isOwn) feeding.ownSinceMs = this.parts.clock.monotonicMs();
    feeding.isOwn = true;
  }

  /** The scope that this one could be derived from, live or about to be. */
  #baseFor(scope: Scope): Scope | undefined {
    let best: Scope | undefined;
    for (const candidate of this.#all()) {
      if (!isWithin(scope, candidate) || !this.#isBase(candidate)) continue;
      if (best === undefined || candidate.order < best.order) best = candidate;
    }
    return best;
  }

  #isBase(candidate: Scope): boolean {
    const feeding = this.#feedings.get(candidate);
    if (feeding === undefined || !feeding.isOwn || candidate.isOversize || candidate.hasRolledBack) return false;
    // What is served of it is not the API server's word until its edits have ended.
    if (candidate.isEdited) return false;
    if (feeding.isRetired && candidate.watcherCount > this.#derivedFrom(candidate).length) feeding.isRetired = false;
    return !feeding.isRetired && (candidate.isFollowing || candidate.state === "listing");
  }

  #derivedFrom(base: Scope): Feeding[] {
    const derived: Feeding[] = [];
    for (const scope of this.#all()) {
      const feeding = this.#feedings.get(scope);
      if (feeding?.base === base) derived.push(feeding);
    }
    return derived;
  }

  /** A base that is live, for a principal that may. */
  async #usableBase(scope: Scope, feeding: Feeding, verb: ReadVerb, signal: AbortSignal): Promise<Scope | undefined> {
    const base = this.#baseFor(scope);
    // Decided before the first wait: of two that begin together the first asks upstream, the second waits for it.
    if (base === undefined) this.#becomesOwn(feeding);
    if (base === undefined || !this.parts.link.isOnline()) return undefined;
    feeding.isOwn = false;
    const principal = scope.identity.principal;
    const both = Promise.all([this.#permissions.prove(principal, verb, scope.identity), untilLive(base)]);
    // Who gives up, or a base that takes too long, must not hold up a client.
    const [permission] = await this.#atMost<[Permission, void]>(both, signal, ["unknown", undefined]);
    const isUsable = permission === "proven" && base.state === "live" && this.#isBase(base) && isWithin(scope, base);
    return isUsable && !signal.aborted ? base : undefined;
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

  // ---- asking the API server ----

  /** What the API server's answer proves; only an unselected request speaks of the whole collection. */
  async #observed<T>(identity: ScopeIdentity, verb: ReadVerb, asking: Promise<T>): Promise<T> {
    const { fieldSelector, labelSelector, principal } = identity;
    const isWhole = fieldSelector === "" && labelSelector === "";
    try {
      const answer = await asking;
      if (isWhole) this.#permissions.observed(principal, verb, identity, true);
      return answer;
    } catch (error) {
      if (!(error instanceof UpstreamRefusedError)) throw error;
      const { status } = error;
      if (status === 401 || status === 403) this.refused(principal, status, identity);
      if (status === 403) this.parts.onForbidden?.(identity);
      if (status === 403 && isWhole) this.#permissions.observed(principal, verb, identity, false);
      throw error;
    }
  }

  async #watchOwn(
    scope: Scope,
    feeding: Feeding,
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
    const self = this;
    return {
      codec,
      batches: (async function* () {
        feeding.endOwn = end;
        self.#scheduleReview(REVIEW_MS);
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

  #listFrom(base: Scope, { selection }: Feeding): ListPage | undefined {
    const snapshot = base.rows();
    if (snapshot === undefined) return undefined;
    const codec = base.codec(snapshot.listed);
    const select = (whole: ScopeSnapshot) => (selection.isAll ? whole : selected(whole, selection, formatOf(codec)));
    return pageOf(codec, snapshot, select, (bytes) => this.#count(bytes));
  }

  async #watchFrom(
    base: Scope,
    scope: Scope,
    feeding: Feeding,
    resourceVersion: string,
    signal: AbortSignal,
  ): Promise<WatchStream | undefined> {
    const { clock } = this.parts;
    if (!(await base.reaches(resourceVersion, REACH_PATIENCE_MS)) || signal.aborted) return undefined;
    using rows = scope.rows();
    const { listed } = base;
    // From an older moment than the rows it cannot be told what was selected then.
    if (listed === undefined || rows === undefined || rows.listed.resourceVersion !== resourceVersion) return undefined;
    const codec = base.codec(listed);
    const derivation = new Derivation(
      {
        base,
        codec,
        shape: listed.shape,
        epoch: listed.epoch,
        derived: scope,
        selection: feeding.selection,
        onBytes: (bytes) => this.#count(bytes),
      },
      rows.items(),
    );
    const feed = new Feed();
    let detach: () => void;
    try {
      const request = { resourceVersion, sendInitialEvents: false, allowBookmarks: true, timeoutMs: SHARED_WATCH_MS };
      detach = await base.watch(request, () => feed);
    } catch {
      // It cannot vouch for this moment; the API server may.
      return undefined;
    }
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
    if (signal.aborted) {
      detach();
      return undefined;
    }
    signal.addEventListener("abort", giveUp);
    feeding.base = base;
    feeding.endShared = cut;
    const isCurrent = () => feeding.endShared === cut;
    const renew = (silences: number) => {
      cancelProof = clock.after(silences === 0 ? PROOF_MS : PROOF_MS / 10, () => {
        if (!isCurrent()) return;
        if (!this.#pays(base)) return cut();
        void this.#proveAgain(scope, feeding, silences).then(
          (next) => next !== undefined && isCurrent() && renew(next),
        );
      });
    };
    renew(0);
    return { codec, batches: derivation.batches(feed, signal, stop) };
  }

  /** @returns how many renewals have gone without a verdict, or undefined when sharing has ended. */
  async #proveAgain(scope: Scope, feeding: Feeding, silences: number): Promise<number | undefined> {
    const permission = await this.#permissions.renew(scope.identity.principal, "watch", scope.identity);
    if (permission === "proven") return 0;
    if (permission === "unknown" && silences < MAX_SILENT_RENEWALS) return silences + 1;
    // Its next watch goes to the API server, which has the last word.
    feeding.endShared?.();
    return undefined;
  }

  /** A base that no client follows for itself pays only while it stands for two broad watches. */
  #pays(base: Scope): boolean {
    const derived = this.#derivedFrom(base);
    if (base.watcherCount > derived.length) return true;
    if (derived.filter(({ selection }) => selection.isBroad).length >= 2) return true;
    const feeding = this.#feedings.get(base);
    if (feeding !== undefined) feeding.isRetired = true;
    return false;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.parts.onBytes(bytes);
  }

  // ---- moving to a base, opening one ----

  #scheduleReview(delayMs: number): void {
    if (this.#cancelReview !== undefined || this.#scopes === undefined) return;
    this.#cancelReview = this.parts.clock.after(delayMs, () => {
      this.#cancelReview = undefined;
      // At the return every watch begins anew, and asks for this again.
      if (this.parts.link.isOnline() && this.#review()) this.#scheduleReview(REVIEW_AGAIN_MS);
    });
  }

  /** Looks at every watch that goes to the API server. @returns whether one of them may be shared soon. */
  #review(): boolean {
    let isPending = false;
    const alone = new Map<string, Scope[]>();
    for (const scope of this.#all()) {
      const feeding = this.#feedings.get(scope);
      if (feeding?.endOwn === undefined) continue;
      const base = this.#baseFor(scope);
      if (base !== undefined) isPending = this.#considerMove(scope, feeding, base) || isPending;
      else if (feeding.selection.isBroad && !feeding.selection.isAll) {
        const { group, version, resource } = scope.identity;
        const key = `${group}/${version}/${resource} ${firstForm(scope.identity.representation)?.format ?? ""}`;
        alone.set(key, [...(alone.get(key) ?? []), scope]);
      }
    }
    for (const [key, scopes] of alone)
      if (scopes.length >= 2) isPending = this.#considerOpening(key, scopes) || isPending;
    return isPending;
  }

  #considerMove(scope: Scope, feeding: Feeding, base: Scope): boolean {
    const { principal } = scope.identity;
    const nowMs = this.parts.clock.monotonicMs();
    if (this.#permissions.known(principal, "watch", scope.identity) === "denied") return false;
    const at = scope.listed?.resourceVersion ?? "";
    const { listed } = base;
    const isVouchedFor =
      listed !== undefined &&
      base.state === "live" &&
      compareResourceVersions(listed.epoch, at) <= 0 &&
      compareResourceVersions(at, listed.resourceVersion) <= 0;
    if (nowMs < feeding.moveAfterMs) return false;
    if (!isVouchedFor) return true;
    feeding.moveAfterMs = nowMs + MOVE_AGAIN_MS;
    base.use();
    void this.#permissions
      .prove(principal, "watch", scope.identity)
      .then((permission) => permission === "proven" && feeding.endOwn?.());
    return true;
  }

  #considerOpening(key: string, scopes: readonly Scope[]): boolean {
    const [first] = scopes;
    const nowMs = this.parts.clock.monotonicMs();
    if (isWholeOnly(first!.identity)) return false;
    if (nowMs < (this.#openNotBeforeMs.get(key) ?? 0)) return false;
    if (scopes.some((scope) => nowMs - this.#feedings.get(scope)!.ownSinceMs < OPEN_AFTER_MS)) return true;
    this.#openNotBeforeMs.set(key, nowMs + OPEN_AGAIN_MS);
    void this.#open(scopes);
    return true;
  }

  /** Follows the whole collection for the first of these principals that may. */
  async #open(scopes: readonly Scope[]): Promise<void> {
    for (const { identity } of scopes) {
      const permissions = await Promise.all([
        this.#permissions.prove(identity.principal, "list", identity),
        this.#permissions.prove(identity.principal, "watch", identity),
      ]);
      if (permissions.some((permission) => permission !== "proven")) continue;
      const whole = { ...identity, fieldSelector: "", labelSelector: "" };
      const base = this.#scopes?.open(whole);
      if (base === undefined) return;
      const { resource } = identity;
      try {
        await base.ensureFresh();
        const feeding = this.#feedings.get(base);
        if (feeding !== undefined) feeding.isRetired = false;
        this.parts.log.info("several watches will share one", { resource, scopes: scopes.length });
        return;
      } catch (error) {
        this.parts.log.info("watches cannot be shared", { resource, reason: String(error) });
        if (base.listed === undefined)
          this.#scopes?.forget(whole.principal, (other) => identityText(other) === identityText(whole));
      }
    }
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
