/**
 * The cluster's keys for service accounts' tokens, and what they signed.
 *
 * They are read with the token of a caller whom the API server has just
 * accepted, and kept for the time when they cannot be: a forged token never
 * makes anybody ask, and none that may not read them
 * (`system:service-account-issuer-discovery` lets every service account) keeps
 * another's from being tried.
 */

import type { createLocalJWKSet, JSONWebKeySet } from "jose";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Store } from "../store/contract.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";

/** Asks the API server with one credential. @throws when there is no answer in time. */
export type Ask = (
  request: { readonly method: string; readonly target: string; readonly accept: string; readonly body?: string },
  credential: UpstreamCredential,
  deadlineMs: number,
) => Promise<{ readonly status: number; readonly body: string }>;

/** What keys are read with. */
export interface ClusterKeyParts {
  readonly ask: Ask;
  readonly store: Pick<Store, "getValue" | "putValue">;
  readonly clock: Clock;
  readonly log: Log;
}

const keySetSchema = v.object({ keys: v.array(v.looseObject({ kty: v.string() })) });
const KEYS_VALUE = "service-accounts/keys";
/** Public keys only: a shared secret in the set could sign. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];
const DEADLINE_MS = 2_000;
/** One account is asked with this often after it got nothing new; after a plain no, such as 403, less. */
const RETRY_MS = 30_000;
const REFUSED_MS = 600_000;
const MAX_WAITING = 256;

/** The keys. */
export class ClusterKeys {
  #keySet: ReturnType<typeof createLocalJWKSet> | undefined;
  #isLoaded = false;
  /** By principal and the monotonic clock. */
  #notBeforeMs = new Map<string, number>();

  constructor(private readonly parts: ClusterKeyParts) {}

  /** "foreign": not signed with the cluster's keys; "unknown": by a key that is not at hand, or none is. */
  async verify(token: string): Promise<"signed" | "foreign" | "unknown"> {
    const jose = await import("jose");
    if (!this.#isLoaded) this.#take(this.#stored(), jose);
    this.#isLoaded = true;
    if (this.#keySet === undefined) return "unknown";
    try {
      await jose.compactVerify(token, this.#keySet, { algorithms: ALGORITHMS });
      return "signed";
    } catch (error) {
      return error instanceof jose.errors.JWKSNoMatchingKey ? "unknown" : "foreign";
    }
  }

  /** Reads them anew with an accepted caller's credential. @returns whether there are other keys than before. */
  async read(principal: string, credential: UpstreamCredential): Promise<boolean> {
    const nowMs = this.parts.clock.monotonicMs();
    if (nowMs < (this.#notBeforeMs.get(principal) ?? Number.NEGATIVE_INFINITY)) return false;
    this.#wait(principal, nowMs + RETRY_MS);
    try {
      const request = { method: "GET", target: "/openid/v1/jwks", accept: "application/jwk-set+json" };
      const { status, body } = await this.parts.ask(request, credential, DEADLINE_MS);
      if (status >= 400 && status < 500) this.#wait(principal, nowMs + REFUSED_MS);
      if (status !== 200 || body === this.#stored() || !this.#take(body, await import("jose"))) return false;
      this.parts.store.putValue(KEYS_VALUE, Buffer.from(body));
      return true;
    } catch {
      return false;
    }
  }

  #wait(principal: string, untilMs: number): void {
    this.#notBeforeMs.delete(principal);
    if (this.#notBeforeMs.size >= MAX_WAITING) this.#notBeforeMs.delete(this.#notBeforeMs.keys().next().value!);
    this.#notBeforeMs.set(principal, untilMs);
  }

  #take(body: string | undefined, jose: typeof import("jose")): boolean {
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

  #stored(): string | undefined {
    const stored = this.parts.store.getValue(KEYS_VALUE);
    return stored === undefined ? undefined : Buffer.from(stored).toString("utf8");
  }
}
