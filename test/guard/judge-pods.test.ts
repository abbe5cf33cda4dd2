/**
 * Which deletions, evictions and status changes are refused: every reason, and people always win.
 */
import { describe, expect, test } from "bun:test";
import type { AdmissionRequest } from "../../src/guard/admission-review.ts";
import type { GuardedNode, GuardedPod } from "../../src/guard/cluster-view.ts";
import { judgePodDelete, judgePodEviction, judgePodStatus, POD_REASONS } from "../../src/guard/judge-pods.ts";
import {
  guardedNode,
  guardedPod,
  NODE_CONTROLLER,
  NOW_MS,
  POD_GC,
  rawPod,
  requestOf,
  SHARED,
  viewOf,
} from "./support.ts";

const DISRUPTED = { Ready: "True", DisruptionTarget: "True" };
const EVICTING = [{ key: "node.kubernetes.io/unreachable", effect: "NoExecute" }];

interface Row {
  readonly what: string;
  readonly judge: typeof judgePodDelete;
  readonly request: Partial<AdmissionRequest>;
  readonly node?: Partial<GuardedNode> | null;
  readonly pod?: Partial<GuardedPod> | null;
  readonly data?: Readonly<Record<string, string>>;
  readonly reason: (typeof POD_REASONS)[number];
}

const deletion = (pod: object, username = NODE_CONTROLLER): Partial<AdmissionRequest> => ({
  oldObject: pod,
  user: { username, groups: [] },
});
const change = (before: object, after: object, username = NODE_CONTROLLER): Partial<AdmissionRequest> => ({
  operation: "UPDATE",
  subresource: "status",
  oldObject: before,
  object: after,
  user: { username, groups: [] },
});
const eviction = (username: string): Partial<AdmissionRequest> => ({
  operation: "CREATE",
  subresource: "eviction",
  object: { kind: "Eviction" },
  user: { username, groups: [] },
});
const held = { boundMs: undefined, via: "label", asksWitnesses: false, released: undefined } as const;

