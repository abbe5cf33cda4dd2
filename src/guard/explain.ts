/**
 * Why something was or was not denied, in words for people.
 *
 * Everything is read from the API server at this moment and judged by the same
 * functions as the webhook's; no running guard is asked, so it answers when
 * there is none, and says so.
 */

import type { CoreV1Event, V1ConfigMap, V1Lease, V1Node, V1Pod } from "@kubernetes/client-node";
import * as v from "valibot";
import { formatDuration } from "../base/units.ts";
import { reads } from "../kube/wire.ts";
import { ApiError, type ClusterApi } from "../cluster/api.ts";
import { EVICTING_TAINTS, OPENYURT_DURATION, OPT_IN_LABEL, PARAMETERS_NAME, REACHABLE_CONDITION } from "./names.ts";
import { readParameters, type GuardParameters } from "./parameters.ts";
import { termsOf, type HoldTerms } from "./terms.ts";

/** What is known, for `-o json` and for `explanationText`. */
export interface Explanation {
  readonly node: string;
  readonly pod: string | undefined;
  /** One of: held, released, bound-passed, not-ready-itself, tainted-by-person, not-opted-in, node-gone. */
  readonly verdict: string;
  /** A sentence each, most telling first. */
  readonly facts: readonly string[];
  /** What the guard or a policy has refused, newest last. */
  readonly refusals: readonly string[];
  /** What a person can do. */
  readonly steps: readonly string[];
}

/** There is no such node or pod. */
export class NothingToExplain extends Error {
  override readonly name = "NothingToExplain";
}

const text = v.nullish(v.string(), "");
const texts = v.nullish(v.record(v.string(), v.string()), {});
const condition = v.object({ type: text, status: text, reason: text, message: text });
const conditions = v.nullish(v.array(condition), []);
const nodeSchema = reads<V1Node>()(
  v.object({
    metadata: v.object({ name: v.string(), labels: texts, annotations: texts }),
    spec: v.nullish(v.object({ taints: v.nullish(v.array(v.object({ key: text, effect: text })), []) })),
    status: v.nullish(v.object({ conditions })),
  }),
);
const podSchema = reads<V1Pod>()(
  v.object({
    metadata: v.object({ deletionTimestamp: v.nullish(v.string()) }),
    spec: v.nullish(v.object({ nodeName: text })),
    status: v.nullish(v.object({ phase: text, conditions })),
  }),
);
const leaseSchema = reads<V1Lease>()(v.object({ spec: v.nullish(v.object({ renewTime: text })) }));
const configMapSchema = reads<V1ConfigMap>()(v.object({ data: v.unknown() }));
const eventSchema = reads<CoreV1Event>()(
  v.object({ reason: text, message: text, lastTimestamp: text, count: v.nullish(v.number(), 1) }),
);

/** Where to look. */
export interface ExplainOptions {
  readonly api: ClusterApi;
  readonly namespace: string;
  readonly nowMs: number;
}

/**
 * Explains a node.
 *
 * @throws {NothingToExplain}
 */
export async function explainNode(name: string, options: ExplainOptions): Promise<Explanation> {
  const { api } = options;
  const found = await api.readNode(name);
  if (found === undefined) throw new NothingToExplain(`There is no node "${name}"`);
  const node = await readSurroundings(v.parse(nodeSchema, found), options);
  const verdict = verdictOn(node);
  const refusals = [...(await eventsOf(api, "", "Node", name)), ...(await policyRefusals(api))];
  return {
    node: name,
    pod: undefined,
    verdict,
    facts: factsOn(node, verdict),
    refusals,
    steps: stepsFor(name, verdict),
  };
}

type Node = v.InferOutput<typeof nodeSchema>;

/** A node, with what else decides about it. */
interface Surroundings {
  readonly node: Node;
  /** Undefined: there is no ConfigMap. */
  readonly data: unknown;
  readonly namespace: string;
  readonly parameters: GuardParameters;
  readonly terms: HoldTerms | undefined;
  /** Empty: never, or there is no lease. */
  readonly renewTime: string;
  readonly silentMs: number;
}

