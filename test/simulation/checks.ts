/**
 * The promises, held against what the API server knows.
 *
 * P1  nothing invented: whatever a client reads was returned to its principal,
 *     belongs to what it asked for, and a list is the whole of one moment
 * P2  time runs one way: in one watch no object goes back, nothing comes below
 *     its start, and at every bookmark a client has seen all that happened
 * P3  old or new: the rows of a scope are those of its resourceVersion
 * P4  no gain offline: after an observed refusal nothing is read any more
 * P6  a cut is not an event: a watch ends for a reason, and no list goes
 *     upstream while the API server still knows the moment to resume from
 */

import { identityText, type ScopeIdentity, type Store } from "../../src/store/contract.ts";
import { keyOf, type ApiServer, type Version } from "./api-server.ts";
import type { VirtualClock } from "./clock.ts";
import type { ReadList, ReadObject } from "./node-process.ts";

/** A promise by its number in ARCHITECTURE.md, or that the simulation itself came to an end. */
export type Promised = "P1" | "P2" | "P3" | "P4" | "P6" | "answers";

/** What was broken. */
export interface Violation {
  readonly promise: Promised;
  readonly text: string;
}

/** What a client believes of a collection, by "namespace/name". */
export type Belief = Map<string, ReadObject>;

/** Holds observations against the truth; the first violation stands. */
export class Checks {
  violation: Violation | undefined;
  /** Collections whose last word from the API server was a refusal. */
  readonly #refused = new Map<string, { readonly identity: ScopeIdentity; readonly status: number }>();
  readonly #allowedAt = new Map<string, number>();
  readonly #refusals = new Map<string, number>();

  constructor(
    readonly server: ApiServer,
    readonly clock: VirtualClock,
  ) {}

  fail(promise: Promised, text: string): void {
    this.violation ??= { promise, text };
  }

