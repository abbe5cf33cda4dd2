/**
 * `holdfast join`: a bare machine becomes a node, behind Holdfast from kubelet's first start.
 */

import { hostname } from "node:os";
import { ConfigError } from "../config/config-error.ts";
import { isJoined, join } from "../machine/join.ts";
import {
  joinOptionsOf,
  JoinOptionsError,
  readJoinFile,
  type JoinFile,
  type JoinOptions,
} from "../machine/join-options.ts";
import { preflightBare } from "../machine/preflight.ts";
import { adoptThisNode, complained, ignoredOf, machine, placesOf } from "./adopt.ts";
import { JOIN_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { print, short } from "./terminal.ts";

/** Joins this machine. @returns 0 a node behind Holdfast, 1 not, 5 a check stood in the way. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, JOIN_FLAGS);
  const [apiServer, more] = positionals;
  if (more !== undefined) throw new UsageError(`Unexpected argument '${more}'`);
  const ignored = ignoredOf(values.ignore);
  const here = machine();
  const isRoot = process.getuid?.() === 0;
  // kubeadm was here first, or a run of ours that was killed: there is nothing to be told.
  if (isRoot && isJoined(here)) return adoptThisNode(ignored, true);
  const options = usable(() => joinOptionsOf(saidBy({ ...values, apiServer }), hostname()));
  const { objections, unit } = preflightBare(here, isRoot);
  if (complained("join", objections, ignored) || unit === undefined) return 5;
  const name = await join(options, { machine: here, hostName: hostname(), unit, ...placesOf() });
  print(`Node ${short(name)} has joined, behind Holdfast. See: holdfast status`);
  return 0;
}

interface Said {
  readonly config?: string | undefined;
  readonly apiServer?: string | undefined;
  readonly token?: string | undefined;
  readonly "discovery-token-ca-cert-hash"?: string[] | undefined;
  readonly "node-name"?: string | undefined;
  readonly label?: string[] | undefined;
  readonly taint?: string[] | undefined;
  readonly pool?: string | undefined;
}

/** The file's words, and over them the flags'. */
function saidBy(flags: Said): JoinFile {
  const file = flags.config === undefined ? {} : readJoinFile(flags.config);
  const given = {
    apiServer: flags.apiServer,
    token: flags.token,
    caCertHashes: flags["discovery-token-ca-cert-hash"],
    nodeName: flags["node-name"],
    labels: flags.label === undefined ? undefined : Object.fromEntries(flags.label.map(pairOf)),
    taints: flags.taint,
    pool: flags.pool,
  };
  return { ...file, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) };
}

function pairOf(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new UsageError(`--label: expected KEY=VALUE, got '${text}'`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function usable(read: () => JoinOptions): JoinOptions {
  try {
    return read();
  } catch (error) {
    if (error instanceof JoinOptionsError || error instanceof ConfigError) throw new UsageError(error.message);
    throw error;
  }
}
