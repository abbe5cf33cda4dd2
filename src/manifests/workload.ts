/**
 * The guard's Deployment and what stands around it.
 *
 * Its pods stay off the nodes that it protects: a guard that is cut with them
 * guards nothing. Two replicas answer the webhook, one of them writes.
 */

import type {
  V1Affinity,
  V1ConfigMap,
  V1Container,
  V1Deployment,
  V1Namespace,
  V1NetworkPolicy,
  V1PodDisruptionBudget,
  V1PodSpec,
  V1Probe,
  V1SecurityContext,
  V1Service,
  V1ServicePort,
  V1Volume,
} from "@kubernetes/client-node";
import { OPT_IN_LABEL, PARAMETERS_NAME } from "../guard/names.ts";
import { DEFAULT_PARAMETERS } from "../guard/parameters.ts";
import { sent, type Wire } from "../kube/wire.ts";
import type { KubernetesObject } from "./object.ts";
import type { ManifestOptions } from "./options.ts";
import { APP_LABELS, CERTIFICATE_SECRET, GUARD_NAME, HEALTH_PORT, WEBHOOK_PORT } from "./parts.ts";

const TLS_DIR = "/tls";
const TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount";
const CONTROL_PLANE = "node-role.kubernetes.io/control-plane";
/** Longer than the webhook lingers for API servers that still know this address. */
const GRACE_SECONDS = 30;

/** The namespace. */
export function namespaceObject({ namespace, isPoliciesOnly }: ManifestOptions): KubernetesObject {
  const enforce = { "pod-security.kubernetes.io/enforce": "restricted" };
  return sent<V1Namespace>()({
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: namespace, labels: { ...APP_LABELS, ...(isPoliciesOnly ? {} : enforce) } },
  });
}

/** The parameters, every key with its default. */
export function parametersObject({ namespace, bound, controllers }: ManifestOptions): KubernetesObject {
  return sent<V1ConfigMap>()({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: PARAMETERS_NAME, namespace, labels: APP_LABELS },
    data: { ...DEFAULT_PARAMETERS, bound, controllers: controllers.join(",") },
  });
}

/** Deployment, disruption budget, services, network policy; with cert-manager its Issuer and Certificate. */
export function workload(options: ManifestOptions): KubernetesObject[] {
  const { namespace } = options;
  const metadata = { name: GUARD_NAME, namespace, labels: APP_LABELS };
  const selector = { matchLabels: APP_LABELS };
  return [
    deployment(options),
    sent<V1PodDisruptionBudget>()({
      apiVersion: "policy/v1",
      kind: "PodDisruptionBudget",
      metadata,
      spec: { minAvailable: 1, selector, unhealthyPodEvictionPolicy: "AlwaysAllow" },
    }),
    service(metadata, { name: "webhook", port: 443, targetPort: "webhook" }),
    service(
      { ...metadata, name: `${GUARD_NAME}-metrics` },
      { name: "metrics", port: HEALTH_PORT, targetPort: "health" },
    ),
    sent<V1NetworkPolicy>()({
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata,
      spec: {
        podSelector: selector,
        policyTypes: ["Ingress", "Egress"],
        // API servers and kubelets come from hosts, which no selector can name.
        ingress: [
          {
            ports: [
              { protocol: "TCP", port: "webhook" },
              { protocol: "TCP", port: "health" },
            ],
          },
        ],
        // The API server, by its address: no names are resolved.
        egress: [{ ports: [443, 6443, 8443, 16_443].map((port) => ({ protocol: "TCP", port })) }],
      },
    }),
    ...(options.usesCertManager ? certManager(namespace) : []),
  ];
}

function service(metadata: KubernetesObject["metadata"], port: Wire<V1ServicePort>): KubernetesObject {
  return sent<V1Service>()({
    apiVersion: "v1",
    kind: "Service",
    metadata,
    spec: { selector: APP_LABELS, ports: [{ protocol: "TCP", ...port }] },
  });
}

function deployment(options: ManifestOptions): KubernetesObject {
  return sent<V1Deployment>()({
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: GUARD_NAME, namespace: options.namespace, labels: APP_LABELS },
    spec: {
      replicas: options.replicas,
      selector: { matchLabels: APP_LABELS },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1, maxSurge: 1 } },
      template: { metadata: { labels: APP_LABELS }, spec: podSpec(options) },
    },
  });
}

