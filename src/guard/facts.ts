/**
 * What is kept of an object: of a pod a dozen words, of a node what the rules
 * and the truth need. What cannot be read is nothing, never an error.
 */

import type { V1ConfigMap, V1Lease, V1Node, V1Pod } from "@kubernetes/client-node";
import * as v from "valibot";
import { reads } from "../kube/wire.ts";
import type { GuardedNode, GuardedPod, Taint } from "./cluster-view.ts";
import type { Renewal } from "./hearing.ts";

/** A node as it was last seen, with what only the truth needs. */
export interface NodeFacts {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly ready: GuardedNode["ready"];
  /** As they stand in the object, every field. */
  readonly taints: readonly (Taint & Readonly<Record<string, unknown>>)[];
  readonly conditions: readonly NodeCondition[];
  readonly addresses: readonly { readonly type: string; readonly address: string }[];
  readonly kubeletPort: number;
}

/** A condition of a node. */
export interface NodeCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly lastTransitionTime: string;
}

/** The ConfigMap with the parameters, without what the API server adds. */
export interface ParametersObject {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** As it came; `readParameters` says what cannot be read. */
  readonly data: unknown;
}

const KUBELET_PORT = 10250;

const text = v.nullish(v.string(), "");
const texts = v.nullish(v.record(v.string(), v.string()), {});
const metadata = v.object({ name: v.string(), namespace: text, uid: text, resourceVersion: text });
const conditions = v.nullish(
  v.array(v.object({ type: text, status: text, reason: text, lastTransitionTime: text })),
  [],
);
const nodeSchema = reads<V1Node>()(
  v.object({
    metadata: v.object({ ...metadata.entries, labels: texts, annotations: texts }),
    spec: v.nullish(v.object({ taints: v.nullish(v.array(v.looseObject({ key: v.string(), effect: text })), []) })),
    status: v.nullish(
      v.object({
        conditions,
        addresses: v.nullish(v.array(v.object({ type: text, address: text })), []),
        daemonEndpoints: v.nullish(
          v.object({ kubeletEndpoint: v.nullish(v.object({ Port: v.nullish(v.number(), KUBELET_PORT) })) }),
        ),
      }),
    ),
  }),
);
const leaseSchema = reads<V1Lease>()(
  v.object({ metadata, spec: v.nullish(v.object({ renewTime: v.nullish(v.string()) })) }),
);
const podSchema = reads<V1Pod>()(
  v.object({
    metadata: v.object({ ...metadata.entries, deletionTimestamp: v.nullish(v.string()) }),
    spec: v.nullish(v.object({ nodeName: text })),
    status: v.nullish(v.object({ phase: text, conditions })),
  }),
);
const configMapSchema = reads<V1ConfigMap>()(
  v.object({
    metadata: v.object({ ...metadata.entries, labels: texts, annotations: texts }),
    data: v.unknown(),
  }),
);
const nameSchema = v.object({ metadata });

/** A node. */
export function nodeFacts(object: unknown): NodeFacts | undefined {
  const parsed = v.safeParse(nodeSchema, object);
  if (!parsed.success) return undefined;
  const { metadata: meta, spec, status } = parsed.output;
  const ready = status?.conditions.find(({ type }) => type === "Ready")?.status;
  return {
    name: meta.name,
    uid: meta.uid,
    resourceVersion: meta.resourceVersion,
    labels: meta.labels,
    annotations: meta.annotations,
    ready: ready === "True" || ready === "False" || ready === "Unknown" ? ready : undefined,
    taints: spec?.taints ?? [],
    conditions: status?.conditions ?? [],
    addresses: status?.addresses ?? [],
    kubeletPort: status?.daemonEndpoints?.kubeletEndpoint?.Port ?? KUBELET_PORT,
  };
}

/** A node's lease. */
export function leaseFacts(object: unknown): { readonly name: string; readonly renewal: Renewal } | undefined {
  const parsed = v.safeParse(leaseSchema, object);
  if (!parsed.success) return undefined;
  const { metadata: meta, spec } = parsed.output;
  return {
    name: meta.name,
    renewal: { renewTime: spec?.renewTime ?? undefined, resourceVersion: meta.resourceVersion },
  };
}

/** A pod. @param word the one copy of a text that stands in many pods. */
export function podFacts(object: unknown, word: (text: string) => string): GuardedPod | undefined {
  const parsed = v.safeParse(podSchema, object);
  if (!parsed.success) return undefined;
  const { metadata: meta, spec, status } = parsed.output;
  const condition = (type: string) => status?.conditions.find((one) => one.type === type);
  const ready = condition("Ready");
  const disruption = condition("DisruptionTarget");
  return {
    namespace: word(meta.namespace),
    name: meta.name,
    uid: meta.uid,
    nodeName: word(spec?.nodeName ?? ""),
    phase: word(status?.phase ?? ""),
    isDeleting: typeof meta.deletionTimestamp === "string",
    ready: ready?.status === "True",
    containersReady: condition("ContainersReady")?.status === "True",
    readyReason: ready === undefined || ready.reason === "" ? undefined : word(ready.reason),
    disruption: disruption?.status === "True" ? word(disruption.reason) : undefined,
  };
}

/** The ConfigMap with the parameters. */
export function parametersFacts(object: unknown): ParametersObject | undefined {
  const parsed = v.safeParse(configMapSchema, object);
  if (!parsed.success) return undefined;
  const { metadata: meta, data } = parsed.output;
  return { name: meta.name, labels: meta.labels, annotations: meta.annotations, data: data ?? undefined };
}

/** Where an object stands, whatever it is. */
export function placeOf(object: unknown): { readonly namespace: string; readonly name: string } | undefined {
  const parsed = v.safeParse(nameSchema, object);
  return parsed.success ? parsed.output.metadata : undefined;
}
