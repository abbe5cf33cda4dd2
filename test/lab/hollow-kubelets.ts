/**
 * Many kubelets without machines, in one process that runs in the cloud.
 *
 * Each speaks as its node (admin impersonates it, so NodeRestriction and the
 * node authorizer judge it), renews its lease, posts its status, marks the pods
 * bound to it as running and ready, and deletes those it is told to end. A
 * silent one does nothing at all: that is what a cut looks like from here.
 *
 * Orders come on stdin, one JSON object a line; "done" is printed after each:
 *
 *   {"start": ["n1", "n2"], "labels": {...}}   makes the nodes and speaks for them
 *   {"silence": ["n1"]}                        stops speaking
 *   {"hear": ["n1"]}                           speaks again
 *   {"fail": ["n1"]}                           the node says of itself that it is not ready
 *   {"place": ["n1", ADDRESS, PORT]}           its kubelet is there
 *   {"unready": ["shop/web-1"]}                the pod's probe fails
 *
 * Arguments: SERVER CA CERTIFICATE KEY.
 */
import { readFileSync } from "node:fs";

const [server = "", caFile = "", certificateFile = "", keyFile = ""] = process.argv.slice(2);
const tls = {
  ca: readFileSync(caFile, "utf8"),
  cert: readFileSync(certificateFile, "utf8"),
  key: readFileSync(keyFile, "utf8"),
};
const RENEW_MS = 3_000;
const STATUS_MS = 60_000;
const POLL_MS = 500;
const ASK_MS = 5_000;

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly [field: string]: unknown;
}

interface Pod {
  readonly metadata: {
    readonly namespace: string;
    readonly name: string;
    readonly uid: string;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName?: string; readonly containers: readonly { readonly name: string }[] };
  readonly status: { readonly phase?: string; readonly podIP?: string; readonly conditions?: readonly Condition[] };
}

interface Hollow {
  readonly name: string;
  address: string;
  port: number;
  isHeard: boolean;
  isReady: boolean;
  statusDueMs: number;
  /** Pods that this kubelet has started, by uid: a container id outlives a cut. */
  readonly started: Map<string, string>;
}

const nodes = new Map<string, Hollow>();
const unready = new Set<string>();
let addressCount = 0;

