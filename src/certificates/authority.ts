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

import { X509Certificate, createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";
import { readFileSync, renameSync } from "node:fs";
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
export interface LeafRequest {
  readonly commonName: string;
  readonly organizations?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly usage: "server" | "client";
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

const DAY_MS = 86_400_000;
const CA_YEARS = 30;
const SERVING_DAYS = 3_650;
/** Renewed at the first start with less than this left; a node that runs on for years keeps what it has. */
const RENEW_BEFORE_DAYS = 1_000;
const ECDSA_WITH_SHA256 = sequence(objectId("1.2.840.10045.4.3.2"));

/** Makes a CA. @param years of validity, from 1970 on counted to `nowMs` plus these. */
export function createAuthority(options: { readonly commonName: string; readonly nowMs: number; readonly years?: number }): Authority {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const name = sequence(nameAttribute("2.5.4.3", options.commonName));
  const certPem = certificate({
    issuer: name,
    subject: name,
    publicKey,
    issuerKey: privateKey,
    notBeforeMs: 0,
    notAfterMs: options.nowMs + (options.years ?? CA_YEARS) * 365 * DAY_MS,
    // keyCertSign and cRLSign: bits 5 and 6.
    extensions: [extension("2.5.29.19", true, sequence(element(0x01, Buffer.of(0xff)))), extension("2.5.29.15", true, bitString(Buffer.of(0b0000_0110), 1))],
  });
  return { certPem, keyPem: keyText(privateKey) };
}

/** Issues a certificate with a key of its own. */
export function issueCertificate(authority: Authority, request: LeafRequest): KeyPair {
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
      extension("2.5.29.37", false, sequence(objectId(request.usage === "server" ? "1.3.6.1.5.5.7.3.1" : "1.3.6.1.5.5.7.3.2"))),
      ...(names.length === 0 ? [] : [extension("2.5.29.17", false, sequence(...names))]),
    ],
  });
  return { certPem, keyPem: keyText(privateKey) };
}

/** The CA of a state folder: STATE/pki/local-ca.crt and .key, made at first start. A pair that cannot be used is set aside. */
export function loadOrCreateLocalAuthority(stateDir: string, clock: Clock, log: Log): Authority {
  const paths = pairPaths(stateDir, "local-ca");
  const known = readPair(paths, log);
  if (known !== undefined) return known;
  const made = createAuthority({ commonName: `holdfast-local-ca-${randomBytes(4).toString("hex")}`, nowMs: clock.nowMs() });
  keepPair(paths, made, log);
  return made;
}

/** The certificate served on the local listeners; kept while it covers the hosts, comes from this CA and has long to go. */
export function servingPair(authority: Authority, hosts: readonly string[], stateDir: string, clock: Clock, log: Log): KeyPair {
  const paths = pairPaths(stateDir, "serving");
  const wanted = [...new Set(["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", "::1", ...hosts])];
  const known = readPair(paths, log);
  if (known !== undefined && isUsable(known, authority, wanted, clock.nowMs())) return known;
  const made = issueCertificate(authority, {
    commonName: "holdfast",
    dnsNames: wanted.filter((host) => isIP(host) === 0),
    ipAddresses: wanted.filter((host) => isIP(host) !== 0),
    usage: "server",
    notBeforeMs: 0,
    notAfterMs: clock.nowMs() + SERVING_DAYS * DAY_MS,
  });
  keepPair(paths, made, log);
  return made;
}

function isUsable({ certPem }: KeyPair, authority: Authority, hosts: readonly string[], nowMs: number): boolean {
  const leaf = new X509Certificate(certPem);
  const issuer = new X509Certificate(authority.certPem);
  if (!leaf.checkIssued(issuer) || !leaf.verify(issuer.publicKey)) return false;
  if (Date.parse(leaf.validTo) - nowMs < RENEW_BEFORE_DAYS * DAY_MS) return false;
  return hosts.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined);
}

function pairPaths(stateDir: string, name: string): { readonly cert: string; readonly key: string } {
  return { cert: join(stateDir, "pki", `${name}.crt`), key: join(stateDir, "pki", `${name}.key`) };
}

function readPair(paths: { readonly cert: string; readonly key: string }, log: Log): KeyPair | undefined {
  try {
    const pair = { certPem: readFileSync(paths.cert, "utf8"), keyPem: readFileSync(paths.key, "utf8") };
    if (new X509Certificate(pair.certPem).checkPrivateKey(createPrivateKey(pair.keyPem))) return pair;
    throw new Error("key and certificate do not belong together");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    log.warn("certificate cannot be used, made anew", { path: paths.cert, reason: String((error as Error).message) });
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

function keepPair(paths: { readonly cert: string; readonly key: string }, pair: KeyPair, log: Log): void {
  try {
    writeFileAtomically(paths.key, pair.keyPem, 0o600);
    writeFileAtomically(paths.cert, pair.certPem, 0o644);
  } catch (error) {
    log.warn("certificate could not be written and is used from memory: clients that trust it must be told again after a restart", { path: paths.cert, reason: String((error as { code?: string }).code ?? error) });
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

function certificate({ issuer, subject, publicKey, issuerKey, notBeforeMs, notAfterMs, extensions }: CertificateParts): string {
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
  return createHash("sha1").update(key.export({ type: "spki", format: "der" })).digest();
}

function keyText(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** The subject of a CA made here: a single CN. */
function subjectOf(certPem: string): Buffer {
  const commonName = /^CN=(.*)$/m.exec(new X509Certificate(certPem).subject)?.[1] ?? "";
  return sequence(nameAttribute("2.5.4.3", commonName));
}

function addressBytes(address: string): Buffer {
  if (!isIPv6(address)) return Buffer.from(address.split(".").map(Number));
  const [left = "", right] = address.split("::");
  const words = (text: string | undefined) => (text === undefined || text === "" ? [] : text.split(":"));
  const zeros = Array.from({ length: 8 - words(left).length - words(right).length }, () => "0");
  return Buffer.from([...words(left), ...(right === undefined ? [] : zeros), ...words(right)].flatMap((word) => [Number.parseInt(word, 16) >> 8, Number.parseInt(word, 16) & 0xff]));
}
