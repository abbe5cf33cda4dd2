/**
 * Asks a silent node's neighbours whether they hear it: dead, or only cut?
 *
 * Neighbours share the label holdfast.dev/pool, or else the zone. Only those
 * that are heard themselves can be asked, so a place that is cut as a whole has
 * no witnesses, nobody says "unheard", and its nodes are held until their bound.
 *
 * A question holds sixteen nodes, and a mass cut has more. So each witness is
 * asked about those that it was asked about longest ago; a question stands
 * until it is answered, or for a minute, and what was said of a node counts as
 * long. A witness that leaves a question unanswered gives its place to another
 * for a while.
 *
 * What must survive a change of leader stands in the neighbour's Node, with its
 * nonce and its time; whose turn it is a new leader finds out anew.
 */

import { randomBytes } from "node:crypto";
import type { V1Node } from "@kubernetes/client-node";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import {
  MOST_ASKED,
  QUESTION_ANNOTATION,
  readQuestion,
  REPORT_ANNOTATION,
  type WitnessQuestion,
  type WitnessReport,
} from "../kube/witness-report.ts";
import { patched } from "../kube/wire.ts";
import { ApiError, type ClusterApi } from "../cluster/api.ts";
import { FairQueue, type Work } from "./fair-queue.ts";
import { describe } from "../cluster/follow.ts";
import type { NodeFacts } from "./facts.ts";
import type { LiveView } from "./live-view.ts";
import type { WitnessVerdict } from "./reachability.ts";
import { checkReport } from "./witness-report-check.ts";

/** What the panel is made of. */
export interface PanelOptions {
  readonly view: LiveView;
  readonly api: ClusterApi;
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
/** From one question to the next: a witness tries 64 addresses a minute, four questions' worth. */
const NEXT_MS = 15_000;
/** For so long a witness that did not answer is asked only if nobody else is there. */
const MUTE_MS = 600_000;
/** More than must have tried, so that one that does not answer costs nothing. */
const SPARE = 2;
const MOST_AT_ONCE = 10;
/** Reports on Nodes that nobody has asked, checked in one round: they may be anybody's. */
const MOST_UNASKED = 20;
const MERGE = "application/merge-patch+json";

interface Checked {
  readonly jws: string;
  readonly report: WitnessReport | undefined;
}

interface Said {
  readonly outcome: WitnessReport["nodes"][number]["outcome"];
  readonly askedMs: number;
}

/** The panel; `round` is one look. */
export class WitnessPanel {
  readonly #queue: FairQueue;
  /** The report on each Node, checked: a signature is verified once. */
  readonly #checked = new Map<string, Checked>();
  /** What was said of a silent node, by witness. */
  readonly #said = new Map<string, Map<string, Said>>();
  /** When a witness was last asked about a silent node. */
  readonly #asked = new Map<string, Map<string, number>>();
  /** Until when a witness counts as one that does not answer. */
  readonly #muteUntilMs = new Map<string, number>();

