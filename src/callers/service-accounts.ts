/**
 * Who the bearer of a pod's token is: the service account, whichever of its tokens is shown.
 *
 * Kubelet renews a pod's token every 48 minutes. Were each a principal of its
 * own, every renewal would cost a list of everything the pod follows, and after
 * a reboot while cut the pod would stand before an empty cache with a token
 * that has never read anything. So a token bound to a pod, and signed with the
 * cluster's keys, speaks for its service account (name and UID).
 *
 * A signature does not show that the token still counts: it dies with its pod.
 * Online the API server is therefore asked once for each token
 * (SelfSubjectReview), again after an hour, and at once when the pod is gone
 * from the node. Offline the pod must be on this node's own list, and the
 * audience one that the API server has accepted before. What cannot be decided
 * so stays what every other token is: a principal of its own.
 *
 * The cluster's keys are read with a pod's own token (`system:service-account-issuer-discovery`
 * lets every service account), and kept for the time when they cannot be.
 */

import type { createLocalJWKSet, JSONWebKeySet } from "jose";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { StatusError } from "../kube/status-error.ts";
import type { Store } from "../store/contract.ts";
import { SELF_SUBJECT_REVIEW, userOfReview } from "./own-user.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";

/** Asks the API server with one credential. @throws when there is no answer in time. */
export type Ask = (
  request: { readonly method: string; readonly target: string; readonly accept: string; readonly body?: string },
  credential: UpstreamCredential,
  deadlineMs: number,
) => Promise<{ readonly status: number; readonly body: string }>;

/** What service accounts are told by. */
export interface ServiceAccountParts {
  readonly ask: Ask;
  readonly isOnline: () => boolean;
  /** How long a caller whose answer is at hand waits for the API server. */
  readonly patienceMs: () => number;
  /** UIDs of this node's pods, as far as they were ever listed; undefined when they never were. */
  readonly ownPods: () => ReadonlySet<string> | undefined;
  readonly store: Pick<Store, "getValue" | "putValue">;
  readonly clock: Clock;
  readonly log: Log;
}

/** A token that speaks for its service account. */
interface Bearer {
  readonly credential: UpstreamCredential;
  readonly claims: PodClaims;
  readonly principal: string;
  /** By the monotonic clock; undefined until the API server has accepted it. */
  provenAtMs: number | undefined;
  /** When it was last looked at. */
  checkedAtMs: number;
  /** Whether the API server could be asked then. */
  wasOnline: boolean;
  wasListed: boolean;
}

const claimsSchema = v.object({
  sub: v.string(),
  aud: v.union([v.string(), v.array(v.string())]),
  "kubernetes.io": v.object({
    namespace: v.string(),
    serviceaccount: v.object({ name: v.string(), uid: v.string() }),
    pod: v.object({ uid: v.string() }),
  }),
});

/** What a pod's token says. */
interface PodClaims {
  readonly userName: string;
  readonly principal: string;
  readonly audiences: readonly string[];
  readonly podUid: string;
}

const keySetSchema = v.object({ keys: v.array(v.looseObject({ kty: v.string() })) });

const KEYS_VALUE = "service-accounts/keys";
const AUDIENCES_VALUE = "service-accounts/audiences";
/** Public keys only: a shared secret in the set could sign. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];
const DEADLINE_MS = 2_000;
const CHECK_MS = 10_000;
const PROOF_LISTED_MS = 3_600_000;
const PROOF_UNLISTED_MS = 600_000;
const KEYS_RETRY_MS = 30_000;
/** After a plain no, such as 403 where service accounts may not read the keys. */
const KEYS_REFUSED_MS = 600_000;
const MAX_BEARERS = 4_096;
const MAX_TOKEN_LENGTH = 16_384;

/** Tells service accounts by their pods' tokens. */
export class ServiceAccounts {
  #bearers = new Map<string, Bearer>();
  /** Tokens that are principals of their own, for good. */
  #others = new Set<string>();
  #settling = new Map<string, Promise<void>>();
  #keySet: ReturnType<typeof createLocalJWKSet> | undefined;
  /** By the monotonic clock. */
  #keysNotBeforeMs = 0;
  #audiences: Set<string> | undefined;

  constructor(private readonly parts: ServiceAccountParts) {}

