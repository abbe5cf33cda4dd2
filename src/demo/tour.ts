/**
 * The guided tour: what Holdfast does, shown with real sockets and no cluster.
 *
 * An API server stand-in runs in this process, `holdfast run` in one of its
 * own, a watching client between them. Every line says what was seen, with the
 * figure that was measured; a step that does not hold makes the exit code 1.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { startApiServer, type ApiServer } from "./api-server/api-server.ts";
import { demoPod, demoWorld } from "./api-server/seed.ts";
import { TourClient, type TourWatch } from "./tour-client.ts";

const PODS = "/api/v1/namespaces/shop/pods";
const STREAM = `${PODS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
const STEP_TIMEOUT_MS = 10_000;

/** A step that did not hold; the tour goes on and ends with 1. */
class Steps {
  failed = 0;

  /** Prints a heading. */
  chapter(title: string): void {
    process.stdout.write(`\n${title}\n`);
  }

  /** Prints what was seen. */
  saw(holds: boolean, what: string): void {
    if (!holds) this.failed++;
    process.stdout.write(`  ${holds ? "ok  " : "FAIL"}  ${what}\n`);
  }
}

/** Holdfast as a process, with what its log says of its ports. */
interface Running {
  readonly child: ChildProcess;
  readonly port: number;
  readonly startedMs: number;
}

/**
 * Takes the tour.
 *
 * @returns 0 when every step held, else 1.
 */
