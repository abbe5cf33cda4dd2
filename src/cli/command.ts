/**
 * The table of commands, and what they share.
 */

import { writeSync } from "node:fs";
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";

/** A command's module. */
export interface CommandModule {
  /** @returns the exit code: 0 ok, 1 failure, 2 usage, 3 degraded or offline. */
  command(args: readonly string[]): Promise<number>;
}

/** A row of the table. */
export interface CommandRow {
  readonly name: string;
  readonly summary: string;
  readonly usage: string;
  readonly flags: readonly string[];
  /** Words that may follow it, for completion. */
  readonly words?: readonly string[];
  readonly load: () => Promise<CommandModule>;
}

/** All commands. To add one: a file beside this one that exports `command`, and a row here. */
export const COMMANDS: readonly CommandRow[] = [
  {
    name: "run",
    summary: "Run the proxy of this node",
    usage: `holdfast run --kubeconfig FILE [options]

  --kubeconfig FILE         how to reach the API server: server, CA, client certificate or token
  --listen ADDRESS:PORT     where local clients connect, TLS; may be repeated   (127.0.0.1:10268)
  --health-listen ADDR:PORT /livez, /readyz, /metrics, plain HTTP               (127.0.0.1:10267)
  --state-dir DIR           what is kept                                        (/var/lib/holdfast)
  --client-ca-file FILE     CA of local clients' certificates                   (the kubeconfig's CA)
  --config FILE             configuration, YAML                                 (/etc/holdfast/config.yaml)`,
    flags: ["--kubeconfig", "--listen", "--health-listen", "--state-dir", "--client-ca-file", "--config"],
    load: () => import("./run.ts"),
  },
  {
    name: "status",
    summary: "Say whether the link is up and what is kept",
    usage: `holdfast status [-o json] [--state-dir DIR] [--admin-socket PATH] [--config FILE]

  exit code 0 online, 3 offline or degraded, 1 not running`,
    flags: ["-o", "--state-dir", "--admin-socket", "--config"],
    load: () => import("./status.ts"),
  },
  {
    name: "cache",
    summary: "Look into what is kept, or check it",
    usage: `holdfast cache ls [-o json] [--state-dir DIR]
holdfast cache get RESOURCE[.GROUP] [NAMESPACE/]NAME [-o json|raw] [--show-secrets] [--state-dir DIR]
holdfast cache verify [--state-dir DIR]

  --admin-socket PATH and --config FILE tell where a running daemon is, if not in the usual place`,
    flags: ["-o", "--state-dir", "--show-secrets", "--admin-socket", "--config"],
    words: ["ls", "get", "verify"],
    load: () => import("./cache.ts"),
  },
  {
    name: "guard",
    summary: "Keep the control plane from evicting what is only cut off",
    usage: `holdfast guard [--kubeconfig FILE] [options]
holdfast guard explain NODE|NAMESPACE/POD [-o json] [--kubeconfig FILE] [--namespace NAME]

  --kubeconfig FILE         how to reach the API server     (the pod's service account; explain: as kubectl, KUBECONFIG)
  --namespace NAME          where its own objects are       (holdfast-system)
  --listen ADDRESS:PORT     the webhook, TLS                (0.0.0.0:10443)
  --health-listen ADDR:PORT /livez, /readyz, /metrics       (0.0.0.0:10444)
  --service-name NAME       of the Service and the Lease    (holdfast-guard)
  --tls-cert-file FILE      serving certificate, with --tls-key-file; else it makes its own
  --tls-key-file FILE
  --approve-csrs            approve kubelets' certificate requests`,
    flags: [
      "--kubeconfig",
      "--namespace",
      "--listen",
      "--health-listen",
      "--service-name",
      "--tls-cert-file",
      "--tls-key-file",
      "--approve-csrs",
      "-o",
    ],
    words: ["explain"],
    load: () => import("./guard.ts"),
  },
  {
    name: "manifests",
    summary: "Print the guard's Kubernetes objects",
    usage: `holdfast manifests [--policies-only] [options] | kubectl apply -f -
holdfast manifests --format kustomize|helm --output-dir DIR [options]

  --policies-only     nothing but the policies and their parameters: no pod of ours runs
  --bound DURATION    how long a silent node is held; 0 for ever            (0)
  --controllers NAMES more users, by comma, judged like the node controller
  --namespace NAME    where the guard lives                                 (holdfast-system)
  --image IMAGE       the guard's container image
  --replicas N        of the guard                                          (2)
  --approve-csrs      the guard approves kubelets' certificate requests
  --cert-manager      cert-manager makes the serving certificate

  a chart takes these from its values; Kubernetes 1.30 or newer`,
    flags: [
      "--policies-only",
      "--bound",
      "--controllers",
      "--namespace",
      "--image",
      "--replicas",
      "--approve-csrs",
      "--cert-manager",
      "--format",
      "--output-dir",
    ],
    load: () => import("./manifests.ts"),
  },
  {
    name: "demo",
    summary: "Show all this without a cluster",
    usage: `holdfast demo [--keep]

  --keep    leave everything running and print a kubeconfig`,
    flags: ["--keep"],
    load: () => import("./demo.ts"),
  },
  {
    name: "version",
    summary: "Print the version",
    usage: "holdfast version [-o json]",
    flags: ["-o"],
    load: () => import("./version.ts"),
  },
  {
    name: "completion",
    summary: "Print shell completion",
    usage: "holdfast completion bash|zsh|fish",
    flags: [],
    words: ["bash", "zsh", "fish"],
    load: () => import("./completion.ts"),
  },
];