  /** The service account's principal ("serviceaccount:NAMESPACE:NAME:UID") of a settled token; undefined for a principal of its own. */
  principalOf(token: string): string | undefined {
    return this.#bearers.get(token)?.principal;
  }

  /** Whether `settle` has nothing to do for this token now. */
  isSettled(token: string): boolean {
    if (this.#others.has(token)) return true;
    const bearer = this.#bearers.get(token);
    // What counts is another at the cut and at the return.
    if (bearer === undefined || bearer.wasOnline !== this.parts.isOnline()) return false;
    return this.parts.clock.monotonicMs() - bearer.checkedAtMs < CHECK_MS;
  }

  /**
   * Decides whom a token speaks for, or that it still does.
   *
   * @throws {StatusError} 401 when the API server does not accept it.
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
   * @param credentialId as in its `UpstreamCredential`.
   * @returns whether another token speaks for the same service account, which keeps what it has.
   */
  refused(credentialId: string): boolean {
    const found = [...this.#bearers].find(([, { credential }]) => credential.id === credentialId);
    if (found === undefined) return false;
    const [token, { principal }] = found;
    this.#bearers.delete(token);
    return [...this.#bearers.values()].some((other) => other.principal === principal && other.provenAtMs !== undefined);
  }

  async #settle(token: string, credential: UpstreamCredential): Promise<void> {
    const known = this.#bearers.get(token);
    const claims = known?.claims ?? claimsOf(token);
    if (claims === undefined) return this.#isOther(token);
    if (known === undefined) {
      const verdict = await this.#verify(token, credential);
      if (verdict === "foreign") return this.#isOther(token);
      if (verdict === "unknown") return;
    }
    const isListed = this.parts.ownPods()?.has(claims.podUid);
    const nowMs = this.parts.clock.monotonicMs();
    const bearer: Bearer = known ?? {
      credential,
      claims,
      principal: claims.principal,
      provenAtMs: undefined,
      checkedAtMs: nowMs,
      wasOnline: false,
      wasListed: false,
    };
    const isVouchedFor = isListed === true && claims.audiences.some((audience) => this.#accepted().has(audience));
    const hasVanished = bearer.wasListed && isListed !== true;
    const isOnline = this.parts.isOnline();
    // Its pod was seen to go before the cut: the API server would not take it any more.
    if (!isOnline && hasVanished) return void this.#bearers.delete(token);
    if (isOnline && (hasVanished || !isProven(bearer, isListed === true, nowMs))) {
      const outcome = await this.#prove(token, bearer, isVouchedFor ? this.parts.patienceMs() : DEADLINE_MS);
      if (outcome === "other") return this.#isOther(token);
      if (outcome === "proven") bearer.provenAtMs = this.parts.clock.monotonicMs();
    }
    // Without a proof of this process the node's own list must vouch for the pod, and a former proof for the audience.
    if (bearer.provenAtMs === undefined && !isVouchedFor) return;
    bearer.wasListed = isListed === true;
    bearer.wasOnline = isOnline;
    bearer.checkedAtMs = nowMs;
    if (known !== undefined) return;
    if (this.#bearers.size >= MAX_BEARERS) this.#bearers.delete(this.#bearers.keys().next().value!);
    this.#bearers.set(token, bearer);
  }

  #isOther(token: string): void {
    if (this.#others.size >= MAX_BEARERS) this.#others.clear();
    this.#others.add(token);
    this.#bearers.delete(token);
  }

  /** "foreign": not signed with the cluster's keys; "unknown": those are not at hand. */
  async #verify(token: string, credential: UpstreamCredential): Promise<"signed" | "foreign" | "unknown"> {
    const jose = await import("jose");
    if (this.#keySet === undefined) this.#takeKeys(this.#storedKeys(), jose);
    for (let attempt = 0; attempt < 2; attempt++) {
      if (this.#keySet !== undefined) {
        try {
          await jose.compactVerify(token, this.#keySet, { algorithms: ALGORITHMS });
          return "signed";
        } catch (error) {
          // An unknown key may be a new one of the cluster's.
          if (!(error instanceof jose.errors.JWKSNoMatchingKey)) return "foreign";
        }
      }
      if (attempt === 0 && !(await this.#fetchKeys(credential, jose)))
        return this.#keySet !== undefined && this.parts.isOnline() ? "foreign" : "unknown";
    }
    return "foreign";
  }

  /** @returns whether there are keys that were not there before. */
  async #fetchKeys(credential: UpstreamCredential, jose: typeof import("jose")): Promise<boolean> {
    const nowMs = this.parts.clock.monotonicMs();
    if (!this.parts.isOnline() || nowMs < this.#keysNotBeforeMs) return false;
    this.#keysNotBeforeMs = nowMs + KEYS_RETRY_MS;
    try {
      const { status, body } = await this.parts.ask(
        { method: "GET", target: "/openid/v1/jwks", accept: "application/jwk-set+json" },
        credential,
        DEADLINE_MS,
      );
      if (status >= 400 && status < 500) this.#keysNotBeforeMs = nowMs + KEYS_REFUSED_MS;
      if (status !== 200 || !this.#takeKeys(body, jose)) return false;
      if (this.#storedKeys() !== body) this.parts.store.putValue(KEYS_VALUE, Buffer.from(body));
      return true;
    } catch {
      return false;
    }
  }

  #takeKeys(body: string | undefined, jose: typeof import("jose")): boolean {
    if (body === undefined) return false;
    try {
      const keys = v.parse(keySetSchema, JSON.parse(body)).keys.filter(({ kty }) => kty === "RSA" || kty === "EC");
      this.#keySet = jose.createLocalJWKSet({ keys } as JSONWebKeySet);
      return true;
    } catch {
      this.parts.log.warn("the cluster's keys for service accounts cannot be read: pods' tokens count one by one");
      return false;
    }
  }

  #storedKeys(): string | undefined {
    const stored = this.parts.store.getValue(KEYS_VALUE);
    return stored === undefined ? undefined : Buffer.from(stored).toString("utf8");
  }

  /** @throws {StatusError} 401 */
  async #prove(
    token: string,
    { credential, claims }: Bearer,
    deadlineMs: number,
  ): Promise<"proven" | "unknown" | "other"> {
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
      throw new StatusError({ code: 401, reason: "Unauthorized", message: "Unauthorized" });
    }
    if (answer.status >= 500 || answer.status === 429) return "unknown";
    // Not allowed to ask, or older than the question: then each token counts alone.
    if (answer.status >= 300 || userOfReview(answer.body) !== claims.userName) return "other";
    this.#accept(claims.audiences);
    return "proven";
  }

  #accepted(): Set<string> {
    if (this.#audiences !== undefined) return this.#audiences;
    const stored = this.parts.store.getValue(AUDIENCES_VALUE);
    this.#audiences = new Set(stored === undefined ? [] : Buffer.from(stored).toString("utf8").split("\n"));
    return this.#audiences;
  }

  #accept(audiences: readonly string[]): void {
    // Of a token with several audiences nobody knows which one was accepted.
    const [audience] = audiences;
    if (audiences.length !== 1 || audience === undefined || this.#accepted().has(audience)) return;
    this.#accepted().add(audience);
    this.parts.store.putValue(AUDIENCES_VALUE, Buffer.from([...this.#accepted()].join("\n")));
  }
}

function isProven({ provenAtMs }: Bearer, isListed: boolean, nowMs: number): boolean {
  return provenAtMs !== undefined && nowMs - provenAtMs < (isListed ? PROOF_LISTED_MS : PROOF_UNLISTED_MS);
}

/** The claims of a pod's token, unverified; undefined for any other. */
function claimsOf(token: string): PodClaims | undefined {
  const parts = token.split(".");
  if (parts.length !== 3 || token.length > MAX_TOKEN_LENGTH) return undefined;
  let payload: unknown;
  try {
    payload = JSON.parse(Buffer.from(parts[1]!, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  const read = v.safeParse(claimsSchema, payload);
  if (!read.success) return undefined;
  const { sub, aud, "kubernetes.io": bound } = read.output;
  const { name, uid } = bound.serviceaccount;
  if (sub !== `system:serviceaccount:${bound.namespace}:${name}`) return undefined;
  return {
    userName: sub,
    principal: `serviceaccount:${bound.namespace}:${name}:${uid}`,
    audiences: typeof aud === "string" ? [aud] : aud,
    podUid: bound.pod.uid,
  };
}
