/**
 * Which deletions, evictions and status changes of pods are refused.
 *
 * Refused is only what a controller does on account of a node's silence while
 * that node is held. The match conditions already keep everybody else away
 * (`webhook-rules.ts`); user and reason are judged here again, because a
 * configuration can be edited.
 *
 * A reason alone never condemns: the condition of a refused eviction stays on
 * its pod, and where all controllers share one user a later scale-down for
 * people carries it. So the shared user passes while the node looks well.
 */

import type { V1Pod } from "@kubernetes/client-node";
import * as v from "valibot";
import { reads } from "../kube/wire.ts";
import { readObject, type AdmissionRequest } from "./admission-review.ts";
import type { ClusterView } from "./cluster-view.ts";
import { heldBecause, howToGiveUp, looksWell, NODE_REASONS, standingOf } from "./judge-node.ts";
import {
  CLOUD_CONTROLLER_USERS,
  DISRUPTION_REASONS,
  NODE_CONTROLLER_USER,
  NODES_GROUP,
  POD_GC_USER,
  SHARED_CONTROLLER_USER,
} from "./names.ts";

/** Every reason a verdict on pods may have; the first four refuse. */
export const POD_REASONS = [
  "held-delete",
  "held-eviction",
  "held-status",
  "held-disruption",
  ...NODE_REASONS,
  "node-looks-well",
  "not-a-controller",
  "pod-unknown",
  "pod-deleting",
  "pod-finished",
  "not-bound",
  "another-reason",
] as const;

/** A judgement. */
export interface Verdict {
  readonly allowed: boolean;
  /** Stable; a metric's label. */
  readonly reason: (typeof POD_REASONS)[number];
  /** Of a refusal: a sentence for people. */
  readonly message?: string;
  readonly nodeName?: string;
  /**
   * True: what a person has done a moment ago may not have reached the view
   * yet and would turn the verdict; it is worth a second look.
   */
  readonly mayLag: boolean;
}

type Judge = (request: AdmissionRequest, view: ClusterView, nowMs: number) => Verdict;
type PodFacts = v.InferOutput<typeof podSchema>;

const optionalText = v.nullish(v.string("expected a string"), "");
const podSchema = reads<V1Pod>()(
  v.object(
    {
      metadata: v.object(
        { name: optionalText, namespace: optionalText, deletionTimestamp: v.nullish(v.string("expected a time")) },
        "expected a pod's metadata",
      ),
      spec: v.nullish(v.object({ nodeName: optionalText }, "expected a pod's spec")),
      status: v.nullish(
        v.object(
          {
            phase: optionalText,
            conditions: v.nullish(
              v.array(
                v.object({ type: optionalText, status: optionalText, reason: optionalText }, "expected a condition"),
                "expected a list",
              ),
            ),
          },
          "expected a pod's status",
        ),
      ),
    },
    "expected a pod",
  ),
);

/** DELETE of a pod: taint eviction, and the garbage collector of pods. */
export const judgePodDelete: Judge = (request, view, nowMs) => {
  if (!isJudged(request, view, DELETERS)) return passed("not-a-controller");
  const pod = readObject(podSchema, request.oldObject, "oldObject");
  const reasons: readonly string[] = Object.values(DISRUPTION_REASONS);
  if (!reasons.includes(disruptionOf(pod) ?? "")) return passed("another-reason");
  return judgeByNode({ request, view, nowMs, pod: factsOf(pod), refusal: "held-delete", mayLag: true });
};

/** CREATE of pods/eviction: the object names the pod, and only the view knows more. */
export const judgePodEviction: Judge = (request, view, nowMs) => {
  if (!isJudged(request, view, EVICTORS)) return passed("not-a-controller");
  const pod = view.pod(request.namespace, request.name);
  if (pod === undefined) return passed("pod-unknown");
  return judgeByNode({ request, view, nowMs, pod, refusal: "held-eviction", mayLag: true });
};

