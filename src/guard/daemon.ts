/**
 * `holdfast guard`, put together: a view of the cluster, the webhook that judges
 * by it, and the truth that one replica writes.
 *
 * Stateless: everything it knows it reads from Kubernetes, and everything it
 * decides stands there. Two to many replicas answer reviews; the Lease says
 * which of them writes.
 */

import { startHealth, type HealthServer } from "../health/health.ts";
import { gauges } from "./gauges.ts";
import { groundOf, type GuardGround, type GuardSettings } from "./ground.ts";
import { runRounds } from "./rounds.ts";
import { ServedWebhook, type GuardAddress, type ServedOptions } from "./served.ts";

/** What a guard is made of. */
export interface GuardOptions extends GuardSettings {
  readonly listen: GuardAddress;
  readonly healthListen: GuardAddress;
  /** Approve certificate requests of kubelets. */
  readonly approvesCsrs: boolean;
  readonly tlsFiles?: ServedOptions["tlsFiles"];
}

/** A running guard. */
export interface GuardDaemon {
  readonly port: number;
  readonly healthPort: number;
  /** Settles when everything has ended. */
  readonly ended: Promise<void>;
}

/**
 * Starts a guard; it is listening when this settles, and ready when it has read the cluster.
 *
 * @throws {EdgeError} when an address cannot be listened on or files cannot be read.
 */
export async function startGuard(options: GuardOptions): Promise<GuardDaemon> {
  const ground = groundOf(options);
  const { log, namespace, identity, view, leader, happenings } = ground;
  const served = new ServedWebhook({ ground, listen: options.listen, tlsFiles: options.tlsFiles });
  const health = healthOf(ground, served, options.healthListen);
  try {
    await served.start();
  } catch (error) {
    health.stop();
    throw error;
  }
  const running = [
    view.start(),
    leader.run(),
    happenings.run(),
    served.keep(),
    runRounds(ground, options.approvesCsrs),
  ];
  const ended = Promise.all(running).then(async () => {
    await served.stop();
    health.stop();
  });
  log.info("guard started", { namespace, identity, port: served.port });
  return { port: served.port ?? 0, healthPort: health.port, ended };
}

function healthOf(ground: GuardGround, served: ServedWebhook, listen: GuardAddress): HealthServer {
  const { metrics, view, signal } = ground;
  return startHealth({
    listen,
    metrics,
    checks: [
      { name: "view", check: () => (view.isSynced ? undefined : `still reading ${view.missing.join(", ")}`) },
      { name: "webhook", check: () => (served.port === undefined ? "no serving certificate yet" : undefined) },
      { name: "stopping", check: () => (signal.aborted ? "is ending" : undefined) },
    ],
    beforeScrape: gauges(ground),
  });
}
