/**
 * The few ASN.1 DER forms that a certificate is built from.
 *
 * Each function returns one complete tag-length-value. A library would cost
 * 5 to 12 MB of memory on a gateway for these sixty lines.
 *
 * Source: X.690 (DER), RFC 5280 (certificates).
 */

/** One tag-length-value; lengths of 128 and more take the long form. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < 0x80) return Buffer.concat([Buffer.of(tag, body.length), body]);
  const length: number[] = [];
  for (let left = body.length; left > 0; left >>= 8) length.unshift(left & 0xff);
  return Buffer.concat([Buffer.of(tag, 0x80 | length.length, ...length), body]);
}

/** SEQUENCE. */
export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(0x30, ...parts);
}

/** OBJECT IDENTIFIER, from its dotted form. */
export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const arcs = [first * 40 + second, ...rest];
  return element(
    0x06,
    Buffer.from(
      arcs.flatMap((arc) => {
        const septets = [arc & 0x7f];
        for (let left = arc >> 7; left > 0; left >>= 7) septets.unshift((left & 0x7f) | 0x80);
        return septets;
      }),
    ),
  );
}

/** INTEGER, not negative, from big-endian bytes. */
export function integer(bytes: Uint8Array): Buffer {
  return element(0x02, ((bytes[0] ?? 0) & 0x80) === 0 ? bytes : Buffer.concat([Buffer.of(0), bytes]));
}

/** BIT STRING; `unusedBits` counts from the right of the last byte. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Buffer {
  return element(0x03, Buffer.of(unusedBits), bytes);
}

/** A moment: UTCTime before 2050, GeneralizedTime from then on. */
export function moment(ms: number): Buffer {
  const digits = `${new Date(ms).toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`;
  return digits < "2050" ? element(0x17, Buffer.from(digits.slice(2))) : element(0x18, Buffer.from(digits));
}

/** A relative name's attribute in UTF8String, as one set. */
export function nameAttribute(type: string, value: string): Buffer {
  return element(0x31, sequence(objectId(type), element(0x0c, Buffer.from(value))));
}

/** DER in PEM's clothes. */
export function pem(label: string, der: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${Buffer.from(der)
    .toString("base64")
    .replaceAll(/.{1,64}/g, "$&\n")}-----END ${label}-----\n`;
}
