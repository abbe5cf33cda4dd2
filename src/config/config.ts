/**
 * One Config from file, environment and flags.
 *
 * Precedence: flag, environment (HOLDFAST_*), file, default. The file is
 * strict: a field nobody knows is an error with its line, because a misspelt
 * bound that is silently ignored shows itself months later.
 */

import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { BlockList, isIP, isIPv6 } from "node:net";
import { dirname, join, resolve } from "node:path";
import * as v from "valibot";
import { EdgeError } from "../base/errors.ts";
import { parseDurationMs, parseSizeBytes } from "../base/units.ts";
import type { Credential } from "../kube/credential.ts";
import { loadKubeconfig, type KubeconfigOptions } from "./kubeconfig.ts";
import { lineOf, repeatedField, syntaxLine } from "./lines.ts";
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
  /** Whether the guard may ask if a neighbour is heard; see `witness/witness.ts`. */
  readonly isWitness: boolean;
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
  /** Kubelet's lease goes up at most this often while nothing but its renewTime changes. Default 0: each renewal. */
  readonly leaseIntervalMs: number;
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
const durationFrom = (leastMs: number, example: string, mostMs = Number.MAX_SAFE_INTEGER) => {
  const isFit = (text: string) => {
    const ms = parseDurationMs(text);
    return ms !== undefined && ms >= leastMs && ms <= mostMs;
  };
  return v.optional(
    v.pipe(
      v.string("duration"),
      v.check(isFit, `a duration such as "45s", "5m" or "168h", ${example}`),
      v.transform((text) => parseDurationMs(text)!),
    ),
  );
};
const size = v.optional(
  v.pipe(
    v.union([v.string(), v.number()]),
    v.transform(String),
    v.check((text) => (parseSizeBytes(text) ?? 0) > 0, 'a size such as "64Mi", more than 0'),
    v.transform((text) => parseSizeBytes(text)!),
  ),
);
const count = v.optional(
  v.pipe(
    v.number(),
    v.check((value) => Number.isInteger(value) && value >= 1, "a whole number, 1 or more"),
  ),
);
/** A timer of more days than this fires at once: 2^31 ms. */
const TIMER_MAX_MS = 576 * 3_600_000;
const limitsSchema = v.strictObject({
  scopeMaxItems: count,
  scopeMaxBytes: size,
  storeMaxBytes: size,
  ringMaxEvents: count,
  ringMaxBytes: size,
  linger: durationFrom(0, "576h at most", TIMER_MAX_MS),
  retention: durationFrom(60_000, "1m at least"),
  bookmarkInterval: durationFrom(1_000, "from 1s to 576h", TIMER_MAX_MS),
  leaseInterval: durationFrom(0, "30s at most: the control plane waits 40s or 50s", 30_000),
});
const clientSchema = v.strictObject({ name: v.string(), kubeconfig: v.string() });
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
  witness: v.optional(v.boolean()),
  clients: v.optional(v.array(clientSchema)),
  limits: v.optional(limitsSchema),
});
type FileConfig = Partial<v.InferOutput<typeof fileSchema>>;
type Env = Readonly<Record<string, string | undefined>>;

/**
 * Puts the configuration together.
 *
 * @param options are handed to the kubeconfigs, whose credentials live on.
 * @throws {ConfigError} {KubeconfigError} naming what to mend.
 */
export function loadConfig(
  flags: ConfigFlags,
  givenEnv: Env,
  options: KubeconfigOptions = {},
): { readonly config: Config; readonly warnings: readonly string[] } {
  const env = withoutBlanks(givenEnv);
  const file = fileOf(flags.config, env);
  const kubeconfigPath = flags.kubeconfig ?? env["HOLDFAST_KUBECONFIG"] ?? file.kubeconfig;
  if (kubeconfigPath === undefined)
    throw new ConfigError(
      "Cannot run without a kubeconfig: give one with --kubeconfig FILE, or kubeconfig: FILE in the configuration",
    );
  const kubeconfig = loadKubeconfig(kubeconfigPath, options);
  const warnings = [...kubeconfig.warnings];
  const stateDir = stateDirOf(flags.stateDir, env, file);
  const listen = addressesOf(
    flags.listen ?? env["HOLDFAST_LISTEN"]?.split(",") ?? [file.listen ?? "127.0.0.1:10268"].flat(),
  );
  const healthListen = parseAddress(
    "healthListen",
    flags.healthListen ?? env["HOLDFAST_HEALTH_LISTEN"] ?? file.healthListen ?? "127.0.0.1:10267",
  );
  if (listen.some((address) => isSame(address, healthListen)))
    throw new ConfigError(
      `Cannot listen on "${healthListen.host}:${healthListen.port}" for health (healthListen): listen names it too; choose another port with --health-listen`,
    );
  const servers = serversOf(kubeconfig.server, env["HOLDFAST_SERVERS"]?.split(",") ?? file.servers ?? [], listen);
  const proxyFor = proxyForServer(kubeconfig.proxyUrl, env);
  checkProxies(servers, proxyFor);
  const clients = clientsOf(file.clients ?? [], options, warnings);
  const config: Config = {
    upstream: {
      servers,
      caPem: kubeconfig.caPem,
      ...(kubeconfig.tlsServerName === undefined ? {} : { tlsServerName: kubeconfig.tlsServerName }),
      proxyFor,
      credential: kubeconfig.credential,
    },
    listen,
    healthListen,
    stateDir,
    adminSocketPath: socketPath(stateDir, env["HOLDFAST_ADMIN_SOCKET"] ?? file.adminSocket, warnings),
    isWitness: file.witness ?? true,
    clientCaPem: clientCaOf(flags, env, file) ?? kubeconfig.caPem,
    clients,
    limits: limitsOf({ ...file.limits, ...limitsOfEnv(env) }),
  };
  return { config, warnings };
}

