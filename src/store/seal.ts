/**
 * Sealing what must not lie open on a card: Secrets and their like.
 *
 * AES-256-GCM, the row's identity as associated data, so that a sealed value
 * moved to another row does not open. The master key comes from a systemd
 * credential, else from a root-only file beside the database; the second does
 * not stop a thief of the whole card, and `status` says which it is.
 *
 *   sealed value = nonce (12 bytes) | ciphertext | tag (16 bytes)
 *
 * Invariant: a key file that is there is never written over. One that cannot
 * be read now may be readable tomorrow, and what it sealed with it.
 */

import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { existsSync, lstatSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Seals and opens values, and names tokens without keeping them. */
export class Sealer {
  readonly #master: Uint8Array;
  readonly #key: Buffer;
  readonly #hashKey: Buffer;
  readonly #sumKey: Buffer;
  #source: "credential" | "file" | "memory";

  constructor(master: Uint8Array, source: "credential" | "file" | "memory") {
    this.#master = master;
    this.#source = source;
    this.#key = Buffer.from(hkdfSync("sha256", master, "", "holdfast seal v1", KEY_BYTES));
    this.#hashKey = Buffer.from(hkdfSync("sha256", master, "", "holdfast keyed hash v1", KEY_BYTES));
    this.#sumKey = Buffer.from(hkdfSync("sha256", master, "", "holdfast row sum v1", KEY_BYTES));
  }

  /** Where the key comes from; "memory" dies with the process. */
  get source(): "credential" | "file" | "memory" {
    return this.#source;
  }

  /** @param row names the row the value belongs to. */
  seal(value: Uint8Array, row: string): Buffer {
    // 96 random bits: a node seals far fewer than the 2^32 values at which they could meet.
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(Buffer.from(row));
    return Buffer.concat([nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]);
  }

  /** @returns undefined when the value was not sealed for this row with this key. */
  open(sealed: Uint8Array, row: string): Buffer | undefined {
    if (sealed.length < NONCE_BYTES + TAG_BYTES) return undefined;
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#key, sealed.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(Buffer.from(row));
      decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
      return Buffer.concat([
        decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)),
        decipher.final(),
      ]);
    } catch {
      return undefined;
    }
  }

  /** Tells this key from another, and nothing about it; a positive number of 48 bits. */
  get keyName(): number {
    return Number.parseInt(this.hash("the name of this key").slice(0, 12), 16) || 1;
  }

  /** A row's sum: HMAC-SHA256 over what it is the row of and its value, cut to a signed 32-bit number. */
  sum(row: string, value: Uint8Array): number {
    // A third of the time of node:crypto's.
    const hasher = new Bun.CryptoHasher("sha256", this.#sumKey);
    return hasher.update(`${row.length}\n${row}`).update(value).digest().readInt32BE(0);
  }

  /** HMAC-SHA256, hex. */
  hash(text: string | Uint8Array): string {
    return createHmac("sha256", this.#hashKey).update(text).digest("hex");
  }

  /** Writes a key that is in no file yet, once the folder can be written: what was sealed meanwhile outlives the process. */
  keep(stateDir: string): void {
    if (this.#source === "credential") return;
    const path = keyPath(stateDir);
    if (isThere(path)) return;
    try {
      writeFileAtomically(path, this.#master, 0o600);
      this.#source = "file";
    } catch {
      // It stays in memory, and `status` says so.
    }
  }
}

/** The sealer of a state folder: systemd's credential, else the key file, made on first use; else a key that dies with the process. */
export function openSealer(
  stateDir: string,
  isReadOnly = false,
  credentialsDirectory = process.env["CREDENTIALS_DIRECTORY"],
): Sealer {
  if (credentialsDirectory !== undefined && credentialsDirectory !== "") {
    const key = readKey(join(credentialsDirectory, "holdfast-seal-key"));
    if (key !== undefined) return new Sealer(key, "credential");
  }
  const path = keyPath(stateDir);
  const known = readKey(path);
  if (known !== undefined) return new Sealer(known, "file");
  const sealer = new Sealer(randomBytes(KEY_BYTES), "memory");
  // Who only looks must not leave a key that a later daemon would take for its own.
  if (isReadOnly) return sealer;
  setTornAside(path);
  sealer.keep(stateDir);
  return sealer;
}

/** Why the credential that systemd hands in is no key; undefined when it is one, or there is none. */
export function credentialProblem(
  credentialsDirectory = process.env["CREDENTIALS_DIRECTORY"] ?? "",
): string | undefined {
  const path = join(credentialsDirectory, "holdfast-seal-key");
  if (credentialsDirectory === "" || !isThere(path)) return undefined;
  try {
    const { length } = readFileSync(path);
    return length >= KEY_BYTES ? undefined : `it has ${length} bytes, and a key has ${KEY_BYTES} or more`;
  } catch (error) {
    return `it cannot be read (${(error as { code?: string }).code})`;
  }
}

function keyPath(stateDir: string): string {
  return join(stateDir, "keys", "seal.key");
}

function readKey(path: string): Buffer | undefined {
  try {
    const key = readFileSync(path);
    return key.length >= KEY_BYTES ? key : undefined;
  } catch {
    return undefined;
  }
}

/** A file that can be read and is too short is no key: half of one left by a power cut. */
function setTornAside(path: string): void {
  try {
    if (existsSync(path) && readFileSync(path).length < KEY_BYTES) renameSync(path, `${path}.damaged`);
  } catch {
    // Unreadable: left as it is.
  }
}

function isThere(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ENOENT";
  }
}
