/**
 * `bun run bench:node`: what an idle node costs its link and its disk.
 *
 *   --online MINUTES   how long both nodes are watched online, default 60
 *   --cut MINUTES      how long the one behind Holdfast is watched while cut, default 60
 *   --settle MINUTES   before anything is counted, default 3
 *   --profile          also what the bytes are: requests, connections
 *   --thrifty          a third node, behind a Holdfast with leaseInterval 20s and the small profile
 *
 * Two worlds (with --thrifty three) stand side by side: one node asks its API server directly, the
 * other through Holdfast (compiled). Both have a stock kubelet, kube-proxy and
 * CoreDNS and the same twenty pods. Bytes are those of the cable, both ways,
 * headers and all, as the kernel counts them on the edge's end of the veth
 * pair. Bytes written are Holdfast's own in /proc/PID/io, less its log, which
 * the lab keeps in a file and systemd would not; the state folder lies in
 * $TMPDIR, which must be a real file system.
 *
 * Needs what `bun run test:lab` needs. It prints and never fails: a figure
 * that is missed is printed as missed.
 */

import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildPrograms } from "../../test/lab/build.ts";
import { LabNode } from "../../test/lab/node.ts";
import { clearLeftovers, LAB_DIR_VARIABLE, until } from "../../test/lab/processes.ts";
import { findProgram, NODE_PROGRAMS, POD_NETWORK_PROGRAMS, whyNotRunnable } from "../../test/lab/requirements.ts";
import { clusterDns, container, NAMESPACE, pod, staticPod } from "../../test/lab/workload.ts";
import { type Holdfast, startWorld, type World } from "../../test/lab/world.ts";
import { connectionsOf, requestsOf } from "./idle-profile.ts";
import { cpuSecondsOf, memoryOf, writtenBytesOf } from "./process.ts";

