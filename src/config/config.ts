/**
 * One Config from file, environment and flags.
 *
 * Precedence: flag, environment (HOLDFAST_*), file, default. The file is
 * strict: a field nobody knows is an error with its line, because a misspelt
 * bound that is silently ignored shows itself months later.
 */

import { isIP } from "node:net";
import * as v from "valibot";
import { systemClock } from "../base/clock.ts";
import { jsonLog, LOG_LEVELS, type LogLevel } from "../base/log.ts";
import { clientSubjectOf, isNode } from "../certificates/client-request.ts";
import type { Credential } from "../kube/credential.ts";
import { placeAt, type Place } from "../kube/place.ts";
import { healthAddress, isSameAddress, listenAddresses, parseAddress, type ListenAddress } from "./address.ts";
import { followCaFile } from "./client-ca.ts";
import { expectedOf, fileOf, type Env } from "./config-file.ts";
import { ConfigError } from "./config-error.ts";
import type { Followed, FollowedState } from "./followed.ts";
import { loadKubeconfig, type Kubeconfig, type KubeconfigOptions } from "./kubeconfig.ts";
import { socketPath, stateDirOf, withoutBlanks } from "./places.ts";
import { proxyForServer } from "./proxy-url.ts";
import { DEFAULT_NODE_AGENTS, limitsOf, limitsSchema, type FileConfig, type Limits } from "./schema.ts";
import { checkProxies, serversOf } from "./servers.ts";
import { tunnelOf, type TunnelConfig } from "./tunnel.ts";

/** Everything `run` needs, checked and resolved. */
export interface Config {
  readonly upstream: UpstreamConfig;
  /** Where local clients connect, TLS. */
  readonly listen: readonly ListenAddress[];
  readonly healthListen: ListenAddress;
  readonly stateDir: string;
  /** Undefined when the path would be too long for a unix socket. */
  readonly adminSocketPath: string | undefined;
  /** The CAs that local client certificates are verified against, as their file has them now, PEM. */
  readonly clientCaPem: () => string;
  /** Credentials for local clients on certificates other than the upstream one's subject, by the certificate's CN. */
  readonly clients: readonly { readonly name: string; readonly credential: Credential }[];
  /** Service accounts, by user name, whose patches of this node's own objects are kept while cut. */
  readonly nodeAgents: readonly string[];
  /** Service accounts, by user name, whose expired tokens are served while cut. */
  readonly expiredTokensFor: readonly string[];
  /** Whether the node's client certificate is ours to renew; else whoever writes the kubeconfig's files renews it. */
  readonly rotatesNodeClient: boolean;
  /** Whether kubelet's serving certificate is asked for here, so that it names the place. */
  readonly servesKubelet: boolean;
  /** Where the API server reaches this node's kubelet by other means than a tunnel of ours; undefined: where kubelet says. */
  readonly place: Place | undefined;
  /** How pods that kubelet starts here come through us; undefined: not at all. */
  readonly podAccess: PodAccessConfig | undefined;
  readonly limits: Limits;
  /** Every file that may be replaced while we run. */
  readonly followed: readonly FollowedState[];
  /** Where the tunnel leads; undefined: there is none. */
  readonly tunnel?: TunnelConfig;
  /** Where the technician's page is served, and by which other names it may be asked; undefined: nowhere. */
  readonly page?: ListenAddress & { readonly hosts: readonly string[] };
  /** What is logged: this and everything more important. Default "info". */
  readonly logLevel: LogLevel;
  /** Nodes that share the control plane; undefined: nobody has said, and this node comes back at once. */
  readonly fleetSize: number | undefined;
  /** Whether the guard may ask if a neighbour is heard; see `witness/witness.ts`. */
  readonly isWitness: boolean;
  /** Whether this device claims its Node, so that a second device of the same identity is kept out. Default false; an image's units say true. */
  readonly claimsNode: boolean;
}

/** Where pods come through us. */
export interface PodAccessConfig {
  /** The cluster address of Service default/kubernetes. */
  readonly serviceAddress: string;
  /** Link-local; pod-way.sh leads the Service's address there. */
  readonly listen: ListenAddress;
}

