/**
 * Sealing what must not lie open on a card: Secrets and their like.
 *
 * AES-256-GCM, the row's identity as associated data, so that a sealed value
 * moved to another row does not open. The master key comes from a systemd
 * credential, else from a root-only file beside the database; the second does
 * not stop a thief of the whole card, and `status` says which it is.
 *
 *   sealed value = nonce (12 bytes) | ciphertext | tag (16 bytes)
 */

import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Seals and opens values, and names tokens without keeping them. */
export class Sealer {
  #key: Buffer;
  #hashKey: Buffer;

  constructor(
    master: Uint8Array,
    readonly source: "credential" | "file" | "memory",
  ) {
    this.#key = Buffer.from(hkdfSync("sha256", master, "", "holdfast seal v1", KEY_BYTES));
    this.#hashKey = Buffer.from(hkdfSync("sha256", master, "", "holdfast keyed hash v1", KEY_BYTES));
  }

  /** @param row names the row the value belongs to. */
  seal(value: Uint8Array, row: string): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(Buffer.from(row));
    return Buffer.concat([nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]);
  }

  /** @returns undefined when the value was not sealed for this row with this key. */
  open(sealed: Uint8Array, row: string): Buffer | undefined {
    if (sealed.length < NONCE_BYTES + TAG_BYTES) return undefined;
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#key, sealed.subarray(0, NONCE_BYTES));
      decipher.setAAD(Buffer.from(row));
      decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
    } catch {
      return undefined;
    }
  }

  /** HMAC-SHA256, hex. */
  hash(text: string): string {
    return createHmac("sha256", this.#hashKey).update(text).digest("hex");
  }
}

/** The sealer of a state folder: systemd's credential, else the key file, made on first use; else a key that dies with the process. */
export function openSealer(stateDir: string, isReadOnly = false, credentialsDirectory = process.env["CREDENTIALS_DIRECTORY"]): Sealer {
  if (credentialsDirectory !== undefined && credentialsDirectory !== "") {
    const key = readKey(join(credentialsDirectory, "holdfast-seal-key"));
    if (key !== undefined) return new Sealer(key, "credential");
  }
  const path = join(stateDir, "keys", "seal.key");
  const known = readKey(path);
  if (known !== undefined) return new Sealer(known, "file");
  const made = randomBytes(KEY_BYTES);
  // Who only looks must not leave a key that a later daemon would take for its own.
  if (isReadOnly) return new Sealer(made, "memory");
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.${process.pid}.new`;
    const file = openSync(temporary, "w", 0o600);
    writeSync(file, made);
    fsyncSync(file);
    closeSync(file);
    chmodSync(temporary, 0o600);
    renameSync(temporary, path);
    return new Sealer(made, "file");
  } catch {
    return new Sealer(made, "memory");
  }
}

function readKey(path: string): Buffer | undefined {
  try {
    const key = readFileSync(path);
    return key.length >= KEY_BYTES ? key : undefined;
  } catch {
    return undefined;
  }
}