const PODS = 20;
const THRIFTY = { HOLDFAST_LEASE_INTERVAL: "20s", HOLDFAST_PROFILE: "small" };
const MINUTE_MS = 60_000;
const SECONDS_PER_DAY = 86_400;
/** Every request, and not only reads: the profile counts writes too. */
const AUDIT_POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata}
`;

/** A node and its control plane; `holdfast` is undefined where the node asks directly. */
interface Edge {
  readonly name: string;
  readonly world: World;
  readonly node: LabNode;
  readonly holdfast: Holdfast | undefined;
}

/** What was counted up to now. */
interface Reading {
  readonly atMs: number;
  readonly wanBytes: number;
  readonly wanPackets: number;
  readonly mark: number;
}

async function main(): Promise<void> {
  const missing = whyNotRunnable() ?? missingProgram();
  if (missing !== undefined) return console.log(`bench:node: cannot run here: ${missing}`);
  buildPrograms();
  const directory = mkdtempSync(join(tmpdir(), "holdfast-idle-"));
  process.env[LAB_DIR_VARIABLE] = directory;
  const edges: Edge[] = [];
  try {
    const names = ["direct", "holdfast", ...(process.argv.includes("--thrifty") ? ["thrifty"] : [])];
    for (const name of names) edges.push(await startEdge(name, directory));
    await measure(edges[0]!, edges[1]!, edges.slice(1));
  } finally {
    for (const { node, world } of edges) {
      await node[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
    }
    clearLeftovers(directory);
    if (process.env["HOLDFAST_LAB_KEEP"] === undefined) rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(direct: Edge, behind: Edge, all: readonly Edge[]): Promise<void> {
  const holdfast = behind.holdfast!;
  const fileSystem = Bun.spawnSync(["stat", "-f", "-c", "%T", holdfast.stateDir]).stdout.toString().trim();
  console.log(`${PODS} pods a node; state in ${holdfast.stateDir} (${fileSystem})`);
  await Bun.sleep(option("--settle", 3) * MINUTE_MS);

  const before = { direct: read(direct), behind: read(behind) };
  const befores = all.map((edge) => ({
    edge,
    direct: before.direct,
    behind: read(edge),
    cost: costOf(edge.holdfast!),
  }));
  const onlineMs = option("--online", 60) * MINUTE_MS;
  const tell = () => befores.forEach((one) => report(direct, one.edge, one));
  await everyTenMinutes(onlineMs, tell);
  console.log("online, whole:");
  tell();
  for (const { edge, cost } of befores) disk(`online, ${edge.name}`, cost, edge.holdfast!, 10);
  if (process.argv.includes("--profile")) {
    for (const [edge, from] of [
      [direct, before.direct],
      [behind, before.behind],
    ] as const)
      await profile(edge, from);
  }

  const cutMs = option("--cut", 60) * MINUTE_MS;
  if (cutMs === 0) return;
  behind.world.cut();
  await Bun.sleep(10_000);
  const cut = costOf(holdfast);
  await everyTenMinutes(cutMs, () => disk("cut so far", cut, holdfast, 10));
  disk("cut", cut, holdfast, 10);
}

async function everyTenMinutes(lengthMs: number, tell: () => void): Promise<void> {
  const endsMs = performance.now() + lengthMs;
  for (;;) {
    const leftMs = endsMs - performance.now();
    if (leftMs <= 0) return;
    await Bun.sleep(Math.min(leftMs, 10 * MINUTE_MS));
    if (leftMs > 10 * MINUTE_MS) tell();
  }
}

function report(direct: Edge, behind: Edge, before: { readonly direct: Reading; readonly behind: Reading }): void {
  const [d, h] = [since(before.direct, read(direct)), since(before.behind, read(behind))];
  line("idle WAN traffic against direct", "x0.5", `x${(h.bytesPerMinute / d.bytesPerMinute).toFixed(2)}`);
  for (const [name, rate] of [
    ["direct", d],
    [behind.name, h],
  ] as const)
    console.log(
      `    ${name}: ${rate.bytesPerMinute.toFixed(0)} B and ${rate.packetsPerMinute.toFixed(0)} packets a minute, over ${rate.minutes.toFixed(1)} min`,
    );
  const memory = memoryOf(behind.holdfast!.process.pid);
  line("RSS, MB", "64", memory.rssMb.toFixed(0));
  line("  anonymous, MB", "28", memory.anonymousMb.toFixed(0));
}

interface Cost {
  readonly atMs: number;
  readonly writtenBytes: number;
  readonly logBytes: number;
  readonly cpuSeconds: number;
}

function costOf({ process: { pid, logPath } }: Holdfast): Cost {
  // What waits in the page cache counts already: the kernel books it when a page gets dirty.
  return {
    atMs: performance.now(),
    writtenBytes: writtenBytesOf(pid),
    logBytes: statSync(logPath).size,
    cpuSeconds: cpuSecondsOf(pid),
  };
}

function disk(title: string, before: Cost, holdfast: Holdfast, limitMb: number): void {
  const now = costOf(holdfast);
  const seconds = (now.atMs - before.atMs) / 1_000;
  const written = now.writtenBytes - before.writtenBytes;
  const perDay = (written / seconds) * SECONDS_PER_DAY;
  line(`written to the block device, ${title}, MB a day`, `${limitMb}`, (perDay / 1e6).toFixed(1));
  const memory = memoryOf(holdfast.process.pid);
  console.log(
    `    ${written} B in ${(seconds / 60).toFixed(1)} min, ${now.logBytes - before.logBytes} B of log; ` +
      `${((100 * (now.cpuSeconds - before.cpuSeconds)) / seconds).toFixed(2)} % of a core; ` +
      `${memory.rssMb.toFixed(0)} / ${memory.anonymousMb.toFixed(0)} MB`,
  );
}

async function profile(edge: Edge, from: Reading): Promise<void> {
  const minutes = (performance.now() - from.atMs) / MINUTE_MS;
  console.log(`requests of ${edge.name}, a minute:`);
  for (const { what, count } of requestsOf(edge.world.audit.since(from.mark)))
    console.log(`    ${(count / minutes).toFixed(2).padStart(8)}  ${what}`);
  console.log(`connections of ${edge.name}, bytes since each was opened:`);
  for (const connection of await connectionsOf(edge.world.network.edge)) console.log(`    ${connection}`);
}

/** A whole edge, settled: every pod is ready. */
async function startEdge(name: string, directory: string): Promise<Edge> {
  const policy = join(directory, "audit-policy.yaml");
  writeFileSync(policy, AUDIT_POLICY);
  const world = await startWorld({
    controllerManager: true,
    scheduler: true,
    apiServerArguments: [`--audit-policy-file=${policy}`],
  });
  const holdfast =
    name === "direct" ? undefined : await world.startHoldfast({ env: name === "thrifty" ? THRIFTY : {} });
  const kubeconfigOf = (credential: Parameters<World["proxyKubeconfig"]>[1]) =>
    holdfast === undefined
      ? world.kubeconfig(world.apiServerUrl, credential)
      : world.proxyKubeconfig(holdfast.stateDir, credential);
  const node = await LabNode.start(world, {
    kubeconfig: kubeconfigOf(world.certificateOf("node")),
    podNetwork: "bridge",
  });
  await world.createNamespace(NAMESPACE);
  await world.apply(...clusterDns(world.network.edgeAddress), ...twentyPods());
  writeFileSync(join(node.manifests, "manifest.json"), JSON.stringify(staticPod()));
  const verbs = ["get", "list", "watch", "create", "patch"];
  node.startKubeProxy(kubeconfigOf({ token: await world.tokenFor("kube-proxy", verbs) }));
  node.startCoreDns(kubeconfigOf({ token: await world.tokenFor("coredns", ["get", "list", "watch"]) }));
  await until(`${PODS} containers run`, async () => (await node.containers.running()).length === PODS, 5 * MINUTE_MS);
  return { name, world, node, holdfast };
}

/** Twelve behind a Service and seven with a ConfigMap and a Secret each; the static pod is the twentieth. */
function twentyPods(): object[] {
  const labels = { app: "web" };
  const serve = container(["sh", "-c", "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"], {
    readinessProbe: { httpGet: { path: "/", port: 8080 }, periodSeconds: 10 },
    ports: [{ containerPort: 8080 }],
  });
  const meta = (name: string) => ({ name, namespace: NAMESPACE });
  const web = [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: meta("web"),
      spec: {
        replicas: 12,
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { terminationGracePeriodSeconds: 1, containers: [serve] } },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: meta("web"),
      spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] },
    },
  ];
  const configured = Array.from({ length: PODS - 13 }, (_, index) => {
    const name = `configured-${index}`;
    const volumeMounts = [
      { name: "settings", mountPath: "/settings" },
      { name: "secret", mountPath: "/secret" },
    ];
    return [
      { apiVersion: "v1", kind: "ConfigMap", metadata: meta(name), data: { greeting: "hello" } },
      { apiVersion: "v1", kind: "Secret", metadata: meta(name), stringData: { password: "marker" } },
      pod(name, {
        containers: [container(["sleep", "100000000"], { volumeMounts })],
        volumes: [
          { name: "settings", configMap: { name } },
          { name: "secret", secret: { secretName: name } },
        ],
      }),
    ];
  });
  return [...web, ...configured.flat()];
}

function read({ world }: Edge): Reading {
  const of = (name: string) =>
    Number(
      Bun.spawnSync(
        world.network.within(world.network.edge, ["cat", `/sys/class/net/edge0/statistics/${name}`]),
      ).stdout.toString(),
    );
  return {
    atMs: performance.now(),
    wanBytes: of("rx_bytes") + of("tx_bytes"),
    wanPackets: of("rx_packets") + of("tx_packets"),
    mark: world.audit.mark(),
  };
}

function since(before: Reading, now: Reading) {
  const minutes = (now.atMs - before.atMs) / MINUTE_MS;
  return {
    minutes,
    bytesPerMinute: (now.wanBytes - before.wanBytes) / minutes,
    packetsPerMinute: (now.wanPackets - before.wanPackets) / minutes,
  };
}

function line(what: string, limit: string, measured: string): void {
  const holds = Number(measured.replace("x", "")) <= Number(limit.replace("x", ""));
  console.log(`${what.padEnd(66)} ${limit.padStart(8)} ${measured.padStart(9)}  ${holds ? "ok" : "MISSED"}`);
}

function option(name: string, otherwise: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}

function missingProgram(): string | undefined {
  const missing = Object.keys({ ...NODE_PROGRAMS, ...POD_NETWORK_PROGRAMS }).find(
    (program) => findProgram(program) === undefined,
  );
  return missing === undefined ? undefined : `${missing} is not installed`;
}

await main();
process.exit(0);
