/**
 * The figures that are read off a status report when somebody scrapes.
 */

import { CONDITION_TYPES } from "../base/conditions.ts";
import type { Metrics } from "../base/metrics.ts";
import { processFigures } from "../base/process-figures.ts";
import { COMMIT, VERSION } from "../base/version.ts";
import type { StatusReport } from "../health/status-report.ts";
import { wanBytes } from "../uplink/wan.ts";

const CONDITIONS = Object.keys(CONDITION_TYPES);
const STATES = ["unseen", "listing", "live", "stale"];
/** What kubelet lives on, by name; the rest is "other". */
const AGED = ["pods", "nodes", "secrets", "configmaps", "services"];
const VERDICTS = ["yes", "no", "unknown"] as const;

/** Reads a report into metrics. */
export class ReportMetrics {
  readonly #gauges: ReturnType<typeof gaugesOf>;
  readonly #counters: ReturnType<typeof countersOf>;
  /** Cuts that are over, and how long the one has lasted that is not. */
  #offlineBefore = 0;
  #offlineNow = 0;

  constructor(registry: Metrics) {
    this.#gauges = gaugesOf(registry);
    this.#counters = countersOf(registry);
    registry
      .gauge("holdfast_build_info", "1, with what this program is.", {
        version: [VERSION],
        commit: [COMMIT],
        runtime: [`bun ${Bun.version}`],
      })
      .set(1, { version: VERSION, commit: COMMIT, runtime: `bun ${Bun.version}` });
    registry
      .gauge("process_start_time_seconds", "Start of the process, seconds since the epoch.")
      .set(Math.round(Date.now() / 1_000 - process.uptime()));
  }

  /** A cut that lasted so long is over. */
  cutEnded(seconds: number): void {
    this.#offlineBefore += seconds;
    this.#offlineNow = 0;
  }

  /** Brings everything up to date. */
  refresh(report: StatusReport): void {
    const { link, nowMs } = report;
    this.#gauges.isUp.set(link.state === "online" ? 1 : 0);
    this.#offlineNow = link.state === "offline" ? Math.max(0, nowMs - link.sinceMs) / 1_000 : 0;
    this.#counters.offline.reach(this.#offlineBefore + this.#offlineNow);
    this.#counters.wan.reach(wanBytes.sent, { direction: "sent" });
    this.#counters.wan.reach(wanBytes.received, { direction: "received" });
    this.#ofCopies(report);
    this.#ofStore(report);
    this.#ofCut(report);
    this.#ofConditions(report);
    this.#ofProcess();
  }

  #ofCopies({ scopes, nowMs, coverage }: StatusReport): void {
    const { scopes: byState, watchers, age, pods } = this.#gauges;
    for (const state of STATES) byState.set(scopes.filter((scope) => scope.state === state).length, { state });
    watchers.set(scopes.reduce((sum, scope) => sum + scope.watchers, 0));
    const oldest = new Map<string, number>([...AGED, "other"].map((resource) => [resource, 0]));
    for (const { resource, lastContactMs, watchers: open } of scopes) {
      // Nobody lives on a copy that nobody watches.
      if (lastContactMs === 0 || open === 0) continue;
      const name = AGED.includes(resource) ? resource : "other";
      oldest.set(name, Math.max(oldest.get(name)!, (nowMs - lastContactMs) / 1_000));
    }
    for (const [resource, seconds] of oldest) age.set(seconds, { resource });
    if (coverage !== undefined)
      for (const verdict of VERDICTS)
        pods.set(
          coverage.node.length > 0
            ? verdict === "no"
              ? coverage.pods.length
              : 0
            : coverage.pods.filter(({ comesBack }) => comesBack === verdict).length,
          { comes_back: verdict },
        );
  }

  #ofStore({ store }: StatusReport): void {
    const { objects, bytes, quarantined, isOnDisk } = this.#gauges;
    objects.set(store.objects);
    bytes.set(store.sizeBytes);
    quarantined.set(store.quarantined);
    isOnDisk.set(store.mode === "disk" ? 1 : 0);
    this.#counters.rows.reach(store.rowsWritten);
    this.#counters.commits.reach(store.commits);
  }

  #ofCut({ offline }: StatusReport): void {
    const { overlays, eventsWaiting, agentsWaiting } = this.#gauges;
    overlays.set(offline?.overlays ?? 0);
    eventsWaiting.set(offline?.eventsWaiting ?? 0);
    agentsWaiting.set(offline?.agentChanges?.waiting ?? 0);
    const { expiredTokens, eventsDropped, agents } = this.#counters;
    expiredTokens.reach(offline?.expiredTokensServed ?? 0);
    eventsDropped.reach(offline?.eventsDropped ?? 0);
    for (const outcome of ["sent", "dropped"] as const)
      agents.reach(offline?.agentChanges?.[outcome] ?? 0, { outcome });
  }

  #ofConditions({ conditions, certificates, horizon }: StatusReport): void {
    const { isRefused, condition, expiry, horizon: end } = this.#gauges;
    isRefused.set(conditions.some(({ type }) => type === "CredentialRefused") ? 1 : 0);
    for (const name of CONDITIONS) condition.set(conditions.some(({ type }) => type === name) ? 1 : 0, { type: name });
    for (const { name, notAfterMs } of certificates) expiry.set(Math.floor(notAfterMs / 1_000), { name });
    if (horizon?.endsMs !== undefined) end.set(Math.floor(horizon.endsMs / 1_000));
  }

  #ofProcess(): void {
    const { residentBytes, anonymousBytes, openFiles, cpuSeconds } = processFigures();
    this.#gauges.resident.set(residentBytes);
    this.#gauges.anonymous.set(anonymousBytes);
    this.#gauges.files.set(openFiles);
    this.#counters.cpu.reach(cpuSeconds);
  }
}

