/**
 * What a forwarded GET costs: rounds against the API server itself, through
 * Holdfast and through Go's reverse proxy in turn, in one run.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { run, type Target, type Timing } from "./load.ts";
import { inQuiet, type Measured } from "./machine.ts";
import { cpuSecondsOf } from "./process.ts";
import { profileRows } from "./profile.ts";
import { median, note, row } from "./report.ts";

/** A process between client and API server. */
export interface Between {
  readonly pid: number;
  readonly target: Target;
}

/** Requests before anything counts: code that has just started is compiled meanwhile. */
const WARM_REQUESTS = 4_000;

interface Compared {
  readonly p50: number;
  readonly p99: number;
  readonly throughput: number;
  /** Microseconds of CPU a request, and of Go's reverse proxy; undefined without Go. */
  readonly cpuUs: number;
  readonly goCpuUs: number | undefined;
  readonly directP50: number;
  readonly holdfastP50: number;
}

/** Measures and prints the rows. @param shrink divides the number of requests. */
export async function forwardingRows(direct: Target, holdfast: Between, path: string, folder: string, shrink: number) {
  const go = await startReverseProxy(direct, folder);
  try {
    const rounds = shrink > 1 ? 3 : 7;
    const all = { direct, holdfast, go, path, rounds };
    for (const target of [holdfast.target, ...(go === undefined ? [] : [go.target])])
      await run(target, path, WARM_REQUESTS / shrink, 4);
    const one = await inQuiet(() => compare({ ...all, requests: 1_000 / shrink, concurrency: 1 }));
    row("forwarded GET of a node, one at a time: p50 against direct", [1.25, 1.45], of(one, "p50"), "x");
    row("  p99", [1.35, 1.5], of(one, "p99"), "x");
    note(`direct ${one.value.directP50.toFixed(2)} ms, Holdfast ${one.value.holdfastP50.toFixed(2)} ms`);
    cpuRows(one, 115);
    const sixteen = await inQuiet(() => compare({ ...all, requests: 4_000 / shrink, concurrency: 16 }));
    row("throughput at sixteen against direct, at least", [0.8, 0.6], of(sixteen, "throughput"), "x", true);
    cpuRows(sixteen, 55);
    const between = [{ name: "Holdfast", ...holdfast }, ...(go === undefined ? [] : [{ name: "Go", ...go }])];
    const asked = [1, 16].flatMap((concurrency) =>
      between.map(({ name, pid, target }) => ({
        name: `${name} at ${concurrency}`,
        pid,
        ask: () => run(target, path, 8_000 / shrink, concurrency),
      })),
    );
    if (process.argv.includes("--profile")) await profileRows(asked, join(folder, "perf"));
  } finally {
    go?.child.kill();
  }
}

function cpuRows(measured: Measured<Compared>, limitUs: number): void {
  const { cpuUs, goCpuUs } = measured.value;
  row("  CPU a request, us", limitUs, { ...measured, value: cpuUs });
  if (goCpuUs === undefined) return note("Go is not installed: nothing to compare it with");
  row("  against Go's ReverseProxy in the same run", 0.5, { ...measured, value: cpuUs / goCpuUs }, "x");
  note(`Go's ReverseProxy ${goCpuUs.toFixed(0)} us`);
}

function of(measured: Measured<Compared>, name: "p50" | "p99" | "throughput"): Measured<number> {
  return { ...measured, value: measured.value[name] };
}

interface Plan {
  readonly direct: Target;
  readonly holdfast: Between;
  readonly go: Between | undefined;
  readonly path: string;
  readonly rounds: number;
  readonly requests: number;
  readonly concurrency: number;
}

/** The medians of the rounds and of their ratios. */
async function compare({ direct, holdfast, go, path, rounds, requests, concurrency }: Plan): Promise<Compared> {
  const directs: Timing[] = [];
  const ours: (Timing & { readonly cpuUs: number })[] = [];
  const goes: number[] = [];
  const through = async (between: Between) => {
    const before = cpuSecondsOf(between.pid);
    const timing = await run(between.target, path, requests, concurrency);
    return { ...timing, cpuUs: ((cpuSecondsOf(between.pid) - before) / requests) * 1e6 };
  };
  for (let i = 0; i < rounds; i++) {
    directs.push(await run(direct, path, requests, concurrency));
    ours.push(await through(holdfast));
    if (go !== undefined) goes.push((await through(go)).cpuUs);
  }
  const ratio = (name: "p50Ms" | "p99Ms" | "perSecond") =>
    median(ours.map((timing, i) => timing[name] / directs[i]![name]));
  return {
    p50: ratio("p50Ms"),
    p99: ratio("p99Ms"),
    throughput: ratio("perSecond"),
    cpuUs: median(ours.map(({ cpuUs }) => cpuUs)),
    goCpuUs: goes.length === 0 ? undefined : median(goes),
    directP50: median(directs.map(({ p50Ms }) => p50Ms)),
    holdfastP50: median(ours.map(({ p50Ms }) => p50Ms)),
  };
}

/** Go's reverse proxy before the API server; undefined where there is no Go. */
async function startReverseProxy(
  direct: Target,
  folder: string,
): Promise<(Between & { readonly child: ChildProcess }) | undefined> {
  const compiler = Bun.which("go");
  if (compiler === null) return undefined;
  const home = join(folder, "reverse-proxy");
  mkdirSync(home, { recursive: true });
  const program = join(home, "reverse-proxy");
  const built = Bun.spawnSync([compiler, "build", "-o", program, join(import.meta.dir, "reverse-proxy.go")], {
    env: { ...process.env, GO111MODULE: "off", GOFLAGS: "" },
    stderr: "inherit",
  });
  if (built.exitCode !== 0) return undefined;
  const files = { ca: direct.ca, cert: direct.cert, key: direct.key };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(home, name), text, { mode: 0o600 });
  const paths = Object.keys(files).map((name) => join(home, name));
  const child = spawn(program, [`https://${direct.host}:${direct.port}`, ...paths], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const said = await createInterface({ input: child.stdout! })[Symbol.asyncIterator]().next();
  // It shows a client's certificate as its own: the bench, which has started it, need not believe it.
  const target = { ...direct, port: Number(said.value), rejectUnauthorized: false };
  return { pid: child.pid!, target, child };
}
