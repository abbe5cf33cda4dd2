/**
 * One Config from file, environment and flags.
 *
 * Precedence: flag, environment (HOLDFAST_*), file, default. The file is
 * strict: a field nobody knows is an error with its line, because a misspelt
 * bound that is silently ignored shows itself months later.
 */

import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import * as v from "valibot";
import { EdgeError } from "./base/errors.ts";
import { parseDurationMs, parseSizeBytes } from "./base/units.ts";
import type { Credential } from "./kube/credential.ts";
import { loadKubeconfig } from "./kubeconfig.ts";
import { lineOf, repeatedField, syntaxLine } from "./config-lines.ts";
import { proxyForServer } from "./proxy-url.ts";

/** Everything `run` needs, checked and resolved. */
export interface Config {
  readonly upstream: UpstreamConfig;
  /** Where local clients connect, TLS. */
  readonly listen: readonly ListenAddress[];
  readonly healthListen: ListenAddress;
  readonly stateDir: string;
  /** Undefined when the path would be too long for a unix socket. */
  readonly adminSocketPath: string | undefined;
  /** PEM of the CAs that local client certificates are verified against. */
  readonly clientCaPem: string;
  /** Credentials for local clients on certificates other than the upstream one's subject, by the certificate's CN. */
  readonly clients: readonly { readonly name: string; readonly credential: Credential }[];
  readonly limits: Limits;
}

/** One address to listen on; an IPv6 host stands without brackets. Port 0 picks a free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** How the API servers are reached. */
export interface UpstreamConfig {
  /** Origins, https only; asked in this order. */
  readonly servers: readonly string[];
  readonly caPem: string;
  /** Name to verify in the server's certificate instead of the URL's host. */
  readonly tlsServerName?: string;
  /** The HTTP proxy to reach a server through, if any. */
  readonly proxyFor: (server: string) => string | undefined;
  readonly credential: Credential;
}

/** Bounds. */
export interface Limits {
  /** A scope with more items is passed through. Default 20000. */
  readonly scopeMaxItems: number;
  /** The same in bytes of items. Default 128Mi. */
  readonly scopeMaxBytes: number;
  /** The database's quota. Default 512Mi. */
  readonly storeMaxBytes: number;
  /** Recent events a scope keeps for its watchers. Default 1024. */
  readonly ringMaxEvents: number;
  /** The same in bytes. Default 1Mi. */
  readonly ringMaxBytes: number;
  /** How long a scope is followed after its last use. Default 5m. */
  readonly lingerMs: number;
  /** How long rows nobody used are kept while online. Default 168h. */
  readonly retentionMs: number;
  /** How often watchers get a bookmark. Default 45s. */
  readonly bookmarkIntervalMs: number;
}

/** Flags of `run`, as given. */
export interface ConfigFlags {
  readonly kubeconfig?: string | undefined;
  readonly listen?: readonly string[] | undefined;
  readonly healthListen?: string | undefined;
  readonly stateDir?: string | undefined;
  readonly clientCaFile?: string | undefined;
  readonly config?: string | undefined;
}

/** A configuration cannot be used; the message names file, line and field, or the flag. */
export class ConfigError extends EdgeError {
  override readonly name = "ConfigError";
  readonly code = "CONFIG";
}

/** Where the configuration is looked for when no --config is given. */
export const DEFAULT_CONFIG_FILE = "/etc/holdfast/config.yaml";
/** Where state lies when nobody says otherwise. */
export const DEFAULT_STATE_DIR = "/var/lib/holdfast";
const DEFAULT_SOCKET = "/run/holdfast/admin.sock";
/** sun_path holds 108 bytes with its end. */
const MAX_SOCKET_PATH = 107;

