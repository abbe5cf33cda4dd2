/**
 * When a copy may answer while the API server is there: only whom the API
 * server has said yes to just now (`callers/fresh-rights.ts`).
 *
 * A scope that is not live asks the API server itself, with this caller's
 * credential: that is the yes. A live one does not, nor does a wider one of the
 * same caller, nor one that another's watch could feed.
 */

import { askedNow } from "../base/asked.ts";
import { abortsAfter, type Clock } from "../base/clock.ts";
import type { Scopes } from "../cache/scopes.ts";
import { isShared } from "../cache/shareable.ts";
import type { FreshRights } from "../callers/fresh-rights.ts";
import type { Entered } from "../callers/gate.ts";
import { statusOfList, statusOfWatch } from "../callers/taken-back.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";
import type { Lessons } from "./lessons.ts";
import type { CopyServer } from "./serve.ts";

/** What is looked at. */
export interface FreshAnswerParts {
  readonly rights: FreshRights;
  readonly scopes: Scopes;
  readonly copies: Pick<CopyServer, "within">;
  readonly source: Pick<ScopeUpstream, "list" | "watch">;
  readonly lessons: Pick<Lessons, "refused">;
  readonly link: { isOnline(): boolean; readonly patienceMs: number };
  readonly clock: Clock;
}

/** Decides it, list by list and watch by watch. */
export class FreshAnswers {
  constructor(private readonly parts: FreshAnswerParts) {}

  /** Whether a list may come from a copy; otherwise the API server is to answer it. */
  async mayList(caller: Entered, identity: ScopeIdentity): Promise<boolean> {
    return !this.#isHeldTo(caller, identity) || this.parts.rights.mayUseCopy(caller, "list", identity);
  }

  /** Whether a watch may be joined; otherwise the API server is to answer it. */
  async mayWatch(caller: Entered, identity: ScopeIdentity): Promise<boolean> {
    if (!this.#isHeldTo(caller, identity)) return true;
    const { clock, link, rights, source } = this.parts;
    if (await rights.mayUseCopy(caller, "watch", identity)) return true;
    // A forwarded watch would end at the next cut: one that is given up as soon as it is answered tells as much, and lists nothing.
    const listed = this.#standing(identity);
    const asked = askedNow(clock);
    const deadline = abortsAfter(clock, link.patienceMs);
    const status =
      listed === undefined
        ? await statusOfList(source, identity, deadline)
        : await statusOfWatch(source, identity, listed, deadline);
    if (status === 200) rights.heard(caller, "watch", identity, asked);
    // Heard is heard: when the link is lost before the watch itself is refused, the copy must not answer in its place.
    if (status === 401 || status === 403 || status === 404)
      await this.parts.lessons.refused(status, caller, identity, asked);
    // Without an answer it is the link's matter, and the copy is what there is.
    return status === 200 || status === undefined;
  }

  /** Where a copy of the resource stands that this watch could be fed from. */
  #standing(identity: ScopeIdentity): ListedState | undefined {
    const { copies, scopes } = this.parts;
    const own = scopes.find(identity)?.listed ?? copies.within(identity)?.scope.listed;
    if (own !== undefined) return own;
    for (const { identity: other, listed, state } of scopes.all())
      if (other.resource === identity.resource && other.group === identity.group && state === "live") return listed;
    return undefined;
  }

  #isHeldTo(caller: Entered, identity: ScopeIdentity): boolean {
    const { copies, link, scopes } = this.parts;
    if (caller.isOwn || caller.isStranger || !link.isOnline()) return false;
    if (scopes.find(identity)?.state === "live" || copies.within(identity) !== undefined) return true;
    const { group, resource, principal } = identity;
    if (!isShared(identity)) return false;
    for (const { identity: other, state } of scopes.all())
      if (other.resource === resource && other.group === group && other.principal !== principal && state === "live")
        return true;
    return false;
  }
}
