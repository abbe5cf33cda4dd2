/**
 * All scopes of this node: found by identity, or by what they may hold.
 *
 * Scopes found on disk at start are asleep: their rows can be served, nothing
 * is followed until a client comes.
 */

import type { Item, StatusFields } from "../kube/codec.ts";
import type { Representation } from "../kube/representation.ts";
import { compareResourceVersions, newerResourceVersion } from "../kube/resource-version.ts";
import { identityText, type ListedState, type ScopeIdentity } from "../store/contract.ts";
import { coversObject, partOf } from "./containment.ts";
import { CopyAnswer, type CallerKnows } from "./copy-answer.ts";
import { mayFollow } from "./followed.ts";
import { isUndone } from "./known-newer.ts";
import type { OwnWrites } from "./own-writes.ts";
import { Scope } from "./scope.ts";
import type { ScopeParts } from "./scope-parts.ts";

/** An object found in a scope, in the form that was asked for, with what is needed to write it. */
export interface FoundObject {
  readonly scope: Scope;
  readonly listed: ListedState;
  readonly item: Item;
}

/** Whose object, and which. */
export interface ObjectPlace {
  readonly principal: string;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  /** "" for cluster-scoped resources. */
  readonly namespace: string;
  readonly name: string;
}

/** Bounds of the registry. */
export interface ScopesOptions {
  readonly retentionMs: number;
  /** Listed scopes; half of them are the node's if it needs them. */
  readonly maxScopes: number;
  /** Our own node's principal. */
  readonly ownPrincipal?: () => string | undefined;
  /** What callers wrote themselves. */
  readonly writes?: OwnWrites;
}

/** Scopes that wait for their first list. */
const MAX_BEGUN = { ofOne: 64, ofAll: 512 } as const;

/** The registry of scopes. */
export class Scopes {
  /** Told before copies of a principal are withheld. */
  onWithheld: ((principal: string) => void) | undefined;
  #byKey = new Map<string, Scope>();
  #byResource = new Map<string, Set<Scope>>();
  #byPrincipal = new Map<string, Set<Scope>>();
  /** Opened since start and not listed when last looked at. */
  #begun = new Set<Scope>();
  #cancelSweep: (() => void) | undefined;

  constructor(
    private readonly parts: ScopeParts,
    private readonly options: ScopesOptions,
  ) {
    for (const copy of parts.store.copies()) this.#add(new Scope(copy, parts, (scope) => this.#remove(scope)));
    for (const scope of this.#byKey.values()) {
      const { resourceVersion = "", shownTo = "" } = scope.listed ?? {};
      if (compareResourceVersions(shownTo, resourceVersion) > 0) this.wholeOf(scope).noteShown();
    }
    this.#scheduleSweep();
  }

  /** All scopes, in no order. */
  all(): Iterable<Scope> {
    return this.#byKey.values();
  }

  /** The scope of this identity if it exists. */
  find(identity: ScopeIdentity): Scope | undefined {
    return this.#byKey.get(identityText(identity));
  }