/** Arguments that do not fit the command. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Reads flags strictly.
 *
 * @throws {UsageError} naming the flag, and the one that may have been meant.
 */
export function readFlags<T extends ParseArgsOptionsConfig>(args: readonly string[], options: T) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    const message = (error as Error).message.split(". ")[0]!;
    const [, unknown] = /^Unknown option '(--[^']+)'/.exec(message) ?? [];
    const known = Object.keys(options).map((name) => `--${name}`);
    const near = unknown === undefined ? undefined : nearest(unknown, known);
    throw new UsageError(near === undefined ? message : `${message}; did you mean '${near}'`);
  }
}

/** The candidate that a mistyped word is closest to; undefined if it resembles none. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates.map((candidate) => ({ candidate, distance: editDistance(word, candidate) }));
  const best = ranked.sort((a, b) => a.distance - b.distance)[0];
  return best !== undefined && best.distance <= Math.ceil(word.length / 3) ? best.candidate : undefined;
}

/** How many letters must be put in, left out or replaced. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (const [index, letter] of [...from].entries()) {
    const next = [index + 1];
    for (let column = 1; column <= to.length; column++) {
      const replaced = row[column - 1]! + (letter === to[column - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[column]! + 1, next[column - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}

/** Writes a line to standard output. */
export function print(text: string): void {
  writeOut(`${text}\n`);
}

/** Writes to standard output as it is. */
export function writeOut(content: string | Uint8Array): void {
  writeAll(1, content);
}

/** Writes a line to standard error. */
export function complain(text: string): void {
  writeAll(2, `${text}\n`);
}

/**
 * Writes all of it before it returns.
 *
 * `process.stdout.write` hands a pipe 64 KB and keeps the rest for later, and
 * `process.exit` does not wait for later: a longer answer piped into another
 * program would arrive cut short, with exit code 0.
 */
function writeAll(fd: number, content: string | Uint8Array): void {
  let rest = Buffer.from(content);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Whoever read has had enough, as `head` has: 128 + SIGPIPE, like any program in a pipeline.
      if (code === "EPIPE") process.exit(141);
      if (code !== "EAGAIN") throw error;
      Bun.sleepSync(5);
    }
  }
}

/** A table with aligned columns. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
