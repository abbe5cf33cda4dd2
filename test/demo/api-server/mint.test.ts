import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { mintCluster } from "../../../src/demo/api-server/mint.ts";

test("client and serving certificates name their holder and are signed by the CA", () => {
  const cluster = mintCluster();
  const ca = new X509Certificate(cluster.ca);
  const client = new X509Certificate(cluster.clientCertificate("system:node:edge-1", ["system:nodes", "other"]).cert);
  const serving = new X509Certificate(cluster.servingCertificate(["localhost", "127.0.0.1", "::1", "fd00::5"]).cert);
  expect(ca.ca).toBe(true);
  for (const leaf of [client, serving])
    expect([leaf.checkIssued(ca), leaf.verify(ca.publicKey), leaf.ca]).toEqual([true, true, false]);
  expect(client.subject).toBe("O=system:nodes\nO=other\nCN=system:node:edge-1");
  expect(serving.subjectAltName).toBe(
    "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, IP Address:FD00:0:0:0:0:0:0:5",
  );
});

test("a validity can be in the past", () => {
  const notAfterMs = Date.parse("2026-01-02T00:00:00Z");
  const { cert } = mintCluster().clientCertificate("late", [], { notBeforeMs: notAfterMs - 1000, notAfterMs });
  expect(new X509Certificate(cert).validTo).toBe("Jan  2 00:00:00 2026 GMT");
});
