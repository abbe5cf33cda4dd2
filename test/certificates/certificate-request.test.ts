/**
 * That the reader of certificate requests agrees with openssl about honest
 * ones, and accepts nothing else.
 */

import { describe, expect, test } from "bun:test";
import { isIPv6 } from "node:net";
import fc from "fast-check";
import { readCertificateRequest, readRequestDer } from "../../src/certificates/certificate-request.ts";
import { DerError } from "../../src/certificates/der-reader.ts";
import { bitString, element, integer, nameAttribute, objectId, pem, sequence } from "../../src/certificates/der.ts";
import {
  CN,
  ECDSA_SHA256,
  ED25519,
  O,
  RSA_SHA256,
  dns,
  ecKeys,
  edKeys,
  email,
  extension,
  extensionRequest,
  ip,
  mintRequest,
  mintRequestDer,
  nodeSubject,
  openssl,
  opensslRequest,
  rsaKeys,
  uri,
  type RequestParts,
} from "./requests.ts";

const SAN = "2.5.29.17";
const TRUE = element(0x01, Buffer.of(0xff));

describe.skipIf(!openssl)("requests made by openssl (needs openssl)", () => {
  const kinds: [string, string[], { kind: string; bits: number }][] = [
    ["P-256", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], { kind: "ecdsa", bits: 256 }],
    ["P-384", ["ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], { kind: "ecdsa", bits: 384 }],
    ["P-521", ["ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"], { kind: "ecdsa", bits: 521 }],
    ["RSA of 2048 bits", ["rsa:2048"], { kind: "rsa", bits: 2048 }],
    ["RSA of 3072 bits, SHA-384", ["rsa:3072", "-sha384"], { kind: "rsa", bits: 3072 }],
    ["Ed25519", ["ed25519"], { kind: "ed25519", bits: 256 }],
  ];
  test.each(kinds)("a key of kind %s is recognised", (_, args, key) => {
    const pemText = opensslRequest({ subject: "/O=system:nodes/CN=system:node:gw-1", key: args, names: ["DNS:gw-1"] });
    expect(readCertificateRequest(pemText)).toEqual({
      subject: [
        { type: "O", value: "system:nodes" },
        { type: "CN", value: "system:node:gw-1" },
      ],
      dnsNames: ["gw-1"],
      ipAddresses: [],
      emails: [],
      uris: [],
      extensions: [{ id: SAN, isCritical: false }],
      key: key as never,
    });
  });

  test("any subject and names of the known kinds are read as they were written", () => {
    const word = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
    const text = fc.stringMatching(/^[A-Za-z0-9:.äß€-]{1,30}$/);
    const ipV6 = fc
      .array(fc.oneof(fc.constant(0), fc.nat(0xffff)), { minLength: 8, maxLength: 8 })
      .map((groups) => byValue(groups.map((group) => group.toString(16)).join(":")));
    const address = fc.oneof(fc.ipV4(), ipV6);
    fc.assert(
      fc.property(
        fc.record({
          groups: fc.array(text, { maxLength: 3 }),
          name: text,
          dnsNames: fc.array(word, { maxLength: 3 }),
          ipAddresses: fc.array(address, { maxLength: 3 }),
          emails: fc.array(word, { maxLength: 1 }),
          uris: fc.array(word, { maxLength: 1 }),
        }),
        ({ groups, name, dnsNames, ipAddresses, emails, uris }) => {
          const read = readCertificateRequest(
            opensslRequest({
              subject: `${groups.map((group) => `/O=${group}`).join("")}/CN=${name}`,
              names: [
                ...dnsNames.map((one) => `DNS:${one}`),
                ...ipAddresses.map((one) => `IP:${one}`),
                ...emails.map((one) => `email:${one}@x.test`),
                ...uris.map((one) => `URI:urn:${one}`),
              ],
              args: ["-utf8"],
            }),
          );
          const subject = [...groups.map((value) => ({ type: "O", value })), { type: "CN", value: name }];
          expect(read.subject).toEqual(subject);
          expect(read.dnsNames).toEqual(dnsNames);
          expect(read.ipAddresses.map(byValue)).toEqual(ipAddresses.map(byValue));
          expect(read.emails).toEqual(emails.map((one) => `${one}@x.test`));
          expect(read.uris).toEqual(uris.map((one) => `urn:${one}`));
        },
      ),
      { numRuns: 40 },
    );
  }, 60_000);

  test.each([
    [
      "two attributes in one part of the subject",
      { subject: "/O=system:nodes+CN=system:node:gw-1", args: ["-multivalue-rdn"] },
      "several attributes",
    ],
    ["a name of another kind", { subject: "/CN=a", names: ["otherName:1.2.3.4;UTF8:x"] }, "unusual kind"],
    ["a registered identifier as name", { subject: "/CN=a", names: ["RID:1.2.3.4"] }, "unusual kind"],
    ["a critical extension", { subject: "/CN=a", args: ["-addext", "keyUsage=critical,keyCertSign"] }, "critical"],
    ["RSA-PSS", { subject: "/CN=a", key: ["rsa:2048", "-sigopt", "rsa_padding_mode:pss"] }, "does not fit"],
    ["SHA-1", { subject: "/CN=a", key: ["rsa:2048", "-sha1"] }, "does not fit"],
    ["a curve of others", { subject: "/CN=a", key: ["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"] }, "not known"],
    [
      "a curve written out instead of named",
      { subject: "/CN=a", key: ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"] },
      "object identifier",
    ],
  ])("%s is refused", (_, options, fault) => {
    expect(() => readCertificateRequest(opensslRequest(options))).toThrow(fault);
  });
});

describe("requests built byte by byte", () => {
  test("what kubelet sends is read", () => {
    const request = readCertificateRequest(
      mintRequest({ names: [dns("gw-1"), ip(10, 0, 0, 1), ip(0xfd, ...Array.from({ length: 14 }, () => 0), 1)] }),
    );
    expect(request.ipAddresses).toEqual(["10.0.0.1", "fd00:0:0:0:0:0:0:1"]);
    expect(request.dnsNames).toEqual(["gw-1"]);
    expect(request.key).toEqual({ kind: "ecdsa", bits: 256 });
  });

  test("one without names has no extension", () => {
    expect(readCertificateRequest(mintRequest()).extensions).toEqual([]);
  });

  const point = ecKeys().publicKey.export({ type: "spki", format: "der" });
  const compressed = sequence(
    sequence(objectId("1.2.840.10045.2.1"), objectId("1.2.840.10045.3.1.7")),
    bitString(Buffer.concat([Buffer.of(2 + (point.at(-1)! & 1)), point.subarray(-64, -32)])),
  );
  const twoNames = sequence(element(0x31, attribute(O, "system:nodes"), attribute(CN, "a")));
  const evil: [string, RequestParts, string][] = [
    ["another version", { version: integer(Buffer.of(1)) }, "version is not 0"],
    ["a version of two bytes", { version: element(0x02, Buffer.of(0, 0)) }, "version is not 0"],
    ["something behind the attributes", { behind: Buffer.of(5, 0) }, "something after its end"],
    ["several attributes in one part of the subject", { subject: twoNames }, "several attributes"],
    ["two common names", { subject: sequence(nameAttribute(CN, "a"), nameAttribute(CN, "b")) }, "CN stands twice"],
    ["an empty name", { subject: sequence(nameAttribute(CN, "")) }, "empty text"],
    ["a zero byte in a name", { subject: sequence(nameAttribute(CN, "a\0b")) }, "cannot be seen"],
    ["a name that turns its direction", { subject: sequence(nameAttribute(CN, "a\u202eb")) }, "cannot be seen"],
    ["a name in 16-bit letters", { subject: named(0x1e, Buffer.from("\0a")) }, "unusual kind"],
    ["a name in Latin-1", { subject: named(0x14, Buffer.from("a")) }, "unusual kind"],
    ["a PrintableString with an asterisk", { subject: named(0x13, Buffer.from("*")) }, "PrintableString"],
    ["a name that is not UTF-8", { subject: named(0x0c, Buffer.of(0xc0, 0x80)) }, "not UTF-8"],
    ["a byte-order mark", { subject: named(0x0c, Buffer.from("\ufeffa")) }, "cannot be seen"],
    [
      "something behind a name",
      { subject: sequence(element(0x31, attribute(CN, "a", Buffer.of(5, 0)))) },
      "after its end",
    ],
    ["a compressed point", { publicKey: compressed }, "usual form"],
    [
      "a key without parameters",
      { publicKey: sequence(sequence(objectId("1.2.840.10045.2.1")), bitString(Buffer.of(4))) },
      "ends where",
    ],
    ["another's key", { publicKey: point }, "not made with the key"],
    ["an unknown attribute", { attributes: [sequence(objectId("1.2.840.113549.1.9.7"), element(0x31))] }, "not known"],
    [
      "the same attribute twice",
      { attributes: [extensionRequest(san(dns("a"))), extensionRequest(san(dns("b")))] },
      "more than one attribute",
    ],
    ["two values of the attribute", { attributes: [twoValues()] }, "after its end"],
    ["an empty list of extensions", { attributes: [extensionRequest()] }, "empty list"],
    ["names twice", { extensions: [san(dns("a")), san(dns("b"))] }, "stands twice"],
    [
      "an unknown extension twice",
      { extensions: [extension("1.2.3", Buffer.of(5, 0)), extension("1.2.3", Buffer.of(5, 0))] },
      "stands twice",
    ],
    [
      "an unknown critical extension",
      { extensions: [extension("1.2.3", Buffer.of(5, 0), TRUE)] },
      "critical extension 1.2.3",
    ],
    [
      "a criticality of 1",
      { extensions: [extension(SAN, sequence(dns("a")), element(0x01, Buffer.of(1)))] },
      "plainly true",
    ],
    [
      "a criticality written out as false",
      { extensions: [extension(SAN, sequence(dns("a")), element(0x01, Buffer.of(0)))] },
      "plainly true",
    ],
    ["an empty list of names", { extensions: [extension(SAN, sequence())] }, "empty list"],
    [
      "something behind the names",
      { extensions: [extension(SAN, Buffer.concat([sequence(dns("a")), Buffer.of(5, 0)]))] },
      "after its end",
    ],
    ["an empty DNS name", { names: [dns("")] }, "visible ASCII"],
    ["a DNS name with a space", { names: [dns("a b")] }, "visible ASCII"],
    ["a DNS name with a zero byte", { names: [dns("gw-1\0.evil")] }, "visible ASCII"],
    ["an address of five bytes", { names: [ip(1, 2, 3, 4, 5)] }, "4 nor 16"],
    ["a range of addresses", { names: [ip(10, 0, 0, 0, 255, 0, 0, 0)] }, "4 nor 16"],
    ["a directory name", { names: [element(0xa4, nodeSubject("x"))] }, "unusual kind"],
    [
      "parameters of the signature",
      { algorithm: sequence(objectId("1.2.840.10045.4.3.2"), Buffer.of(5, 0)) },
      "unusual parameters",
    ],
    ["RSA's signature with a curve's key", { algorithm: RSA_SHA256 }, "does not fit the key"],
    ["Ed25519's signature with a curve's key", { algorithm: ED25519 }, "does not fit the key"],
    ["another hash than was signed", { hash: "sha384" }, "not made with the key"],
    [
      "RSA without parameters",
      { keys: rsaKeys(), algorithm: sequence(objectId("1.2.840.113549.1.1.11")) },
      "unusual parameters",
    ],
    ["RSA with exponent 3", { keys: rsaKeys(2048, 3) }, "exponent"],
    ["Ed25519 under the name of a curve", { keys: edKeys(), algorithm: ECDSA_SHA256 }, "does not fit the key"],
    ["a length left open", { finish: (...parts) => relength(Buffer.of(0x80), parts, Buffer.of(0, 0)) }, "left open"],
    ["a length longer than need be", { finish: (...parts) => relength(undefined, parts) }, "shortest form"],
    [
      "a length of four bytes",
      { finish: (...parts) => relength(Buffer.of(0x84, 0, 0, 1, 0), parts) },
      "longer than anything",
    ],
    [
      "a signature of broken bytes",
      { finish: (body, algorithm, signature) => sequence(body, algorithm, bitString(signature, 1)) },
      "broken bytes",
    ],
    [
      "something behind the signature",
      { finish: (body, algorithm, signature) => sequence(body, algorithm, bitString(signature), Buffer.of(5, 0)) },
      "after its end",
    ],
    [
      "no signature",
      { finish: (body, algorithm) => sequence(body, algorithm, bitString(Buffer.alloc(0))) },
      "not made with the key",
    ],
    [
      "an identifier with a leading 0x80",
      {
        subject: sequence(
          element(0x31, sequence(element(0x06, Buffer.of(0x80, 0x55, 4, 3)), element(0x0c, Buffer.from("a")))),
        ),
      },
      "shortest form",
    ],
    [
      "an identifier that does not end",
      {
        subject: sequence(
          element(0x31, sequence(element(0x06, Buffer.of(0x55, 0x84)), element(0x0c, Buffer.from("a")))),
        ),
      },
      "cut short",
    ],
    [
      "a high tag",
      { subject: sequence(element(0x31, sequence(objectId(CN), element(0x1f, Buffer.from("a"))))) },
      "more than one byte",
    ],
  ];
  test.each(evil)("%s is refused", (_, parts, fault) => {
    const error = thrownBy(() => readCertificateRequest(mintRequest(parts)));
    expect(error).toBeInstanceOf(DerError);
    expect(error?.message).toContain(fault);
  });

  test("unknown extensions that are not critical are named, for the judge", () => {
    const { extensions } = readCertificateRequest(
      mintRequest({ extensions: [extension("2.5.29.19", sequence(TRUE))] }),
    );
    expect(extensions).toEqual([{ id: "2.5.29.19", isCritical: false }]);
  });

  test("mail and URI names are told apart, for the judge", () => {
    const request = readCertificateRequest(mintRequest({ names: [email("a@b"), uri("spiffe://x/y")] }));
    expect(request).toMatchObject({ emails: ["a@b"], uris: ["spiffe://x/y"], dnsNames: [] });
  });

  test("no byte can be changed, added or taken away", () => {
    const der = mintRequestDer({ names: [dns("gw-1"), ip(10, 0, 0, 1)] });
    expect(() => readRequestDer(der)).not.toThrow();
    const accepted: string[] = [];
    const attempt = (what: string, bytes: Uint8Array) => {
      const error = thrownBy(() => readRequestDer(bytes));
      if (error === undefined || !(error instanceof DerError)) accepted.push(`${what}: ${String(error)}`);
    };
    for (let at = 0; at < der.length; at++) {
      for (const bit of [0x01, 0x20, 0x80]) {
        const changed = Buffer.from(der);
        changed[at] = changed[at]! ^ bit;
        attempt(`byte ${at} with ${bit} flipped`, changed);
      }
      attempt(`cut at ${at}`, der.subarray(0, at));
      attempt(`zero put in at ${at}`, Buffer.concat([der.subarray(0, at), Buffer.of(0), der.subarray(at)]));
    }
    attempt("zero behind it", Buffer.concat([der, Buffer.of(0)]));
    expect(accepted).toEqual([]);
  });

  test("whatever bytes come, the answer is a request or a DerError", () => {
    const der = mintRequestDer({ names: [dns("gw-1")] });
    const mangled = fc
      .array(fc.record({ at: fc.nat(der.length - 1), length: fc.nat(8), put: fc.uint8Array({ maxLength: 8 }) }), {
        minLength: 1,
        maxLength: 6,
      })
      .map((edits) =>
        edits.reduce(
          (bytes, { at, length, put }) => Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + length)]),
          Buffer.from(der),
        ),
      );
    fc.assert(
      fc.property(fc.oneof(mangled, fc.uint8Array({ maxLength: 200 })), (bytes) => {
        const error = thrownBy(() => readRequestDer(bytes));
        if (error === undefined) expect(Buffer.from(bytes).equals(der)).toBe(true);
        else expect(error).toBeInstanceOf(DerError);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("PEM", () => {
  const good = mintRequest();
  const lines = good.split("\n");
  const bad: [string, string][] = [
    ["nothing", ""],
    ["something before it", `x\n${good}`],
    ["something behind it", `${good}x`],
    ["two requests", good + good],
    ["a certificate's label", good.replaceAll("CERTIFICATE REQUEST", "CERTIFICATE")],
    ["the old label", good.replaceAll("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")],
    ["headers", [lines[0], "Proc-Type: 4,ENCRYPTED", "", ...lines.slice(1)].join("\n")],
    ["spaces within", good.replace(/^(M.{40})/m, "$1 ")],
    [
      "base64 that has two readings",
      pem("CERTIFICATE REQUEST", mintRequestDer()).replace(/.(=*)\n-----END/, "_$1\n-----END"),
    ],
    ["padding in the middle", [lines[0], "AA==", ...lines.slice(1)].join("\n")],
    ["spaces without end, and something behind them", `${good}${"\n".repeat(40_000)}x`],
    ["more than 16 KiB", pem("CERTIFICATE REQUEST", Buffer.alloc(17_000))],
  ];
  test.each(bad)("%s is refused", (_, text) => {
    expect(thrownBy(() => readCertificateRequest(text))).toBeInstanceOf(DerError);
  });

  test("lines may end in CR LF", () => {
    expect(readCertificateRequest(good.replaceAll("\n", "\r\n")).subject).toHaveLength(2);
  });
});

test("what is wrong is said without quoting the request", () => {
  const error = thrownBy(() =>
    readCertificateRequest(mintRequest({ subject: sequence(nameAttribute(CN, "secret\0")) })),
  );
  expect(error?.message).toBe("Cannot read subject: empty text, or characters that cannot be seen");
});

function attribute(type: string, value: string, behind = Buffer.alloc(0)): Buffer {
  return sequence(objectId(type), element(0x0c, Buffer.from(value)), behind);
}

function named(tag: number, value: Buffer): Buffer {
  return sequence(element(0x31, sequence(objectId(CN), element(tag, value))));
}

function san(...names: readonly Buffer[]): Buffer {
  return extension(SAN, sequence(...names));
}

function twoValues(): Buffer {
  return sequence(objectId("1.2.840.113549.1.9.14"), element(0x31, sequence(san(dns("a"))), sequence(san(dns("b")))));
}

/** The whole request with another length field; without one, the true length in one byte too many. */
function relength(
  length: Buffer | undefined,
  [body, algorithm, signature]: Buffer[],
  behind = Buffer.alloc(0),
): Buffer {
  const inside = Buffer.concat([body!, algorithm!, bitString(signature!)]);
  return Buffer.concat([
    Buffer.of(0x30),
    length ?? Buffer.of(0x83, 0, inside.length >> 8, inside.length & 0xff),
    inside,
    behind,
  ]);
}

function byValue(address: string): string {
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

function thrownBy(action: () => unknown): Error | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}