  constructor(private readonly options: PanelOptions) {
    this.#queue = new FairQueue({
      clock: options.clock,
      mostAtOnce: MOST_AT_ONCE,
      failed: (node, error) => {
        if (error instanceof ApiError && error.isConflict) return false;
        options.log.warn("cannot ask a witness", { node, reason: describe(error) });
        return true;
      },
    });
  }

  /** Checks what was answered, asks who is to be asked, takes back what need not be asked any more. */
  async round(): Promise<void> {
    await this.#checkReports();
    const wanted = this.#wanted();
    this.#forget(wanted);
    const due: Work[] = [];
    for (const { name } of this.options.view.nodes()) {
      const act = this.#turnOf(this.options.view.facts(name)!, wanted.get(name) ?? []);
      if (act !== undefined) due.push({ key: name, act });
    }
    await this.#queue.round(due);
  }

  /** What the neighbours have said of a node in answer to questions of the last minute. */
  verdictOf(silent: NodeFacts): WitnessVerdict {
    const { view, clock } = this.options;
    let unheard = 0;
    for (const [witness, { outcome, askedMs }] of this.#said.get(silent.name) ?? []) {
      if (!isYoung(askedMs, clock.nowMs(), ASK_AGAIN_MS) || view.node(witness)?.hearing !== "heard") continue;
      if (outcome === "heard") return "heard";
      if (outcome === "silent") unheard += 1;
    }
    return unheard >= view.parameters.witnesses ? "unheard" : "unknown";
  }

  /** About whom each witness is to be asked, whom longest ago first. */
  #wanted(): Map<string, NodeFacts[]> {
    const { view } = this.options;
    const silent: NodeFacts[] = [];
    const heard = new Map<string, string[]>();
    for (const node of view.nodes()) {
      const facts = view.facts(node.name)!;
      if (node.hearing === "heard")
        for (const place of placesOf(facts)) heard.set(place, [...(heard.get(place) ?? []), node.name]);
      // Once released it is asked no more: that it is back is seen by its lease.
      const isAsking = node.terms?.asksWitnesses === true && node.terms.released === undefined;
      if (node.hearing === "silent" && isAsking) silent.push(facts);
    }
    const panels = new Map([...heard].map(([place, names]) => [place, this.#panelOf(names)]));
    const wanted = new Map<string, NodeFacts[]>();
    for (const facts of silent)
      for (const witness of panels.get(placesOf(facts)[0] ?? "") ?? [])
        wanted.set(witness, [...(wanted.get(witness) ?? []), facts]);
    return wanted;
  }

  /** A few, those that answer first, in an order that every round finds again. */
  #panelOf(names: readonly string[]): string[] {
    const nowMs = this.options.clock.monotonicMs();
    const isMute = (name: string) => Number((this.#muteUntilMs.get(name) ?? 0) > nowMs);
    return names
      .toSorted((a, b) => isMute(a) - isMute(b) || (a < b ? -1 : 1))
      .slice(0, this.options.view.parameters.witnesses + SPARE);
  }

  /** What is to be done about one witness now. */
  #turnOf(witness: NodeFacts, wanted: readonly NodeFacts[]): (() => Promise<void>) | undefined {
    const { clock } = this.options;
    const standing = readQuestion(witness.annotations[QUESTION_ANNOTATION]);
    if (wanted.length === 0)
      return witness.annotations[QUESTION_ANNOTATION] === undefined ? undefined : () => this.#withdraw(witness);
    const turns = this.#turnsOf(witness.name, standing);
    const next = wanted
      .toSorted((a, b) => (turns.get(a.name) ?? 0) - (turns.get(b.name) ?? 0) || (a.name < b.name ? -1 : 1))
      .flatMap(addressed)
      .slice(0, MOST_ASKED);
    if (next.length === 0) return undefined;
    if (standing !== undefined && standing.nodes.some(({ name }) => wanted.some((one) => one.name === name))) {
      const isAnswered = this.#checked.get(witness.name)?.report?.nonce === standing.nonce;
      const isWhole = next.every(({ name }) => standing.nodes.some((one) => one.name === name));
      if (isYoung(standing.askedMs, clock.nowMs(), isAnswered && !isWhole ? NEXT_MS : ASK_AGAIN_MS)) return undefined;
      if (!isAnswered) this.#muteUntilMs.set(witness.name, clock.monotonicMs() + MUTE_MS);
    }
    return () => this.#ask(witness, next, turns);
  }

  async #ask({ name }: NodeFacts, nodes: WitnessQuestion["nodes"], turns: Map<string, number>): Promise<void> {
    const askedMs = this.options.clock.nowMs();
    const question = { nonce: randomBytes(18).toString("base64url"), askedMs, nodes };
    await this.#annotate(name, { [QUESTION_ANNOTATION]: JSON.stringify(question) });
    for (const asked of nodes) turns.set(asked.name, askedMs);
  }

  #withdraw({ name }: NodeFacts): Promise<void> {
    return this.#annotate(name, { [QUESTION_ANNOTATION]: null, [REPORT_ANNOTATION]: null });
  }

  async #annotate(name: string, annotations: Readonly<Record<string, string | null>>): Promise<void> {
    await this.options.api.patchNode(name, MERGE, patched<V1Node>()({ metadata: { annotations } }));
  }

  /** When a witness was asked about whom; another leader's question tells of that leader's last turn. */
  #turnsOf(witness: string, standing: WitnessQuestion | undefined): Map<string, number> {
    const known = this.#asked.get(witness);
    if (known !== undefined) return known;
    const turns = new Map(standing?.nodes.map(({ name }) => [name, standing.askedMs]));
    this.#asked.set(witness, turns);
    return turns;
  }

  async #checkReports(): Promise<void> {
    const { view } = this.options;
    let unasked = 0;
    for (const { name } of view.nodes()) {
      const facts = view.facts(name)!;
      const question = readQuestion(facts.annotations[QUESTION_ANNOTATION]);
      if (question === undefined && unasked >= MOST_UNASKED) continue;
      unasked += Number((await this.#checkReportOf(facts)) && question === undefined);
      const report = this.#checked.get(name)?.report;
      if (question === undefined || report?.nonce !== question.nonce) continue;
      for (const { name: silent, outcome } of report.nodes) {
        if (!question.nodes.some((asked) => asked.name === silent)) continue;
        const said = this.#said.get(silent) ?? new Map<string, Said>();
        this.#said.set(silent, said.set(name, { outcome, askedMs: question.askedMs }));
      }
    }
  }

  /** @returns whether a signature had to be looked at. */
  async #checkReportOf({ name, annotations }: NodeFacts): Promise<boolean> {
    const jws = annotations[REPORT_ANNOTATION];
    if (jws === undefined) this.#checked.delete(name);
    const ca = this.options.clientCaPem();
    if (jws === undefined || ca === undefined || this.#checked.get(name)?.jws === jws) return false;
    const report = await checkReport(jws, name, ca, this.options.clock.nowMs());
    if (report === undefined) this.options.log.warn("a witness report that its node has not signed", { node: name });
    this.#checked.set(name, { jws, report });
    return true;
  }

  /** Of nodes that are gone, or silent no more, nothing is remembered. */
  #forget(wanted: ReadonlyMap<string, readonly NodeFacts[]>): void {
    const { view, clock } = this.options;
    const silent = new Set([...wanted.values()].flatMap((all) => all.map(({ name }) => name)));
    for (const name of this.#said.keys()) if (!silent.has(name)) this.#said.delete(name);
    for (const [witness, turns] of this.#asked) {
      if (!wanted.has(witness)) this.#asked.delete(witness);
      for (const name of turns.keys()) if (!silent.has(name)) turns.delete(name);
    }
    for (const name of this.#checked.keys()) if (view.facts(name) === undefined) this.#checked.delete(name);
    const nowMs = clock.monotonicMs();
    for (const [name, untilMs] of this.#muteUntilMs) if (untilMs <= nowMs) this.#muteUntilMs.delete(name);
  }
}

/** Where a node's neighbours are; the first is where it looks for witnesses. */
function placesOf({ labels }: NodeFacts): string[] {
  return [POOL_LABEL, ZONE_LABEL].flatMap((label) => {
    const value = labels[label];
    return value === undefined ? [] : [`${label}\n${value}`];
  });
}

/** A node as a question names it; nothing for one without an address. */
function addressed({ name, addresses, kubeletPort }: NodeFacts): WitnessQuestion["nodes"] {
  const address = addresses.find(({ type }) => type === "InternalIP")?.address;
  return address === undefined ? [] : [{ name, address, port: kubeletPort }];
}

/** Whether so long has not passed since; a moment that is yet to come was another leader's clock. */
function isYoung(sinceMs: number, nowMs: number, forMs: number): boolean {
  return Math.abs(nowMs - sinceMs) < forMs;
}
