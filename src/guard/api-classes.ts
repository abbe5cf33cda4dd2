/**
 * Single objects by the API classes of @kubernetes/client-node, over our own HTTP.
 *
 * The package has a place for another HTTP library: ours passes CA, client
 * certificate and token to the runtime's fetch, and a refusal becomes an
 * `ApiError` before the package sees it. What goes in and comes out is JSON;
 * the classes' models, with times as Dates, stay in here.
 *
 * A model knows the fields of its release and drops all others. So it is for
 * objects that are read for a few fields, or written whole by us alone; what
 * belongs to others is patched, and lists are followed as they come
 * (`cluster/kubernetes.ts`). It is loaded when the first object is asked for, and never
 * on a node.
 */

import { ApiError, type ClusterApi, type PatchType } from "../cluster/api.ts";
import { sendTo, type KubernetesOptions } from "../cluster/kubernetes.ts";

/** How the API server is asked. */
export type ClusterApiOptions = Pick<KubernetesOptions, "target" | "userAgent" | "onContact" | "timeoutMs">;

const TIMEOUT_MS = 10_000;
const MOST_EVENTS = 100;
const NODE_LEASES = "kube-node-lease";

/** Asks an API server. Opens and loads nothing until asked. */
export function clusterApi(options: ClusterApiOptions): ClusterApi {
  let loaded: Promise<Classes> | undefined;
  const classes = () => (loaded ??= load(options));
  const ways: Ways = {
    async read(type, ask) {
      const given = await classes();
      const model = await orNone(ask(given));
      return model === undefined ? undefined : given.wire(model, type);
    },
    async write(type, object, ask) {
      const given = await classes();
      await ask(given, given.model(object, type) as never);
    },
    async patch(type, ask) {
      const given = await classes();
      await ask(given, given.header("Content-Type", type) as PatchOptions);
    },
  };
  return {
    ...nodesAndPods(ways),
    ...events(ways),
    ...ownObjects(ways),
    ...admission(ways),
    readMetrics: async () => (await asked(options, "GET", "/metrics", { accept: "text/plain, */*" })).text(),
  };
}

/** How a class is asked. */
interface Ways {
  /** @returns an object as JSON; undefined when there is none. */
  read(type: string, ask: (given: Classes) => Promise<unknown>): Promise<unknown>;
  write(type: string, object: object, ask: (given: Classes, body: never) => Promise<unknown>): Promise<void>;
  patch(type: PatchType, ask: (given: Classes, how: PatchOptions) => Promise<unknown>): Promise<void>;
}

function nodesAndPods({ read, patch }: Ways) {
  return {
    readNode: (name) => read("V1Node", ({ core }) => core.readNode({ name })),
    patchNode: (name, type, body) => patch(type, ({ core }, how) => core.patchNode({ name, body }, how)),
    patchNodeStatus: (name, type, body) => patch(type, ({ core }, how) => core.patchNodeStatus({ name, body }, how)),
    readNodeLease: (name) =>
      read("V1Lease", ({ coordination }) => coordination.readNamespacedLease({ namespace: NODE_LEASES, name })),
    readPod: (namespace, name) => read("V1Pod", ({ core }) => core.readNamespacedPod({ namespace, name })),
    patchPodStatus: (namespace, name, type, body) =>
      patch(type, ({ core }, how) => core.patchNamespacedPodStatus({ namespace, name, body }, how)),
  } satisfies Partial<ClusterApi>;
}

function events({ read, write }: Ways) {
  return {
    async readEvents(namespace, fieldSelector) {
      const list = await read("CoreV1EventList", ({ core }) =>
        core.listNamespacedEvent({ namespace, fieldSelector, limit: MOST_EVENTS }),
      );
      return (list as { items?: unknown[] } | undefined)?.items ?? [];
    },
    createEvent: (namespace, event) =>
      write("CoreV1Event", event, ({ core }, body) => core.createNamespacedEvent({ namespace, body })),
  } satisfies Partial<ClusterApi>;
}

