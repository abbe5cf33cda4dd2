/**
 * The truth about held nodes, since Ready no longer tells it.
 *
 * One replica writes it, on transitions only: the condition Reachable with the
 * moment the node was last heard, a NoSchedule taint so that new pods go
 * elsewhere, Events, and the label that ends protection. Which transition it is
 * is judged from what stands in the node, not from memory: a guard that was
 * started anew, or another that took over, says nothing twice.
 *
 * Protection ends when the silence has outlasted the bound, or when the node's
 * neighbours were asked and none hears it. From then on nothing is denied and
 * the control plane does what it would have done; when the node is heard again
 * the label goes and protection is back.
 */

import type { V1Node, V1NodeCondition, V1NodeStatus, V1Pod } from "@kubernetes/client-node";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { formatDuration } from "../base/units.ts";
import { patched, type Patch } from "../kube/wire.ts";
import { ApiError, type ClusterApi } from "../cluster/api.ts";
import type { GuardedNode, GuardedPod } from "./cluster-view.ts";
import { FairQueue, type Work } from "./fair-queue.ts";
import { describe } from "../cluster/follow.ts";
import type { Happenings } from "./happenings.ts";
import type { NodeFacts } from "./facts.ts";
import type { LiveView } from "./live-view.ts";
import {
  DISRUPTION_REASONS,
  EVICTING_TAINTS,
  REACHABLE_CONDITION,
  RELEASED_LABEL,
  UNREACHABLE_TAINT,
} from "./names.ts";

/** What a node's neighbours say. */
export type WitnessVerdict = "heard" | "unheard" | "unknown";

/** What the truth is made of. */
export interface ReachabilityOptions {
  readonly view: LiveView;
  readonly api: ClusterApi;
  readonly clock: Clock;
  readonly log: Log;
  readonly happenings: Happenings;
  /** Asked about silent nodes that ask for witnesses. Default: nobody knows. */
  readonly witness?: (node: NodeFacts) => WitnessVerdict;
}

/** Reasons of the condition. */
export const REACHABLE_REASONS = { heard: "LeaseRenewed", silent: "LeaseNotRenewed" } as const;

/** Objects written to at once: a mass cut is told in seconds, and floods nobody. */
const MOST_AT_ONCE = 20;
const MERGE = "application/merge-patch+json";
const STRATEGIC = "application/strategic-merge-patch+json";

type Step = () => Promise<void>;

/** Keeps the truth; `round` is one look at all nodes. */
export class Reachability {
  readonly #queue: FairQueue;

