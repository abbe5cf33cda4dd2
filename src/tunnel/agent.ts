/**
 * The node's end of the tunnel: one link to one of the gateways, kept up, and
 * through it one target: kubelet's own port on this node. The gateway says that
 * a stream begins and nothing else; there is no way for it to name another.
 *
 * After a loss the next gateway is tried at once, with a little chance so that
 * the agents of a replica that died do not come back in one instant; what fails
 * is tried later and later. The place is shown as long as a link stands, and a
 * while longer: a gateway's restart is no reason to write a node's addresses
 * twice.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { isSamePlace, type Place, type PlaceSource } from "../kube/place.ts";
import { KubeletDoor, type KubeletDoorParts } from "./kubelet-door.ts";
import { openGatewayLink, TunnelError, type GatewayLink } from "./gateway-link.ts";

/** What an agent needs. */
export interface AgentParts extends Pick<KubeletDoorParts, "targets" | "onStream"> {
  /** https://HOST:PORT each. */
  readonly gateways: readonly string[];
  /** As the file has it now, PEM. */
  readonly caPem: () => string;
  /** The node's client certificate as it is now. */
  readonly pair: () => { readonly certPem: string; readonly keyPem: string };
  readonly proxyFor: (server: string) => string | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  readonly signal: AbortSignal;
  readonly limits?: Partial<AgentLimits>;
  /** Whether this device may stand for the node; asked before each dial and every ten seconds. Default: it may. */
  readonly mayDial?: () => boolean;
  /** What hinders it, one word and a message; undefined when the tunnel stands. */
  readonly onFinding: (finding: { readonly reason: string; readonly message: string } | undefined) => void;
}

/** Bounds. */
export interface AgentLimits {
  /** Streams at once. Default 256. */
  readonly maxStreams: number;
  /** Bytes held for all of them. Default 8 MiB. */
  readonly maxHeldBytes: number;
  /** A stream on which nothing moves for so long is ended. Default 4h. */
  readonly idleMs: number;
}

/** How the tunnel stands, for `status`. */
export interface TunnelState {
  readonly state: "connecting" | "open";
  /** The gateway it leads to; the last one that was tried while there is none. */
  readonly gateway: string;
  readonly sinceMs: number;
  readonly place?: string;
  readonly streams: number;
  readonly roundTripMs?: number;
  /** Why it does not stand. */
  readonly problem?: string;
}

const LIMITS: AgentLimits = { maxStreams: 256, maxHeldBytes: 8 * 1024 * 1024, idleMs: 4 * 3_600_000 };
/** The first tries after a loss, spread over this. */
const SOON_MS = 500;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 30_000;
/** A link that lived so long was a good one: the next try is soon. */
const GOOD_MS = 10_000;
/** The place is shown so long after the last link. */
const PLACE_LINGERS_MS = 10_000;
/** A finding is told after so many tries: one alone is a gateway's restart. */
const TRIES_BEFORE_FINDING = 3;
const TICK_MS = 10_000;
/** The node may be known for ours at any moment. */
const NOT_OURS_RETRY_MS = 1_000;

/** The agent. */
export class Agent implements PlaceSource {
  readonly #door: KubeletDoor;
  readonly #listeners = new Set<() => void>();
  readonly #limits: AgentLimits;
  #link: GatewayLink | undefined;
  #place: Place | undefined;
  #cancelLinger = () => {};
  #cancelRetry = () => {};
  #cancelTick = () => {};
  #at: number;
  #gateway: string;
  #sinceMs: number;
  #failures = 0;
  #problem: string | undefined;
  #isStopped = false;

  constructor(private readonly parts: AgentParts) {
    this.#limits = { ...LIMITS, ...parts.limits };
    const { clock, log, targets, onStream } = parts;
    this.#door = new KubeletDoor({ clock, log, targets, onStream, idleMs: this.#limits.idleMs });
    this.#at = Math.floor(parts.random() * parts.gateways.length);
    this.#gateway = parts.gateways[this.#at]!;
    this.#sinceMs = clock.nowMs();
  }

  /** Begins; never waits for a gateway. */
  start(): void {
    void this.#connect();
    const tick = () => {
      this.#door.tick();
      if (this.parts.mayDial?.() === false) this.#link?.close("AgentEnds");
      this.#cancelTick = this.parts.clock.after(TICK_MS, tick);
    };
    tick();
  }

