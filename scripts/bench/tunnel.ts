/**
 * `bun run bench:tunnel [--agents 10000]`: a gateway with many idle nodes, and
 * their return when it dies.
 *
 * The gateway is the compiled binary, in a process of its own; the agents are
 * the product's own link, in another, each with a certificate of its own, over
 * real TLS on loopback; the API server is the stand-in. Said are the gateway's
 * memory as its agents grow in number (what the first hundreds cost is mostly
 * code that runs for the first time; each further one is the slope), and how long the agents take to return after it was
 * killed and started again. Agents, API server and certificates share one
 * process and the machine with the gateway, so the times are an upper bound.
 */

import { readFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { Agent } from "../../src/tunnel/agent.ts";

const NAMESPACE = "holdfast-system";
const HOST = "127.0.9.1";
const PORT = 18_443;
const HEALTH = `${HOST}:18445`;

const { values } = parseArgs({ options: { agents: { type: "string", default: "10000" }, binary: { type: "string" } } });
const count = Number(values.agents);
const binary =
  values.binary ?? join(import.meta.dir, `../../dist/holdfast-linux-${process.arch === "x64" ? "x64" : "arm64"}`);
const directory = mkdtempSync(join(tmpdir(), "bench-tunnel-"));

const names = Array.from({ length: count }, (_, i) => `edge-${i}`);
await using api = await startApiServer({
  objects: [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } },
    ...names.map((name) => ({ apiVersion: "v1", kind: "Node", metadata: { name } })),
  ],
});
api.put({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name: "extension-apiserver-authentication", namespace: "kube-system" },
  data: { "client-ca-file": api.cluster.ca },
});
const file = (name: string, text: string) => {
  const path = join(directory, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
};
const serving = api.cluster.servingCertificate([HOST]);
const flags = [
  "gateway",
  `--kubeconfig=${file("kubeconfig", api.kubeconfig({ user: "gateway", groups: ["system:masters"] }))}`,
  `--names=${HOST}`,
  `--listen=${HOST}:${PORT}`,
  `--tls-cert-file=${file("tls.crt", serving.cert)}`,
  `--tls-key-file=${file("tls.key", serving.key)}`,
  "--mode=port",
  `--pod-ip=${HOST}`,
  `--health-listen=${HEALTH}`,
  "--ports=20000-39999",
];

async function startGateway() {
  const gateway = Bun.spawn([binary, ...flags], { stdout: "ignore", stderr: Bun.file(join(directory, "gateway.log")) });
  await until("the gateway is ready", async () => (await fetch(`http://${HEALTH}/readyz`)).ok, 120_000);
  return gateway;
}

async function until(what: string, look: () => boolean | Promise<boolean>, patienceMs: number): Promise<number> {
  const startedMs = performance.now();
  while (!(await Promise.resolve(look()).catch(() => false))) {
    if (performance.now() - startedMs > patienceMs) throw new Error(`Not within ${patienceMs} ms: ${what}`);
    await Bun.sleep(20);
  }
  return performance.now() - startedMs;
}

/** RSS and its anonymous part, kB. */
function memoryOf(pid: number): { rss: number; anonymous: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kb = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
  return { rss: kb("VmRSS"), anonymous: kb("RssAnon") };
}

let gateway = await startGateway();
const empty = memoryOf(gateway.pid);
const stop = new AbortController();
const agents: Agent[] = [];
const openNow = () => agents.filter(({ state }) => state.state === "open").length;
const each = (kb: number, agents: number) => (kb / agents).toFixed(1);
/** The last two marks, for the slope. */
let before = { agents: 0, ...empty };
async function tell(): Promise<void> {
  await Bun.sleep(5_000);
  const now = { agents: agents.length, ...memoryOf(gateway.pid) };
  const more = now.agents - before.agents;
  console.log(
    `gateway with ${now.agents}: ${now.rss} kB RSS / ${now.anonymous} kB anonymous; since ${before.agents}: ${each(now.rss - before.rss, more)} / ${each(now.anonymous - before.anonymous, more)} kB each`,
  );
  before = now;
}
const MARKS = [100, 500, 1_000, 3_000];
const startedMs = performance.now();
for (const name of names) {
  const pair = api.cluster.clientCertificate(`system:node:${name}`, ["system:nodes"]);
  const agent = new Agent({
    gateways: [`https://${HOST}:${PORT}`],
    caPem: () => api.cluster.ca,
    pair: () => ({ certPem: pair.cert, keyPem: pair.key }),
    proxyFor: () => undefined,
    targets: () => [],
    onStream: () => {},
    onFinding: () => {},
    clock: systemClock,
    log: silentLog,
    random: Math.random,
    signal: stop.signal,
  });
  agent.start();
  agents.push(agent);
  // A fleet that grows, at first: a hundred at a time.
  if (agents.length % 100 === 0) await until("they are in", () => openNow() > agents.length - 100, 600_000);
  if (MARKS.includes(agents.length)) await tell();
}
await until("all are in", () => openNow() === count, 300_000);
console.log(
  `${count} agents in after ${((performance.now() - startedMs) / 1000).toFixed(1)} s (certificates made meanwhile)`,
);
await tell();
const full = memoryOf(gateway.pid);
console.log(
  `gateway: ${empty.rss} kB RSS / ${empty.anonymous} kB anonymous empty, ${full.rss} / ${full.anonymous} with ${count}: ${each(full.rss - empty.rss, count)} / ${each(full.anonymous - empty.anonymous, count)} kB each`,
);

gateway.kill("SIGKILL");
await gateway.exited;
await until("the agents know", () => openNow() === 0, 60_000);
gateway = await startGateway();
const stormMs = performance.now();
const at = async (share: number) => {
  await until(`${share} are back`, () => openNow() >= count * share, 600_000);
  return `${((performance.now() - stormMs) / 1000).toFixed(1)} s`;
};
console.log(
  `after a kill and a new start: half back after ${await at(0.5)}, 95 % after ${await at(0.95)}, all after ${await at(1)}`,
);
const { rss, anonymous } = memoryOf(gateway.pid);
console.log(`gateway after the storm: ${rss} kB RSS / ${anonymous} kB anonymous`);
stop.abort();
for (const agent of agents) agent.stop();
gateway.kill("SIGKILL");
await gateway.exited;
rmSync(directory, { recursive: true });
process.exit(0);
