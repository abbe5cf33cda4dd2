/**
 * Service-account tokens: real ES256 JWTs, and the keys that verify them.
 */

import { createHash, createPublicKey, generateKeyPairSync, randomUUID, sign, verify } from "node:crypto";
import type { User } from "./request.ts";
import { child, isObject, textAt, type Json, type JsonObject } from "./schema.ts";

/** As in `--service-account-issuer`. */
export const ISSUER = "https://kubernetes.default.svc";

/** What a token is to say. */
export interface TokenOrder {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly serviceAccountUid: string;
  readonly audiences: readonly string[];
  readonly expirationSeconds: number;
  /** kubernetes.io claim of a bound pod. */
  readonly pod?: { readonly name: string; readonly uid: string };
}

const base64 = (value: JsonObject) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Issues and judges tokens with one key. */
export class Tokens {
  readonly #keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  readonly #keyId = createHash("sha256")
    .update(this.#keys.publicKey.export({ type: "spki", format: "der" }))
    .digest("base64url");

  /** @param isAlive whether a pod still exists: a token bound to one dies with it. */
  constructor(private readonly isAlive: (pod: { namespace: string; name: string; uid: string }) => boolean) {}

  /** A signed token and its expiry. */
  issue({ namespace, serviceAccount, serviceAccountUid, audiences, expirationSeconds, pod }: TokenOrder): {
    token: string;
    expiresAtMs: number;
  } {
    const issuedAt = Math.floor(Date.now() / 1000);
    const claims: JsonObject = {
      aud: [...audiences],
      exp: issuedAt + expirationSeconds,
      iat: issuedAt,
      iss: ISSUER,
      jti: randomUUID(),
      "kubernetes.io": {
        namespace,
        ...(pod ? { pod: { name: pod.name, uid: pod.uid } } : {}),
        serviceaccount: { name: serviceAccount, uid: serviceAccountUid },
      },
      nbf: issuedAt,
      sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
    };
    const signed = `${base64({ alg: "ES256", kid: this.#keyId })}.${base64(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key: this.#keys.privateKey, dsaEncoding: "ieee-p1363" });
    return {
      token: `${signed}.${signature.toString("base64url")}`,
      expiresAtMs: (issuedAt + expirationSeconds) * 1000,
    };
  }

  /** Who the token is, if it is ours, unexpired and for one of the audiences. */
  judge(token: string, audiences: readonly string[] = [ISSUER]): User | undefined {
    const [header = "", payload = "", signature = ""] = token.split(".");
    const isOurs = verify(
      "sha256",
      Buffer.from(`${header}.${payload}`),
      { key: this.#keys.publicKey, dsaEncoding: "ieee-p1363" },
      Buffer.from(signature, "base64url"),
    );
    if (!isOurs) return undefined;
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as Json;
    if (!isObject(claims) || Number(claims["exp"]) * 1000 < Date.now()) return undefined;
    const meant = Array.isArray(claims["aud"]) ? claims["aud"].map(String) : [];
    if (!meant.some((audience) => audiences.includes(audience))) return undefined;
    const namespace = textAt(child(claims, "kubernetes.io"), "namespace");
    const pod = child(child(claims, "kubernetes.io"), "pod");
    if ("uid" in pod && !this.isAlive({ namespace, name: textAt(pod, "name"), uid: textAt(pod, "uid") }))
      return undefined;
    const groups = ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"];
    return {
      name: textAt(claims, "sub"),
      groups,
      uid: textAt(child(child(claims, "kubernetes.io"), "serviceaccount"), "uid"),
    };
  }

  /** /openid/v1/jwks */
  jwks(): JsonObject {
    const jwk = createPublicKey(this.#keys.publicKey.export({ type: "spki", format: "pem" })).export({
      format: "jwk",
    }) as JsonObject;
    return {
      keys: [
        { use: "sig", kty: jwk["kty"]!, kid: this.#keyId, crv: jwk["crv"]!, alg: "ES256", x: jwk["x"]!, y: jwk["y"]! },
      ],
    };
  }
}
