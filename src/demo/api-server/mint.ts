/**
 * A throw-away cluster identity: a CA, a serving certificate, client
 * certificates and kubeconfigs, all P-256, made in about ten milliseconds.
 *
 * Nothing touches the disk; the caller writes what it wants written.
 */

import { createHash, createPublicKey, generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import {
  bitString,
  boolean,
  elementsOf,
  explicit,
  implicit,
  integer,
  octetString,
  oid,
  sequence,
  setOf,
  time,
  utf8String,
} from "./der.ts";

const ECDSA_WITH_SHA256 = sequence(oid("1.2.840.10045.4.3.2"));
const DAY_MS = 86_400_000;

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** How long a certificate holds; both default to "since an hour ago, for a year". */
export interface Validity {
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

/** What a kubeconfig is to contain. */
export interface KubeconfigOptions {
  readonly server: string;
  /** A client certificate made for this user ... */
  readonly user?: string;
  readonly groups?: readonly string[];
  /** ... or a bearer token instead. */
  readonly token?: string;
  readonly keyPair?: KeyPair;
}

/** One cluster's certificates. */
export interface Cluster {
  /** The CA's certificate, PEM: what clients trust and what signs client certificates. */
  readonly ca: string;
  readonly caKey: string;
  /** A client certificate: CN is the user, each O a group. */
  clientCertificate(commonName: string, organizations?: readonly string[], validity?: Validity): KeyPair;
  /** A client certificate on the key and subject of a request (PKCS#10, PEM); nothing else of it is looked at. */
  signClientRequest(request: string, validity?: Validity): string;
  /** A serving certificate on the key, subject and names of a request (PKCS#10, PEM). */
  signServingRequest(request: string, validity?: Validity): string;
  /** A serving certificate for these DNS names and IP addresses. */
  servingCertificate(names: readonly string[], validity?: Validity): KeyPair;
  /** A kubeconfig with everything inline, as JSON (which is YAML). */
  kubeconfig(options: KubeconfigOptions): string;
}

interface CertificateRequest {
  readonly subject: Buffer;
  readonly issuer: Buffer;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly extensions: readonly Buffer[];
  readonly validity: Validity;
}

/** Makes a fresh CA and what hangs on it. */
export function mintCluster(name = "kubernetes-ca"): Cluster {
  const issuer = distinguishedName(name, []);
  const caKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ca = certificate({
    subject: issuer,
    issuer,
    publicKey: caKeys.publicKey,
    signer: caKeys.privateKey,
    // keyCertSign and cRLSign: bits 5 and 6
    extensions: [basicConstraints(true), keyUsage(0b0000_0110, 1)],
    validity: { notAfterMs: Date.now() + 3650 * DAY_MS },
  });
  const signed = (subject: Buffer, publicKey: KeyObject, extensions: readonly Buffer[], validity: Validity) =>
    certificate({ subject, issuer, publicKey, signer: caKeys.privateKey, extensions, validity });
  const issue = (subject: Buffer, extensions: readonly Buffer[], validity: Validity): KeyPair => {
    const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
    return { cert: signed(subject, keys.publicKey, extensions, validity), key: privatePem(keys.privateKey) };
  };
  const cluster: Cluster = {
    ca,
    caKey: privatePem(caKeys.privateKey),
    clientCertificate: (commonName, organizations = [], validity = {}) =>
      issue(distinguishedName(commonName, organizations), CLIENT_EXTENSIONS, validity),
    signClientRequest: (request, validity = {}) => {
      const { subject, publicKey } = requestParts(request);
      return signed(subject, publicKey, CLIENT_EXTENSIONS, validity);
    },
    signServingRequest: (request, validity = {}) => {
      const { subject, publicKey, extensions } = requestParts(request);
      return signed(subject, publicKey, [...SERVING_EXTENSIONS, ...extensions], validity);
    },
    servingCertificate: (names, validity = {}) =>
      issue(distinguishedName("kube-apiserver", []), [...SERVING_EXTENSIONS, subjectAltName(names)], validity),
    kubeconfig: (options) => kubeconfig(cluster, options),
  };
  return cluster;
}

function certificate({ subject, issuer, publicKey, signer, extensions, validity }: CertificateRequest): string {
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40; // positive, and never a leading zero byte
  const body = sequence(
    explicit(0, integer(Buffer.from([2]))), // version 3
    integer(serial),
    ECDSA_WITH_SHA256,
    issuer,
    sequence(
      time(validity.notBeforeMs ?? Date.now() - 3_600_000),
      time(validity.notAfterMs ?? Date.now() + 365 * DAY_MS),
    ),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    explicit(
      3,
      sequence(...extensions, subjectKeyIdentifier(publicKey), authorityKeyIdentifier(createPublicKey(signer))),
    ),
  );
  const der = sequence(body, ECDSA_WITH_SHA256, bitString(sign("sha256", body, signer)));
  return pem("CERTIFICATE", der);
}

/** Of CertificationRequest { info { INTEGER, Name, SubjectPublicKeyInfo, ... }, ... }: the name and the key. */
/** @returns the extensions of its one attribute, extensionRequest, as they stand there. */
function requestParts(request: string): {
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly extensions: readonly Buffer[];
} {
  const der = Buffer.from(request.replace(/-----[^-]+-----|\s/g, ""), "base64");
  const [info] = elementsOf(elementsOf(der)[0]!.body);
  const [, subject, key, attributes] = elementsOf(info!.body);
  const [attribute] = elementsOf(attributes?.body ?? Buffer.alloc(0));
  const values = attribute === undefined ? undefined : elementsOf(attribute.body)[1];
  const list = values === undefined ? undefined : elementsOf(values.body)[0];
  return {
    subject: subject!.whole,
    publicKey: createPublicKey({ key: key!.whole, format: "der", type: "spki" }),
    extensions: list === undefined ? [] : elementsOf(list.body).map(({ whole }) => whole),
  };
}

function distinguishedName(commonName: string, organizations: readonly string[]): Buffer {
  const part = (type: string, text: string) => setOf(sequence(oid(type), utf8String(text)));
  return sequence(...organizations.map((name) => part("2.5.4.10", name)), part("2.5.4.3", commonName));
}

function extension(id: string, isCritical: boolean, value: Buffer): Buffer {
  return sequence(oid(id), ...(isCritical ? [boolean(true)] : []), octetString(value));
}

const basicConstraints = (isAuthority: boolean) =>
  extension("2.5.29.19", true, isAuthority ? sequence(boolean(true)) : sequence());
const keyUsage = (bits: number, unusedBits: number) =>
  extension("2.5.29.15", true, bitString(Buffer.from([bits]), unusedBits));
const extendedKeyUsage = (purpose: string) => extension("2.5.29.37", false, sequence(oid(purpose)));

const keyIdentifier = (key: KeyObject) =>
  createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
const subjectKeyIdentifier = (key: KeyObject) => extension("2.5.29.14", false, octetString(keyIdentifier(key)));
const authorityKeyIdentifier = (key: KeyObject) =>
  extension("2.5.29.35", false, sequence(implicit(0, keyIdentifier(key))));

const SERVING_EXTENSIONS = [basicConstraints(false), keyUsage(0b1000_0000, 7), extendedKeyUsage("1.3.6.1.5.5.7.3.1")];
const CLIENT_EXTENSIONS = [basicConstraints(false), keyUsage(0b1000_0000, 7), extendedKeyUsage("1.3.6.1.5.5.7.3.2")];

function subjectAltName(names: readonly string[]): Buffer {
  // GeneralName: dNSName [2], iPAddress [7]
  return extension(
    "2.5.29.17",
    false,
    sequence(...names.map((name) => (isIP(name) ? implicit(7, addressBytes(name)) : implicit(2, Buffer.from(name))))),
  );
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split(".").map(Number));
  const [head = "", tail] = address.split("::");
  const words = (text: string | undefined) => (text ? text.split(":") : []);
  const left = words(head);
  const right = words(tail);
  const zeros: string[] = Array(8 - left.length - right.length).fill("0");
  return Buffer.from(
    [...left, ...zeros, ...right].flatMap((word) => [parseInt(word, 16) >> 8, parseInt(word, 16) & 0xff]),
  );
}

const pem = (label: string, der: Buffer) =>
  `-----BEGIN ${label}-----\n${der.toString("base64").replace(/.{1,64}/g, "$&\n")}-----END ${label}-----\n`;
const privatePem = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" }).toString();

function kubeconfig(
  cluster: Cluster,
  { server, user = "admin", groups = [], token, keyPair }: KubeconfigOptions,
): string {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const pair = keyPair ?? (token === undefined ? cluster.clientCertificate(user, groups) : undefined);
  const credential = pair
    ? { "client-certificate-data": base64(pair.cert), "client-key-data": base64(pair.key) }
    : { token };
  const document = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "demo", cluster: { server, "certificate-authority-data": base64(cluster.ca) } }],
    users: [{ name: user, user: credential }],
    contexts: [{ name: "demo", context: { cluster: "demo", user } }],
    "current-context": "demo",
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** The public half of a PEM key, PEM; for a JWKS or a pin. */
export function publicPem(key: string): string {
  return createPublicKey(key).export({ type: "spki", format: "pem" }).toString();
}
