/**
 * What every builder is handed: the configuration, time, chance, the log, and
 * where findings and counts go.
 */

import type { Clock } from "../base/clock.ts";
import type { Conditions } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";
import type { OwnPair } from "../certificates/own-pair.ts";
import type { Renewals } from "../certificates/renewals.ts";
import type { Config } from "../config/config.ts";
import type { SqliteStore } from "../store/store.ts";
import type { UpstreamOptions } from "../uplink/upstream.ts";
import type { DaemonMetrics } from "./metrics.ts";

/** The common ground of all parts. */
export interface Ground {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  readonly version: string;
  /** Aborts when the daemon ends: loops and requests of our own end with it. */
  readonly signal: AbortSignal;
  readonly startedAtMs: number;
  readonly metrics: DaemonMetrics;
  /** What is wrong, for `status`, `/readyz?verbose` and metrics. */
  readonly conditions: Conditions;
  /** Open before anything is built: parts remember from it. */
  readonly store: SqliteStore;
  /** When certificates are renewed, and the clock that counts for them. */
  readonly renewals: Renewals;
  /** The node's client pair, where it is ours to renew; `config.upstream.credential` reads it. */
  readonly ownPair?: OwnPair;
  /** Root of the file system in which the machine's own things are looked for; "/" by default. */
  readonly machineRoot?: string;
  /** In the place of the network: for the simulation. */
  readonly send?: UpstreamOptions["send"];
}
