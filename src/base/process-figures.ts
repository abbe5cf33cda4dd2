/**
 * What Prometheus' clients tell of every process, read from the kernel.
 *
 * Source: prometheus/client_golang, process collector (names and units).
 */

import { readdirSync, readFileSync } from "node:fs";

/** Figures of this process. */
export interface ProcessFigures {
  readonly residentBytes: number;
  /** Not to be had back by dropping files: what really counts on a small machine. */
  readonly anonymousBytes: number;
  readonly openFiles: number;
  readonly cpuSeconds: number;
}

/** As they stand now; 0 for what this kernel does not tell. */
export function processFigures(): ProcessFigures {
  const status = read("/proc/self/status");
  const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0) * 1_024;
  const { user, system } = process.cpuUsage();
  return {
    residentBytes: kilobytes("VmRSS"),
    anonymousBytes: kilobytes("RssAnon"),
    openFiles: countOf("/proc/self/fd"),
    cpuSeconds: (user + system) / 1e6,
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function countOf(folder: string): number {
  try {
    return readdirSync(folder).length;
  } catch {
    return 0;
  }
}
