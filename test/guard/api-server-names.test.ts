/**
 * The names in the certificate that a server really serves.
 */
import { expect, test } from "bun:test";
import { createAuthority, issueServingCertificate } from "../../src/certificates/authority.ts";
import { apiServerNames, ApiServerNamesError } from "../../src/guard/api-server-names.ts";

const authority = createAuthority({ commonName: "cluster", nowMs: Date.now() });

function serve() {
  const { certPem, keyPem } = issueServingCertificate(authority, {
    commonName: "kube-apiserver",
    dnsNames: ["kubernetes.default.svc", "api.example.com"],
    ipAddresses: ["127.0.0.1", "10.96.0.1", "fd00::1"],
    nowMs: Date.now(),
  });
  return Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: certPem, key: keyPem },
    fetch: () => new Response(),
  });
}

const target = (server: string, more: object = {}) => ({
  server,
  caPem: () => authority.certPem,
  credential: undefined,
  ...more,
});

test("the names and addresses of its certificate, and the host it is asked by", async () => {
  await using server = serve();
  const names = await apiServerNames(target(`https://127.0.0.1:${server.port}`));
  expect(names).toEqual(
    expect.arrayContaining(["127.0.0.1", "kubernetes.default.svc", "api.example.com", "10.96.0.1"]),
  );
  expect(names).toHaveLength(6);
});

test("behind a proxy, the host and the name it is verified by", async () => {
  const more = { proxyUrl: "http://127.0.0.1:1", tlsServerName: "api.example.com" };
  expect(await apiServerNames(target("https://[fd00::5]:6443", more))).toEqual(["fd00::5", "api.example.com"]);
});

test("one that is not of the cluster, or not there, tells nothing", async () => {
  await using server = serve();
  const foreign = createAuthority({ commonName: "other", nowMs: Date.now() });
  const url = `https://127.0.0.1:${server.port}`;
  expect(apiServerNames(target(url, { caPem: () => foreign.certPem }))).rejects.toThrow(ApiServerNamesError);
  await server.stop(true);
  expect(apiServerNames(target(url))).rejects.toThrow(ApiServerNamesError);
});
