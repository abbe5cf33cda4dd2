/**
 * Which requests the webhook is asked about, and what happens when it cannot answer.
 *
 * User and reason stand in the match conditions, so a person's request is never
 * even sent here: it costs nothing and waits for nobody, whether the webhook is
 * well, slow or gone. What passes the conditions is judged again from the
 * review itself (`judge-pods.ts`, `judge-endpoints.ts`): a condition keeps
 * requests away, it does not vouch for those that come.
 *
 * For a DELETE the API server hands over `oldObject` alone; for CREATE of
 * pods/eviction the object is an Eviction, which names the pod and nothing
 * else. Match conditions see no parameters, so the controllers named in the
 * ConfigMap have to be rendered in.
 */

import {
  CLOUD_CONTROLLER_USERS,
  DISRUPTION_REASONS,
  ENDPOINT_CONTROLLER_USERS,
  NODE_CONTROLLER_USER,
  NODES_GROUP,
  POD_GC_USER,
  SHARED_CONTROLLER_USER,
} from "./names.ts";

/** One entry of a ValidatingWebhookConfiguration or MutatingWebhookConfiguration. */
export interface WebhookRule {
  /** The entry's name, fully qualified and unique. */
  readonly name: string;
  readonly kind: "validating" | "mutating";
  readonly path: WebhookPath;
  readonly operations: readonly string[];
  readonly apiGroups: readonly string[];
  readonly apiVersions: readonly string[];
  readonly resources: readonly string[];
  readonly matchConditions: readonly { readonly name: string; readonly expression: string }[];
  readonly failurePolicy: "Fail" | "Ignore";
  /** Why that failurePolicy. */
  readonly reason: string;
}

/** The paths the webhook answers on; two entries may share one. */
export const WEBHOOK_PATHS = [
  "/validate/pods-delete",
  "/validate/pods-eviction",
  "/validate/pods-status",
  "/mutate/endpointslices",
  "/mutate/endpoints",
] as const;

/** One of the paths. */
export type WebhookPath = (typeof WEBHOOK_PATHS)[number];

/** What all entries have in common. */
export const WEBHOOK_COMMON = {
  admissionReviewVersions: ["v1"],
  matchPolicy: "Equivalent",
  sideEffects: "None",
  timeoutSeconds: 2,
} as const;

/**
 * The namespaceSelector of all entries: kube-system and the guard's own
 * namespace are never sent here, so the webhook cannot stand in the way of
 * what it needs itself to come back.
 */
export function webhookNamespaceSelector(ownNamespace: string) {
  return {
    matchExpressions: [
      { key: "kubernetes.io/metadata.name", operator: "NotIn", values: ["kube-system", ownNamespace] },
    ],
  };
}

/**
 * The entries, with more users who are treated like the node controller.
 *
 * @param extraControllers user names, as in the parameter `controllers`.
 * @throws {RangeError} on a name that is not printable ASCII.
 */
export function webhookRules(extraControllers: readonly string[]): WebhookRule[] {
  const shared = [SHARED_CONTROLLER_USER, POD_GC_USER, ...extraControllers];
  const judged = [NODE_CONTROLLER_USER, ...shared];
  return [
    ...deletionRules(shared),
    {
      ...PODS,
      name: "pods-eviction.guard.holdfast.dev",
      path: "/validate/pods-eviction",
      operations: ["CREATE"],
      resources: ["pods/eviction"],
      matchConditions: [NO_KUBELET, userIn([...judged, ...CLOUD_CONTROLLER_USERS])],
      failurePolicy: "Ignore",
      reason: "No controller evicts this way today: the rule waits for the day one does, and must not cost before.",
    },
    {
      ...PODS,
      name: "pods-status.guard.holdfast.dev",
      path: "/validate/pods-status",
      operations: ["UPDATE"],
      resources: ["pods/status"],
      matchConditions: [
        NO_KUBELET,
        userIn(judged),
        notDeleting("object"),
        { name: "takes-away", expression: TAKES_AWAY },
      ],
      failurePolicy: "Ignore",
      reason:
        "Pods on nodes that are not held must be marked whatever becomes of the guard, or dead pods stay in Services.",
    },
    ...endpointRules(),
  ];
}

const PODS = { kind: "validating", apiGroups: [""], apiVersions: ["v1"] } as const;

