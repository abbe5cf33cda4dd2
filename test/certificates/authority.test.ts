import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as tls from "node:tls";
import {
  createAuthority,
  issueClientCertificate,
  issueServingCertificate,
  renewalTimeMs,
  type KeyPair,
} from "../../src/certificates/authority.ts";
import { LocalCertificates } from "../../src/certificates/local.ts";
import { Renewals } from "../../src/certificates/renewals.ts";
import { systemClock, type Clock } from "../../src/base/clock.ts";
import { silentLog, type Log } from "../../src/base/log.ts";

const nowMs = Date.UTC(2026, 10, 23);
const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

function temporary(): string {
  return mkdtempSync(join(tmpdir(), "holdfast-pki-"));
}

function at(ms: number): Clock {
  return { ...systemClock, nowMs: () => ms };
}

/** As at a start; the draw is the earliest unless given. */
function local(dir: string, clock: Clock = at(nowMs), log: Log = silentLog, hosts: string[] = [], draw = 0) {
  return new LocalCertificates({ stateDir: dir, hosts, clock, log, renewals: new Renewals(dir, clock, () => draw) });
}

function listening(): { readonly log: Log; readonly warnings: string[] } {
  const warnings: string[] = [];
  return {
    log: { ...silentLog, warn: (message, fields) => void warnings.push(`${message} ${JSON.stringify(fields)}`) },
    warnings,
  };
}

test.skipIf(!hasOpenssl)("openssl accepts serving and client certificates by its strict rules", () => {
  const dir = temporary();
  const authority = createAuthority({ commonName: "holdfast-test", nowMs: Date.now() });
  const serving = issueServingCertificate(authority, {
    commonName: "holdfast",
    dnsNames: ["localhost"],
    ipAddresses: ["127.0.0.1", "::1"],
    nowMs: Date.now(),
  });
  const client = issueClientCertificate(authority, { commonName: "system:node:gw-1", organizations: ["system:nodes"] });
  writeFileSync(join(dir, "ca.pem"), authority.certPem);
  const verify = ({ certPem }: KeyPair, purpose: string) => {
    writeFileSync(join(dir, "leaf.pem"), certPem);
    return spawnSync("openssl", [
      "verify",
      "-x509_strict",
      "-purpose",
      purpose,
      "-CAfile",
      join(dir, "ca.pem"),
      join(dir, "leaf.pem"),
    ]).status;
  };
  expect(verify(serving, "sslserver")).toBe(0);
  expect(verify(client, "sslclient")).toBe(0);
  expect(verify(serving, "sslclient")).not.toBe(0);
  expect(verify(client, "sslserver")).not.toBe(0);
});

test("addresses of both families are written as a certificate's bytes", () => {
  const authority = createAuthority({ commonName: "ca", nowMs });
  const addresses = [
    "10.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "2001:db8::8:800:200c:417a",
    "1:2:3:4:5:6:7:8",
    "::ffff:10.1.2.3",
  ];
  const { certPem } = issueServingCertificate(authority, {
    commonName: "s",
    ipAddresses: [...addresses, "fe80::2%eth0"],
    nowMs,
  });
  const leaf = new X509Certificate(certPem);
  for (const address of [...addresses, "fe80::2"])
    expect({ address, found: leaf.checkIP(address) !== undefined }).toEqual({ address, found: true });
  expect(leaf.checkIP("10.0.0.2")).toBeUndefined();
});

test("a client certificate's subject is user and groups", () => {
  const { certPem } = issueClientCertificate(createAuthority({ commonName: "ca", nowMs }), {
    commonName: "system:node:gw-1",
    organizations: ["system:nodes", "more"],
    nowMs,
  });
  expect(new X509Certificate(certPem).subject.split("\n")).toEqual(["O=system:nodes", "O=more", "CN=system:node:gw-1"]);
});

test("a certificate made before the clock was set is still good once it is", () => {
  const dir = temporary();
  const { authority, serving } = local(dir, at(0));
  for (const { certPem } of [authority, serving]) {
    const { validFrom, validTo } = new X509Certificate(certPem);
    expect(Date.parse(validFrom)).toBe(0);
    expect(Date.parse(validTo)).toBeGreaterThan(Date.UTC(2034, 0, 1));
  }
});

test("the local CA and the serving pair are made once, with private keys that only their owner reads", () => {
  const dir = temporary();
  const { log, warnings } = listening();
  const { authority, serving } = local(dir, at(nowMs), log, ["169.254.20.1"]);
  const again = local(dir, at(nowMs), log, ["169.254.20.1"]);
  expect(again.authority).toEqual(authority);
  expect(again.serving).toEqual(serving);
  expect(readdirSync(join(dir, "pki")).sort()).toEqual([
    "local-ca.crt",
    "local-ca.key",
    "renewals.json",
    "serving.crt",
    "serving.key",
  ]);
  expect(statSync(join(dir, "pki", "local-ca.key")).mode & 0o777).toBe(0o600);
  expect(statSync(join(dir, "pki", "serving.key")).mode & 0o777).toBe(0o600);
  expect(statSync(join(dir, "pki")).mode & 0o777).toBe(0o700);
  expect(readFileSync(join(dir, "pki", "local-ca.crt"), "utf8")).toBe(authority.certPem);
  expect(warnings).toEqual([]);
});

