/**
 * What the guard reads and writes on Kubernetes' objects, by name.
 *
 * What grants protection, or ends it, stands under `node-restriction.kubernetes.io/`:
 * a kubelet may neither give it to itself nor take it from itself (admission
 * plugin NodeRestriction), so a stolen node cannot make itself immortal.
 */

/** The opt-in label of a node; its values are `OPT_IN_VALUES`. */
export const OPT_IN_LABEL = "node-restriction.kubernetes.io/holdfast";

/** `hold` (and `true`, which means the same): as long as the bound says. `witness`: sooner, when no neighbour hears the node. */
export const OPT_IN_VALUES = ["hold", "true", "witness"] as const;

/** Set by the guard when protection has ended, with the reason as value; taken off when the node is heard again. */
export const RELEASED_LABEL = "node-restriction.kubernetes.io/holdfast-released";

/** OpenYurt's older one: "true" holds the node, as long as the common bound says. */
export const OPENYURT_AUTONOMY = "node.beta.openyurt.io/autonomy";

/** OpenYurt's: how long the node is held, as a Go duration; "0" is for ever. */
export const OPENYURT_DURATION = "node.openyurt.io/autonomy-duration";

/** The node condition that tells the truth while Ready is held: True heard, False silent. */
export const REACHABLE_CONDITION = "holdfast.dev/Reachable";

/** The NoSchedule taint of a silent node. */
export const UNREACHABLE_TAINT = "holdfast.dev/unreachable";

/** The node controller's taints, with effect NoExecute, that evict. */
export const EVICTING_TAINTS = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"] as const;

/** The taint by which a person says that a node is dead. */
export const OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service";

/** Where the guard lives, unless told otherwise. */
export const GUARD_NAMESPACE = "holdfast-system";

/** The ConfigMap with the guard's parameters, read by policies and guard alike; see `parameters.ts`. */
export const PARAMETERS_NAME = "holdfast-guard";

/** The one user of all controllers, where they have no credentials of their own. */
export const SHARED_CONTROLLER_USER = "system:kube-controller-manager";

/** Who marks silent nodes and evicts their pods. */
export const NODE_CONTROLLER_USER = "system:serviceaccount:kube-system:node-controller";

/** Who deletes the pods of nodes that are gone. */
export const POD_GC_USER = "system:serviceaccount:kube-system:pod-garbage-collector";

/** Who deletes Node objects because a cloud no longer knows the machine; more can be named in the parameters. */
export const CLOUD_CONTROLLER_USERS = [
  "system:serviceaccount:kube-system:cloud-node-lifecycle-controller",
  "system:serviceaccount:kube-system:cloud-controller-manager",
  "system:cloud-controller-manager",
] as const;

/** Who writes EndpointSlices and Endpoints. */
export const ENDPOINT_CONTROLLER_USERS = [
  "system:serviceaccount:kube-system:endpointslice-controller",
  "system:serviceaccount:kube-system:endpoint-controller",
  "system:serviceaccount:kube-system:endpointslicemirroring-controller",
] as const;

/** The group of every kubelet: it always passes. */
export const NODES_GROUP = "system:nodes";

/** DisruptionTarget's reasons, as the controllers give them. */
export const DISRUPTION_REASONS = { taint: "DeletionByTaintManager", podGc: "DeletionByPodGC" } as const;
