/**
 * The witness from both ends: asked, listened, signed, checked; and every forgery that comes to mind.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { createServer, type Server } from "node:net";
import fc from "fast-check";
import { CompactSign, importPKCS8 } from "jose";
import { silentLog } from "../../src/base/log.ts";
import { createAuthority, issueClientCertificate, issueServingCertificate } from "../../src/certificates/authority.ts";
import { checkReport } from "../../src/guard/witness-report-check.ts";
import {
  MOST_ASKED,
  QUESTION_ANNOTATION,
  readQuestion,
  REPORT_ANNOTATION,
  type WitnessReport,
} from "../../src/kube/witness-report.ts";
import { mayProbe, probeNeighbour } from "../../src/witness/probe.ts";
import { signReport, Witness, type WitnessParts } from "../../src/witness/witness.ts";
import { ManualClock } from "../support/model.ts";

const nowMs = Date.now();
const authority = createAuthority({ commonName: "cluster", nowMs });
const foreign = createAuthority({ commonName: "cluster", nowMs });
const nodePair = (name: string, ca = authority, organizations = ["system:nodes"]) =>
  issueClientCertificate(ca, { commonName: `system:node:${name}`, organizations, nowMs });
const own = nodePair("near");
const NONCE = "0123456789abcdefghij";
const REPORT: WitnessReport = { iss: "near", nonce: NONCE, nodes: [{ name: "far", outcome: "heard" }] };
const check = (jws: string, name = "near", at = nowMs) => checkReport(jws, name, authority.certPem, at);

describe("a report", () => {
  test("of the node itself is believed", async () => {
    expect(await check(await signReport(REPORT, own))).toEqual(REPORT);
  });

  test("with an RSA key, of P-384 and Ed25519 too, where a signer made them", async () => {
    // The keys alone: our own signer makes P-256 certificates, so the check of these ends at the certificate.
    for (const keys of [
      generateKeyPairSync("rsa", { modulusLength: 2048 }),
      generateKeyPairSync("ec", { namedCurve: "P-384" }),
      generateKeyPairSync("ed25519"),
    ]) {
      const keyPem = keys.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
      const jws = await signReport(REPORT, { certPem: own.certPem, keyPem });
      expect(jws.split(".").length).toBe(3);
      expect(await check(jws)).toBeUndefined();
    }
  });

  const forged: [string, () => Promise<string>, string?][] = [
    ["copied to another node", async () => await signReport(REPORT, own), "other"],
    ["of another node's certificate", async () => await signReport(REPORT, nodePair("other"))],
    ["that names another issuer", async () => await signReport({ ...REPORT, iss: "other" }, own)],
    ["of a foreign CA of the same name", async () => await signReport(REPORT, nodePair("near", foreign))],
    ["of a certificate without the group", async () => await signReport(REPORT, nodePair("near", authority, []))],
    [
      "of a certificate with one group more",
      async () => await signReport(REPORT, nodePair("near", authority, ["system:nodes", "system:masters"])),
    ],
    [
      "of a serving certificate",
      async () =>
        await signReport(REPORT, issueServingCertificate(authority, { commonName: "system:node:near", nowMs })),
    ],
    ["by the CA itself", async () => await signReport(REPORT, authority)],
    [
      "by another key under the node's certificate",
      async () => await signReport(REPORT, { certPem: own.certPem, keyPem: nodePair("near").keyPem }),
    ],
    ["without a certificate", async () => await signReport(REPORT, { certPem: "", keyPem: own.keyPem })],
    ["signed by nobody", async () => `${part({ alg: "none", x5c: [] })}.${part(REPORT)}.`],
    [
      "signed by a secret that everybody knows",
      async () =>
        await new CompactSign(Buffer.from(JSON.stringify(REPORT)))
          .setProtectedHeader({ alg: "HS256" })
          .sign(Buffer.from(own.certPem)),
    ],
    [
      "that says something else than was signed",
      async () => {
        const [head, , signature] = (await signReport(REPORT, own)).split(".");
        return `${head}.${part({ ...REPORT, nodes: [{ name: "far", outcome: "silent" }] })}.${signature}`;
      },
    ],
    ["too long", async () => `${"a".repeat(20_000)}.b.c`],
    [
      "with too many nodes",
      async () =>
        await signReport({ ...REPORT, nodes: Array.from({ length: MOST_ASKED + 1 }, () => REPORT.nodes[0]!) }, own),
    ],
    [
      "with an outcome nobody knows",
      async () => await signReport({ ...REPORT, nodes: [{ name: "far", outcome: "dead" as never }] }, own),
    ],
    [
      "that is no report",
      async () => {
        const key = await importPKCS8(own.keyPem, "ES256");
        const x5c = [own.certPem.replaceAll(/-----[^-]+-----|\s/g, "")];
        return await new CompactSign(Buffer.from("hello")).setProtectedHeader({ alg: "ES256", x5c }).sign(key);
      },
    ],
  ];
  test.each(forged)("%s counts as none", async (_what, make, name = "near") => {
    expect(await check(await make(), name)).toBeUndefined();
  });

  test("of an expired certificate, or one that is yet to come, counts as none", async () => {
    const jws = await signReport(REPORT, own);
    expect(await check(jws, "near", nowMs + 400 * 86_400_000)).toBeUndefined();
    expect(await check(jws, "near", nowMs + 1_000)).toEqual(REPORT);
  });

  test("property: no other bytes become a report", async () => {
    const jws = await signReport(REPORT, own);
    await fc.assert(
      fc.asyncProperty(fc.nat(jws.length - 1), fc.constantFrom(..."abcXYZ019-_."), async (at, letter) => {
        const changed = jws.slice(0, at) + letter + jws.slice(at + 1);
        const report = await check(changed);
        // The last letter of a base64 text may hold bits that say nothing.
        if (report !== undefined) expect(report).toEqual(REPORT);
        else expect(changed).not.toBe(jws);
      }),
      { numRuns: 400 },
    );
    await fc.assert(
      fc.asyncProperty(fc.string({ maxLength: 300 }), async (text) => {
        expect(await check(text)).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });
});

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

describe("a question", () => {
  const question = { nonce: NONCE, askedMs: 1, nodes: [{ name: "far", address: "192.168.1.2", port: 10250 }] };
  test("is read; anything else is none", () => {
    expect(readQuestion(JSON.stringify(question))).toEqual(question);
    for (const other of [
      undefined,
      "",
      "null",
      "[]",
      "{",
      "x".repeat(20_000),
      JSON.stringify({ ...question, nonce: "short" }),
      JSON.stringify({ ...question, nodes: [] }),
      JSON.stringify({ ...question, nodes: Array.from({ length: 17 }, () => question.nodes[0]) }),
    ])
      expect(readQuestion(other)).toBeUndefined();
  });
});

describe("listening", () => {
  let server: Server;
  let port: number;
  beforeAll(async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    server = createServer((socket) => socket.destroy()).listen(0, "0.0.0.0", resolve);
    await promise;
    port = (server.address() as { port: number }).port;
  });
  afterAll(() => server.close());

  const network = Object.values(
    require("node:os").networkInterfaces() as Record<string, { address: string; family: string; internal: boolean }[]>,
  )
    .flat()
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

  test.skipIf(network === undefined)(
    `a machine that answers is heard, and one that refuses lives too${network === undefined ? " [skipped: no network interface]" : ""}`,
    async () => {
      expect(await probeNeighbour(network!, port)).toBe("heard");
      const free = createServer();
      await new Promise<void>((resolve) => free.listen(0, resolve));
      const { port: closed } = free.address() as { port: number };
      await new Promise((resolve) => free.close(resolve));
      expect(await probeNeighbour(network!, closed)).toBe("heard");
    },
  );

  test("what is no neighbour is not tried", async () => {
    for (const address of [
      "127.0.0.1",
      "0.0.0.0",
      "169.254.169.254",
      "224.0.0.1",
      "255.255.255.255",
      "::1",
      "::",
      "::ffff:127.0.0.1",
      "fe80::1",
      "ff02::1",
      "fe80::1%eth0",
      "localhost",
      "example.com",
      "",
      "1.2.3",
    ])
      expect({ address, may: mayProbe(address, 10_250) }).toEqual({ address, may: false });
    for (const other of [0, 22, 80, 443, 1_023, 65_536]) expect(mayProbe("192.168.1.2", other)).toBe(false);
    for (const address of ["192.168.1.2", "10.0.0.1", "fd00::2", "2001:db8::1"])
      expect(mayProbe(address, 10_250)).toBe(true);
    expect(await probeNeighbour("127.0.0.1", port)).toBe("not-tried");
  });
});

describe("a witness", () => {
  let annotations: Record<string, string>;
  let asked: string[];
  let probed: string[];
  let parts: WitnessParts;
  let witness: Witness;

  beforeEach(() => {
    annotations = {};
    asked = [];
    probed = [];
    parts = {
      clock: new ManualClock(),
      log: silentLog,
      ownNode: () => ({ name: "near", bytes: Buffer.from(`k8s\0 protobuf ${JSON.stringify(annotations)}`) }),
      isOnline: () => true,
      readAnnotations: async (name) => {
        asked.push(`read ${name}`);
        return annotations;
      },
      annotate: async (name, more) => {
        asked.push(`write ${name}`);
        Object.assign(annotations, more);
      },
      credential: () => own,
      probe: async (address) => {
        probed.push(address);
        return address.endsWith(".2") ? "heard" : "silent";
      },
    };
    witness = new Witness(parts);
  });

  const pose = (nonce: string, count = 2) =>
    (annotations[QUESTION_ANNOTATION] = JSON.stringify({
      nonce,
      askedMs: 1,
      nodes: Array.from({ length: count }, (_, index) => ({
        name: `far-${index + 2}`,
        address: `192.168.1.${index + 2}`,
        port: 10_250,
      })),
    }));

  test("that nobody asks, asks nobody", async () => {
    await witness.look();
    expect(asked).toEqual([]);
  });

  test("answers once, signed, and again when it is asked again", async () => {
    pose(NONCE);
    await witness.look();
    await witness.look();
    expect(asked.filter((one) => one.startsWith("write")).length).toBe(1);
    expect(await check(annotations[REPORT_ANNOTATION]!)).toEqual({
      iss: "near",
      nonce: NONCE,
      nodes: [
        { name: "far-2", outcome: "heard" },
        { name: "far-3", outcome: "silent" },
      ],
    });
    pose("another-nonce-0123456");
    await witness.look();
    expect((await check(annotations[REPORT_ANNOTATION]!))?.nonce).toBe("another-nonce-0123456");
  });

  test("cannot be made a scanner: probes are rationed, and the rest is not tried", async () => {
    for (let round = 0; round < 10; round++) {
      pose(`nonce-number-${round}-000000`, 16);
      await witness.look();
    }
    expect(probed.length).toBe(64);
    expect((await check(annotations[REPORT_ANNOTATION]!))?.nodes.every(({ outcome }) => outcome === "not-tried")).toBe(
      true,
    );
  });

  test("offline, without a certificate, or with a question that is none, says nothing", async () => {
    pose(NONCE);
    await new Witness({ ...parts, isOnline: () => false }).look();
    await new Witness({ ...parts, credential: () => undefined }).look();
    annotations[QUESTION_ANNOTATION] = "listen!";
    await witness.look();
    expect([probed, asked.filter((one) => one.startsWith("write"))]).toEqual([[], []]);
  });

  test("an API server that refuses the answer is asked again", async () => {
    pose(NONCE);
    let refusals = 1;
    const tried = new Witness({
      ...parts,
      annotate: async (name, more) => {
        if (refusals-- > 0) throw new Error("503");
        await parts.annotate(name, more);
      },
    });
    await tried.look();
    expect(annotations[REPORT_ANNOTATION]).toBeUndefined();
    await tried.look();
    expect(annotations[REPORT_ANNOTATION]).toBeDefined();
  });
});