async function readSurroundings(node: Node, { api, namespace, nowMs }: ExplainOptions): Promise<Surroundings> {
  const configMap = await api.readConfigMap(namespace, PARAMETERS_NAME);
  const data = configMap === undefined ? undefined : (v.parse(configMapSchema, configMap).data ?? {});
  const parameters = readParameters(data);
  const lease = await api.readNodeLease(node.metadata.name);
  const renewTime = lease === undefined ? "" : (v.parse(leaseSchema, lease).spec?.renewTime ?? "");
  const terms = termsOf(node.metadata, parameters);
  return { node, data, namespace, parameters, terms, renewTime, silentMs: nowMs - Date.parse(renewTime) };
}

function verdictOn({ node, terms, silentMs }: Surroundings): string {
  const isByPerson = (node.spec?.taints ?? []).some(
    ({ key, effect }) => effect === "NoExecute" && !(EVICTING_TAINTS as readonly string[]).includes(key),
  );
  if (terms === undefined) return "not-opted-in";
  if (terms.released !== undefined) return "released";
  if (isByPerson) return "tainted-by-person";
  if (conditionOf(node, "Ready")?.status === "False") return "not-ready-itself";
  return terms.boundMs !== undefined && silentMs > terms.boundMs ? "bound-passed" : "held";
}

function factsOn(surroundings: Surroundings, verdict: string): string[] {
  const { node, data, namespace, parameters, renewTime, silentMs } = surroundings;
  const reachable = conditionOf(node, REACHABLE_CONDITION);
  const taints = (node.spec?.taints ?? []).map(({ key, effect }) => `${key}:${effect}`);
  return [
    VERDICTS[verdict]!,
    ...(data === undefined
      ? [`ConfigMap ${namespace}/${PARAMETERS_NAME} is not there: the policies on nodes are asleep`]
      : parameters.problems.map((problem) => `parameter ${problem}`)),
    ...termsInWords(surroundings),
    renewTime === ""
      ? "its lease was never renewed, or is gone"
      : `its lease was renewed at ${renewTime} (${formatDuration(silentMs)} ago, if the clocks agree)`,
    `Ready is ${conditionOf(node, "Ready")?.status ?? "absent"}`,
    reachable === undefined
      ? `${REACHABLE_CONDITION} is absent: no guard has looked at it yet`
      : `${REACHABLE_CONDITION} is ${reachable.status}: ${reachable.message}`,
    `taints: ${taints.length === 0 ? "none" : taints.join(", ")}`,
  ];
}

function termsInWords({ node: { metadata }, data, terms }: Surroundings): string[] {
  if (terms === undefined) return [];
  const bound =
    terms.boundMs === undefined ? "none, it is held for as long as it takes" : formatDuration(terms.boundMs);
  return [
    terms.via === "label"
      ? `opted in by label ${OPT_IN_LABEL}=${metadata.labels[OPT_IN_LABEL]}`
      : "opted in by OpenYurt's annotations",
    `bound: ${bound}, from ${boundSource(metadata.name, metadata.annotations, data)}`,
    ...(terms.released === undefined ? [] : [`released by the guard: ${terms.released}`]),
  ];
}

function conditionOf({ status }: Node, type: string) {
  return status?.conditions.find((one) => one.type === type);
}

/**
 * Explains a pod: its node first, then what is its own.
 *
 * @throws {NothingToExplain}
 */
export async function explainPod(namespace: string, name: string, options: ExplainOptions): Promise<Explanation> {
  const { api } = options;
  const found = await api.readPod(namespace, name);
  if (found === undefined) throw new NothingToExplain(`There is no pod "${namespace}/${name}"`);
  const { metadata, spec, status } = v.parse(podSchema, found);
  const pod = `${namespace}/${name}`;
  const nodeName = spec?.nodeName ?? "";
  const refusals = await eventsOf(api, namespace, "Pod", name);
  if (nodeName === "")
    return {
      node: "",
      pod,
      verdict: "not-bound",
      facts: ["the pod is bound to no node: nothing holds it"],
      refusals,
      steps: [],
    };
  const node = await explainNode(nodeName, options).catch((error: unknown) => {
    if (error instanceof NothingToExplain) return undefined;
    throw error;
  });
  const condition = (type: string) => status?.conditions.find((one) => one.type === type);
  const disruption = condition("DisruptionTarget");
  const own = [
    ...(typeof metadata.deletionTimestamp === "string"
      ? ["it was deleted already, by whom ever: kubelet ends it when it hears of it"]
      : []),
    `phase ${status?.phase ?? "absent"}, Ready ${condition("Ready")?.status ?? "absent"}, ContainersReady ${condition("ContainersReady")?.status ?? "absent"}`,
    ...(disruption?.status === "True" ? [`marked for eviction: ${disruption.reason}`] : []),
  ];
  if (node === undefined)
    return {
      node: nodeName,
      pod,
      verdict: "node-gone",
      facts: [`node "${nodeName}" is gone: its pods are collected`, ...own],
      refusals,
      steps: [],
    };
  return {
    node: nodeName,
    pod,
    verdict: node.verdict,
    facts: [...own, `on node "${nodeName}": ${node.facts[0]}`, ...node.facts.slice(1)],
    refusals: [...refusals, ...node.refusals],
    steps: [`to delete it all the same: kubectl delete pod -n ${namespace} ${name}`, ...node.steps],
  };
}