function gaugesOf(registry: Metrics) {
  const gauge = (...of: Parameters<Metrics["gauge"]>) => registry.gauge(...of);
  return {
    isUp: gauge("holdfast_upstream_up", "1 while the API server can be reached."),
    scopes: gauge("holdfast_scopes", "Scopes by state.", { state: STATES }),
    watchers: gauge("holdfast_watchers", "Local watches open now."),
    age: gauge(
      "holdfast_copy_age_seconds",
      "How long the API server has not spoken on a watched copy; of each resource the longest.",
      { resource: AGED },
    ),
    pods: gauge(
      "holdfast_pods",
      "Pods of this node by whether they would come back after a restart while cut, as last looked.",
      { comes_back: VERDICTS },
    ),
    objects: gauge("holdfast_cache_objects", "Objects kept."),
    bytes: gauge("holdfast_store_bytes", "Size of the database and its log."),
    quarantined: gauge("holdfast_store_quarantined", "Rows and files found damaged, since the state folder was made."),
    isOnDisk: gauge("holdfast_store_on_disk", "1 while the store is on its disk, 0 while in memory."),
    overlays: gauge("holdfast_overlays", "Objects whose status kubelet wrote while cut."),
    eventsWaiting: gauge("holdfast_events_waiting", "Events that wait for the link."),
    agentsWaiting: gauge(
      "holdfast_agent_changes_waiting",
      "Labels, annotations and conditions that node agents wrote while cut and that wait for the link.",
    ),
    isRefused: gauge("holdfast_credential_refused", "1 while the API server answers our own credential with 401."),
    condition: gauge("holdfast_condition", "1 while a condition of this type stands.", { type: CONDITIONS }),
    expiry: gauge("holdfast_certificate_expiry_timestamp_seconds", "When a certificate ends.", {
      name: ["upstream", "serving", "local-ca"],
    }),
    horizon: gauge(
      "holdfast_horizon_timestamp_seconds",
      "Until when this node survives without its link; 0 where nothing ends.",
    ),
    resident: gauge("process_resident_memory_bytes", "Resident memory."),
    anonymous: gauge("holdfast_memory_anonymous_bytes", "Resident memory that no file stands behind."),
    files: gauge("process_open_fds", "Open file descriptors."),
  };
}

function countersOf(registry: Metrics) {
  const counter = (...of: Parameters<Metrics["counter"]>) => registry.counter(...of);
  return {
    offline: counter("holdfast_offline_seconds_total", "Seconds without the API server."),
    wan: counter("holdfast_wan_bytes_total", "Bytes of requests and answers over the uplink, before TLS.", {
      direction: ["sent", "received"],
    }),
    rows: counter("holdfast_store_rows_written_total", "Rows written or deleted."),
    commits: counter("holdfast_store_commits_total", "Transactions."),
    expiredTokens: counter(
      "holdfast_expired_tokens_served_total",
      "Service-account tokens handed out after their own expiry.",
    ),
    eventsDropped: counter("holdfast_events_dropped_total", "Events that gave way, grew too old or were refused."),
    agents: counter(
      "holdfast_agent_changes_total",
      "What became of labels, annotations and conditions that node agents wrote while cut.",
      { outcome: ["sent", "dropped"] },
    ),
    cpu: counter("process_cpu_seconds_total", "CPU time of the process."),
  };
}