/** DELETE of pods: by the node controller itself, and by users who do other things too. */
function deletionRules(shared: readonly string[]): WebhookRule[] {
  const rule = { ...PODS, path: "/validate/pods-delete", operations: ["DELETE"], resources: ["pods"] } as const;
  return [
    {
      ...rule,
      name: "pods-delete.guard.holdfast.dev",
      matchConditions: [
        NO_KUBELET,
        userIn([NODE_CONTROLLER_USER]),
        disrupted([DISRUPTION_REASONS.taint]),
        notDeleting("oldObject"),
      ],
      failurePolicy: "Ignore",
      reason:
        "The taint manager tries five times within a second and then forgets the pod until its node's taints change: what waited for a guard would never be evicted, from nodes that nobody holds too. The policies hold without us.",
    },
    {
      ...rule,
      name: "pods-delete-shared.guard.holdfast.dev",
      matchConditions: [
        NO_KUBELET,
        userIn(shared),
        disrupted([DISRUPTION_REASONS.taint, DISRUPTION_REASONS.podGc]),
        notDeleting("oldObject"),
      ],
      failurePolicy: "Ignore",
      reason:
        "The same user also scales down for people, and a pod whose eviction was refused keeps the condition for a while: no scale-down may wait for the guard.",
    },
  ];
}

/** What withdraws pods from Services. */
function endpointRules(): WebhookRule[] {
  const writers = userIn([...ENDPOINT_CONTROLLER_USERS, SHARED_CONTROLLER_USER]);
  const rule = { kind: "mutating", operations: ["CREATE", "UPDATE"], apiVersions: ["v1"] } as const;
  return [
    {
      ...rule,
      name: "endpointslices.guard.holdfast.dev",
      path: "/mutate/endpointslices",
      apiGroups: ["discovery.k8s.io"],
      resources: ["endpointslices"],
      matchConditions: [NO_KUBELET, writers, { name: "has-unready", expression: UNREADY_SLICE }],
      failurePolicy: "Ignore",
      reason: "A Service whose slices cannot be written is frozen for its pods on all nodes.",
    },
    {
      ...rule,
      name: "endpoints.guard.holdfast.dev",
      path: "/mutate/endpoints",
      apiGroups: [""],
      resources: ["endpoints"],
      matchConditions: [NO_KUBELET, writers, { name: "has-unready", expression: UNREADY_SUBSET }],
      failurePolicy: "Ignore",
      reason: "A Service whose Endpoints cannot be written is frozen for its pods on all nodes.",
    },
  ];
}

const NO_KUBELET = {
  name: "no-kubelet",
  expression: `!has(request.userInfo.groups) || !(${text(NODES_GROUP)} in request.userInfo.groups)`,
};

/** Ready taken from True, DisruptionTarget added, or the phase set to Failed. */
const TAKES_AWAY = [
  `(${conditionOf("oldObject", "Ready", "c.status == 'True'")} && !${conditionOf("object", "Ready", "c.status == 'True'")})`,
  `(!${conditionOf("oldObject", "DisruptionTarget", "c.status == 'True'")} && ${conditionOf("object", "DisruptionTarget", "c.status == 'True'")})`,
  "(has(object.status) && has(object.status.phase) && object.status.phase == 'Failed' && !(has(oldObject.status) && has(oldObject.status.phase) && oldObject.status.phase == 'Failed'))",
].join(" || ");

/** `endpoints` is written as null when there are none. Serving alone is false under publishNotReadyAddresses. */
const UNREADY_SLICE = [
  "has(object.endpoints) && object.endpoints != null && object.endpoints.exists(e, has(e.conditions)",
  "!(has(e.conditions.terminating) && e.conditions.terminating == true)",
  "((has(e.conditions.ready) && e.conditions.ready == false) || (has(e.conditions.serving) && e.conditions.serving == false)))",
].join(" && ");

const UNREADY_SUBSET =
  "has(object.subsets) && object.subsets != null && object.subsets.exists(s, has(s.notReadyAddresses) && s.notReadyAddresses.size() > 0)";

function userIn(users: readonly string[]) {
  const names = [...new Set(users)].map(text);
  const test = names.length === 1 ? `== ${names[0]}` : `in [${names.join(", ")}]`;
  return { name: "controller", expression: `request.userInfo.username ${test}` };
}

function disrupted(reasons: readonly string[]) {
  const test = `c.status == 'True' && has(c.reason) && c.reason in [${reasons.map(text).join(", ")}]`;
  return { name: "disrupted", expression: conditionOf("oldObject", "DisruptionTarget", test) };
}

function notDeleting(variable: "object" | "oldObject") {
  return { name: "not-deleting", expression: `!has(${variable}.metadata.deletionTimestamp)` };
}

function conditionOf(variable: "object" | "oldObject", type: string, test: string): string {
  const conditions = `${variable}.status.conditions`;
  return `(has(${variable}.status) && has(${conditions}) && ${conditions}.exists(c, c.type == ${text(type)} && ${test}))`;
}

/** A CEL string. */
function text(value: string): string {
  if (!/^[\x20-\x7e]*$/.test(value))
    throw new RangeError(`${JSON.stringify(value)} is no user name: expected printable ASCII; correct "controllers"`);
  return `'${value.replace(/[\\']/g, "\\$&")}'`;
}

/** The entries where no further controllers are named. */
export const WEBHOOK_RULES: readonly WebhookRule[] = webhookRules([]);
