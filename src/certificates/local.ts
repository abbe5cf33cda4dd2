/**
 * The CA that local clients trust, the certificate that is served to them, and
 * how both are renewed under open connections.
 *
 *   STATE/pki/local-ca.crt         what clients trust: the CA in office, and the one before it until it ends
 *   STATE/pki/local-ca.key         the key of the CA in office; it says which of the two that is
 *   STATE/pki/local-ca-cross.crt   the CA in office as the one before it vouches for it
 *   STATE/pki/serving.crt, .key    the leaf, and the cross certificate behind it
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

/** Whether a CA signed itself and is what it says; whatever else lies in its place would be refused by every client. */
function isAuthority(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.verify(certificate.publicKey);
}

/** The local CA and the served pair. */
export class LocalCertificates {
  #authority: Authority;
  /** The CA before the one in office, PEM; "" for none. */
  #previous: string;
  #serving: KeyPair;

  /** Reads them, or makes them: at the first start, or when what is there cannot be used. */
  constructor(private readonly parts: LocalCertificateParts) {
    const { stateDir, log } = parts;
    const known = readPair(pairPaths(stateDir, "local-ca"), log, isAuthority);
    const [first = "", second = ""] = certificateBlocks(known?.certPem ?? "").map((block) => `${block}\n`);
    if (known === undefined) {
      this.#authority = this.#newAuthority();
      this.#previous = "";
      keepPair(pairPaths(stateDir, "local-ca"), this.#authority, log);
      this.#serving = this.#newServing();
    } else {
      this.#authority = { certPem: first, keyPem: known.keyPem };
      // One that never came into office vouches for nobody: a crash between the writes of a renewal leaves it.
      this.#previous = second !== "" && isVouchedBy(second, this.#cross()) ? second : "";
      if (second !== "" && this.#previous === "") keepPair(pairPaths(stateDir, "local-ca"), this.#authority, log);
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
    return Math.min(this.#authorityDueMs, this.#servingDueMs);
  }

  get #authorityDueMs(): number {
    const { certPem } = this.#authority;
    return this.parts.renewals.momentOf(certPem, validityOf(certPem, CA_DAYS));
  }

  get #servingDueMs(): number {
    const { certPem } = this.#serving;
    return this.parts.renewals.momentOf(certPem, servingValidity(certPem));
  }

  /** Renews what is due. @returns whether another pair is to be served. */
  renewDue(): boolean {
    const nowMs = this.parts.renewals.nowMs();
    if (nowMs >= this.#authorityDueMs) this.renewAuthority();
    else if (nowMs >= this.#servingDueMs) this.renewServing();
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
    const paths = pairPaths(stateDir, "local-ca");
    try {
      // Each step alone leaves a state that a start understands: the key, last, puts the new CA in office.
      if (isRevoked) rmSync(this.#crossPath, { force: true });
      else writeFileAtomically(this.#crossPath, crossCertificate(old, next), 0o644);
      writeFileAtomically(paths.cert, next.certPem + old.certPem, 0o644);
      writeFileAtomically(paths.key, next.keyPem, 0o600);
      if (isRevoked) writeFileAtomically(paths.cert, next.certPem, 0o644);
    } catch (error) {
      // One that clients could not read is no use to anybody: the old one stays.
      log.warn("the local CA could not be renewed", { reason: String((error as { code?: string }).code ?? error) });
      return;
    }
    this.#authority = next;
    this.#previous = isRevoked ? "" : old.certPem;
    log.info(isRevoked ? "the local CA is revoked, another is in office" : "the local CA is renewed");
    this.renewServing();
  }

  /** Forgets a former CA that has ended. */
  #dropEnded(nowMs: number): boolean {
    if (this.#previous === "" || nowMs < validityOf(this.#previous).notAfterMs) return false;
    const { stateDir, log } = this.parts;
    this.#previous = "";
    rmSync(this.#crossPath, { force: true });
    keepPair(pairPaths(stateDir, "local-ca"), this.#authority, log);
    this.renewServing();
    return true;
  }

  get #crossPath(): string {
    return join(this.parts.stateDir, "pki", "local-ca-cross.crt");
  }

  /** The cross certificate of the CA in office; "" where none is good for it. */
  #cross(): string {
    try {
      const pem = readFileSync(this.#crossPath, "utf8");
      const authority = new X509Certificate(this.#authority.certPem);
      const isOurs = new X509Certificate(pem).publicKey.equals(authority.publicKey);
      return isOurs ? pem : "";
    } catch {
      return "";
    }
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
    const pair = { ...made, certPem: made.certPem + (this.#previous === "" ? "" : this.#cross()) };
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
    if (certificateBlocks(certPem).length > 1 !== (this.#previous !== "")) return false;
    if (renewals.nowMs() >= renewals.momentOf(certPem, servingValidity(certPem))) return false;
    return this.#names.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined);
  }
}

/** Its life counts from its issue; beside the end of its CA it may have been shorter. */
function servingValidity(certPem: string) {
  return validityOf(certPem, SERVING_DAYS);
}

function isVouchedBy(previousPem: string, crossPem: string): boolean {
  if (crossPem === "") return false;
  const [previous, cross] = [new X509Certificate(previousPem), new X509Certificate(crossPem)];
  return cross.checkIssued(previous) && cross.verify(previous.publicKey);
}
