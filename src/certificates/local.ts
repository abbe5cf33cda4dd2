/**
 * The CA that local clients trust, the certificate that is served to them, and
 * how both are renewed under open connections.
 *
 *   STATE/pki/local-ca.crt         what clients trust: the CA in office, and those before it until they end
 *   STATE/pki/local-ca.key         the key of the CA in office; it says which of them that is
 *   STATE/pki/local-ca-cross.crt   the CA in office as the one before it vouches for it, that one as the one before, ...
 *   STATE/pki/serving.crt, .key    the leaf, and the cross certificates behind it
 *
 * A client that has read the file before a renewal, and never reads it again,
 * still finds its old CA at the end of the chain that is served. So no client
 * has to be told in time, and a renewal needs no waiting.
 *
 * The CA signs for nobody else and its key never leaves the device.
 */

import { X509Certificate, randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import {
  CA_DAYS,
  SERVING_DAYS,
  createAuthority,
  crossCertificate,
  issueServingCertificate,
  type Authority,
  type KeyPair,
} from "./authority.ts";
import { keepPair, pairPaths, readPair } from "./pair-files.ts";
import { certificateBlocks } from "./pem.ts";
import { validityOf, type Renewals } from "./renewals.ts";

/** What the local certificates need. */
export interface LocalCertificateParts {
  readonly stateDir: string;
  /** Names and addresses of the listeners, beside loopback's and the Service's. */
  readonly hosts: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  readonly renewals: Renewals;
}

/** A CA that was in office. */
interface Former {
  readonly certPem: string;
  /** The one after it, in its words. */
  readonly crossPem: string;
}

/** By hand a CA can be renewed any number of times; each that is still trusted is 600 bytes of every handshake. */
const MAX_FORMER = 4;

/** Whether a CA signed itself and is what it says; whatever else lies in its place would be refused by every client. */
function isAuthority(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.verify(certificate.publicKey);
}

/** The local CA and the served pair. */
export class LocalCertificates {
  #authority: Authority;
  /** The CAs before the one in office, the latest first, each with its word for the one after it; PEM. */
  #former: readonly Former[] = [];
  #serving: KeyPair;

  /** Reads them, or makes them: at the first start, or when what is there cannot be used. */
  constructor(private readonly parts: LocalCertificateParts) {
    const { stateDir, log } = parts;
    const known = readPair(pairPaths(stateDir, "local-ca"), log, isAuthority);
    const [first = "", ...others] = certificateBlocks(known?.certPem ?? "").map((block) => `${block}\n`);
    if (known === undefined) {
      this.#authority = this.#newAuthority();
      keepPair(pairPaths(stateDir, "local-ca"), this.#authority, log);
      this.#serving = this.#newServing();
    } else {
      this.#authority = { certPem: first, keyPem: known.keyPem };
      // One that never came into office vouches for nobody: a crash between the writes of a renewal leaves it.
      this.#former = formerOf(first, others, certificatesIn(this.#crossPath));
      if (others.length !== this.#former.length)
        keepPair(pairPaths(stateDir, "local-ca"), { certPem: this.trusted, keyPem: known.keyPem }, log);
      const serving = readPair(pairPaths(stateDir, "serving"), log);
      this.#serving = serving !== undefined && this.#isUsable(serving) ? serving : this.#newServing();
    }
  }

  /** The CA in office. */
  get authority(): Authority {
    return this.#authority;
  }

  /** What is served: leaf, chain and key. */
  get serving(): KeyPair {
    return this.#serving;
  }

  /** What is renewed first, ms since the epoch. */
  get dueMs(): number {
    return Math.min(this.authorityDueMs, this.servingDueMs);
  }

  /** When the CA is renewed, ms since the epoch. */
  get authorityDueMs(): number {
    const { certPem } = this.#authority;
    return this.parts.renewals.momentOf(certPem, validityOf(certPem, CA_DAYS));
  }

  /** When the served pair is. */
  get servingDueMs(): number {
    const { certPem } = this.#serving;
    return this.parts.renewals.momentOf(certPem, servingValidity(certPem));
  }

  /** Renews what is due. @returns whether another pair is to be served. */
  renewDue(): boolean {
    const nowMs = this.parts.renewals.nowMs();
    if (nowMs >= this.authorityDueMs) this.renewAuthority();
    else if (nowMs >= this.servingDueMs) this.renewServing();
    else return this.#dropEnded(nowMs);
    return true;
  }

  /** Issues another served pair. */
  renewServing(): void {
    this.#serving = this.#newServing();
    this.parts.log.info("the serving certificate is renewed", {
      until: new Date(validityOf(this.#serving.certPem).notAfterMs).toISOString(),
    });
  }

  /**
   * Puts another CA in office, and serves a pair of it.
   *
   * @param isRevoked the old one is no longer trusted: clients that have read
   *   the file before must read it again.
   */
  renewAuthority({ isRevoked = false }: { readonly isRevoked?: boolean } = {}): void {
    const { stateDir, log } = this.parts;
    const old = this.#authority;
    const next = this.#newAuthority();
    const former = isRevoked
      ? []
      : [{ certPem: old.certPem, crossPem: crossCertificate(old, next) }, ...this.#former].slice(0, MAX_FORMER);
    const paths = pairPaths(stateDir, "local-ca");
    try {
      // Each step alone leaves a state that a start understands: the key, last, puts the new CA in office.
      if (isRevoked) rmSync(this.#crossPath, { force: true });
      else writeFileAtomically(this.#crossPath, former.map(({ crossPem }) => crossPem).join(""), 0o644);
      writeFileAtomically(paths.cert, next.certPem + this.trusted, 0o644);
      writeFileAtomically(paths.key, next.keyPem, 0o600);
      writeFileAtomically(paths.cert, next.certPem + former.map(({ certPem }) => certPem).join(""), 0o644);
    } catch (error) {
      // One that clients could not read is no use to anybody: the old one stays.
      log.warn("the local CA could not be renewed", { reason: String((error as { code?: string }).code ?? error) });
      return;
    }
    this.#authority = next;
    this.#former = former;
    log.info(isRevoked ? "the local CA is revoked, another is in office" : "the local CA is renewed");
    this.renewServing();
  }

  /** Forgets former CAs that have ended, and what only they led to. */
  #dropEnded(nowMs: number): boolean {
    const ended = this.#former.findIndex(({ certPem }) => nowMs >= validityOf(certPem).notAfterMs);
    if (ended < 0) return false;
    const { stateDir, log } = this.parts;
    this.#former = this.#former.slice(0, ended);
    keepPair(pairPaths(stateDir, "local-ca"), { certPem: this.trusted, keyPem: this.#authority.keyPem }, log);
    this.renewServing();
    return true;
  }

  get #crossPath(): string {
    return join(this.parts.stateDir, "pki", "local-ca-cross.crt");
  }

  /** What clients trust: the CA in office, and those before it; PEM. */
  get trusted(): string {
    return this.#authority.certPem + this.#former.map(({ certPem }) => certPem).join("");
  }

  #newAuthority(): Authority {
    return createAuthority({
      commonName: `holdfast-local-ca-${randomBytes(4).toString("hex")}`,
      nowMs: this.parts.renewals.nowMs(),
    });
  }

  #newServing(): KeyPair {
    const { renewals, stateDir, log } = this.parts;
    const wanted = this.#names;
    const made = issueServingCertificate(this.#authority, {
      commonName: "holdfast",
      dnsNames: wanted.filter((host) => isIP(host) === 0),
      ipAddresses: wanted.filter((host) => isIP(host) !== 0),
      nowMs: renewals.nowMs(),
    });
    const pair = { ...made, certPem: made.certPem + this.#former.map(({ crossPem }) => crossPem).join("") };
    keepPair(pairPaths(stateDir, "serving"), pair, log);
    return pair;
  }

  get #names(): string[] {
    const hosts = this.parts.hosts.map((host) => host.replace(/%.*$/, ""));
    const names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", "::1"];
    return [...new Set([...names, ...hosts])];
  }

  #isUsable({ certPem }: KeyPair): boolean {
    const { renewals } = this.parts;
    const leaf = new X509Certificate(certPem);
    const issuer = new X509Certificate(this.#authority.certPem);
    if (!leaf.checkIssued(issuer) || !leaf.verify(issuer.publicKey)) return false;
    if (certificateBlocks(certPem).length !== 1 + this.#former.length) return false;
    if (renewals.nowMs() >= renewals.momentOf(certPem, servingValidity(certPem))) return false;
    return this.#names.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined);
  }
}

/** Its life counts from its issue; beside the end of its CA it may have been shorter. */
function servingValidity(certPem: string) {
  return validityOf(certPem, SERVING_DAYS);
}

/** Follows the words of former CAs from the one in office back; what leads nowhere is left out. */
function formerOf(inOffice: string, others: readonly string[], crosses: readonly string[]): Former[] {
  const former: Former[] = [];
  let next = new X509Certificate(inOffice);
  for (const crossPem of crosses) {
    const cross = new X509Certificate(crossPem);
    if (!cross.publicKey.equals(next.publicKey)) continue;
    const certPem = others.find((other) => {
      const authority = new X509Certificate(other);
      return cross.checkIssued(authority) && cross.verify(authority.publicKey);
    });
    if (certPem === undefined) break;
    former.push({ certPem, crossPem });
    next = new X509Certificate(certPem);
  }
  return former;
}

/** The certificates of a file; none of one that is not there or cannot be read. */
function certificatesIn(path: string): string[] {
  try {
    const blocks = certificateBlocks(readFileSync(path, "utf8"));
    for (const block of blocks) new X509Certificate(block);
    return blocks.map((block) => `${block}\n`);
  } catch {
    return [];
  }
}
