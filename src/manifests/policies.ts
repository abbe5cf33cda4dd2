/**
 * The first line of the guard: ValidatingAdmissionPolicies on Node objects.
 *
 * They live in the API server, so they hold with no pod of ours running. A cut
 * node keeps Ready=True because the node controller's Unknown is refused, and
 * from that all else follows: no taint, no eviction, no endpoint withdrawn.
 * They deny and never mutate; whoever is not one of the named controllers is
 * not judged, and a kubelet always passes.
 *
 * CEL has no clock. How long a node has been silent is read from what the
 * controller writes itself: its new lastTransitionTime, or the taint's
 * timeAdded, less the last heartbeat in the object. A healthy node's heartbeat
 * may be as old as kubelet's status report interval, so that much is added to
 * every bound. The same judgement stands in `guard/terms.ts` for the webhook; a
 * test in the lab compares them case by case.
 *
 * A missing ConfigMap switches the binding off (parameterNotFoundAction
 * Allow). Deny would refuse every write to every node in its place, kubelets'
 * status included, which is worse than no protection.
 */

import type {
  V1LabelSelector,
  V1MatchCondition,
  V1ValidatingAdmissionPolicy,
  V1ValidatingAdmissionPolicyBinding,
  V1Validation,
  V1Variable,
} from "@kubernetes/client-node";
import {
  CLOUD_CONTROLLER_USERS,
  EVICTING_TAINTS,
  NODE_CONTROLLER_USER,
  NODES_GROUP,
  OPENYURT_AUTONOMY,
  OPENYURT_DURATION,
  OPT_IN_LABEL,
  OPT_IN_VALUES,
  PARAMETERS_NAME,
  RELEASED_LABEL,
  SHARED_CONTROLLER_USER,
} from "../guard/names.ts";
import { DEFAULT_PARAMETERS } from "../guard/parameters.ts";
import { sent, type Wire } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";

/** Names of the policies; a binding has its policy's name. */
export const POLICY_NAMES = {
  ready: "holdfast-node-ready",
  taints: "holdfast-node-taints",
  deletion: "holdfast-node-deletion",
  optIn: "holdfast-opt-in",
  parameters: "holdfast-parameters",
} as const;

const ADMISSION = "admissionregistration.k8s.io/v1";

interface PolicyParts {
  readonly name: string;
  readonly operations: readonly string[];
  readonly resources: readonly string[];
  readonly takesParameters?: boolean;
  readonly resourceNames?: readonly string[];
  readonly namespaceSelector?: Wire<V1LabelSelector>;
  readonly matchConditions?: readonly Wire<V1MatchCondition>[];
  readonly variables?: readonly Wire<V1Variable>[];
  readonly validations: readonly Wire<V1Validation>[];
}

/**
 * All policies, each followed by its binding.
 *
 * @param namespace where the ConfigMap with the parameters is.
 */
export function nodePolicies(namespace: string): KubernetesObject[] {
  return [readyPolicy(), taintPolicy(), deletionPolicy(), optInPolicy(), parametersPolicy(namespace)].flatMap(
    (parts) => [policy(parts), binding(parts, namespace)],
  );
}

/** nodes/status: Ready from True to Unknown. */
function readyPolicy(): PolicyParts {
  return {
    name: POLICY_NAMES.ready,
    operations: ["UPDATE"],
    resources: ["nodes/status"],
    takesParameters: true,
    matchConditions: [
      NO_KUBELET,
      BY_CONTROLLER,
      {
        name: "ready-becomes-unknown",
        expression: `${readyIs("oldObject", "True")} && ${readyIs("object", "Unknown")}`,
      },
    ],
    variables: [
      ...TERMS,
      // What the controller writes is judged against the heartbeat it had before its eyes.
      { name: "seen", expression: timesOf("oldObject", "lastHeartbeatTime") },
      { name: "now", expression: timesOf("object", "lastTransitionTime") },
      BEYOND_BOUND,
    ],
    validations: [denial("its Ready condition stays as it is")],
  };
}

