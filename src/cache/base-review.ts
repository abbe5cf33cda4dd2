/**
 * When a scope is moved to a base, and when a base is opened for several.
 *
 *   a base is there, and vouches for where the scope stands    the scope is moved
 *   two broad watches side by side for a minute                the whole is followed, once
 *   many narrow watches of one collection by one caller        that collection is followed, once
 *
 * Looked at two seconds after a watch went to the API server, and again while
 * something could soon be shared. What fails is not tried again for a while.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Permissions } from "../callers/permissions.ts";
import { identityText, type ScopeIdentity } from "../store/contract.ts";
import type { LinkView } from "../uplink/scope-source.ts";
import { MANY, type Bases, type Feeding } from "./bases.ts";
import { CopyAnswer } from "./copy-answer.ts";
import type { Scope } from "./scope.ts";
import type { Scopes } from "./scopes.ts";
import { firstForm, isShared, isWholeOnly, mayBeWidened, partOfBase } from "./shareable.ts";

/** A scope's own new watch is looked at after this long, and while it could soon be moved. */
const REVIEW_MS = 2_000;
const REVIEW_AGAIN_MS = 15_000;
/** A move that failed is not tried again before. */
const MOVE_AGAIN_MS = 300_000;
/** Two scopes side by side for this long have come to stay: a base for both will pay. */
const OPEN_AFTER_MS = 60_000;
/** A base that could not be opened is not tried again before. */
const OPEN_AGAIN_MS = 3_600_000;
/** So many failures are remembered; beyond that some may be tried again early. */
const MAX_FAILURES = 1_024;

/** What the review needs. */
export interface ReviewParts {
  readonly bases: Bases;
  readonly permissions: Permissions;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
}

/** Scopes that one base could stand for. */
interface Group {
  readonly scopes: Scope[];
  readonly isForMany: boolean;
}

/** Looks at what goes to the API server, and finds what could be shared. */
export class BaseReview {
  readonly #openNotBeforeMs = new Map<string, number>();
  #scopes: Scopes | undefined;
  #cancel: (() => void) | undefined;

  constructor(private readonly parts: ReviewParts) {}

  /** Opens bases among these scopes. */
  serve(scopes: Scopes): void {
    this.#scopes = scopes;
  }

  /** Looks no more. */
  close(): void {
    this.#cancel?.();
    this.#scopes = undefined;
  }

  /** A scope has just begun a watch of its own. */
  schedule(delayMs = REVIEW_MS): void {
    if (this.#cancel !== undefined || this.#scopes === undefined) return;
    this.#cancel = this.parts.clock.after(delayMs, () => {
      this.#cancel = undefined;
      // At the return every watch begins anew, and asks for this again.
      if (this.parts.link.isOnline() && this.#review()) this.schedule(REVIEW_AGAIN_MS);
    });
  }

