/**
 * Whether what the control plane does to a node's pods is refused, judged from the node alone.
 *
 * People win by what they write on the node: a NoExecute taint of their own or
 * the out-of-service taint. So does kubelet's own word: a node that says of
 * itself that it is not ready is not cut, it is ill.
 */

import { formatDuration } from "../base/units.ts";
import { isHeld, type ClusterView, type GuardedNode } from "./cluster-view.ts";
import { EVICTING_TAINTS, OUT_OF_SERVICE_TAINT } from "./names.ts";

/** Why something is let through on account of its node. */
export const NODE_REASONS = [
  "node-gone",
  "not-opted-in",
  "released",
  "tainted-by-person",
  "not-ready-itself",
  "bound-passed",
] as const;

/** How a node stands: held, with its object, or the reason why not. */
export type NodeStanding =
  | { readonly isHeld: true; readonly node: GuardedNode }
  | { readonly isHeld: false; readonly reason: (typeof NODE_REASONS)[number] };

/** Judges a node. */
export function standingOf(view: ClusterView, nodeName: string, nowMs: number): NodeStanding {
  const node = view.node(nodeName);
  const no = (reason: (typeof NODE_REASONS)[number]) => ({ isHeld: false, reason }) as const;
  if (node === undefined) return no("node-gone");
  if (node.terms === undefined) return no("not-opted-in");
  if (node.terms.released !== undefined) return no("released");
  if (node.taints.some(isByPerson)) return no("tainted-by-person");
  if (node.ready === "False") return no("not-ready-itself");
  return isHeld(node, nowMs) ? { isHeld: true, node } : no("bound-passed");
}

/** Whether the node shows no sign of silence: Ready, and none of the taints that evict for it. */
export function looksWell(node: GuardedNode): boolean {
  return node.ready === "True" && !node.taints.some(({ key, effect }) => effect === "NoExecute" && isEvicting(key));
}

/** For people: which node, silent since when, for how long it is held. */
export function heldBecause(node: GuardedNode, nowMs: number): string {
  const { name, hearing, lastSeenMs, terms } = node;
  const since =
    lastSeenMs === undefined
      ? "has not been heard since the guard started"
      : `was last heard at ${new Date(lastSeenMs).toISOString()} (${formatDuration(nowMs - lastSeenMs)} ago)`;
  const silence = hearing === "heard" ? "is being heard" : since;
  const bound = terms?.boundMs === undefined ? "without a bound" : `for up to ${formatDuration(terms.boundMs)}`;
  return `node "${name}" ${silence} and is held ${bound}`;
}

/** For people: how the whole node is given up. */
export function howToGiveUp(nodeName: string): string {
  return `to give the node up: kubectl taint node ${nodeName} ${OUT_OF_SERVICE_TAINT}=nodeshutdown:NoExecute`;
}

function isByPerson({ key, effect }: { readonly key: string; readonly effect: string }): boolean {
  return key === OUT_OF_SERVICE_TAINT || (effect === "NoExecute" && !isEvicting(key));
}

function isEvicting(key: string): boolean {
  return (EVICTING_TAINTS as readonly string[]).includes(key);
}
