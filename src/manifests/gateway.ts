/**
 * All objects of the gateway, least in rights, in the order of application.
 *
 * It reads nodes' names and labels, and writes in its own namespace alone: one
 * ConfigMap of a known name, and Services and EndpointSlices, whose names are
 * made from the nodes'. It reads no Secret: its certificate is mounted.
 */

import type {
  V1ClusterRole,
  V1ClusterRoleBinding,
  V1Container,
  V1Deployment,
  V1Namespace,
  V1NetworkPolicy,
  V1PodDisruptionBudget,
  V1PodSpec,
  V1PolicyRule,
  V1Role,
  V1RoleBinding,
  V1Service,
  V1ServiceAccount,
} from "@kubernetes/client-node";
import { GATEWAY_NAME } from "../gateway/names.ts";
import { PORTS_NAME } from "../kube/tunnel-names.ts";
import { sent, type Wire } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";
import { CONFINED, probes, tokenVolume } from "./workload.ts";

/** The choices. */
export interface GatewayManifestOptions {
  readonly namespace: string;
  readonly image: string;
  readonly replicas: number;
  /** By which nodes dial it. */
  readonly names: readonly string[];
  readonly mode: "service" | "port";
  /** Labels of nodes that may have a tunnel; "" for all. */
  readonly nodes: string;
  /** cert-manager makes the serving certificate; else its Secret is there already. */
  readonly usesCertManager: boolean;
}

/** Which file of a folder an object goes into. */
export const GATEWAY_FILES = ["access", "gateway"] as const;

/** The Secret with the serving certificate, of type kubernetes.io/tls. */
export const GATEWAY_SECRET = "holdfast-gateway-tls";

const LABELS = { "app.kubernetes.io/name": "holdfast", "app.kubernetes.io/component": "gateway" } as const;
const RBAC = "rbac.authorization.k8s.io/v1";
const RBAC_GROUP = "rbac.authorization.k8s.io";
const PORTS = { agents: 8_443, handover: 8_444, health: 10_445 } as const;
const DOORS = { first: 20_000, last: 29_999 } as const;
const TLS_DIR = "/tls";
const TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";
/** Longer than streams are given to finish. */
const GRACE_SECONDS = 30;

/** The objects by file. */
export function gatewayManifests(
  options: GatewayManifestOptions,
): Readonly<Record<(typeof GATEWAY_FILES)[number], KubernetesObject[]>> {
  return { access: [namespaceObject(options), ...access(options)], gateway: workload(options) };
}

function namespaceObject({ namespace }: GatewayManifestOptions): KubernetesObject {
  return sent<V1Namespace>()({
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: namespace, labels: { "pod-security.kubernetes.io/enforce": "restricted" } },
  });
}

const READ = ["list", "watch"];

const OWN_RULES: readonly Wire<V1PolicyRule>[] = [
  { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: [...READ, "create", "patch"] },
  { apiGroups: [""], resources: ["configmaps"], verbs: ["create"] },
  { apiGroups: [""], resources: ["configmaps"], resourceNames: [PORTS_NAME], verbs: ["get", "patch"] },
];
const SERVICE_RULE: Wire<V1PolicyRule> = { apiGroups: [""], resources: ["services"], verbs: ["create", "patch"] };
const AUTHENTICATION_RULE: Wire<V1PolicyRule> = {
  apiGroups: [""],
  resources: ["configmaps"],
  resourceNames: ["extension-apiserver-authentication"],
  verbs: ["get"],
};

function access({ namespace }: GatewayManifestOptions): KubernetesObject[] {
  const metadata = { name: GATEWAY_NAME, labels: LABELS };
  const subjects = [{ kind: "ServiceAccount", name: GATEWAY_NAME, namespace }];
  return [
    sent<V1ServiceAccount>()({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { ...metadata, namespace },
      automountServiceAccountToken: false,
    }),
    sent<V1ClusterRole>()({
      apiVersion: RBAC,
      kind: "ClusterRole",
      metadata,
      rules: [{ apiGroups: [""], resources: ["nodes"], verbs: READ }],
    }),
    sent<V1ClusterRoleBinding>()({
      apiVersion: RBAC,
      kind: "ClusterRoleBinding",
      metadata,
      roleRef: { apiGroup: RBAC_GROUP, kind: "ClusterRole", name: GATEWAY_NAME },
      subjects,
    }),
    // Also in mode `port`: the mode may be changed, and a Service of its own namespace is little.
    ...within(namespace, [...OWN_RULES, SERVICE_RULE], subjects),
    ...within("kube-system", [AUTHENTICATION_RULE], subjects),
  ];
}

function within(
  namespace: string,
  rules: readonly Wire<V1PolicyRule>[],
  subjects: { kind: string; name: string; namespace: string }[],
): KubernetesObject[] {
  const metadata = { name: GATEWAY_NAME, namespace, labels: LABELS };
  const roleRef = { apiGroup: RBAC_GROUP, kind: "Role", name: GATEWAY_NAME };
  return [
    sent<V1Role>()({ apiVersion: RBAC, kind: "Role", metadata, rules }),
    sent<V1RoleBinding>()({ apiVersion: RBAC, kind: "RoleBinding", metadata, roleRef, subjects }),
  ];
}

