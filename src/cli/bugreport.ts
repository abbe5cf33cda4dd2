/**
 * `holdfast bugreport`: what helps to understand a fault, in one file that may be handed on.
 *
 * By allow-list: of each source only named fields go in, so that what a later
 * version adds stays out until somebody has thought of it. No object of the
 * cluster, no credential, no file as a whole. `--preview` prints every byte.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { hostname, release, totalmem } from "node:os";
import { stringify } from "yaml";
import { silentLog } from "../base/log.ts";
import { EdgeError } from "../base/errors.ts";
import { COMMIT, VERSION } from "../base/version.ts";
import { loadConfig } from "../config/config.ts";
import { fileOf } from "../config/config-file.ts";
import { effectiveFile } from "../config/effective.ts";
import type { StatusReport } from "../health/status-report.ts";
import { checksOf, GROUPS } from "./check.ts";
import { BUGREPORT_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { findDaemon } from "./reach.ts";
import { Redactor } from "./redactor.ts";
import { complain, print, short } from "./terminal.ts";
import { withIsoTimes } from "./times.ts";

/** What a mailbox and a patient uplink take. */
export const MAX_BYTES = 2_000_000;
const MAX_FILE_CHARACTERS = 1_000_000;
const LOG_LINES = 5_000;
const PATIENCE_MS = 10_000;

/** Fields of a log line that go in as they are; numbers and booleans always do. */
const LOG_FIELDS: ReadonlySet<string> = new Set([
  ...["time", "level", "message", "reason", "verb", "resource", "group", "error", "for", "lasted", "endedBy", "ports"],
  ...["profile", "field", "file", "kind"],
]);

/** Packs it. @returns 0 written or printed, 1 could not be written. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, BUGREPORT_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${short(positionals[0]!)}'`);
  const files = await gather(values, new Redactor(values.names === true));
  if (values.preview === true) {
    for (const [name, text] of files) print(`==> ${name} <==\n${text}\n`);
    return 0;
  }
  const path =
    values["output-file"] ?? `holdfast-bugreport-${new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "")}.tar.gz`;
  const bytes = await packed(files);
  try {
    writeFileSync(path, bytes, { mode: 0o600, flag: "wx" });
  } catch (error) {
    complain(`holdfast bugreport: "${short(path)}" cannot be written: ${(error as { code?: string }).code}`);
    complain("Name another file with --output-file FILE");
    return 1;
  }
  print(
    `${path}: ${bytes.length} bytes, ${[...files.keys()].join(", ")}; holdfast bugreport --preview prints all of it`,
  );
  return 0;
}

type Values = ReturnType<typeof readFlags<typeof BUGREPORT_FLAGS>>["values"];

/** All files by name, cleaned. */
async function gather(values: Values, redactor: Redactor): Promise<Map<string, string>> {
  const found = await findDaemon(values, "holdfast bugreport");
  const report = "problem" in found ? undefined : found.report;
  redactor.learn("host", [hostname()]);
  if (report !== undefined) learn(redactor, report);
  const checks = await checksOf(GROUPS, values);
  const sources: readonly (readonly [string, () => string | Promise<string>])[] = [
    ["system.json", () => jsonOf(system())],
    ["status.json", () => ("problem" in found ? found.problem : jsonOf(withIsoTimes(allowed(found.report))))],
    ["check.json", () => jsonOf(checks)],
    ["config.yaml", () => configuration(values)],
    ["metrics.txt", () => metrics(values)],
    ["log.jsonl", () => log()],
  ];
  const files = new Map<string, string>();
  for (const [name, make] of sources) {
    const text = await Promise.resolve()
      .then(make)
      .catch((error: unknown) =>
        error instanceof EdgeError ? error.message : `not to be had: ${(error as Error).name}`,
      );
    files.set(name, redactor.clean(text).slice(-MAX_FILE_CHARACTERS));
  }
  return files;
}

function jsonOf(document: unknown): string {
  return JSON.stringify(document, undefined, 1);
}

