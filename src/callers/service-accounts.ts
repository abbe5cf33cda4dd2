/**
 * Who the bearer of a service account's token is: the account, whichever of its tokens is shown.
 *
 * Kubelet renews a pod's token every 48 minutes, a CNI plugin its own twice a
 * day. Were each a principal of its own, every renewal would cost a list of
 * everything the pod follows, and after a reboot while cut the pod would stand
 * before an empty cache with a token that has never read anything. So a token
 * that is signed with the cluster's keys speaks for its service account (name
 * and UID).
 *
 * A signature does not show that the token still counts: it dies with its pod.
 *
 *   online    the API server is asked once for each token (SelfSubjectReview),
 *             again after an hour, and at once when the pod is gone from the node
 *   offline   a pod's token: its pod is on this node's own list, and its audience
 *             one that the API server has accepted. An unbound one: the API
 *             server has accepted an unbound one of this account
 *   offline and ended: a listed pod's (its kubelet cannot renew it either), and
 *             those of accounts that the configuration names; nobody else's
 *   offline and refused (401) by the API server's last word: nobody's
 *
 * What cannot be decided so stays what every other token is: a principal of
 * its own. A token that the API server has not accepted leaves nothing here.
 */

import { betweenNow } from "../base/asked.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { StatusError } from "../kube/status-error.ts";
import type { Store } from "../store/contract.ts";
import { ClusterKeys, type Ask } from "./cluster-keys.ts";
import { accountOfReview, SELF_SUBJECT_REVIEW } from "./own-user.ts";
import type { RefusedTokens } from "./refused-tokens.ts";
import { accountClaims, expiryMs, type AccountClaims } from "./token-claims.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";

/** What service accounts are told by. */
export interface ServiceAccountParts {
  readonly ask: Ask;
  readonly isOnline: () => boolean;
  /** How long a caller whose answer is at hand waits for the API server. */
  readonly patienceMs: () => number;
  /** UIDs of this node's pods, as far as they were ever listed; undefined when they never were. */
  readonly ownPods: () => ReadonlySet<string> | undefined;
  readonly refusedTokens: Pick<RefusedTokens, "has" | "add" | "delete">;
  /** User names whose ended tokens are served while cut. */
  readonly expiredTokensFor: readonly string[];
  readonly store: Pick<Store, "getValue" | "putValue">;
  readonly clock: Clock;
  readonly log: Log;
}

/** A token that speaks for its service account. */
interface Bearer {
  readonly credential: UpstreamCredential;
  readonly claims: AccountClaims;
  /** By the monotonic clock; undefined until the API server has accepted it. */
  provenAtMs: number | undefined;
  /** When it was last looked at. */
  checkedAtMs: number;
  /** Whether the API server could be asked then. */
  wasOnline: boolean;
  wasListed: boolean;
}

const AUDIENCES_VALUE = "service-accounts/audiences";
const UNBOUND_VALUE = "service-accounts/unbound";
const DEADLINE_MS = 2_000;
const CHECK_MS = 10_000;
const PROOF_LISTED_MS = 3_600_000;
const PROOF_UNLISTED_MS = 600_000;
/** An account whose token reads no keys: others' may. */
const KEYS_RETRY_MS = 30_000;
const MAX_BEARERS = 1_024;
const MAX_UNBOUND = 512;

/** Tells service accounts by their tokens. */
export class ServiceAccounts {
  #bearers = new Map<string, Bearer>();
  /** Credentials, by id, that are principals of their own though they look like a service account's, and until when. */
  #others = new Map<string, number>();
  #settling = new Map<string, Promise<void>>();
  readonly #keys: ClusterKeys;
  #audiences: Set<string> | undefined;
  #unbound: Set<string> | undefined;

  constructor(private readonly parts: ServiceAccountParts) {
    this.#keys = new ClusterKeys(parts);
  }

  /** The service account's principal ("serviceaccount:NAMESPACE:NAME:UID") of a settled token; undefined for a principal of its own. */
  principalOf(token: string): string | undefined {
    return this.#bearers.get(token)?.claims.principal;
  }