/**
 * Where a daemon with this configuration keeps its state and opens its socket;
 * all that commands beside `run` need of it. Touches no kubeconfig.
 *
 * @throws {ConfigError} naming what to mend.
 */
export function loadPlaces(
  flags: {
    readonly stateDir?: string | undefined;
    readonly adminSocket?: string | undefined;
    readonly config?: string | undefined;
  },
  givenEnv: Env,
): { readonly stateDir: string; readonly adminSocketPath: string | undefined } {
  const env = withoutBlanks(givenEnv);
  const file = fileOf(flags.config, env);
  const stateDir = stateDirOf(flags.stateDir, env, file);
  // A folder named by hand is another daemon's than the one the file describes.
  const isOther = flags.stateDir !== undefined && resolve(flags.stateDir) !== stateDirOf(undefined, env, file);
  const asked = flags.adminSocket ?? (isOther ? undefined : (env["HOLDFAST_ADMIN_SOCKET"] ?? file.adminSocket));
  return { stateDir, adminSocketPath: socketPath(stateDir, asked) };
}

/** The admin socket of a state folder: the well-known one for the default folder, else inside it. */
export function socketPath(stateDir: string, asked: string | undefined, warnings: string[] = []): string | undefined {
  const path =
    asked !== undefined
      ? resolve(asked)
      : stateDir === DEFAULT_STATE_DIR
        ? DEFAULT_SOCKET
        : join(stateDir, "admin.sock");
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path;
  warnings.push(
    `admin socket "${path}" is longer than ${MAX_SOCKET_PATH} bytes and is not opened; holdfast status will not work: choose adminSocket in the configuration`,
  );
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
    leaseIntervalMs: file.leaseInterval ?? 0,
  };
}

/** HOLDFAST_LINGER, HOLDFAST_SCOPE_MAX_ITEMS and so on, for each of `limits`. */
function limitsOfEnv(env: Env): NonNullable<FileConfig["limits"]> {
  const limits: Record<string, number> = {};
  for (const [field, schema] of Object.entries(limitsSchema.entries)) {
    const name = `HOLDFAST_${field.replaceAll(/[A-Z]/g, "_$&").toUpperCase()}`;
    const text = env[name];
    if (text === undefined) continue;
    const result = v.safeParse(schema, field.endsWith("MaxItems") || field.endsWith("MaxEvents") ? Number(text) : text);
    if (!result.success) throw new ConfigError(`Cannot use ${name}: expected ${expectedOf(result.issues[0])}`);
    limits[field] = result.output!;
  }
  return limits;
}

/** systemd's environment files leave blank what is not set. */
function withoutBlanks(env: Env): Env {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
}

function stateDirOf(flag: string | undefined, env: Env, file: FileConfig): string {
  return resolve(flag ?? env["HOLDFAST_STATE_DIR"] ?? file.stateDir ?? DEFAULT_STATE_DIR);
}

function addressesOf(texts: readonly string[]): ListenAddress[] {
  if (texts.length === 0)
    throw new ConfigError("Cannot listen nowhere: listen is an empty list; leave it out for 127.0.0.1:10268");
  const addresses = texts.map((text) => parseAddress("listen", text.trim()));
  for (const [index, address] of addresses.entries()) {
    if (addresses.slice(0, index).some((other) => isSame(other, address)))
      throw new ConfigError(`Cannot listen on "${texts[index]}" (listen): it is named twice`);
  }
  return addresses;
}

/** Port 0 is never the same twice. */
function isSame(one: ListenAddress, other: ListenAddress): boolean {
  return one.port !== 0 && one.port === other.port && one.host === other.host;
}

