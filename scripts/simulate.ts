/**
 * `bun run simulate`: many seeded worlds, each held against the promises.
 *
 *   --seeds N      how many; default 10000
 *   --from S       the first seed; default 0
 *   --world NAME   one world alone: scopes, way or kubelet
 *   --fault NAME   plants the first fault whose name contains this, and says after how many seeds it is found
 *   --verbose      prints every line of what happened
 *
 * A seed that breaks a promise is printed with its last steps and ends the
 * run with code 1; the same seed runs the same way on every machine.
 */

import { parseArgs } from "node:util";
import { ensureDependencies } from "./setup.ts";
import type { Outcome, WorldOptions } from "../test/simulation/world.ts";

const LAST_LINES = 60;
const SHOWN_SEEDS = 5;
const PROGRESS_EVERY_MS = 5_000;

/** The command line, parsed. */
function options(): {
  seeds: number;
  from: number;
  fault: string | undefined;
  world: string | undefined;
  isVerbose: boolean;
} {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "10000" },
      from: { type: "string", default: "0" },
      fault: { type: "string" },
      world: { type: "string" },
      verbose: { type: "boolean", default: false },
    },
  });
  const [seeds, from] = [Number(values.seeds), Number(values.from)];
  if (!Number.isSafeInteger(seeds) || !Number.isSafeInteger(from) || seeds < 1 || from < 0) {
    process.stderr.write("Cannot simulate: --seeds and --from are whole numbers; try: bun run simulate --seeds 100\n");
    process.exit(2);
  }
  return { seeds, from, fault: values.fault, world: values.world, isVerbose: values.verbose };
}

async function main(): Promise<number> {
  const { seeds, from, fault, world: only, isVerbose } = options();
  const { runSeed: runOne } = await import("../test/simulation/world.ts");
  const { runOverlaySeed } = await import("../test/simulation/overlay-world.ts");
  const { at, ...world } = await worldOptions(fault);
  // Each seed is three worlds; a fault is looked for in the one where it is at large.
  const worlds: Readonly<Record<string, (seed: number, options: WorldOptions) => Outcome>> = {
    scopes: runOne,
    way: (seed, options) => runOne(seed, { ...options, isWay: true }),
    kubelet: runOverlaySeed,
  };
  const asked = only ?? (fault === undefined ? undefined : at);
  const runSeed = (seed: number, options: WorldOptions): Outcome => {
    if (asked !== undefined) return worlds[asked]!(seed, options);
    let outcome: Outcome | undefined;
    for (const run of Object.values(worlds)) {
      const next = run(seed, options);
      outcome = outcome === undefined ? next : both(outcome, next);
      if (next.violation !== undefined) break;
    }
    return outcome!;
  };
  const counts = new Map<string, number>();
  const startedMs = performance.now();
  let reportedMs = startedMs;
  let broken = 0;
  let steps = 0;
  let done = 0;
  for (let seed = from; seed < from + seeds; seed++) {
    const outcome = runSeed(seed, { ...world, isTraced: isVerbose });
    done++;
    steps += outcome.steps;
    for (const [what, count] of outcome.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    if (isVerbose) for (const line of outcome.trace) print(line);
    if (outcome.violation !== undefined) {
      broken++;
      show(isVerbose ? outcome : runSeed(seed, { ...world, isTraced: true }), broken, isVerbose);
      if (fault !== undefined || broken >= SHOWN_SEEDS) break;
    }
    if (performance.now() - reportedMs > PROGRESS_EVERY_MS) {
      reportedMs = performance.now();
      print(`${done} of ${seeds} seeds, ${(done / ((reportedMs - startedMs) / 1_000)).toFixed(0)} a second`);
    }
  }
  const seconds = (performance.now() - startedMs) / 1_000;
  print(`${done} seeds, ${steps} steps, ${seconds.toFixed(1)} s, ${(done / seconds).toFixed(0)} seeds a second`);
  print(
    [...counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, count]) => `${what} ${count}`)
      .join(", "),
  );
  if (fault !== undefined) {
    print(broken > 0 ? `the fault was found after ${done} seeds` : "the fault was NOT found");
    return broken > 0 ? 0 : 1;
  }
  print(broken === 0 ? "every promise was kept" : `${broken} seeds broke a promise`);
  return broken === 0 ? 0 : 1;
}

function both(first: Outcome, second: Outcome): Outcome {
  const counts = new Map(first.counts);
  for (const [what, count] of second.counts) counts.set(what, (counts.get(what) ?? 0) + count);
  const trace = [...first.trace, ...second.trace];
  return { ...second, steps: first.steps + second.steps, trace, counts };
}

async function worldOptions(fault: string | undefined): Promise<WorldOptions & { readonly at: string }> {
  if (fault === undefined) return { at: "scopes" };
  const { plantedFaults, worldsWith } = await import("../test/simulation/planted-faults.ts");
  const planted = plantedFaults.find(({ name }) => name.includes(fault));
  if (planted === undefined) {
    process.stderr.write(
      `Cannot plant "${fault}"; known are:\n${plantedFaults.map(({ name }) => `  ${name}\n`).join("")}`,
    );
    process.exit(2);
  }
  print(`planted: ${planted.name}`);
  return { ...(await worldsWith(planted)), at: planted.at ?? "scopes" };
}

function show({ seed, violation, trace }: Outcome, nth: number, isVerbose: boolean): void {
  print(`\nseed ${seed} broke ${violation!.promise}: ${violation!.text}`);
  if (isVerbose) return;
  if (nth === 1) for (const line of trace.slice(-LAST_LINES)) print(`  ${line}`);
  print(`all of it: bun run simulate --from ${seed} --seeds 1 --verbose\n`);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

ensureDependencies();
process.exitCode = await main();
