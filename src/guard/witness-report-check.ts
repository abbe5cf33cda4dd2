/**
 * Whether a report was signed by the node it speaks for.
 *
 * The certificate comes with the report and is believed for nothing but its
 * chain: one of the cluster's client CAs must have signed it, for client
 * authentication, for exactly this node. Everybody may write an annotation who
 * may write the Node; nobody but the node has its key.
 */

import { X509Certificate } from "node:crypto";
import { compactVerify, decodeProtectedHeader, importX509 } from "jose";
import { certificatesOf } from "../certificates/pem.ts";
import { MOST_CHARACTERS, readReport, REPORT_ALGORITHMS, type WitnessReport } from "../kube/witness-report.ts";

const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const MOST_CERTIFICATES = 5;

/**
 * Reads a report.
 *
 * @param nodeName on whose Node it stands.
 * @param clientCaPem CAs that the API server believes clients by.
 * @returns undefined for anything that this node has not said itself.
 */
export async function checkReport(
  jws: string,
  nodeName: string,
  clientCaPem: string,
  nowMs: number,
): Promise<WitnessReport | undefined> {
  if (jws.length > MOST_CHARACTERS) return undefined;
  try {
    const { alg, x5c } = decodeProtectedHeader(jws);
    if (!(REPORT_ALGORITHMS as readonly string[]).includes(alg ?? "")) return undefined;
    if (!Array.isArray(x5c) || x5c.length === 0 || x5c.length > MOST_CERTIFICATES) return undefined;
    const leaf = new X509Certificate(Buffer.from(x5c[0]!, "base64"));
    if (!isOfNode(leaf, nodeName, nowMs) || !isSignedBy(leaf, clientCaPem, nowMs)) return undefined;
    const { payload } = await compactVerify(jws, await importX509(leaf.toString(), alg!), { algorithms: [alg!] });
    const report = readReport(Buffer.from(payload).toString("utf8"));
    return report?.iss === nodeName ? report : undefined;
  } catch {
    // Whatever it was, it was no report.
    return undefined;
  }
}

function isOfNode(leaf: X509Certificate, nodeName: string, nowMs: number): boolean {
  const subject = leaf.subject.split("\n").toSorted().join("\n");
  return (
    !leaf.ca &&
    subject === `CN=system:node:${nodeName}\nO=system:nodes` &&
    leaf.keyUsage?.includes(CLIENT_AUTH) === true &&
    isValid(leaf, nowMs)
  );
}

/** Directly: the signer of node certificates is one of the client CAs. */
function isSignedBy(leaf: X509Certificate, clientCaPem: string, nowMs: number): boolean {
  return certificatesOf(clientCaPem).some(
    (ca) => ca.ca && isValid(ca, nowMs) && leaf.checkIssued(ca) && leaf.verify(ca.publicKey),
  );
}

function isValid({ validFrom, validTo }: X509Certificate, nowMs: number): boolean {
  return Date.parse(validFrom) <= nowMs && nowMs <= Date.parse(validTo);
}