/** For a terminal. */
export function explanationText({ node, pod, facts, refusals, steps }: Explanation): string {
  const section = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : ["", title, ...lines.map((line) => `  ${line}`)];
  return [
    pod === undefined ? `node ${node}` : `pod ${pod}`,
    ...facts.map((fact) => `  ${fact}`),
    ...section("refused lately", refusals),
    ...section("what you can do", steps),
  ].join("\n");
}

const VERDICTS: Readonly<Record<string, string>> = {
  held: "held: its silence evicts nothing, deletes nothing and takes nothing out of Services",
  released: "not held: the guard has ended its protection",
  "bound-passed": "not held: it has been silent for longer than its bound",
  "not-ready-itself": "not held: it says of itself that it is not ready",
  "tainted-by-person": "not held: somebody has tainted it with NoExecute",
  "not-opted-in": "not held: it has not opted in",
};

function stepsFor(name: string, verdict: string): string[] {
  if (verdict === "not-opted-in") return [`to hold it: kubectl label node ${name} ${OPT_IN_LABEL}=hold`];
  if (verdict !== "held") return [];
  return [
    `to give it up: kubectl label node ${name} ${OPT_IN_LABEL}-`,
    `to bound it: kubectl patch configmap -n holdfast-system ${PARAMETERS_NAME} -p '{"data":{"bound.${name}":"72h"}}'`,
  ];
}

function boundSource(name: string, annotations: Readonly<Record<string, string>>, data: unknown): string {
  const given = (data ?? {}) as Readonly<Record<string, unknown>>;
  if (given[`bound.${name}`] !== undefined) return `parameter bound.${name}`;
  if (annotations[OPENYURT_DURATION] !== undefined && given["openYurtAnnotations"] !== "false")
    return `annotation ${OPENYURT_DURATION}`;
  return given["bound"] === undefined ? "the default" : "parameter bound";
}

/** Our own Events on the object. */
async function eventsOf(api: ClusterApi, namespace: string, kind: string, name: string): Promise<string[]> {
  const within = namespace === "" ? "default" : namespace;
  try {
    const items = await api.readEvents(within, `involvedObject.kind=${kind},involvedObject.name=${name}`);
    return items
      .map((item) => v.safeParse(eventSchema, item))
      .flatMap((parsed) => (parsed.success && parsed.output.reason.startsWith("Holdfast") ? [parsed.output] : []))
      .toSorted((a, b) => a.lastTimestamp.localeCompare(b.lastTimestamp))
      .map(({ lastTimestamp, reason, message }) => `${lastTimestamp} ${reason}: ${message}`);
  } catch (error) {
    return [`Events cannot be read: ${reasonOf(error)}`];
  }
}

/** What the policies have refused, by this API server's own count since it started. */
async function policyRefusals(api: ClusterApi): Promise<string[]> {
  try {
    const metrics = await api.readMetrics();
    const line = /^apiserver_validating_admission_policy_check_total\{([^}]*)\} (\S+)$/gm;
    const counts = new Map<string, number>();
    for (const [, labels = "", count] of metrics.matchAll(line)) {
      const [, policy = ""] = /policy="([^"]*)"/.exec(labels) ?? [];
      if (!policy.startsWith("holdfast-") || !labels.includes('enforcement_action="deny"')) continue;
      counts.set(policy, (counts.get(policy) ?? 0) + Number(count));
    }
    return [...counts].map(
      ([policy, count]) => `policy ${policy}: ${count} requests about all nodes, since this API server started`,
    );
  } catch (error) {
    return [`the API server's count of refusals cannot be read: ${reasonOf(error)}`];
  }
}

function reasonOf(error: unknown): string {
  return error instanceof ApiError ? error.message : (error as Error).name;
}