/** What the guard keeps in its own namespace. */
function ownObjects({ read, write }: Ways) {
  return {
    readConfigMap: (namespace, name) =>
      read("V1ConfigMap", ({ core }) => core.readNamespacedConfigMap({ namespace, name })),
    createConfigMap: (namespace, object) =>
      write("V1ConfigMap", object, ({ core }, body) => core.createNamespacedConfigMap({ namespace, body })),
    readLease: (namespace, name) =>
      read("V1Lease", ({ coordination }) => coordination.readNamespacedLease({ namespace, name })),
    createLease: (namespace, lease) =>
      write("V1Lease", lease, ({ coordination }, body) => coordination.createNamespacedLease({ namespace, body })),
    replaceLease: (namespace, name, lease) =>
      write("V1Lease", lease, ({ coordination }, body) =>
        coordination.replaceNamespacedLease({ namespace, name, body }),
      ),
    readSecret: (namespace, name) => read("V1Secret", ({ core }) => core.readNamespacedSecret({ namespace, name })),
    createSecret: (namespace, secret) =>
      write("V1Secret", secret, ({ core }, body) => core.createNamespacedSecret({ namespace, body })),
    replaceSecret: (namespace, name, secret) =>
      write("V1Secret", secret, ({ core }, body) => core.replaceNamespacedSecret({ namespace, name, body })),
  } satisfies Partial<ClusterApi>;
}

/** Certificate requests, and the configurations of the webhook. */
function admission({ read, write, patch }: Ways) {
  return {
    approveRequest: (name, request) =>
      write("V1CertificateSigningRequest", request, ({ certificates }, body) =>
        certificates.replaceCertificateSigningRequestApproval({ name, body }),
      ),
    readWebhooks: (kind, name) =>
      kind === "validating"
        ? read("V1ValidatingWebhookConfiguration", (given) =>
            given.admission.readValidatingWebhookConfiguration({ name }),
          )
        : read("V1MutatingWebhookConfiguration", (given) => given.admission.readMutatingWebhookConfiguration({ name })),
    patchWebhooks: (kind, name, body) =>
      patch("application/json-patch+json", (given, how) =>
        kind === "validating"
          ? given.admission.patchValidatingWebhookConfiguration({ name, body }, how)
          : given.admission.patchMutatingWebhookConfiguration({ name, body }, how),
      ),
  } satisfies Partial<ClusterApi>;
}

type Classes = Awaited<ReturnType<typeof load>>;
type PatchOptions = NonNullable<Parameters<Classes["core"]["patchNode"]>[1]>;

async function load(options: ClusterApiOptions) {
  const [gen, { ObjectSerializer }, { setHeaderOptions }] = await Promise.all([
    import("@kubernetes/client-node/dist/gen/index.js"),
    import("@kubernetes/client-node/dist/gen/models/ObjectSerializer.js"),
    import("@kubernetes/client-node/dist/middleware.js"),
  ]);
  const httpApi = gen.wrapHttpLibrary({
    async send(request) {
      const { pathname, search } = new URL(request.getUrl());
      const body = request.getBody();
      const contentType = request.getHeaders()["Content-Type"];
      const response = await asked(options, request.getHttpMethod(), `${pathname}${search}`, {
        ...(body === undefined ? {} : { body }),
        ...(contentType === undefined ? {} : { contentType }),
      });
      return new gen.ResponseContext(response.status, Object.fromEntries(response.headers), {
        text: () => response.text(),
        binary: async () => Buffer.from(await response.arrayBuffer()),
        stream: () => response.body,
      });
    },
  });
  const configuration = gen.createConfiguration({
    baseServer: new gen.ServerConfiguration(options.target.server, {}),
    httpApi,
  });
  return {
    core: new gen.CoreV1Api(configuration),
    coordination: new gen.CoordinationV1Api(configuration),
    certificates: new gen.CertificatesV1Api(configuration),
    admission: new gen.AdmissionregistrationV1Api(configuration),
    header: setHeaderOptions,
    model: (object: object, type: string): unknown => ObjectSerializer.deserialize(object, type, ""),
    wire: (model: unknown, type: string): unknown => ObjectSerializer.serialize(model, type, ""),
  };
}

function asked(options: ClusterApiOptions, method: string, path: string, more: object): Promise<Response> {
  return sendTo(options, { method, path, signal: AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS), ...more });
}

async function orNone<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}
