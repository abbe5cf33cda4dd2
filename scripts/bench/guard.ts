/**
 * `bun run bench:guard`: the figures of the guard, measured on the compiled binary.
 *
 *   --nodes N --pods N   the cluster that is watched   (1,000 and 20,000)
 *   --requests N         reviews of each kind          (20,000)
 *
 * A small API server of its own (a process, so that it takes none of the
 * guard's time) lists the cluster and keeps the watches open. Reviews of 8 KB go
 * over kept TLS connections, sixteen at once, from this process: what it takes
 * to send them counts against the guard too.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createAuthority, issueServingCertificate } from "../../src/certificates/authority.ts";
import { projectRoot } from "../setup.ts";
import { Connection, percentiles, type Target } from "./load.ts";
import { cpuSecondsOf, memoryOf } from "./process.ts";

const binary = process.env["HOLDFAST_BINARY"] ?? join(projectRoot, "dist", `holdfast-linux-${process.arch}`);
const REVIEW_BYTES = 8_192;
const AT_ONCE = 16;
const PORT = 18_443;
const HEALTH_PORT = 18_444;
const API_PORT = 18_445;

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-bench-guard-"));
  const authority = createAuthority({ commonName: "bench", nowMs: Date.now() });
  const pair = issueServingCertificate(authority, {
    commonName: "bench",
    dnsNames: ["localhost"],
    ipAddresses: ["127.0.0.1"],
    nowMs: Date.now(),
  });
  const path = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const files = {
    ca: path("ca.crt", authority.certPem),
    cert: path("tls.crt", pair.certPem),
    key: path("tls.key", pair.keyPem),
  };
  const kubeconfig = path(
    "kubeconfig",
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "b", cluster: { server: `https://127.0.0.1:${API_PORT}`, "certificate-authority": files.ca } },
      ],
      users: [{ name: "b", user: { token: "bench" } }],
      contexts: [{ name: "b", context: { cluster: "b", user: "b" } }],
      "current-context": "b",
    }),
  );
  const cluster = [String(option("--nodes", 1_000)), String(option("--pods", 20_000))];
  const script = join(import.meta.dir, "guard-cluster.ts");
  const api = Bun.spawn([process.execPath, script, String(API_PORT), files.cert, files.key, ...cluster], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const guard = Bun.spawn(
    [
      binary,
      "guard",
      `--kubeconfig=${kubeconfig}`,
      `--listen=127.0.0.1:${PORT}`,
      `--health-listen=127.0.0.1:${HEALTH_PORT}`,
      `--tls-cert-file=${files.cert}`,
      `--tls-key-file=${files.key}`,
    ],
    { stdio: ["ignore", "ignore", Bun.file(join(folder, "guard.log"))] },
  );
  try {
    await ready();
    const atStart = memoryOf(guard.pid);
    console.log(
      `${cluster[0]} nodes, ${cluster[1]} pods; RSS/anonymous after the first read ${atStart.rssMb.toFixed(0)} / ${atStart.anonymousMb.toFixed(0)} MB`,
    );
    const target: Target = {
      host: "127.0.0.1",
      port: PORT,
      ca: authority.certPem,
      cert: pair.certPem,
      key: pair.keyPem,
    };
    for (const [what, file, body] of [
      ["a delete that passes (node heard by nobody's rule)", "/validate/pods-delete", review("plain-1")],
      ["a slice of 20 endpoints, none cut off", "/mutate/endpointslices", slice()],
    ] as const) {
      await reviews(target, file, body, 2_000);
      const [cpu, at] = [cpuSecondsOf(guard.pid), performance.now()];
      const count = option("--requests", 20_000);
      const times = await reviews(target, file, body, count);
      const [cpuTook, took] = [cpuSecondsOf(guard.pid) - cpu, (performance.now() - at) / 1_000];
      const { p50Ms, p99Ms } = percentiles(times);
      console.log(`${what}, ${body.length} B, ${AT_ONCE} at once:`);
      line("p50, ms", 2, p50Ms, 2);
      line("p99, ms", 10, p99Ms, 2);
      line("reviews a second and core of the guard's own", -5_000, count / cpuTook, 0);
      console.log(
        `    ${(count / took).toFixed(0)} a second in all, ${cpuTook.toFixed(1)} s of CPU in ${took.toFixed(1)} s`,
      );
    }
    await Bun.sleep(10_000);
    const { rssMb, anonymousMb } = memoryOf(guard.pid);
    line("RSS, MB", 128, rssMb, 0);
    console.log(`    anonymous ${anonymousMb.toFixed(0)} MB`);
  } finally {
    guard.kill();
    api.kill();
    await guard.exited;
    rmSync(folder, { recursive: true, force: true });
  }
}

async function ready(): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const answer = await fetch(`http://127.0.0.1:${HEALTH_PORT}/readyz`).catch(() => undefined);
    if (answer?.ok === true) return;
    await Bun.sleep(100);
  }
  throw new Error("the guard is not ready after a minute");
}

async function reviews(target: Target, path: string, body: string, count: number): Promise<number[]> {
  const connections = await Promise.all(Array.from({ length: AT_ONCE }, () => Connection.open(target)));
  const times: number[] = [];
  let left = count;
  await Promise.all(
    connections.map(async (connection) => {
      while (left-- > 0) {
        const at = performance.now();
        const { status } = await connection.post(path, body);
        if (status !== 200) throw new Error(`${path} answered ${status}`);
        times.push(performance.now() - at);
      }
    }),
  );
  for (const connection of connections) connection.close();
  return times;
}

function wrapped(resource: object, user: string, operation: string, object: object, name: string): string {
  const request = {
    uid: "705ab4f5-6393-11e8-b7cc-42010a800002",
    kind: { group: "", version: "v1", kind: "Pod" },
    resource,
    operation,
    namespace: "bench",
    name,
    userInfo: { username: user, groups: ["system:serviceaccounts", "system:authenticated"] },
    dryRun: false,
    ...(operation === "DELETE" ? { object: null, oldObject: object } : { object, oldObject: object }),
  };
  const text = (padding: string) =>
    JSON.stringify({
      apiVersion: "admission.k8s.io/v1",
      kind: "AdmissionReview",
      request: { ...request, options: { padding } },
    });
  return text("x".repeat(Math.max(0, REVIEW_BYTES - text("").length)));
}

function review(node: string): string {
  const pod = {
    metadata: { name: "pod-1", namespace: "bench" },
    spec: { nodeName: node },
    status: {
      phase: "Running",
      conditions: [{ type: "DisruptionTarget", status: "True", reason: "DeletionByTaintManager" }],
    },
  };
  const resource = { group: "", version: "v1", resource: "pods" };
  return wrapped(resource, "system:serviceaccount:kube-system:node-controller", "DELETE", pod, "pod-1");
}

function slice(): string {
  const endpoints = Array.from({ length: 20 }, (_, index) => ({
    addresses: [`10.0.0.${index}`],
    conditions: { ready: index > 0, serving: index > 0, terminating: false },
    nodeName: "plain-1",
    targetRef: { kind: "Pod", namespace: "bench", name: `pod-${index}`, uid: `uid-${index}` },
  }));
  const object = { metadata: { name: "web-abc", namespace: "bench" }, addressType: "IPv4", endpoints };
  const resource = { group: "discovery.k8s.io", version: "v1", resource: "endpointslices" };
  return wrapped(resource, "system:serviceaccount:kube-system:endpointslice-controller", "UPDATE", object, "web-abc");
}

/** @param limit negative: at least. */
function line(what: string, limit: number, value: number, digits: number): void {
  const holds = limit < 0 ? value >= -limit : value <= limit;
  console.log(
    `  ${what.padEnd(52)} ${String(Math.abs(limit)).padStart(8)} ${value.toFixed(digits).padStart(9)}  ${holds ? "ok" : "MISSED"}`,
  );
}

function option(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

await main();
