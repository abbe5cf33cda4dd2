/**
 * What the guard may do, and no more.
 *
 * It reads nodes, pods and leases; it writes conditions, one taint, labels of
 * its own and Events. A rule can name objects only where their names are known
 * before, so nodes and pods cannot be narrowed here; `own-writes.ts` has the
 * policy by which the API server holds the guard to its own fields.
 */

import type {
  V1ClusterRole,
  V1ClusterRoleBinding,
  V1PolicyRule,
  V1Role,
  V1RoleBinding,
  V1ServiceAccount,
} from "@kubernetes/client-node";
import { PARAMETERS_NAME } from "../guard/names.ts";
import { PORTS_NAME } from "../kube/tunnel-names.ts";
import { sent, type Wire } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";
import type { ManifestOptions } from "./options.ts";
import { APP_LABELS, CERTIFICATE_SECRET, GUARD_NAME } from "./parts.ts";

const RBAC = "rbac.authorization.k8s.io/v1";
const RBAC_GROUP = "rbac.authorization.k8s.io";

type Rule = Wire<V1PolicyRule>;

const READ = ["get", "list", "watch"];

/** The service account with its roles. */
export function access(options: ManifestOptions): KubernetesObject[] {
  const { namespace } = options;
  const within = (place: string, rules: readonly Rule[]) => namespaced(place, GUARD_NAME, rules, namespace);
  return [
    sent<V1ServiceAccount>()({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: GUARD_NAME, namespace, labels: APP_LABELS },
      automountServiceAccountToken: false,
    }),
    clusterRole(clusterRules(options)),
    clusterBinding(namespace),
    ...within(namespace, options.approvesCsrs ? [...OWN_RULES, GATEWAY_RULE] : OWN_RULES),
    ...within("kube-node-lease", [{ apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: READ }]),
    // Where the API server's own addresses stand, which no kubelet may claim.
    ...(options.approvesCsrs
      ? within("default", [{ apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list"] }])
      : []),
    ...within("kube-system", [
      {
        apiGroups: [""],
        resources: ["configmaps"],
        resourceNames: ["extension-apiserver-authentication"],
        verbs: ["get"],
      },
    ]),
  ];
}

/** In its own namespace. A name cannot be given for what is yet to be created. */
const OWN_RULES: readonly Rule[] = [
  { apiGroups: [""], resources: ["configmaps"], resourceNames: [PARAMETERS_NAME], verbs: READ },
  // It is put back when somebody has deleted it.
  { apiGroups: [""], resources: ["configmaps"], verbs: ["create"] },
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"] },
  {
    apiGroups: ["coordination.k8s.io"],
    resources: ["leases"],
    resourceNames: [GUARD_NAME],
    verbs: ["get", "update", "patch"],
  },
  { apiGroups: [""], resources: ["secrets"], verbs: ["create"] },
  { apiGroups: [""], resources: ["secrets"], resourceNames: [CERTIFICATE_SECRET], verbs: ["get", "update", "patch"] },
];

/** Which nodes have a place at the gateway, by a port. */
const GATEWAY_RULE: Rule = { apiGroups: [""], resources: ["configmaps"], resourceNames: [PORTS_NAME], verbs: ["get"] };

function clusterRules({ approvesCsrs, usesCertManager }: ManifestOptions): Rule[] {
  const configurations = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
  return [
    { apiGroups: [""], resources: ["nodes"], verbs: [...READ, "patch"] },
    { apiGroups: [""], resources: ["nodes/status"], verbs: ["patch"] },
    // Its list's version tells whether the cluster was set back.
    { apiGroups: [""], resources: ["namespaces"], verbs: ["list"] },
    { apiGroups: [""], resources: ["pods"], verbs: READ },
    { apiGroups: [""], resources: ["pods/status"], verbs: ["patch"] },
    { apiGroups: ["", "events.k8s.io"], resources: ["events"], verbs: ["create", "patch", "list"] },
    // cert-manager writes the CA into the configurations itself.
    ...(usesCertManager
      ? []
      : [
          {
            apiGroups: ["admissionregistration.k8s.io"],
            resources: configurations,
            resourceNames: [GUARD_NAME],
            verbs: ["get", "patch"],
          },
        ]),
    ...(approvesCsrs ? CSR_RULES : []),
  ];
}

const CSR_RULES: readonly Rule[] = [
  // Whose names and cluster addresses no kubelet may claim.
  { apiGroups: [""], resources: ["services"], verbs: ["list"] },
  { apiGroups: ["certificates.k8s.io"], resources: ["certificatesigningrequests"], verbs: READ },
  {
    apiGroups: ["certificates.k8s.io"],
    resources: ["certificatesigningrequests/approval"],
    verbs: ["update"],
  },
  {
    apiGroups: ["certificates.k8s.io"],
    resources: ["signers"],
    resourceNames: ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"],
    verbs: ["approve"],
  },
];

function clusterRole(rules: readonly Rule[]): KubernetesObject {
  return sent<V1ClusterRole>()({
    apiVersion: RBAC,
    kind: "ClusterRole",
    metadata: { name: GUARD_NAME, labels: APP_LABELS },
    rules,
  });
}

function clusterBinding(namespace: string): KubernetesObject {
  return sent<V1ClusterRoleBinding>()({
    apiVersion: RBAC,
    kind: "ClusterRoleBinding",
    metadata: { name: GUARD_NAME, labels: APP_LABELS },
    roleRef: { apiGroup: RBAC_GROUP, kind: "ClusterRole", name: GUARD_NAME },
    subjects: [{ kind: "ServiceAccount", name: GUARD_NAME, namespace }],
  });
}

function namespaced(within: string, name: string, rules: readonly Rule[], namespace: string): KubernetesObject[] {
  const metadata = { name, namespace: within, labels: APP_LABELS };
  return [
    sent<V1Role>()({ apiVersion: RBAC, kind: "Role", metadata, rules }),
    sent<V1RoleBinding>()({
      apiVersion: RBAC,
      kind: "RoleBinding",
      metadata,
      roleRef: { apiGroup: RBAC_GROUP, kind: "Role", name },
      subjects: [{ kind: "ServiceAccount", name: GUARD_NAME, namespace }],
    }),
  ];
}
