/**
 * The tunnel's agent as a part: dialled with the node's own certificate, opened
 * to kubelet alone, told of in `status`, conditions, metrics and the log.
 */

import * as v from "valibot";
import type { HostPort } from "../base/address.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { PlaceSource } from "../kube/place.ts";
import { nodeOf } from "../node/own-node.ts";
import { lastOwnNode } from "../node/own-pods.ts";
import { Agent } from "../tunnel/agent.ts";
import type { FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

/** The tunnel as the daemon sees it. */
export interface Tunnel extends Part {
  /** Where the API server can dial this node; undefined without a tunnel. */
  readonly source: PlaceSource | undefined;
  readonly state: () => StatusReport["tunnel"];
}

const KUBELET_PORT = 10_250;

const nodeSchema = v.object({
  status: v.object({
    addresses: v.nullish(v.array(v.object({ type: v.string(), address: v.string() })), []),
    daemonEndpoints: v.nullish(v.object({ kubeletEndpoint: v.nullish(v.object({ Port: v.number() })) })),
  }),
});

/** Builds it; it does nothing where the configuration has none. */
export function buildTunnel(ground: Ground, over: Pick<FrontGround, "copies" | "node">): Tunnel {
  const { config, clock, conditions, log, metrics, random, signal } = ground;
  const { tunnel, upstream } = config;
  const { credential } = upstream;
  if (tunnel === undefined || credential.kind !== "certificate")
    return { name: "tunnel", source: undefined, state: () => undefined };
  const agent = new Agent({
    ...tunnel,
    pair: () => credential.read(),
    proxyFor: upstream.proxyFor,
    targets: () => kubeletOf(config, over),
    clock,
    log,
    random,
    signal,
    mayDial: () => over.node.holder?.isOurs !== false,
    onStream: ({ bytesIn, bytesOut, end }) => metrics.tunnelStream(bytesOut, bytesIn, end),
    onFinding(finding) {
      if (finding === undefined) return conditions.clear("TunnelDown");
      conditions.raise("TunnelDown", {
        ...finding,
        next: "Look after the gateway: kubectl -n holdfast-system logs deploy/holdfast-gateway; or, on this node, tunnel: off",
      });
    },
  });
  return {
    name: "tunnel",
    source: agent,
    state: () => agent.state,
    start: () => agent.start(),
    drain: () => agent.stop(),
  };
}

/** Kubelet binds to all addresses, to loopback or to the node's own: as it said itself, else its usual port. */
function kubeletOf({ upstream }: Ground["config"], { copies }: Pick<FrontGround, "copies">): HostPort[] {
  const node = nodeOf(upstream.credential);
  const bytes = node === undefined ? undefined : lastOwnNode(copies.scopes, node);
  const read = bytes === undefined ? undefined : v.safeParse(nodeSchema, parsed(bytes));
  const status = read?.success === true ? read.output.status : undefined;
  const port = status?.daemonEndpoints?.kubeletEndpoint?.Port ?? KUBELET_PORT;
  const own = (status?.addresses ?? []).filter(({ type }) => type === "InternalIP").map(({ address }) => address);
  return ["127.0.0.1", ...own].map((host) => ({ host, port }));
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    return undefined;
  }
}
