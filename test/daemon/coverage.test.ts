import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CoverageReport } from "../../src/health/coverage-report.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { holdfast } from "../cli/holdfast.ts";
import { serveImages } from "../machine/cri-stand-in.ts";
import { configMap, linkOf, startEdge, type Edge } from "../support/edge.ts";

const IMAGE = { image: "nginx:1.27", imagePullPolicy: "IfNotPresent" };

/** A pod of the node, with what kubelet must have read for it. */
function pod(name: string, spec: object = {}, more: object = {}) {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "shop", uid: `uid-${name}` },
    spec: { nodeName: "edge1", serviceAccountName: "web", containers: [{ name: "c", ...IMAGE }], ...spec },
    status: { phase: "Running" },
    ...more,
  };
}

const tokenVolume = (audience?: string) => ({
  name: "token",
  projected: { sources: [{ serviceAccountToken: { path: "token", ...(audience === undefined ? {} : { audience }) } }] },
});
const volume = (kind: object) => ({ volumes: [{ name: "v", ...kind }] });

const PODS = [
  pod("plain"),
  pod("reads-config", volume({ configMap: { name: "settings" } })),
  pod("lacks-config", volume({ configMap: { name: "unread" } })),
  pod("may-lack-config", volume({ configMap: { name: "none", optional: true } })),
  pod("must-have-none", volume({ configMap: { name: "none" } })),
  pod("lacks-secret", { containers: [{ name: "c", ...IMAGE, envFrom: [{ secretRef: { name: "password" } }] }] }),
  pod("has-token", { volumes: [tokenVolume()] }),
  pod("lacks-token", { volumes: [tokenVolume("vault")] }),
  pod("has-claim", volume({ persistentVolumeClaim: { claimName: "data" } })),
  pod("mounts-nfs", volume({ nfs: { server: "10.0.0.9", path: "/" } })),
  pod("done", {}, { status: { phase: "Succeeded" } }),
];

async function setUp() {
  const apiServer = await startApiServer({
    objects: [
      { apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } },
      configMap("settings"),
      configMap("unread"),
      { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "web", namespace: "shop" } },
      { apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: "data", namespace: "shop" }, spec: {} },
      ...PODS,
    ],
  });
  const machineRoot = mkdtempSync(join(tmpdir(), "holdfast-cover-"));
  const cni = join(machineRoot, "etc/cni/net.d/10.conf");
  mkdirSync(dirname(cni), { recursive: true });
  writeFileSync(cni, JSON.stringify({ type: "bridge", ipam: { type: "host-local" } }));
  const images = await serveImages(join(machineRoot, "run/containerd/containerd.sock"), [
    { id: "sha256:1", tags: ["docker.io/library/nginx:1.27"] },
  ]);
  const edge = await startEdge({ apiServer, node: "edge1", machineRoot });
  return { apiServer, edge, images };
}

/** What kubelet reads at its start, but for what some pods are to lack. */
async function read(edge: Edge) {
  const ask = async (target: string, method = "GET", body?: string) => {
    const { status } = await edge.client.request(method, target, {
      headers: { Accept: "application/json", "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body }),
    });
    expect([target, status]).toEqual([target, method === "POST" ? 201 : 200]);
  };
  await ask("/api/v1/pods?fieldSelector=spec.nodeName%3Dedge1");
  await ask("/api/v1/nodes?fieldSelector=metadata.name%3Dedge1");
  await ask("/api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name%3Dsettings");
  await ask("/api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name%3Dnone");
  await ask("/api/v1/namespaces/shop/persistentvolumeclaims/data");
  const boundObjectRef = { kind: "Pod", apiVersion: "v1", name: "has-token", uid: "uid-has-token" };
  await ask(
    "/api/v1/namespaces/shop/serviceaccounts/web/token",
    "POST",
    JSON.stringify({ spec: { boundObjectRef, expirationSeconds: 3607 } }),
  );
}

async function coverage(edge: Edge): Promise<CoverageReport> {
  const path = join(edge.stateDir, "admin.sock");
  return (await (await fetch("http://holdfast/v1/coverage", { unix: path } as RequestInit)).json()) as CoverageReport;
}

/** What status prints once somebody has looked: on a busy machine it does not wait for the look. */
async function statusOnceLooked(edge: Edge): Promise<string> {
  await coverage(edge);
  const { stdout } = await holdfast("status", "--state-dir", edge.stateDir);
  return stdout;
}

test("each pod is judged by what the node's own copies hold, and is the same while cut", async () => {
  const { apiServer, edge, images } = await setUp();
  await using _ = apiServer;
  await using __ = edge;
  using ___ = images;
  await read(edge);
  expect((await coverage(edge)).node).toEqual([
    { kind: "node", name: "services", why: "kubelet has not listed them through Holdfast" },
  ]);
  await edge.client.get("/api/v1/services", { Accept: "application/json" });
  await linkOf(apiServer, edge.client).cut();
  await edge.restart();
  const { node, pods } = await coverage(edge);
  expect(node).toEqual([]);
  const of = Object.fromEntries(
    pods.map(({ name, comesBack, missing, unknown }) => [name, [comesBack, ...missing, ...unknown]]),
  );
  const gap = (kind: string, name: string, why: string) => ({ kind, name, why });
  expect(of).toEqual({
    "has-claim": ["unknown", gap("claim", "data", "its volume may lie beyond this machine")],
    "has-token": ["yes"],
    "lacks-config": ["no", gap("ConfigMap", "unread", "never read through Holdfast")],
    "lacks-secret": ["no", gap("Secret", "password", "never read through Holdfast")],
    "lacks-token": ["no", gap("token", "web for vault", "never asked for through Holdfast")],
    "may-lack-config": ["yes"],
    "mounts-nfs": ["unknown", gap("volume", "volume v (nfs)", "not judged")],
    "must-have-none": ["no", gap("ConfigMap", "none", "the API server has none")],
    plain: ["yes"],
    "reads-config": ["yes"],
  });
}, 20_000);

test("the first line of status says who does not come back, and the table why", async () => {
  const { apiServer, edge, images } = await setUp();
  await using _ = apiServer;
  await using __ = edge;
  using ___ = images;
  await read(edge);
  await edge.client.get("/api/v1/services", { Accept: "application/json" });
  const stdout = await statusOnceLooked(edge);
  expect(stdout.split("\n")[0]).toMatch(
    /^ONLINE \S+ · 4 of 10 pods come back, 2 unknown; shop\/lacks-config lacks ConfigMap unread \(never read through Holdfast\) \(and 3 more\) · /,
  );
  expect(stdout).toMatch(/^shop\/lacks-token +no +token web for vault \(never asked for through Holdfast\)$/m);
}, 20_000);

test("who never sent kubelet through Holdfast is told so, and who has no node is told nothing", async () => {
  const { apiServer, edge, images } = await setUp();
  await using _ = apiServer;
  await using __ = edge;
  using ___ = images;
  expect((await statusOnceLooked(edge)).split("\n")[0]).toContain(
    "no pod comes back: node pods (kubelet has not listed its pods through Holdfast)",
  );
  await using person = await startEdge({ apiServer });
  expect((await holdfast("status", "--state-dir", person.stateDir)).stdout.split("\n")[0]).not.toContain("pod");
}, 20_000);
