import { describe, expect, test } from "bun:test";
import { createAuthority, issueClientCertificate } from "../../src/certificates/authority.ts";
import { horizonLines } from "../../src/cli/status.ts";
import type { Config } from "../../src/config/config.ts";
import { horizonOf, type Ends } from "../../src/daemon/horizon.ts";
import type { StatusReport } from "../../src/health/status-report.ts";
import type { Credential } from "../../src/kube/credential.ts";

const DAY_MS = 86_400_000;
const NOW_MS = Date.UTC(2026, 10, 23);
const NODE = "system:node:edge-1";

const authority = createAuthority({ commonName: "cluster", nowMs: NOW_MS });

function certificate(days: number): Credential {
  const pair = issueClientCertificate(authority, {
    commonName: NODE,
    organizations: ["system:nodes"],
    days,
    nowMs: NOW_MS,
  });
  return { kind: "certificate", read: () => pair };
}

function token(claims: object): Credential {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return { kind: "token", read: () => `${part({ alg: "none" })}.${part(claims)}.c2ln` };
}

/** What a person reads. */
function words(credential: Credential, ends: Partial<Ends> = {}): string[] {
  const config = { upstream: { credential } } as Config;
  const horizon = horizonOf({ config }, { local: undefined, seen: new Map(), tokenEnds: [], ...ends });
  return horizonLines({ horizon, nowMs: NOW_MS } as StatusReport).split("\n");
}

describe("the horizon", () => {
  test("is the node certificate's end, in whole days", () => {
    expect(words(certificate(214))[0]).toBe("This node survives 214 more days offline: the node certificate ends then");
    expect(words(certificate(1))[0]).toBe("This node survives 1 more day offline: the node certificate ends then");
  });

  test("is the end of what kubelet shows to us where that comes sooner", () => {
    const [first, ...others] = words(certificate(214), { seen: new Map([[NODE, NOW_MS + 3.5 * DAY_MS]]) });
    expect(first).toBe(`This node survives 3 more days offline: the certificate that client "${NODE}" shows ends then`);
    expect(others).toHaveLength(2);
  });

  test("is not shortened by another client's certificate, or by tokens that are served expired: they are told", () => {
    const lines = words(certificate(214), {
      seen: new Map([["kube-proxy", NOW_MS + DAY_MS]]),
      tokenEnds: [NOW_MS + 9_000_000, NOW_MS + 3 * 3_600_000, NOW_MS + 10 * DAY_MS],
    });
    expect(lines[0]).toContain("214 more days");
    expect(lines).toContainEqual(
      expect.stringMatching(/^ {2}the certificate that client "kube-proxy" shows ends in 24h/),
    );
    expect(lines).toContain("  the first of 3 kept tokens of pods ends in 2h30m: they are served expired");
  });

  test("that is past is said as such, not as days below zero", () => {
    const past: Credential = certificate(-2);
    expect(words(past)[0]).toBe("This node is beyond its horizon: the node certificate has ended");
    expect(words(past)[1]).toMatch(/^ {2}the node certificate ended 2d ago/);
  });

  test("goes by a token's own end; without one there is none", () => {
    expect(words(token({ exp: (NOW_MS + 30 * DAY_MS) / 1_000 }))[0]).toBe(
      "This node survives 30 more days offline: our own token ends then",
    );
    expect(words(token({}))).toEqual(["This node survives any time offline: nothing of it ends"]);
  });

  test("names a bounded number of clients", () => {
    const seen = new Map(Array.from({ length: 64 }, (_, at) => [`client-${at}`, NOW_MS + DAY_MS]));
    expect(words(certificate(10), { seen })).toHaveLength(2 + 8);
  });
});
