/**
 * The table of commands, and what they share.
 */

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
    load: () => import("./cache.ts"),
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
 * @throws {UsageError} naming the flag.
 */
export function readFlags<T extends ParseArgsOptionsConfig>(args: readonly string[], options: T) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message.split(". ")[0]!);
  }
}

/** Writes to standard output. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Writes to standard error. */
export function complain(text: string): void {
  process.stderr.write(`${text}\n`);
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
