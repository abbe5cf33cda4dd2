/**
 * A cluster in a few lines for the guard's tests: a view that says what it is
 * told, an API that keeps objects and honours resourceVersion, and reviews.
 */
import {
  ApiError,
  type ClusterApi,
  type Collections,
  type PatchType,
  type WatchEvent,
  type WebhookKind,
} from "../../src/cluster/api.ts";
import type { AdmissionRequest } from "../../src/guard/admission-review.ts";
import type { ClusterView, GuardedNode, GuardedPod } from "../../src/guard/cluster-view.ts";
import { readParameters } from "../../src/guard/parameters.ts";

export const NODE_CONTROLLER = "system:serviceaccount:kube-system:node-controller";
export const POD_GC = "system:serviceaccount:kube-system:pod-garbage-collector";
export const SHARED = "system:kube-controller-manager";
export const SLICES = "system:serviceaccount:kube-system:endpointslice-controller";
export const NOW_MS = Date.parse("2026-11-24T12:00:00Z");

/** A held node that has been silent for an hour. */
export function guardedNode(more: Partial<GuardedNode> = {}): GuardedNode {
  return {
    name: "edge",
    uid: "node-uid",
    terms: { via: "label", asksWitnesses: false, boundMs: undefined, released: undefined },
    ready: "Unknown",
    taints: [],
    hearing: "silent",
    lastSeenMs: NOW_MS - 3_600_000,
    ...more,
  };
}

/** A pod that the node controller has flipped: its containers are ready, and no reason is given. */
export function guardedPod(more: Partial<GuardedPod> = {}): GuardedPod {
  return {
    namespace: "shop",
    name: "web",
    uid: "pod-uid",
    nodeName: "edge",
    phase: "Running",
    isDeleting: false,
    ready: false,
    containersReady: true,
    readyReason: undefined,
    disruption: undefined,
    ...more,
  };
}

/** A view of these. */
export function viewOf(
  nodes: readonly GuardedNode[],
  pods: readonly GuardedPod[] = [],
  data: Readonly<Record<string, string>> = {},
): ClusterView & { nodeList: GuardedNode[]; isSynced: boolean } {
  const parameters = readParameters(data);
  return {
    isSynced: true,
    parameters,
    nodeList: [...nodes],
    node(name) {
      return this.nodeList.find((node) => node.name === name);
    },
    nodes() {
      return this.nodeList;
    },
    pod: (namespace, name) => pods.find((pod) => pod.namespace === namespace && pod.name === name),
    podsOn: (nodeName) => pods.filter((pod) => pod.nodeName === nodeName),
  };
}

/** A request as the judges get it. */
export function requestOf(more: Partial<AdmissionRequest> = {}): AdmissionRequest {
  return {
    uid: "review-uid",
    operation: "DELETE",
    group: "",
    resource: "pods",
    subresource: "",
    namespace: "shop",
    name: "web",
    user: { username: NODE_CONTROLLER, groups: ["system:serviceaccounts"] },
    isDryRun: false,
    object: null,
    oldObject: null,
    ...more,
  };
}

/** A pod as the API server sends it. */
export function rawPod(
  conditions: Readonly<Record<string, string>>,
  more: {
    readonly nodeName?: string;
    readonly phase?: string;
    readonly deletionTimestamp?: string;
    readonly reason?: string;
  } = {},
): object {
  const { nodeName = "edge", phase = "Running", deletionTimestamp, reason = "DeletionByTaintManager" } = more;
  return {
    metadata: { name: "web", namespace: "shop", ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }) },
    spec: { nodeName },
    status: {
      phase,
      conditions: Object.entries(conditions).map(([type, status]) => ({
        type,
        status,
        ...(type === "DisruptionTarget" ? { reason } : {}),
      })),
    },
  };
}

interface Kept {
  readonly metadata: { readonly name: string; readonly resourceVersion: string };
  readonly [field: string]: unknown;
}

interface Watcher {
  readonly base: string;
  readonly waiting: WatchEvent[];
  wake: () => void;
}

/** Objects by path, with the rules of writing that the guard relies on. */
export class MemoryApi implements ClusterApi, Collections {
  readonly objects = new Map<string, Kept>();
  /** Everything that was asked, "VERB PATH". */
  readonly asked: string[] = [];
  /** Set: whatever is asked fails with it. */
  failure: ApiError | undefined;
  /** What is refused, "VERB PATH". */
  refuses: (asked: string) => boolean = () => false;
  readonly #watchers = new Set<Watcher>();
  #version = 0;

