/**
 * A node's key and the request (PKCS#10) for a certificate on it: P-256, a
 * subject, and names where it is to serve. Names in a certificate of a node's
 * client would be refused by the signer.
 *
 *   CertificationRequestInfo ::= SEQUENCE { INTEGER 0, Name, SubjectPublicKeyInfo, [0] Attributes }
 *   extensionRequest         ::= SEQUENCE { OID 1.2.840.113549.1.9.14, SET { SEQUENCE { subjectAltName } } }
 *   CertificationRequest     ::= SEQUENCE { info, SEQUENCE { OID }, BIT STRING }
 *
 * Source: RFC 2986; https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
 */

import { X509Certificate, createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { subjectAltName } from "./authority.ts";
import { bitString, element, integer, nameAttribute, objectId, pem, sequence } from "./der.ts";

/** The signer of clients' certificates that nodes may have without a person's word. */
export const NODE_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet";

const ECDSA_WITH_SHA256 = sequence(objectId("1.2.840.10045.4.3.2"));

/** Who a certificate makes its holder: CN, then each O. */
export interface ClientSubject {
  readonly commonName: string;
  readonly organizations: readonly string[];
}

/** A fresh P-256 key, PKCS#8 in PEM. */
export function newKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The request for a certificate on a key, PEM. */
export function clientRequest(
  keyPem: string,
  { commonName, organizations }: ClientSubject,
  names: SubjectNames = NO_NAMES,
): string {
  const key = createPrivateKey(keyPem);
  const info = sequence(
    integer(Buffer.of(0)),
    sequence(...organizations.map((name) => nameAttribute("2.5.4.10", name)), nameAttribute("2.5.4.3", commonName)),
    createPublicKey(key).export({ type: "spki", format: "der" }),
    element(0xa0, ...extensionRequest(names)),
  );
  return pem("CERTIFICATE REQUEST", sequence(info, ECDSA_WITH_SHA256, bitString(sign("sha256", info, key))));
}

/** Names and addresses under which a certificate is believed. */
export interface SubjectNames {
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

const NO_NAMES: SubjectNames = { dnsNames: [], ipAddresses: [] };

function extensionRequest(names: SubjectNames): Buffer[] {
  if (names.dnsNames.length + names.ipAddresses.length === 0) return [];
  const extensions = sequence(subjectAltName(names));
  return [sequence(objectId("1.2.840.113549.1.9.14"), element(0x31, extensions))];
}

/** A request's name, from its key: one that was sent and whose answer was lost is found again. */
export function requestName(keyPem: string): string {
  const key = createPublicKey(keyPem).export({ type: "spki", format: "der" });
  return `holdfast-${createHash("sha256").update(key).digest("hex").slice(0, 40)}`;
}

/** The CertificateSigningRequest to send, for a node's client certificate. */
export function signingRequest(keyPem: string, subject: ClientSubject) {
  return {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: { name: requestName(keyPem) },
    spec: {
      signerName: NODE_CLIENT_SIGNER,
      request: Buffer.from(clientRequest(keyPem, subject)).toString("base64"),
      usages: ["digital signature", "client auth"],
    },
  };
}

/** Who a certificate makes its holder. */
export function clientSubjectOf(certPem: string): ClientSubject {
  const lines = new X509Certificate(certPem).subject.split("\n");
  const values = (type: string) =>
    lines.filter((line) => line.startsWith(`${type}=`)).map((line) => line.slice(type.length + 1));
  return { commonName: values("CN")[0] ?? "", organizations: values("O") };
}

/** Whether it is a node: the one signer that renews by itself signs for nothing else. */
export function isNode({ commonName, organizations }: ClientSubject): boolean {
  return /^system:node:./.test(commonName) && organizations.length === 1 && organizations[0] === "system:nodes";
}
