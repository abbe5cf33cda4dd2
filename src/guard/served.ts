/**
 * The webhook under the certificate of the moment: files that somebody else
 * renews, or our own Secret.
 */

import { readFileSync, statSync } from "node:fs";
import { EdgeError } from "../base/errors.ts";
import { createAuthority, issueServingCertificate } from "../certificates/authority.ts";
import type { Denial } from "./denials.ts";
import { describe, pause } from "../cluster/follow.ts";
import type { GuardGround } from "./ground.ts";
import { every } from "./rounds.ts";
import { keepServingCertificate, type CertificateMaker } from "./serving-certificate.ts";
import { startWebhook, type ServingKeyPair, type Webhook } from "./webhook.ts";

/** Where something listens. */
export interface GuardAddress {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
}

/** How it is served. */
export interface ServedOptions {
  readonly ground: GuardGround;
  readonly listen: GuardAddress;
  /** Undefined: the certificate is made here and kept in a Secret. */
  readonly tlsFiles: { readonly cert: string; readonly key: string } | undefined;
}

/** The serving certificate cannot be read or made. */
export class GuardCertificateError extends EdgeError {
  override readonly name = "GuardCertificateError";
  readonly code = "GUARD_CERTIFICATE";
}

const CERTIFICATE_EVERY_MS = 30_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;
/** An API server may still know this replica's address for a moment after it has left the Service. */
const LINGER_MS = 3_000;

/** The webhook; it is there once there is a certificate. */
export class ServedWebhook {
  #webhook: Webhook | undefined;
  #certPem = "";

  constructor(private readonly options: ServedOptions) {}

  /** Undefined: nobody is served yet. */
  get port(): number | undefined {
    return this.#webhook?.port;
  }

  /**
   * Listens as soon as there is a certificate; returns without when the signal comes first.
   *
   * @throws {EdgeError} when the address cannot be listened on or files cannot be read.
   */
  async start(): Promise<void> {
    const { ground, listen } = this.options;
    const { clock, metrics, log, view } = ground;
    const tls = await this.#firstPair();
    if (tls === undefined) return;
    const onDenied = (denial: Denial) => tellDenial(ground, denial);
    this.#webhook = await startWebhook({ ...listen, tls, view, clock, metrics, log, onDenied });
  }

  /** Follows the certificate until the signal comes. */
  async keep(): Promise<void> {
    await every(CERTIFICATE_EVERY_MS, this.options.ground, async () => {
      const pair = await this.#pair();
      if (pair.certPem === this.#certPem) return;
      this.#certPem = pair.certPem;
      this.#webhook?.reload(pair);
      this.options.ground.log.info("serving certificate exchanged");
    });
  }

  /** Finishes what runs. */
  async stop(): Promise<void> {
    await this.#webhook?.stop(LINGER_MS);
  }

  async #firstPair(): Promise<ServingKeyPair | undefined> {
    const { ground, tlsFiles } = this.options;
    const { clock, log, signal } = ground;
    for (let retryMs = FIRST_RETRY_MS; !signal.aborted; retryMs = Math.min(LAST_RETRY_MS, retryMs * 2)) {
      try {
        const pair = await this.#pair();
        this.#certPem = pair.certPem;
        return pair;
      } catch (error) {
        if (tlsFiles !== undefined) throw error;
        log.warn("no serving certificate yet; trying again", { reason: describe(error) });
        await pause(clock, retryMs, signal);
      }
    }
    return undefined;
  }

  async #pair(): Promise<ServingKeyPair> {
    const { ground, tlsFiles } = this.options;
    const { api, clock, log, namespace, serviceName } = ground;
    if (tlsFiles !== undefined) return readPair(tlsFiles);
    return await keepServingCertificate({ api, make, clock, log, namespace, serviceName });
  }
}

const make: CertificateMaker = ({ commonName, dnsNames, ipAddresses, days, nowMs }) => {
  // A day more than its certificate: a CA that ends first would take it along.
  const authority = createAuthority({ commonName: `${commonName} CA`, nowMs, years: (days + 1) / 365 });
  const pair = issueServingCertificate(authority, { commonName, dnsNames, ipAddresses, days, nowMs });
  return { caPem: authority.certPem, ...pair };
};

function readPair({ cert, key }: { readonly cert: string; readonly key: string }): ServingKeyPair {
  return { certPem: readPem("--tls-cert-file", cert), keyPem: readPem("--tls-key-file", key) };
}

function readPem(flag: string, path: string): string {
  try {
    // A folder can be opened and not read.
    if (!statSync(path).isFile()) throw Object.assign(new Error("no file"), { code: "no file" });
    return readFileSync(path, "utf8");
  } catch (cause) {
    const { code = "unreadable" } = cause as { code?: string };
    throw new GuardCertificateError(`Cannot read ${flag} "${path}" (${code}); expected a PEM file`, { cause });
  }
}

/** The first refusal of a kind is told on the pod it saved. */
function tellDenial({ happenings, view }: GuardGround, denial: Denial): void {
  const { count, rule, namespace, name, message, user } = denial;
  if (count !== 1 || !rule.startsWith("/validate/pods")) return;
  const uid = view.pod(namespace, name)?.uid;
  if (uid === undefined) return;
  happenings.tell({
    kind: "Pod",
    namespace,
    name,
    uid,
    type: "Normal",
    reason: "HoldfastDenied",
    message: `Refused to ${user}: ${message}`,
  });
}