/** UPDATE of pods/status: Ready taken from True, DisruptionTarget added, phase set to Failed. */
export const judgePodStatus: Judge = (request, view, nowMs) => {
  if (!isJudged(request, view, DELETERS)) return passed("not-a-controller");
  const before = readObject(podSchema, request.oldObject, "oldObject");
  const after = readObject(podSchema, request.object, "object");
  const judge = (refusal: "held-disruption" | "held-status", mayLag: boolean) =>
    judgeByNode({ request, view, nowMs, pod: factsOf(before), refusal, mayLag });
  const reasons: readonly string[] = Object.values(DISRUPTION_REASONS);
  // The step before a deletion: who cannot mark a pod does not delete it.
  if (disruptionOf(before) === undefined && reasons.includes(disruptionOf(after) ?? ""))
    return judge("held-disruption", true);
  if (before.status?.phase !== "Failed" && after.status?.phase === "Failed") return judge("held-disruption", true);
  // No second look: the node controller marks all pods of a node one after the other and comes again in 5 s.
  if (isTrue(before, "Ready") && !isTrue(after, "Ready")) return judge("held-status", false);
  return passed("another-reason");
};

const DELETERS = new Set<string>([NODE_CONTROLLER_USER, POD_GC_USER, SHARED_CONTROLLER_USER]);
const EVICTORS = new Set<string>([...DELETERS, ...CLOUD_CONTROLLER_USERS]);
/** Whose requests are about nodes and nothing else, whatever the node looks like. */
const SINGLE_MINDED = new Set<string>([NODE_CONTROLLER_USER, POD_GC_USER]);

interface Case {
  readonly request: AdmissionRequest;
  readonly view: ClusterView;
  readonly nowMs: number;
  readonly pod: { readonly nodeName: string; readonly phase: string; readonly isDeleting: boolean };
  readonly refusal: "held-delete" | "held-eviction" | "held-status" | "held-disruption";
  readonly mayLag: boolean;
}

function judgeByNode({ request, view, nowMs, pod, refusal, mayLag }: Case): Verdict {
  const { nodeName } = pod;
  if (nodeName === "") return passed("not-bound");
  if (pod.isDeleting) return passed("pod-deleting", nodeName);
  if (pod.phase === "Succeeded" || pod.phase === "Failed") return passed("pod-finished", nodeName);
  const standing = standingOf(view, nodeName, nowMs);
  if (!standing.isHeld) return passed(standing.reason, nodeName);
  if (looksWell(standing.node) && !SINGLE_MINDED.has(request.user.username))
    return { ...passed("node-looks-well", nodeName), mayLag: true };
  const { namespace, name } = request;
  const message = `Cannot ${DEED[refusal]} pod "${namespace}/${name}": ${heldBecause(standing.node, nowMs)}; a person may delete it: kubectl delete pod ${name} -n ${namespace}; ${howToGiveUp(nodeName)}`;
  return { allowed: false, reason: refusal, message, nodeName, mayLag };
}

const DEED = {
  "held-delete": "delete",
  "held-eviction": "evict",
  "held-status": "mark as not ready",
  "held-disruption": "mark for deletion",
} as const;

/** A kubelet is never judged, whatever its name. */
function isJudged({ user }: AdmissionRequest, view: ClusterView, users: ReadonlySet<string>): boolean {
  if (user.groups.includes(NODES_GROUP)) return false;
  return users.has(user.username) || view.parameters.controllers.includes(user.username);
}

function passed(reason: Verdict["reason"], nodeName?: string): Verdict {
  return { allowed: true, reason, mayLag: false, ...(nodeName === undefined ? {} : { nodeName }) };
}

function factsOf({ metadata, spec, status }: PodFacts): Case["pod"] {
  return {
    nodeName: spec?.nodeName ?? "",
    phase: status?.phase ?? "",
    isDeleting: typeof metadata.deletionTimestamp === "string",
  };
}

function isTrue({ status }: PodFacts, type: string): boolean {
  return (status?.conditions ?? []).some((condition) => condition.type === type && condition.status === "True");
}

/** The reason of a DisruptionTarget that is True. */
function disruptionOf({ status }: PodFacts): string | undefined {
  return (status?.conditions ?? []).find(({ type, status: value }) => type === "DisruptionTarget" && value === "True")
    ?.reason;
}
