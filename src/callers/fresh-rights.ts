/**
 * Whether a caller may be answered from a copy while the API server is there.
 *
 * A copy is kept up by a watch that the API server lets run for minutes after a
 * token has ended or a right was taken. So online a copy answers only who has
 * had a yes of the API server to the same thing, with the same credential,
 * within ten seconds: its own forwarded answer, or a review.
 *
 *   a yes within 10 s                  from the copy
 *   no review of this within a minute  one is asked (SelfSubjectAccessReview)
 *   otherwise                          the API server answers, which is a yes again
 *
 * So a caller that asks all the time costs one forwarded answer in ten seconds,
 * one that asks now and then a review of a few hundred bytes. Secrets are never
 * answered from a copy but to the node, nor is anybody else held to this: what
 * the node may not read it could not run.
 *
 * An open watch goes on as long as the API server's own would.
 */

import { type Asked, askedNow, LastRefusals } from "../base/asked.ts";
import type { Clock } from "../base/clock.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";
import type { Caller } from "./identify.ts";

/** What is asked for: a collection, as far as rights know it, or one object. */
export type Wanted = Pick<ScopeIdentity, "group" | "resource" | "namespace"> &
  Partial<Pick<ScopeIdentity, "version" | "fieldSelector" | "labelSelector">> & { readonly name?: string };

/** What rights are told by. */
export interface FreshRightParts {
  readonly clock: Clock;
  /** Asks the API server with this credential; undefined when it does not say. */
  readonly review: (
    credential: UpstreamCredential,
    verb: "list" | "watch",
    of: Pick<ScopeIdentity, "group" | "version" | "resource" | "namespace">,
  ) => Promise<boolean | undefined>;
}

/** So old a yes may be. */
const FRESH_MS = 10_000;
const REVIEW_EVERY_MS = 60_000;
const MAX_REMEMBERED = 4_096;

/** Remembers what the API server has just now said yes to. */
export class FreshRights {
  #yesMs = new Map<string, number>();
  #reviewedMs = new Map<string, number>();
  readonly #refused = new LastRefusals();

  constructor(private readonly parts: FreshRightParts) {}

  /** The API server has answered this caller. @param asked when it was asked: so old is its yes. */
  heard(caller: Caller, verb: "list" | "watch" | "get", wanted: Wanted, asked: Asked): void {
    if (this.#refused.outdate(caller.credential.id, asked)) return;
    const key = keyOf(caller, verb, wanted);
    remember(this.#yesMs, key, Math.max(asked.atMs, this.#yesMs.get(key) ?? asked.atMs));
  }

  /** The API server has refused this caller something: no yes from before counts. */
  refused({ credential }: Caller): void {
    this.#refused.note(credential.id);
    for (const key of this.#yesMs.keys()) if (key.startsWith(`${credential.id}\n`)) this.#yesMs.delete(key);
  }

  /** Whether a copy may answer now, without a question. */
  isFresh(caller: Caller, verb: "list" | "watch" | "get", wanted: Wanted): boolean {
    if (caller.isOwn) return true;
    if (isSecret(wanted)) return false;
    const { fieldSelector: _, labelSelector: __, ...whole } = wanted;
    const wider = verb === "get" ? [wanted] : [wanted, whole, { ...whole, namespace: "" }];
    return wider.some((one) => this.#isYes(keyOf(caller, verb, one)));
  }

  /** Whether a copy may answer, after one question at most. False where the API server is to answer itself. */
  async mayUseCopy(caller: Caller, verb: "list" | "watch", identity: ScopeIdentity): Promise<boolean> {
    if (this.isFresh(caller, verb, identity)) return true;
    if (isSecret(identity)) return false;
    const { clock, review } = this.parts;
    const { group, version, resource, namespace } = identity;
    const about = `${caller.credential.id}\n${verb} ${group}/${resource}`;
    const asked = askedNow(clock);
    if (asked.atMs - (this.#reviewedMs.get(about) ?? Number.NEGATIVE_INFINITY) < REVIEW_EVERY_MS) return false;
    remember(this.#reviewedMs, about, asked.atMs);
    if ((await review(caller.credential, verb, { group, version, resource, namespace })) !== true) return false;
    this.heard(caller, verb, { group, resource, namespace }, asked);
    return this.isFresh(caller, verb, identity);
  }

  #isYes(key: string): boolean {
    const atMs = this.#yesMs.get(key);
    return atMs !== undefined && this.parts.clock.monotonicMs() - atMs < FRESH_MS;
  }
}

function isSecret({ group, resource }: Wanted): boolean {
  return group === "" && resource === "secrets";
}

function remember(map: Map<string, number>, key: string, atMs: number): void {
  map.delete(key);
  if (map.size >= MAX_REMEMBERED) map.delete(map.keys().next().value!);
  map.set(key, atMs);
}

function keyOf({ credential }: Caller, verb: string, wanted: Wanted): string {
  const { group, resource, namespace, name = "", fieldSelector = "", labelSelector = "" } = wanted;
  return [credential.id, verb, `${group}/${resource}`, namespace, name, fieldSelector, labelSelector].join("\n");
}
