/**
 * What every part of a guard stands on: a way to the API server, the view of
 * the cluster, the election, Events and metrics. Building opens nothing.
 */

import { hostname } from "node:os";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Metrics } from "../base/metrics.ts";
import { COMMIT, VERSION } from "../base/version.ts";
import type { ClusterApi, Collections } from "../cluster/api.ts";
import { clusterApi } from "./api-classes.ts";
import { Happenings } from "./happenings.ts";
import { collections, type KubernetesTarget } from "../cluster/kubernetes.ts";
import { Leader } from "./leader.ts";
import { LiveView } from "./live-view.ts";

/** Which guard this is. */
export interface GuardSettings {
  readonly target: KubernetesTarget;
  readonly namespace: string;
  /** The Service that the API server calls; the election's Lease has its name too. */
  readonly serviceName: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The common parts. */
export interface GuardGround extends GuardSettings {
  readonly metrics: Metrics;
  /** Unique among replicas. */
  readonly identity: string;
  readonly api: ClusterApi;
  readonly client: Collections;
  readonly view: LiveView;
  readonly leader: Leader;
  readonly happenings: Happenings;
}

/** Builds them. */
export function groundOf(settings: GuardSettings): GuardGround {
  const { target, namespace, serviceName, clock, log, signal } = settings;
  const metrics = new Metrics();
  const identity = `${hostname()}-${crypto.randomUUID().slice(0, 8)}`;
  const asked = {
    target,
    clock,
    userAgent: `holdfast-guard/${VERSION} (${COMMIT})`,
    onContact: () => view.contact(),
  };
  const [api, client] = [clusterApi(asked), collections(asked)];
  const view: LiveView = new LiveView({ api, client, clock, log, namespace, signal });
  const leader = new Leader({ api, clock, log, namespace, name: serviceName, identity, signal });
  const happenings = new Happenings({
    api,
    clock,
    log,
    signal,
    instance: identity,
    dropped: metrics.counter("holdfast_guard_events_dropped_total", "Events that found no room or were refused."),
  });
  return { ...settings, metrics, identity, api, client, view, leader, happenings };
}