  /** Looks at every watch that goes to the API server. @returns whether one of them may be shared soon. */
  #review(): boolean {
    const { bases } = this.parts;
    let isPending = false;
    const groups = new Map<string, Group>();
    for (const scope of bases.all()) {
      const feeding = bases.of(scope);
      if (feeding?.endOwn === undefined) continue;
      const base = bases.baseFor(scope);
      if (base !== undefined) isPending = this.#considerMove(scope, feeding, base) || isPending;
      else for (const [key, isForMany] of groupsOf(scope.identity, feeding)) add(groups, key, isForMany, scope);
    }
    for (const [key, group] of groups) isPending = this.#considerOpening(key, group) || isPending;
    return isPending;
  }

  #considerMove(scope: Scope, feeding: Feeding, base: Scope): boolean {
    const { clock, permissions } = this.parts;
    const { principal } = scope.identity;
    const nowMs = clock.monotonicMs();
    if (permissions.known(principal, "watch", scope.identity) === "denied") return false;
    if (nowMs < feeding.moveAfterMs) return false;
    const part = partOfBase(scope, base);
    const at = scope.listed?.resourceVersion ?? "";
    // Asked at each look: from the first one on the base keeps what is needed to tell.
    const tells = part !== undefined && new CopyAnswer(base, scope.identity, part).canTellFrom(at);
    if (!tells || base.state !== "live") return true;
    feeding.moveAfterMs = nowMs + MOVE_AGAIN_MS;
    base.use();
    void permissions
      .prove(principal, "watch", scope.identity)
      .then((permission) => permission === "proven" && feeding.endOwn?.());
    return true;
  }

  /** @returns whether it may come to that soon. */
  #considerOpening(key: string, { isForMany, scopes }: Group): boolean {
    if (scopes.length < (isForMany ? MANY : 2)) return false;
    const { bases, clock } = this.parts;
    const nowMs = clock.monotonicMs();
    if (nowMs < (this.#openNotBeforeMs.get(key) ?? 0)) return false;
    const haveComeToStay = scopes.every((scope) => nowMs - bases.of(scope)!.ownSinceMs >= OPEN_AFTER_MS);
    if (!isForMany && !haveComeToStay) return true;
    if (this.#openNotBeforeMs.size >= MAX_FAILURES) this.#openNotBeforeMs.clear();
    this.#openNotBeforeMs.set(key, nowMs + OPEN_AGAIN_MS);
    void this.#open(scopes, isForMany).then(() => {
      this.#cancel?.();
      this.#cancel = undefined;
      this.schedule();
    });
    return true;
  }

  /** Follows the whole collection for the first of these callers that may. */
  async #open(scopes: readonly Scope[], isForMany: boolean): Promise<void> {
    const { log } = this.parts;
    for (const { identity } of isForMany ? scopes.slice(0, 1) : scopes) {
      if (!(await this.#mayFollow(identity))) continue;
      const whole = { ...identity, fieldSelector: "", labelSelector: "" };
      const base = this.#scopes?.open(whole);
      if (base === undefined) return;
      const { resource } = identity;
      try {
        const found = this.parts.bases.find(whole);
        if (found !== undefined && isForMany) found.feeding.isForMany = true;
        await base.ensureFresh();
        if (found !== undefined) found.feeding.isRetired = false;
        log.info("several watches will share one", { resource, scopes: scopes.length });
        return;
      } catch (error) {
        log.info("watches cannot be shared", { resource, reason: String(error) });
        if (base.listed === undefined)
          this.#scopes?.forget(whole.principal, (other) => identityText(other) === identityText(whole));
      }
    }
  }

  async #mayFollow(identity: ScopeIdentity): Promise<boolean> {
    const { permissions } = this.parts;
    const verdicts = await Promise.all([
      permissions.prove(identity.principal, "list", identity),
      permissions.prove(identity.principal, "watch", identity),
    ]);
    return verdicts.every((permission) => permission === "proven");
  }
}

/** Which bases would stand for it, and whether they would be for many of its caller alone. */
function* groupsOf(identity: ScopeIdentity, { selection }: Feeding): Generator<readonly [string, boolean]> {
  const { group, labelSelector, fieldSelector, namespace, principal, resource, version } = identity;
  const kind = `${group}/${version}/${resource} ${firstForm(identity)?.format ?? ""}`;
  if (isShared(identity) && !isWholeOnly(identity) && selection.isBroad && !selection.isAll) yield [kind, false];
  // Kubelet follows its pods' objects by name, and is meant to see no others.
  const isByName = principal.startsWith("certificate:") && fieldSelector.startsWith("metadata.name=");
  const isSelected = (labelSelector !== "" || fieldSelector !== "") && !isByName;
  if (isSelected && mayBeWidened(identity)) yield [`${kind} ${namespace} ${principal}`, true];
}

function add(groups: Map<string, Group>, key: string, isForMany: boolean, scope: Scope): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, { scopes: [scope], isForMany });
  else group.scopes.push(scope);
}
