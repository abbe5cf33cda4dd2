/**
 * `bun run bench:flood`: what floods cost kubelet and the memory.
 *
 *   --only NAME      one flood alone ("all" is one of the names)
 *   --seconds N      how long each lasts, default 5
 *
 * The compiled binary stands before the stand-in; each flood meets a Holdfast
 * of its own, and last all of them one. Sender, stand-in, Holdfast and kubelet
 * are a process each. Kubelet reads a pod every 20 ms and renews its Lease
 * every tenth time, each second over a new connection besides; the same is
 * measured before the flood, and beside it by a kubelet that asks the stand-in
 * itself, for what a flood costs that one is none of Holdfast's. It prints and never fails: what is missed is
 * printed as missed.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Connection, percentiles, type Target } from "./load.ts";
import { memoryOf } from "./process.ts";
import { ensureDependencies, projectRoot } from "../setup.ts";

ensureDependencies();
const binary = process.env["HOLDFAST_BINARY"] ?? join(projectRoot, "dist", `holdfast-linux-${process.arch}`);
const FLOODS = [
  "made-up tokens",
  "bodies to a slow server",
  "requests nobody reads",
  "stalled lists under churn",
  "an answer that unfolds",
  "watches with selectors",
  "GETs with long queries",
  "idle connections",
  "lists at speed",
  "handshakes alone",
  "connections that say nothing",
] as const;
const LIMITS = { rssMb: 128, p99Ms: 250 } as const;
const PACE_MS = 20;
const BEFORE_MS = 3_000;
const AFTER_MS = 4_000;

interface Server {
  readonly port: number;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly node: string;
}

async function main(): Promise<void> {
  const only = option("--only");
  const seconds = Number(option("--seconds") ?? "5");
  const child = spawn(process.execPath, [join(import.meta.dir, "flood-server.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const server = JSON.parse(await firstLine(child)) as Server;
  mkdirSync(join(projectRoot, ".cache"), { recursive: true });
  const folder = mkdtempSync(join(projectRoot, ".cache", "flood-"));
  try {
    for (const [name, floods] of [...FLOODS.map((one) => [one, [one]] as const), ["all", FLOODS] as const])
      if (only === undefined || only === name) await measure(server, join(folder, name), name, floods, seconds);
  } finally {
    child.kill("SIGTERM");
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(
  server: Server,
  folder: string,
  name: string,
  floods: readonly string[],
  seconds: number,
): Promise<void> {
  const { child, target } = await startHoldfast(server, folder);
  const pid = child.pid!;
  try {
    await kubelet(target, server.node, 500);
    const before = await kubelet(target, server.node, BEFORE_MS);
    const startRss = memoryOf(pid).rssMb;
    let peakRss = startRss;
    const watching = setInterval(() => (peakRss = Math.max(peakRss, memoryOf(pid).rssMb)), 50);
    const source = spawn(
      process.execPath,
      [join(import.meta.dir, "flood-sources.ts"), JSON.stringify({ port: target.port, seconds, floods })],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const acts = firstLine(source).catch(() => "?");
    const gone = new Promise((resolve) => source.once("exit", resolve));
    const direct = kubelet({ ...target, port: server.port, ca: server.ca }, server.node, seconds * 1_000, 200);
    const during = await kubelet(target, server.node, seconds * 1_000);
    const beside = await direct;
    await gone;
    await Bun.sleep(AFTER_MS);
    clearInterval(watching);
    const after = memoryOf(pid).rssMb;
    const isMet = peakRss < LIMITS.rssMb && during.p99Ms < LIMITS.p99Ms && during.refused.length === 0;
    console.log(
      `${name.padEnd(28)} ${(await acts).padStart(5)} acts; RSS ${mb(startRss)}, at most ${mb(peakRss)}, then ${mb(after)} MB; kubelet p50 ${ms(during.p50Ms)} p99 ${ms(during.p99Ms)} of ${during.count} (without: ${ms(before.p50Ms)}, ${ms(before.p99Ms)}; past Holdfast: ${ms(beside.p50Ms)}, ${ms(beside.p99Ms)}) ms; refused ${during.refused.length}${during.refused.length === 0 ? "" : ` (${[...new Set(during.refused)].join("; ")})`}; load ${loadavg()[0]!.toFixed(1)}  ${isMet ? "met" : "MISSED"}`,
    );
  } catch (error) {
    console.log(`${name.padEnd(30)} broke off: ${String(error)}  MISSED`);
  } finally {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode === null && child.kill("SIGTERM")) await Promise.race([gone, Bun.sleep(5_000)]);
    if (child.exitCode === null) child.kill("SIGKILL");
  }
}

interface Kubelet {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly count: number;
  /** What went wrong, each time it did. */
  readonly refused: readonly string[];
}