/** nodes: the two NoExecute taints by which the node controller evicts. */
function taintPolicy(): PolicyParts {
  const evicting = `t.effect == 'NoExecute' && t.key in ${list(EVICTING_TAINTS)}`;
  const taints = (variable: string) =>
    `(has(${variable}.spec) && has(${variable}.spec.taints) ? ${variable}.spec.taints.filter(t, ${evicting}) : [])`;
  return {
    name: POLICY_NAMES.taints,
    operations: ["UPDATE"],
    resources: ["nodes"],
    takesParameters: true,
    matchConditions: [
      NO_KUBELET,
      BY_CONTROLLER,
      // One of the two in place of the other, or beside it, does no new harm.
      {
        name: "taint-is-new",
        expression: `${taints("object")}.size() > 0 && ${taints("oldObject")}.size() == 0`,
      },
      { name: "not-ready-by-its-own-word", expression: `!${readyIs("oldObject", "False")}` },
    ],
    variables: [
      ...TERMS,
      { name: "seen", expression: timesOf("oldObject", "lastHeartbeatTime") },
      {
        name: "now",
        expression: `${taints("object")}.filter(t, has(t.timeAdded) && t.timeAdded != null).map(t, t.timeAdded)`,
      },
      BEYOND_BOUND,
    ],
    validations: [denial("it is not tainted for eviction")],
  };
}

/** nodes: deletion by a controller, most of all the cloud's, which no longer finds the machine. */
function deletionPolicy(): PolicyParts {
  return {
    name: POLICY_NAMES.deletion,
    operations: ["DELETE"],
    resources: ["nodes"],
    takesParameters: true,
    matchConditions: [
      NO_KUBELET,
      BY_CONTROLLER,
      { name: "not-ready-by-its-own-word", expression: `!${readyIs("oldObject", "False")}` },
    ],
    variables: [
      ...TERMS,
      { name: "seen", expression: timesOf("oldObject", "lastHeartbeatTime") },
      // Only a Ready that was let go to Unknown tells that the bound has passed.
      {
        name: "now",
        expression: `${readyIs("oldObject", "Unknown")} ? ${timesOf("oldObject", "lastTransitionTime")} : []`,
      },
      BEYOND_BOUND,
    ],
    validations: [denial("its object stays")],
  };
}

/** nodes: the opt-in itself. It takes no parameters, so it holds whatever becomes of the ConfigMap. */
function optInPolicy(): PolicyParts {
  const at = (variable: string, kind: "labels" | "annotations", key: string) =>
    `(${variable} != null && has(${variable}.metadata.${kind}) && ${text(key)} in ${variable}.metadata.${kind} ? ${variable}.metadata.${kind}[${text(key)}] : '')`;
  const label = at("object", "labels", OPT_IN_LABEL);
  const isChanged = (kind: "labels" | "annotations", key: string) =>
    `${at("object", kind, key)} != ${at("oldObject", kind, key)}`;
  const yurt = [OPENYURT_AUTONOMY, OPENYURT_DURATION].map((key) => isChanged("annotations", key)).join(" || ");
  return {
    name: POLICY_NAMES.optIn,
    operations: ["CREATE", "UPDATE"],
    resources: ["nodes", "nodes/status"],
    matchConditions: [
      {
        name: "opt-in-changes",
        expression: [isChanged("labels", OPT_IN_LABEL), yurt].join(" || "),
      },
    ],
    validations: [
      {
        expression: `${label} == '' || ${label} in ${list(OPT_IN_VALUES)} || !(${isChanged("labels", OPT_IN_LABEL)})`,
        message: `label ${OPT_IN_LABEL}: expected one of ${OPT_IN_VALUES.join(", ")}; take the label off to give protection up`,
        reason: "Invalid",
      },
      {
        expression: `!${IS_KUBELET} || !(${yurt})`,
        message: `a kubelet may not change ${OPENYURT_AUTONOMY} or ${OPENYURT_DURATION}: they protect its own node from the control plane; ask an administrator`,
        reason: "Forbidden",
      },
    ],
  };
}