export async function runTour({ keep }: { readonly keep: boolean }): Promise<number> {
  const steps = new Steps();
  const folder = mkdtempSync(join(tmpdir(), "holdfast-demo-"));
  const stateDir = join(folder, "state");
  await using apiServer = await startApiServer({ objects: demoWorld(3) });
  const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
  const kubeconfig = join(folder, "kubeconfig-of-holdfast");
  writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "admin", keyPair: pair }), { mode: 0o600 });
  let holdfast = await startHoldfast(kubeconfig, stateDir, 0);
  const client = () =>
    new TourClient({ port: holdfast.port, ca: readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8"), ...pair });
  try {
    process.stdout.write("Holdfast stands between a client and an API server (a stand-in, in this process).\n");
    const { online, watch } = await whileOnline(steps, apiServer, client());
    await cut(steps, apiServer, client(), online, watch);
    holdfast = await restart(steps, holdfast, kubeconfig, stateDir);
    await resumeAndReturn(steps, apiServer, client(), watch, holdfast);
    steps.chapter(steps.failed === 0 ? "Every step held." : `${steps.failed} steps did not hold.`);
    if (keep) await keepRunning(apiServer, holdfast, folder, client());
  } finally {
    holdfast.child.kill("SIGTERM");
    if (!keep) rmSync(folder, { recursive: true, force: true });
  }
  return steps.failed === 0 ? 0 : 1;
}

async function whileOnline(
  steps: Steps,
  apiServer: ApiServer,
  client: TourClient,
): Promise<{ online: Buffer; watch: TourWatch }> {
  steps.chapter("Online");
  const list = await client.get(PODS);
  await client.get("/version");
  steps.saw(
    list.status === 200,
    `list of pods: ${list.status}, ${list.items} pods, ${list.body.length} bytes, forwarded as the API server sent them`,
  );
  const watches = await Promise.all([client.watch(STREAM), client.watch(STREAM), client.watch(STREAM)]);
  const watch = watches[0]!;
  await Promise.all(watches.map((one) => one.until((events) => events.at(-1)?.type === "BOOKMARK", STEP_TIMEOUT_MS)));
  steps.saw(apiServer.watchCount === 1, `three clients watch pods; upstream watches: ${apiServer.watchCount}`);
  const startedMs = performance.now();
  apiServer.edit("Pod", "shop", "web-0", (pod) => ({
    ...pod,
    metadata: { ...(pod["metadata"] as object), labels: { app: "web", seen: "yes" } },
  }));
  const isSeen = await watch.sees("MODIFIED", "web-0", STEP_TIMEOUT_MS);
  steps.saw(isSeen, `a change in the cloud reached the client after ${since(startedMs)}`);
  const online = (await client.get(PODS)).body;
  return { online, watch };
}

async function cut(
  steps: Steps,
  apiServer: ApiServer,
  client: TourClient,
  online: Buffer,
  watch: TourWatch,
): Promise<void> {
  steps.chapter("The link is cut (every connection reset, new ones refused)");
  await apiServer.cut();
  const startedMs = performance.now();
  const list = await client.get(PODS);
  steps.saw(list.status === 200, `first list after the cut: ${list.status} after ${since(startedMs)}, from the copy`);
  steps.saw(list.body.equals(online), `it is what the API server last said, to the byte (${list.body.length} bytes)`);
  steps.saw(watch.isOpen, "the client's watch is still open: it noticed nothing");
  const unseen = await client.get("/apis/apps/v1/namespaces/shop/deployments");
  steps.saw(
    unseen.status === 503,
    `a list nobody ever read: ${unseen.status} ${unseen.reason}, not an empty list and not 404`,
  );
  const write = await client.request("DELETE", `${PODS}/web-0`);
  steps.saw(write.status === 503, `a write: ${write.status} at once, nothing is queued behind anybody's back`);
  const stranger = await client.anonymous(PODS);
  steps.saw(stranger.status === 401, `a caller without a credential: ${stranger.status}`);
}

async function restart(steps: Steps, holdfast: Running, kubeconfig: string, stateDir: string): Promise<Running> {
  steps.chapter("Holdfast is killed (SIGKILL) and started again while cut");
  const gone = new Promise((resolve) => holdfast.child.once("exit", resolve));
  holdfast.child.kill("SIGKILL");
  await gone;
  return startHoldfast(kubeconfig, stateDir, holdfast.port);
}

async function resumeAndReturn(
  steps: Steps,
  apiServer: ApiServer,
  client: TourClient,
  watch: TourWatch,
  holdfast: Running,
): Promise<void> {
  const list = await client.get(PODS);
  steps.saw(
    list.status === 200 && list.items === 5,
    `first answer ${since(holdfast.startedMs)} after exec: ${list.status}, ${list.items} pods, from disk`,
  );
  await watch.ended;
  const again = await client.watch(
    `${PODS}?watch=true&allowWatchBookmarks=true&resourceVersion=${watch.lastResourceVersion}`,
  );
  steps.saw(
    again.status === 200,
    `the client resumes its watch at resourceVersion ${watch.lastResourceVersion}: ${again.status}`,
  );

  steps.chapter("Meanwhile in the cloud: one pod new, one changed, one deleted. Then the link returns");
  apiServer.put(demoPod("web-new", 7));
  apiServer.edit("Pod", "shop", "web-1", (pod) => ({
    ...pod,
    metadata: { ...(pod["metadata"] as object), labels: { app: "web", changed: "while-cut" } },
  }));
  apiServer.remove("Pod", "shop", "web-2");
  const listsBefore = apiServer.count({ verb: "list" });
  const startedMs = performance.now();
  await apiServer.heal();
  await again
    .until((events) => events.filter(({ type }) => type !== "BOOKMARK").length >= 3, STEP_TIMEOUT_MS)
    .catch(() => {});
  const seen = again.events.filter(({ type }) => type !== "BOOKMARK").map(({ type, name }) => `${type} ${name}`);
  steps.saw(
    seen.join() === "ADDED web-new,MODIFIED web-1,DELETED web-2",
    `the open watch carried exactly that, ${since(startedMs)} after the return: ${seen.join(", ")}`,
  );
  const lists = apiServer.count({ verb: "list" }) - listsBefore;
  steps.saw(lists === 0, `lists that reached the API server for it: ${lists}`);
  const { rssMb, anonymousMb } = memoryOf(holdfast.child.pid!);
  steps.saw(true, `memory of holdfast run: ${rssMb} MB resident, ${anonymousMb} MB of it anonymous`);
}

async function startHoldfast(kubeconfig: string, stateDir: string, port: number): Promise<Running> {
  const isCompiled = process.argv[1]?.startsWith("/$bunfs/") ?? false;
  const program = isCompiled ? [] : [join(import.meta.dir, "..", "main.ts")];
  const startedMs = performance.now();
  const child = spawn(
    process.execPath,
    [
      ...program,
      "run",
      "--kubeconfig",
      kubeconfig,
      "--state-dir",
      stateDir,
      "--listen",
      `127.0.0.1:${port}`,
      "--health-listen",
      "127.0.0.1:0",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const { promise, resolve, reject } = Promise.withResolvers<Running>();
  let last = "";
  createInterface({ input: child.stderr! }).on("line", (line) => {
    last = line;
    const serving = /"message":"serving","ports":"(\d+)"/.exec(line);
    if (serving !== null) resolve({ child, port: Number(serving[1]), startedMs });
  });
  child.once("exit", (code) => reject(new Error(`holdfast run ended with ${code}: ${last}`)));
  return promise;
}

async function keepRunning(apiServer: ApiServer, holdfast: Running, folder: string, client: TourClient): Promise<void> {
  const path = join(folder, "kubeconfig");
  writeFileSync(path, client.kubeconfig(), { mode: 0o600 });
  process.stdout.write(
    `\nStill running. In another shell:\n\n  kubectl --kubeconfig ${path} -n shop get pods\n\nHere: type cut, heal or quit (holdfast run is pid ${holdfast.child.pid}, its folder ${folder}).\n`,
  );
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "cut") await apiServer.cut();
    else if (line.trim() === "heal") await apiServer.heal();
    else if (line.trim() === "quit") return;
    else process.stdout.write("cut, heal or quit\n");
  }
  // No standard input to type into: until a signal ends us.
  await new Promise<void>((resolve) => {
    process.once("SIGINT", () => resolve());
    process.once("SIGTERM", () => resolve());
    setInterval(() => {}, 60_000);
  });
}

function since(startedMs: number): string {
  return `${(performance.now() - startedMs).toFixed(1)} ms`;
}

function memoryOf(pid: number): { rssMb: string; anonymousMb: string } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mb = (field: string) =>
    ((Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0) * 1_024) / 1e6).toFixed(0);
  return { rssMb: mb("VmRSS"), anonymousMb: mb("RssAnon") };
}
