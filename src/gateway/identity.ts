/**
 * Which node an agent speaks for: its certificate decides, and nothing it says.
 *
 * A kubelet's client certificate and its serving certificate have the same
 * subject; only the first is signed for clients, and only the first counts.
 */

import { X509Certificate } from "node:crypto";
import { clientSubjectOf, isNode } from "../certificates/client-request.ts";
import { datesOf, isSignedForClients } from "../node/own-node.ts";

/** Who it is, or why it is nobody. */
export type Identity =
  | { readonly nodeName: string; readonly notAfterMs: number; readonly certificate: X509Certificate }
  | { readonly refused: "NotANode" | "NotTrusted" | "NotValidNow"; readonly message: string };

const PREFIX = "system:node:";

/**
 * @param certificate PEM or DER.
 * @param caPem the CAs by which the API server knows clients.
 */
export function identityOf(certificate: string | Uint8Array, caPem: string, nowMs: number): Identity {
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(certificate);
    if (!isSignedForClients(leaf.raw, caPem))
      return refusal("NotTrusted", "the certificate is not one that the cluster's CA signed for clients");
  } catch {
    return refusal("NotTrusted", "the certificate cannot be read");
  }
  const subject = clientSubjectOf(leaf.toString());
  if (!isNode(subject))
    return refusal("NotANode", 'the certificate is not a node\'s: CN "system:node:NAME", O "system:nodes" alone');
  const { notBeforeMs, notAfterMs } = datesOf(leaf.raw);
  if (nowMs < notBeforeMs || nowMs > notAfterMs)
    return refusal("NotValidNow", "the certificate has ended or has not begun");
  return { nodeName: subject.commonName.slice(PREFIX.length), notAfterMs, certificate: leaf };
}

function refusal(refused: "NotANode" | "NotTrusted" | "NotValidNow", message: string): Identity {
  return { refused, message };
}