  /** The scope of this identity, made if need be; undefined when its caller has too many already, or all together. */
  open(identity: ScopeIdentity): Scope | undefined {
    const known = this.find(identity);
    if (known?.isFollowing !== true && !this.#mayFollow(identity)) return undefined;
    if (known !== undefined) return known;
    this.#giveWay();
    if (!this.#mayBegin(identity.principal)) return undefined;
    const scope = new Scope(this.parts.store.openCopy(identity, this.parts.clock.nowMs()), this.parts, (dropped) =>
      this.#remove(dropped),
    );
    this.#add(scope);
    this.#begun.add(scope);
    return scope;
  }

  /** Takes a scope away of which nothing was ever listed, and nobody waits for. */
  dismiss(scope: Scope): void {
    if (scope.copy.listed === undefined && scope.state === "unseen" && scope.watcherCount === 0 && !scope.isFollowing)
      this.drop(scope);
  }

  /** Whether another scope of this principal may begin; those that never came to a list make room for each other. */
  #mayBegin(principal: string): boolean {
    const ofPrincipal: Scope[] = [];
    for (const scope of [...this.#begun]) {
      if (scope.copy.listed !== undefined || this.find(scope.identity) !== scope) this.#begun.delete(scope);
      else if (scope.identity.principal === principal) ofPrincipal.push(scope);
    }
    if (ofPrincipal.length >= MAX_BEGUN.ofOne) for (const scope of ofPrincipal) this.dismiss(scope);
    if (this.#begun.size >= MAX_BEGUN.ofAll) for (const scope of [...this.#begun]) this.dismiss(scope);
    const left = ofPrincipal.filter((scope) => this.#begun.has(scope)).length;
    return left < MAX_BEGUN.ofOne && this.#begun.size < MAX_BEGUN.ofAll;
  }

  #mayFollow(identity: ScopeIdentity): boolean {
    const { principal } = identity;
    if (principal === this.options.ownPrincipal?.()) return true;
    const { group, version, resource } = identity;
    return mayFollow(identity, this.of(principal, group, version, resource), this.#byPrincipal.get(principal));
  }

  /** Scopes of one principal on one resource, whatever their namespace and selectors. */
  of(principal: string, group: string, version: string, resource: string): Iterable<Scope> {
    return this.#byResource.get(`${principal}\n${group}/${version}/${resource}`) ?? [];
  }

  /**
   * The copy of the same caller that vouches for a list or a watch, in the
   * first of the client's forms that can be made: the newest one, whether it
   * is the copy of just that or a wider one.
   *
   * @param at a watch begins there: a copy that can tell everything since goes first.
   */
  answerFor(
    asked: ScopeIdentity,
    accepted: readonly Representation[],
    { at = "", isUsable = () => true }: { readonly at?: string; readonly isUsable?: (scope: Scope) => boolean } = {},
  ): CopyAnswer | undefined {
    for (const forms of alikeForms(accepted)) {
      let best: CopyAnswer | undefined;
      for (const scope of this.of(asked.principal, asked.group, asked.version, asked.resource)) {
        const answer = isUsable(scope) ? this.#answerOf(scope, asked, forms) : undefined;
        if (answer !== undefined && (best === undefined || isBetter(answer, best, at))) best = answer;
      }
      if (best !== undefined) return best;
    }
    return undefined;
  }

  /**
   * One object as the caller knows it: the newest of all its copies, in the
   * first of the client's forms that can be made. A copy that would hold it,
   * is newer and does not, has seen it gone.
   */
  findObject(
    where: ObjectPlace,
    accepted: readonly Representation[],
    isUsable: (scope: Scope) => boolean = () => true,
  ): FoundObject | undefined {
    const { principal, group, version, resource, namespace } = where;
    for (const forms of alikeForms(accepted)) {
      let best: FoundObject | undefined;
      for (const scope of this.of(principal, group, version, resource)) {
        if (scope.identity.namespace !== "" && scope.identity.namespace !== namespace) continue;
        const found = isUsable(scope) ? objectIn(scope, where, forms) : undefined;
        if (found !== undefined && (best === undefined || isNewer(found, best))) best = found;
      }
      if (best !== undefined) return this.#isGone(where, best) ? undefined : best;
    }
    return undefined;
  }

  #answerOf(scope: Scope, asked: ScopeIdentity, forms: readonly Representation[]): CopyAnswer | undefined {
    const { identity, listed } = scope;
    if (listed === undefined) return undefined;
    for (const wanted of forms) {
      const part = partOf({ identity, listed }, asked, wanted);
      if (part !== undefined) return new CopyAnswer(scope, asked, part, this.#knownBy(asked));
    }
    return undefined;
  }

  /** A scope as its own caller asks for it. */
  wholeOf(scope: Scope): CopyAnswer {
    return new CopyAnswer(scope, scope.identity, undefined, this.#knownBy(scope.identity));
  }

  #knownBy({ principal, group, version, resource }: ScopeIdentity): CallerKnows {
    return { siblings: () => this.of(principal, group, version, resource), writes: this.options.writes };
  }

  /** Whether a copy that is newer than the object, and would hold it, holds it no more. */
  #isGone({ principal, group, version, resource, namespace, name }: ObjectPlace, { scope }: FoundObject): boolean {
    const known = scope.row(namespace, name)?.meta.resourceVersion ?? "";
    for (const other of this.of(principal, group, version, resource)) {
      const { identity, listed } = other;
      if (listed === undefined || !coversObject(identity, namespace, name) || isUndone(other, scope)) continue;
      if (compareResourceVersions(listed.resourceVersion, known) <= 0) continue;
      // A damaged row is no word of the API server's: the copy is unlisted then.
      if (other.row(namespace, name) === undefined && other.listed !== undefined) return true;
    }
    return false;
  }

  /** The newest resourceVersion held of a resource by a scope that is being followed; "" for none. */
  newestHeld(group: string, resource: string): string {
    let newest = "";
    for (const { identity, isFollowing, listed } of this.#byKey.values()) {
      if (isFollowing && identity.resource === resource && identity.group === group)
        newest = newerResourceVersion(newest, listed?.resourceVersion ?? "");
    }
    return newest;
  }

  /**
   * The API server gave out this resourceVersion, for a request that went out
   * when `heldBefore` was the newest one held: an older one means that etcd was
   * restored from a backup. A watch would not tell: asked for a future
   * resourceVersion, the API server waits for it in silence.
   *
   * Compared within one resource only: others may live in another etcd.
   */
  noticeResourceVersion(group: string, resource: string, resourceVersion: string, heldBefore: string): void {
    for (const scope of this.#byKey.values()) {
      const { identity, isFollowing, listed } = scope;
      // A sleeping copy does not move on meanwhile, so its own resourceVersion tells; it lists when it wakes.
      if (isFollowing || identity.resource !== resource || identity.group !== group) continue;
      if (compareResourceVersions(listed?.resourceVersion ?? "", resourceVersion) > 0) scope.rolledBack();
    }
    if (heldBefore === "" || compareResourceVersions(resourceVersion, heldBefore) >= 0) return;
    this.parts.log.warn("the API server's history went back: lists are made anew", { resource });
    for (const scope of this.#byKey.values()) {
      if (scope.isFollowing && scope.identity.resource === resource && scope.identity.group === group)
        scope.rolledBack();
    }
  }

  /** Withholds the scopes of a principal that match: what is kept of them answers nobody. @returns whether any held something. */
  withhold(principal: string, matches: (identity: ScopeIdentity) => boolean, status: StatusFields): boolean {
    this.onWithheld?.(principal);
    let hadAny = false;
    for (const scope of [...this.#byKey.values()]) {
      if (scope.identity.principal !== principal || !matches(scope.identity)) continue;
      if (scope.listed !== undefined) hadAny = true;
      scope.withhold(status);
    }
    return hadAny;
  }

  /** The API server allows them again. */
  release(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const scope of this.#byKey.values())
      if (scope.identity.principal === principal && matches(scope.identity)) scope.release();
  }

  /** Forgets the scopes of a principal that match (a revoked permission). */
  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const scope of [...this.#byKey.values()]) {
      if (scope.identity.principal !== principal || !matches(scope.identity)) continue;
      scope.close();
      this.#remove(scope);
    }
    this.parts.store.forget(principal, matches);
  }

  /** Ends all watches and stops following. */
  close(): void {
    this.#cancelSweep?.();
    for (const scope of this.#byKey.values()) scope.close();
  }

  #add(scope: Scope): void {
    const { principal, group, version, resource } = scope.identity;
    const resourceKey = `${principal}\n${group}/${version}/${resource}`;
    this.#byKey.set(identityText(scope.identity), scope);
    enter(this.#byResource, resourceKey, scope);
    enter(this.#byPrincipal, principal, scope);
  }

  #remove(scope: Scope): void {
    const { principal, group, version, resource } = scope.identity;
    const resourceKey = `${principal}\n${group}/${version}/${resource}`;
    if (this.find(scope.identity) === scope) this.#byKey.delete(identityText(scope.identity));
    this.#begun.delete(scope);
    leave(this.#byResource, resourceKey, scope);
    leave(this.#byPrincipal, principal, scope);
  }

  /**
   * Beyond the bound the caller with the most copies gives up the one that it
   * has not used for longest, so that nobody is pushed out by what another asks
   * for; the node as the last, while it has no more than half. Offline nothing
   * is given up.
   */
  #giveWay(): void {
    if (this.#byKey.size - this.#begun.size <= this.options.maxScopes || !this.parts.link.isOnline()) return;
    const idle = new Map<string, Scope[]>();
    const own = this.options.ownPrincipal?.();
    for (const scope of this.#byKey.values()) {
      if (scope.watcherCount > 0 || this.#begun.has(scope)) continue;
      const { principal } = scope.identity;
      const known = idle.get(principal);
      if (known === undefined) idle.set(principal, [scope]);
      else known.push(scope);
    }
    const rank = ([principal, scopes]: [string, Scope[]]) =>
      principal === own && scopes.length <= this.options.maxScopes / 2 ? 0 : scopes.length;
    const [, most = []] = [...idle].sort((a, b) => rank(b) - rank(a))[0] ?? [];
    const oldest = most.sort((a, b) => b.unusedMs - a.unusedMs)[0];
    if (oldest !== undefined) this.drop(oldest);
  }

  /** Ends a scope, and forgets what it kept. */
  drop(scope: Scope): void {
    scope.close();
    this.#remove(scope);
    scope.copy.drop();
  }

  #scheduleSweep(): void {
    this.#cancelSweep = this.parts.clock.after(3_600_000, () => {
      if (this.parts.link.isOnline()) {
        for (const scope of [...this.#byKey.values()]) {
          if (scope.watcherCount === 0 && !scope.isFollowing && scope.unusedMs > this.options.retentionMs)
            this.drop(scope);
        }
      }
      this.#scheduleSweep();
    });
  }
}

function enter(groups: Map<string, Set<Scope>>, key: string, scope: Scope): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, new Set([scope]));
  else group.add(scope);
}

function leave(groups: Map<string, Set<Scope>>, key: string, scope: Scope): void {
  const group = groups.get(key);
  group?.delete(scope);
  if (group?.size === 0) groups.delete(key);
}

/** The client's forms in its order; formats of one form stand together, for the newest copy decides between them. */
function alikeForms(accepted: readonly Representation[]): Iterable<readonly Representation[]> {
  const alike = new Map<string, Representation[]>();
  for (const one of accepted) {
    const key = `${one.as} ${one.asVersion}`;
    const others = alike.get(key);
    if (others === undefined) alike.set(key, [one]);
    else others.push(one);
  }
  return alike.values();
}

function objectIn(
  scope: Scope,
  { namespace, name }: ObjectPlace,
  forms: readonly Representation[],
): FoundObject | undefined {
  const { identity, listed } = scope;
  if (listed === undefined) return undefined;
  for (const wanted of forms) {
    const part = partOf({ identity, listed }, identity, wanted);
    const item = part === undefined ? undefined : scope.item(namespace, name);
    if (part === undefined || item === undefined) continue;
    return { scope, listed: { ...listed, shape: part.shape }, item: part.form === undefined ? item : part.form(item) };
  }
  return undefined;
}

/** A resourceVersion of ours, of an edit, is larger than any of the API server's. */
function isNewer({ item, listed, scope }: FoundObject, than: FoundObject): boolean {
  if (scope.hasRolledBack !== than.scope.hasRolledBack) return !scope.hasRolledBack;
  const order = compareResourceVersions(item.meta.resourceVersion, than.item.meta.resourceVersion);
  return order > 0 || (order === 0 && listed.lastContactMs > than.listed.lastContactMs);
}

function isBetter(one: CopyAnswer, other: CopyAnswer, at: string): boolean {
  if (one.scope.hasRolledBack !== other.scope.hasRolledBack) return !one.scope.hasRolledBack;
  const tells = at !== "" && one.canTellFrom(at);
  if (at !== "" && tells !== other.canTellFrom(at)) return tells;
  const order = compareResourceVersions(one.scope.servedVersion, other.scope.servedVersion);
  return order > 0 || (order === 0 && one.isWhole && !other.isWhole);
}
