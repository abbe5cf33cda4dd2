/**
 * What the guard knows of the cluster at this moment, as its rules ask for it.
 *
 * Filled by watches on nodes, leases, pods and the parameters. It says nothing
 * before all of them have been read once: `isSynced`.
 */

import type { GuardParameters } from "./parameters.ts";
import type { HoldTerms } from "./terms.ts";

/** A taint, as far as it matters here. */
export interface Taint {
  readonly key: string;
  readonly effect: string;
}

/** A node. */
export interface GuardedNode {
  readonly name: string;
  readonly uid: string;
  /** Undefined: it has not opted in. */
  readonly terms: HoldTerms | undefined;
  /** Status of its Ready condition as the API server has it; undefined when there is none. */
  readonly ready: "True" | "False" | "Unknown" | undefined;
  readonly taints: readonly Taint[];
  /** Whether its lease is being renewed; "unknown" until that could be observed. */
  readonly hearing: "heard" | "silent" | "unknown";
  /** When it was last heard, ms since the epoch, by the guard's clock; undefined if never. */
  readonly lastSeenMs: number | undefined;
}

/** A pod bound to a node. */
export interface GuardedPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly nodeName: string;
  readonly phase: string;
  readonly isDeleting: boolean;
  readonly ready: boolean;
  readonly containersReady: boolean;
  /**
   * The reason of its Ready condition; undefined when empty. A kubelet gives one with every
   * Ready=False, the node controller flips the status alone: that tells the two apart.
   */
  readonly readyReason: string | undefined;
  /** The reason of a DisruptionTarget condition that is True. */
  readonly disruption: string | undefined;
}

/** The view. */
export interface ClusterView {
  readonly isSynced: boolean;
  readonly parameters: GuardParameters;
  node(name: string): GuardedNode | undefined;
  nodes(): Iterable<GuardedNode>;
  pod(namespace: string, name: string): GuardedPod | undefined;
  podsOn(nodeName: string): Iterable<GuardedPod>;
}

/**
 * Whether a node is under protection now: opted in, not released, and not
 * silent for longer than its bound.
 *
 * @param nowMs by the same clock as `lastSeenMs`.
 */
export function isHeld(node: GuardedNode, nowMs: number): boolean {
  const { terms, lastSeenMs } = node;
  if (terms === undefined || terms.released !== undefined) return false;
  if (terms.boundMs === undefined || lastSeenMs === undefined) return true;
  return nowMs - lastSeenMs <= terms.boundMs;
}
