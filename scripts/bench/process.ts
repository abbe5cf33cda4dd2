/**
 * What a process costs, as the kernel counts it.
 */

import { readFileSync } from "node:fs";

/** Memory in MB (10^6 bytes): resident, and its part that no file backs. */
export interface Memory {
  readonly rssMb: number;
  readonly anonymousMb: number;
}

/** Reads /proc/PID/status. */
export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mb = (field: string) =>
    (Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? "0") * 1_024) / 1e6;
  return { rssMb: mb("VmRSS"), anonymousMb: mb("RssAnon") };
}

/** CPU seconds a process has used, in user and kernel mode together. */
export function cpuSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Bytes a process has caused to be sent to block devices (rewritten pages count once per writeback). */
export function writtenBytesOf(pid: number): number {
  return Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1] ?? "0");
}
