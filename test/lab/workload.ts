/**
 * What a small gateway carries: one of every kind of pod that comes back in its
 * own way. Eight containers run for good; two Jobs end.
 *
 *   web        Deployment, two replicas behind the Service web.shop
 *   agent      DaemonSet
 *   db         StatefulSet
 *   configured pod: ConfigMap in its environment, Secret and token as volumes
 *   client     pod on the node's network that may read pods
 *   lone       pod with nothing to it
 *   manifest   static pod
 *   once       Job that ends at once
 *   later      Job that ends when it is told to
 */
import { NODE_NAME } from "./world.ts";
import { DNS_ADDRESS } from "./node-config.ts";
import { IMAGE } from "./node-image.ts";

export const NAMESPACE = "shop";

/** How many containers run when all is well and `later` has ended. */
export const CONTAINERS = 8;

export const SECRET_TEXT = "marker-7f3a9c";
export const GREETING = "hello";

const FOREVER = ["sleep", "100000000"];
const SERVE = ["sh", "-c", "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"];
// Shells die of SIGTERM only where they say so, and a grace period is a wait.
const terminationGracePeriodSeconds = 1;

/** A pod's only container. */
export function container(command: readonly string[], more: object = {}): object {
  return { name: "app", image: IMAGE, imagePullPolicy: "Never", command, ...more };
}

/** A pod without an owner. */
export function pod(name: string, spec: object): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: NAMESPACE, labels: { app: name } },
    spec: { terminationGracePeriodSeconds, ...spec },
  };
}

/** A pod without an owner that does nothing. */
export function idlePod(name: string): object {
  return pod(name, { containers: [container(FOREVER)] });
}

/** The manifest of the static pod, for kubelet's own folder. */
export function staticPod(): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "manifest", namespace: NAMESPACE },
    spec: { terminationGracePeriodSeconds, containers: [container(FOREVER)] },
  };
}

/**
 * Everything else.
 *
 * @param flags a folder of the node: a Job writes a line to the file of its name
 *   each time it runs; `later` ends when there is a file "finish".
 */
export function workload(flags: string): object[] {
  return [configuration(), ...web(), agent(), db(), configured(), ...client(), idlePod("lone"), ...jobs(flags)].flat();
}

/** cluster.local at its ClusterIP; CoreDNS is a program of the node, so the slice is written by hand. */
export function clusterDns(address: string): object[] {
  const metadata = { name: "kube-dns", namespace: "kube-system" };
  const port = { name: "dns", port: 53, protocol: "UDP" };
  return [
    { apiVersion: "v1", kind: "Service", metadata, spec: { clusterIP: DNS_ADDRESS, ports: [port] } },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { ...metadata, labels: { "kubernetes.io/service-name": "kube-dns" } },
      addressType: "IPv4",
      ports: [port],
      endpoints: [{ addresses: [address], conditions: { ready: true } }],
    },
  ];
}

function configuration(): object[] {
  return [
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "settings", namespace: NAMESPACE },
      data: { GREETING },
    },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "password", namespace: NAMESPACE },
      stringData: { password: SECRET_TEXT },
    },
  ];
}

/** Fields that a Deployment, a DaemonSet and a StatefulSet share. */
function set(kind: string, name: string, podSpec: object, more: object = {}): object {
  const labels = { app: name };
  return {
    apiVersion: "apps/v1",
    kind,
    metadata: { name, namespace: NAMESPACE },
    spec: {
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { terminationGracePeriodSeconds, ...podSpec } },
      ...more,
    },
  };
}

function web(): object[] {
  const readinessProbe = { httpGet: { path: "/", port: 8080 }, periodSeconds: 2 };
  const ports = [{ containerPort: 8080 }];
  return [
    set("Deployment", "web", { containers: [container(SERVE, { readinessProbe, ports })] }, { replicas: 2 }),
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "web", namespace: NAMESPACE },
      spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }] },
    },
  ];
}

function agent(): object {
  return set("DaemonSet", "agent", { tolerations: [{ operator: "Exists" }], containers: [container(FOREVER)] });
}

function db(): object {
  return set("StatefulSet", "db", { containers: [container(FOREVER)] }, { serviceName: "db", replicas: 1 });
}

function configured(): object {
  const token = { serviceAccountToken: { path: "token", audience: "vault", expirationSeconds: 3600 } };
  const app = container(FOREVER, {
    env: [{ name: "GREETING", valueFrom: { configMapKeyRef: { name: "settings", key: "GREETING" } } }],
    volumeMounts: [
      { name: "secret", mountPath: "/secret" },
      { name: "settings", mountPath: "/settings" },
      { name: "token", mountPath: "/token" },
    ],
  });
  return pod("configured", {
    containers: [app],
    volumes: [
      { name: "secret", secret: { secretName: "password" } },
      { name: "settings", configMap: { name: "settings" } },
      { name: "token", projected: { sources: [token] } },
    ],
  });
}

function client(): object[] {
  const metadata = { name: "reader", namespace: NAMESPACE };
  const rbac = "rbac.authorization.k8s.io";
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: `${rbac}/v1`,
      kind: "Role",
      metadata,
      rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch"] }],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: "RoleBinding",
      metadata,
      roleRef: { apiGroup: rbac, kind: "Role", name: "reader" },
      subjects: [{ kind: "ServiceAccount", name: "reader", namespace: NAMESPACE }],
    },
    pod("client", { hostNetwork: true, serviceAccountName: "reader", containers: [container(FOREVER)] }),
  ];
}

function jobs(flags: string): object[] {
  return [
    job("once", flags, "echo ran >> /flags/once"),
    job("later", flags, "echo ran >> /flags/later; until test -e /flags/finish; do sleep 0.2; done"),
  ];
}

function job(name: string, flags: string, script: string): object {
  const app = container(["sh", "-c", script], { volumeMounts: [{ name: "flags", mountPath: "/flags" }] });
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, namespace: NAMESPACE },
    spec: {
      template: {
        spec: {
          terminationGracePeriodSeconds,
          restartPolicy: "Never",
          nodeName: NODE_NAME,
          containers: [app],
          volumes: [{ name: "flags", hostPath: { path: flags, type: "Directory" } }],
        },
      },
    },
  };
}