const ROWS: readonly Row[] = [
  { what: "taint eviction", judge: judgePodDelete, request: deletion(rawPod(DISRUPTED)), reason: "held-delete" },
  {
    what: "the shared user, node tainted",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED), SHARED),
    node: { taints: EVICTING },
    reason: "held-delete",
  },
  {
    what: "the shared user scales down, node well",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED), SHARED),
    node: { ready: "True" },
    reason: "node-looks-well",
  },
  {
    what: "taint eviction though the node looks well",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { ready: "True" },
    reason: "held-delete",
  },
  {
    what: "a controller of the parameters",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED), "cloud:one"),
    data: { controllers: "cloud:one" },
    reason: "held-delete",
  },
  {
    what: "PodGC's reason",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { reason: "DeletionByPodGC" }), POD_GC),
    reason: "held-delete",
  },
  {
    what: "preemption by the scheduler's reason",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { reason: "PreemptionByScheduler" })),
    reason: "another-reason",
  },
  {
    what: "no disruption",
    judge: judgePodDelete,
    request: deletion(rawPod({ Ready: "True" })),
    reason: "another-reason",
  },
  {
    what: "a disruption that is over",
    judge: judgePodDelete,
    request: deletion(rawPod({ DisruptionTarget: "False" })),
    reason: "another-reason",
  },
  {
    what: "a person",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED), "alice"),
    reason: "not-a-controller",
  },
  {
    what: "a kubelet that calls itself so",
    judge: judgePodDelete,
    request: { ...deletion(rawPod(DISRUPTED)), user: { username: NODE_CONTROLLER, groups: ["system:nodes"] } },
    reason: "not-a-controller",
  },
  {
    what: "the node is gone",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: null,
    reason: "node-gone",
  },
  {
    what: "not opted in",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { terms: undefined },
    reason: "not-opted-in",
  },
  {
    what: "released",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { terms: { ...held, released: "bound" } },
    reason: "released",
  },
  {
    what: "a person's NoExecute taint",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { taints: [...EVICTING, { key: "maintenance", effect: "NoExecute" }] },
    reason: "tainted-by-person",
  },
  {
    what: "out of service",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { taints: [{ key: "node.kubernetes.io/out-of-service", effect: "NoExecute" }] },
    reason: "tainted-by-person",
  },
  {
    what: "not ready by its own word",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { ready: "False" },
    reason: "not-ready-itself",
  },
  {
    what: "beyond its bound",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { terms: { ...held, boundMs: 1_800_000 } },
    reason: "bound-passed",
  },
  {
    what: "within its bound",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { terms: { ...held, boundMs: 7_200_000 } },
    reason: "held-delete",
  },
  {
    what: "bounded and never seen",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED)),
    node: { terms: { ...held, boundMs: 1 }, lastSeenMs: undefined },
    reason: "held-delete",
  },
  {
    what: "deleted already",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { deletionTimestamp: "2026-11-24T12:00:00Z" })),
    reason: "pod-deleting",
  },
  {
    what: "finished",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { phase: "Succeeded" })),
    reason: "pod-finished",
  },
  {
    what: "failed",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { phase: "Failed" })),
    reason: "pod-finished",
  },
  {
    what: "bound to no node",
    judge: judgePodDelete,
    request: deletion(rawPod(DISRUPTED, { nodeName: "" })),
    reason: "not-bound",
  },
  {
    what: "eviction by a controller",
    judge: judgePodEviction,
    request: eviction(NODE_CONTROLLER),
    reason: "held-eviction",
  },
  {
    what: "eviction by a person's drain",
    judge: judgePodEviction,
    request: eviction("alice"),
    reason: "not-a-controller",
  },
  {
    what: "eviction of a pod nobody knows",
    judge: judgePodEviction,
    request: eviction(NODE_CONTROLLER),
    pod: null,
    reason: "pod-unknown",
  },
  {
    what: "Ready taken away",
    judge: judgePodStatus,
    request: change(rawPod({ Ready: "True" }), rawPod({ Ready: "False" })),
    reason: "held-status",
  },
  {
    what: "Ready dropped",
    judge: judgePodStatus,
    request: change(rawPod({ Ready: "True" }), rawPod({})),
    reason: "held-status",
  },
  {
    what: "marked for eviction",
    judge: judgePodStatus,
    request: change(rawPod({ Ready: "True" }), rawPod(DISRUPTED)),
    reason: "held-disruption",
  },
  {
    what: "set to Failed",
    judge: judgePodStatus,
    request: change(rawPod({}), rawPod({}, { phase: "Failed" }), POD_GC),
    reason: "held-disruption",
  },
  {
    what: "made ready",
    judge: judgePodStatus,
    request: change(rawPod({ Ready: "False" }), rawPod({ Ready: "True" })),
    reason: "another-reason",
  },
  {
    what: "a kubelet's own word",
    judge: judgePodStatus,
    request: change(rawPod({ Ready: "True" }), rawPod({ Ready: "False" }), "system:node:edge"),
    reason: "not-a-controller",
  },
];

function judged({ judge, request, node, pod, data }: Row) {
  const nodes = node === null ? [] : [guardedNode(node)];
  const pods = pod === null ? [] : [guardedPod(pod)];
  return judge(requestOf(request), viewOf(nodes, pods, data), NOW_MS);
}

describe("judgement of pods", () => {
  test.each([...ROWS])("$what: $reason", (row) => {
    const { allowed, reason, message } = judged(row);
    const isRefusal = row.reason.startsWith("held-");
    expect({ reason, allowed }).toEqual({ reason: row.reason, allowed: !isRefusal });
    if (isRefusal) expect(message).toContain('node "edge"');
  });

  test("every reason is reached", () => {
    expect([...new Set(ROWS.map(({ reason }) => reason))].toSorted()).toEqual([...POD_REASONS].toSorted());
  });

  test("a refusal tells a person what to do", () => {
    const { message } = judged(ROWS[0]!);
    expect(message).toContain("kubectl delete pod web -n shop");
    expect(message).toContain("out-of-service");
  });

  test("an object that is no pod is refused with the field's name", () => {
    for (const oldObject of [
      { metadata: 5 },
      { metadata: { name: "x" }, status: { conditions: "none" } },
      null,
      "pod",
      [],
    ])
      expect(() => judgePodDelete(requestOf({ oldObject }), viewOf([guardedNode()]), NOW_MS)).toThrow(
        /request\.oldObject/,
      );
  });
});
