/**
 * When each certificate is renewed, and by which clock.
 *
 * The moment is drawn once per certificate, between 70 % and 90 % of its
 * life, and stored beside it: a restart neither hastens nor delays it, and
 * nodes that joined together do not renew together for ever.
 *
 * The clock is floored by the last moment that could be trusted: one at which
 * the API server's certificate held by our clock. A gateway that boots in 1970
 * neither believes that its certificates are young again nor forgets what was
 * due. A clock that runs ahead is bounded by the API server's certificate.
 *
 *   STATE/pki/renewals.json   { trustedAtMs, moments: { SHA-256 of the certificate: ms } }
 */

import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import { CLOCK_FLOOR_MS, renewalTimeMs, type Validity } from "./authority.ts";

const fileSchema = v.object({
  trustedAtMs: v.optional(v.number(), 0),
  moments: v.record(v.string(), v.number()),
});

/** A card is not worn for a floor that is a minute better. */
const TRUST_WRITE_EVERY_MS = 24 * 3_600_000;
/** Nor by a link that flaps. */
const LOSS_WRITE_EVERY_MS = 10 * 60_000;
/** The certificates of one node are four; whatever is older has been replaced. */
const MAX_MOMENTS = 16;

/** The dates of a certificate, PEM. @param days of life, where NotBefore is 1970 by our own doing. */
export function validityOf(certPem: string, days?: number): Validity {
  const { validFrom, validTo } = new X509Certificate(certPem);
  const notAfterMs = Date.parse(validTo);
  return { notAfterMs, notBeforeMs: days === undefined ? Date.parse(validFrom) : notAfterMs - days * 86_400_000 };
}

/** What is drawn, and the clock that counts. */
export class Renewals {
  readonly #path: string;
  readonly #moments = new Map<string, number>();
  #trustedAtMs = CLOCK_FLOOR_MS;
  #writtenTrustMs = CLOCK_FLOOR_MS;

  constructor(
    stateDir: string,
    private readonly clock: Clock,
    private readonly random: () => number,
  ) {
    this.#path = join(stateDir, "pki", "renewals.json");
    const read = v.safeParse(fileSchema, jsonOf(this.#path));
    if (!read.success) return;
    for (const [fingerprint, ms] of Object.entries(read.output.moments)) this.#moments.set(fingerprint, ms);
    this.#trustedAtMs = this.#writtenTrustMs = Math.max(CLOCK_FLOOR_MS, read.output.trustedAtMs);
  }

  /** When the API server's certificate last held, ms since the epoch; what is read at the start may be ten minutes older, and a day where the power went before the link. */
  get trustedAtMs(): number {
    return this.#trustedAtMs;
  }

  /** Now, and never before the last trusted time. */
  nowMs(): number {
    return Math.max(this.clock.nowMs(), this.#trustedAtMs);
  }

  /** The last trusted time while the clock shows an earlier one; undefined while it does not. */
  get clockBehindOf(): number | undefined {
    return this.clock.nowMs() < this.#trustedAtMs ? this.#trustedAtMs : undefined;
  }

  /** The clock is right by the API server's certificate. */
  trust(): void {
    this.#trustedAtMs = Math.max(this.#trustedAtMs, this.clock.nowMs());
    if (this.#trustedAtMs - this.#writtenTrustMs >= TRUST_WRITE_EVERY_MS) this.#write();
  }

  /** The link is lost: who held a certificate now holds it until the return, over a restart too. */
  lost(): void {
    if (this.#trustedAtMs - this.#writtenTrustMs >= LOSS_WRITE_EVERY_MS) this.#write();
  }

  /** The moment from which a certificate is to be renewed; drawn and stored when it is first asked for. */
  momentOf(certPem: string, validity: Validity): number {
    const { fingerprint256 } = new X509Certificate(certPem);
    const known = this.#moments.get(fingerprint256);
    if (known !== undefined) return known;
    // Somebody else's certificate may have no life at all: due since its end, and no reason to say nothing.
    const isAlive = validity.notAfterMs > validity.notBeforeMs;
    const drawn = isAlive ? Math.round(renewalTimeMs(validity, this.random())) : validity.notAfterMs;
    for (const oldest of [...this.#moments.keys()].slice(0, -MAX_MOMENTS + 1)) this.#moments.delete(oldest);
    this.#moments.set(fingerprint256, drawn);
    this.#write();
    return drawn;
  }

  /** A folder that cannot be written costs the spread over a restart, nothing else. */
  #write(): void {
    this.#writtenTrustMs = this.#trustedAtMs;
    const content = { trustedAtMs: this.#trustedAtMs, moments: Object.fromEntries(this.#moments) };
    try {
      writeFileAtomically(this.#path, `${JSON.stringify(content, undefined, 2)}\n`, 0o600);
    } catch {
      // Drawn again after a restart.
    }
  }
}

function jsonOf(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}
