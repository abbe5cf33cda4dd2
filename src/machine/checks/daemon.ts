/**
 * The running daemon, by its own report: what it keeps, whether that outlasts a
 * reboot, and in which sandbox it lives.
 */

import { readFileSync } from "node:fs";
import { formatSize } from "../../base/units.ts";
import { coverageWords, gapWords } from "../../health/coverage-report.ts";
import type { StatusReport } from "../../health/status-report.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

/** What is kept, each condition that stands, and each pod that would not come back. */
export function cacheChecks(report: StatusReport): Checked[] {
  const { store, conditions } = report;
  return [
    store.mode === "disk"
      ? ok("cache/store", `${store.objects} objects, ${formatSize(store.sizeBytes)} in ${store.path}`)
      : failed(
          "cache/store",
          `in memory alone (${store.reason}): a restart forgets it`,
          "See: df -h, mount | grep holdfast",
        ),
    sealing(report),
    ...conditions.map(({ type, reason, message, next = "" }) =>
      warning(`cache/${type}`, `${reason}: ${message}`, next),
    ),
    ...coverageChecks(report),
  ];
}

function sealing({ store: { sealing: from } }: StatusReport): Checked {
  const id = "cache/sealing";
  if (from === "memory")
    return failed(
      id,
      "the sealing key dies with the process: Secrets and tokens cannot be opened after a restart",
      "Make the state folder's keys writable for root",
    );
  return from === "credential"
    ? ok(id, "its key comes from a credential of the system")
    : ok(id, "its key lies beside the copies: a thief of the whole disk can open them");
}

function coverageChecks({ coverage }: StatusReport): Checked[] {
  const id = "cache/coverage";
  if (coverage === undefined) return [skipped(id, "nobody could tell: no node's credential, or no answer in time")];
  const words = coverageWords(coverage);
  const [first] = coverage.node;
  if (first !== undefined)
    return [
      failed(
        id,
        words,
        first.name === "disk"
          ? "See: df -h"
          : "holdfast adopt; then wait a minute, until kubelet has read everything once",
      ),
    ];
  const pods = coverage.pods.flatMap(({ namespace, name, comesBack, missing, unknown }): Checked[] => {
    const gaps = [...missing, ...unknown].map(gapWords).join(", ");
    const pod = `cache/pod:${namespace}/${name}`;
    if (comesBack === "yes") return [];
    return comesBack === "no"
      ? [failed(pod, `does not come back: ${gaps}`, remedyOf(missing[0]!.kind))]
      : [
          warning(
            pod,
            `may not come back: ${gaps}`,
            "Try it: holdfast rehearse --for 10m, and restart the pod meanwhile",
          ),
        ];
  });
  return [pods.length === 0 ? ok(id, words) : warning(id, words, "See below, pod by pod"), ...pods];
}

const REMEDIES: Readonly<Record<string, string>> = {
  image: "Pull it while the link is there: crictl pull; and set imagePullPolicy: IfNotPresent",
  network: "See docs/cni.md",
  token: "Restart the pod once while the link is there, so that kubelet asks for it",
};

function remedyOf(kind: string): string {
  return REMEDIES[kind] ?? "Restart the pod once while the link is there, so that kubelet reads it through Holdfast";
}

/** In which sandbox a process lives: what the kernel says of it. @param status /proc/PID/status */
export function sandboxChecks(pid: number | undefined, read = readStatus): Checked[] {
  const text = pid === undefined ? undefined : read(pid);
  if (text === undefined) return [skipped("sandbox/process", "the daemon's process cannot be looked at from here")];
  const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(text)?.[1] ?? "";
  const next = "Start it by its unit: systemctl restart holdfast";
  const check = (name: string, holds: boolean, good: string, bad: string) =>
    holds ? ok(`sandbox/${name}`, good) : warning(`sandbox/${name}`, bad, next);
  return [
    check("capabilities", /^0+$/.test(field("CapEff")), "none", "it may do more than it needs"),
    check(
      "no-new-privileges",
      field("NoNewPrivs") === "1",
      "none can be gained",
      "a program it starts could gain privileges",
    ),
    check("system-calls", field("Seccomp") === "2", "only those it needs", "every system call is open to it"),
  ];
}

function readStatus(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return undefined;
  }
}
