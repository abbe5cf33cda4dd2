/**
 * The only place where parts meet. A part is built in the file of its name
 * (uplink, copies, node, callers, front, knowing); here stands who is built
 * over whom, and in which order they start.
 *
 *   state folder  ->  uplink  ->  copies  ->  node, callers  ->  front  ->  knowing
 *
 * Building opens nothing but the state folder, from which parts remember; how
 * they start, drain and stop is `part.ts`'s.
 */

import type { Clock } from "../base/clock.ts";
import { Conditions } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";
import { Renewals } from "../certificates/renewals.ts";
import type { Config } from "../config/config.ts";
import { nodeOf } from "../node/own-node.ts";
import { buildCallers } from "./callers.ts";
import { buildCertificates, withOwnPair } from "./certificates.ts";
import { buildCopies, type Copies } from "./copies.ts";
import { Coverage } from "./coverage.ts";
import { filesPart } from "./files.ts";
import { watchConditions } from "./findings.ts";
import { buildFront, type FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import { kubeletEndedPart } from "./kubelet-ended.ts";
import { adminPart, certificatePart, Health, statusOf } from "./knowing.ts";
import { DaemonMetrics } from "./metrics.ts";
import { buildNode, type NodeParts } from "./node.ts";
import { buildPage, PagePin } from "./page.ts";
import { Parts } from "./part.ts";
import { buildRehearsals } from "./rehearsal.ts";
import { placePart } from "./place.ts";
import { buildTelling } from "./telling.ts";
import { openState, statePart } from "./state.ts";
import { buildTunnel } from "./tunnel.ts";
import { buildUplink } from "./uplink.ts";
import { buildWitness } from "./witness.ts";

/** A running daemon. */
export interface Daemon {
  /** Ports actually listened on, in the order of the configuration. */
  readonly ports: readonly number[];
  readonly healthPort: number;
  /** Resolves when everything has ended. */
  readonly ended: Promise<void>;
}

/** What a daemon is started with. */
export interface DaemonOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly random?: () => number;
  /** Root of the file system in which the machine's own things are looked for; "/" by default. */
  readonly machineRoot?: string;
}

/**
 * Starts everything.
 *
 * @throws {EdgeError} when an address cannot be listened on; never because of the store or the link.
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const ground = groundOf(options);
  const { log, store } = ground;
  const over = buildMiddle(ground);
  const coverage = new Coverage(ground, { scopes: over.copies.scopes, tokens: over.node.tokens });
  const rehearsals = buildRehearsals(ground, over, coverage);
  const front = buildFront(ground, {
    ...over,
    onAnswered: (code, principal, info) => rehearsals.answered(code, principal, info),
  });
  const certificates = buildCertificates(ground, over.uplink, front.listeners);
  const tunnel = buildTunnel(ground, over);
  const reported = statusOf(ground, over, front, certificates, tunnel);
  const status = () => ({ ...reported(), ...(coverage.last === undefined ? {} : { coverage: coverage.last }) });
  const pin = new PagePin(store);
  const parts = new Parts();
  const health = new Health(ground, parts, status);
  watchConditions(ground, over, front);
  parts.add(statePart(store));
  // Kubelet may start as soon as the admin socket answers.
  parts.add(kubeletEndedPart(ground));
  parts.add(health);
  parts.add(over.copies.part);
  // Before the link, whose first verdict begins the return.
  parts.add(over.node.part);
  parts.add(over.callers.part);
  parts.add(over.uplink.part);
  parts.add(placePart(ground, over.uplink, over.node, tunnel.source));
  parts.add(certificatePart(ground, over));
  for (const part of front.parts) parts.add(part);
  parts.add(filesPart(ground, over.uplink, front.listeners));
  parts.add(certificates);
  parts.add(buildWitness(ground, over));
  parts.add(tunnel);
  parts.add(coverage);
  parts.add(buildTelling(ground, over, status));
  parts.add(buildPage(ground, over, front, { status, coverage, pin }));
  parts.add(adminPart(ground, status, { scopes: over.copies.scopes, coverage, rehearsals, pin }, certificates));
  const { ended } = await parts.start(options.signal);
  log.info("serving", {
    ports: front.listeners.ports.join(","),
    health: health.port,
    scopes: [...over.copies.scopes.all()].length,
    profile: process.env["HOLDFAST_PROFILE"] ?? "default",
  });
  return { ports: front.listeners.ports, healthPort: health.port, ended };
}

function groundOf(options: DaemonOptions): Ground {
  const { clock, random = Math.random } = options;
  const { config, ownPair } = withOwnPair(options.config, options.log);
  return {
    ...options,
    config,
    ...(ownPair === undefined ? {} : { ownPair }),
    random,
    renewals: new Renewals(config.stateDir, clock, random),
    startedAtMs: clock.nowMs(),
    metrics: new DaemonMetrics(),
    conditions: new Conditions(clock),
    store: openState(options),
  };
}

/** Everything below the front. What scopes ask of the node is handed in from here: the node is built over them. */
function buildMiddle(ground: Ground): FrontGround {
  const own = ground.config.upstream.credential;
  const uplink = buildUplink(ground);
  const copies: Copies = buildCopies(ground, uplink, {
    turn: (identity) => node.reconnect.turn(identity),
    isBarred: (principal) => node.reconnect.isRefused && principal === nodeOf(own)?.principal,
    isVoid: (localVersion) => node.overlays.isVoid(localVersion),
  });
  const node: NodeParts = buildNode(ground, uplink, copies);
  return { uplink, copies, node, callers: buildCallers(ground, uplink, copies) };
}
