/**
 * The node's client pair that is ours to renew.
 *
 *   STATE/pki/node-client.pem   certificate and key in one file, as kubelet keeps them: old or new, never half
 *
 * The kubeconfig's pair and ours stand side by side; whichever was issued last
 * counts. So a node that is joined again is what its new kubeconfig says, and
 * a kubeconfig that is older than our renewal does not take it back. The dates
 * alone do not tell which that is: signers date back by minutes, so ours names
 * the certificate beside which it was kept.
 *
 * Invariant: a pair is used only after it is safely on disk.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Log } from "../base/log.ts";
import type { Credential } from "../kube/credential.ts";
import type { KeyPair } from "./authority.ts";
import { certificateBlocks, privateKeyBlock } from "./pem.ts";
import { validityOf } from "./renewals.ts";

type CertificateCredential = Extract<Credential, { kind: "certificate" }>;

/** A pair of ours. */
interface Kept extends KeyPair {
  /** The fingerprint of the kubeconfig's when it was kept; "" where the file does not say. */
  readonly beside: string;
}

/** A line before the blocks; readers of PEM skip it (RFC 7468, section 5.2). */
const BESIDE = "Kept beside: ";

const fingerprintOf = ({ certPem }: KeyPair) => new X509Certificate(certPem).fingerprint256;

/** The pair to be used now. */
export class OwnPair {
  readonly #path: string;
  #own: Kept | undefined;
  #judged: { readonly given: string; readonly own: Kept | undefined; readonly isOwn: boolean } | undefined;

  /** @param given the kubeconfig's. */
  constructor(
    stateDir: string,
    private readonly given: CertificateCredential,
    log: Log,
  ) {
    this.#path = join(stateDir, "pki", "node-client.pem");
    this.#own = readOwn(this.#path, log);
  }

  /** Whether a pair of ours lies there. */
  get isKept(): boolean {
    return this.#own !== undefined;
  }

  /** What the kubeconfig is replaced with. */
  get credential(): CertificateCredential {
    return { kind: "certificate", read: () => this.read() };
  }

  /** The pair that counts now. */
  read(): KeyPair {
    const given = this.given.read();
    const own = this.#own;
    if (this.#judged?.given !== given.certPem || this.#judged.own !== own)
      this.#judged = { given: given.certPem, own, isOwn: own !== undefined && isLater(own, given) };
    return this.#judged.isOwn ? own! : given;
  }

  /** Writes a new pair, and uses it from then on. @throws the system's error when it cannot be written; the old one then stands. */
  keep(pair: KeyPair): void {
    const beside = fingerprintOf(this.given.read());
    const text = `${BESIDE}${beside}\n${pair.certPem.trimEnd()}\n${pair.keyPem.trimEnd()}\n`;
    writeFileAtomically(this.#path, text, 0o600);
    this.#own = { ...pair, beside };
  }
}

/** Issued later, for the same subject. */
function isLater(own: Kept, given: KeyPair): boolean {
  if (new X509Certificate(own.certPem).subject !== new X509Certificate(given.certPem).subject) return false;
  if (own.beside === fingerprintOf(given)) return true;
  const [ours, theirs] = [validityOf(own.certPem), validityOf(given.certPem)];
  return ours.notBeforeMs === theirs.notBeforeMs
    ? ours.notAfterMs > theirs.notAfterMs
    : ours.notBeforeMs > theirs.notBeforeMs;
}

function readOwn(path: string, log: Log): Kept | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  try {
    const certPem = certificateBlocks(text)
      .map((block) => `${block}\n`)
      .join("");
    const keyPem = privateKeyBlock(text) ?? "";
    if (new X509Certificate(certPem).checkPrivateKey(createPrivateKey(keyPem)))
      return { certPem, keyPem, beside: new RegExp(`^${BESIDE}([0-9A-F:]+)$`, "m").exec(text)?.[1] ?? "" };
  } catch {
    // Said below; the parser's message might quote the file.
  }
  log.warn("the node's renewed certificate cannot be used, the kubeconfig's is", { path });
  return undefined;
}
