/**
 * Which endpoints are put back while their node is cut.
 *
 * Nothing is refused here: that would freeze a Service for its pods on all
 * other nodes too. Just those endpoints are repaired whose node is held and
 * not heard, and whose pod was flipped by the node controller: Ready=False
 * without a reason, while its containers are ready. A kubelet gives a reason
 * with every Ready=False, so a failed probe and an unfulfilled readiness gate
 * that it reported stand, and a node that is heard speaks for itself.
 *
 * All other bytes stay as they were sent. Endpoints without a pod behind them,
 * endpoints of deleted pods and FQDN slices are nobody's silence.
 */

import type { V1EndpointSlice, V1Endpoints } from "@kubernetes/client-node";
import * as v from "valibot";
import { reads } from "../kube/wire.ts";
import { readObject, type AdmissionRequest } from "./admission-review.ts";
import type { JsonPatchOperation } from "../cluster/api.ts";
import type { ClusterView, GuardedPod } from "./cluster-view.ts";
import { NODE_REASONS, standingOf } from "./judge-node.ts";
import { ENDPOINT_CONTROLLER_USERS, NODES_GROUP, SHARED_CONTROLLER_USER } from "./names.ts";

/** Every reason a repair, or none, may have. */
export const ENDPOINT_REASONS = [
  "repaired",
  "nothing-unready",
  "no-pod",
  "pod-unready-itself",
  "node-heard",
  "not-a-controller",
  "names-only",
  ...NODE_REASONS,
] as const;

/** What is to be changed. */
export interface Repair {
  readonly patch: readonly JsonPatchOperation[];
  /** Stable; a metric's label. Without a patch: why the last endpoint in question was left as it is. */
  readonly reason: (typeof ENDPOINT_REASONS)[number];
  /** The pods whose endpoints were put back, "NAMESPACE/NAME". */
  readonly pods: readonly string[];
  /** The nodes they are on. */
  readonly nodeNames: readonly string[];
}

type Mender = (request: AdmissionRequest, view: ClusterView, nowMs: number) => Repair;

const optionalText = v.nullish(v.string("expected a string"), "");
const optionalFlag = v.nullish(v.boolean("expected true or false"));
const targetSchema = v.nullish(
  v.object({ kind: optionalText, namespace: optionalText, name: optionalText, uid: optionalText }, "expected a target"),
);
const sliceSchema = reads<V1EndpointSlice>()(
  v.object(
    {
      addressType: v.string("expected IPv4, IPv6 or FQDN"),
      endpoints: v.nullish(
        v.array(
          v.object(
            {
              conditions: v.nullish(
                v.object(
                  { ready: optionalFlag, serving: optionalFlag, terminating: optionalFlag },
                  "expected an endpoint's conditions",
                ),
              ),
              nodeName: optionalText,
              targetRef: targetSchema,
            },
            "expected an endpoint",
          ),
          "expected a list",
        ),
      ),
    },
    "expected an EndpointSlice",
  ),
);
const addressesSchema = v.nullish(
  v.array(
    v.object(
      { ip: v.string("expected an address"), nodeName: optionalText, targetRef: targetSchema },
      "expected an address",
    ),
    "expected a list",
  ),
);
const endpointsSchema = reads<V1Endpoints>()(
  v.object(
    {
      subsets: v.nullish(
        v.array(
          v.object({ addresses: addressesSchema, notReadyAddresses: addressesSchema }, "expected a subset"),
          "expected a list",
        ),
      ),
    },
    "expected Endpoints",
  ),
);

/** CREATE and UPDATE of an EndpointSlice: ready and serving are put back where they are false. */
export const mendEndpointSlice: Mender = (request, view, nowMs) => {
  if (!isWriter(request)) return unchanged("not-a-controller");
  const slice = readObject(sliceSchema, request.object, "object");
  if (slice.addressType === "FQDN") return unchanged("names-only");
  const found = new Findings(request, view, nowMs);
  const patch = (slice.endpoints ?? []).flatMap((endpoint, index) => {
    const { conditions } = endpoint;
    if (conditions?.terminating === true) return [];
    // Absent is not false: it means "unknown", and consumers take it for ready.
    const fields = (["ready", "serving"] as const).filter((field) => conditions?.[field] === false);
    if (fields.length === 0 || !found.isCutOff(endpoint)) return [];
    return fields.flatMap((field): JsonPatchOperation[] => {
      const path = `/endpoints/${index}/conditions/${field}`;
      return [
        { op: "test", path, value: false },
        { op: "replace", path, value: true },
      ];
    });
  });
  return found.repair(patch);
};