/** How the API servers are reached. */
export interface UpstreamConfig {
  /** Origins, https only; asked in this order. */
  readonly servers: readonly string[];
  /** The cluster's CAs as their file has them now, PEM. */
  readonly caPem: () => string;
  /** Name to verify in the server's certificate instead of the URL's host. */
  readonly tlsServerName?: string;
  /** The HTTP proxy to reach a server through, if any. */
  readonly proxyFor: (server: string) => string | undefined;
  readonly credential: Credential;
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
  const { clock = systemClock, log = jsonLog() } = options;
  const kubeconfig = loadKubeconfig(kubeconfigPathOf(flags, env, file), { clock, log });
  const warnings = [...kubeconfig.warnings];
  const stateDir = stateDirOf(flags.stateDir, env, file);
  const { listen, healthListen } = addressesOf(flags, env, file);
  const servers = serversOf(kubeconfig.server, env["HOLDFAST_SERVERS"]?.split(",") ?? file.servers ?? [], listen);
  const proxyFor = proxyForServer(kubeconfig.proxyUrl, env);
  checkProxies(servers, proxyFor);
  const clients = clientsOf(file.clients ?? [], { clock, log }, warnings);
  const clientCa = clientCaOf(flags, env, file, { clock, log });
  const { tunnel, followed } = tunnelOf({ file, env, kubeconfig, clock, log });
  const config: Config = {
    upstream: upstreamOf(kubeconfig, servers, proxyFor),
    listen,
    healthListen,
    stateDir,
    adminSocketPath: socketPath(stateDir, env["HOLDFAST_ADMIN_SOCKET"] ?? file.adminSocket, warnings),
    fleetSize: file.fleetSize,
    isWitness: file.witness ?? true,
    claimsNode: claimsNode(env, file),
    logLevel: logLevelOf(env, file),
    ...pageOf(file),
    ...(tunnel === undefined ? {} : { tunnel }),
    clientCaPem: clientCa === undefined ? kubeconfig.caPem : () => clientCa.read(),
    clients: clients.map(({ name, kubeconfig: { credential } }) => ({ name, credential })),
    ...accountsOf(file),
    podAccess: podAccessOf(file, listen),
    ...placeOf(file),
    rotatesNodeClient: rotatesNodeClient(file, kubeconfig.credential),
    followed: [
      kubeconfig.followed,
      ...(clientCa === undefined ? [] : [clientCa]),
      ...clients.map((client) => client.kubeconfig.followed),
      ...followed,
    ],
    limits: limitsOf({ ...file.limits, ...limitsOfEnv(env) }),
  };
  return { config, warnings };
}

/** An image's units say it for the device that comes of it. */
function claimsNode(env: Env, file: FileConfig): boolean {
  const said = env["HOLDFAST_CLAIM_NODE"];
  if (said === undefined) return file.claimNode ?? false;
  if (said === "true" || said === "false") return said === "true";
  throw new ConfigError("Cannot use HOLDFAST_CLAIM_NODE: expected true or false");
}

function addressesOf(flags: ConfigFlags, env: Env, file: FileConfig): Pick<Config, "listen" | "healthListen"> {
  const listen = listenAddresses(
    flags.listen ?? env["HOLDFAST_LISTEN"]?.split(",") ?? [file.listen ?? "127.0.0.1:10268"].flat(),
  );
  const healthListen = healthAddress(
    flags.healthListen ?? env["HOLDFAST_HEALTH_LISTEN"] ?? file.healthListen ?? "127.0.0.1:10267",
    listen,
  );
  return { listen, healthListen };
}

/** It may listen beyond loopback: it gives nothing away without its PIN, and changes nothing. */
function pageOf({ page }: FileConfig): Pick<Config, "page"> {
  if (page === undefined) return {};
  const address = parseAddress("page.listen", page.listen, true);
  return { page: { ...address, hosts: page.hosts ?? [] } };
}

