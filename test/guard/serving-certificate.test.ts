/**
 * The serving certificate: one for all replicas, trusted before it is served, never lost.
 */
import { beforeEach, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { silentLog } from "../../src/base/log.ts";
import { createAuthority, issueServingCertificate } from "../../src/certificates/authority.ts";
import { ApiError } from "../../src/cluster/api.ts";
import {
  keepServingCertificate,
  type CertificateMaker,
  type ServingCertificateOptions,
} from "../../src/guard/serving-certificate.ts";
import { ManualClock } from "../support/model.ts";
import { MemoryApi } from "./support.ts";

const DAY_MS = 86_400_000;
const SECRET = "/api/v1/namespaces/holdfast-system/secrets/holdfast-guard-tls";
const CONFIGURATIONS = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"].map(
  (kind) => `/apis/admissionregistration.k8s.io/v1/${kind}/holdfast-guard`,
);

const make: CertificateMaker = ({ commonName, dnsNames, ipAddresses, days, nowMs }) => {
  const authority = createAuthority({ commonName: `${commonName} CA`, nowMs, years: (days + 1) / 365 });
  return {
    caPem: authority.certPem,
    ...issueServingCertificate(authority, { commonName, dnsNames, ipAddresses, days, nowMs }),
  };
};

let api: MemoryApi;
let clock: Clock;

class Clock extends ManualClock {
  shiftMs = Date.parse("2026-11-24T00:00:00Z");

  override nowMs(): number {
    return super.nowMs() + this.shiftMs;
  }
}

beforeEach(() => {
  api = new MemoryApi();
  clock = new Clock();
  for (const path of CONFIGURATIONS)
    api.put(path, {
      webhooks: ["a", "b"].map((name) => ({ name, clientConfig: { service: { name: "holdfast-guard" } } })),
    });
});

const options = (): ServingCertificateOptions => ({ api, make, clock, log: silentLog, namespace: "holdfast-system" });
const step = () => keepServingCertificate(options());

function bundles(): string[] {
  return CONFIGURATIONS.flatMap((path) =>
    ((api.objects.get(path)?.["webhooks"] ?? []) as { clientConfig: { caBundle?: string } }[]).map(({ clientConfig }) =>
      atob(clientConfig.caBundle ?? ""),
    ),
  );
}

/** Whether a certificate is signed by one of the CAs in every bundle. */
function isTrusted(certPem: string): boolean {
  const leaf = new X509Certificate(certPem);
  return bundles().every((bundle) =>
    bundle
      .split(/(?=-----BEGIN)/)
      .filter((pem) => pem.includes("BEGIN"))
      .some((pem) => leaf.checkIssued(new X509Certificate(pem)) && leaf.verify(new X509Certificate(pem).publicKey)),
  );
}

describe("the serving certificate", () => {
  test("is for the Service's name, trusted by every webhook, and kept without any CA's key", async () => {
    const { certPem } = await step();
    const leaf = new X509Certificate(certPem);
    expect(leaf.subjectAltName).toContain("DNS:holdfast-guard.holdfast-system.svc");
    expect(isTrusted(certPem)).toBe(true);
    const keys = Object.values(api.objects.get(SECRET)!["data"] as Record<string, string>).map((value) => atob(value));
    expect(keys.filter((text) => text.includes("PRIVATE KEY")).length).toBe(1);
  });

  test.each([2, 5])("of %p replicas that start at once is one and the same", async (count) => {
    const pairs = await Promise.all(Array.from({ length: count }, step));
    expect(new Set(pairs.map(({ certPem }) => certPem)).size).toBe(1);
    expect(isTrusted(pairs[0]!.certPem)).toBe(true);
  });

  test("is the same as long as it is young, and nothing is written", async () => {
    const first = await step();
    api.asked.length = 0;
    await clock.pass(30_000);
    expect((await step()).certPem).toBe(first.certPem);
    expect(api.asked.filter((one) => !one.startsWith("GET"))).toEqual([]);
  });

  test("is followed in time: trusted everywhere before it is served, by all replicas at once", async () => {
    const first = await step();
    clock.shiftMs += 82 * DAY_MS;
    let served = first;
    let rounds = 0;
    while (served.certPem === first.certPem) {
      expect(isTrusted(served.certPem)).toBe(true);
      served = await step();
      await clock.pass(30_000);
      rounds += 1;
      expect(rounds).toBeLessThan(10);
    }
    // One round to make it, one to see it trusted, and a minute for API servers to follow.
    expect(rounds).toBeGreaterThan(2);
    expect(isTrusted(served.certPem)).toBe(true);
    // A replica that is late still serves what is trusted.
    expect(isTrusted(first.certPem)).toBe(true);
    expect(Date.parse(new X509Certificate(served.certPem).validTo)).toBeGreaterThan(clock.nowMs() + 80 * DAY_MS);
  });

  test("that has expired while nobody ran is made anew at once", async () => {
    const first = await step();
    clock.shiftMs += 400 * DAY_MS;
    const next = await step();
    expect(next.certPem).not.toBe(first.certPem);
    expect(isTrusted(next.certPem)).toBe(true);
    expect(bundles()[0]!.match(/BEGIN/g)?.length).toBe(1);
  });

  test.each(["tls.key", "tls.crt"])("with a %s that somebody has spoilt is made anew", async (field) => {
    const first = await step();
    const secret = api.objects.get(SECRET)!;
    api.put(SECRET, { ...secret, data: { ...(secret["data"] as object), [field]: btoa("spoilt") } });
    const next = await step();
    expect(next.certPem).not.toBe(first.certPem);
    expect(isTrusted(next.certPem)).toBe(true);
  });

  test("mends a bundle that somebody has emptied, and passes over a configuration that is not there", async () => {
    const { certPem } = await step();
    api.put(CONFIGURATIONS[0]!, { webhooks: [{ name: "a", clientConfig: {} }] });
    api.objects.delete(CONFIGURATIONS[1]!);
    expect((await step()).certPem).toBe(certPem);
    expect(isTrusted(certPem)).toBe(true);
  });

  test("is not made without the API server: it says so, and what is served stays good", async () => {
    const { certPem } = await step();
    api.failure = new ApiError("Cannot GET: the API server cannot be reached", 0, "");
    expect(step()).rejects.toThrow(ApiError);
    api.failure = undefined;
    expect((await step()).certPem).toBe(certPem);
  });
});