function podSpec(options: ManifestOptions): Wire<V1PodSpec> {
  return sent<V1PodSpec>()({
    serviceAccountName: GUARD_NAME,
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
    affinity: affinity(),
    tolerations: [{ key: CONTROL_PLANE, operator: "Exists", effect: "NoSchedule" }],
    containers: [container(options)],
    volumes: [
      tokenVolume(),
      { name: "tmp", emptyDir: { medium: "Memory", sizeLimit: "16Mi" } },
      ...(options.usesCertManager ? [{ name: "tls", secret: { secretName: CERTIFICATE_SECRET } }] : []),
    ],
  });
}

/** What no container of ours needs. */
export const CONFINED = sent<V1SecurityContext>()({
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
});

/** How the cluster's roles are asked, by their port "health". */
export function probes() {
  const probe = (path: string) => sent<V1Probe>()({ httpGet: { path, port: "health" }, timeoutSeconds: 5 });
  return {
    startupProbe: { ...probe("/livez"), periodSeconds: 2, failureThreshold: 30 },
    livenessProbe: { ...probe("/livez"), periodSeconds: 10, failureThreshold: 3 },
    readinessProbe: { ...probe("/readyz"), periodSeconds: 5, failureThreshold: 2 },
  };
}

function container(options: ManifestOptions): Wire<V1Container> {
  return sent<V1Container>()({
    name: "guard",
    image: options.image,
    imagePullPolicy: "IfNotPresent",
    args: guardArguments(options),
    ports: [
      { name: "webhook", containerPort: WEBHOOK_PORT },
      { name: "health", containerPort: HEALTH_PORT },
    ],
    ...probes(),
    resources: { requests: { cpu: "50m", memory: "96Mi" }, limits: { memory: "256Mi" } },
    securityContext: CONFINED,
    volumeMounts: [
      { name: "token", mountPath: TOKEN_DIR, readOnly: true },
      { name: "tmp", mountPath: "/tmp" },
      ...(options.usesCertManager ? [{ name: "tls", mountPath: TLS_DIR, readOnly: true }] : []),
    ],
  });
}

function guardArguments({ namespace, approvesCsrs, usesCertManager }: ManifestOptions): string[] {
  return [
    "guard",
    `--namespace=${namespace}`,
    `--listen=0.0.0.0:${WEBHOOK_PORT}`,
    `--health-listen=0.0.0.0:${HEALTH_PORT}`,
    ...(approvesCsrs ? ["--approve-csrs"] : []),
    ...(usesCertManager ? [`--tls-cert-file=${TLS_DIR}/tls.crt`, `--tls-key-file=${TLS_DIR}/tls.key`] : []),
  ];
}

function affinity() {
  const onOneHost = { topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: APP_LABELS } };
  return sent<V1Affinity>()({
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [
          {
            matchExpressions: [
              { key: OPT_IN_LABEL, operator: "DoesNotExist" },
              { key: "kubernetes.io/os", operator: "In", values: ["linux"] },
            ],
          },
        ],
      },
      preferredDuringSchedulingIgnoredDuringExecution: [
        { weight: 1, preference: { matchExpressions: [{ key: CONTROL_PLANE, operator: "Exists" }] } },
      ],
    },
    // Preferred: a cluster of one control plane shall have its two replicas too.
    podAntiAffinity: {
      preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, podAffinityTerm: onOneHost }],
    },
  });
}

/** Mounted by hand, so that it is short-lived and nothing else is. */
export function tokenVolume() {
  return sent<V1Volume>()({
    name: "token",
    projected: {
      defaultMode: 0o440,
      sources: [
        { serviceAccountToken: { path: "token", expirationSeconds: 3607 } },
        { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
        {
          downwardAPI: {
            items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }],
          },
        },
      ],
    },
  });
}

function certManager(namespace: string): KubernetesObject[] {
  const apiVersion = "cert-manager.io/v1";
  const metadata = { name: CERTIFICATE_SECRET, namespace, labels: APP_LABELS };
  return [
    { apiVersion, kind: "Issuer", metadata: { ...metadata, name: GUARD_NAME }, spec: { selfSigned: {} } },
    {
      apiVersion,
      kind: "Certificate",
      metadata,
      spec: {
        secretName: CERTIFICATE_SECRET,
        dnsNames: [`.${namespace}`, `.${namespace}.svc`].map((suffix) => `${GUARD_NAME}${suffix}`),
        privateKey: { algorithm: "ECDSA", size: 256, rotationPolicy: "Always" },
        issuerRef: { name: GUARD_NAME, kind: "Issuer" },
      },
    },
  ];
}
