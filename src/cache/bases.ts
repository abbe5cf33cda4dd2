/**
 * Who is fed by what: each scope that may share, and which scope could be its
 * base.
 *
 *   own        its last list or watch went to the API server: it may be a base
 *   derived    its watch is cut out of a base's
 *
 * Invariants:
 * - Nothing is shared while the base is not live: offline each caller has its
 *   own rows and no others.
 * - A scope is derived from one that asks upstream itself, and among scopes
 *   that select alike only from an older one, so there is no circle.
 */

import type { Selection } from "../kube/selectors.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { Scope } from "./scope.ts";
import type { Scopes } from "./scopes.ts";
import { isShared, isWithin, shareableSelection } from "./shareable.ts";

/** So many narrow watches of one collection by one caller are worth one of all of it. */
export const MANY = 16;

/** How a scope is fed at present. */
export interface Feeding {
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
  /** A base for the many narrow watches of its caller: it stands for these alone. */
  isForMany: boolean;
}

/** Keeps account of feedings. */
export class Bases {
  readonly #feedings = new WeakMap<Scope, Feeding>();
  #scopes: Scopes | undefined;

  /** Among these scopes from now on; undefined: among none. */
  serve(scopes: Scopes | undefined): void {
    this.#scopes = scopes;
  }

  /** All scopes that are there. */
  all(): Iterable<Scope> {
    return this.#scopes?.all() ?? [];
  }

  /** How this scope is fed, if it takes part. */
  of(scope: Scope): Feeding | undefined {
    return this.#feedings.get(scope);
  }

  /** The scope of this identity and how it is fed; only for one that may take part, as base or derived. */
  find(identity: ScopeIdentity): { readonly scope: Scope; readonly feeding: Feeding } | undefined {
    const scope = this.#scopes?.find(identity);
    if (scope === undefined) return undefined;
    let feeding = this.#feedings.get(scope);
    if (feeding === undefined) {
      const selection = shareableSelection(identity);
      if (selection === undefined) return undefined;
      feeding = { selection, isOwn: false, ownSinceMs: 0, moveAfterMs: 0, isRetired: false, isForMany: false };
      this.#feedings.set(scope, feeding);
    }
    return { scope, feeding };
  }

  /** The scope that this one could be derived from, live or about to be: the oldest. */
  baseFor(scope: Scope): Scope | undefined {
    let best: Scope | undefined;
    for (const candidate of this.all()) {
      if (!isWithin(scope, candidate) || !this.canFeed(candidate, scope)) continue;
      if (best === undefined || candidate.order < best.order) best = candidate;
    }
    return best;
  }

  /** Whether this scope is fit to be a base, of that scope's caller. */
  canFeed(candidate: Scope, scope: Scope): boolean {
    const feeding = this.#feedings.get(candidate);
    if (feeding === undefined || !feeding.isOwn || candidate.isOversize || candidate.hasRolledBack) return false;
    // What is served of it is not the API server's word until its edits have ended.
    if (candidate.isEdited) return false;
    if (!isShared(candidate.identity)) {
      if (!feeding.isForMany || candidate.identity.principal !== scope.identity.principal) return false;
    }
    if (feeding.isRetired && candidate.watcherCount > this.derivedFrom(candidate).length) feeding.isRetired = false;
    return !feeding.isRetired && (candidate.isFollowing || candidate.state === "listing");
  }

  /** What is derived from this scope now. */
  derivedFrom(base: Scope): Feeding[] {
    const derived: Feeding[] = [];
    for (const scope of this.all()) {
      const feeding = this.#feedings.get(scope);
      if (feeding?.base === base) derived.push(feeding);
    }
    return derived;
  }

  /** Whether following it costs less than what it stands for: a base that no client follows for itself retires when it does not. */
  pays(base: Scope): boolean {
    const feeding = this.#feedings.get(base);
    const derived = this.derivedFrom(base);
    if (base.watcherCount > derived.length) return true;
    if (feeding?.isForMany === true && derived.length >= MANY / 2) return true;
    if (derived.filter(({ selection }) => selection.isBroad).length >= 2) return true;
    if (feeding !== undefined) feeding.isRetired = true;
    return false;
  }
}
