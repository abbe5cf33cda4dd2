/**
 * Key pairs of the state folder: STATE/pki/NAME.crt and NAME.key.
 *
 * Invariant: a key pair is used only after it is safely on disk, or from
 * memory with a warning when the disk cannot be written. What cannot be used
 * is set aside, never deleted.
 */

import { X509Certificate, createPrivateKey } from "node:crypto";
import { existsSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import type { Log } from "../base/log.ts";
import type { KeyPair } from "./authority.ts";
import { certificateBlocks } from "./pem.ts";

/** Where a pair lies. */
export interface PairPaths {
  readonly cert: string;
  readonly key: string;
}

/** The place of a pair. */
export function pairPaths(stateDir: string, name: string): PairPaths {
  return { cert: join(stateDir, "pki", `${name}.crt`), key: join(stateDir, "pki", `${name}.key`) };
}

/**
 * Reads a pair. Of several certificates the one that the key fits comes first
 * in what is returned, the others follow: between a CA's renewal and a crash
 * the key alone says which of two is in office.
 */
export function readPair(
  paths: PairPaths,
  log: Log,
  isFit: (leaf: X509Certificate) => boolean = () => true,
): KeyPair | undefined {
  if (!existsSync(paths.cert) && !existsSync(paths.key)) return undefined;
  try {
    const keyPem = readFileSync(paths.key, "utf8");
    const certPem = readFileSync(paths.cert, "utf8");
    const key = createPrivateKey(keyPem);
    const blocks = certificateBlocks(certPem);
    if (blocks.length === 0) throw new Error("no PEM certificate or key");
    const first = blocks.find((block) => new X509Certificate(block).checkPrivateKey(key));
    if (first === undefined) throw new Error("key and certificate do not belong together");
    if (!isFit(new X509Certificate(first))) throw new Error("certificate is no self-signed CA");
    return {
      certPem: [first, ...blocks.filter((block) => block !== first)].map((block) => `${block}\n`).join(""),
      keyPem,
    };
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

/** Writes a pair, the key first. @returns whether it is on disk. */
export function keepPair(paths: PairPaths, pair: KeyPair, log: Log): boolean {
  try {
    writeFileAtomically(paths.key, pair.keyPem, 0o600);
    writeFileAtomically(paths.cert, pair.certPem, 0o644);
    return true;
  } catch (error) {
    log.warn(
      "certificate could not be written and is used from memory: clients that trust it must be told again after a restart",
      { path: paths.cert, reason: String((error as { code?: string }).code ?? error) },
    );
    return false;
  }
}

/** The system's code, or what is wrong in words; a parser's own message might quote what it choked on. */
function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: string };
  if (typeof code !== "string") return message ?? "unknown";
  return /^E[A-Z]+$/.test(code) ? code : "no PEM certificate or key";
}