/** configmaps: a value that cannot be read is refused where a person can still see it. */
function parametersPolicy(namespace: string): PolicyParts {
  const data = "(has(object.data) ? object.data : {})";
  const isBound = (value: string) => `(${value} == '0' || ${value}.matches(${text(DURATION)}))`;
  const positive = `VALUE.matches(${text(DURATION)}) && duration(VALUE) >= duration('1s')`;
  const readable = (key: string, test: string, shape: string) => ({
    expression: `!(${text(key)} in ${data}) || ${test.replaceAll("VALUE", `${data}[${text(key)}]`)}`,
    message: `${key}: expected ${shape}`,
    reason: "Invalid",
  });
  const flag = "VALUE in ['true', 'false']";
  return {
    name: POLICY_NAMES.parameters,
    operations: ["CREATE", "UPDATE"],
    resources: ["configmaps"],
    resourceNames: [PARAMETERS_NAME],
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
    validations: [
      {
        expression: `${data}.all(k, !(k == 'bound' || k.startsWith('bound.')) || ${isBound(`${data}[k]`)})`,
        message: 'bound, bound.NODE: expected a duration such as "12h30m", or "0" for ever',
        reason: "Invalid",
      },
      readable("statusReportInterval", positive, 'a duration such as "5m"'),
      readable("silentAfter", positive, 'a duration such as "40s"'),
      readable("openYurtAnnotations", flag, '"true" or "false"'),
      readable("taint", flag, '"true" or "false"'),
      readable("witnesses", "VALUE.matches('^[1-9][0-9]?$')", "a number from 1 to 99"),
    ],
  };
}

/** As `base/units.ts` reads a duration. */
const DURATION = "^([0-9]+([.][0-9]+)?(ms|s|m|h))+$";

const IS_KUBELET = `(has(request.userInfo.groups) && ${text(NODES_GROUP)} in request.userInfo.groups)`;
const NO_KUBELET = { name: "no-kubelet", expression: `!${IS_KUBELET}` };
const USERS = list([NODE_CONTROLLER_USER, SHARED_CONTROLLER_USER, ...CLOUD_CONTROLLER_USERS]);
const BY_CONTROLLER = {
  name: "by-a-controller",
  expression: [
    `request.userInfo.username in ${USERS}`,
    "(params != null && has(params.data) && 'controllers' in params.data && params.data['controllers'].split(',').exists(u, u.trim() == request.userInfo.username))",
  ].join(" || "),
};

/** The terms of the node as it was before the request; see `guard/terms.ts`. */
const TERMS = [
  { name: "data", expression: "params != null && has(params.data) ? params.data : {}" },
  { name: "labels", expression: "has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}" },
  {
    name: "yurt",
    expression: `has(oldObject.metadata.annotations) && !('openYurtAnnotations' in variables.data && variables.data['openYurtAnnotations'] == 'false') ? oldObject.metadata.annotations : {}`,
  },
  {
    name: "optedIn",
    expression: [
      `(${text(OPT_IN_LABEL)} in variables.labels && variables.labels[${text(OPT_IN_LABEL)}] in ${list(OPT_IN_VALUES)})`,
      `${text(OPENYURT_DURATION)} in variables.yurt`,
      `(${text(OPENYURT_AUTONOMY)} in variables.yurt && variables.yurt[${text(OPENYURT_AUTONOMY)}] == 'true')`,
    ].join(" || "),
  },
  { name: "released", expression: `${text(RELEASED_LABEL)} in variables.labels` },
  {
    name: "bound",
    expression: [
      "'bound.' + oldObject.metadata.name in variables.data ? variables.data['bound.' + oldObject.metadata.name]",
      `(${text(OPENYURT_DURATION)} in variables.yurt ? variables.yurt[${text(OPENYURT_DURATION)}]`,
      `('bound' in variables.data ? variables.data['bound'] : ${text(DEFAULT_PARAMETERS.bound)}))`,
    ].join(" : "),
  },
  { name: "interval", expression: durationOf("statusReportInterval") },
  // Unreadable counts as for ever: a typing error must not give protection up.
  {
    name: "isBounded",
    expression: `variables.bound.matches(${text(DURATION)}) && duration(variables.bound) > duration('0s')`,
  },
];

