/**
 * The gateway's objects in the cluster, and all that it knows: which port is
 * which node's, and which replica holds which node's tunnel. A replica that
 * starts anew finds everything here.
 *
 *   ConfigMap holdfast-gateway-ports   "20017": "edge-1"      one for all, changed with its resourceVersion
 *   EndpointSlice tunnel-HASH          the holder's address and the node's port
 *   Service tunnel-HASH                a ClusterIP for it, in mode `service`
 *
 * Slice and Service belong to the Node (ownerReferences): when it is deleted
 * the API server clears them away. Both are applied whole, so that writing them
 * once more changes nothing and creates what somebody deleted.
 */

import type { V1EndpointSlice, V1Node, V1Service } from "@kubernetes/client-node";
import { isIPv6 } from "node:net";
import * as v from "valibot";
import { sendTo, type KubernetesTarget } from "../cluster/kubernetes.ts";
import { reads, sent } from "../kube/wire.ts";
import { NODE_ANNOTATION, PLACE_LABELS, placeNameOf } from "../kube/tunnel-names.ts";
import { FIELD_MANAGER, GATEWAY_NAME, HANDOVER_ANNOTATION, HOLDER_ANNOTATION, KUBELET_PORT } from "./names.ts";
import { PortBook } from "./port-book.ts";

/** A node as the API server knows it. */
export interface KnownNode {
  readonly name: string;
  readonly uid: string;
}

/** Who holds a node's tunnel, and where it is to be reached. */
export interface Holder {
  /** Unique among replicas and their lives. */
  readonly identity: string;
  /** Of the replica's pod. */
  readonly address: string;
  /** The node's own port, at every replica. */
  readonly port: number;
  /** Where connections that came to another replica are handed over: ADDRESS:PORT. */
  readonly handover: string;
}

const TIMEOUT_MS = 10_000;

const nodesSchema = reads<{ items: V1Node[] }>()(
  v.object({ items: v.nullish(v.array(v.object({ metadata: v.object({ name: v.string(), uid: v.string() }) })), []) }),
);
const serviceSchema = reads<V1Service>()(
  v.object({ spec: v.object({ clusterIP: v.optional(v.string()), clusterIPs: v.optional(v.array(v.string())) }) }),
);
const sliceSchema = reads<V1EndpointSlice>()(
  v.object({
    metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
    endpoints: v.nullish(v.array(v.object({ addresses: v.array(v.string()) })), []),
    ports: v.nullish(v.array(v.object({ port: v.nullish(v.number()) })), []),
  }),
);

/** A node's holder, read off its EndpointSlice; undefined when the slice is none of ours. */
export function holderOf(slice: unknown): { readonly nodeName: string; readonly holder: Holder } | undefined {
  const read = v.safeParse(sliceSchema, slice);
  if (!read.success) return undefined;
  const { metadata, endpoints, ports } = read.output;
  const {
    [NODE_ANNOTATION]: nodeName,
    [HOLDER_ANNOTATION]: identity,
    [HANDOVER_ANNOTATION]: handover,
  } = metadata.annotations ?? {};
  const address = endpoints?.[0]?.addresses[0];
  const port = ports?.[0]?.port;
  if (!nodeName || !identity || !handover || !address || !port) return undefined;
  return { nodeName, holder: { identity, address, port, handover } };
}

/** Reads and writes them. */
export class GatewayObjects {
  readonly ports: PortBook;