  /** Whether `settle` has nothing to do for this token now. */
  isSettled(token: string, credential: UpstreamCredential): boolean {
    const bearer = this.#bearers.get(token);
    // What counts is another at the cut and at the return.
    if (bearer !== undefined)
      return (
        bearer.wasOnline === this.parts.isOnline() &&
        this.parts.clock.monotonicMs() - bearer.checkedAtMs < CHECK_MS &&
        (bearer.wasOnline || this.#isInTime(token, bearer.claims, bearer.wasListed))
      );
    return this.parts.isOnline() && (this.#isKnownOther(credential) || accountClaims(token) === undefined);
  }

  /**
   * Decides whom a token speaks for, or that it still does.
   *
   * @throws {StatusError} 401 when the API server does not accept it, or when it has ended and nobody can be asked.
   */
  settle(token: string, credential: UpstreamCredential): Promise<void> {
    const running = this.#settling.get(token);
    if (running !== undefined) return running;
    const settling = this.#settle(token, credential).finally(() => this.#settling.delete(token));
    this.#settling.set(token, settling);
    return settling;
  }

  /**
   * The API server refused a token.
   *
   * @param credential the refused one.
   * @returns whether another token speaks for the same service account, which keeps what it has.
   */
  refused(credential: UpstreamCredential): boolean {
    const found = [...this.#bearers].find(([, bearer]) => bearer.credential.id === credential.id);
    if (found === undefined) return false;
    const [token, { claims }] = found;
    this.#bearers.delete(token);
    return [...this.#bearers.values()].some(
      (other) => other.claims.principal === claims.principal && other.provenAtMs !== undefined,
    );
  }

  /** A stranger's token was refused: remembered if it is one that a signature would let in while cut. */
  async strangerRefused({ id, authorization = "" }: UpstreamCredential): Promise<void> {
    const token = authorization.slice("Bearer ".length);
    if (accountClaims(token) !== undefined && (await this.#keys.verify(token)) === "signed")
      this.parts.refusedTokens.add(id);
  }

  async #settle(token: string, credential: UpstreamCredential): Promise<void> {
    const known = this.#bearers.get(token);
    const claims = known?.claims ?? accountClaims(token);
    const isOnline = this.parts.isOnline();
    if (claims === undefined) {
      if (!isOnline && hasEnded(token, this.parts.clock)) throw unauthorized();
      return;
    }
    const isListed = claims.podUid !== undefined && this.parts.ownPods()?.has(claims.podUid) === true;
    if (!isOnline && !this.#isInTime(token, claims, isListed)) throw unauthorized();
    const bearer: Bearer = known ?? {
      credential,
      claims,
      provenAtMs: undefined,
      checkedAtMs: 0,
      wasOnline: false,
      wasListed: false,
    };
    const signature = known === undefined ? await this.#keys.verify(token) : "signed";
    if (signature === "foreign") return this.#isOther(token, credential);
    const isVouchedFor =
      signature === "signed" && this.#isVouchedFor(claims, isListed) && !this.parts.refusedTokens.has(credential.id);
    const hasVanished = bearer.wasListed && !isListed;
    // Its pod was seen to go before the cut: the API server would not take it any more.
    if (!isOnline && hasVanished) return void this.#bearers.delete(token);
    if (isOnline && (hasVanished || !isProven(bearer, isListed, this.parts.clock.monotonicMs()))) {
      const outcome = await this.#prove(token, bearer, isVouchedFor ? this.parts.patienceMs() : DEADLINE_MS);
      if (outcome === "other") return this.#isOther(token, credential);
      // Without the keys nothing could be told of it while cut.
      if (outcome === "proven" && signature === "unknown" && !(await this.#isSigned(token, bearer)))
        return this.#isOther(token, credential, KEYS_RETRY_MS);
      if (outcome === "proven") this.#accepted(bearer);
    }
    // Without a proof of this process the node's own list must vouch for the pod, and a former proof for the audience.
    if (bearer.provenAtMs === undefined && !isVouchedFor) return;
    bearer.wasListed = isListed;
    bearer.wasOnline = isOnline;
    bearer.checkedAtMs = this.parts.clock.monotonicMs();
    if (known !== undefined) return;
    if (this.#bearers.size >= MAX_BEARERS) this.#bearers.delete(this.#bearers.keys().next().value!);
    this.#bearers.set(token, bearer);
  }

  /** Signed with the cluster's keys as they are now, read with the accepted token itself. */
  async #isSigned(token: string, { claims, credential }: Bearer): Promise<boolean> {
    return (await this.#keys.read(claims.principal, credential)) && (await this.#keys.verify(token)) === "signed";
  }

  #isVouchedFor({ podUid, principal, audiences }: AccountClaims, isListed: boolean): boolean {
    if (podUid === undefined) return this.#set("unbound").has(principal);
    return isListed && audiences.some((audience) => this.#set("audiences").has(audience));
  }

  /** Whether it counts while nobody can be asked, by its own word and the API server's last. */
  #isInTime(token: string, { podUid, userName }: AccountClaims, isListed: boolean): boolean {
    if (!hasEnded(token, this.parts.clock)) return true;
    return (podUid !== undefined && isListed) || this.parts.expiredTokensFor.includes(userName);
  }

  #isOther(token: string, { id }: UpstreamCredential, forMs = Number.POSITIVE_INFINITY): void {
    this.#others.delete(id);
    if (this.#others.size >= MAX_BEARERS) this.#others.delete(this.#others.keys().next().value!);
    this.#others.set(id, this.parts.clock.monotonicMs() + forMs);
    this.#bearers.delete(token);
  }

  #isKnownOther({ id }: UpstreamCredential): boolean {
    return (this.#others.get(id) ?? Number.NEGATIVE_INFINITY) > this.parts.clock.monotonicMs();
  }

  /** @throws {StatusError} 401 */
  async #prove(
    token: string,
    { credential, claims }: Bearer,
    deadlineMs: number,
  ): Promise<"proven" | "unknown" | "other"> {
    const asked = betweenNow();
    let answer: Awaited<ReturnType<Ask>>;
    try {
      answer = await this.parts.ask(
        {
          method: "POST",
          target: "/apis/authentication.k8s.io/v1/selfsubjectreviews",
          accept: "application/json",
          body: SELF_SUBJECT_REVIEW,
        },
        credential,
        deadlineMs,
      );
    } catch {
      return "unknown";
    }
    if (answer.status === 401) {
      this.#bearers.delete(token);
      await this.strangerRefused(credential);
      throw unauthorized();
    }
    if (answer.status >= 500 || answer.status === 429) return "unknown";
    const user = answer.status < 300 ? accountOfReview(answer.body) : undefined;
    // Not allowed to ask, or older than the question, or somebody else's issuer: then each token counts alone.
    if (user?.username !== claims.userName || (user.uid ?? claims.uid) !== claims.uid) return "other";
    return this.parts.refusedTokens.delete(credential.id, asked) ? "proven" : "unknown";
  }

  /** The API server took it: for a pod's its audience counts from now on, for an unbound one its account. */
  #accepted(bearer: Bearer): void {
    const { claims } = bearer;
    bearer.provenAtMs = this.parts.clock.monotonicMs();
    const [audience] = claims.audiences;
    if (claims.podUid === undefined) this.#add("unbound", claims.principal);
    // Of a token with several audiences nobody knows which one was accepted.
    else if (claims.audiences.length === 1 && audience !== undefined) this.#add("audiences", audience);
  }

  #set(what: "audiences" | "unbound"): Set<string> {
    const known = what === "audiences" ? this.#audiences : this.#unbound;
    if (known !== undefined) return known;
    const stored = this.parts.store.getValue(what === "audiences" ? AUDIENCES_VALUE : UNBOUND_VALUE);
    const read = new Set(stored === undefined ? [] : Buffer.from(stored).toString("utf8").split("\n"));
    if (what === "audiences") this.#audiences = read;
    else this.#unbound = read;
    return read;
  }

  #add(what: "audiences" | "unbound", value: string): void {
    const set = this.#set(what);
    if (set.has(value)) return;
    if (set.size >= MAX_UNBOUND) set.delete(set.values().next().value!);
    set.add(value);
    this.parts.store.putValue(what === "audiences" ? AUDIENCES_VALUE : UNBOUND_VALUE, Buffer.from([...set].join("\n")));
  }
}

function isProven({ provenAtMs }: Bearer, isListed: boolean, nowMs: number): boolean {
  return provenAtMs !== undefined && nowMs - provenAtMs < (isListed ? PROOF_LISTED_MS : PROOF_UNLISTED_MS);
}

/** By its own word; a clock that stands before everything ends nothing. */
function hasEnded(token: string, clock: Pick<Clock, "nowMs">): boolean {
  return (expiryMs(token) ?? Number.POSITIVE_INFINITY) <= clock.nowMs();
}

function unauthorized(): StatusError {
  return new StatusError({ code: 401, reason: "Unauthorized", message: "Unauthorized" });
}
