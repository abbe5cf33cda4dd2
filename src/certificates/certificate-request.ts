/**
 * What a certificate request (PKCS#10) asks for, when nothing in it is left
 * unread.
 *
 * It is read to decide whether a machine may be given a certificate without a
 * person looking at it. So the rule is not "find the names" but "account for
 * every byte": whatever this file has no word for is an error, and the request
 * waits for a person. A subject's part of several attributes, an attribute or
 * an extension that stands twice, names of unusual kinds, a key in an unusual
 * encoding, a signature that does not fit: all refused.
 *
 * Why no library: the packages are few on purpose, and one that reads
 * everything is the opposite of what is wanted.
 *
 *   CertificationRequest     ::= SEQUENCE { info, SEQUENCE { OID, params }, BIT STRING }
 *   CertificationRequestInfo ::= SEQUENCE { INTEGER 0, Name, SubjectPublicKeyInfo, [0] SET OF Attribute }
 *   Attribute                ::= SEQUENCE { OID, SET OF value }        only extensionRequest, with one value
 *   Name                     ::= SEQUENCE OF SET { SEQUENCE { OID, string } }
 *
 * Source: RFC 2986 (PKCS#10), RFC 2985 5.4.2 (extensionRequest), RFC 5280 4.2.1.6 (names).
 */

import { createPublicKey, verify, type KeyObject } from "node:crypto";
import { DerError, DerReader, TAG } from "./der-reader.ts";

/** One attribute of a subject: "CN", "O", or an object identifier in dotted form. */
export interface SubjectAttribute {
  readonly type: string;
  readonly value: string;
}

/** What the key is. */
export interface RequestKey {
  readonly kind: "ecdsa" | "rsa" | "ed25519";
  /** Of the curve, the modulus, or 256. */
  readonly bits: number;
}

/** A request whose signature was made with the key it names. */
export interface CertificateRequest {
  /** In the order given. */
  readonly subject: readonly SubjectAttribute[];
  readonly dnsNames: readonly string[];
  /** IPv4 in dots; IPv6 as eight groups without leading zeros, nothing left out. */
  readonly ipAddresses: readonly string[];
  readonly emails: readonly string[];
  readonly uris: readonly string[];
  /** Of all requested extensions, the one for names included. */
  readonly extensions: readonly { readonly id: string; readonly isCritical: boolean }[];
  readonly key: RequestKey;
}

/** The extension that holds a request's names. */
export const SUBJECT_ALT_NAME = "2.5.29.17";

const MAX_BYTES = 16_384;
const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
const SUBJECT_TYPES: Readonly<Record<string, string>> = { "2.5.4.3": "CN", "2.5.4.10": "O" };
/** Groups are organisations, and there may be several. */
const REPEATABLE = new Set(["O"]);
const NULL = Buffer.of(TAG.null, 0);
const NOTHING = Buffer.alloc(0);

interface SignatureAlgorithm {
  readonly keyKind: RequestKey["kind"];
  /** Undefined: the scheme hashes by itself. */
  readonly hash: string | undefined;
  readonly parameters: Buffer;
}

const SIGNATURES: Readonly<Record<string, SignatureAlgorithm>> = {
  "1.2.840.10045.4.3.2": { keyKind: "ecdsa", hash: "sha256", parameters: NOTHING },
  "1.2.840.10045.4.3.3": { keyKind: "ecdsa", hash: "sha384", parameters: NOTHING },
  "1.2.840.10045.4.3.4": { keyKind: "ecdsa", hash: "sha512", parameters: NOTHING },
  "1.2.840.113549.1.1.11": { keyKind: "rsa", hash: "sha256", parameters: NULL },
  "1.2.840.113549.1.1.12": { keyKind: "rsa", hash: "sha384", parameters: NULL },
  "1.2.840.113549.1.1.13": { keyKind: "rsa", hash: "sha512", parameters: NULL },
  "1.3.101.112": { keyKind: "ed25519", hash: undefined, parameters: NOTHING },
};

const EC_KEY = "1.2.840.10045.2.1";
const RSA_KEY = "1.2.840.113549.1.1.1";
const ED25519_KEY = "1.3.101.112";
const CURVE_BITS: Readonly<Record<string, number>> = {
  "1.2.840.10045.3.1.7": 256,
  "1.3.132.0.34": 384,
  "1.3.132.0.35": 521,
};

/**
 * Reads a request in PEM.
 *
 * @param pem one block CERTIFICATE REQUEST, with nothing before it and only line ends after it.
 * @throws {DerError} when there is anything in it that is not understood, or its signature does not fit its key.
 */
export function readCertificateRequest(pem: string): CertificateRequest {
  return readRequestDer(derOf(pem));
}

