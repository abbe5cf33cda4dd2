/**
 * One Event after a return that says what the cut was: how long, what was
 * answered from copies, what was refused. Never one for each request, and a
 * link that comes and goes is told of as one, when it has held for a while.
 */

import type { Clock } from "../base/clock.ts";
import { formatDuration } from "../base/units.ts";

/** Counts since the start of the process. */
export interface AnswerCounts {
  readonly servedFromCache: number;
  readonly refusedWrites: number;
}

/** What it is made from. */
export interface ReturnEventParts {
  readonly clock: Clock;
  readonly counts: () => AnswerCounts;
  readonly nodeName: () => string | undefined;
  /** Sends it up. */
  readonly send: (body: string) => Promise<void>;
}

/** Shorter cuts are weather. */
const MIN_CUT_MS = 30_000;
/** The link has held for so long: what came before was one story. */
const HOLDS_MS = 60_000;

interface Cuts {
  count: number;
  lostMs: number;
  readonly before: AnswerCounts;
}

/** Tells of cuts. */
export class ReturnEvent {
  #cutAtMs: number | undefined;
  #cuts: Cuts | undefined;
  #cancel = () => {};

  constructor(private readonly parts: ReturnEventParts) {}

  /** The link changed. */
  changed(isOnline: boolean): void {
    const { clock, counts } = this.parts;
    this.#cancel();
    if (!isOnline) {
      this.#cutAtMs ??= clock.monotonicMs();
      this.#cuts ??= { count: 0, lostMs: 0, before: { ...counts() } };
      return;
    }
    if (this.#cutAtMs === undefined || this.#cuts === undefined) return;
    this.#cuts.count++;
    this.#cuts.lostMs += clock.monotonicMs() - this.#cutAtMs;
    this.#cutAtMs = undefined;
    this.#cancel = clock.after(HOLDS_MS, () => void this.#tell());
  }

  stop(): void {
    this.#cancel();
  }

  async #tell(): Promise<void> {
    const cuts = this.#cuts;
    this.#cuts = undefined;
    const name = this.parts.nodeName();
    if (cuts === undefined || name === undefined || cuts.lostMs < MIN_CUT_MS) return;
    const { servedFromCache, refusedWrites } = this.parts.counts();
    const times = cuts.count === 1 ? "" : ` in ${cuts.count} cuts`;
    const message = `Without the control plane for ${formatDuration(cuts.lostMs)}${times}: ${servedFromCache - cuts.before.servedFromCache} answers from copies, ${refusedWrites - cuts.before.refusedWrites} writes refused`;
    await this.parts.send(eventBody(name, message, new Date(this.parts.clock.nowMs())));
  }
}

/** As kubelet writes its own: in default, the node's name as its uid. */
function eventBody(name: string, message: string, at: Date): string {
  const time = at.toISOString().replace(/\.\d+/, "");
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Event",
    metadata: { generateName: `${name}.holdfast-`, namespace: "default" },
    involvedObject: { kind: "Node", name, uid: name },
    reason: "HoldfastReturned",
    message,
    type: "Normal",
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component: "holdfast", host: name },
    reportingComponent: "holdfast",
    reportingInstance: name,
  });
}