/** Both moments known, and further apart than the bound. */
const BEYOND_BOUND = {
  name: "isBeyondBound",
  expression: [
    "variables.isBounded && variables.seen.size() > 0 && variables.now.size() > 0",
    "timestamp(variables.now[0]) - timestamp(variables.seen[0]) > duration(variables.bound) + variables.interval",
  ].join(" && "),
};

function denial(what: string) {
  const bound = "(variables.isBounded ? 'for ' + variables.bound : 'for as long as it takes')";
  return {
    expression: "!variables.optedIn || variables.released || variables.isBeyondBound",
    message: `Holdfast holds this node: ${what} while it is not heard`,
    messageExpression: [
      "'Holdfast holds node ' + oldObject.metadata.name + ' '",
      bound,
      `${text(`: ${what} while it is not heard. To give protection up: kubectl label node `)}`,
      "oldObject.metadata.name",
      text(` ${OPT_IN_LABEL}-`),
    ].join(" + "),
    reason: "Forbidden",
  };
}

/** Whether the Ready condition has this status. */
function readyIs(variable: "object" | "oldObject", status: "True" | "False" | "Unknown"): string {
  return `(has(${variable}.status) && has(${variable}.status.conditions) && ${variable}.status.conditions.exists(c, c.type == 'Ready' && c.status == '${status}'))`;
}

/** A time of the Ready condition as a list of one, or of none. */
function timesOf(variable: "object" | "oldObject", field: "lastHeartbeatTime" | "lastTransitionTime"): string {
  return `(has(${variable}.status) && has(${variable}.status.conditions) ? ${variable}.status.conditions.filter(c, c.type == 'Ready' && has(c.${field}) && c.${field} != null).map(c, c.${field}) : [])`;
}

function durationOf(key: "statusReportInterval"): string {
  const value = `variables.data[${text(key)}]`;
  return `${text(key)} in variables.data && ${value}.matches(${text(DURATION)}) ? duration(${value}) : duration(${text(DEFAULT_PARAMETERS[key])})`;
}

function policy(parts: PolicyParts): KubernetesObject {
  const { name, operations, resources, takesParameters = false, resourceNames, namespaceSelector } = parts;
  return sent<V1ValidatingAdmissionPolicy>()({
    apiVersion: ADMISSION,
    kind: "ValidatingAdmissionPolicy",
    metadata: { name },
    spec: {
      failurePolicy: "Fail",
      ...(takesParameters ? { paramKind: { apiVersion: "v1", kind: "ConfigMap" } } : {}),
      matchConstraints: {
        ...(namespaceSelector === undefined ? {} : { namespaceSelector }),
        resourceRules: [
          {
            apiGroups: [""],
            apiVersions: ["v1"],
            operations,
            resources,
            ...(resourceNames === undefined ? {} : { resourceNames }),
          },
        ],
      },
      ...(parts.matchConditions === undefined ? {} : { matchConditions: parts.matchConditions }),
      ...(parts.variables === undefined ? {} : { variables: parts.variables }),
      validations: parts.validations,
    },
  });
}

function binding({ name, takesParameters = false }: PolicyParts, namespace: string): KubernetesObject {
  return sent<V1ValidatingAdmissionPolicyBinding>()({
    apiVersion: ADMISSION,
    kind: "ValidatingAdmissionPolicyBinding",
    metadata: { name },
    spec: {
      policyName: name,
      validationActions: ["Deny", "Audit"],
      ...(takesParameters ? { paramRef: { name: PARAMETERS_NAME, namespace, parameterNotFoundAction: "Allow" } } : {}),
    },
  });
}

function list(values: readonly string[]): string {
  return `[${values.map(text).join(", ")}]`;
}

/** A CEL string. */
function text(value: string): string {
  return `'${value.replace(/[\\']/g, "\\$&")}'`;
}
