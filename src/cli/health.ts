/**
 * `holdfast health`: is the running daemon fit? For scripts and for updaters
 * that decide between the new slot and the old one.
 *
 * `--ota` is stricter than ready: the node's own object must come back through
 * the listener, read with the node's own credential, online or from the copy.
 * That proves TLS, identity, the store and the way of a request in one question,
 * which a process that merely runs does not.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseDurationMs } from "../base/units.ts";
import { silentLog } from "../base/log.ts";
import { loadConfig, type Config } from "../config/config.ts";
import { subjectOf } from "../node/own-node.ts";
import { reasonOf } from "../uplink/upstream.ts";
import { HEALTH_FLAGS } from "./flag-table.ts";
import { readFlags, repeated, UsageError } from "./flags.ts";
import { sorry } from "./reach.ts";
import { print, short } from "./terminal.ts";

const PATIENCE_MS = 5_000;
const LOOK_EVERY_MS = 500;

/** Asks once, or until it is well or the time is up. @returns 0 well, 1 not. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, HEALTH_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${short(positionals[0]!)}'`);
  const waitMs = parseDurationMs(values.wait ?? "0s");
  if (waitMs === undefined) throw new UsageError("--wait: expected a duration such as 60s");
  const { config } = loadConfig(
    { kubeconfig: values.kubeconfig, stateDir: values["state-dir"], config: values.config },
    process.env,
    { log: silentLog },
  );
  const deadline = performance.now() + waitMs;
  for (;;) {
    const problem = (await notReady(config)) ?? (values.ota === true ? await nodeUnread(config) : undefined);
    if (problem === undefined) {
      print(values.ota === true ? "well: the node was read through Holdfast" : "ready");
      return 0;
    }
    if (performance.now() >= deadline)
      return sorry("holdfast health", {
        problem: short(problem, 600),
        next: `See: holdfast check${repeated({ "state-dir": values["state-dir"], config: values.config })}`,
      });
    await Bun.sleep(LOOK_EVERY_MS);
  }
}

async function notReady({ healthListen: { host, port } }: Config): Promise<string | undefined> {
  try {
    const response = await fetch(`http://${bracketed(host)}:${port}/readyz?verbose`, {
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const text = await response.text();
    return response.ok
      ? undefined
      : `not ready: ${text
          .split("\n")
          .filter((line) => line.startsWith("[-]"))
          .join("; ")}`;
  } catch (error) {
    return `no daemon answers on ${host}:${port}: ${reasonOf(error)}`;
  }
}

async function nodeUnread({
  upstream: { credential },
  listen: [first],
  stateDir,
}: Config): Promise<string | undefined> {
  if (credential.kind !== "certificate") return "the kubeconfig holds no client certificate to read the node with";
  const { certPem: cert, keyPem: key } = credential.read();
  const { name } = subjectOf(cert);
  const node = /^system:node:(.+)$/.exec(name)?.[1];
  if (node === undefined) return "the kubeconfig's certificate is not a node's";
  const { host, port } = first!;
  try {
    const ca = readFileSync(join(stateDir, "pki", "local-ca.crt"), "utf8");
    const response = await fetch(`https://${bracketed(host)}:${port}/api/v1/nodes/${encodeURIComponent(node)}`, {
      tls: { ca, cert, key },
      keepalive: false,
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (response.status !== 200) return `node ${node} was answered ${response.status}`;
    const { kind, metadata } = (await response.json()) as { kind?: string; metadata?: { name?: string } };
    return kind === "Node" && metadata?.name === node ? undefined : `node ${node} came back as something else`;
  } catch (error) {
    return `node ${node} cannot be read through Holdfast: ${reasonOf(error)}`;
  }
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