function learn(redactor: Redactor, { link, scopes, coverage, certificates }: StatusReport): void {
  redactor.learn(
    "server",
    link.servers.flatMap(({ url }) => [new URL(url).hostname]),
  );
  redactor.learn(
    "namespace",
    scopes.map(({ namespace }) => namespace),
  );
  redactor.learn("namespace", coverage?.pods.map(({ namespace }) => namespace) ?? []);
  redactor.learn("pod", coverage?.pods.map(({ name }) => name) ?? []);
  redactor.learn(
    "object",
    coverage?.pods.flatMap(({ missing, unknown }) => [...missing, ...unknown].map(({ name }) => name)) ?? [],
  );
  redactor.learn(
    "node",
    certificates.flatMap(({ subject }) => /system:node:([^,]+)/.exec(subject)?.[1] ?? []),
  );
  redactor.learn(
    "caller",
    scopes.map(({ principal }) => principal.slice(principal.indexOf(":") + 1).split("|")[0]!),
  );
}

/** Of the report the fields that are known to be harmless; a selector may hold anything. */
function allowed(report: StatusReport): unknown {
  const { version, pid, startedAtMs, nowMs, link, scopes, store, certificates, horizon, coverage, requests } = report;
  const { sharedBytes, offline, conditions } = report;
  return {
    ...{
      version,
      pid,
      startedAtMs,
      nowMs,
      link,
      store,
      certificates,
      horizon,
      coverage,
      requests,
      sharedBytes,
      offline,
    },
    conditions,
    scopes: scopes.map(({ fieldSelector, labelSelector, ...scope }) => ({
      ...scope,
      fieldSelector: fieldSelector === "" ? "" : "(given)",
      labelSelector: labelSelector === "" ? "" : "(given)",
    })),
  };
}

function system(): object {
  const [, os = "unknown"] = /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(readFileSync("/etc/os-release", "utf8")) ?? [];
  return {
    holdfast: VERSION,
    commit: COMMIT,
    runtime: `bun ${Bun.version}`,
    architecture: process.arch,
    kernel: release(),
    os,
    memoryBytes: totalmem(),
    at: new Date().toISOString(),
  };
}

function configuration(values: Values): string {
  const flags = { kubeconfig: values.kubeconfig, stateDir: values["state-dir"], config: values.config };
  const { config } = loadConfig(flags, process.env, { log: silentLog });
  return stringify(effectiveFile(config, fileOf(values.config, process.env)));
}

/** Its labels are bounded by construction: no name is among them. */
async function metrics(values: Values): Promise<string> {
  const flags = { kubeconfig: values.kubeconfig, stateDir: values["state-dir"], config: values.config };
  const { host, port } = loadConfig(flags, process.env, { log: silentLog }).config.healthListen;
  const response = await fetch(`http://${host.includes(":") ? `[${host}]` : host}:${port}/metrics`, {
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  return response.text();
}

async function log(): Promise<string> {
  const journalctl = Bun.which("journalctl");
  if (journalctl === null) return "there is no journalctl";
  const child = Bun.spawn([journalctl, "-u", "holdfast", "-n", String(LOG_LINES), "-o", "cat", "--no-pager"], {
    stdout: "pipe",
    stderr: "ignore",
    timeout: PATIENCE_MS,
  });
  return allowedLines(await new Response(child.stdout).text());
}

/** Of each line of ours the fields that are named above; what is no line of ours is left out and counted. */
export function allowedLines(text: string): string {
  let others = 0;
  const lines = text.split("\n").flatMap((line) => {
    if (line === "") return [];
    try {
      const fields = Object.entries(JSON.parse(line) as Record<string, unknown>);
      const kept = fields.filter(([name, value]) => typeof value !== "string" || LOG_FIELDS.has(name));
      return [JSON.stringify(Object.fromEntries(kept))];
    } catch {
      others++;
      return [];
    }
  });
  return [...lines, ...(others === 0 ? [] : [JSON.stringify({ otherLinesLeftOut: others })])].join("\n");
}

/** A compressed archive, small enough to be sent: of the longest file the beginning goes first. */
export async function packed(files: Map<string, string>): Promise<Uint8Array> {
  for (;;) {
    const bytes = Bun.gzipSync(await new Bun.Archive(Object.fromEntries(files)).bytes());
    const longest = [...files].reduce((a, b) => (b[1].length > a[1].length ? b : a));
    if (bytes.length <= MAX_BYTES || longest[1].length < 1_000) return bytes;
    files.set(longest[0], longest[1].slice(Math.floor(longest[1].length / 2)));
  }
}
