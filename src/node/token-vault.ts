/**
 * Service-account tokens of the node's own pods, for the time when no new one
 * can be had.
 *
 * The API server's answer to kubelet is kept, sealed, under service account,
 * audiences and pod UID, and handed to nobody but the node itself, for pods in
 * its own list. Whether it is still good is the JWT's own `exp`, which is a
 * year away where the answer says an hour; an expired one is handed out all
 * the same and counted, for kubelet mounts it and the pod starts.
 *
 * Kubelet asks for each token again and again; on disk only the first is
 * written, and then one that is good for much longer: a card is not worn for a
 * token that differs from the last by an hour.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { payloadOf } from "../callers/token-claims.ts";
import { MalformedError } from "../kube/codec.ts";
import { readToken, type TokenSpec } from "../kube/token-request.ts";
import type { Store } from "../store/contract.ts";
import { headed, readHeaded } from "./headed-value.ts";

/** Whose token. */
export interface TokenOwner {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly spec: TokenSpec;
}

/** A kept answer. */
export interface KeptToken {
  readonly contentType: string;
  readonly body: Uint8Array;
  /** Of the JWT, ms since the epoch; undefined when it does not say. */
  readonly expiresAtMs: number | undefined;
}

const VALUE_PREFIX = "token/";
const headSchema = v.object({ contentType: v.string(), expiresAtMs: v.optional(v.number()) });
const claimsSchema = v.object({ exp: v.optional(v.number()), iat: v.optional(v.number()) });

/** Keeps tokens, sealed. */
export class TokenVault {
  #latest = new Map<string, KeptToken>();
  #servedExpired = 0;
  /** Of the stored ones, by their names: opening each for every report would cost. */
  #ends = new Map<string, number | undefined>();

  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
    private readonly log: Log,
  ) {}

  /** How often an expired token was handed out since start. */
  get servedExpired(): number {
    return this.#servedExpired;
  }

  /** When the kept tokens end, ms since the epoch; one that does not say is left out. */
  ends(): number[] {
    const names = new Set([...this.store.valueNames(VALUE_PREFIX), ...this.#latest.keys()]);
    for (const name of this.#ends.keys()) if (!names.has(name)) this.#ends.delete(name);
    return [...names].flatMap((name) => {
      const latest = this.#latest.get(name);
      if (latest === undefined && !this.#ends.has(name)) this.#ends.set(name, this.#stored(name)?.expiresAtMs);
      const endsMs = latest === undefined ? this.#ends.get(name) : latest.expiresAtMs;
      return endsMs === undefined ? [] : [endsMs];
    });
  }

  /** Keeps the API server's answer. */
  keep(owner: TokenOwner, answer: { readonly contentType: string; readonly body: Uint8Array }): void {
    if (owner.spec.boundKind !== "Pod" || owner.spec.boundUid === "") return;
    try {
      const times = timesOf(readToken(answer.body));
      const kept: KeptToken = { ...answer, expiresAtMs: times.expiresAtMs };
      const name = this.#nameOf(owner);
      const stored = this.#stored(name);
      this.#latest.set(name, kept);
      if (stored !== undefined && !isMuchBetter(kept, stored, times.issuedAtMs)) return;
      this.store.putValue(name, encoded(kept), { isSecret: true });
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      this.log.warn("service-account token not kept", { reason: error.message });
    }
  }

  /** The kept answer, whichever is the latest. @param isReadable whether the asker takes its Content-Type. */
  find(owner: TokenOwner, isReadable: (contentType: string) => boolean): KeptToken | undefined {
    const name = this.#nameOf(owner);
    const kept = this.#latest.get(name) ?? this.#stored(name);
    return kept !== undefined && isReadable(kept.contentType) ? kept : undefined;
  }

  /** A kept answer went out: an expired one is counted and said. */
  handedOut({ namespace, serviceAccount }: TokenOwner, { expiresAtMs }: KeptToken): void {
    if (expiresAtMs === undefined || expiresAtMs > this.clock.nowMs()) return;
    this.#servedExpired++;
    this.log.warn("an expired service-account token is handed out", { namespace, serviceAccount });
  }

  /** Drops tokens of pods that are gone. @param isPod whether a pod of this UID is still the node's. */
  sweep(isPod: (uid: string) => boolean): void {
    for (const name of new Set([...this.store.valueNames(VALUE_PREFIX), ...this.#latest.keys()])) {
      if (isPod(name.slice(VALUE_PREFIX.length).split("/")[0]!)) continue;
      this.store.deleteValue(name);
      this.#latest.delete(name);
    }
  }

  #nameOf({ namespace, serviceAccount, spec }: TokenOwner): string {
    const which = JSON.stringify([namespace, serviceAccount, spec.audiences]);
    return `${VALUE_PREFIX}${spec.boundUid}/${this.store.keyedHash(which).slice(0, 32)}`;
  }

  #stored(name: string): KeptToken | undefined {
    const kept = readHeaded(this.store.getValue(name), headSchema);
    return kept === undefined
      ? undefined
      : { contentType: kept.head.contentType, expiresAtMs: kept.head.expiresAtMs, body: kept.body };
  }
}

function encoded({ contentType, expiresAtMs, body }: KeptToken): Uint8Array {
  return headed({ contentType, expiresAtMs }, body);
}

/** Worth a write: the stored one has run through half of what the new one lives. */
function isMuchBetter(kept: KeptToken, stored: KeptToken, issuedAtMs: number | undefined): boolean {
  if (kept.contentType !== stored.contentType) return true;
  if (kept.expiresAtMs === undefined || stored.expiresAtMs === undefined || issuedAtMs === undefined) return true;
  return kept.expiresAtMs - stored.expiresAtMs > (kept.expiresAtMs - issuedAtMs) / 2;
}

/** `exp` and `iat` of a JWT; nothing is verified, the API server has just made it. */
function timesOf(token: string): { readonly expiresAtMs: number | undefined; readonly issuedAtMs: number | undefined } {
  const read = v.safeParse(claimsSchema, payloadOf(token));
  const ms = (seconds: number | undefined) => (seconds === undefined ? undefined : seconds * 1_000);
  const { exp, iat } = read.success ? read.output : {};
  return { expiresAtMs: ms(exp), issuedAtMs: ms(iat) };
}