test("a serving pair is made anew for another host, another CA, or when its moment has come", () => {
  const dir = temporary();
  const first = local(dir).serving;
  const wider = local(dir, at(nowMs), silentLog, ["169.254.20.1", "fe80::1%eth0"]).serving;
  expect(wider).not.toEqual(first);
  expect(local(dir, at(nowMs), silentLog, ["169.254.20.1"]).serving).toEqual(wider);
  expect(local(dir, at(nowMs), silentLog, ["fe80::1%eth0"]).serving).toEqual(wider);
  const late = nowMs + 3_650 * 86_400_000 * 0.71;
  expect(local(dir, at(late - 100 * 86_400_000)).serving).toEqual(wider);
  const renewed = local(dir, at(late)).serving;
  expect(renewed).not.toEqual(wider);
  rmSync(join(dir, "pki", "local-ca.key"));
  const { serving, authority } = local(dir, at(late));
  expect(serving).not.toEqual(renewed);
  expect(new X509Certificate(serving.certPem).verify(new X509Certificate(authority.certPem).publicKey)).toBe(true);
});

const damages: [string, (pki: string, authority: KeyPair) => void][] = [
  ["a certificate cut short", (pki, { certPem }) => writeFileSync(join(pki, "local-ca.crt"), certPem.slice(0, 200))],
  ["an empty key", (pki) => writeFileSync(join(pki, "local-ca.key"), "")],
  [
    "a key of another pair",
    (pki) => writeFileSync(join(pki, "local-ca.key"), createAuthority({ commonName: "x", nowMs }).keyPem),
  ],
  ["a missing key", (pki) => rmSync(join(pki, "local-ca.key"))],
  [
    "a certificate that is no CA",
    (pki, authority) => {
      const { certPem, keyPem } = issueClientCertificate(authority, { commonName: "x", nowMs });
      writeFileSync(join(pki, "local-ca.crt"), certPem);
      writeFileSync(join(pki, "local-ca.key"), keyPem);
    },
  ],
];
test.each(damages)("%s is set aside and replaced, with a warning", (_, damage) => {
  const dir = temporary();
  const { log, warnings } = listening();
  const { authority } = local(dir, at(nowMs), log);
  damage(join(dir, "pki"), authority);
  const next = local(dir, at(nowMs), log).authority;
  expect(next.certPem).not.toBe(authority.certPem);
  expect(new X509Certificate(next.certPem).ca).toBe(true);
  expect(warnings).toHaveLength(1);
  expect(warnings.join()).not.toContain("-----BEGIN");
  expect(readdirSync(join(dir, "pki")).some((name) => name.endsWith(".damaged"))).toBe(true);
  expect(local(dir, at(nowMs), log).authority).toEqual(next);
});

test("a state folder that cannot be written leaves the pair in memory, with a warning", () => {
  const dir = temporary();
  // A file where the folder should be: refused to root as well.
  writeFileSync(join(dir, "pki"), "");
  const { log, warnings } = listening();
  const { authority, serving } = local(dir, at(nowMs), log);
  expect(new X509Certificate(authority.certPem).ca).toBe(true);
  expect(serving.certPem).toContain("BEGIN CERTIFICATE");
  expect(warnings.filter((warning) => warning.includes("from memory"))).toHaveLength(2);
});

test("a TLS client that trusts the local CA accepts the serving pair by each of its names", async () => {
  const dir = temporary();
  const { authority, serving } = local(dir, systemClock);
  const { certPem, keyPem } = serving;
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: certPem, key: keyPem },
    fetch: () => new Response("ok"),
  });
  for (const name of ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"]) {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const socket = tls.connect(
      {
        host: "127.0.0.1",
        port: server.port!,
        ca: authority.certPem,
        ...(name === "127.0.0.1" ? {} : { servername: name }),
      },
      () => resolve(socket.authorized),
    );
    socket.on("error", reject);
    expect(await promise).toBe(true);
    socket.destroy();
  }
});

test("renewalTimeMs lies between 70 % and 90 % of the life", () => {
  expect(renewalTimeMs({ notBeforeMs: 1_000, notAfterMs: 2_000 }, 0)).toBe(1_700);
  expect(renewalTimeMs({ notBeforeMs: 1_000, notAfterMs: 2_000 }, 0.999_999)).toBeLessThan(1_900);
  expect(() => renewalTimeMs({ notBeforeMs: 2_000, notAfterMs: 2_000 }, 0)).toThrow(RangeError);
});

test("a leftover of a killed writer does not lend its mode to a key", () => {
  const dir = temporary();
  mkdirSync(join(dir, "pki"));
  const leftover = join(dir, "pki", `local-ca.key.${process.pid}.new`);
  writeFileSync(leftover, "x");
  chmodSync(leftover, 0o644);
  local(dir);
  expect(statSync(join(dir, "pki", "local-ca.key")).mode & 0o777).toBe(0o600);
});
