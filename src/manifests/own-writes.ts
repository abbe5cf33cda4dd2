/**
 * The policy that holds the guard to its own fields.
 *
 * A role can say "patch nodes" and no less; whoever took over the guard could
 * taint, label or uncordon every node with it. So the API server refuses what
 * the guard has no reason to write: it may set one label, one taint, one
 * condition and its own annotations on a node, and one condition on a pod.
 */

import type {
  V1ValidatingAdmissionPolicy,
  V1ValidatingAdmissionPolicyBinding,
  V1Validation,
} from "@kubernetes/client-node";
import { RELEASED_LABEL, REACHABLE_CONDITION, UNREACHABLE_TAINT } from "../guard/names.ts";
import { sent, type Wire } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";
import { GUARD_NAME } from "./parts.ts";

/** Name of the policy and of its binding. */
export const OWN_WRITES_POLICY = "holdfast-guard-own-writes";

const ADMISSION = "admissionregistration.k8s.io/v1";

/** The policy and its binding. */
export function ownWritesPolicy(namespace: string): KubernetesObject[] {
  const user = `system:serviceaccount:${namespace}:${GUARD_NAME}`;
  return [
    sent<V1ValidatingAdmissionPolicy>()({
      apiVersion: ADMISSION,
      kind: "ValidatingAdmissionPolicy",
      metadata: { name: OWN_WRITES_POLICY },
      spec: {
        failurePolicy: "Fail",
        matchConstraints: {
          resourceRules: [
            {
              apiGroups: [""],
              apiVersions: ["v1"],
              operations: ["UPDATE"],
              resources: ["nodes", "nodes/status", "pods/status"],
            },
          ],
        },
        matchConditions: [{ name: "by-the-guard", expression: `request.userInfo.username == '${user}'` }],
        validations: VALIDATIONS,
      },
    }),
    sent<V1ValidatingAdmissionPolicyBinding>()({
      apiVersion: ADMISSION,
      kind: "ValidatingAdmissionPolicyBinding",
      metadata: { name: OWN_WRITES_POLICY },
      spec: { policyName: OWN_WRITES_POLICY, validationActions: ["Deny", "Audit"] },
    }),
  ];
}

/** Keys that `allowed` does not name are there before and after, with the same value. */
function sameBut(path: string, allowed: string): string {
  const map = (variable: string) => `(has(${variable}.${path}) ? ${variable}.${path} : {})`;
  const kept = (from: string, to: string) =>
    `${map(from)}.all(k, ${allowed} || (k in ${map(to)} && ${map(to)}[k] == ${map(from)}[k]))`;
  return `${kept("object", "oldObject")} && ${kept("oldObject", "object")}`;
}

function sameList(parent: string, field: string, counted: string): string {
  const elements = (variable: string) =>
    `(has(${variable}.${parent}) && has(${variable}.${parent}.${field}) ? ${variable}.${parent}.${field}.filter(e, ${counted}) : [])`;
  return `${elements("object")} == ${elements("oldObject")}`;
}

function flag(variable: string): string {
  return `(has(${variable}.spec) && has(${variable}.spec.unschedulable) && ${variable}.spec.unschedulable)`;
}

/** What the guard may not change, each with its words. */
const VALIDATIONS: readonly Wire<V1Validation>[] = [
  {
    expression: sameBut("metadata.labels", `k == '${RELEASED_LABEL}'`),
    message: `the guard may change no label but ${RELEASED_LABEL}`,
    reason: "Forbidden",
  },
  {
    expression: sameBut("metadata.annotations", "k.startsWith('holdfast.dev/')"),
    message: "the guard may change no annotation but its own",
    reason: "Forbidden",
  },
  {
    expression: `request.resource.resource != 'nodes' || ${sameList("spec", "taints", `e.key != '${UNREACHABLE_TAINT}'`)}`,
    message: `the guard may change no taint but ${UNREACHABLE_TAINT}`,
    reason: "Forbidden",
  },
  {
    expression: `request.resource.resource != 'nodes' || ${flag("object")} == ${flag("oldObject")}`,
    message: "the guard may not cordon or uncordon a node",
    reason: "Forbidden",
  },
  {
    expression: sameList(
      "status",
      "conditions",
      `e.type != (request.resource.resource == 'nodes' ? '${REACHABLE_CONDITION}' : 'DisruptionTarget')`,
    ),
    message: `the guard may change no condition but ${REACHABLE_CONDITION} of nodes and DisruptionTarget of pods`,
    reason: "Forbidden",
  },
];