function serversOf(first: string, more: readonly string[], listen: readonly ListenAddress[]): string[] {
  const servers = [
    ...new Set([first, ...more.map((server, index) => checkedServer(`servers[${index}]`, server.trim()))]),
  ];
  for (const server of servers) {
    const { hostname, port } = new URL(server);
    const host = hostname.replace(/^\[|\]$/g, "");
    const isOwn = listen.some((address) =>
      isSame(address, { host: host === "localhost" ? address.host : host, port: port === "" ? 443 : Number(port) }),
    );
    if (isOwn)
      throw new ConfigError(
        `Cannot use API server "${server}": it is Holdfast's own listener, and every request would come back for ever; give a kubeconfig that names the API server itself`,
      );
  }
  return servers;
}

/** @throws {ConfigError} without the proxy's URL, which may hold a password. */
function checkProxies(servers: readonly string[], proxyFor: (server: string) => string | undefined): void {
  for (const server of servers) {
    const proxy = proxyFor(server);
    if (proxy === undefined) continue;
    const scheme = URL.canParse(proxy) ? new URL(proxy).protocol : "no URL";
    if (scheme !== "http:" && scheme !== "https:")
      throw new ConfigError(
        `Cannot use HTTPS_PROXY for API server "${server}": expected http://HOST:PORT or https://HOST:PORT, found ${scheme}; or name the server in NO_PROXY`,
      );
  }
}

function clientsOf(
  clients: NonNullable<FileConfig["clients"]>,
  options: KubeconfigOptions,
  warnings: string[],
): Config["clients"] {
  return clients.map(({ name, kubeconfig }, index) => {
    if (clients.findIndex((other) => other.name === name) !== index)
      throw new ConfigError(`Cannot use clients[${index}]: name "${name}" is there twice`);
    const loaded = loadKubeconfig(kubeconfig, options);
    warnings.push(...loaded.warnings);
    return { name, credential: loaded.credential };
  });
}

function clientCaOf(flags: ConfigFlags, env: Env, file: FileConfig): string | undefined {
  if (flags.clientCaFile !== undefined) return readCa("--client-ca-file", flags.clientCaFile);
  if (env["HOLDFAST_CLIENT_CA_FILE"] !== undefined)
    return readCa("HOLDFAST_CLIENT_CA_FILE", env["HOLDFAST_CLIENT_CA_FILE"]);
  return file.clientCAFile === undefined ? undefined : readCa("clientCAFile", file.clientCAFile);
}

/** The file that is named, or the well-known one if it is there; else nothing. */
function fileOf(flag: string | undefined, env: Env): FileConfig {
  const path = flag ?? env["HOLDFAST_CONFIG"] ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  return path === undefined ? {} : withPathsFrom(dirname(resolve(path)), readConfigFile(path));
}

/** Paths in the file are meant from its own folder: a unit's working directory is "/". */
function withPathsFrom(folder: string, file: FileConfig): FileConfig {
  const placed = { ...file };
  for (const field of ["kubeconfig", "stateDir", "clientCAFile", "adminSocket"] as const) {
    const path = file[field];
    if (path !== undefined) placed[field] = resolve(folder, path);
  }
  if (file.clients !== undefined)
    placed.clients = file.clients.map((client) => ({ ...client, kubeconfig: resolve(folder, client.kubeconfig) }));
  return placed;
}

function readConfigFile(path: string): FileConfig {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as { code?: string };
    throw new ConfigError(
      `Cannot read configuration "${path}": ${code === "ENOENT" ? "there is no such file" : code === "EACCES" ? "this user may not read it; run as root" : code}`,
      { cause: error },
    );
  }
  let document: unknown;
  try {
    document = Bun.YAML.parse(source);
  } catch {
    throw new ConfigError(`Cannot read configuration "${path}"${syntaxLine(source)}`);
  }
  if (document === null || typeof document !== "object" || Array.isArray(document))
    throw new ConfigError(
      `Cannot use configuration "${path}": it is ${document === null ? "empty" : "no mapping"}; expected apiVersion: holdfast.dev/v1alpha1, kind: HoldfastConfiguration`,
    );
  const repeated = repeatedField(source);
  if (repeated !== undefined)
    throw new ConfigError(
      `Cannot use configuration ${path}:${repeated.line}: field "${repeated.field}" stands there twice`,
    );
  const result = v.safeParse(fileSchema, document);
  if (result.success) return result.output;
  // A misspelt name is also a missing one: the name is what to mend.
  const isUnknown = (issue: v.BaseIssue<unknown>) => issue.type === "strict_object" && issue.expected === "never";
  const issue = result.issues.find(isUnknown) ?? result.issues[0];
  const keys = issue.path?.map(({ key }) => key as string | number) ?? [];
  const place = `Cannot use configuration ${path}:${lineOf(source, keys)}:`;
  if (isUnknown(issue))
    throw new ConfigError(
      `${place} unknown field "${keys.at(-1)}" in ${dotted(keys.slice(0, -1)) || "HoldfastConfiguration"}${suggestion(keys)}`,
    );
  if (issue.received === "undefined")
    throw new ConfigError(`${place} field "${dotted(keys)}" is missing; expected ${expectedOf(issue)}`);
  throw new ConfigError(
    `${place} field "${dotted(keys)}": expected ${expectedOf(issue)}, found ${foundOf(issue.input)}`,
  );
}