  /**
   * A head reached Holdfast. A refusal may end watches at once, and must have
   * taken everything back when it has come whole, unless it was decided before
   * a permission that is known already.
   */
  head(identity: ScopeIdentity, status: number, decidedAt: number, isWhole: boolean): void {
    const id = identityText(identity);
    if (status === 200) {
      this.#refused.delete(id);
      this.#allowedAt.set(id, Math.max(decidedAt, this.#allowedAt.get(id) ?? -1));
    }
    if (status !== 401 && status !== 403) return;
    const about = status === 401 ? identity.principal : aboutOf(identity);
    this.#refusals.set(about, (this.#refusals.get(about) ?? 0) + 1);
    if (isWhole && decidedAt > (this.#allowedAt.get(id) ?? -1)) this.#refused.set(id, { identity, status });
  }

  /** The API server has answered something of this principal's with 401. */
  unauthorized(principal: string): void {
    this.#refusals.set(principal, (this.#refusals.get(principal) ?? 0) + 1);
  }

  /** The API server has answered this principal: a 401 of before is over. */
  accepted(principal: string): void {
    for (const [id, { identity, status }] of this.#refused)
      if (identity.principal === principal && status === 401) this.#refused.delete(id);
  }

  /** The API server has said that this principal may read this resource. */
  allowed(principal: string, resource: string): void {
    for (const [id, { identity }] of this.#refused)
      if (identity.principal === principal && identity.resource === resource) this.#refused.delete(id);
  }

  /** How often this principal was refused this resource. */
  refusalsOf(identity: ScopeIdentity): number {
    return (this.#refusals.get(aboutOf(identity)) ?? 0) + (this.#refusals.get(identity.principal) ?? 0);
  }

  /** A client was given something of this collection. */
  served(identity: ScopeIdentity, what: string): void {
    if (this.#refused.has(identityText(identity)))
      this.fail("P4", `${what} of ${nameOf(identity)} served after the API server refused it`);
  }

  /** A client was given a whole list. */
  listed(identity: ScopeIdentity, { revision, items }: ReadList, asked: string, what = "list"): void {
    this.served(identity, what);
    if (asked !== "" && revision < Number(asked))
      this.fail("P2", `${what} of ${nameOf(identity)} at ${revision}, asked for not older than ${asked}`);
    if (!this.isMoment(identity, revision))
      this.fail("P1", `${what} of ${nameOf(identity)} at ${revision}, which the API server never said`);
    for (const item of items) this.#returned(identity, item, what);
    this.complete("P1", identity, new Map(items.map((item) => [keyOf(item), item])), revision, what);
  }

  /** An object that a client was given, by a list, an event or a GET. */
  #returned(identity: ScopeIdentity, item: ReadObject, what: string): void {
    if (!this.wasGiven(identity.principal, item))
      this.fail("P1", `${what}: ${textOf(item)} was never returned to ${identity.principal}`);
    if (revisionOf(item) !== item.revision) this.fail("P1", `${what}: ${textOf(item)} has another's resourceVersion`);
  }

  /** Whether an event says what the client knows already, from elsewhere. */
  isRetold(_identity: ScopeIdentity, _type: string, _item: ReadObject, _known: ReadObject | undefined): boolean {
    return false;
  }

  /** Whether the API server said that this collection stood at this revision. */
  isMoment(identity: ScopeIdentity, revision: number): boolean {
    return this.server.wasMoment(identity, revision);
  }

  /** Whether the API server gave this version of an object to this principal. */
  wasGiven(principal: string, { uid, value }: ReadObject): boolean {
    return this.server.wasReturned(principal, uid, value);
  }

  /** A GET's object. */
  got(identity: ScopeIdentity, item: ReadObject): void {
    this.served(identity, "GET");
    this.#returned(identity, item, "GET");
  }

  /** What is believed must be the whole truth of one moment. */
  complete(promise: Promised, identity: ScopeIdentity, belief: Belief, revision: number, what: string): void {
    let difference: string | undefined;
    for (const truth of this.server.truths(identity, revision)) {
      const found = differenceOf(truth, belief);
      if (found === "") return;
      difference ??= found;
    }
    this.fail(promise, `${what} of ${nameOf(identity)} at ${revision}: ${difference ?? "no such moment"}`);
  }

  /** Whether what is believed was the whole truth at that revision. */
  isTruth(identity: ScopeIdentity, belief: Belief, revision: number): boolean {
    for (const truth of this.server.truths(identity, revision)) if (differenceOf(truth, belief) === "") return true;
    return false;
  }

  /** Every scope's rows are those of its resourceVersion. */
  rows(store: Store, when: string): void {
    for (const copy of store.copies()) {
      const { identity, listed } = copy;
      if (listed === undefined) continue;
      using snapshot = copy.snapshot();
      if (snapshot === undefined) continue;
      const belief: Belief = new Map();
      for (const { meta, bytes } of snapshot.items()) {
        const { value } = JSON.parse(Buffer.from(bytes).toString("utf8"));
        belief.set(keyOf(meta), { ...meta, revision: Number(meta.resourceVersion), value, body: "", note: "" });
      }
      this.complete("P3", identity, belief, Number(listed.resourceVersion), `rows ${when}`);
    }
  }

  /** A scope lists upstream while it holds this resourceVersion. */
  scopeLists(identity: ScopeIdentity, held: string | undefined): void {
    if (held === undefined || this.server.restores > 0 || Number(held) < this.server.windowFloor) return;
    this.fail(
      "P6",
      `${nameOf(identity)} listed anew at ${held}, though history goes back to ${this.server.windowFloor}`,
    );
  }

  /** Begins to check one watch. */
  watch(identity: ScopeIdentity, options: WatchCheckOptions): WatchCheck {
    return new WatchCheck(this, identity, options);
  }

  /** An event's object, against the selection and what was returned. */
  event(identity: ScopeIdentity, type: string, item: ReadObject): void {
    if (!this.wasGiven(identity.principal, item))
      return this.fail("P1", `${type} ${textOf(item)} was never returned to ${identity.principal}`);
    if (type === "DELETED") return;
    if (revisionOf(item) !== item.revision) this.fail("P1", `${type} ${textOf(item)} has another's resourceVersion`);
    for (const truth of this.server.truths(identity, item.revision))
      if (truth.get(keyOf(item))?.uid === item.uid) return;
    this.fail("P1", `${type} ${textOf(item)} does not belong to ${nameOf(identity)}`);
  }
}

/** How a watch was opened. */
export interface WatchCheckOptions {
  /** Undefined with initial events. */
  readonly startAt: number | undefined;
  readonly openedMs: number;
  readonly endsAtMs: number;
  /** It is the API server's own, and ends with the link. */
  readonly isForwarded: boolean;
  /** It began ahead of what Holdfast held then. */
  readonly isAhead: boolean;
  /** What the client believed when it resumed. */
  readonly belief: Belief;
  readonly isStopping: () => boolean;
}

/** Follows one watch from the client's side. */
export class WatchCheck {
  /** Whether the client did not read for a while; it may be ended for that. */
  wasStuck = false;
  #startAt: number | undefined;
  readonly #refusals: number;
  #isEnded = false;

  constructor(
    private readonly checks: Checks,
    private readonly identity: ScopeIdentity,
    private readonly options: WatchCheckOptions,
  ) {
    this.#startAt = options.startAt;
    this.#refusals = checks.refusalsOf(identity);
    checks.served(identity, "watch");
  }

  /** Open although the API server has refused the collection. */
  stillOpen(): void {
    // One of the API server's own is the API server's to end.
    if (!this.#isEnded && !this.options.isForwarded) this.checks.served(this.identity, "open watch");
  }

  /** Before the client takes an event in. */
  event(type: "ADDED" | "MODIFIED" | "DELETED", item: ReadObject): void {
    const { checks, identity, options } = this;
    checks.event(identity, type, item);
    if (this.#startAt === undefined) return;
    const what = `${type} ${textOf(item)} to a watch of ${nameOf(identity)} from ${this.#startAt}`;
    if (item.revision <= this.#startAt) return checks.fail("P2", `${what}: below its start`);
    const known = options.belief.get(keyOf(item));
    if (checks.isRetold(identity, type, item, known)) return;
    if (known !== undefined && known.uid === item.uid && item.revision <= known.revision)
      return checks.fail("P2", `${what}: it was at ${known.revision} already`);
    if (type === "MODIFIED" && known?.uid !== item.uid)
      return checks.fail("P2", `${what}: what was known of that name is ${textOf(known)}`);
    if (type === "ADDED" && known !== undefined)
      return checks.fail("P2", `${what}: there is ${textOf(known)} of that name`);
    if (type === "DELETED" && known?.uid !== item.uid)
      checks.fail("P2", `${what}: what was known of that name is ${textOf(known)}`);
  }

  /** The initial events are complete. */
  initial(list: ReadList, asked: string): void {
    this.#startAt = list.revision;
    this.checks.listed(this.identity, list, asked, "initial events");
  }

  /** The client has taken in everything up to here, or so it is told. */
  bookmark(revision: number): void {
    const what = `what a watch from ${this.#startAt} has told by its bookmark`;
    if (this.#startAt !== undefined && revision < this.#startAt)
      return this.checks.fail("P2", `bookmark at ${revision} to a watch from ${this.#startAt}`);
    if (!this.checks.isMoment(this.identity, revision))
      return this.checks.fail("P2", `bookmark at ${revision}, which the API server never said`);
    this.checks.complete("P2", this.identity, this.options.belief, revision, what);
  }

  /** Holdfast ends the watch; `code` is that of an ERROR event before the end. */
  ended(code: number | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    const { checks, identity, options } = this;
    const hasReason =
      options.isStopping() ||
      options.isForwarded ||
      // A refusal in the API server's form: an answer, an ERROR event, the end.
      (code === 410 && checks.clock.monotonicMs() === options.openedMs) ||
      this.wasStuck ||
      checks.clock.monotonicMs() >= options.endsAtMs ||
      checks.refusalsOf(identity) > this.#refusals ||
      ((code === 401 || code === 403) && this.#refusals > 0) ||
      checks.server.restores > 0 ||
      // The difference that a relist tells is not the one it needs.
      (code === 410 && options.isAhead) ||
      // What it was promised when it began is forgotten: the API server itself would have said so.
      (code === 410 && this.#startAt !== undefined && this.#startAt < checks.server.windowFloor);
    if (!hasReason)
      checks.fail(
        "P6",
        `a watch of ${nameOf(identity)} from ${this.#startAt} ended${code === undefined ? "" : ` with ${code}`}`,
      );
  }

  /** The client or the process is gone. */
  gone(): void {
    this.#isEnded = true;
  }
}

/** A collection as a reader of the report knows it. */
export function nameOf({ principal, resource, namespace, fieldSelector, labelSelector }: ScopeIdentity): string {
  const selectors = [fieldSelector, labelSelector].filter((text) => text !== "").join(",");
  return `${principal}'s ${namespace === "" ? "" : `${namespace}/`}${resource}${selectors === "" ? "" : `[${selectors}]`}`;
}

function aboutOf({ principal, resource }: ScopeIdentity): string {
  return `${principal}\n${resource}`;
}

function revisionOf({ value }: ReadObject): number {
  return Number(value.slice(value.indexOf(".") + 1));
}

function textOf(item: ReadObject | undefined): string {
  return item === undefined ? "nothing" : `${keyOf(item)} (${item.uid})@${item.revision}`;
}

/** "" if the belief is the truth. */
function differenceOf(truth: ReadonlyMap<string, Version>, belief: Belief): string {
  for (const [key, version] of truth) {
    const item = belief.get(key);
    if (item === undefined) return `${key}@${version.revision} is missing`;
    if (item.uid !== version.uid || item.value !== version.value || item.revision !== version.revision)
      return `${textOf(item)} is not ${version.uid}@${version.revision}`;
  }
  for (const [key, item] of belief) if (!truth.has(key)) return `${textOf(item)} is not there`;
  return "";
}