/** CREATE and UPDATE of Endpoints: addresses go back from notReadyAddresses, as they are, to the end of their subset's addresses. */
export const mendEndpoints: Mender = (request, view, nowMs) => {
  if (!isWriter(request)) return unchanged("not-a-controller");
  const { subsets } = readObject(endpointsSchema, request.object, "object");
  const found = new Findings(request, view, nowMs);
  const patch = (subsets ?? []).flatMap(({ addresses, notReadyAddresses }, index) => {
    const unready = notReadyAddresses ?? [];
    const ready = new Set((addresses ?? []).map(({ ip }) => ip));
    const moved = unready.flatMap((address, at) =>
      found.isCutOff(address) && !ready.has(address.ip) ? [{ at, whole: wholeAddress(request.object, index, at) }] : [],
    );
    return moved.length === 0 ? [] : movesOf(`/subsets/${index}`, moved, unready.length, (addresses ?? []).length > 0);
  });
  return found.repair(patch);
};

interface Moved {
  readonly at: number;
  /** The address as it was sent, with fields we do not know. */
  readonly whole: unknown;
}

function movesOf(
  subset: string,
  moved: readonly Moved[],
  unreadyCount: number,
  hasReady: boolean,
): JsonPatchOperation[] {
  const [from, to] = [`${subset}/notReadyAddresses`, `${subset}/addresses`];
  const tests = moved.map(({ at, whole }): JsonPatchOperation => ({ op: "test", path: `${from}/${at}`, value: whole }));
  // From the end: an index must still mean the same when its turn comes.
  const removals: JsonPatchOperation[] =
    moved.length === unreadyCount
      ? [{ op: "remove", path: from }]
      : moved.toReversed().map(({ at }) => ({ op: "remove", path: `${from}/${at}` }));
  const additions: JsonPatchOperation[] = hasReady
    ? moved.map(({ whole }) => ({ op: "add", path: `${to}/-`, value: whole }))
    : [{ op: "add", path: to, value: moved.map(({ whole }) => whole) }];
  return [...tests, ...removals, ...additions];
}

function wholeAddress(object: unknown, subset: number, at: number): unknown {
  return (object as { subsets: { notReadyAddresses: unknown[] }[] }).subsets[subset]!.notReadyAddresses[at];
}

/** What was found out on the way through one object. */
class Findings {
  readonly #pods = new Set<string>();
  readonly #nodeNames = new Set<string>();
  #reason: Repair["reason"] = "nothing-unready";

  constructor(
    private readonly request: AdmissionRequest,
    private readonly view: ClusterView,
    private readonly nowMs: number,
  ) {}

  /** Whether an unready endpoint is unready on account of its node's silence alone. */
  isCutOff({ targetRef }: { readonly targetRef?: v.InferOutput<typeof targetSchema> }): boolean {
    const pod = this.#podOf(targetRef);
    if (pod === undefined) return this.#no("no-pod");
    const isFlipped = !pod.ready && pod.containersReady && pod.readyReason === undefined && !pod.isDeleting;
    if (!isFlipped || pod.phase !== "Running") return this.#no("pod-unready-itself");
    // The pod's own node, not the endpoint's: that field is a copy, and may be absent.
    const standing = standingOf(this.view, pod.nodeName, this.nowMs);
    if (!standing.isHeld) return this.#no(standing.reason);
    if (standing.node.hearing === "heard") return this.#no("node-heard");
    this.#pods.add(`${pod.namespace}/${pod.name}`);
    this.#nodeNames.add(pod.nodeName);
    return true;
  }

  repair(patch: readonly JsonPatchOperation[]): Repair {
    if (patch.length === 0) return unchanged(this.#reason);
    return { patch, reason: "repaired", pods: [...this.#pods], nodeNames: [...this.#nodeNames] };
  }

  /** A pod of the same name but another uid is another pod. */
  #podOf(target: v.InferOutput<typeof targetSchema>): GuardedPod | undefined {
    if (target?.kind !== "Pod") return undefined;
    const pod = this.view.pod(target.namespace === "" ? this.request.namespace : target.namespace, target.name);
    return pod !== undefined && (target.uid === "" || target.uid === pod.uid) ? pod : undefined;
  }

  #no(reason: Repair["reason"]): false {
    this.#reason = reason;
    return false;
  }
}

const WRITERS = new Set<string>([...ENDPOINT_CONTROLLER_USERS, SHARED_CONTROLLER_USER]);

function isWriter({ user }: AdmissionRequest): boolean {
  return WRITERS.has(user.username) && !user.groups.includes(NODES_GROUP);
}

function unchanged(reason: Repair["reason"]): Repair {
  return { patch: [], reason, pods: [], nodeNames: [] };
}
