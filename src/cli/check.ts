/**
 * `holdfast check`: would this node survive a cut? Named checks, each with its
 * cause and the next command; and `holdfast netcheck`, the way up by layer.
 *
 * Nothing is changed, and nobody beyond the configured API servers is asked.
 * What a group needs and does not find (a daemon, a configuration) is a check
 * of its own, so that a machine half set up says what comes next.
 */

import { ConfigError } from "../config/config-error.ts";
import { loadConfig, type Config } from "../config/config.ts";
import { DEFAULT_STATE_DIR, loadPlaces } from "../config/places.ts";
import { EdgeError } from "../base/errors.ts";
import { silentLog } from "../base/log.ts";
import { exitCodeOf, failed, skipped, type Checked, type Level } from "../machine/checks/checked.ts";
import { credentialChecks } from "../machine/checks/credentials.ts";
import { cacheChecks, sandboxChecks } from "../machine/checks/daemon.ts";
import { hostChecks } from "../machine/checks/host.ts";
import { kubeletChecks } from "../machine/checks/kubelet.ts";
import { networkChecks } from "../machine/checks/network.ts";
import { tunnelChecks } from "../machine/checks/tunnel.ts";
import { thisMachine } from "../machine/machine.ts";
import { CHECK_FLAGS, NETCHECK_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { findDaemon, type Obstacle, type Reached } from "./reach.ts";
import { jsonText, print, short } from "./terminal.ts";
import { counted } from "./words.ts";

/** All groups, in the order of a reader who begins with nothing. */
export const GROUPS = ["host", "network", "credentials", "kubelet", "cache", "tunnel", "sandbox"] as const;
/** One of them. */
export type Group = (typeof GROUPS)[number];

interface Flags {
  readonly kubeconfig?: string | undefined;
  readonly "state-dir"?: string | undefined;
  readonly "admin-socket"?: string | undefined;
  readonly config?: string | undefined;
}

/** Checks this node. @returns 0 well, 1 something failed, 3 something is to be looked at. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, CHECK_FLAGS);
  const unknown = positionals.find((word) => !GROUPS.includes(word as Group));
  if (unknown !== undefined) throw new UsageError(`Unknown group '${short(unknown)}'; expected ${GROUPS.join(", ")}`);
  const groups = GROUPS.filter((group) => positionals.length === 0 || positionals.includes(group));
  return report(await checksOf(groups, values), outputOf(values.output));
}

/** Checks the way to the API servers. @returns 0 well, 1 a layer failed, 3 something is to be looked at. */
export async function netcheck(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, NETCHECK_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${short(positionals[0]!)}'`);
  return report(await checksOf(["network"], values), outputOf(values.output));
}

function outputOf(output: string | undefined): boolean {
  if (output !== undefined && output !== "json")
    throw new UsageError(`Unknown output '${short(output)}'; expected json`);
  return output === "json";
}

/** Runs the checks of some groups. */
export async function checksOf(groups: readonly Group[], flags: Flags): Promise<Checked[]> {
  const config = configOf(flags);
  const stateDir = stateDirOf(flags, config);
  const machine = thisMachine(() => undefined);
  const nowMs = Date.now();
  let daemon: Promise<Reached | Obstacle> | undefined;
  const asked = () => (daemon ??= findDaemon(flags, "holdfast check"));
  const configured = (group: Group, look: (config: Config) => Checked[] | Promise<Checked[]>) =>
    config instanceof EdgeError
      ? [failed(`${group}/configuration`, config.message, "See: holdfast config validate; or give --kubeconfig FILE")]
      : look(config);
  const looks: Readonly<Record<Group, () => Checked[] | Promise<Checked[]>>> = {
    host: () => hostChecks({ machine, stateDir, nowMs }),
    network: () => configured("network", ({ upstream }) => networkChecks(upstream)),
    credentials: () => configured("credentials", (known) => credentialChecks(known, nowMs)),
    kubelet: () => kubeletChecks({ machine, stateDir, server: serverOf(config) }),
    async cache() {
      const found = await asked();
      return "problem" in found ? [failed("cache/daemon", found.problem, found.next)] : cacheChecks(found.report);
    },
    tunnel: () =>
      configured("tunnel", async (known) => {
        const found = known.tunnel === undefined ? undefined : await asked();
        const report = found === undefined || "problem" in found ? undefined : found.report;
        return tunnelChecks({ config: known, machine, report });
      }),
    async sandbox() {
      const found = await asked();
      return "problem" in found ? [skipped("sandbox/process", "no daemon answers")] : sandboxChecks(found.report.pid);
    },
  };
  const checks: Checked[] = [];
  for (const group of groups) checks.push(...(await looks[group]()));
  return checks;
}

/** What `run` would run with; why it would not. */
function configOf({ kubeconfig, "state-dir": stateDir, config: path }: Flags): Config | EdgeError {
  try {
    return loadConfig({ kubeconfig, stateDir, config: path }, process.env, { log: silentLog }).config;
  } catch (error) {
    if (error instanceof EdgeError) return error;
    throw error;
  }
}

function stateDirOf({ "state-dir": stateDir, config: path }: Flags, config: Config | EdgeError): string {
  if (!(config instanceof EdgeError)) return config.stateDir;
  try {
    return loadPlaces({ stateDir, config: path }, process.env).stateDir;
  } catch (error) {
    if (error instanceof ConfigError) return stateDir ?? DEFAULT_STATE_DIR;
    throw error;
  }
}

function serverOf(config: Config | EdgeError): string {
  const [listen] = config instanceof EdgeError ? [] : config.listen;
  if (listen === undefined) return "https://127.0.0.1:10268";
  return `https://${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
}

const MAX_WORDS = 600;
const MARKS: Readonly<Record<Level, string>> = { ok: "ok", warning: "WARNING", failed: "FAILED", skipped: "skipped" };

function report(checks: readonly Checked[], isJson: boolean): number {
  const code = exitCodeOf(checks);
  if (isJson) {
    print(
      jsonText({
        apiVersion: "holdfast.dev/v1alpha1",
        kind: "Check",
        at: new Date().toISOString(),
        exitCode: code,
        checks,
      }),
    );
    return code;
  }
  for (const group of new Set(checks.map(({ id }) => id.split("/")[0]!))) {
    print(group);
    for (const { id, level, cause, next } of checks.filter((one) => one.id.startsWith(`${group}/`))) {
      print(`  ${MARKS[level].padEnd(8)} ${short(id.slice(group.length + 1))}: ${short(cause, MAX_WORDS)}`);
      if (next !== "") print(`           ${short(next, MAX_WORDS)}`);
    }
  }
  const of = (level: Level) => checks.filter((one) => one.level === level).length;
  print(
    `${counted(checks.length, "check")}: ${of("failed")} failed, ${counted(of("warning"), "warning")}, ${of("skipped")} skipped`,
  );
  return code;
}
