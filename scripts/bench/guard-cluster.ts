/**
 * The API server of `bench:guard`: lists a cluster page by page, keeps watches open, renews leases.
 *
 * Arguments: PORT CERTIFICATE KEY NODES PODS.
 */
import { readFileSync } from "node:fs";

const [port, certificate = "", key = "", nodes = "0", pods = "0"] = process.argv.slice(2);
const EVENTS_A_SECOND = 50;

const now = () => new Date().toISOString();
/** Of the whole cluster: every event has a larger one than all before it. */
let version = 1;
const nodeAt = (index: number) => ({
  metadata: {
    name: `${index % 2 === 0 ? "held" : "plain"}-${index}`,
    uid: `node-${index}`,
    resourceVersion: "1",
    labels: {
      ...(index % 2 === 0 ? { "node-restriction.kubernetes.io/holdfast": "hold" } : {}),
      "kubernetes.io/hostname": `n${index}`,
      "kubernetes.io/arch": "arm64",
      "kubernetes.io/os": "linux",
    },
    annotations: { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
  },
  spec: { podCIDR: "10.0.0.0/24" },
  status: {
    images: Array.from({ length: 20 }, (_, image) => ({
      names: [`registry.example/image-${image}@sha256:${"0".repeat(64)}`],
      sizeBytes: 1,
    })),
    conditions: [
      { type: "Ready", status: "True", reason: "KubeletReady", lastTransitionTime: now() },
      { type: "holdfast.dev/Reachable", status: "True", reason: "LeaseRenewed", lastTransitionTime: now() },
    ],
    addresses: [{ type: "InternalIP", address: `10.1.${index >> 8}.${index & 255}` }],
  },
});
const podAt = (index: number) => ({
  metadata: {
    name: `pod-${index}`,
    namespace: "bench",
    uid: `uid-${index}`,
    resourceVersion: "1",
    labels: { app: "bench", "pod-template-hash": "abcdef" },
    managedFields: [{ manager: "kubelet", fieldsV1: { padding: "f".repeat(1_500) } }],
  },
  spec: {
    nodeName: nodeAt(index % Number(nodes)).metadata.name,
    containers: [
      {
        name: "app",
        image: "registry.example/app:1",
        env: Array.from({ length: 10 }, (_, at) => ({ name: `NAME_${at}`, value: "value" })),
      },
    ],
  },
  status: {
    phase: "Running",
    conditions: ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map((type) => ({
      type,
      status: "True",
      lastTransitionTime: now(),
    })),
    podIP: "10.0.0.1",
  },
});
const leaseAt = (index: number) => ({
  metadata: { name: nodeAt(index).metadata.name, namespace: "kube-node-lease", resourceVersion: "1" },
  spec: { renewTime: now() },
});
interface Collection {
  readonly count: number;
  readonly at: (index: number) => { readonly metadata: object };
}

const COLLECTIONS: Readonly<Record<string, Collection>> = {
  "/api/v1/nodes": { count: Number(nodes), at: nodeAt },
  "/api/v1/pods": { count: Number(pods), at: podAt },
  "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": { count: Number(nodes), at: leaseAt },
};

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  idleTimeout: 0,
  tls: { cert: readFileSync(certificate, "utf8"), key: readFileSync(key, "utf8") },
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const collection = COLLECTIONS[pathname];
    if (request.method !== "GET") return Response.json({ metadata: { resourceVersion: "1" } });
    if (searchParams.get("watch") === "true") return watch(collection);
    if (collection === undefined)
      return pathname.endsWith("configmaps")
        ? Response.json({ metadata: { resourceVersion: "1" }, items: [] })
        : Response.json({ code: 404, reason: "NotFound" }, { status: 404 });
    const from = Number(searchParams.get("continue") ?? 0);
    const to = Math.min(collection.count, from + Number(searchParams.get("limit") ?? 500));
    return Response.json({
      metadata: { resourceVersion: String(version), ...(to < collection.count ? { continue: String(to) } : {}) },
      items: Array.from({ length: to - from }, (_, index) => collection.at(from + index)),
    });
  },
});

/** As busy as such a cluster is: leases and pods change all the time. */
function watch(collection: Collection | undefined): Response {
  let index = 0;
  let timer: Timer;
  return new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(
          new TextEncoder().encode(
            `${JSON.stringify({ type: "BOOKMARK", object: { metadata: { resourceVersion: String(version) } } })}\n`,
          ),
        );
        timer = setInterval(() => {
          if (collection === undefined) return;
          const { metadata, ...rest } = collection.at(index++ % collection.count);
          const object = { metadata: { ...metadata, resourceVersion: String(++version) }, ...rest };
          controller.enqueue(new TextEncoder().encode(`${JSON.stringify({ type: "MODIFIED", object })}\n`));
        }, 1_000 / EVENTS_A_SECOND);
      },
      cancel: () => clearInterval(timer),
    }),
    { headers: { "Content-Type": "application/json" } },
  );
}
