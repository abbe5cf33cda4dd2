/**
 * What stands in /metrics beside the counters: how the nodes stand at the moment of the scrape.
 */

import { isHeld, type GuardedNode } from "./cluster-view.ts";
import type { GuardGround } from "./ground.ts";

const STATES = ["not-opted-in", "held", "held-silent", "released", "bound-passed"] as const;

/** Makes them. @returns to be called before every scrape. */
export function gauges({ metrics, view, leader, clock }: GuardGround): () => void {
  const nodes = metrics.gauge("holdfast_guard_nodes", "Nodes by how they stand.", { state: [...STATES] });
  const pods = metrics.gauge("holdfast_guard_pods", "Pods that are watched.");
  const leads = metrics.gauge("holdfast_guard_leader", "1 on the replica that writes.");
  const synced = metrics.gauge("holdfast_guard_synced", "1 when the cluster has been read.");
  const parameters = metrics.gauge(
    "holdfast_guard_parameters_present",
    "0 when the ConfigMap is gone and the policies on nodes are asleep.",
  );
  return () => {
    const counts = new Map<string, number>();
    for (const node of view.nodes()) {
      const state = stateOf(node, clock.nowMs());
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
    for (const state of STATES) nodes.set(counts.get(state) ?? 0, { state });
    pods.set(view.counts.pods);
    leads.set(leader.isLeader ? 1 : 0);
    synced.set(view.isSynced ? 1 : 0);
    parameters.set(view.hasParameters ? 1 : 0);
  };
}

function stateOf(node: GuardedNode, nowMs: number): (typeof STATES)[number] {
  if (node.terms === undefined) return "not-opted-in";
  if (node.terms.released !== undefined) return "released";
  if (!isHeld(node, nowMs)) return "bound-passed";
  return node.hearing === "silent" ? "held-silent" : "held";
}
