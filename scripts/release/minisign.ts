/**
 * Signatures that minisign, signify and openssl can check: Ed25519 over the file itself.
 *
 *   public key   "Ed" | key number, 8 bytes | key, 32 bytes
 *   secret key   "Ed" | no KDF, 2 zeroes | "B2" | 48 zeroes | key number | seed | key | checksum, 32 bytes
 *   signature    "Ed" | key number | signature, 64 bytes
 *
 * each in base64 below an untrusted comment; a signature is followed by a
 * trusted comment and a signature over both. "Ed" signs the file and "ED" its
 * BLAKE2b hash: the former is minisign's older form and signify's only one, and
 * a manifest is small.
 *
 * Source: https://jedisct1.github.io/minisign/, signify(1).
 */

import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  verify,
  type KeyObject,
} from "node:crypto";

/** A key to sign with. */
export interface SigningKey {
  readonly id: Buffer;
  readonly key: KeyObject;
  /** Its public half, 32 bytes. */
  readonly publicBytes: Buffer;
}

const ALGORITHM = Buffer.from("Ed");
/** PKCS #8 and SubjectPublicKeyInfo of Ed25519 (RFC 8410) before the 32 bytes of the key. */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI = Buffer.from("302a300506032b6570032100", "hex");
const SECRET_BYTES = 158;

/** Makes a key. */
export function newSigningKey(): SigningKey {
  const { privateKey } = generateKeyPairSync("ed25519");
  return keyOf(randomBytes(8), privateKey.export({ format: "der", type: "pkcs8" }).subarray(PKCS8.length));
}

function keyOf(id: Buffer, seed: Buffer): SigningKey {
  const key = createPrivateKey({ key: Buffer.concat([PKCS8, seed]), format: "der", type: "pkcs8" });
  const publicBytes = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(SPKI.length);
  return { id, key, publicBytes };
}

/** The line that install.sh carries, and the second one of a public key's file. */
export function publicKeyLine({ id, publicBytes }: Pick<SigningKey, "id" | "publicBytes">): string {
  return Buffer.concat([ALGORITHM, id, publicBytes]).toString("base64");
}

/** A public key's file. */
export function publicKeyFile(key: SigningKey): string {
  return `untrusted comment: minisign public key ${numberOf(key.id)}\n${publicKeyLine(key)}\n`;
}

/** A secret key's file without a password, as `minisign -G -W` makes it. */
export function secretKeyFile({ id, key, publicBytes }: SigningKey): string {
  const seed = key.export({ format: "der", type: "pkcs8" }).subarray(PKCS8.length);
  const body = Buffer.concat([id, seed, publicBytes]);
  const head = Buffer.concat([ALGORITHM, Buffer.alloc(2), Buffer.from("B2"), Buffer.alloc(48)]);
  return `untrusted comment: minisign encrypted secret key\n${Buffer.concat([head, body, checksum(body)]).toString("base64")}\n`;
}

/** Reads a secret key's file. @throws {Error} on one with a password, or that is none. */
export function readSecretKey(text: string): SigningKey {
  const bytes = Buffer.from(text.split("\n")[1] ?? "", "base64");
  if (bytes.length !== SECRET_BYTES || !bytes.subarray(0, 2).equals(ALGORITHM))
    throw new Error("Cannot sign: the key's file holds no minisign secret key");
  if (bytes.readUInt16BE(2) !== 0)
    throw new Error("Cannot sign: the secret key has a password; make one without: bun run release --new-key FILE");
  const body = bytes.subarray(54, 126);
  if (!bytes.subarray(126).equals(checksum(body))) throw new Error("Cannot sign: the secret key is damaged");
  return keyOf(Buffer.from(body.subarray(0, 8)), Buffer.from(body.subarray(8, 40)));
}

function checksum(body: Uint8Array): Buffer {
  return Buffer.from(new Bun.CryptoHasher("blake2b256").update(ALGORITHM).update(body).digest());
}

/** A signature's file. @param trusted is signed too, and shown by minisign. */
export function signatureFile(content: Uint8Array, { id, key }: SigningKey, trusted: string): string {
  const signature = sign(null, content, key);
  const whole = sign(null, Buffer.concat([signature, Buffer.from(trusted)]), key);
  const line = Buffer.concat([ALGORITHM, id, signature]).toString("base64");
  return `untrusted comment: signature of a Holdfast release\n${line}\ntrusted comment: ${trusted}\n${whole.toString("base64")}\n`;
}

/** Whether a signature's file is one over this content by this public key (its line). */
export function isSignedBy(content: Uint8Array, signature: string, publicLine: string): boolean {
  const [, line = "", comment = "", whole = ""] = signature.split("\n");
  const [signed, known] = [Buffer.from(line, "base64"), Buffer.from(publicLine, "base64")];
  if (signed.length !== 74 || known.length !== 42 || !signed.subarray(0, 10).equals(known.subarray(0, 10)))
    return false;
  const key = createPublicKey({ key: Buffer.concat([SPKI, known.subarray(10)]), format: "der", type: "spki" });
  const bare = signed.subarray(10);
  const trusted = Buffer.concat([bare, Buffer.from(comment.replace(/^trusted comment: /, ""))]);
  return verify(null, content, key, bare) && verify(null, trusted, key, Buffer.from(whole, "base64"));
}

/** As minisign prints it. */
function numberOf(id: Buffer): string {
  return Buffer.from(id).reverse().toString("hex").toUpperCase();
}
