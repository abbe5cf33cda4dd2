/**
 * Kubelet's serving certificate, asked for with the place in it.
 */

import { expect, test } from "bun:test";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { readCertificateRequest } from "../../src/certificates/certificate-request.ts";
import { startApiServer, type ApiServerOptions } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { startEdge } from "../support/edge.ts";

const NAME = "edge-1";
const NODE = `/api/v1/nodes/${NAME}`;
const CSR = "CertificateSigningRequest";
const SERVING = "certificates: {kubeletServing: true}\n";
const node = {
  kind: "Node",
  apiVersion: "v1",
  metadata: { name: NAME },
  status: {
    addresses: [
      { type: "InternalIP", address: "192.168.1.5" },
      { type: "InternalIP", address: "fd00::5" },
      { type: "Hostname", address: NAME },
    ],
    daemonEndpoints: { kubeletEndpoint: { Port: 10250 } },
  },
};

async function start(config: string, signing: NonNullable<ApiServerOptions["signing"]> = { verdict: "approve" }) {
  const apiServer = await startApiServer({ objects: [node], signing });
  const edge = await startEdge({ apiServer, node: NAME, config });
  return {
    apiServer,
    edge,
    path: join(edge.stateDir, "pki", "kubelet-serving.pem"),
    requests: () => apiServer.objects(CSR) as any[],
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
};

test("names the true addresses and the place, in one file that kubelet reads anew; a restart asks for no other", async () => {
  await using world = await start(`${SERVING}place: {hosts: [10.96.7.7], port: 10250}\n`);
  const pem = (await eventually(() => read(world.path)))!;
  const leaf = new X509Certificate(pem);
  expect(leaf.checkPrivateKey(createPrivateKey(pem))).toBe(true);
  expect(leaf.subject).toBe(`O=system:nodes\nCN=system:node:${NAME}`);
  for (const address of ["192.168.1.5", "fd00::5", "10.96.7.7"]) expect(leaf.checkIP(address)).toBe(address);
  expect(leaf.checkHost(NAME)).toBe(NAME);
  expect(leaf.checkIP("10.96.7.8")).toBeUndefined();
  expect(statSync(world.path).mode & 0o777).toBe(0o600);
  const [request] = world.requests();
  expect(request.spec).toMatchObject({
    signerName: "kubernetes.io/kubelet-serving",
    usages: ["digital signature", "server auth"],
  });
  // As the guard's approver reads it, to the last byte.
  const asked = readCertificateRequest(Buffer.from(request.spec.request, "base64").toString());
  expect(asked.dnsNames).toEqual([NAME]);
  expect(asked.ipAddresses).toContain("10.96.7.7");
  await world.edge.restart();
  await world.edge.client.get(NODE);
  await eventually(() => world.edge.log.filter((line) => line.includes("serving")).length > 0);
  expect(world.requests()).toHaveLength(1);
  expect(read(world.path)).toBe(pem);
});

test("is asked for anew when the place is another, and kept when it is gone", async () => {
  await using world = await start(`${SERVING}place: {hosts: [10.96.7.7], port: 10250}\n`);
  const before = (await eventually(() => read(world.path)))!;
  const { apiServer, edge } = world;
  await edge.stop();
  const on = (config: string) => startEdge({ apiServer, node: NAME, stateDir: edge.stateDir, config });
  {
    await using gone = await on(SERVING);
    expect((await gone.client.get(NODE)).status).toBe(200);
    await eventually(async () => (apiServer.object("Node", "", NAME) as any).status.addresses.length === 3);
    expect(read(world.path)).toBe(before);
  }
  await using _moved = await on(`${SERVING}place: {hosts: [10.96.7.8], port: 10250}\n`);
  const after = (await eventually(() => {
    const pem = read(world.path);
    return pem === before ? undefined : pem;
  }))!;
  expect(new X509Certificate(after).checkIP("10.96.7.8")).toBe("10.96.7.8");
  expect(world.requests()).toHaveLength(2);
});

test("goes when nobody wants it any more, so that kubelet goes back to its own", async () => {
  await using world = await start(`${SERVING}place: {hosts: [10.96.7.7], port: 10250}\n`);
  await eventually(() => read(world.path));
  const { apiServer, edge } = world;
  await edge.stop();
  await using _off = await startEdge({ apiServer, node: NAME, stateDir: edge.stateDir, config: "" });
  expect(read(world.path)).toBeUndefined();
});

test("is not asked for where nobody wants it, and said where it is denied", async () => {
  await using plain = await start("place: {hosts: [10.96.7.7], port: 10250}\n");
  await eventually(() => (plain.apiServer.object("Node", "", NAME) as any).status.addresses.length > 3);
  expect(plain.requests()).toEqual([]);
  await using denied = await start(`${SERVING}place: {hosts: [10.96.7.7], port: 10250}\n`, { verdict: "deny" });
  const metrics = async () => (await fetch(`${denied.edge.healthUrl}/metrics`)).text();
  await eventually(metrics, (text) => text.includes('holdfast_condition{type="CertificateNotRenewed"} 1'));
  expect(read(denied.path)).toBeUndefined();
});