const optionalText = v.optional(v.string());
const duration = v.optional(v.pipe(v.string(), v.check((text) => parseDurationMs(text) !== undefined, 'a duration such as "45s", "5m" or "168h"'), v.transform((text) => parseDurationMs(text)!)));
const size = v.optional(v.pipe(v.union([v.string(), v.number()]), v.transform(String), v.check((text) => parseSizeBytes(text) !== undefined, 'a size such as "64Mi"'), v.transform((text) => parseSizeBytes(text)!)));
const count = v.optional(v.pipe(v.number(), v.integer(), v.minValue(1)));
const fileSchema = v.strictObject({
  apiVersion: v.literal("holdfast.dev/v1alpha1"),
  kind: v.literal("HoldfastConfiguration"),
  kubeconfig: optionalText,
  servers: v.optional(v.array(v.string())),
  listen: v.optional(v.union([v.string(), v.array(v.string())])),
  healthListen: optionalText,
  stateDir: optionalText,
  clientCAFile: optionalText,
  adminSocket: optionalText,
  clients: v.optional(v.array(v.strictObject({ name: v.string(), kubeconfig: v.string() }))),
  limits: v.optional(v.strictObject({
    scopeMaxItems: count,
    scopeMaxBytes: size,
    storeMaxBytes: size,
    ringMaxEvents: count,
    ringMaxBytes: size,
    linger: duration,
    retention: duration,
    bookmarkInterval: duration,
  })),
});
type FileConfig = Partial<v.InferOutput<typeof fileSchema>>;

/**
 * Puts the configuration together.
 *
 * @throws {ConfigError} {KubeconfigError} naming what to mend.
 */
export function loadConfig(flags: ConfigFlags, env: Readonly<Record<string, string | undefined>>): { readonly config: Config; readonly warnings: readonly string[] } {
  const path = flags.config ?? env["HOLDFAST_CONFIG"] ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  const file: FileConfig = path === undefined ? {} : readConfigFile(path);
  const kubeconfigPath = flags.kubeconfig ?? env["HOLDFAST_KUBECONFIG"] ?? file.kubeconfig;
  if (kubeconfigPath === undefined) throw new ConfigError("Cannot run without a kubeconfig: give one with --kubeconfig FILE, or kubeconfig: FILE in the configuration");
  const kubeconfig = loadKubeconfig(kubeconfigPath);
  const warnings = [...kubeconfig.warnings];
  const stateDir = flags.stateDir ?? env["HOLDFAST_STATE_DIR"] ?? file.stateDir ?? DEFAULT_STATE_DIR;
  const listen = flags.listen ?? (env["HOLDFAST_LISTEN"]?.split(",") ?? (file.listen === undefined ? ["127.0.0.1:10268"] : [file.listen].flat()));
  const clientCaFile = flags.clientCaFile ?? env["HOLDFAST_CLIENT_CA_FILE"] ?? file.clientCAFile;
  const servers = [kubeconfig.server, ...(file.servers ?? []).map((server, index) => checkedServer(`servers[${index}]`, server))];
  return {
    config: {
      upstream: {
        servers: [...new Set(servers)],
        caPem: kubeconfig.caPem,
        ...(kubeconfig.tlsServerName === undefined ? {} : { tlsServerName: kubeconfig.tlsServerName }),
        proxyFor: proxyForServer(kubeconfig.proxyUrl, env),
        credential: kubeconfig.credential,
      },
      listen: listen.map((address) => parseAddress("listen", address)),
      healthListen: parseAddress("healthListen", flags.healthListen ?? env["HOLDFAST_HEALTH_LISTEN"] ?? file.healthListen ?? "127.0.0.1:10267"),
      stateDir,
      adminSocketPath: socketPath(stateDir, env["HOLDFAST_ADMIN_SOCKET"] ?? file.adminSocket, warnings),
      clientCaPem: clientCaFile === undefined ? kubeconfig.caPem : readCa(clientCaFile),
      clients: (file.clients ?? []).map(({ name, kubeconfig: client }) => ({ name, credential: loadKubeconfig(client).credential })),
      limits: limitsOf(file.limits),
    },
    warnings,
  };
}

/** The admin socket of a state folder: the well-known one for the default folder, else inside it. */
export function socketPath(stateDir: string, asked: string | undefined, warnings: string[] = []): string | undefined {
  const path = asked ?? (stateDir === DEFAULT_STATE_DIR ? DEFAULT_SOCKET : join(stateDir, "admin.sock"));
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path;
  warnings.push(`admin socket "${path}" is longer than ${MAX_SOCKET_PATH} bytes and is not opened; holdfast status will not work: choose adminSocket in the configuration`);
  return undefined;
}