  /** Ends the link and every stream. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelRetry();
    this.#cancelLinger();
    this.#cancelTick();
    this.#link?.close("AgentEnds");
    this.#door.stop();
    this.#show(undefined);
  }

  current(): Place | undefined {
    return this.#place;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** How it stands. */
  get state(): TunnelState {
    const place = this.#place;
    const roundTripMs = this.#link?.roundTripMs;
    return {
      state: this.#link === undefined ? "connecting" : "open",
      gateway: this.#gateway,
      sinceMs: this.#sinceMs,
      streams: this.#door.count,
      ...(place === undefined ? {} : { place: `${place.addresses[0]!.address}:${place.port}` }),
      ...(roundTripMs === undefined ? {} : { roundTripMs }),
      ...(this.#problem === undefined ? {} : { problem: this.#problem }),
    };
  }

  async #connect(): Promise<void> {
    if (this.#isStopped) return;
    const { parts } = this;
    if (parts.mayDial?.() === false) return this.#retry(NOT_OURS_RETRY_MS);
    const gateway = parts.gateways[this.#at]!;
    this.#at = (this.#at + 1) % parts.gateways.length;
    this.#gateway = gateway;
    const startedMs = parts.clock.monotonicMs();
    let own: GatewayLink | undefined;
    try {
      own = await openGatewayLink({
        gateway,
        caPem: parts.caPem(),
        pair: parts.pair(),
        proxy: parts.proxyFor(gateway),
        clock: parts.clock,
        limits: this.#limits,
        signal: parts.signal,
        accept: (stream) => this.#door.open(stream),
        onGoAway: () => this.#left(own, "GatewayEnds", startedMs),
        onGone: (reason) => this.#left(own, reason, startedMs),
      });
      this.#welcomed(own, gateway);
    } catch (error) {
      this.#failed(gateway, error);
    }
  }

  #welcomed(link: GatewayLink, gateway: string): void {
    const { clock, log, onFinding } = this.parts;
    if (this.#isStopped) return link.close("AgentEnds");
    this.#link = link;
    this.#gateway = gateway;
    this.#sinceMs = clock.nowMs();
    this.#failures = 0;
    this.#problem = undefined;
    this.#cancelLinger();
    onFinding(undefined);
    this.#show(link.place);
    log.info("tunnel open", { gateway, place: this.state.place });
  }

  /** The link is gone, or about to: another one is wanted. Streams of one that is about to go on. */
  #left(link: GatewayLink | undefined, reason: string, startedMs: number): void {
    if (link === undefined || this.#link !== link) return;
    const { clock, log, random } = this.parts;
    this.#link = undefined;
    this.#sinceMs = clock.nowMs();
    log.warn("tunnel lost", { gateway: this.#gateway, reason });
    this.#cancelLinger = clock.after(PLACE_LINGERS_MS, () => this.#show(undefined));
    const isGood = clock.monotonicMs() - startedMs > GOOD_MS;
    this.#retry(isGood ? random() * SOON_MS : this.#backoffMs());
  }

  #failed(gateway: string, error: unknown): void {
    if (this.#isStopped) return;
    const { log, onFinding } = this.parts;
    const { reason, message } =
      error instanceof TunnelError ? error : { reason: "Unexpected", message: (error as Error).name };
    this.#failures++;
    this.#problem = message;
    // Once for each gateway, then only what is new: a long cut is one line.
    if (this.#failures <= this.parts.gateways.length) log.warn("no tunnel", { gateway, reason, message });
    if (this.#failures >= TRIES_BEFORE_FINDING) onFinding({ reason, message });
    this.#retry(this.#backoffMs());
  }

  #backoffMs(): number {
    const { random, gateways } = this.parts;
    // One round over all gateways counts as one failure.
    const rounds = Math.floor(this.#failures / gateways.length);
    return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(rounds, 10)) * (0.5 + random());
  }

  #retry(delayMs: number): void {
    if (this.#isStopped) return;
    this.#cancelRetry();
    this.#cancelRetry = this.parts.clock.after(delayMs, () => void this.#connect());
  }

  #show(place: Place | undefined): void {
    if (isSamePlace(this.#place, place)) return;
    this.#place = place;
    for (const listener of this.#listeners) listener();
  }
}
