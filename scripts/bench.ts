/**
 * `bun run bench`: the figures, measured on the compiled binary.
 *
 *   bun scripts/bench.ts          against the API server stand-in, a process of its own
 *   bun scripts/bench.ts --lab    against a real kube-apiserver in a network namespace (root, Go)
 *   --quick                       a tenth of the requests
 *   --profile                     where the CPU of a forwarded GET goes, by perf
 *
 * Rounds against the API server itself, through Holdfast and through Go's
 * reverse proxy alternate in one run and the medians of the rounds are
 * compared, because the machine is shared and noisy. A row that was measured
 * beside other work is measured again, and says so when it never was quiet.
 * HOLDFAST_PROFILE=small measures the small profile, against its own limits. Memory is read from /proc, bytes written from /proc/PID/io.
 * It prints and never fails: a figure that is missed is printed as missed.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { forwardingRows } from "./bench/forwarding.ts";
import { Connection, openStream, run, type Target } from "./bench/load.ts";
import { inQuiet, loadLine, machineLine, ROOT_VARIABLE } from "./bench/machine.ts";
import { median, note, print, row } from "./bench/report.ts";
import { cpuSecondsOf, memoryOf, writtenBytesOf } from "./bench/process.ts";
import { ensureDependencies, projectRoot } from "./setup.ts";

ensureDependencies();
const isQuick = process.argv.includes("--quick");
const binary = process.env["HOLDFAST_BINARY"] ?? join(projectRoot, "dist", `holdfast-linux-${process.arch}`);

/** An API server to measure against: how to reach it, and a little more. */
interface Server {
  readonly host: string;
  readonly port: number;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** LISTs of EndpointSlices so far, and watches open on them. */
  counts(): Promise<{ readonly lists: number; readonly watches: number }>;
  stop(): void;
}

const SLICES = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const KINDS = [
  "/api/v1/pods",
  "/api/v1/nodes",
  "/api/v1/services",
  "/api/v1/configmaps",
  "/api/v1/secrets",
  "/api/v1/namespaces",
  "/api/v1/events",
  "/api/v1/endpoints",
  "/apis/discovery.k8s.io/v1/endpointslices",
  "/apis/apps/v1/deployments",
  "/api/v1/serviceaccounts",
  "/apis/coordination.k8s.io/v1/leases",
  "/api/v1/namespaces/default/configmaps",
  "/api/v1/namespaces/default/pods",
  "/api/v1/namespaces/default/secrets",
];

