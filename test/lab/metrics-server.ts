/**
 * metrics-server as its own manifests have it, on the cloud's node. It asks
 * kubelets at port 10250 of the addresses that their nodes show, and believes
 * them by the cluster's CA alone.
 */
import { CLOUD_NODE_NAME } from "./world.ts";

/** Its image's name on the node. */
export const METRICS_IMAGE = "docker.io/local/metrics-server:v0.8.0";

const NAME = "metrics-server";
const NAMESPACE = "kube-system";
const LABELS = { "k8s-app": NAME };
const PORT = 4443;
const RBAC = "rbac.authorization.k8s.io/v1";
const CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/** Its objects. */
export function metricsServer(): object[] {
  const metadata = { name: NAME, namespace: NAMESPACE, labels: LABELS };
  const subjects = [{ kind: "ServiceAccount", name: NAME, namespace: NAMESPACE }];
  const bound = (name: string, role: string) => ({
    apiVersion: RBAC,
    kind: "ClusterRoleBinding",
    metadata: { name },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
    subjects,
  });
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: RBAC,
      kind: "ClusterRole",
      metadata: { name: `system:${NAME}` },
      rules: [
        { apiGroups: [""], resources: ["nodes/metrics"], verbs: ["get"] },
        { apiGroups: [""], resources: ["pods", "nodes"], verbs: ["get", "list", "watch"] },
      ],
    },
    bound(`system:${NAME}`, `system:${NAME}`),
    bound(`${NAME}:system:auth-delegator`, "system:auth-delegator"),
    {
      apiVersion: RBAC,
      kind: "RoleBinding",
      metadata: { name: `${NAME}-auth-reader`, namespace: NAMESPACE },
      roleRef: {
        apiGroup: "rbac.authorization.k8s.io",
        kind: "Role",
        name: "extension-apiserver-authentication-reader",
      },
      subjects,
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: { selector: LABELS, ports: [{ name: "https", port: 443, targetPort: PORT }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: { selector: { matchLabels: LABELS }, template: { metadata: { labels: LABELS }, spec: podSpec() } },
    },
    {
      apiVersion: "apiregistration.k8s.io/v1",
      kind: "APIService",
      metadata: { name: "v1beta1.metrics.k8s.io" },
      spec: {
        group: "metrics.k8s.io",
        version: "v1beta1",
        groupPriorityMinimum: 100,
        versionPriority: 100,
        insecureSkipTLSVerify: true,
        service: { name: NAME, namespace: NAMESPACE },
      },
    },
  ];
}

function podSpec(): object {
  return {
    serviceAccountName: NAME,
    nodeName: CLOUD_NODE_NAME,
    // A pod of the bridge would be answered past the packet filter by another one behind a Service.
    hostNetwork: true,
    containers: [
      {
        name: NAME,
        image: METRICS_IMAGE,
        imagePullPolicy: "Never",
        args: [
          "--cert-dir=/tmp",
          `--secure-port=${PORT}`,
          "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
          `--kubelet-certificate-authority=${CA}`,
          // The shortest that it takes.
          "--metric-resolution=10s",
          "--kubelet-request-timeout=5s",
        ],
        readinessProbe: { httpGet: { path: "/readyz", port: PORT, scheme: "HTTPS" }, periodSeconds: 2 },
        volumeMounts: [{ name: "tmp", mountPath: "/tmp" }],
      },
    ],
    volumes: [{ name: "tmp", emptyDir: {} }],
  };
}
