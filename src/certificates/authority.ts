/**
 * Makes CAs and certificates.
 *
 * They begin in 1970: a gateway without a clock boots there, and a local
 * certificate that is "not yet valid" would cut the node off from itself.
 */

import {
  X509Certificate,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  type KeyObject,
} from "node:crypto";
import { isIPv6 } from "node:net";
import { bitString, element, integer, moment, nameAttribute, objectId, pem, sequence } from "./der.ts";

/** A certificate and its private key, PEM. */
export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

/** A self-signed CA. */
export type Authority = KeyPair;

/** What a certificate is issued for. */
interface LeafRequest {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly usage: "server" | "client";
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** When a certificate is good, ms since the epoch. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** What a serving certificate is issued for. */
export interface ServingRequest {
  readonly commonName: string;
  readonly dnsNames?: readonly string[];
  /** IPv4 and IPv6; a zone ("%eth0") is left out, certificates know none. */
  readonly ipAddresses?: readonly string[];
  /** Of validity from now. Default 3650. */
  readonly days?: number;
  readonly nowMs: number;
}

/** What a client certificate is issued for: CN is the user, O its groups. */
export interface ClientRequest {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  /** Of validity from now. Default 365. */
  readonly days?: number;
  readonly nowMs?: number;
}

const DAY_MS = 86_400_000;
const CA_YEARS = 30;
/** Of a serving certificate where nothing else is asked for. */
export const SERVING_DAYS = 3_650;
/** Of a CA where nothing else is asked for. */
export const CA_DAYS = CA_YEARS * 365;
const CLIENT_DAYS = 365;
/** Older than this program: a clock that shows less was never set, and "now plus thirty years" by it would be over already. */
export const CLOCK_FLOOR_MS = Date.UTC(2026, 0, 1);
const ECDSA_WITH_SHA256 = sequence(objectId("1.2.840.10045.4.3.2"));

/** A CA; keyCertSign and cRLSign: bits 5 and 6. */
const CA_EXTENSIONS = [
  extension("2.5.29.19", true, sequence(element(0x01, Buffer.of(0xff)))),
  extension("2.5.29.15", true, bitString(Buffer.of(0b0000_0110), 1)),
];

/** Makes a CA. @param years of validity, from 1970 on counted to `nowMs` plus these. */
export function createAuthority(options: {
  readonly commonName: string;
  readonly nowMs: number;
  readonly years?: number;
}): Authority {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const name = sequence(nameAttribute("2.5.4.3", options.commonName));
  const certPem = certificate({
    issuer: name,
    subject: name,
    publicKey,
    issuerKey: privateKey,
    notBeforeMs: 0,
    notAfterMs: trustedNowMs(options.nowMs) + (options.years ?? CA_YEARS) * 365 * DAY_MS,
    extensions: CA_EXTENSIONS,
  });
  return { certPem, keyPem: keyText(privateKey) };
}

/**
 * A new CA's key and name in a certificate of the CA before it, to be served
 * behind the leaf: who trusts the old CA alone follows it to the new one.
 *
 * @returns PEM, valid as long as the old CA.
 */
export function crossCertificate(previous: Authority, next: Authority): string {
  const issuer = new X509Certificate(previous.certPem);
  const authority = new X509Certificate(next.certPem);
  return certificate({
    issuer: subjectOf(previous.certPem),
    subject: subjectOf(next.certPem),
    publicKey: authority.publicKey,
    issuerKey: createPrivateKey(previous.keyPem),
    notBeforeMs: 0,
    notAfterMs: Date.parse(issuer.validTo),
    extensions: CA_EXTENSIONS,
  });
}

/** Issues a certificate with a key of its own. */
function issueCertificate(authority: Authority, request: LeafRequest): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const organizations = (request.organizations ?? []).map((name) => nameAttribute("2.5.4.10", name));
  const { dnsNames = [], ipAddresses = [] } = request;
  const certPem = certificate({
    issuer: subjectOf(authority.certPem),
    subject: sequence(...organizations, nameAttribute("2.5.4.3", request.commonName)),
    publicKey,
    issuerKey: createPrivateKey(authority.keyPem),
    notBeforeMs: request.notBeforeMs,
    notAfterMs: request.notAfterMs,
    extensions: [
      extension("2.5.29.19", true, sequence()),
      // digitalSignature: bit 0.
      extension("2.5.29.15", true, bitString(Buffer.of(0b1000_0000), 7)),
      extension(
        "2.5.29.37",
        false,
        sequence(objectId(request.usage === "server" ? "1.3.6.1.5.5.7.3.1" : "1.3.6.1.5.5.7.3.2")),
      ),
      ...(dnsNames.length + ipAddresses.length === 0 ? [] : [subjectAltName({ dnsNames, ipAddresses })]),
    ],
  });
  return { certPem, keyPem: keyText(privateKey) };
}

