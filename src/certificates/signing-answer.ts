/**
 * What has become of a certificate request that was sent: it waits, somebody
 * said no, or here is the certificate.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import * as v from "valibot";
import type { KeyPair } from "./authority.ts";
import { certificateBlocks } from "./pem.ts";

/** Where requests are sent, and looked for by name. */
export const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

const PURPOSES = { client: "1.3.6.1.5.5.7.3.2", server: "1.3.6.1.5.5.7.3.1" } as const;

const requestSchema = v.object({
  status: v.optional(
    v.object({
      certificate: v.optional(v.string()),
      conditions: v.optional(
        v.array(v.object({ type: v.string(), reason: v.optional(v.string()), message: v.optional(v.string()) })),
      ),
    }),
  ),
});

/** A no, in its own words. */
export interface Judgement {
  readonly type: string;
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
}

/** How a request stands. */
export type SigningAnswer =
  | { readonly kind: "waiting" }
  | { readonly kind: "no"; readonly no: Judgement }
  | { readonly kind: "issued"; readonly certPem: string };

/** Reads a CertificateSigningRequest, JSON. @throws {Error} on what is none. */
export function signingAnswerOf(body: string): SigningAnswer {
  const { certificate = "", conditions = [] } = v.parse(requestSchema, JSON.parse(body)).status ?? {};
  const no = conditions.find(({ type }) => type === "Denied" || type === "Failed");
  if (no !== undefined) return { kind: "no", no };
  if (certificate === "") return { kind: "waiting" };
  const blocks = certificateBlocks(Buffer.from(certificate, "base64").toString("utf8"));
  return { kind: "issued", certPem: blocks.map((block) => `${block}\n`).join("") };
}

/** Why an issued certificate is no use; undefined when it is. @param subject as X509Certificate prints it. */
export function problemOf(
  { certPem, keyPem }: KeyPair,
  subject: string,
  nowMs: number,
  purpose: keyof typeof PURPOSES = "client",
): string | undefined {
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(certPem);
  } catch {
    return "what was issued is no certificate";
  }
  if (!leaf.checkPrivateKey(createPrivateKey(keyPem))) return "it is for another key";
  if (leaf.subject !== subject) return "it is for another subject";
  if (leaf.keyUsage?.includes(PURPOSES[purpose]) !== true) return `it is not for ${purpose} authentication`;
  if (Date.parse(leaf.validTo) <= nowMs) return "it has ended already";
  return undefined;
}
