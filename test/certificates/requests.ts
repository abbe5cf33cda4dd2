/**
 * Certificate requests to try the reader on: honest ones by openssl, and ones
 * built byte by byte, with a signature that fits whatever stands in them.
 */

import { spawnSync } from "node:child_process";
import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bitString, element, integer, nameAttribute, objectId, pem, sequence } from "../../src/certificates/der.ts";

/** A pair of keys as node:crypto makes them. */
export interface Keys {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** The parts of a request, each of which can be replaced by something evil. */
export interface RequestParts {
  readonly keys?: Keys;
  readonly version?: Buffer;
  /** The whole Name. */
  readonly subject?: Buffer;
  readonly publicKey?: Buffer;
  /** Names, each one GeneralName; none: no extension. */
  readonly names?: readonly Buffer[];
  /** Replaces the extensions that hold the names. */
  readonly extensions?: readonly Buffer[];
  /** Replaces all attributes. */
  readonly attributes?: readonly Buffer[];
  /** Stands in the body behind the attributes. */
  readonly behind?: Buffer;
  readonly algorithm?: Buffer;
  /** Of the signature; undefined for Ed25519. */
  readonly hash?: string;
  /** Changes the whole after it was signed. */
  readonly finish?: (body: Buffer, algorithm: Buffer, signature: Buffer) => Buffer;
}

export const openssl = spawnSync("openssl", ["version"]).status === 0;

export const ecKeys = (namedCurve = "P-256"): Keys => generateKeyPairSync("ec", { namedCurve });
export const rsaKeys = (modulusLength = 2048, publicExponent = 65_537): Keys =>
  generateKeyPairSync("rsa", { modulusLength, publicExponent });
export const edKeys = (): Keys => generateKeyPairSync("ed25519");

export const ECDSA_SHA256 = sequence(objectId("1.2.840.10045.4.3.2"));
export const RSA_SHA256 = sequence(objectId("1.2.840.113549.1.1.11"), Buffer.of(5, 0));
export const ED25519 = sequence(objectId("1.3.101.112"));

export const CN = "2.5.4.3";
export const O = "2.5.4.10";
export const dns = (name: string) => element(0x82, Buffer.from(name));
export const ip = (...bytes: readonly number[]) => element(0x87, Buffer.from(bytes));
export const email = (name: string) => element(0x81, Buffer.from(name));
export const uri = (name: string) => element(0x86, Buffer.from(name));

/** The subject that kubelet gives itself. */
export const nodeSubject = (name: string) =>
  sequence(nameAttribute(O, "system:nodes"), nameAttribute(CN, `system:node:${name}`));

/** One extension as it stands in a request. */
export function extension(id: string, value: Buffer, critical?: Buffer): Buffer {
  return sequence(objectId(id), ...(critical === undefined ? [] : [critical]), element(0x04, value));
}

/** The attribute that asks for extensions. */
export function extensionRequest(...extensions: readonly Buffer[]): Buffer {
  return sequence(objectId("1.2.840.113549.1.9.14"), element(0x31, sequence(...extensions)));
}

/** A request as DER. */
export function mintRequestDer(parts: RequestParts = {}): Buffer {
  const keys = parts.keys ?? ecKeys();
  const kind = keys.publicKey.asymmetricKeyType;
  const names = parts.names ?? [];
  const extensions = parts.extensions ?? (names.length === 0 ? [] : [extension("2.5.29.17", sequence(...names))]);
  const attributes = parts.attributes ?? (extensions.length === 0 ? [] : [extensionRequest(...extensions)]);
  const body = sequence(
    parts.version ?? integer(Buffer.of(0)),
    parts.subject ?? nodeSubject("gw-1"),
    parts.publicKey ?? keys.publicKey.export({ type: "spki", format: "der" }),
    element(0xa0, ...attributes),
    parts.behind ?? Buffer.alloc(0),
  );
  const algorithm = parts.algorithm ?? { rsa: RSA_SHA256, ed25519: ED25519 }[kind as string] ?? ECDSA_SHA256;
  const hash = "hash" in parts ? parts.hash : kind === "ed25519" ? undefined : "sha256";
  const signature = sign(hash, body, keys.privateKey);
  return parts.finish?.(body, algorithm, signature) ?? sequence(body, algorithm, bitString(signature));
}

/** A request as PEM. */
export function mintRequest(parts: RequestParts = {}): string {
  return pem("CERTIFICATE REQUEST", mintRequestDer(parts));
}

/**
 * A request made by openssl, with a new key.
 *
 * @param key as `openssl req -newkey` takes it, and `-pkeyopt` values for it.
 */
export function opensslRequest(options: {
  readonly subject: string;
  readonly key?: readonly string[];
  readonly names?: readonly string[];
  readonly args?: readonly string[];
}): string {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-request-"));
  try {
    const key = options.key ?? ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const { names = [], args = [] } = options;
    const result = spawnSync("openssl", [
      "req",
      "-new",
      "-nodes",
      "-newkey",
      ...key,
      "-keyout",
      join(folder, "key"),
      "-subj",
      options.subject,
      ...(names.length === 0 ? [] : ["-addext", `subjectAltName=${names.join(",")}`]),
      ...args,
    ]);
    if (result.status !== 0) throw new Error(`Cannot make a request: ${result.stderr.toString()}`);
    return result.stdout.toString();
  } finally {
    rmSync(folder, { recursive: true });
  }
}