function workload(options: GatewayManifestOptions): KubernetesObject[] {
  const { namespace, replicas, names, usesCertManager } = options;
  const metadata = { name: GATEWAY_NAME, namespace, labels: LABELS };
  const selector = { matchLabels: LABELS };
  return [
    ...(usesCertManager ? certManager(namespace, names) : []),
    sent<V1Deployment>()({
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        replicas,
        selector,
        strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1, maxSurge: 1 } },
        template: { metadata: { labels: LABELS }, spec: podSpec(options) },
      },
    }),
    sent<V1PodDisruptionBudget>()({
      apiVersion: "policy/v1",
      kind: "PodDisruptionBudget",
      metadata,
      spec: { minAvailable: 1, selector, unhealthyPodEvictionPolicy: "AlwaysAllow" },
    }),
    sent<V1Service>()({
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: {
        type: "LoadBalancer",
        // Agents stay connected for days: any replica is as good as another.
        selector: LABELS,
        ports: [{ name: "agents", protocol: "TCP", port: 443, targetPort: "agents" }],
      },
    }),
    networkPolicy(metadata, selector),
  ];
}

function networkPolicy(
  metadata: { name: string; namespace: string; labels: typeof LABELS },
  selector: { matchLabels: typeof LABELS },
): KubernetesObject {
  const tcp = (port: string | number) => ({ protocol: "TCP", port });
  return sent<V1NetworkPolicy>()({
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata,
    spec: {
      podSelector: selector,
      policyTypes: ["Ingress", "Egress"],
      ingress: [
        // Agents come from anywhere; API servers and kubelets from hosts, which no selector can name.
        { ports: [tcp("agents"), tcp("health"), { ...tcp(DOORS.first), endPort: DOORS.last }] },
        { from: [{ podSelector: selector }], ports: [tcp("handover")] },
      ],
      egress: [
        // The API server, by its address: no names are resolved.
        { ports: [443, 6443, 8443, 16_443].map(tcp) },
        { to: [{ podSelector: selector }], ports: [tcp(PORTS.handover)] },
      ],
    },
  });
}

function podSpec(options: GatewayManifestOptions): Wire<V1PodSpec> {
  const topology = { topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: LABELS } };
  return sent<V1PodSpec>()({
    serviceAccountName: GATEWAY_NAME,
    automountServiceAccountToken: false,
    priorityClassName: "system-cluster-critical",
    terminationGracePeriodSeconds: GRACE_SECONDS,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      fsGroup: 65532,
      seccompProfile: { type: "RuntimeDefault" },
    },
    affinity: {
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, podAffinityTerm: topology }],
      },
    },
    containers: [container(options)],
    volumes: [
      tokenVolume(),
      { name: "tmp", emptyDir: { medium: "Memory", sizeLimit: "16Mi" } },
      { name: "tls", secret: { secretName: GATEWAY_SECRET, defaultMode: 0o440 } },
    ],
  });
}

function container({ image, namespace, names, mode, nodes }: GatewayManifestOptions): Wire<V1Container> {
  return sent<V1Container>()({
    name: "gateway",
    image,
    imagePullPolicy: "IfNotPresent",
    args: [
      "gateway",
      `--namespace=${namespace}`,
      `--names=${names.join(",")}`,
      `--mode=${mode}`,
      `--nodes=${nodes}`,
      `--listen=0.0.0.0:${PORTS.agents}`,
      `--handover-port=${PORTS.handover}`,
      `--health-listen=0.0.0.0:${PORTS.health}`,
      `--ports=${DOORS.first}-${DOORS.last}`,
      `--tls-cert-file=${TLS_DIR}/tls.crt`,
      `--tls-key-file=${TLS_DIR}/tls.key`,
    ],
    env: [{ name: "POD_IP", valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "status.podIP" } } }],
    ports: [
      { name: "agents", containerPort: PORTS.agents },
      { name: "handover", containerPort: PORTS.handover },
      { name: "health", containerPort: PORTS.health },
    ],
    ...probes(),
    resources: { requests: { cpu: "50m", memory: "96Mi" }, limits: { memory: "512Mi" } },
    securityContext: CONFINED,
    volumeMounts: [
      { name: "token", mountPath: TOKEN_DIR, readOnly: true },
      { name: "tmp", mountPath: "/tmp" },
      { name: "tls", mountPath: TLS_DIR, readOnly: true },
    ],
  });
}

function certManager(namespace: string, names: readonly string[]): KubernetesObject[] {
  const apiVersion = "cert-manager.io/v1";
  const metadata = { name: GATEWAY_SECRET, namespace, labels: LABELS };
  return [
    { apiVersion, kind: "Issuer", metadata: { ...metadata, name: GATEWAY_NAME }, spec: { selfSigned: {} } },
    {
      apiVersion,
      kind: "Certificate",
      metadata,
      spec: {
        secretName: GATEWAY_SECRET,
        dnsNames: names,
        privateKey: { algorithm: "ECDSA", size: 256, rotationPolicy: "Always" },
        issuerRef: { name: GATEWAY_NAME, kind: "Issuer" },
      },
    },
  ];
}