async function ask(method: string, path: string, body?: object, as?: string, type = "application/json") {
  const response = await fetch(`${server}${path}`, {
    method,
    headers: {
      "Content-Type": type,
      ...(as === undefined ? {} : { "Impersonate-User": `system:node:${as}`, "Impersonate-Group": "system:nodes" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    // An API server that is killed leaves its connections hanging.
    signal: AbortSignal.timeout(ASK_MS),
    tls,
  } as RequestInit);
  const answer = (await response.json()) as { message?: string; items?: unknown[] };
  return { isOk: response.ok, status: response.status, answer };
}

const now = () => new Date().toISOString().replace(/\.\d+Z$/, "Z");
const microNow = () => new Date().toISOString().replace(/(\.\d+)Z$/, "$1000Z");

async function start(names: readonly string[], labels: Readonly<Record<string, string>>): Promise<void> {
  for (const name of names) {
    addressCount += 1;
    const address = `10.200.${Math.floor(addressCount / 250)}.${(addressCount % 250) + 1}`;
    nodes.set(name, { name, address, port: 10_250, isHeard: true, isReady: true, statusDueMs: 0, started: new Map() });
    const metadata = { name, labels: { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } };
    await ask("POST", "/api/v1/nodes", { apiVersion: "v1", kind: "Node", metadata }, name);
    // Which a kubelet may not give itself.
    await ask("PATCH", `/api/v1/nodes/${name}`, { metadata: { labels } }, undefined, "application/merge-patch+json");
  }
}

async function renew(node: Hollow): Promise<void> {
  const path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
  const spec = { holderIdentity: node.name, leaseDurationSeconds: 40, renewTime: microNow() };
  const metadata = { name: node.name, namespace: "kube-node-lease" };
  const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata, spec };
  const patched = await ask("PATCH", `${path}/${node.name}`, { spec }, node.name, "application/merge-patch+json");
  if (patched.status === 404) await ask("POST", path, lease, node.name);
}

async function postStatus(node: Hollow): Promise<void> {
  const condition = (type: string, status: string, reason: string) => ({
    type,
    status,
    reason,
    message: "",
    lastHeartbeatTime: now(),
    lastTransitionTime: now(),
  });
  const status = {
    capacity: { cpu: "4", memory: "8Gi", pods: "110" },
    allocatable: { cpu: "4", memory: "8Gi", pods: "110" },
    addresses: [
      { type: "InternalIP", address: node.address },
      { type: "Hostname", address: node.name },
    ],
    conditions: [
      condition("Ready", node.isReady ? "True" : "False", node.isReady ? "KubeletReady" : "KubeletNotReady"),
      condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
    ],
    daemonEndpoints: { kubeletEndpoint: { Port: node.port } },
    nodeInfo: { kubeletVersion: "v1.37.2" },
  };
  await ask(
    "PATCH",
    `/api/v1/nodes/${node.name}/status`,
    { status },
    node.name,
    "application/strategic-merge-patch+json",
  );
}

async function tendPods(): Promise<void> {
  const { answer } = await ask("GET", "/api/v1/pods");
  for (const pod of (answer.items ?? []) as Pod[]) {
    const node = nodes.get(pod.spec.nodeName ?? "");
    if (node?.isHeard === true) await tend(pod, node);
  }
}

async function tend({ metadata, spec, status }: Pod, node: Hollow): Promise<void> {
  const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}`;
  if (metadata.deletionTimestamp !== undefined) {
    await ask("DELETE", path, { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid } }, node.name);
    node.started.delete(metadata.uid);
    return;
  }
  const isReady = !unready.has(`${metadata.namespace}/${metadata.name}`);
  const has = (type: string, value: boolean) =>
    (status.conditions ?? []).some((one) => one.type === type && one.status === (value ? "True" : "False"));
  if (status.phase === "Running" && has("Ready", isReady) && has("ContainersReady", isReady)) return;
  if (!node.started.has(metadata.uid)) {
    addressCount += 1;
    node.started.set(metadata.uid, `hollow://${metadata.uid}/${addressCount}`);
  }
  const condition = (type: string, value: boolean) => ({
    type,
    status: value ? "True" : "False",
    ...(value ? { reason: null, message: null } : { reason: "ContainersNotReady", message: "probe failed" }),
    lastTransitionTime: now(),
  });
  const podIP = status.podIP ?? `10.201.${Math.floor(addressCount / 250)}.${(addressCount % 250) + 1}`;
  await ask(
    "PATCH",
    `${path}/status`,
    {
      metadata: { uid: metadata.uid },
      status: {
        phase: "Running",
        podIP,
        podIPs: [{ ip: podIP }],
        conditions: [
          condition("Initialized", true),
          condition("PodScheduled", true),
          condition("ContainersReady", isReady),
          condition("Ready", isReady),
        ],
        containerStatuses: spec.containers.map(({ name }) => ({
          name,
          ready: isReady,
          restartCount: 0,
          image: "",
          imageID: "",
          containerID: node.started.get(metadata.uid),
          state: { running: { startedAt: now() } },
        })),
      },
    },
    node.name,
    "application/strategic-merge-patch+json",
  );
}

async function obey(order: Record<string, readonly string[]>): Promise<void> {
  const each = (names: readonly string[] | undefined, act: (node: Hollow) => void) => {
    for (const name of names ?? []) act(nodes.get(name)!);
  };
  if (order["start"] !== undefined)
    await start(order["start"], (order["labels"] ?? {}) as unknown as Readonly<Record<string, string>>);
  each(order["silence"], (node) => (node.isHeard = false));
  each(order["hear"], (node) => Object.assign(node, { isHeard: true, isReady: true, statusDueMs: 0 }));
  each(order["fail"], (node) => Object.assign(node, { isReady: false, statusDueMs: 0 }));
  const [placed, address = "", port] = order["place"] ?? [];
  if (placed !== undefined) Object.assign(nodes.get(placed)!, { address, port: Number(port), statusDueMs: 0 });
  for (const pod of order["unready"] ?? []) unready.add(pod);
}

async function beat(): Promise<void> {
  const heard = [...nodes.values()].filter((node) => node.isHeard);
  await Promise.all(
    heard.map(async (node) => {
      if (performance.now() >= node.statusDueMs) {
        await postStatus(node);
        node.statusDueMs = performance.now() + STATUS_MS;
      }
    }),
  );
}

/** Whatever fails is tried again the next time: the API server may be away. */
async function forEver(everyMs: number, act: () => Promise<void>): Promise<never> {
  for (;;) {
    await act().catch(() => undefined);
    await Bun.sleep(everyMs);
  }
}

void forEver(RENEW_MS, async () => {
  await Promise.all([...nodes.values()].filter((node) => node.isHeard).map(renew));
});
void forEver(POLL_MS, beat);
void forEver(POLL_MS, tendPods);

for await (const line of console) {
  await obey(JSON.parse(line));
  console.log("done");
}