function logLevelOf(env: Env, file: FileConfig): LogLevel {
  const asked = env["HOLDFAST_LOG_LEVEL"];
  if (asked === undefined) return file.logLevel ?? "info";
  const level = LOG_LEVELS.find((one) => one === asked);
  if (level !== undefined) return level;
  throw new ConfigError(`Cannot use HOLDFAST_LOG_LEVEL: expected ${LOG_LEVELS.join(", ")}`);
}

function upstreamOf(
  { caPem, tlsServerName, credential }: Kubeconfig,
  servers: readonly string[],
  proxyFor: UpstreamConfig["proxyFor"],
): UpstreamConfig {
  return { servers, caPem, ...(tlsServerName === undefined ? {} : { tlsServerName }), proxyFor, credential };
}

function kubeconfigPathOf(flags: ConfigFlags, env: Env, file: FileConfig): string {
  const path = flags.kubeconfig ?? env["HOLDFAST_KUBECONFIG"] ?? file.kubeconfig;
  if (path !== undefined) return path;
  throw new ConfigError(
    "Cannot run without a kubeconfig: give one with --kubeconfig FILE, or kubeconfig: FILE in the configuration",
  );
}

function podAccessOf({ podAccess }: FileConfig, others: readonly ListenAddress[]): PodAccessConfig | undefined {
  if (podAccess === undefined) return undefined;
  const { serviceAddress } = podAccess;
  if (isIP(serviceAddress) === 0)
    throw new ConfigError(
      `Cannot use podAccess.serviceAddress: "${serviceAddress.slice(0, 64)}" is no address; see: kubectl get service kubernetes`,
    );
  const listen = parseAddress("podAccess.listen", podAccess.listen);
  if (isIP(listen.host) !== isIP(serviceAddress))
    throw new ConfigError("Cannot use podAccess: serviceAddress and listen are of two families; choose one of each");
  if (listen.port === 0 || others.some((other) => isSameAddress(other, listen)))
    throw new ConfigError("Cannot use podAccess.listen: it needs a port, and an address that listen does not name");
  return { serviceAddress, listen };
}

function rotatesNodeClient({ certificates }: FileConfig, credential: Credential): boolean {
  if (certificates?.rotateNodeClient !== true) return false;
  if (credential.kind === "certificate" && isNode(clientSubjectOf(credential.read().certPem))) return true;
  throw new ConfigError(
    'Cannot use certificates.rotateNodeClient: the kubeconfig holds no client certificate of a node ("system:node:NAME" in "system:nodes"), and no other is renewed by itself',
  );
}

function accountsOf(file: FileConfig): Pick<Config, "nodeAgents" | "expiredTokensFor"> {
  return { nodeAgents: file.nodeAgents ?? DEFAULT_NODE_AGENTS, expiredTokensFor: file.expiredTokensFor ?? [] };
}

function placeOf({ place, certificates }: FileConfig): Pick<Config, "place" | "servesKubelet"> {
  return {
    place: place === undefined ? undefined : placeAt(place.hosts, place.port),
    servesKubelet: certificates?.kubeletServing === true,
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

function clientsOf(
  clients: NonNullable<FileConfig["clients"]>,
  options: KubeconfigOptions,
  warnings: string[],
): { readonly name: string; readonly kubeconfig: Kubeconfig }[] {
  return clients.map(({ name, kubeconfig: path }, index) => {
    if (clients.findIndex((other) => other.name === name) !== index)
      throw new ConfigError(`Cannot use clients[${index}]: name "${name}" is there twice`);
    const kubeconfig = loadKubeconfig(path, options);
    warnings.push(...kubeconfig.warnings);
    return { name, kubeconfig };
  });
}

function clientCaOf(
  flags: ConfigFlags,
  env: Env,
  file: FileConfig,
  options: Required<KubeconfigOptions>,
): Followed<string> | undefined {
  const named = (
    [
      ["--client-ca-file", flags.clientCaFile],
      ["HOLDFAST_CLIENT_CA_FILE", env["HOLDFAST_CLIENT_CA_FILE"]],
      ["clientCAFile", file.clientCAFile],
    ] as const
  ).find(([, path]) => path !== undefined);
  return named === undefined ? undefined : followCaFile(named[0], named[1]!, options);
}