  put(path: string, object: object): void {
    const { metadata = {} } = object as { metadata?: object };
    const name = path.split("/").at(-1)!;
    const kept = { ...object, metadata: { name, ...metadata, resourceVersion: String(++this.#version) } };
    this.#tell(path, this.objects.has(path) ? "MODIFIED" : "ADDED", kept);
    this.objects.set(path, kept);
  }

  remove(path: string): void {
    const kept = this.objects.get(path);
    this.objects.delete(path);
    if (kept !== undefined) this.#tell(path, "DELETED", kept);
  }

  async get(path: string): Promise<unknown> {
    this.#ask("GET", path);
    return structuredClone(this.objects.get(path));
  }

  async create(path: string, object: object): Promise<unknown> {
    this.#ask("POST", path);
    const { name } = (object as Kept).metadata;
    if (this.objects.has(`${path}/${name}`)) throw new ApiError("exists", 409, "AlreadyExists");
    this.put(`${path}/${name}`, object);
    return this.objects.get(`${path}/${name}`);
  }

  async update(given: string, object: object): Promise<unknown> {
    this.#ask("PUT", given);
    const path = given.replace(/\/approval$/, "");
    const known = this.objects.get(path);
    if (known === undefined) throw new ApiError("gone", 404, "NotFound");
    if (known.metadata.resourceVersion !== (object as Kept).metadata.resourceVersion)
      throw new ApiError("conflict", 409, "Conflict");
    this.put(path, object);
    return this.objects.get(path);
  }

  async patch(path: string, type: PatchType, body: unknown): Promise<unknown> {
    this.#ask("PATCH", path);
    const [, object = path, subresource] = /^(.*)\/(status|approval)$/.exec(path) ?? [];
    const known = this.objects.get(object);
    if (known === undefined) throw new ApiError("gone", 404, "NotFound");
    const { resourceVersion } = (body as { metadata?: { resourceVersion?: string } }).metadata ?? {};
    if (resourceVersion !== undefined && resourceVersion !== known.metadata.resourceVersion)
      throw new ApiError("conflict", 409, "Conflict");
    if (type === "application/json-patch+json")
      this.put(object, jsonPatched(known, body as PatchOperation[]) as object);
    else this.put(object, merged(known, body, type.includes("strategic") && subresource === "status") as object);
    return this.objects.get(object);
  }

  readNode = (name: string) => this.get(`/api/v1/nodes/${name}`);
  patchNode = async (name: string, type: PatchType, body: object) => {
    await this.patch(`/api/v1/nodes/${name}`, type, body);
  };
  patchNodeStatus = async (name: string, type: PatchType, body: object) => {
    await this.patch(`/api/v1/nodes/${name}/status`, type, body);
  };
  readNodeLease = (name: string) => this.readLease("kube-node-lease", name);
  readPod = (namespace: string, name: string) => this.get(`/api/v1/namespaces/${namespace}/pods/${name}`);
  patchPodStatus = async (namespace: string, name: string, type: PatchType, body: object) => {
    await this.patch(`/api/v1/namespaces/${namespace}/pods/${name}/status`, type, body);
  };
  readConfigMap = (namespace: string, name: string) => this.get(`/api/v1/namespaces/${namespace}/configmaps/${name}`);
  createConfigMap = async (namespace: string, object: object) => {
    await this.create(`/api/v1/namespaces/${namespace}/configmaps`, object);
  };
  readLease = (namespace: string, name: string) => this.get(`${leases(namespace)}/${name}`);
  createLease = async (namespace: string, lease: object) => {
    await this.create(leases(namespace), lease);
  };
  replaceLease = async (namespace: string, name: string, lease: object) => {
    await this.update(`${leases(namespace)}/${name}`, lease);
  };
  readSecret = (namespace: string, name: string) => this.get(`/api/v1/namespaces/${namespace}/secrets/${name}`);
  createSecret = async (namespace: string, secret: object) => {
    await this.create(`/api/v1/namespaces/${namespace}/secrets`, secret);
  };
  replaceSecret = async (namespace: string, name: string, secret: object) => {
    await this.update(`/api/v1/namespaces/${namespace}/secrets/${name}`, secret);
  };
  readEvents = async (namespace: string) => (await this.list(`/api/v1/namespaces/${namespace}/events`)).items;
  createEvent = async (namespace: string, event: object) => {
    await this.create(`/api/v1/namespaces/${namespace}/events`, event);
  };
  approveRequest = async (name: string, request: object) => {
    await this.update(`/apis/certificates.k8s.io/v1/certificatesigningrequests/${name}/approval`, request);
  };
  readWebhooks = (kind: WebhookKind, name: string) => this.get(webhooks(kind, name));
  patchWebhooks = async (kind: WebhookKind, name: string, patch: readonly object[]) => {
    await this.patch(webhooks(kind, name), "application/json-patch+json", patch);
  };
  readMetrics = async () => {
    this.#ask("GET", "/metrics");
    return "";
  };

  async list(path: string) {
    this.#ask("LIST", path);
    const [base = path] = path.split("?");
    const items = [...this.objects]
      .filter(([key]) => key.startsWith(`${base}/`) || isOfAllNamespaces(base, key))
      .map(([, object]) => object);
    return { items: structuredClone(items), resourceVersion: String(this.#version), next: undefined, sizeBytes: 0 };
  }

  async *watch(path: string, _version: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const watcher: Watcher = { base: path.split("?")[0]!, waiting: [], wake: () => {} };
    this.#watchers.add(watcher);
    try {
      while (!signal.aborted) {
        const next = watcher.waiting.shift();
        if (next !== undefined) yield next;
        else
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
            signal.addEventListener("abort", () => resolve(), { once: true });
          });
      }
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  #tell(path: string, type: WatchEvent["type"], object: unknown): void {
    for (const watcher of this.#watchers) {
      if (!path.startsWith(`${watcher.base}/`) && !isOfAllNamespaces(watcher.base, path)) continue;
      watcher.waiting.push({ type, object: structuredClone(object) });
      watcher.wake();
    }
  }

  #ask(verb: string, path: string): void {
    this.asked.push(`${verb} ${path}`);
    if (this.failure !== undefined) throw this.failure;
    if (this.refuses(`${verb} ${path}`)) throw new ApiError("refused", 500, "InternalError");
  }
}

function leases(namespace: string): string {
  return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
}

function webhooks(kind: WebhookKind, name: string): string {
  return `/apis/admissionregistration.k8s.io/v1/${kind}webhookconfigurations/${name}`;
}

/** Whether an object lies in a collection that is asked for without a namespace. */
function isOfAllNamespaces(base: string, path: string): boolean {
  const [, resource] = /^\/api\/v1\/([a-z]+)$/.exec(base) ?? [];
  return resource !== undefined && new RegExp(`^/api/v1/namespaces/[^/]+/${resource}/`).test(path);
}

interface PatchOperation {
  readonly op: "test" | "replace" | "add" | "remove";
  readonly path: string;
  readonly value?: unknown;
}

/** Applies a JSON patch, RFC 6902, as far as ours go. @throws {ApiError} 422 when a test fails. */
export function jsonPatched(given: unknown, operations: readonly PatchOperation[]): unknown {
  const root = structuredClone(given) as Record<string, unknown>;
  for (const { op, path, value } of operations) {
    const keys = path
      .split("/")
      .slice(1)
      .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = keys.pop()!;
    const parent = keys.reduce((at, key) => at[key] as Record<string, unknown>, root);
    if (parent === undefined) throw new ApiError(`no ${path}`, 422, "Invalid");
    if (op === "test") {
      if (!Bun.deepEquals(parent[last], value)) throw new ApiError(`test of ${path} failed`, 422, "Invalid");
    } else if (op === "remove") {
      if (!(last in parent)) throw new ApiError(`nothing at ${path}`, 422, "Invalid");
      if (Array.isArray(parent)) parent.splice(Number(last), 1);
      else delete parent[last];
    } else if (Array.isArray(parent) && op === "add")
      parent.splice(last === "-" ? parent.length : Number(last), 0, value);
    else parent[last] = value;
  }
  return root;
}

/** A merge patch; with `byType` lists of conditions are merged by their type. */
function merged(given: unknown, patch: unknown, byType: boolean): unknown {
  if (Array.isArray(patch) && Array.isArray(given) && byType) {
    const kept = new Map(given.map((one: { type: string }) => [one.type, one]));
    for (const one of patch as { type: string; $patch?: string }[])
      if (one.$patch === "delete") kept.delete(one.type);
      else kept.set(one.type, { ...kept.get(one.type), ...one });
    return [...kept.values()];
  }
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const result = { ...(given as object) } as Record<string, unknown>;
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value, byType);
  }
  return result;
}
