/**
 * The CA that local clients trust, and the certificate that is served to them.
 *
 * Both begin in 1970: a gateway without a clock boots there, and a local
 * certificate that is "not yet valid" would cut the node off from itself. The
 * CA never signs for anybody else and its key never leaves the device.
 *
 * Invariant: a key pair is used only after it is safely on disk, or from
 * memory with a warning when the disk cannot be written.
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
import { existsSync, readFileSync, renameSync } from "node:fs";
import { isIP, isIPv6 } from "node:net";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
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
const SERVING_DAYS = 3_650;
const CLIENT_DAYS = 365;
/** Older than this program: a clock that shows less was never set, and "now plus thirty years" by it would be over already. */
const CLOCK_FLOOR_MS = Date.UTC(2026, 0, 1);
const ECDSA_WITH_SHA256 = sequence(objectId("1.2.840.10045.4.3.2"));

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
    // keyCertSign and cRLSign: bits 5 and 6.
    extensions: [
      extension("2.5.29.19", true, sequence(element(0x01, Buffer.of(0xff)))),
      extension("2.5.29.15", true, bitString(Buffer.of(0b0000_0110), 1)),
    ],
  });
  return { certPem, keyPem: keyText(privateKey) };
}

/** Issues a certificate with a key of its own. */
function issueCertificate(authority: Authority, request: LeafRequest): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const organizations = (request.organizations ?? []).map((name) => nameAttribute("2.5.4.10", name));
  const names = [
    ...(request.dnsNames ?? []).map((name) => element(0x82, Buffer.from(name))),
    ...(request.ipAddresses ?? []).map((address) => element(0x87, addressBytes(address))),
  ];
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
      ...(names.length === 0 ? [] : [extension("2.5.29.17", false, sequence(...names))]),
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
    notAfterMs: trustedNowMs(nowMs) + days * DAY_MS,
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

/** The CA of a state folder: STATE/pki/local-ca.crt and .key, made at first start. A pair that cannot be used is set aside. */
export function loadOrCreateLocalAuthority(stateDir: string, clock: Clock, log: Log): Authority {
  const paths = pairPaths(stateDir, "local-ca");
  const known = readPair(paths, log, isAuthority);
  if (known !== undefined) return known;
  const made = createAuthority({
    commonName: `holdfast-local-ca-${randomBytes(4).toString("hex")}`,
    nowMs: clock.nowMs(),
  });
  keepPair(paths, made, log);
  return made;
}

/** The certificate served on the local listeners; kept while it covers the hosts, comes from this CA and has long to go. */
export function servingPair(
  authority: Authority,
  hosts: readonly string[],
  stateDir: string,
  clock: Clock,
  log: Log,
): KeyPair {
  const paths = pairPaths(stateDir, "serving");
  const wanted = [
    ...new Set([
      "localhost",
      "kubernetes",
      "kubernetes.default",
      "kubernetes.default.svc",
      "127.0.0.1",
      "::1",
      ...hosts.map(withoutZone),
    ]),
  ];
  const known = readPair(paths, log);
  if (known !== undefined && isUsable(known, authority, wanted, clock.nowMs())) return known;
  const made = issueServingCertificate(authority, {
    commonName: "holdfast",
    dnsNames: wanted.filter((host) => isIP(host) === 0),
    ipAddresses: wanted.filter((host) => isIP(host) !== 0),
    nowMs: clock.nowMs(),
  });
  keepPair(paths, made, log);
  return made;
}

function isUsable({ certPem }: KeyPair, authority: Authority, hosts: readonly string[], nowMs: number): boolean {
  const leaf = new X509Certificate(certPem);
  const issuer = new X509Certificate(authority.certPem);
  if (!leaf.checkIssued(issuer) || !leaf.verify(issuer.publicKey)) return false;
  // Renewed at a start with less than three years left; a node that runs on for years keeps what it has.
  const notAfterMs = Date.parse(leaf.validTo);
  if (nowMs >= renewalTimeMs({ notBeforeMs: notAfterMs - SERVING_DAYS * DAY_MS, notAfterMs }, 0)) return false;
  return hosts.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined);
}

function pairPaths(stateDir: string, name: string): { readonly cert: string; readonly key: string } {
  return { cert: join(stateDir, "pki", `${name}.crt`), key: join(stateDir, "pki", `${name}.key`) };
}

function readPair(
  paths: { readonly cert: string; readonly key: string },
  log: Log,
  isFit: (leaf: X509Certificate) => boolean = () => true,
): KeyPair | undefined {
  if (!existsSync(paths.cert) && !existsSync(paths.key)) return undefined;
  try {
    const pair = { certPem: readFileSync(paths.cert, "utf8"), keyPem: readFileSync(paths.key, "utf8") };
    const leaf = new X509Certificate(pair.certPem);
    if (!leaf.checkPrivateKey(createPrivateKey(pair.keyPem)))
      throw new Error("key and certificate do not belong together");
    if (!isFit(leaf)) throw new Error("certificate is no self-signed CA");
    return pair;
  } catch (error) {
    // One of two missing counts too: a power cut between the two writes leaves that.
    log.warn("certificate cannot be used, made anew", { path: paths.cert, reason: reasonOf(error) });
    for (const path of [paths.cert, paths.key]) {
      try {
        renameSync(path, `${path}.damaged`);
      } catch {
        // Gone or not ours to move: the new pair takes its place, or stays in memory.
      }
    }
    return undefined;
  }
}

/** A CA that signed itself and is what it says; whatever else lies in its place would be refused by every client. */
function isAuthority(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.verify(certificate.publicKey);
}

/** The system's code, or what is wrong in words; a parser's own message might quote what it choked on. */
function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: string };
  if (typeof code !== "string") return message ?? "unknown";
  return /^E[A-Z]+$/.test(code) ? code : "no PEM certificate or key";
}

function trustedNowMs(nowMs: number): number {
  return Math.max(nowMs, CLOCK_FLOOR_MS);
}

function withoutZone(host: string): string {
  return host.replace(/%.*$/, "");
}

function keepPair(paths: { readonly cert: string; readonly key: string }, pair: KeyPair, log: Log): void {
  try {
    writeFileAtomically(paths.key, pair.keyPem, 0o600);
    writeFileAtomically(paths.cert, pair.certPem, 0o644);
  } catch (error) {
    log.warn(
      "certificate could not be written and is used from memory: clients that trust it must be told again after a restart",
      { path: paths.cert, reason: String((error as { code?: string }).code ?? error) },
    );
  }
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
