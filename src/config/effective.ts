/**
 * What `run` would run with, as a configuration file that says all of it, and
 * from where each of its fields comes.
 */

import type { Config } from "./config.ts";
import type { Env } from "./config-file.ts";
import type { FileConfig, Limits } from "./schema.ts";

/** Where a field's value was said. */
export type Source = "flag" | "environment" | "file" | "default";

/** A whole file, in the order of the README. Only paths and names stand in it: no credential does. */
export function effectiveFile(
  config: Config,
  { kubeconfig, clientCAFile, clients = [], tunnel }: FileConfig,
): FileConfig {
  const { upstream, listen, healthListen, stateDir, adminSocketPath, isWitness, claimsNode } = config;
  const place = ({ host, port }: { readonly host: string; readonly port: number }) =>
    `${host.includes(":") ? `[${host}]` : host}:${port}`;
  return {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "HoldfastConfiguration",
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    servers: upstream.servers.slice(1),
    listen: listen.map(place),
    healthListen: place(healthListen),
    stateDir,
    ...(clientCAFile === undefined ? {} : { clientCAFile }),
    ...(adminSocketPath === undefined ? {} : { adminSocket: adminSocketPath }),
    witness: isWitness,
    claimNode: claimsNode,
    logLevel: config.logLevel,
    ...(config.page === undefined ? {} : { page: { listen: place(config.page), hosts: [...config.page.hosts] } }),
    tunnel: tunnelText(config, tunnel),
    clients,
    nodeAgents: [...config.nodeAgents],
    expiredTokensFor: [...config.expiredTokensFor],
    certificates: { rotateNodeClient: config.rotatesNodeClient },
    limits: limitsText(config.limits) as unknown as NonNullable<FileConfig["limits"]>,
  };
}

function tunnelText({ tunnel }: Config, said: FileConfig["tunnel"]): NonNullable<FileConfig["tunnel"]> {
  if (tunnel === undefined) return "off";
  const caFile = said === "off" ? undefined : said?.caFile;
  const gateways = tunnel.gateways.map((gateway) => gateway.replace(/^https:/, "wss:"));
  return { gateways, ...(caFile === undefined ? {} : { caFile }) };
}

/** The bounds as a file writes them: "5m", "128Mi". */
function limitsText(limits: Limits): Readonly<Record<string, string | number>> {
  return Object.fromEntries(
    Object.entries(limits).map(([name, value]: [string, number]): [string, string | number] => {
      if (name.endsWith("Ms")) return [name.slice(0, -2), durationText(value)];
      return [name, name.endsWith("Bytes") ? sizeText(value) : value];
    }),
  );
}

/** A span of time to the millisecond, as `parseDurationMs` reads it. */
export function durationText(ms: number): string {
  for (const [unit, size] of [
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const)
    if (ms >= size && ms % size === 0) return `${ms / size}${unit}`;
  return ms === 0 ? "0s" : `${ms}ms`;
}

/** A size to the byte, as `parseSizeBytes` reads it. */
export function sizeText(bytes: number): string {
  for (const [unit, size] of [
    ["Gi", 2 ** 30],
    ["Mi", 2 ** 20],
    ["Ki", 2 ** 10],
  ] as const)
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  return String(bytes);
}

/** Which of flag, environment and file says a field; the first one counts. @param field such as "stateDir" or "limits.linger". */
export function sourceOf(field: string, flags: Readonly<Record<string, unknown>>, env: Env, file: FileConfig): Source {
  const [name = "", inner] = field.split(".");
  const variable = `HOLDFAST_${(inner ?? name)
    .replaceAll(/([a-z])([A-Z])/g, "$1_$2")
    .toUpperCase()
    .replace("CAFILE", "CA_FILE")}`;
  if (inner === undefined && flags[name] !== undefined) return "flag";
  if ((env[variable] ?? "") !== "") return "environment";
  const said = (file as Readonly<Record<string, unknown>>)[name];
  const isSaid =
    inner === undefined ? said !== undefined : (said as Readonly<Record<string, unknown>>)?.[inner] !== undefined;
  return isSaid ? "file" : "default";
}
