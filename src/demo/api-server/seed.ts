/**
 * A small world to look at: one shop on one edge node.
 */

import type { JsonObject } from "./schema.ts";

/** The node that the demo's pods run on. */
export const DEMO_NODE = "edge-1";
const NAMESPACE = "shop";

const meta = (name: string, more: JsonObject = {}): JsonObject => ({ name, namespace: NAMESPACE, ...more });
const ready = (type: string): JsonObject => ({ type, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z" });

/** A running pod of the shop with a stable uid. */
export function demoPod(name: string, index = 0): JsonObject {
  const ip = `10.244.1.${10 + index}`;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: meta(name, { uid: demoUid("pod", index), labels: { app: "web" } }),
    spec: {
      nodeName: DEMO_NODE,
      containers: [
        {
          name: "web",
          image: "registry.example/web:1",
          ports: [{ containerPort: 8080, protocol: "TCP" }],
          volumeMounts: [{ name: "settings", mountPath: "/etc/web" }],
        },
      ],
      volumes: [{ name: "settings", configMap: { name: "settings" } }],
      restartPolicy: "Always",
      serviceAccountName: "default",
      tolerations: [
        { key: "node.kubernetes.io/not-ready", operator: "Exists", effect: "NoExecute", tolerationSeconds: 300 },
      ],
    },
    status: {
      phase: "Running",
      conditions: [ready("Initialized"), ready("Ready"), ready("ContainersReady"), ready("PodScheduled")],
      hostIP: "192.0.2.10",
      podIP: ip,
      podIPs: [{ ip }],
      startTime: "2026-01-01T00:00:00Z",
      containerStatuses: [
        {
          name: "web",
          state: { running: { startedAt: "2026-01-01T00:00:01Z" } },
          lastState: {},
          ready: true,
          restartCount: 0,
          image: "registry.example/web:1",
          imageID: "",
        },
      ],
      qosClass: "BestEffort",
    },
  };
}

/** A ready node. */
export function demoNode(name = DEMO_NODE): JsonObject {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, labels: { "kubernetes.io/hostname": name, "kubernetes.io/arch": "arm64" } },
    spec: { podCIDR: "10.244.1.0/24", podCIDRs: ["10.244.1.0/24"] },
    status: {
      capacity: { cpu: "4", memory: "4Gi", pods: "110" },
      allocatable: { cpu: "4", memory: "4Gi", pods: "110" },
      conditions: [ready("Ready")],
      addresses: [
        { type: "InternalIP", address: "192.0.2.10" },
        { type: "Hostname", address: name },
      ],
      daemonEndpoints: { kubeletEndpoint: { Port: 10250 } },
    },
  };
}

/** An EndpointSlice of about 1.7 KB of JSON: one Service with six ready endpoints. */
export function demoSlice(index: number): JsonObject {
  const service = `service-${index}`;
  const endpoint = (at: number): JsonObject => ({
    addresses: [`10.${(index >> 8) & 255}.${index & 255}.${at}`],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: DEMO_NODE,
    targetRef: { kind: "Pod", namespace: NAMESPACE, name: `${service}-${at}`, uid: demoUid("slice", index * 8 + at) },
  });
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: meta(`${service}-abcde`, {
      labels: {
        "kubernetes.io/service-name": service,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
      },
    }),
    addressType: "IPv4",
    endpoints: [1, 2, 3, 4, 5, 6].map(endpoint),
    ports: [{ name: "http", protocol: "TCP", port: 8080 }],
  };
}

function demoUid(kind: string, index: number): string {
  const [head = 0] = [...kind].map((char) => char.charCodeAt(0));
  return `${head.toString(16).padStart(8, "0")}-0000-4000-8000-${index.toString(16).padStart(12, "0")}`;
}

/** Namespace shop: five pods on one node and what they need; `slices` EndpointSlices besides. */
export function demoWorld(slices = 1): JsonObject[] {
  return [
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: NAMESPACE, labels: { "kubernetes.io/metadata.name": NAMESPACE } },
      spec: { finalizers: ["kubernetes"] },
      status: { phase: "Active" },
    },
    demoNode(),
    { apiVersion: "v1", kind: "ServiceAccount", metadata: meta("default") },
    { apiVersion: "v1", kind: "ConfigMap", metadata: meta("settings"), data: { greeting: "hello from the shop" } },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: meta("password"),
      type: "Opaque",
      data: { password: Buffer.from("correct horse").toString("base64") },
    },
    ...services(),
    ...PODS.map((index) => demoPod(`web-${index}`, index)),
    webSlice(),
    ...Array.from({ length: Math.max(0, slices - 1) }, (_, index) => demoSlice(index)),
    definition("Namespaced", {
      plural: "widgets",
      singular: "widget",
      kind: "Widget",
      listKind: "WidgetList",
      shortNames: ["wd"],
    }),
    definition("Cluster", { plural: "sites", singular: "site", kind: "Site", listKind: "SiteList" }),
    {
      apiVersion: "example.com/v1",
      kind: "Widget",
      metadata: meta("gear"),
      spec: { teeth: 12, size: { width: 3, height: 2.5 } },
    },
  ];
}

const PODS = [0, 1, 2, 3, 4];

function services(): JsonObject[] {
  const clusterIp = (address: string) => ({
    clusterIP: address,
    clusterIPs: [address],
    type: "ClusterIP",
    sessionAffinity: "None",
  });
  return [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: {
        name: "kubernetes",
        namespace: "default",
        labels: { component: "apiserver", provider: "kubernetes" },
      },
      spec: {
        ports: [{ name: "https", protocol: "TCP", port: 443, targetPort: 6443 }],
        ...clusterIp("10.96.0.1"),
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: meta("web"),
      spec: {
        selector: { app: "web" },
        ports: [{ name: "http", protocol: "TCP", port: 80, targetPort: 8080 }],
        ...clusterIp("10.96.0.20"),
      },
    },
  ];
}

function webSlice(): JsonObject {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: meta("web-abcde", { labels: { "kubernetes.io/service-name": "web" } }),
    addressType: "IPv4",
    endpoints: PODS.map((index) => ({
      addresses: [`10.244.1.${10 + index}`],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: DEMO_NODE,
      targetRef: { kind: "Pod", namespace: NAMESPACE, name: `web-${index}`, uid: demoUid("pod", index) },
    })),
    ports: [{ name: "http", protocol: "TCP", port: 8080 }],
  };
}

/** A custom resource of example.com; what is namespaced has a status of its own. */
function definition(scope: "Namespaced" | "Cluster", names: JsonObject & { readonly plural: string }): JsonObject {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${names.plural}.example.com` },
    spec: {
      group: "example.com",
      scope,
      names,
      versions: [
        {
          name: "v1",
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
          ...(scope === "Namespaced" ? { subresources: { status: {} } } : {}),
        },
      ],
    },
  };
}
