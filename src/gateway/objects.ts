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

import type { V1ConfigMap, V1EndpointSlice, V1Node, V1Service } from "@kubernetes/client-node";
import { isIPv6 } from "node:net";
import * as v from "valibot";
import { ApiError } from "../cluster/api.ts";
import { sendTo, type KubernetesTarget } from "../cluster/kubernetes.ts";
import { reads, sent } from "../kube/wire.ts";
import {
  FIELD_MANAGER,
  GATEWAY_NAME,
  HANDOVER_ANNOTATION,
  HOLDER_ANNOTATION,
  KUBELET_PORT,
  NODE_ANNOTATION,
  PLACE_LABELS,
  placeNameOf,
  PORTS_NAME,
} from "./names.ts";

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

/** No port is left in the range. */
export class NoPortLeftError extends ApiError {
  constructor(first: number, last: number) {
    super(
      `Cannot give a node a port: all of ${first} to ${last} are taken; widen the range with --ports`,
      507,
      "NoPort",
    );
  }
}

const TIMEOUT_MS = 10_000;
const TRIES = 10;

const nodesSchema = reads<{ items: V1Node[] }>()(
  v.object({ items: v.nullish(v.array(v.object({ metadata: v.object({ name: v.string(), uid: v.string() }) })), []) }),
);
const portsSchema = reads<V1ConfigMap>()(
  v.object({
    metadata: v.object({ resourceVersion: v.string() }),
    data: v.nullish(v.record(v.string(), v.string()), {}),
  }),
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
  constructor(
    private readonly options: {
      readonly target: KubernetesTarget;
      readonly userAgent: string;
      readonly namespace: string;
      /** Nodes that may have a tunnel: a label selector; "" for all. */
      readonly nodeSelector: string;
      readonly ports: { readonly first: number; readonly last: number };
    },
  ) {}

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

  /** All ports that are given, by node. @throws {ApiError} */
  async readPorts(): Promise<ReadonlyMap<string, number>> {
    const { data } = await this.#portsObject();
    return new Map(Object.entries(data ?? {}).map(([port, node]) => [node, Number(port)]));
  }

  /**
   * The port of a node: the one it had, or a free one from now on. One of
   * several replicas is first; the others read again.
   *
   * @throws {ApiError}
   */
  async givePort(nodeName: string): Promise<number> {
    const { first, last } = this.options.ports;
    for (let attempt = 1; ; attempt++) {
      const { metadata, data } = await this.#portsObject();
      const taken = data ?? {};
      const own = Object.keys(taken).find((port) => taken[port] === nodeName);
      if (own !== undefined) return Number(own);
      const port = freePort(taken, first, last);
      if (port === undefined) throw new NoPortLeftError(first, last);
      const patch = { metadata: { resourceVersion: metadata.resourceVersion }, data: { [String(port)]: nodeName } };
      try {
        await this.#ask("PATCH", this.#path("v1", "configmaps", PORTS_NAME), patch, "application/merge-patch+json");
        return port;
      } catch (error) {
        if (!(error instanceof ApiError && error.isConflict) || attempt >= TRIES) throw error;
      }
    }
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

  /** Made by whoever is first; everybody reads it. */
  async #portsObject(): Promise<v.InferOutput<typeof portsSchema>> {
    const path = this.#path("v1", "configmaps", PORTS_NAME);
    for (let attempt = 1; ; attempt++) {
      try {
        return v.parse(portsSchema, await this.#ask("GET", path));
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 404) || attempt >= TRIES) throw error;
      }
      const object = sent<V1ConfigMap>()({
        apiVersion: "v1",
        kind: "ConfigMap",
        metadata: { name: PORTS_NAME, labels: { ...PLACE_LABELS, "app.kubernetes.io/component": "gateway" } },
      });
      await this.#ask("POST", this.#path("v1", "configmaps"), object).catch((error: unknown) => {
        if (!(error instanceof ApiError && error.isConflict)) throw error;
      });
    }
  }

  #apply(path: string, object: object): Promise<unknown> {
    const query = `fieldManager=${FIELD_MANAGER}&force=true`;
    return this.#ask("PATCH", `${path}?${query}`, object, "application/apply-patch+yaml");
  }

  async #ask(method: string, path: string, body?: object, contentType?: string): Promise<unknown> {
    const response = await sendTo(this.options, {
      method,
      path,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body === undefined ? {} : { body }),
      ...(contentType === undefined ? {} : { contentType }),
    });
    return await response.json();
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

/** By chance, so that replicas that ask at once seldom want the same. */
function freePort(taken: Readonly<Record<string, string>>, first: number, last: number): number | undefined {
  const count = last - first + 1;
  const start = Math.floor(Math.random() * count);
  for (let step = 0; step < count; step++) {
    const port = first + ((start + step) % count);
    if (taken[String(port)] === undefined) return port;
  }
  return undefined;
}