/** Kubelet's small requests at a steady pace, one after another. */
async function kubelet(target: Target, node: string, forMs: number, paceMs = PACE_MS): Promise<Kubelet> {
  const times: number[] = [];
  const refused: string[] = [];
  const lease = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${node}`;
  let kept: Connection | undefined;
  const ask = async (send: () => Promise<{ status: number }>) => {
    const at = performance.now();
    try {
      const { status } = await send();
      if (status >= 429) refused.push(String(status));
    } catch (error) {
      refused.push((error as Error).message);
      kept = undefined;
    }
    times.push(performance.now() - at);
  };
  const endsMs = performance.now() + forMs;
  for (let count = 0; performance.now() < endsMs; count++) {
    const nextMs = performance.now() + paceMs;
    if (count % 50 === 0)
      await ask(async () => {
        const fresh = await Connection.open(target);
        const answer = await fresh.get(`/api/v1/nodes/${node}`);
        fresh.close();
        return answer;
      });
    await ask(async () => {
      kept ??= await Connection.open(target);
      return count % 10 === 0 ? kept.put(lease, leaseOf(node)) : kept.get(`/api/v1/nodes/${node}`);
    });
    await Bun.sleep(Math.max(0, nextMs - performance.now()));
  }
  kept?.close();
  return { ...percentiles(times), count: times.length, refused };
}

function leaseOf(node: string): string {
  return JSON.stringify({
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { name: node, namespace: "kube-node-lease" },
    spec: { holderIdentity: node, leaseDurationSeconds: 40, renewTime: new Date().toISOString().replace("Z", "000Z") },
  });
}

async function startHoldfast(
  server: Server,
  home: string,
): Promise<{ readonly child: ChildProcess; readonly target: Target }> {
  mkdirSync(home, { recursive: true });
  const data = (text: string) => Buffer.from(text).toString("base64");
  const url = `https://127.0.0.1:${server.port}`;
  const kubeconfig = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server: url, "certificate-authority-data": data(server.ca) } }],
    users: [{ name: "u", user: { "client-certificate-data": data(server.cert), "client-key-data": data(server.key) } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
  writeFileSync(join(home, "kubeconfig"), JSON.stringify(kubeconfig), { mode: 0o600 });
  const places = ["--kubeconfig", join(home, "kubeconfig"), "--state-dir", join(home, "state")];
  const child = spawn(binary, ["run", ...places, "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  createInterface({ input: child.stderr! }).on("line", (line) => {
    const serving = /"message":"serving","ports":"(\d+)"/.exec(line);
    if (serving !== null) resolve(Number(serving[1]));
  });
  child.once("exit", (code, signal) => reject(new Error(`holdfast run ended with ${code ?? signal}`)));
  const port = await promise;
  const ca = readFileSync(join(home, "state", "pki", "local-ca.crt"), "utf8");
  return { child, target: { host: "127.0.0.1", port, ca, cert: server.cert, key: server.key } };
}

async function firstLine(child: ChildProcess): Promise<string> {
  for await (const line of createInterface({ input: child.stdout! })) return line;
  throw new Error("the stand-in ended before it began");
}

function option(name: string): string | undefined {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}

const mb = (value: number) => value.toFixed(0);
const ms = (value: number) => value.toFixed(value < 10 ? 1 : 0);

await main();
process.exit(0);
