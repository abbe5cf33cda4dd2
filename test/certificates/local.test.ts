import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as tls from "node:tls";
import { systemClock, type Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { createAuthority, type KeyPair } from "../../src/certificates/authority.ts";
import { LocalCertificates } from "../../src/certificates/local.ts";
import { certificateBlocks } from "../../src/certificates/pem.ts";
import { Renewals, validityOf } from "../../src/certificates/renewals.ts";

const DAY_MS = 86_400_000;
const START_MS = Date.UTC(2026, 10, 23);

class SetClock implements Clock {
  ms = START_MS;
  nowMs = () => this.ms;
  monotonicMs = () => systemClock.monotonicMs();
  after = () => () => {};
}

function bench(draw = 0.5) {
  const stateDir = mkdtempSync(join(tmpdir(), "holdfast-local-"));
  const clock = new SetClock();
  const path = (name: string) => join(stateDir, "pki", name);
  return {
    clock,
    path,
    stateDir,
    read: (name: string) => readFileSync(path(name), "utf8"),
    open: () =>
      new LocalCertificates({
        stateDir,
        hosts: [],
        clock,
        log: silentLog,
        renewals: new Renewals(stateDir, clock, () => draw),
      }),
  };
}

/** What a TLS client that trusts these CAs makes of the pair. */
async function verdict({ certPem, keyPem }: KeyPair, ca: string): Promise<string> {
  using server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: certPem, key: keyPem },
    socket: { data() {} },
  });
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = tls.connect({ host: "127.0.0.1", port: server.port, ca }, () => resolve("trusted"));
  socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  return await promise.finally(() => socket.destroy());
}

describe("a local CA that is renewed", () => {
  test("is trusted by who has read the file before, during and after", async () => {
    const { clock, open, read } = bench();
    const local = open();
    const before = read("local-ca.crt");
    const first = local.serving;
    clock.ms = local.dueMs;
    // The serving certificate comes first; then, years on, its CA.
    expect(local.renewDue()).toBe(true);
    expect(read("local-ca.crt")).toBe(before);
    for (let at = 0; read("local-ca.crt") === before && at < 10; at++) {
      clock.ms = local.dueMs;
      local.renewDue();
    }
    const both = read("local-ca.crt");
    expect(certificateBlocks(both)).toHaveLength(2);
    const years = (clock.ms - START_MS) / DAY_MS / 365;
    expect(years).toBeGreaterThan(30 * 0.7);
    expect(years).toBeLessThan(30 * 0.9);
    for (const trusted of [before, both, local.authority.certPem])
      expect(await verdict(local.serving, trusted)).toBe("trusted");
    expect(await verdict(first, both)).toBe("trusted");
    // Once the old one has ended, it and its word are gone.
    clock.ms = START_MS + 30 * 365 * DAY_MS + DAY_MS;
    while (local.renewDue());
    expect(read("local-ca.crt")).not.toContain(certificateBlocks(before)[0]);
    expect(await verdict(local.serving, before)).not.toBe("trusted");
    expect(await verdict(local.serving, read("local-ca.crt"))).toBe("trusted");
  });

  test("and revoked is trusted by nobody who has not read the file again", async () => {
    const { open, read } = bench();
    const local = open();
    const before = read("local-ca.crt");
    local.renewAuthority({ isRevoked: true });
    expect(await verdict(local.serving, before)).not.toBe("trusted");
    expect(certificateBlocks(read("local-ca.crt"))).toHaveLength(1);
    expect(await verdict(local.serving, read("local-ca.crt"))).toBe("trusted");
    expect(open().serving).toEqual(local.serving);
  });

  test("is the same after a restart, in office and in trust", () => {
    const { open, read } = bench();
    const local = open();
    local.renewAuthority();
    const trusted = read("local-ca.crt");
    const again = open();
    expect(again.authority).toEqual(local.authority);
    expect(again.serving).toEqual(local.serving);
    expect(read("local-ca.crt")).toBe(trusted);
  });

  test.each([
    ["before its key came into office", ["local-ca.crt", "local-ca-cross.crt"], "old"],
    ["before its serving certificate was written", ["local-ca.crt", "local-ca-cross.crt", "local-ca.key"], "new"],
    ["between the key and the certificate that is served", [], "served"],
  ])("and dies %s is whole at the next start", async (_, written, which) => {
    const { open, read, path } = bench();
    const local = open();
    const names = ["local-ca.crt", "local-ca.key", "serving.crt", "serving.key"];
    const former = local.authority;
    const before = new Map(names.map((name) => [name, read(name)]));
    local.renewAuthority();
    const inOffice = local.authority;
    for (const name of names)
      if (which === "served" ? name === "serving.crt" : !written.includes(name))
        writeFileSync(path(name), before.get(name)!);
    const again = open();
    expect(again.authority).toEqual(which === "old" ? former : inOffice);
    for (const trusted of [before.get("local-ca.crt")!, read("local-ca.crt")])
      expect(await verdict(again.serving, trusted)).toBe("trusted");
    expect(certificateBlocks(read("local-ca.crt"))).toHaveLength(which === "old" ? 1 : 2);
  });
});

describe("the moment of a renewal", () => {
  test("is drawn once: a restart with another chance neither hastens nor delays it", () => {
    const { open, clock, stateDir } = bench(0.25);
    const { serving, dueMs } = open();
    const later = new Renewals(stateDir, clock, () => 0.99);
    const { notAfterMs } = validityOf(serving.certPem);
    expect(later.momentOf(serving.certPem, { notBeforeMs: 0, notAfterMs })).toBe(dueMs);
    expect((notAfterMs - dueMs) / (3_650 * DAY_MS)).toBeCloseTo(1 - 0.75, 6);
  });

  test("of a certificate that ends as it begins is its end", () => {
    const { clock, stateDir } = bench();
    const renewals = new Renewals(stateDir, clock, () => 0.5);
    const other = createAuthority({ commonName: "other", nowMs: START_MS });
    expect(renewals.momentOf(other.certPem, { notBeforeMs: 5, notAfterMs: 5 })).toBe(5);
  });

  test("is judged by the last trusted time when the clock falls back to 1970, also after a restart", () => {
    const { open, clock, stateDir } = bench();
    const local = open();
    const trusting = new Renewals(stateDir, clock, () => 0);
    clock.ms = local.dueMs + DAY_MS;
    trusting.trust();
    clock.ms = 0;
    expect(trusting.clockBehindOf).toBe(local.dueMs + DAY_MS);
    const again = open();
    expect(again.serving).not.toEqual(local.serving);
    // Issued for ten years from the trusted time, not from 1970.
    expect(new Date(validityOf(again.serving.certPem).notAfterMs).getUTCFullYear()).toBeGreaterThan(2043);
    expect(new X509Certificate(again.serving.certPem).validFromDate.getTime()).toBe(0);
  });
});