/** Issues a certificate for a server, valid from 1970: a gateway without a clock must be able to serve itself. */
export function issueServingCertificate(authority: Authority, request: ServingRequest): KeyPair {
  const { nowMs, days = SERVING_DAYS, ...names } = request;
  return issueCertificate(authority, {
    ...names,
    usage: "server",
    notBeforeMs: 0,
    // Nobody believes a leaf beyond its CA's end.
    notAfterMs: Math.min(
      trustedNowMs(nowMs) + days * DAY_MS,
      Date.parse(new X509Certificate(authority.certPem).validTo),
    ),
  });
}

/** Issues a certificate for a client; for tests and the demo, a cluster's clients get theirs from the cluster. */
export function issueClientCertificate(authority: Authority, request: ClientRequest): KeyPair {
  const { nowMs = Date.now(), days = CLIENT_DAYS, ...names } = request;
  return issueCertificate(authority, {
    ...names,
    usage: "client",
    notBeforeMs: 0,
    notAfterMs: trustedNowMs(nowMs) + days * DAY_MS,
  });
}

/**
 * The moment from which a certificate should be renewed: between 70 % and
 * 90 % of its life, so that nodes made together do not renew together.
 *
 * Where NotBefore is 1970 by our own doing, hand in the moment of issue
 * instead (NotAfter less the days asked for), or the life is far too long.
 *
 * @param validity as read from the X.509 leaf.
 * @param draw in [0, 1), normally `Math.random()`, once per certificate; 0 renews earliest.
 * @returns milliseconds since the epoch, always within the validity.
 * @throws {RangeError} if `notAfterMs` is not later than `notBeforeMs`.
 */
export function renewalTimeMs({ notBeforeMs, notAfterMs }: Validity, draw: number): number {
  if (!(notAfterMs > notBeforeMs)) throw new RangeError("notAfterMs is not later than notBeforeMs");
  return notBeforeMs + (notAfterMs - notBeforeMs) * (0.7 + 0.2 * draw);
}

function trustedNowMs(nowMs: number): number {
  return Math.max(nowMs, CLOCK_FLOOR_MS);
}

function withoutZone(host: string): string {
  return host.replace(/%.*$/, "");
}

interface CertificateParts {
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly issuerKey: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
}

function certificate({
  issuer,
  subject,
  publicKey,
  issuerKey,
  notBeforeMs,
  notAfterMs,
  extensions,
}: CertificateParts): string {
  const serial = randomBytes(16);
  // Positive, and never a leading zero byte.
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  const keyIdentifiers = [
    extension("2.5.29.14", false, element(0x04, keyIdentifier(publicKey))),
    extension("2.5.29.35", false, sequence(element(0x80, keyIdentifier(createPublicKey(issuerKey))))),
  ];
  const body = sequence(
    element(0xa0, integer(Buffer.of(2))),
    integer(serial),
    ECDSA_WITH_SHA256,
    issuer,
    sequence(moment(notBeforeMs), moment(notAfterMs)),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    element(0xa3, sequence(...extensions, ...keyIdentifiers)),
  );
  return pem("CERTIFICATE", sequence(body, ECDSA_WITH_SHA256, bitString(sign("sha256", body, issuerKey))));
}

/** The extension that holds a certificate's names: dNSName is [2], iPAddress [7]. */
export function subjectAltName(names: {
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}): Buffer {
  const list = [
    ...names.dnsNames.map((name) => element(0x82, Buffer.from(name))),
    ...names.ipAddresses.map((address) => element(0x87, addressBytes(address))),
  ];
  return extension("2.5.29.17", false, sequence(...list));
}

function extension(id: string, isCritical: boolean, value: Buffer): Buffer {
  return sequence(objectId(id), ...(isCritical ? [element(0x01, Buffer.of(0xff))] : []), element(0x04, value));
}

function keyIdentifier(key: KeyObject): Buffer {
  return createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
}

function keyText(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The subject of a CA made here: a single CN. */
function subjectOf(certPem: string): Buffer {
  const commonName = /^CN=(.*)$/m.exec(new X509Certificate(certPem).subject)?.[1] ?? "";
  return sequence(nameAttribute("2.5.4.3", commonName));
}

/** The four or sixteen bytes of an address; a tail in dots ("::ffff:10.0.0.1") is two words. */
function addressBytes(address: string): Buffer {
  const plain = withoutZone(address);
  if (!isIPv6(plain)) return Buffer.from(plain.split(".").map(Number));
  const [dotted] = /[0-9.]+$/.exec(plain) ?? [];
  const tail = dotted?.includes(".") === true ? Buffer.from(dotted.split(".").map(Number)) : undefined;
  const text =
    tail === undefined
      ? plain
      : `${plain.slice(0, -dotted!.length)}${tail.readUInt16BE(0).toString(16)}:${tail.readUInt16BE(2).toString(16)}`;
  const [left = "", right] = text.split("::");
  const words = (part: string | undefined) => (part === undefined || part === "" ? [] : part.split(":"));
  const zeros = Array.from({ length: 8 - words(left).length - words(right).length }, () => "0");
  return Buffer.from(
    [...words(left), ...(right === undefined ? [] : zeros), ...words(right)].flatMap((word) => [
      Number.parseInt(word, 16) >> 8,
      Number.parseInt(word, 16) & 0xff,
    ]),
  );
}
