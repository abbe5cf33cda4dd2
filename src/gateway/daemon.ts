/**
 * `holdfast gateway`, put together: agents in front, doors behind, and what the
 * cluster says of both.
 *
 * Stateless: which port is whose and who holds whom stands in API objects. Two
 * to many replicas, none of which leads; a node's agent is at one of them, the
 * API server comes to any.
 *
 * At its end a replica asks its agents to go elsewhere, lets streams finish for
 * a while, and is gone.
 */

import { existsSync, readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { hostPortText, type HostPort } from "../base/address.ts";
import type { Log } from "../base/log.ts";
import { Metrics } from "../base/metrics.ts";
import { COMMIT, VERSION } from "../base/version.ts";
import { follow, pause } from "../cluster/follow.ts";
import { collections, METADATA_ONLY, type KubernetesTarget } from "../cluster/kubernetes.ts";
import { startHealth, type HealthServer } from "../health/health.ts";
import { listenForAgents, type AgentListener } from "./agents.ts";
import { ClientAuthority } from "./client-authority.ts";
import { ClusterView } from "./cluster-view.ts";
import { Doors } from "./doors.ts";
import { GatewayObjects } from "./objects.ts";
import { Tunnels, type TunnelParts } from "./tunnels.ts";
import { Turns } from "./turns.ts";

/** What a gateway is made of. */
export interface GatewayOptions {
  readonly target: KubernetesTarget;
  readonly namespace: string;
  /** For agents, TLS; undefined: none. */
  readonly listen: HostPort | undefined;
  /** For agents behind a balancer that ends TLS; undefined: none. */
  readonly listenPlain: HostPort | undefined;
  readonly healthListen: HostPort;
  /** On which nodes' ports and handovers are listened. Port 0 of a handover picks one. */
  readonly doorHost: string;
  readonly handoverPort: number;
  /** This replica's own address, as API server and replicas reach it. */
  readonly podAddress: string;
  readonly mode: TunnelParts["mode"];
  /** The place's address is shared by all replicas: each opens every node's port. */
  readonly isShared: boolean;
  readonly ports: { readonly first: number; readonly last: number };
  readonly nodeSelector: string;
  readonly allowFrom: readonly string[];
  /** By which agents dial it; the first is said in a challenge. */
  readonly names: readonly string[];
  readonly tlsFiles: { readonly cert: string; readonly key: string } | undefined;
  /** Undefined: what the API server publishes of itself. */
  readonly clientCaFile: string | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly limits?: Partial<GatewayLimits>;
}

/** Bounds. */
export interface GatewayLimits {
  /** Streams of one node at once. Default 256. */
  readonly maxStreams: number;
  /** Bytes held for one node. Default 16 MiB. */
  readonly maxHeldBytes: number;
  /** A stream on which nothing moves for so long is ended. Default 4h, kubelet's own bound for a stream. */
  readonly idleMs: number;
  /** How long streams may finish at the end. Default 20 s. */
  readonly drainMs: number;
}

/** A running gateway. */
export interface GatewayDaemon {
  /** Of the listener with TLS; 0 without. */
  readonly port: number;
  readonly plainPort: number;
  readonly healthPort: number;
  /** Settles when everything has ended. */
  readonly ended: Promise<void>;
}

/** Files named on the command line cannot be read. */
export class GatewayFileError extends EdgeError {
  override readonly name = "GatewayFileError";
  readonly code = "FILE";
}

const LIMITS: GatewayLimits = {
  maxStreams: 256,
  maxHeldBytes: 16 * 1024 * 1024,
  idleMs: 4 * 3_600_000,
  drainMs: 20_000,
};
const ADMITTED_AT_ONCE = 16;
const TICK_MS = 1_000;

/**
 * Starts a gateway; it is listening when this settles, and ready when it has read the cluster.
 *
 * @throws {EdgeError} when an address cannot be listened on or files cannot be read.
 */
export async function startGateway(options: GatewayOptions): Promise<GatewayDaemon> {
  const { clock, log, signal, target } = options;
  const limits = { ...LIMITS, ...options.limits };
  const parts = build(options, limits);
  const { authority, doors, objects, tunnels, userAgent, view } = parts;
  await authority.start();
  doors.takeHandovers(options.handoverPort);
  const listeners = new AgentListeners(options, limits, authority, tunnels);
  const health = healthOf(options, parts);
  const client = collections({ target, clock, userAgent, accept: METADATA_ONLY });
  const whole = collections({ target, clock, userAgent });
  const running = [
    follow({ client, clock, log, signal, what: "nodes", path: objects.nodesPath, ...view.nodes }),
    follow({ client: whole, clock, log, signal, what: "places", path: objects.slicesPath, ...view.slices }),
    authority.keep(() => listeners.renew()),
    keepTicking(clock, signal, () => {
      doors.tick();
      listeners.followFiles();
    }),
  ];
  const ending = { listeners, tunnels, doors, health, clock, drainMs: limits.drainMs };
  log.info("gateway started", { identity: parts.identity, port: listeners.port, plainPort: listeners.plainPort });
  return {
    port: listeners.port,
    plainPort: listeners.plainPort,
    healthPort: health.port,
    ended: Promise.all(running).then(() => end(ending)),
  };
}

type GatewayParts = ReturnType<typeof build>;

/** Opens nothing. */
function build(options: GatewayOptions, limits: GatewayLimits) {
  const { clock, log, signal, target, isShared } = options;
  const metrics = new Metrics();
  const identity = `${hostname()}-${crypto.randomUUID().slice(0, 8)}`;
  const userAgent = `holdfast-gateway/${VERSION} (${COMMIT})`;
  const objects = new GatewayObjects({ ...options, userAgent });
  const authority = new ClientAuthority({ target, userAgent, file: options.clientCaFile, clock, log, signal });
  const view: ClusterView = new ClusterView({
    onNode: (name, node) => tunnels.nodeChanged(name, node),
    onHolder: (name, port) => isShared && openDoor(doors, name, port, log),
  });
  const doors: Doors = new Doors({
    host: options.doorHost,
    nowMs: () => clock.monotonicMs(),
    log,
    metrics,
    tunnelOf: (name) => tunnels.of(name),
    // One that names this very replica is yesterday's: its agent is gone.
    handoverOf: (name) => {
      const holder = view.holderOf(name);
      return holder === undefined || holder.identity === identity ? undefined : holder.handover;
    },
    allowFrom: options.allowFrom,
    idleMs: limits.idleMs,
  });
  const { podAddress: address, mode } = options;
  const tunnels: Tunnels = new Tunnels({
    objects,
    doors,
    log,
    metrics,
    turns: new Turns(ADMITTED_AT_ONCE),
    mode,
    self: () => ({ identity, address, handover: hostPortText({ host: address, port: doors.handoverPort }) }),
    knownNode: (name) => view.nodeOf(name),
    holderOf: (name) => view.holderOf(name),
    keepsDoorsOpen: isShared,
  });
  return { metrics, identity, userAgent, objects, authority, view, doors, tunnels };
}

/** Of a node whose tunnel another replica holds. */
function openDoor(doors: Doors, nodeName: string, port: number, log: Log): void {
  try {
    doors.open(nodeName, port);
  } catch (error) {
    log.warn("cannot open a node's port", { node: nodeName, reason: (error as Error).message });
  }
}

/** The listeners for agents, and the files they are opened with. */
class AgentListeners {
  readonly #secure: AgentListener | undefined;
  readonly #plain: AgentListener | undefined;
  #pair: { readonly certPem: string; readonly keyPem: string } | undefined;
  #readAt = "";

  constructor(
    private readonly options: GatewayOptions,
    limits: GatewayLimits,
    authority: ClientAuthority,
    tunnels: Tunnels,
  ) {
    const { clock, listen, listenPlain, names, tlsFiles } = options;
    const common = {
      caPem: () => authority.pem,
      names,
      clock,
      nowMs: () => clock.monotonicMs(),
      wallMs: () => clock.nowMs(),
      limits,
      admit: tunnels.admit.bind(tunnels),
      onGone: tunnels.gone.bind(tunnels),
      onRefused: tunnels.refused.bind(tunnels),
    };
    if (tlsFiles !== undefined) this.#pair = readPair(tlsFiles);
    this.#readAt = this.#changed() ?? "";
    if (listen !== undefined) this.#secure = listenForAgents({ ...common, ...listen, pair: this.#pair });
    if (listenPlain !== undefined) this.#plain = listenForAgents({ ...common, ...listenPlain, pair: undefined });
  }

  get port(): number {
    return this.#secure?.port ?? 0;
  }

  get plainPort(): number {
    return this.#plain?.port ?? 0;
  }

  /** New connections are met with the CAs as they are now. */
  renew(pair = this.#pair): void {
    if (pair === undefined) return;
    this.#secure?.renew(pair);
    this.#pair = pair;
  }

  /** A renewed certificate counts within a second; one that cannot be read leaves the former standing. */
  followFiles(): void {
    const { tlsFiles, log } = this.options;
    const now = this.#changed();
    if (tlsFiles === undefined || now === undefined || now === this.#readAt) return;
    this.#readAt = now;
    try {
      this.renew(readPair(tlsFiles));
      log.info("serving certificate renewed");
    } catch (error) {
      log.warn("serving certificate not renewed", { reason: (error as Error).message });
    }
  }

  close(): void {
    this.#secure?.close();
    this.#plain?.close();
  }

  stop(): void {
    this.#secure?.stop();
    this.#plain?.stop();
  }

  /** When the files were written, as a text to compare. */
  #changed(): string | undefined {
    const { tlsFiles } = this.options;
    if (tlsFiles === undefined || !existsSync(tlsFiles.cert) || !existsSync(tlsFiles.key)) return undefined;
    return `${statSync(tlsFiles.cert).mtimeMs} ${statSync(tlsFiles.key).mtimeMs}`;
  }
}

function readPair({ cert, key }: { readonly cert: string; readonly key: string }) {
  try {
    return { certPem: readFileSync(cert, "utf8"), keyPem: readFileSync(key, "utf8") };
  } catch (cause) {
    const { code = "unreadable", path = cert } = cause as NodeJS.ErrnoException;
    throw new GatewayFileError(`Cannot read "${path}": ${code}; see --tls-cert-file and --tls-key-file`, { cause });
  }
}

function healthOf(
  { healthListen: listen, signal }: GatewayOptions,
  { metrics, view, authority, tunnels, doors }: GatewayParts,
): HealthServer {
  const agents = metrics.gauge("holdfast_gateway_agents", "Tunnels held by this replica.");
  const streams = metrics.gauge("holdfast_gateway_streams", "Connections to nodes under way.");
  return startHealth({
    listen,
    metrics,
    checks: [
      { name: "view", check: () => (view.isSynced ? undefined : "still reading nodes and places") },
      {
        name: "client-ca",
        check: () => (authority.pem === "" ? "the API server's client CA is not known yet" : undefined),
      },
      { name: "stopping", check: () => (signal.aborted ? "is ending" : undefined) },
    ],
    beforeScrape() {
      agents.set(tunnels.size);
      streams.set(doors.count);
    },
  });
}

async function keepTicking(clock: Clock, signal: AbortSignal, tick: () => void): Promise<void> {
  while (!signal.aborted) {
    await pause(clock, TICK_MS, signal);
    tick();
  }
}

interface Ending {
  readonly listeners: AgentListeners;
  readonly tunnels: Tunnels;
  readonly doors: Doors;
  readonly health: HealthServer;
  readonly clock: Clock;
  readonly drainMs: number;
}

async function end({ listeners, tunnels, doors, health, clock, drainMs }: Ending): Promise<void> {
  listeners.close();
  for (const { session } of tunnels.all()) session.goAway();
  const until = clock.monotonicMs() + drainMs;
  const never = new AbortController().signal;
  while (doors.count > 0 && clock.monotonicMs() < until) await pause(clock, 100, never);
  for (const tunnel of tunnels.all()) tunnel.close("GatewayEnds");
  await pause(clock, 100, never);
  doors.stop();
  listeners.stop();
  health.stop();
}