/** The same from DER. */
export function readRequestDer(der: Uint8Array): CertificateRequest {
  if (der.length > MAX_BYTES) throw new DerError("request", `more than ${MAX_BYTES} bytes`);
  const document = new DerReader(der, "request");
  const outer = document.inside(TAG.sequence, "request");
  document.end();
  const info = outer.expect(TAG.sequence, "body");
  const algorithm = outer.inside(TAG.sequence, "signature algorithm");
  const signature = outer.bits();
  outer.end();

  const body = new DerReader(info.body, "body");
  const version = body.expect(TAG.integer, "version").body;
  if (version.length !== 1 || version[0] !== 0) throw new DerError("body", "version is not 0");
  const subject = readSubject(body.inside(TAG.sequence, "subject"));
  const { key, publicKey } = readKey(body.expect(TAG.sequence, "public key").whole);
  const asked = readAttributes(body.inside(TAG.context0, "attributes"));
  body.end();
  checkSignature(algorithm, { bytes: info.whole, signature, key, publicKey });
  return { subject, ...asked, key };
}

/** Only canonical base64 in lines: what another reader might skip does not get here. */
function derOf(pem: string): Uint8Array {
  if (pem.length > 2 * MAX_BYTES) throw new DerError("request", `more than ${MAX_BYTES} bytes`);
  const [, text] =
    /^-----BEGIN CERTIFICATE REQUEST-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n)+)-----END CERTIFICATE REQUEST-----[\r\n]*$/.exec(
      pem,
    ) ?? [];
  if (text === undefined) throw new DerError("request", "not one PEM block CERTIFICATE REQUEST");
  const plain = text.replaceAll(/\r?\n/g, "");
  const der = Buffer.from(plain, "base64");
  if (der.toString("base64") !== plain) throw new DerError("request", "base64 that has more than one reading");
  return der;
}

function readSubject(name: DerReader): SubjectAttribute[] {
  const subject: SubjectAttribute[] = [];
  for (const { tag, body } of name.rest()) {
    if (tag !== TAG.set) throw new DerError("subject", "no set where it should be");
    const set = new DerReader(body, "subject");
    const attribute = set.inside(TAG.sequence, "subject");
    if (!set.isAtEnd) throw new DerError("subject", "several attributes in one part");
    const id = attribute.objectId();
    const type = SUBJECT_TYPES[id] ?? id;
    if (!REPEATABLE.has(type) && subject.some((other) => other.type === type))
      throw new DerError("subject", `attribute ${type} stands twice`);
    subject.push({ type, value: readString(attribute) });
    attribute.end();
  }
  return subject;
}

function readString(attribute: DerReader): string {
  const { tag, body } = attribute.next();
  if (tag !== TAG.utf8 && tag !== TAG.printable) throw new DerError("subject", "text of an unusual kind");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    throw new DerError("subject", "text is not UTF-8");
  }
  if (tag === TAG.printable && !/^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text))
    throw new DerError("subject", "characters that a PrintableString does not have");
  // A zero byte ends the name for some readers; nobody can see the others.
  if (text === "" || /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text))
    throw new DerError("subject", "empty text, or characters that cannot be seen");
  return text;
}

/** Structure first, then the key itself; a key that is written otherwise when written again was not canonical. */
function readKey(whole: Uint8Array): { readonly key: RequestKey; readonly publicKey: KeyObject } {
  const where = "public key";
  const outer = new DerReader(whole, where).inside(TAG.sequence, where);
  const algorithm = outer.inside(TAG.sequence, where);
  const id = algorithm.objectId();
  const curve = id === EC_KEY ? algorithm.objectId() : undefined;
  if (id === RSA_KEY && algorithm.expect(TAG.null, "NULL").body.length > 0)
    throw new DerError(where, "NULL with a body");
  algorithm.end();
  outer.bits();
  outer.end();
  const curveBits = curve === undefined ? undefined : CURVE_BITS[curve];
  const isKnown = curveBits !== undefined || id === RSA_KEY || id === ED25519_KEY;
  if (!isKnown) throw new DerError(where, `kind ${curve ?? id} is not known here`);
  let publicKey: KeyObject;
  let isCanonical: boolean;
  try {
    publicKey = createPublicKey({ key: Buffer.from(whole), format: "der", type: "spki" });
    isCanonical = publicKey.export({ type: "spki", format: "der" }).equals(whole);
  } catch {
    throw new DerError(where, "no valid key");
  }
  if (!isCanonical) throw new DerError(where, "not in its usual form");
  if (curveBits !== undefined) return { key: { kind: "ecdsa", bits: curveBits }, publicKey };
  if (id === ED25519_KEY) return { key: { kind: "ed25519", bits: 256 }, publicKey };
  const { modulusLength = 0, publicExponent } = publicKey.asymmetricKeyDetails ?? {};
  // Everybody's exponent; small ones have a history, and large ones cost whoever verifies.
  if (publicExponent !== 65_537n) throw new DerError(where, "RSA with an exponent other than 65537");
  return { key: { kind: "rsa", bits: modulusLength }, publicKey };
}

