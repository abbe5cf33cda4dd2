/**
 * `holdfast guard`, put together: a view of the cluster, the webhook that judges
 * by it, and the truth that one replica writes.
 *
 * Stateless: everything it knows it reads from Kubernetes, and everything it
 * decides stands there. Two to many replicas answer reviews; the Lease says
 * which of them writes.
 */

import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Metrics } from "../base/metrics.ts";
import { COMMIT, VERSION } from "../base/version.ts";
import { createAuthority, issueServingCertificate } from "../certificates/authority.ts";
import { readCertificateRequest } from "../certificates/certificate-request.ts";
import { apiServerNames } from "./api-server-names.ts";
import { Claims } from "./claims.ts";
import { CsrApprover } from "./csr-approver.ts";
import type { Denial } from "./denials.ts";
import { describe, pause } from "./follow.ts";
import { Happenings } from "./happenings.ts";
import { isHeld } from "./cluster-view.ts";
import { kubernetesClient, type KubernetesTarget } from "./kubernetes.ts";
import { Leader } from "./leader.ts";
import { LiveView } from "./live-view.ts";
import { Reachability } from "./reachability.ts";
import { keepServingCertificate, type CertificateMaker } from "./serving-certificate.ts";
import { TakenNames } from "./taken-names.ts";
import { WitnessPanel } from "./witness-panel.ts";
import { startWebhook, type ServingKeyPair, type Webhook } from "./webhook.ts";
import { startHealth } from "../health/health.ts";

/** Where something listens. */
export interface GuardAddress {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
}

