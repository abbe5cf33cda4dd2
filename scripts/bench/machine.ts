/**
 * Where a figure was measured, and what else ran there meanwhile.
 *
 * The load average counts our own work too and lags a minute behind, so what
 * others did is told apart: all the machine was busy with, less what this
 * process and its children used. A row that was measured beside much of it is
 * measured again.
 */

import { readdirSync, readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

/** Cores of other work beside which a figure still counts. */
const QUIET_CORES = 0.2;
const MOST_TRIES = 3;

/** Names the process whose descendants all belong to the bench, where that is not the one that measures. */
export const ROOT_VARIABLE = "HOLDFAST_BENCH_ROOT";

/** Model, cores, memory and kernel. */
export function machineLine(): string {
  const cores = cpus();
  return `${cores.length} x ${cores[0]?.model.trim() ?? "unknown"}, ${(totalmem() / 2 ** 30).toFixed(1)} GiB, Linux ${release()}`;
}

/** The machine's load averages over 1, 5 and 15 minutes, as the kernel says them. */
export function loadLine(): string {
  return readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" ");
}

/** A figure, and the cores of other work beside which it was measured. */
export interface Measured<T> {
  readonly value: T;
  readonly besideCores: number;
}

/** Measures; again, up to three times, while others keep the machine busy. @returns the quietest. */
export async function inQuiet<T>(measure: () => Promise<T>): Promise<Measured<T>> {
  let best: Measured<T> | undefined;
  for (let attempt = 0; attempt < MOST_TRIES; attempt++) {
    const before = reading();
    const value = await measure();
    const after = reading();
    const ours = after.ours - before.ours;
    const besideCores = Math.max(0, (after.busy - before.busy - ours) / (after.atMs - before.atMs));
    if (best === undefined || besideCores < best.besideCores) best = { value, besideCores };
    if (besideCores <= QUIET_CORES) break;
  }
  return best!;
}

/** For a row: nothing when it was quiet. */
export function besideText({ besideCores }: Measured<unknown>): string {
  return besideCores <= QUIET_CORES ? "" : `beside ${besideCores.toFixed(1)} cores of other work, ${MOST_TRIES} tries`;
}

/** Milliseconds of CPU since boot: of everybody, and of this process with its children. */
function reading(): { readonly atMs: number; readonly busy: number; readonly ours: number } {
  const [user, nice, system, , , irq, softirq] = readFileSync("/proc/stat", "utf8")
    .split("\n", 1)[0]!
    .replace(/^cpu +/, "")
    .split(" ")
    .map(Number) as [number, number, number, number, number, number, number];
  return { atMs: performance.now(), busy: 10 * (user + nice + system + irq + softirq), ours: 10 * oursTicks() };
}

/** Ticks of the bench's process and all that descend from it, those that have ended included once they were waited for. */
function oursTicks(): number {
  const parents = new Map<number, number>();
  const ticks = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ");
      parents.set(pid, Number(fields[1]));
      ticks.set(
        pid,
        [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0),
      );
    } catch {
      // It has ended meanwhile.
    }
  }
  const root = Number(process.env[ROOT_VARIABLE] ?? process.pid);
  const isOurs = (pid: number): boolean => pid === root || (parents.has(pid) && isOurs(parents.get(pid)!));
  let sum = 0;
  for (const [pid, used] of ticks) if (isOurs(pid)) sum += used;
  return sum;
}