async function main(): Promise<void> {
  // Namespaces are made and entered before anything else: the whole bench then runs inside.
  const server = process.argv.includes("--lab") ? await labServer() : await standIn();
  mkdirSync(join(projectRoot, ".cache"), { recursive: true });
  const folder = mkdtempSync(join(projectRoot, ".cache", "bench-"));
  try {
    await measure(server, folder);
  } finally {
    server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(server: Server, folder: string): Promise<void> {
  const { startLink } = await import("../src/demo/api-server/link.ts");
  const { demoNode, demoSlice } = await import("../src/demo/api-server/seed.ts");
  const direct: Target = server;
  const create = creator(server);
  for (const name of ["bench", "shop"])
    await create("/api/v1/namespaces", { kind: "Namespace", apiVersion: "v1", metadata: { name } });
  await create("/api/v1/namespaces/shop/serviceaccounts", {
    kind: "ServiceAccount",
    apiVersion: "v1",
    metadata: { name: "default" },
  });
  await create("/api/v1/nodes", clean(demoNode("bench-node")));
  for (let i = 0; i < 5; i++)
    await create("/api/v1/namespaces/shop/pods", {
      kind: "Pod",
      apiVersion: "v1",
      metadata: { name: `bench-${i}` },
      spec: { containers: [{ name: "a", image: "a" }], automountServiceAccountToken: false },
    });

  console.log(`${machineLine()}\nload ${loadLine()}`);
  print("what", "at most", "measured", "");
  // 1. Forwarding, without anything between Holdfast and the API server.
  await using plain = await startHoldfast(server, folder, "plain", server.port);
  const node = "/api/v1/nodes/bench-node";
  await forwardingRows(direct, plain, node, folder, isQuick ? 10 : 1);

  // 2. Memory with 5 pods and 15 watches.
  {
    await using small = await startHoldfast(server, folder, "small", server.port);
    const watches = await Promise.all(KINDS.map((path) => openStream(small.target, `${path}?${STREAM}`)));
    await Bun.sleep(5_000);
    const memory = memoryOf(small.pid);
    row("RSS with 5 pods, 15 watches, MB", [62, 54], memory.rssMb);
    row("  anonymous, MB", [14, 11], memory.anonymousMb);
    for (const close of watches) close();
  }

  await manyWatchesRow(server, folder);

  // 3. Five thousand slices arrive one by one; then cuts, lists and watchers.
  const link = await startLink({ to: { host: server.host, port: server.port } });
  let edge = await startHoldfast(server, folder, "edge", link.port);
  const first = await openStream(edge.target, `${SLICES}?${STREAM}`);
  const writtenBefore = writtenBytesOf(edge.pid);
  const total = isQuick ? 500 : 5_000;
  const perSecond = isQuick ? 500 : 100;
  const cpuArrive = cpuSecondsOf(edge.pid);
  for (let i = 0; i < total; i += perSecond) {
    const startedMs = performance.now();
    for (let j = i; j < i + perSecond; j++) await create(SLICES, sliceOf(clean(demoSlice(j))));
    await Bun.sleep(Math.max(0, 1_000 - (performance.now() - startedMs)));
  }
  await Bun.sleep(2_000);
  Bun.spawnSync(["sync"]);
  row(
    `written to the block device while ${total} slices arrive, MB`,
    10,
    (writtenBytesOf(edge.pid) - writtenBefore) / 1e6,
    "",
  );
  note(`${(cpuSecondsOf(edge.pid) - cpuArrive).toFixed(2)} s CPU meanwhile`);

  const watchesBefore = (await server.counts()).watches;
  const twenty = await Promise.all(Array.from({ length: 19 }, () => openStream(edge.target, `${SLICES}?${STREAM}`)));
  await Bun.sleep(1_000);
  row("upstream watches for 20 equal local watchers", 1, (await server.counts()).watches - watchesBefore + 1, "");
  const connection = await Connection.open(edge.target);
  const lists = await inQuiet(async () => {
    const times: number[] = [];
    for (let i = 0; i < 20; i++) {
      const startedMs = performance.now();
      await connection.get(`${SLICES}?resourceVersion=0`);
      times.push(performance.now() - startedMs);
    }
    return median(times);
  });
  const busy = memoryOf(edge.pid);
  row(`RSS with ${total} slices, 20 watchers, after twenty lists, MB`, 100, busy.rssMb);
  row("  anonymous, MB", 50, busy.anonymousMb);
  await Bun.sleep(30_000);
  const calm = memoryOf(edge.pid);
  note(`half a minute later ${calm.rssMb.toFixed(0)} / ${calm.anonymousMb.toFixed(0)} MB`);
  row(`list of ${total} slices from the copy, ms`, 50, lists);

  // 4. The cut.
  const listsBefore = (await server.counts()).lists;
  await get(edge.target, node);
  await link.cut();
  let startedMs = performance.now();
  await get(edge.target, node);
  row("cut to first cached answer, connection reset, s", 0.05, (performance.now() - startedMs) / 1_000, "");
  const cached = await inQuiet(() => run(edge.target, node, isQuick ? 300 : 3_000, 1));
  row("cached GET over mTLS, keep-alive: p50, ms", 0.2, { ...cached, value: cached.value.p50Ms });
  row("  p99, ms", 1, { ...cached, value: cached.value.p99Ms });
  await edge[Symbol.asyncDispose]();
  startedMs = performance.now();
  edge = await startHoldfast(server, folder, "edge", link.port);
  await get(edge.target, node);
  row("exec to first answer, offline, warm disk, s", 0.3, (performance.now() - startedMs) / 1_000, "");
  const again = await openStream(
    edge.target,
    `${SLICES}?watch=true&allowWatchBookmarks=true&resourceVersion=${await heldVersion(edge.target)}`,
  );
  await link.heal();
  await Bun.sleep(5_000);
  row("LISTs reaching the API server when the link returns", 0, (await server.counts()).lists - listsBefore, "");
  await get(edge.target, node);
  link.drop();
  startedMs = performance.now();
  await get(edge.target, node);
  row("cut to first cached answer, black hole, s", 1.5, (performance.now() - startedMs) / 1_000, "");
  for (const close of [first, again, ...twenty]) close();
  await edge[Symbol.asyncDispose]();
  await link[Symbol.asyncDispose]();
}

/** Three hundred watches of one caller, each of one name, as kubelet's of Secrets and ConfigMaps: what they take on both legs. */
async function manyWatchesRow(server: Server, folder: string): Promise<void> {
  const count = isQuick ? 60 : 300;
  await using edge = await startHoldfast(server, folder, "watches", server.port);
  const open = (i: number) =>
    openStream(edge.target, `/api/v1/namespaces/bench/configmaps?fieldSelector=metadata.name%3Dwatched-${i}&${STREAM}`);
  const closes = [await open(0)];
  await Bun.sleep(2_000);
  const before = memoryOf(edge.pid);
  const watchesBefore = (await server.counts()).watches;
  for (let i = 1; i < count; i++) closes.push(await open(i));
  await Bun.sleep(5_000);
  const after = memoryOf(edge.pid);
  row(
    `${count} watches of one caller, kB each, both legs`,
    30,
    ((after.anonymousMb - before.anonymousMb) / count) * 1_000,
  );
  note(
    `RSS ${before.rssMb.toFixed(0)} to ${after.rssMb.toFixed(0)} MB; ${(await server.counts()).watches - watchesBefore} more watches at the API server, of what it counts`,
  );
  for (const close of closes) close();
}

/** The stand-in, started from source by this very runtime. */
async function standIn(): Promise<Server> {
  const child = spawn(process.execPath, [join(projectRoot, "src/demo/api-server/main.ts"), "--slices", "1"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await lines.next()).value as string) as Record<string, unknown>;
  const { url, kubeconfig } = (await next()) as { url: string; kubeconfig: string };
  const ask = async (command: string) => {
    child.stdin!.write(`${command}\n`);
    return next();
  };
  const document = Bun.YAML.parse(readFileSync(kubeconfig, "utf8")) as {
    clusters: [{ cluster: Record<string, string> }];
    users: [{ user: Record<string, string> }];
  };
  const text = (data: string | undefined) => Buffer.from(data ?? "", "base64").toString("utf8");
  const { user } = document.users[0];
  let seen = 0;
  let lists = 0;
  return {
    host: "127.0.0.1",
    port: Number(new URL(url).port),
    ca: text(document.clusters[0].cluster["certificate-authority-data"]),
    cert: text(user["client-certificate-data"]),
    key: text(user["client-key-data"]),
    async counts() {
      const log = (await ask(`log ${seen}`)) as unknown as {
        next: number;
        requests: { method: string; target: string }[];
      };
      seen = log.next;
      lists += log.requests.filter(
        ({ method, target }) => method === "GET" && target.startsWith(SLICES) && !target.includes("watch="),
      ).length;
      return { lists, watches: ((await ask("stat")) as { watches: number }).watches };
    },
    stop: () => void child.kill("SIGTERM"),
  };
}

/** A real control plane; this process must already be inside its namespace, so it starts itself again there. */
async function labServer(): Promise<Server> {
  const given = process.env["HOLDFAST_BENCH_LAB"];
  if (given === undefined) {
    const { startWorld } = await import("../test/lab/world.ts");
    const { buildPrograms } = await import("../test/lab/build.ts");
    buildPrograms();
    const world = await startWorld();
    const { certificate, key } = world.certificateOf("admin") as { certificate: string; key: string };
    const setting = JSON.stringify({ ca: world.pki.ca, cert: certificate, key });
    const child = spawn("ip", ["netns", "exec", world.network.cloud, process.execPath, ...process.argv.slice(1)], {
      stdio: "inherit",
      env: { ...process.env, HOLDFAST_BENCH_LAB: setting, [ROOT_VARIABLE]: `${process.pid}` },
    });
    // Ended by somebody, the cluster goes too.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
    const code = await new Promise<number>((resolve) => child.on("exit", (exit) => resolve(exit ?? 1)));
    await world[Symbol.asyncDispose]();
    process.exit(code);
  }
  const files = JSON.parse(given) as { ca: string; cert: string; key: string };
  const [ca, cert, key] = [files.ca, files.cert, files.key].map((path) =>
    path.startsWith("-----") ? path : readFileSync(path, "utf8"),
  ) as [string, string, string];
  const tls = { ca, cert, key };
  const metric = (text: string, name: string, labels: readonly string[]) =>
    text
      .split("\n")
      .filter((line) => line.startsWith(name) && labels.every((label) => line.includes(label)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  return {
    host: "127.0.0.1",
    port: 6443,
    ...tls,
    async counts() {
      const text = await (await fetch("https://127.0.0.1:6443/metrics", { tls } as RequestInit)).text();
      return {
        lists: metric(text, "apiserver_request_total", ['verb="LIST"', 'resource="endpointslices"']),
        watches: metric(text, "apiserver_longrunning_requests", ['verb="WATCH"', 'resource="endpointslices"']),
      };
    },
    stop() {},
  };
}

interface Started extends AsyncDisposable {
  readonly pid: number;
  readonly target: Target;
}

async function startHoldfast(server: Server, folder: string, name: string, port: number): Promise<Started> {
  const home = join(folder, name);
  mkdirSync(home, { recursive: true });
  const data = (text: string) => Buffer.from(text).toString("base64");
  const kubeconfig = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "c", cluster: { server: `https://127.0.0.1:${port}`, "certificate-authority-data": data(server.ca) } },
    ],
    users: [{ name: "u", user: { "client-certificate-data": data(server.cert), "client-key-data": data(server.key) } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
  writeFileSync(join(home, "kubeconfig"), JSON.stringify(kubeconfig), { mode: 0o600 });
  const child: ChildProcess = spawn(
    binary,
    [
      "run",
      "--kubeconfig",
      join(home, "kubeconfig"),
      "--state-dir",
      join(home, "state"),
      "--listen",
      "127.0.0.1:0",
      "--health-listen",
      "127.0.0.1:0",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  createInterface({ input: child.stderr! }).on("line", (line) => {
    const serving = /"message":"serving","ports":"(\d+)"/.exec(line);
    if (serving !== null) resolve(Number(serving[1]));
  });
  child.once("exit", (code) => reject(new Error(`holdfast run ended with ${code}`)));
  const listening = await promise;
  return {
    pid: child.pid!,
    target: {
      host: "127.0.0.1",
      port: listening,
      ca: readFileSync(join(home, "state", "pki", "local-ca.crt"), "utf8"),
      cert: server.cert,
      key: server.key,
    },
    async [Symbol.asyncDispose]() {
      const gone = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      await gone;
    },
  };
}

function creator(server: Server) {
  const { ca, cert, key } = server;
  return async (path: string, object: object) => {
    const response = await fetch(`https://127.0.0.1:${server.port}${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(object),
      tls: { ca, cert, key },
    } as RequestInit);
    const body = await response.text();
    if (response.status !== 201 && response.status !== 409)
      throw new Error(`POST ${path} answered ${response.status}: ${body.slice(0, 300)}`);
  };
}

/** Without what only a server may set. */
function clean(object: object): Record<string, unknown> {
  const { status: _status, ...rest } = object as Record<string, unknown>;
  const { uid: _uid, ...metadata } = rest["metadata"] as Record<string, unknown>;
  return { ...rest, metadata };
}

function sliceOf(object: Record<string, unknown>): object {
  return { ...object, metadata: { ...(object["metadata"] as object), namespace: "bench" } };
}

async function get(target: Target, path: string): Promise<void> {
  const connection = await Connection.open(target);
  const { status } = await connection.get(path);
  connection.close();
  if (status !== 200) throw new Error(`GET ${path} answered ${status}`);
}

/** The resourceVersion that a list from the copy has. */
async function heldVersion(target: Target): Promise<string> {
  const response = await fetch(`https://127.0.0.1:${target.port}${SLICES}?resourceVersion=0`, {
    tls: { ca: target.ca, cert: target.cert, key: target.key },
  } as RequestInit);
  return ((await response.json()) as { metadata: { resourceVersion: string } }).metadata.resourceVersion;
}

await main();
process.exit(0);