  constructor(private readonly options: ReachabilityOptions) {
    const { clock, log } = options;
    this.#queue = new FairQueue({
      clock,
      mostAtOnce: MOST_AT_ONCE,
      failed: (what, error) => {
        // Somebody else wrote the object meanwhile; the view will show it.
        if (error instanceof ApiError && error.isConflict) return false;
        log.warn("cannot tell the truth", { what, reason: describe(error) });
        return true;
      },
    });
  }

  /**
   * Brings every node a step nearer to what it should say, those first that have waited longest.
   *
   * @returns when what this round began has ended; need not be waited for. Never throws.
   */
  round(): Promise<void> {
    return this.#queue.round(this.#due());
  }

  *#due(): Iterable<Work> {
    const { view } = this.options;
    for (const node of view.nodes()) {
      const facts = view.facts(node.name)!;
      const act = node.terms === undefined ? this.#leave(facts) : this.#follow(node, facts);
      if (act !== undefined) yield { key: `node ${node.name}`, act };
      if (node.terms === undefined || node.hearing !== "heard") continue;
      // Each on its own: one that cannot be written holds up nobody.
      for (const pod of this.#stalePods(node))
        yield { key: `pod ${pod.namespace}/${pod.name} ${pod.uid}`, act: () => this.#clearDisruption(pod) };
    }
  }

  /** The opt-in was taken back: nothing of ours stays. */
  #leave(facts: NodeFacts): Step | undefined {
    const has = {
      label: facts.labels[RELEASED_LABEL] !== undefined,
      taint: facts.taints.some(isOurs),
      condition: conditionOf(facts) !== undefined,
    };
    if (!has.label && !has.taint && !has.condition) return undefined;
    return () =>
      each([
        has.taint && (() => this.#writeTaints(facts, false)),
        has.label && (() => this.#writeLabel(facts, undefined)),
        has.condition &&
          (() => this.#patchStatus(facts, { conditions: [{ $patch: "delete", type: REACHABLE_CONDITION }] })),
      ]);
  }

  #follow(node: GuardedNode, facts: NodeFacts): Step | undefined {
    if (node.hearing === "heard") return this.#heard(node, facts);
    if (node.hearing === "silent") return this.#silent(node, facts);
    return undefined;
  }

  #heard(node: GuardedNode, facts: NodeFacts): Step | undefined {
    const isTold = conditionOf(facts)?.status === "True";
    const isReleased = facts.labels[RELEASED_LABEL] !== undefined;
    const isTainted = facts.taints.some(isOurs);
    if (isTold && !isTainted && !isReleased) return undefined;
    return () =>
      each([
        isTainted && (() => this.#writeTaints(facts, false)),
        isReleased && (() => this.#writeLabel(facts, undefined)),
        !isTold && (() => this.#tellHeard(node, facts, isReleased)),
      ]);
  }

  async #tellHeard(node: GuardedNode, facts: NodeFacts, wasReleased: boolean): Promise<void> {
    await this.#writeCondition(node, facts, "True");
    const condition = conditionOf(facts);
    if (condition === undefined) return;
    const sinceMs = Date.parse(condition.lastTransitionTime);
    const away = Number.isNaN(sinceMs) ? "" : ` after ${formatDuration(this.options.clock.nowMs() - sinceMs)}`;
    const held = wasReleased ? "" : "; its pods were held";
    this.#tell(facts, "Normal", "HoldfastHeard", `The node is heard again${away}${held}`);
  }

  #silent(node: GuardedNode, facts: NodeFacts): Step | undefined {
    const { view } = this.options;
    const isTold = conditionOf(facts)?.status === "False";
    const isTaintWrong = view.parameters.taints !== facts.taints.some(isOurs);
    const isEnding = this.#ending(node, facts) !== undefined;
    if (isTold && !isTaintWrong && !isEnding) return undefined;
    return async () => {
      // Its lease itself, once, before anybody is told: our watch may be the one that is cut.
      await view.listen(node.name);
      const still = view.node(node.name);
      if (still?.hearing !== "silent") return;
      await each([
        !isTold && (() => this.#tellSilent(still, facts)),
        isTaintWrong && (() => this.#writeTaints(facts, view.parameters.taints)),
        () => this.#release(still, facts),
      ]);
    };
  }

  async #tellSilent(node: GuardedNode, facts: NodeFacts): Promise<void> {
    await this.#writeCondition(node, facts, "False");
    this.#tell(facts, "Warning", "HoldfastSilent", `The node's lease is not renewed; ${howLong(node)}`);
  }

  async #release(node: GuardedNode, facts: NodeFacts): Promise<void> {
    const ending = this.#ending(node, facts);
    if (ending === undefined) return;
    await this.#writeLabel(facts, ending.label);
    this.#tell(facts, "Warning", "HoldfastReleased", ending.message);
  }

  /** Why protection ends now; undefined: it does not, or has ended before. */
  #ending({ terms, lastSeenMs }: GuardedNode, facts: NodeFacts): { label: string; message: string } | undefined {
    const { clock, witness = () => "unknown" } = this.options;
    if (facts.labels[RELEASED_LABEL] !== undefined) return undefined;
    if (terms?.boundMs !== undefined && lastSeenMs !== undefined && clock.nowMs() - lastSeenMs > terms.boundMs)
      return {
        label: "bound",
        message: `Silent for longer than ${formatDuration(terms.boundMs)}: the node is held no more`,
      };
    if (terms?.asksWitnesses === true && witness(facts) === "unheard")
      return { label: "unheard", message: "Its neighbours do not hear the node either: it is held no more" };
    return undefined;
  }

  /** Pods that carry the mark of an eviction that never came, on a node that nobody evicts from now. */
  #stalePods(node: GuardedNode): GuardedPod[] {
    const isEvicting = node.taints.some(
      ({ key, effect }) => effect === "NoExecute" && (EVICTING_TAINTS as readonly string[]).includes(key),
    );
    if (node.ready !== "True" || isEvicting) return [];
    return [...this.options.view.podsOn(node.name)].filter(
      ({ disruption, isDeleting }) => disruption === DISRUPTION_REASONS.taint && !isDeleting,
    );
  }

  async #clearDisruption({ namespace, name, uid }: GuardedPod): Promise<void> {
    const { api, clock } = this.options;
    const condition = {
      type: "DisruptionTarget",
      status: "False",
      reason: "HoldfastNodeHeard",
      message: "The eviction was refused while the node was cut, and the node is heard again",
      lastTransitionTime: seconds(clock.nowMs()),
    };
    try {
      // Another pod of the same name is another pod.
      const patch = patched<V1Pod>()({ metadata: { uid }, status: { conditions: [condition] } });
      await api.patchPodStatus(namespace, name, STRATEGIC, patch);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
    }
  }

  async #writeCondition(node: GuardedNode, facts: NodeFacts, status: "True" | "False"): Promise<void> {
    const { clock } = this.options;
    const seen = node.lastSeenMs === undefined ? "never" : seconds(node.lastSeenMs);
    const condition = patched<V1NodeCondition>()({
      type: REACHABLE_CONDITION,
      status,
      reason: status === "True" ? REACHABLE_REASONS.heard : REACHABLE_REASONS.silent,
      message: status === "True" ? "The node renews its lease" : `lastSeen: ${seen}; ${howLong(node)}`,
      lastHeartbeatTime: node.lastSeenMs === undefined ? null : seen,
      lastTransitionTime: seconds(clock.nowMs()),
    });
    await this.#patchStatus(facts, { conditions: [condition] });
  }

  async #patchStatus({ name }: NodeFacts, status: Patch<V1NodeStatus>): Promise<void> {
    await this.options.api.patchNodeStatus(name, STRATEGIC, patched<V1Node>()({ status }));
  }

  /** Every other taint goes back as it came, and only if nobody has written the node meanwhile. */
  async #writeTaints({ name, resourceVersion, taints }: NodeFacts, isWanted: boolean): Promise<void> {
    const others = taints.filter((taint) => !isOurs(taint));
    const ours = { key: UNREACHABLE_TAINT, effect: "NoSchedule" };
    const spec = { taints: isWanted ? [...others, ours] : others };
    const patch = patched<V1Node>()({ metadata: { resourceVersion }, spec });
    await this.options.api.patchNode(name, MERGE, patch);
  }

  async #writeLabel({ name }: NodeFacts, value: string | undefined): Promise<void> {
    const patch = patched<V1Node>()({ metadata: { labels: { [RELEASED_LABEL]: value ?? null } } });
    await this.options.api.patchNode(name, MERGE, patch);
  }

  #tell({ name, uid }: NodeFacts, type: "Normal" | "Warning", reason: string, message: string): void {
    this.options.happenings.tell({ kind: "Node", namespace: "", name, uid, type, reason, message });
    this.options.log.info(message, { node: name, event: reason });
  }
}

/** Every step, also after one that failed. @throws what failed first. */
async function each(steps: readonly (Step | false)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      if (step !== false) await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

function howLong({ terms }: GuardedNode): string {
  if (terms?.released !== undefined) return "it is not held";
  return terms?.boundMs === undefined
    ? "it is held for as long as it takes"
    : `it is held for ${formatDuration(terms.boundMs)}`;
}

function conditionOf({ conditions }: NodeFacts) {
  return conditions.find(({ type }) => type === REACHABLE_CONDITION);
}

function isOurs({ key, effect }: { readonly key: string; readonly effect: string }): boolean {
  return key === UNREACHABLE_TAINT && effect === "NoSchedule";
}

function seconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
