/**
 * Asks a silent node's neighbours whether they hear it: dead, or only cut?
 *
 * Neighbours share the label holdfast.dev/pool, or else the zone. Only those
 * that are heard themselves can be asked, so a place that is cut as a whole has
 * no witnesses, nobody says "unheard", and its nodes are held until their bound.
 *
 * Stateless: the question that was asked stands in the neighbour's Node, with
 * its nonce and its time; a new leader reads it there and goes on.
 */

import { randomBytes } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import {
  MOST_ASKED,
  QUESTION_ANNOTATION,
  readQuestion,
  REPORT_ANNOTATION,
  type WitnessReport,
} from "../kube/witness-report.ts";
import { ApiError, type KubernetesApi } from "./api.ts";
import { describe } from "./follow.ts";
import type { LiveView, NodeFacts } from "./live-view.ts";
import type { WitnessVerdict } from "./reachability.ts";
import { checkReport } from "./witness-report-check.ts";

/** What the panel is made of. */
export interface PanelOptions {
  readonly view: LiveView;
  readonly api: KubernetesApi;
  readonly clock: Clock;
  readonly log: Log;
  /** CAs that the API server believes clients by, PEM; undefined while they are not known. */
  readonly clientCaPem: () => string | undefined;
}

/** The label whose value neighbours share. */
export const POOL_LABEL = "holdfast.dev/pool";

const ZONE_LABEL = "topology.kubernetes.io/zone";
/** A question is asked anew after so long: what was heard then says little now. */
const ASK_AGAIN_MS = 60_000;
/** More than must have tried, so that one that does not answer costs nothing. */
const SPARE = 2;
const MERGE = "application/merge-patch+json";

/** The panel; `round` is one look. */
export class WitnessPanel {
  /** Checked reports by their text: a signature is verified once. */
  readonly #checked = new Map<string, WitnessReport | undefined>();

  constructor(private readonly options: PanelOptions) {}

  /** Asks who is to be asked, takes back what need not be asked any more, checks what was answered. */
  async round(): Promise<void> {
    const { view } = this.options;
    const wanted = new Map<string, NodeFacts[]>();
    for (const node of view.nodes()) {
      if (node.hearing !== "silent" || node.terms?.asksWitnesses !== true) continue;
      // Once released it is asked no more: that it is back is seen by its lease.
      if (node.terms.released !== undefined) continue;
      const facts = view.facts(node.name)!;
      for (const neighbour of this.#neighbours(facts)) wanted.set(neighbour, [...(wanted.get(neighbour) ?? []), facts]);
    }
    for (const node of view.nodes()) {
      const facts = view.facts(node.name)!;
      await this.#checkReportOf(facts);
      await this.#ask(facts, (wanted.get(node.name) ?? []).slice(0, MOST_ASKED));
    }
  }

  /** What the neighbours have said of a node in answer to the questions that stand now. */
  verdictOf(silent: NodeFacts): WitnessVerdict {
    const { view } = this.options;
    let unheard = 0;
    for (const name of this.#neighbours(silent)) {
      const facts = view.facts(name)!;
      const question = readQuestion(facts.annotations[QUESTION_ANNOTATION]);
      const report = this.#checked.get(reportKey(facts));
      if (question === undefined || report === undefined || report.nonce !== question.nonce) continue;
      const outcome = report.nodes.find((one) => one.name === silent.name)?.outcome;
      if (outcome === "heard") return "heard";
      if (outcome === "silent") unheard += 1;
    }
    return unheard >= view.parameters.witnesses ? "unheard" : "unknown";
  }

  /** Those that are heard themselves, in an order that every round finds again. */
  #neighbours(silent: NodeFacts): string[] {
    const { view } = this.options;
    const label = silent.labels[POOL_LABEL] !== undefined ? POOL_LABEL : ZONE_LABEL;
    const place = silent.labels[label];
    if (place === undefined) return [];
    const found: string[] = [];
    for (const { name, hearing } of view.nodes())
      if (name !== silent.name && hearing === "heard" && view.facts(name)?.labels[label] === place) found.push(name);
    return found.toSorted().slice(0, view.parameters.witnesses + SPARE);
  }

  async #ask(neighbour: NodeFacts, silent: readonly NodeFacts[]): Promise<void> {
    const { api, clock, log } = this.options;
    const asked = readQuestion(neighbour.annotations[QUESTION_ANNOTATION]);
    const nodes = silent.flatMap(({ name, addresses, kubeletPort }) => {
      const address = addresses.find(({ type }) => type === "InternalIP")?.address;
      return address === undefined ? [] : [{ name, address, port: kubeletPort }];
    });
    const isSame = asked !== undefined && Bun.deepEquals(asked.nodes, nodes);
    const isFresh = asked !== undefined && Math.abs(clock.nowMs() - asked.askedMs) < ASK_AGAIN_MS;
    if (nodes.length === 0 ? neighbour.annotations[QUESTION_ANNOTATION] === undefined : isSame && isFresh) return;
    const question = { nonce: randomBytes(18).toString("base64url"), askedMs: clock.nowMs(), nodes };
    const annotations =
      nodes.length === 0
        ? { [QUESTION_ANNOTATION]: null, [REPORT_ANNOTATION]: null }
        : { [QUESTION_ANNOTATION]: JSON.stringify(question) };
    try {
      await api.patch(`/api/v1/nodes/${neighbour.name}`, MERGE, { metadata: { annotations } });
    } catch (error) {
      if (!(error instanceof ApiError && error.isConflict))
        log.warn("cannot ask a witness", { node: neighbour.name, reason: describe(error) });
    }
  }

  async #checkReportOf(facts: NodeFacts): Promise<void> {
    const jws = facts.annotations[REPORT_ANNOTATION];
    const key = reportKey(facts);
    const ca = this.options.clientCaPem();
    if (jws === undefined || ca === undefined || this.#checked.has(key)) return;
    if (this.#checked.size > 1_000) this.#checked.clear();
    const report = await checkReport(jws, facts.name, ca, this.options.clock.nowMs());
    if (report === undefined)
      this.options.log.warn("a witness report that its node has not signed", { node: facts.name });
    this.#checked.set(key, report);
  }
}

function reportKey({ name, annotations }: NodeFacts): string {
  return `${name}\n${annotations[REPORT_ANNOTATION] ?? ""}`;
}
