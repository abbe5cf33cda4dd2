/**
 * All scopes of this node: found by identity, or by what they may hold.
 *
 * Scopes found on disk at start are asleep: their rows can be served, nothing
 * is followed until a client comes.
 */

import type { Item } from "../kube/codec.ts";
import type { Representation } from "../kube/representation.ts";
import { compareResourceVersions, newerResourceVersion } from "../kube/resource-version.ts";
import { identityText, type ListedState, type ScopeIdentity } from "../store/contract.ts";
import { Scope, type ScopeParts } from "./scope.ts";

/** An object found in a scope, with what is needed to write it. */
export interface FoundObject {
  readonly scope: Scope;
  readonly listed: ListedState;
  readonly item: Item;
}

/** The registry of scopes. */
export class Scopes {
  #byKey = new Map<string, Scope>();
  #byResource = new Map<string, Set<Scope>>();
  #cancelSweep: (() => void) | undefined;

  constructor(
    private readonly parts: ScopeParts,
    private readonly options: { readonly retentionMs: number; readonly maxScopes: number },
  ) {
    for (const copy of parts.store.copies()) this.#add(new Scope(copy, parts, (scope) => this.#remove(scope)));
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

  /** The scope of this identity, made if need be; undefined when there are too many already. */
  open(identity: ScopeIdentity): Scope | undefined {
    const known = this.find(identity);
    if (known !== undefined) return known;
    if (this.#byKey.size >= this.options.maxScopes && !this.#dropOldest()) return undefined;
    const scope = new Scope(this.parts.store.openCopy(identity, this.parts.clock.nowMs()), this.parts, (dropped) =>
      this.#remove(dropped),
    );
    this.#add(scope);
    return scope;
  }

  /** Scopes of one principal on one resource, whatever their namespace and selectors. */
  of(principal: string, group: string, version: string, resource: string): Iterable<Scope> {
    return this.#byResource.get(`${principal}\n${group}/${version}/${resource}`) ?? [];
  }

  /**
   * One object from any scope of the same principal that holds it, in the
   * first of the client's representations that is kept; the scope heard from
   * last wins.
   */
  findObject(
    where: {
      readonly principal: string;
      readonly group: string;
      readonly version: string;
      readonly resource: string;
      readonly namespace: string;
      readonly name: string;
    },
    accepted: readonly Representation[],
    isUsable: (scope: Scope) => boolean = () => true,
  ): FoundObject | undefined {
    for (const representation of accepted) {
      let best: FoundObject | undefined;
      for (const scope of this.of(where.principal, where.group, where.version, where.resource)) {
        if (scope.identity.namespace !== "" && scope.identity.namespace !== where.namespace) continue;
        const { listed } = scope;
        if (listed === undefined || !isUsable(scope) || !isKeptAs(listed, representation)) continue;
        if (best !== undefined && best.listed.lastContactMs >= listed.lastContactMs && best.scope.state === "live")
          continue;
        const item = scope.item(where.namespace, where.name);
        if (item !== undefined) best = { scope, listed, item };
      }
      if (best !== undefined) return best;
    }
    return undefined;
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
    const siblings = this.#byResource.get(resourceKey);
    if (siblings === undefined) this.#byResource.set(resourceKey, new Set([scope]));
    else siblings.add(scope);
  }

  #remove(scope: Scope): void {
    const { principal, group, version, resource } = scope.identity;
    const resourceKey = `${principal}\n${group}/${version}/${resource}`;
    if (this.find(scope.identity) === scope) this.#byKey.delete(identityText(scope.identity));
    const siblings = this.#byResource.get(resourceKey);
    siblings?.delete(scope);
    if (siblings?.size === 0) this.#byResource.delete(resourceKey);
  }

  /** Makes room while online; offline nothing is given up. */
  #dropOldest(): boolean {
    if (!this.parts.link.isOnline()) return false;
    let oldest: Scope | undefined;
    for (const scope of this.#byKey.values()) {
      if (scope.watcherCount > 0) continue;
      if (oldest === undefined || scope.unusedMs > oldest.unusedMs) oldest = scope;
    }
    if (oldest === undefined) return false;
    this.#drop(oldest);
    return true;
  }

  #drop(scope: Scope): void {
    scope.close();
    this.#remove(scope);
    scope.copy.drop();
  }

  #scheduleSweep(): void {
    this.#cancelSweep = this.parts.clock.after(3_600_000, () => {
      if (this.parts.link.isOnline()) {
        for (const scope of [...this.#byKey.values()]) {
          if (scope.watcherCount === 0 && !scope.isFollowing && scope.unusedMs > this.options.retentionMs)
            this.#drop(scope);
        }
      }
      this.#scheduleSweep();
    });
  }
}

/** Whether what is kept is what this representation asks for. */
export function isKeptAs(listed: ListedState, representation: Representation): boolean {
  const isProtobuf = listed.contentType === "application/vnd.kubernetes.protobuf";
  if (isProtobuf !== (representation.format === "protobuf")) return false;
  const { listKind } = listed.shape;
  const as =
    listKind === "Table" || listKind === "PartialObjectMetadataList" ? listKind.replace(/List$/, "") : "object";
  return as === representation.as;
}