function limitsOf(file: NonNullable<FileConfig["limits"]> = {}): Limits {
  return {
    scopeMaxItems: file.scopeMaxItems ?? 20_000,
    scopeMaxBytes: file.scopeMaxBytes ?? 128 * 2 ** 20,
    storeMaxBytes: file.storeMaxBytes ?? 512 * 2 ** 20,
    ringMaxEvents: file.ringMaxEvents ?? 1_024,
    ringMaxBytes: file.ringMaxBytes ?? 2 ** 20,
    lingerMs: file.linger ?? 5 * 60_000,
    retentionMs: file.retention ?? 168 * 3_600_000,
    bookmarkIntervalMs: file.bookmarkInterval ?? 45_000,
  };
}

function readConfigFile(path: string): FileConfig {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(`Cannot read configuration "${path}": ${(error as { code?: string }).code === "ENOENT" ? "there is no such file" : (error as { code?: string }).code}`, { cause: error });
  }
  let document: unknown;
  try {
    document = Bun.YAML.parse(source) ?? {};
  } catch {
    throw new ConfigError(`Cannot read configuration "${path}"${syntaxLine(source)}`);
  }
  const repeated = repeatedField(source);
  if (repeated !== undefined) throw new ConfigError(`Cannot use configuration "${path}", line ${repeated.line}: field "${repeated.field}" stands there twice`);
  const result = v.safeParse(fileSchema, document);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const keys = issue.path?.map(({ key }) => key as string | number) ?? [];
  const line = lineOf(source, keys);
  const field = keys.join(".");
  const isUnknown = issue.type === "strict_object" && issue.expected === "never";
  if (isUnknown) throw new ConfigError(`Cannot use configuration "${path}", line ${line}: unknown field "${field}"${suggestion(String(keys.at(-1)))}`);
  if (issue.received === "undefined") throw new ConfigError(`Cannot use configuration "${path}": field "${field}" is missing; expected ${issue.expected}`);
  throw new ConfigError(`Cannot use configuration "${path}", line ${line}: field "${field}": expected ${issue.type === "check" ? issue.message : issue.expected}`);
}

const KNOWN_FIELDS = [...Object.keys(fileSchema.entries), "scopeMaxItems", "scopeMaxBytes", "storeMaxBytes", "ringMaxEvents", "ringMaxBytes", "linger", "retention", "bookmarkInterval", "name"];

function suggestion(field: string): string {
  const near = KNOWN_FIELDS.find((known) => known.toLowerCase() === field.toLowerCase() || distance(known, field) <= 2);
  return near === undefined ? "" : `; did you mean "${near}"`;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

/**
 * An address to listen on.
 *
 * Only loopback and link-local: what answers with a node's credentials has no
 * business on a network.
 */
export function parseAddress(field: string, text: string): ListenAddress {
  const [, bracketed, plain, portText] = /^(?:\[([^\]]+)\]|([^:]*)):([0-9]{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || portText === undefined || Number(portText) > 65_535) throw new ConfigError(`Cannot listen on "${text}" (${field}): expected ADDRESS:PORT, such as 127.0.0.1:10268 or [::1]:10268`);
  if (isIP(host) === 0) throw new ConfigError(`Cannot listen on "${text}" (${field}): expected an IP address, not a name`);
  const isLocal = /^127\.|^169\.254\.|^::1$|^fe80:/i.test(host);
  if (!isLocal) throw new ConfigError(`Cannot listen on "${text}" (${field}): only loopback and link-local addresses are allowed, because whoever reaches this port acts near the node's identity`);
  return { host, port: Number(portText) };
}

function checkedServer(field: string, server: string): string {
  if (!URL.canParse(server) || new URL(server).protocol !== "https:") throw new ConfigError(`Cannot use API server (${field}): expected https://HOST:PORT`);
  return new URL(server).origin;
}

function readCa(path: string): string {
  try {
    const pem = readFileSync(path, "utf8");
    if (!pem.includes("-----BEGIN CERTIFICATE-----")) throw new ConfigError(`Cannot use --client-ca-file "${path}": it holds no PEM certificate`);
    return pem;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`Cannot read --client-ca-file "${path}": ${(error as { code?: string }).code}`, { cause: error });
  }
}
