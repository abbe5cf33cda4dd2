/**
 * What the two ends of a tunnel say before bytes flow, each a WebSocket text.
 *
 *   gateway  {"kind":"challenge","gateway":NAME,"nonce":N}     when TLS showed it no node's certificate
 *   agent    {"kind":"proof","certificate":PEM,"signature":S}
 *   gateway  {"kind":"welcome","place":{...}}  or  {"kind":"refused","reason":R,"message":M}
 *
 * What is signed names its purpose, the gateway as the agent dialled it, and
 * the nonce, which belongs to this one connection, counts once and for ten
 * seconds. So a proof is good nowhere else: not at another gateway, which
 * someone in between may be, and not a second time. A node's name is never
 * said: it stands in the certificate.
 */

import { constants, createPrivateKey, sign, verify, type KeyObject } from "node:crypto";
import * as v from "valibot";
import type { Place } from "../kube/place.ts";

/** The subprotocol of the upgrade. */
export const SUBPROTOCOL = "yamux.tunnel.holdfast.dev";
/** The path of the upgrade. */
export const TUNNEL_PATH = "/tunnel";

const MAX_CERTIFICATE = 32 * 1024;

const addressSchema = v.object({
  type: v.picklist(["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"]),
  address: v.pipe(v.string(), v.regex(/^[0-9a-zA-Z.:-]{1,253}$/)),
});
const placeSchema = v.object({
  addresses: v.pipe(v.array(addressSchema), v.minLength(1), v.maxLength(8)),
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
});
const words = v.pipe(v.string(), v.maxLength(512));
const fromGateway = v.variant("kind", [
  v.object({ kind: v.literal("challenge"), gateway: v.pipe(v.string(), v.maxLength(253)), nonce: words }),
  v.object({ kind: v.literal("welcome"), place: v.optional(placeSchema) }),
  v.object({ kind: v.literal("refused"), reason: words, message: words }),
]);
const fromAgent = v.object({
  kind: v.literal("proof"),
  gateway: v.pipe(v.string(), v.maxLength(253)),
  certificate: v.pipe(v.string(), v.maxLength(MAX_CERTIFICATE)),
  signature: words,
});

/** What a gateway says. A welcome without a place: the tunnel stands, and nothing leads to it yet. */
export type GatewayWord =
  | { readonly kind: "challenge"; readonly gateway: string; readonly nonce: string }
  | { readonly kind: "welcome"; readonly place?: Place | undefined }
  | { readonly kind: "refused"; readonly reason: string; readonly message: string };

/** A challenge's answer. */
export type AgentWord = v.InferOutput<typeof fromAgent>;

/** @returns undefined for what is no word of a gateway's. */
export function readGatewayWord(text: string): GatewayWord | undefined {
  return read(fromGateway, text);
}

/** @returns undefined for what is no word of an agent's. */
export function readAgentWord(text: string): AgentWord | undefined {
  return read(fromAgent, text);
}

/**
 * Signs a challenge with the node's key.
 *
 * @param gateway as the agent dialled it, whatever the challenge calls itself.
 */
export function prove(
  gateway: string,
  nonce: string,
  pair: { readonly certPem: string; readonly keyPem: string },
): AgentWord {
  const key = createPrivateKey(pair.keyPem);
  const signature = sign(digestOf(key), toBeSigned(gateway, nonce), withPadding(key));
  return { kind: "proof", gateway, certificate: pair.certPem, signature: signature.toString("base64") };
}

/** Whether a proof was made by this key, for this gateway and nonce. */
export function isProven(word: AgentWord, nonce: string, publicKey: KeyObject): boolean {
  try {
    const signature = Buffer.from(word.signature, "base64");
    return verify(digestOf(publicKey), toBeSigned(word.gateway, nonce), withPadding(publicKey), signature);
  } catch {
    // A key of a kind that signs nothing here.
    return false;
  }
}

function toBeSigned(gateway: string, nonce: string): Buffer {
  return Buffer.from(`holdfast tunnel agent v1\n${gateway}\n${nonce}\n`);
}

/** Ed25519 brings its own. */
function digestOf(key: KeyObject): "sha256" | null {
  return key.asymmetricKeyType === "ed25519" ? null : "sha256";
}

function withPadding(key: KeyObject) {
  return key.asymmetricKeyType === "rsa"
    ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
    : { key };
}

function read<T extends v.GenericSchema>(schema: T, text: string): v.InferOutput<T> | undefined {
  let said: unknown;
  try {
    said = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(schema, said);
  return parsed.success ? parsed.output : undefined;
}