  constructor(
    private readonly options: {
      readonly target: KubernetesTarget;
      readonly userAgent: string;
      readonly namespace: string;
      /** Nodes that may have a tunnel: a label selector; "" for all. */
      readonly nodeSelector: string;
      readonly ports: { readonly first: number; readonly last: number };
    },
  ) {
    this.ports = new PortBook({
      ...options.ports,
      ask: (method, name, body, accept) =>
        this.#ask(method, this.#path("v1", "configmaps", name), body, {
          ...(method === "PATCH" ? { contentType: "application/merge-patch+json" } : {}),
          ...(accept === undefined ? {} : { accept }),
        }),
    });
  }

  /** Where all of them are followed. */
  get slicesPath(): string {
    const selector = Object.entries(PLACE_LABELS)
      .map(([key, value]) => `${key}=${value}`)
      .join(",");
    return `${this.#path("discovery.k8s.io/v1", "endpointslices")}?labelSelector=${encodeURIComponent(selector)}`;
  }

  /** Where the nodes that may have a tunnel are followed. */
  get nodesPath(): string {
    const { nodeSelector } = this.options;
    return `/api/v1/nodes${nodeSelector === "" ? "" : `?labelSelector=${encodeURIComponent(nodeSelector)}`}`;
  }

  /** Asks for one node; undefined when there is none that may have a tunnel. @throws {ApiError} */
  async readNode(name: string): Promise<KnownNode | undefined> {
    const { nodesPath } = this;
    const field = `fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`;
    const list = v.parse(
      nodesSchema,
      await this.#ask("GET", `${nodesPath}${nodesPath.includes("?") ? "&" : "?"}${field}`),
    );
    const found = list.items?.[0]?.metadata;
    return found === undefined ? undefined : { name: found.name, uid: found.uid };
  }

  /** Says who holds a node's tunnel. @throws {ApiError} */
  async writeHolder(node: KnownNode, holder: Holder, isOfService: boolean): Promise<void> {
    const name = placeNameOf(node.name);
    const { identity, handover, port, address } = holder;
    const labels = { ...PLACE_LABELS, ...(isOfService ? { "kubernetes.io/service-name": name } : {}) };
    const annotations = { [HOLDER_ANNOTATION]: identity, [HANDOVER_ANNOTATION]: handover };
    const { metadata } = placeObject(node, this.options.namespace);
    const slice = sent<V1EndpointSlice>()({
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { ...metadata, labels, annotations: { ...metadata.annotations, ...annotations } },
      addressType: isIPv6(address) ? "IPv6" : "IPv4",
      endpoints: [{ addresses: [address], conditions: { ready: true } }],
      ports: [{ name: "kubelet", protocol: "TCP", port }],
    });
    await this.#apply(this.#path("discovery.k8s.io/v1", "endpointslices", name), slice);
  }

  /** Makes the node's Service, or finds it. @returns its addresses, the preferred one first. @throws {ApiError} */
  async writeService(node: KnownNode, port: number): Promise<readonly string[]> {
    const service = sent<V1Service>()({
      apiVersion: "v1",
      kind: "Service",
      ...placeObject(node, this.options.namespace),
      spec: { type: "ClusterIP", ports: [{ name: "kubelet", protocol: "TCP", port: KUBELET_PORT, targetPort: port }] },
    });
    const { spec } = v.parse(
      serviceSchema,
      await this.#apply(this.#path("v1", "services", placeNameOf(node.name)), service),
    );
    return spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP]);
  }

  #apply(path: string, object: object): Promise<unknown> {
    const query = `fieldManager=${FIELD_MANAGER}&force=true`;
    return this.#ask("PATCH", `${path}?${query}`, object, { contentType: "application/apply-patch+yaml" });
  }

  async #ask(
    method: string,
    path: string,
    body?: object,
    how: { readonly contentType?: string; readonly accept?: string } = {},
  ): Promise<unknown> {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const sending = { method, path, signal, ...(body === undefined ? {} : { body }), ...how };
    return await (await sendTo(this.options, sending)).json();
  }

  #path(groupVersion: string, resource: string, name?: string): string {
    const root = groupVersion === "v1" ? "/api/v1" : `/apis/${groupVersion}`;
    return `${root}/namespaces/${this.options.namespace}/${resource}${name === undefined ? "" : `/${name}`}`;
  }
}

function placeObject(node: KnownNode, namespace: string) {
  return {
    metadata: {
      name: placeNameOf(node.name),
      namespace,
      labels: { ...PLACE_LABELS, "app.kubernetes.io/managed-by": GATEWAY_NAME },
      annotations: { [NODE_ANNOTATION]: node.name },
      ownerReferences: [{ apiVersion: "v1", kind: "Node", name: node.name, uid: node.uid }],
    },
  };
}
