/**
 * Who is admitted, and to which place.
 *
 *   proven -> still a node that may? -> its port -> the port is open -> the cluster says so -> welcome
 *
 * The newest tunnel of a node counts: the one before it is most likely
 * half-open, and its agent has left it. A node that is deleted, made anew or
 * loses its label loses its tunnel with the next word of the watch.
 */

import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { ApiError } from "../cluster/api.ts";
import { placeAt, type Place } from "../kube/place.ts";
import type { Admission, AgentTunnel } from "./agent-connection.ts";
import { GatewayListenError } from "./agents.ts";
import { KUBELET_PORT } from "./names.ts";
import type { GatewayObjects, Holder, KnownNode } from "./objects.ts";
import type { Turns } from "./turns.ts";

/** What tunnels are admitted by. */
export interface TunnelParts {
  readonly objects: GatewayObjects;
  readonly doors: { open(nodeName: string, port: number): void; close(nodeName: string): void };
  readonly log: Log;
  readonly metrics: Metrics;
  readonly turns: Turns;
  /** `service`: a ClusterIP for each node. `port`: this address and the node's port. */
  readonly mode: { readonly kind: "service" } | { readonly kind: "port"; readonly address: string };
  /** This replica, as a holder; the port is the node's. */
  readonly self: () => Omit<Holder, "port">;
  /** What the watch of nodes says; undefined: it has not said anything of it. */
  readonly knownNode: (name: string) => KnownNode | undefined;
  /** What the watch of slices says. */
  readonly holderOf: (name: string) => Holder | undefined;
  /** Every node's port is open here, held or not. */
  readonly keepsDoorsOpen: boolean;
}

interface Held {
  readonly tunnel: AgentTunnel;
  readonly uid: string;
}

/** The tunnels of this replica. */
export class Tunnels {
  readonly #held = new Map<string, Held>();
  /** What a node's Service answers to, by the node's UID: asked once. */
  readonly #clusterAddresses = new Map<string, readonly string[]>();
  #published: Promise<void> | undefined;
  readonly #admitted;

  constructor(private readonly parts: TunnelParts) {
    this.#admitted = parts.metrics.counter(
      "holdfast_gateway_agents_total",
      "Agents that came, by what was said to them.",
      {
        answer: ["welcomed", "refused"],
      },
    );
  }

  /** Tunnels that are held here. */
  get size(): number {
    return this.#held.size;
  }

  /** All of them. */
  all(): AgentTunnel[] {
    return [...this.#held.values()].map(({ tunnel }) => tunnel);
  }

  /** A node's, when it is held here and can be used. */
  of(nodeName: string): AgentTunnel | undefined {
    const held = this.#held.get(nodeName);
    return held?.tunnel.session.isClosed === false ? held.tunnel : undefined;
  }

  /** A node has proven who it is. Never throws: what goes wrong is said to its agent. */
  async admit(nodeName: string, tunnel: AgentTunnel): Promise<Admission> {
    const { log } = this.parts;
    try {
      const admission = await this.parts.turns.take(() => this.#admit(nodeName, tunnel));
      if (!("refused" in admission)) {
        this.#admitted.add({ answer: "welcomed" });
        log.info("tunnel open", { node: nodeName, place: placeText(admission.place) });
      }
      return admission;
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof GatewayListenError)) throw error;
      log.warn("cannot give a node its place", { node: nodeName, reason: error.message });
      return { refused: "Unavailable", message: "the gateway cannot make a place for the node just now" };
    }
  }

  /** A tunnel was refused. */
  refused(reason: string, nodeName: string | undefined): void {
    this.#admitted.add({ answer: "refused" });
    this.parts.log.warn("agent refused", { reason, node: nodeName });
  }

  /** A tunnel is gone. */
  gone(nodeName: string, tunnel: AgentTunnel): void {
    if (this.#held.get(nodeName)?.tunnel !== tunnel) return;
    this.#held.delete(nodeName);
    // A port that nobody listens on refuses at once; one that accepts and breaks off would look like kubelet's fault.
    if (!this.parts.keepsDoorsOpen) this.parts.doors.close(nodeName);
    this.parts.log.info("tunnel gone", { node: nodeName });
  }

  /** The watch says how a node is now; undefined: there is none that may have a tunnel. */
  nodeChanged(nodeName: string, node: KnownNode | undefined): void {
    const held = this.#held.get(nodeName);
    if (held === undefined || held.uid === node?.uid) return;
    this.#clusterAddresses.delete(held.uid);
    held.tunnel.close("NodeGone");
    this.gone(nodeName, held.tunnel);
  }

  async #admit(nodeName: string, tunnel: AgentTunnel): Promise<Admission> {
    const { objects, doors, mode, self, log } = this.parts;
    // One the watch does not know may be newer than its last word.
    const node = this.parts.knownNode(nodeName) ?? (await objects.readNode(nodeName));
    if (node === undefined)
      return {
        refused: "UnknownNode",
        message: "there is no such node, or it has no label that lets it have a tunnel",
      };
    const known = this.parts.holderOf(nodeName);
    const port = known?.port ?? (await objects.ports.give(nodeName));
    doors.open(nodeName, port);
    const before = this.#held.get(nodeName);
    this.#held.set(nodeName, { tunnel, uid: node.uid });
    before?.tunnel.close("Replaced");
    try {
      if (mode.kind === "port") await this.#publish(mode.address);
      const place = mode.kind === "service" ? await this.#servicePlace(node, port) : placeAt([mode.address], port);
      const holder = { ...self(), port };
      const isSaid =
        known !== undefined && (Object.keys(holder) as (keyof Holder)[]).every((key) => known[key] === holder[key]);
      if (!isSaid) await objects.writeHolder(node, holder, mode.kind === "service");
      return { place };
    } catch (error) {
      log.warn("tunnel not opened", { node: nodeName });
      this.gone(nodeName, tunnel);
      throw error;
    }
  }

  /** Once: it stays the same as long as this replica lives. */
  async #publish(address: string): Promise<void> {
    this.#published ??= this.parts.objects.ports.publish(address);
    try {
      await this.#published;
    } catch (error) {
      this.#published = undefined;
      throw error;
    }
  }

  async #servicePlace(node: KnownNode, port: number): Promise<Place> {
    let addresses = this.#clusterAddresses.get(node.uid);
    if (addresses === undefined) {
      addresses = await this.parts.objects.writeService(node, port);
      if (addresses.length === 0)
        throw new ApiError(`Cannot use the Service of node "${node.name}": no ClusterIP`, 0, "");
      this.#clusterAddresses.set(node.uid, addresses);
    }
    return placeAt(addresses, KUBELET_PORT);
  }
}

function placeText(place: Place | undefined): string {
  return place === undefined ? "none" : `${place.addresses[0]!.address}:${place.port}`;
}