/** ["clients", 0, "name"] as "clients[0].name". */
function dotted(keys: readonly (string | number)[]): string {
  return keys
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`))
    .join("")
    .replace(/^\./, "");
}

function expectedOf(issue: v.BaseIssue<unknown>): string {
  if (issue.type === "check") return issue.message;
  // A duration's own type issue says so, for `linger: 300` lacks a unit.
  if (issue.message === "duration") return 'a duration such as "45s", "5m" or "168h"';
  // A missing field's issue is the object's own: it expects the field's name.
  if (issue.received === "undefined")
    return issue.path?.at(-1)?.key === "apiVersion"
      ? '"holdfast.dev/v1alpha1"'
      : issue.path?.at(-1)?.key === "kind"
        ? '"HoldfastConfiguration"'
        : "text";
  return (issue.expected ?? "another shape")
    .replace(/^\((.*)\)$/, "$1")
    .replace("string", "text")
    .replace("Array", "a list")
    .replace("number", "a number")
    .replace("Object", "a mapping")
    .replaceAll(" | ", " or ");
}

function foundOf(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (typeof value === "object") return Array.isArray(value) ? "a list" : "a mapping";
  return JSON.stringify(value);
}

/** The known field that was probably meant, of those that may stand in the same place. */
function suggestion(keys: readonly (string | number)[]): string {
  const field = String(keys.at(-1));
  const { entries } = keys.length === 1 ? fileSchema : keys[0] === "limits" ? limitsSchema : clientSchema;
  const near = Object.keys(entries).find(
    (known) => known.toLowerCase() === field.toLowerCase() || distance(known, field) <= 2,
  );
  return near === undefined ? "" : `, did you mean "${near}"`;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

/** Loopback and link-local, both families. */
const LOCAL = new BlockList();
LOCAL.addSubnet("127.0.0.0", 8, "ipv4");
LOCAL.addSubnet("169.254.0.0", 16, "ipv4");
LOCAL.addAddress("::1", "ipv6");
LOCAL.addSubnet("fe80::", 10, "ipv6");

/**
 * An address to listen on.
 *
 * Only loopback and link-local: what answers with a node's credentials has no
 * business on a network.
 */
export function parseAddress(field: string, text: string): ListenAddress {
  const [, bracketed, plain, portText] = /^(?:\[([^\]]+)\]|([^:]*)):([0-9]{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || portText === undefined || Number(portText) > 65_535)
    throw new ConfigError(
      `Cannot listen on "${text}" (${field}): expected ADDRESS:PORT, such as 127.0.0.1:10268 or [::1]:10268`,
    );
  if (isIP(host) === 0)
    throw new ConfigError(`Cannot listen on "${text}" (${field}): expected an IP address, not a name`);
  if (!LOCAL.check(host.replace(/%.*$/, ""), isIPv6(host) ? "ipv6" : "ipv4"))
    throw new ConfigError(
      `Cannot listen on "${text}" (${field}): only loopback and link-local addresses are allowed, because whoever reaches this port acts near the node's identity`,
    );
  return { host, port: Number(portText) };
}

function checkedServer(field: string, server: string): string {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  const isFit =
    url?.protocol === "https:" &&
    url.pathname === "/" &&
    url.search === "" &&
    url.username === "" &&
    url.password === "";
  if (!isFit) throw new ConfigError(`Cannot use API server (${field}): expected https://HOST:PORT alone`);
  return url.origin;
}

/** The certificates of a CA file; a damaged one would turn every local client away, so it is found now. */
function readCa(origin: string, path: string): string {
  let pem: string;
  try {
    pem = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as { code?: string };
    throw new ConfigError(
      `Cannot read CA file "${path}" (${origin}): ${code === "ENOENT" ? "there is no such file" : code === "EACCES" ? "this user may not read it; run as root" : code}`,
      { cause: error },
    );
  }
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0)
    throw new ConfigError(`Cannot use CA file "${path}" (${origin}): it holds no PEM certificate`);
  for (const [index, block] of blocks.entries()) {
    try {
      new X509Certificate(block);
    } catch {
      throw new ConfigError(
        `Cannot use CA file "${path}" (${origin}): certificate number ${index + 1} of ${blocks.length} cannot be read`,
      );
    }
  }
  return `${blocks.join("\n")}\n`;
}
