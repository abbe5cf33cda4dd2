/**
 * A cut that Holdfast plays itself, to see what would break.
 *
 * Three things end it: its time, who asked for it (the connection over which it
 * was asked for is the dead man's switch: a terminal that is closed, a person
 * who is thrown out by the very cut), and the end of this process, whose
 * successor knows nothing of it. It is refused where it would do harm.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { formatDuration } from "../base/units.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { RequestInfo } from "../front/request-info.ts";
import { OPT_IN_LABEL } from "../guard/names.ts";
import { coverageWords } from "../health/coverage-report.ts";
import type { RehearsalReport } from "../health/rehearsal-report.ts";
import { nodeOf } from "../node/own-node.ts";
import { lastOwnNode, type OwnNode } from "../node/own-pods.ts";
import type { Gate } from "../uplink/gate.ts";
import type { Link } from "../uplink/link.ts";
import type { Coverage } from "./coverage.ts";
import type { FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { DaemonMetrics } from "./metrics.ts";

/** A look at what would be lost is worth nothing after so long a cut. */
export const MAX_REHEARSAL_MS = 3_600_000;
/** The control plane takes silence for death after 40 s; this leaves a heartbeat on either side. */
const HARMLESS_MS = 20_000;
/** Kinds of requests that are told apart. */
const MAX_KINDS = 64;

/** What it is made of. */
export interface RehearsalParts {
  readonly gate: Gate;
  readonly link: Link;
  /** Leaves open connections behind. */
  readonly renewConnections: () => void;
  readonly scopes: Scopes;
  readonly coverage: Pick<Coverage, "now">;
  readonly metrics: Pick<DaemonMetrics, "counts">;
  readonly node: () => OwnNode | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** One that runs. */
export interface Rehearsal {
  readonly untilMs: number;
  /** Ends it now. */
  end(because: RehearsalReport["endedBy"]): void;
  readonly ended: Promise<RehearsalReport>;
}

interface Running extends Rehearsal {
  readonly unanswered: Map<string, RehearsalReport["unanswered"][number]>;
}

/** Starts and ends them, one at a time. */
export class Rehearsals {
  #running: Running | undefined;

  constructor(private readonly parts: RehearsalParts) {}

  /** Ends the one that runs. */
  end(because: RehearsalReport["endedBy"]): void {
    this.#running?.end(because);
  }

  /** A request was answered: what got 503 is told of at the end. */
  answered(code: number, principal: string, { verb, group, resource }: RequestInfo): void {
    const running = this.#running;
    if (code !== 503 || running === undefined) return;
    const named = resource === "" ? "(a path)" : `${resource}${group === "" ? "" : `.${group}`}`;
    const kind = { verb, resource: named, caller: callerKind(principal) };
    const key = JSON.stringify(kind);
    const known = running.unanswered.get(key);
    if (known === undefined && running.unanswered.size >= MAX_KINDS) return;
    running.unanswered.set(key, { ...kind, times: (known?.times ?? 0) + 1 });
  }

  /** Cuts the link for so long. @returns why not, in words, where it would do harm. */
  async begin(forMs: number, isForced: boolean): Promise<Rehearsal | string> {
    const objection = this.#impossible(forMs) ?? (isForced ? undefined : await this.#harm(forMs));
    // Another one may have begun meanwhile.
    return objection ?? this.#impossible(forMs) ?? this.#cut(forMs);
  }

  #impossible(forMs: number): string | undefined {
    if (!(forMs >= 1_000 && forMs <= MAX_REHEARSAL_MS)) return "a rehearsal lasts from 1s to 1h";
    if (this.#running !== undefined) return "another rehearsal is under way";
    return this.parts.link.state === "online" ? undefined : "the link is lost already: this is no rehearsal";
  }

  async #harm(forMs: number): Promise<string | undefined> {
    const covered = await this.parts.coverage.now();
    const isLost = covered?.node.length !== 0 || covered.pods.some(({ comesBack }) => comesBack === "no");
    if (covered !== undefined && isLost) return `${coverageWords(covered)}; see holdfast check cache`;
    if (forMs > HARMLESS_MS && covered !== undefined && !this.#isHeld())
      return `the control plane takes a node that is silent for 40s for dead and evicts its pods, and this one is not held by the guard (label ${OPT_IN_LABEL}); a rehearsal of ${HARMLESS_MS / 1_000}s does no harm`;
    return undefined;
  }

  #isHeld(): boolean {
    const node = this.parts.node();
    const bytes = node === undefined ? undefined : lastOwnNode(this.parts.scopes, node);
    try {
      const { metadata } = JSON.parse(Buffer.from(bytes ?? []).toString("utf8")) as {
        metadata?: { labels?: Record<string, string> };
      };
      return metadata?.labels?.[OPT_IN_LABEL] !== undefined;
    } catch {
      return false;
    }
  }

  #cut(forMs: number): Rehearsal {
    const { gate, link, clock, log, metrics, renewConnections } = this.parts;
    const startedMs = clock.monotonicMs();
    const before = { ...metrics.counts };
    const { promise: ended, resolve } = Promise.withResolvers<RehearsalReport>();
    const unanswered: Running["unanswered"] = new Map();
    const end = (endedBy: RehearsalReport["endedBy"]) => {
      if (this.#running?.ended !== ended) return;
      this.#running = undefined;
      cancel();
      gate.open("rehearsal");
      const lastedMs = clock.monotonicMs() - startedMs;
      log.info("the rehearsal is over", { endedBy, lasted: formatDuration(lastedMs), kinds: unanswered.size });
      const { servedFromCache, refusedWrites } = metrics.counts;
      resolve({
        endedBy,
        lastedMs,
        servedFromCache: servedFromCache - before.servedFromCache,
        refusedWrites: refusedWrites - before.refusedWrites,
        unanswered: [...unanswered.values()].sort((a, b) => b.times - a.times),
      });
    };
    const cancel = clock.after(forMs, () => end("time"));
    this.#running = { untilMs: clock.nowMs() + forMs, end, ended, unanswered };
    log.warn("the link is cut for a rehearsal", { for: formatDuration(forMs) });
    gate.shut("rehearsal");
    renewConnections();
    link.failed();
    return this.#running;
  }
}

/** Builds it over what may be cut, and what would be lost by it. */
export function buildRehearsals(
  { config, clock, log, metrics }: Ground,
  { uplink, copies }: Pick<FrontGround, "uplink" | "copies">,
  coverage: Coverage,
): Rehearsals {
  return new Rehearsals({
    gate: uplink.gate,
    link: uplink.link,
    renewConnections: () => uplink.upstream.renewConnections(),
    scopes: copies.scopes,
    coverage,
    metrics,
    node: () => nodeOf(config.upstream.credential),
    clock,
    log,
  });
}

/** "node", "service account", "certificate": whose it was, without a name. */
function callerKind(principal: string): string {
  if (principal.startsWith("certificate:system:node:")) return "node";
  if (principal.startsWith("certificate:")) return "certificate";
  return principal.includes("serviceaccount") ? "service account" : "token";
}
