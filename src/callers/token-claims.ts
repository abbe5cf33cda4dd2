/**
 * What a token says of itself, before anybody has verified it.
 *
 * Only two things are made of it: whom to ask about, and when it has ended by
 * its own word. Both can only take away; what gives is the signature and the
 * API server.
 *
 * Source: KEP-1205 (bound service-account tokens), RFC 7519.
 */

import * as v from "valibot";

/** What a service account's token says. */
export interface AccountClaims {
  readonly userName: string;
  /** "serviceaccount:NAMESPACE:NAME:UID" */
  readonly principal: string;
  readonly uid: string;
  readonly audiences: readonly string[];
  /** The pod that it dies with; undefined for an unbound one. */
  readonly podUid: string | undefined;
}

/** Longer ones are somebody's joke: a real one has one to two thousand. */
export const MAX_TOKEN_LENGTH = 16_384;

const claimsSchema = v.object({
  sub: v.string(),
  aud: v.union([v.string(), v.array(v.string())]),
  "kubernetes.io": v.object({
    namespace: v.string(),
    serviceaccount: v.object({ name: v.string(), uid: v.string() }),
    pod: v.optional(v.object({ uid: v.string() })),
    node: v.optional(v.unknown()),
    secret: v.optional(v.unknown()),
  }),
});
const expirySchema = v.object({ exp: v.number() });

/** The claims of a service account's token; undefined for any other, and for one bound to something else than a pod. */
export function accountClaims(token: string): AccountClaims | undefined {
  const read = v.safeParse(claimsSchema, payloadOf(token));
  if (!read.success) return undefined;
  const { sub, aud, "kubernetes.io": bound } = read.output;
  const { name, uid } = bound.serviceaccount;
  if (sub !== `system:serviceaccount:${bound.namespace}:${name}`) return undefined;
  // A pod's token names its node as well; one that names a node or a Secret alone dies with what is not known here.
  if (bound.pod === undefined && (bound.node !== undefined || bound.secret !== undefined)) return undefined;
  return {
    userName: sub,
    principal: `serviceaccount:${bound.namespace}:${name}:${uid}`,
    uid,
    audiences: typeof aud === "string" ? [aud] : aud,
    podUid: bound.pod?.uid,
  };
}

/** When a JWT ends by its own word, ms since the epoch; undefined for a token that does not say. */
export function expiryMs(token: string): number | undefined {
  const read = v.safeParse(expirySchema, payloadOf(token));
  return read.success ? read.output.exp * 1_000 : undefined;
}

/** The payload of a JWT, read and not verified; undefined for what is none. */
export function payloadOf(token: string): unknown {
  if (token.length > MAX_TOKEN_LENGTH) return undefined;
  const parts = token.split(".");
  if (parts.length !== 3) return undefined;
  try {
    return JSON.parse(Buffer.from(parts[1]!, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
}