type Asked = Pick<CertificateRequest, "dnsNames" | "ipAddresses" | "emails" | "uris" | "extensions">;

function readAttributes(attributes: DerReader): Asked {
  const names = { dnsNames: [], ipAddresses: [], emails: [], uris: [] };
  if (attributes.isAtEnd) return { ...names, extensions: [] };
  const attribute = attributes.inside(TAG.sequence, "attributes");
  const id = attribute.objectId();
  if (id !== EXTENSION_REQUEST) throw new DerError("attributes", `attribute ${id} is not known here`);
  const values = attribute.inside(TAG.set, "requested extensions");
  attribute.end();
  if (!attributes.isAtEnd) throw new DerError("attributes", "more than one attribute");
  const list = values.inside(TAG.sequence, "requested extensions");
  values.end();
  return readExtensions(list);
}

function readExtensions(list: DerReader): Asked {
  const extensions: { id: string; isCritical: boolean }[] = [];
  let names: Omit<Asked, "extensions"> = { dnsNames: [], ipAddresses: [], emails: [], uris: [] };
  for (const { tag, body } of list.rest()) {
    if (tag !== TAG.sequence) throw new DerError("requested extensions", "no extension where it should be");
    const extension = new DerReader(body, "requested extensions");
    const id = extension.objectId();
    const isCritical = extension.flag();
    const value = extension.expect(TAG.octetString, "value").body;
    extension.end();
    if (extensions.some((other) => other.id === id))
      throw new DerError("requested extensions", `extension ${id} stands twice`);
    if (id === SUBJECT_ALT_NAME) names = readNames(value);
    else if (isCritical) throw new DerError("requested extensions", `critical extension ${id} is not known here`);
    extensions.push({ id, isCritical });
  }
  if (extensions.length === 0) throw new DerError("requested extensions", "empty list");
  return { ...names, extensions };
}

/** GeneralNames: [1] mail, [2] DNS, [6] URI, [7] address; the other five kinds are refused. */
function readNames(value: Uint8Array): Omit<Asked, "extensions"> {
  const document = new DerReader(value, "names");
  const list = document.inside(TAG.sequence, "names");
  document.end();
  const found = { dnsNames: [] as string[], ipAddresses: [] as string[], emails: [] as string[], uris: [] as string[] };
  if (list.isAtEnd) throw new DerError("names", "empty list");
  for (const { tag, body } of list.rest()) {
    if (tag === 0x81) found.emails.push(visibleAscii(body));
    else if (tag === 0x82) found.dnsNames.push(visibleAscii(body));
    else if (tag === 0x86) found.uris.push(visibleAscii(body));
    else if (tag === 0x87) found.ipAddresses.push(addressOf(body));
    else throw new DerError("names", "a name of an unusual kind");
  }
  return found;
}

function visibleAscii(body: Uint8Array): string {
  const text = Buffer.from(body).toString("latin1");
  if (!/^[\x21-\x7e]+$/.test(text)) throw new DerError("names", "empty, or characters other than visible ASCII");
  return text;
}

function addressOf(body: Uint8Array): string {
  if (body.length === 4) return body.join(".");
  if (body.length !== 16) throw new DerError("names", "an address of neither 4 nor 16 bytes");
  return Array.from({ length: 8 }, (_, i) => ((body[2 * i]! << 8) | body[2 * i + 1]!).toString(16)).join(":");
}

function checkSignature(
  algorithm: DerReader,
  signed: {
    readonly bytes: Uint8Array;
    readonly signature: Uint8Array;
    readonly key: RequestKey;
    readonly publicKey: KeyObject;
  },
): void {
  const where = "signature algorithm";
  const id = algorithm.objectId();
  const known = SIGNATURES[id];
  if (known === undefined || known.keyKind !== signed.key.kind) throw new DerError(where, `${id} does not fit the key`);
  const parameters = algorithm.isAtEnd ? NOTHING : algorithm.next().whole;
  algorithm.end();
  if (!known.parameters.equals(parameters)) throw new DerError(where, "unusual parameters");
  let isRight: boolean;
  try {
    isRight = verify(known.hash, signed.bytes, signed.publicKey, signed.signature);
  } catch {
    isRight = false;
  }
  if (!isRight) throw new DerError("signature", "not made with the key of the request");
}