/** What a guard is made of. */
export interface GuardOptions {
  readonly target: KubernetesTarget;
  readonly namespace: string;
  /** The Service that the API server calls. */
  readonly serviceName: string;
  readonly listen: GuardAddress;
  readonly healthListen: GuardAddress;
  /** Approve certificate requests of kubelets. */
  readonly approvesCsrs: boolean;
  /** Files of the serving certificate; undefined: it is made here and kept in a Secret. */
  readonly tlsFiles?: { readonly cert: string; readonly key: string } | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** A running guard. */
export interface GuardDaemon {
  readonly port: number;
  readonly healthPort: number;
  /** Settles when everything has ended. */
  readonly ended: Promise<void>;
}

/** The serving certificate cannot be read or made. */
export class GuardCertificateError extends EdgeError {
  override readonly name = "GuardCertificateError";
  readonly code = "GUARD_CERTIFICATE";
}

const CERTIFICATE_EVERY_MS = 30_000;
const ROUND_MS = 1_000;
const PANEL_EVERY_MS = 3_000;
const HISTORY_EVERY_MS = 30_000;
const APPROVE_EVERY_MS = 2_000;
/** An API server may still know this replica's address for a moment after it has left the Service. */
const LINGER_MS = 3_000;

/**
 * Starts a guard; it is listening when this settles, and ready when it has read the cluster.
 *
 * @throws {EdgeError} when an address cannot be listened on or files cannot be read.
 */
export async function startGuard(options: GuardOptions): Promise<GuardDaemon> {
  const { clock, log, namespace, signal, target } = options;
  const metrics = new Metrics();
  const identity = `${hostname()}-${crypto.randomUUID().slice(0, 8)}`;
  const client = kubernetesClient({
    target,
    clock,
    userAgent: `holdfast-guard/${VERSION} (${COMMIT})`,
    onContact: () => view.contact(),
  });
  const view: LiveView = new LiveView({ client, clock, log, namespace, signal });
  const leader = new Leader({ api: client, clock, log, namespace, name: options.serviceName, identity, signal });
  const happenings = new Happenings({
    api: client,
    clock,
    log,
    signal,
    instance: identity,
    dropped: metrics.counter("holdfast_guard_events_dropped_total", "Events that found no room or were refused."),
  });
  const health = startHealth({
    listen: options.healthListen,
    metrics,
    checks: [
      { name: "view", check: () => (view.isSynced ? undefined : `still reading ${view.missing.join(", ")}`) },
      { name: "webhook", check: () => (serving.webhook === undefined ? "no serving certificate yet" : undefined) },
      { name: "stopping", check: () => (signal.aborted ? "is ending" : undefined) },
    ],
    beforeScrape: gauges(metrics, view, leader, clock),
  });
  const serving: { webhook: Webhook | undefined } = { webhook: undefined };
  const tellDenial = (denial: Denial) => tell(happenings, view, denial);
  const serve = (tls: ServingKeyPair) =>
    startWebhook({ ...options.listen, tls, view, clock, metrics, log, onDenied: tellDenial });

  const pair = certificates(options, client);
  const first = await pair.untilFirst();
  try {
    if (first !== undefined) serving.webhook = await serve(first);
  } catch (error) {
    health.stop();
    throw error;
  }
  let clientCaPem: string | undefined;
  const panel = new WitnessPanel({ view, api: client, clock, log, clientCaPem: () => clientCaPem });
  const reachability = new Reachability({
    view,
    api: client,
    clock,
    log,
    happenings,
    witness: (node) => panel.verdictOf(node),
  });
  const approver = options.approvesCsrs
    ? new CsrApprover({
        client,
        clock,
        log,
        metrics,
        happenings,
        taken: new TakenNames({
          client,
          clock,
          nodes: () => view.everyFacts(),
          apiServerNames: () => apiServerNames(target),
        }),
        claims: new Claims(leader, clock),
        isLeader: () => leader.isLeader,
        read: readCertificateRequest,
      })
    : undefined;
  const parts = Promise.all([
    view.start(),
    every(HISTORY_EVERY_MS, options, () => view.checkHistory()),
    leader.run(),
    happenings.run(),
    pair.keep((next) => serving.webhook?.reload(next)),
    every(ROUND_MS, options, async () => {
      // Not waited for: a node whose writes take long holds up the round of no other.
      if (leader.isLeader && view.isSynced) void reachability.round();
    }),
    every(PANEL_EVERY_MS, options, async () => {
      if (!leader.isLeader || !view.isSynced) return;
      clientCaPem ??= await readClientCa(client);
      await panel.round();
    }),
    ...(approver === undefined
      ? []
      : [
          every(APPROVE_EVERY_MS, options, async () => {
            if (leader.isLeader && view.isSynced) await approver.round();
          }),
        ]),
  ]);
  const ended = parts.then(async () => {
    await serving.webhook?.stop(LINGER_MS);
    health.stop();
  });
  log.info("guard started", { namespace, identity, port: serving.webhook?.port });
  return { port: serving.webhook?.port ?? 0, healthPort: health.port, ended };
}

/** The CAs by which the API server believes clients, as it publishes them itself. */
async function readClientCa(api: ReturnType<typeof kubernetesClient>): Promise<string | undefined> {
  const found = await api.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication");
  const parsed = v.safeParse(v.object({ data: v.object({ "client-ca-file": v.string() }) }), found);
  return parsed.success ? parsed.output.data["client-ca-file"] : undefined;
}

/** Where the serving certificate comes from: files, or our own Secret. */
function certificates(options: GuardOptions, api: ReturnType<typeof kubernetesClient>) {
  const { clock, log, signal, tlsFiles, namespace, serviceName } = options;
  let served = "";
  const next = async (): Promise<ServingKeyPair> =>
    tlsFiles === undefined
      ? await keepServingCertificate({ api, make, clock, log, namespace, serviceName })
      : readPair(tlsFiles);
  return {
    /** @returns undefined only when the signal came first. */
    async untilFirst(): Promise<ServingKeyPair | undefined> {
      for (let retryMs = 500; !signal.aborted; retryMs = Math.min(30_000, retryMs * 2)) {
        try {
          const pair = await next();
          served = pair.certPem;
          return pair;
        } catch (error) {
          if (tlsFiles !== undefined) throw error;
          log.warn("no serving certificate yet; trying again", { reason: describe(error) });
          await pause(clock, retryMs, signal);
        }
      }
      return undefined;
    },
    async keep(reload: (pair: ServingKeyPair) => void): Promise<void> {
      await every(CERTIFICATE_EVERY_MS, options, async () => {
        const pair = await next();
        if (pair.certPem === served) return;
        served = pair.certPem;
        reload(pair);
        log.info("serving certificate exchanged");
      });
    },
  };
}

const make: CertificateMaker = ({ commonName, dnsNames, ipAddresses, days, nowMs }) => {
  // A day more than its certificate: a CA that ends first would take it along.
  const authority = createAuthority({ commonName: `${commonName} CA`, nowMs, years: (days + 1) / 365 });
  const pair = issueServingCertificate(authority, { commonName, dnsNames, ipAddresses, days, nowMs });
  return { caPem: authority.certPem, ...pair };
};

function readPair({ cert, key }: { readonly cert: string; readonly key: string }): ServingKeyPair {
  const read = (flag: string, path: string) => {
    try {
      // A folder can be opened and not read.
      if (!statSync(path).isFile()) throw Object.assign(new Error("no file"), { code: "no file" });
      return readFileSync(path, "utf8");
    } catch (cause) {
      const { code = "unreadable" } = cause as { code?: string };
      throw new GuardCertificateError(`Cannot read ${flag} "${path}" (${code}); expected a PEM file`, { cause });
    }
  };
  return { certPem: read("--tls-cert-file", cert), keyPem: read("--tls-key-file", key) };
}

/** Runs a step again and again until the signal; what fails is logged and tried the next time. */
async function every(
  delayMs: number,
  { clock, log, signal }: Pick<GuardOptions, "clock" | "log" | "signal">,
  step: () => Promise<void>,
): Promise<void> {
  while (!signal.aborted) {
    await pause(clock, delayMs, signal);
    if (signal.aborted) return;
    try {
      await step();
    } catch (error) {
      log.warn("a step failed; it is tried again", { reason: describe(error) });
    }
  }
}

/** The first refusal of a kind is told on the pod it saved. */
function tell(happenings: Happenings, view: LiveView, denial: Denial): void {
  const { count, rule, namespace, name, message, user } = denial;
  if (count !== 1 || !rule.startsWith("/validate/pods")) return;
  const uid = view.pod(namespace, name)?.uid;
  if (uid === undefined) return;
  happenings.tell({
    kind: "Pod",
    namespace,
    name,
    uid,
    type: "Normal",
    reason: "HoldfastDenied",
    message: `Refused to ${user}: ${message}`,
  });
}

function gauges(metrics: Metrics, view: LiveView, leader: Leader, clock: Clock): () => void {
  const nodes = metrics.gauge("holdfast_guard_nodes", "Nodes by how they stand.", {
    state: ["not-opted-in", "held", "held-silent", "released", "bound-passed"],
  });
  const pods = metrics.gauge("holdfast_guard_pods", "Pods that are watched.");
  const leads = metrics.gauge("holdfast_guard_leader", "1 on the replica that writes.");
  const synced = metrics.gauge("holdfast_guard_synced", "1 when the cluster has been read.");
  const parameters = metrics.gauge(
    "holdfast_guard_parameters_present",
    "0 when the ConfigMap is gone and the policies on nodes are asleep.",
  );
  return () => {
    const counts = new Map<string, number>();
    for (const node of view.nodes()) {
      const state =
        node.terms === undefined
          ? "not-opted-in"
          : node.terms.released !== undefined
            ? "released"
            : !isHeld(node, clock.nowMs())
              ? "bound-passed"
              : node.hearing === "silent"
                ? "held-silent"
                : "held";
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
    for (const state of ["not-opted-in", "held", "held-silent", "released", "bound-passed"])
      nodes.set(counts.get(state) ?? 0, { state });
    pods.set(view.counts.pods);
    leads.set(leader.isLeader ? 1 : 0);
    synced.set(view.isSynced ? 1 : 0);
    parameters.set(view.hasParameters ? 1 : 0);
  };
}
