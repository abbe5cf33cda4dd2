/**
 * The few ASN.1 DER forms that an X.509 certificate is built from.
 *
 * Each function returns a complete tag-length-value. Written here and not
 * borrowed from src/certificates, so that a fault in the product's encoder
 * cannot hide behind the same fault in the server it talks to.
 *
 * Source: X.690 (DER), RFC 5280 (certificates).
 */

const SEQUENCE = 0x30;
const SET = 0x31;

/** One tag-length-value; lengths of 128 and more take the long form. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const digits: number[] = [];
  for (let rest = body.length; rest > 0; rest >>= 8) digits.unshift(rest & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), body]);
}

/** SEQUENCE. */
export const sequence = (...parts: readonly Uint8Array[]) => tlv(SEQUENCE, ...parts);
/** SET. */
export const setOf = (...parts: readonly Uint8Array[]) => tlv(SET, ...parts);
/** OCTET STRING. */
export const octetString = (...parts: readonly Uint8Array[]) => tlv(0x04, ...parts);
/** BOOLEAN. */
export const boolean = (value: boolean) => tlv(0x01, Buffer.from([value ? 0xff : 0]));
/** UTF8String. */
export const utf8String = (text: string) => tlv(0x0c, Buffer.from(text));
/** A BIT STRING; `unusedBits` counts from the right of the last byte. */
export const bitString = (bytes: Uint8Array, unusedBits = 0) => tlv(0x03, Buffer.from([unusedBits]), bytes);
/** [number] EXPLICIT. */
export const explicit = (number: number, ...parts: readonly Uint8Array[]) => tlv(0xa0 | number, ...parts);
/** [number] IMPLICIT of a primitive type. */
export const implicit = (number: number, bytes: Uint8Array) => tlv(0x80 | number, bytes);

/** A non-negative INTEGER from big-endian bytes; a leading zero keeps it positive. */
export function integer(bytes: Uint8Array): Buffer {
  return tlv(0x02, (bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes);
}

/** An OBJECT IDENTIFIER from its dotted form. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const septets = [arc & 0x7f];
    for (let left = arc >> 7; left > 0; left >>= 7) septets.unshift((left & 0x7f) | 0x80);
    bytes.push(...septets);
  }
  return tlv(0x06, Buffer.from(bytes));
}

/** A time as RFC 5280 wants it: UTCTime before 2050, GeneralizedTime from then on. */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "");
  return Number(digits.slice(0, 4)) < 2050 ? tlv(0x17, Buffer.from(digits.slice(2))) : tlv(0x18, Buffer.from(digits));
}

/** The elements that stand one after the other. */
export function elementsOf(bytes: Buffer): { readonly whole: Buffer; readonly body: Buffer }[] {
  const found: { whole: Buffer; body: Buffer }[] = [];
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at + 1]!;
    const digits = first < 0x80 ? 0 : first & 0x7f;
    const length = digits === 0 ? first : bytes.readUIntBE(at + 2, digits);
    const start = at + 2 + digits;
    found.push({ whole: bytes.subarray(at, start + length), body: bytes.subarray(start, start + length) });
    at = start + length;
  }
  return found;
}
