/**
 * Which pods of this node would come back if it were restarted now, while cut:
 * the shape in which it is told to programs.
 */

import * as v from "valibot";
import type { Gap } from "../kube/pod-needs.ts";

/** As kube/pod-needs.ts has it. */
const gapSchema = v.object({
  kind: v.string(),
  name: v.string(),
  why: v.string(),
});
const podSchema = v.object({
  namespace: v.string(),
  name: v.string(),
  uid: v.string(),
  /** "unknown" where nothing is known to be missing and something cannot be told. */
  comesBack: v.picklist(["yes", "no", "unknown"]),
  missing: v.array(gapSchema),
  unknown: v.array(gapSchema),
});

/** The schema of a coverage report. */
export const coverageSchema = v.object({
  apiVersion: v.literal("holdfast.dev/v1alpha1"),
  kind: v.literal("Coverage"),
  atMs: v.number(),
  /** Without any of these no pod comes back. */
  node: v.array(gapSchema),
  /** Where images were looked for; "" where nobody could be asked. */
  imagesFrom: v.string(),
  pods: v.array(podSchema),
});

/** A coverage report; times in ms since the epoch. */
export type CoverageReport = v.InferOutput<typeof coverageSchema>;
/** One pod of it. */
export type CoveredPod = CoverageReport["pods"][number];

/** How many pods come back, and which do not, in one clause: "11 of 12 pods come back; shop/web lacks image X (not on this machine)". */
export function coverageWords({ node, pods }: CoverageReport): string {
  const [first] = node;
  if (first !== undefined) return `no pod comes back: ${gapWords(first)}`;
  const of = (verdict: CoveredPod["comesBack"]) => pods.filter(({ comesBack }) => comesBack === verdict);
  const [lost, unsure] = [of("no"), of("unknown")];
  const back = `${of("yes").length} of ${pods.length} ${pods.length === 1 ? "pod comes" : "pods come"} back`;
  const named = lost[0] ?? unsure[0];
  if (named === undefined) return `can walk away: ${back}`;
  const isLost = lost.length > 0;
  const gap = gapWords((isLost ? named.missing : named.unknown)[0]!);
  const others = (isLost ? lost : unsure).length - 1;
  const unknown = unsure.length === 0 ? "" : `, ${unsure.length} unknown`;
  return `${back}${unknown}; ${named.namespace}/${named.name} ${isLost ? "lacks" : "needs"} ${gap}${others > 0 ? ` (and ${others} more)` : ""}`;
}

/** "image nginx:1.27 (not on this machine)". */
export function gapWords({ kind, name, why }: Gap): string {
  return `${kind} ${name} (${why})`;
}

/** Whether every pod is known to come back. */
export function isCovered({ node, pods }: CoverageReport): boolean {
  return node.length === 0 && pods.every(({ comesBack }) => comesBack === "yes");
}
