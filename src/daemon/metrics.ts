/**
 * What the daemon counts, by the names that dashboards rely on.
 */

import { CONDITION_TYPES } from "../base/conditions.ts";
import { Metrics } from "../base/metrics.ts";
import type { StatusReport } from "../health/status-report.ts";

const VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect", "unknown"];
const CODES = ["2xx", "3xx", "4xx", "5xx"];
const CONDITIONS = Object.keys(CONDITION_TYPES);
const STATES = ["unseen", "listing", "live", "stale"];

/** The daemon's metrics. */
export class DaemonMetrics {
  readonly registry = new Metrics();
  readonly #requests = this.registry.counter(
    "holdfast_requests_total",
    "Requests answered, by verb and class of code.",
    { verb: VERBS, code: CODES },
  );
  readonly #duration = this.registry.histogram(
    "holdfast_request_duration_seconds",
    "Time until the answer was handed over, watches excluded.",
    [0.001, 0.005, 0.025, 0.1, 0.5, 2, 10],
    { verb: VERBS },
  );
  readonly #answers = this.registry.counter(
    "holdfast_answers_total",
    "Answers by where they came from; writes refused while offline.",
    { source: ["forwarded", "servedFromCache", "refusedWrites"] },
  );
  readonly #lists = this.registry.counter(
    "holdfast_relist_total",
    "Lists that scopes asked of the API server, by reason.",
    { reason: ["first", "expired", "rollback"] },
  );
  readonly #shared = this.registry.counter(
    "holdfast_shared_bytes_total",
    "Bytes of lists and watch events taken from another scope's watch instead of the API server, uncompressed.",
  );
  readonly #overlays = this.registry.gauge("holdfast_overlays", "Objects whose status kubelet wrote while cut.");
  readonly #eventsWaiting = this.registry.gauge("holdfast_events_waiting", "Events that wait for the link.");
  readonly #expiredTokens = this.registry.gauge(
    "holdfast_expired_tokens_served",
    "Service-account tokens handed out after their own expiry, since start.",
  );
  readonly #agentChanges = this.registry.gauge(
    "holdfast_agent_changes",
    "Labels, annotations and conditions that node agents wrote while cut, by what became of them since start.",
    { outcome: ["waiting", "sent", "dropped"] },
  );
  readonly #isRefused = this.registry.gauge(
    "holdfast_credential_refused",
    "1 while the API server answers our own credential with 401.",
  );
  readonly #conditions = this.registry.gauge("holdfast_condition", "1 while a condition of this type stands.", {
    type: CONDITIONS,
  });
  readonly #foreign = this.registry.counter(
    "holdfast_foreign_answers_total",
    "Answers that something else gave in the API server's place.",
  );
  readonly #refusals = this.registry.gauge(
    "holdfast_refusals_standing",
    "Refusals of callers that withhold something kept and are looked at again.",
  );
  readonly #tunnelStreams = this.registry.counter(
    "holdfast_tunnel_streams_total",
    "Connections that came through the tunnel to kubelet, by how they ended.",
    { end: ["ended", "broken", "idle", "unreachable"] },
  );
  readonly #tunnelBytes = this.registry.counter("holdfast_tunnel_bytes_total", "Bytes through the tunnel.", {
    direction: ["to kubelet", "from kubelet"],
  });
  readonly #tunnelOpen = this.registry.gauge("holdfast_tunnel_open", "1 while the tunnel to a gateway stands.");
  readonly #isUp = this.registry.gauge("holdfast_upstream_up", "1 while the API server can be reached.");
  readonly #changes = this.registry.counter(
    "holdfast_upstream_changes_total",
    "Changes of the link between online and offline.",
  );
  readonly #scopes = this.registry.gauge("holdfast_scopes", "Scopes by state.", { state: STATES });
  readonly #watchers = this.registry.gauge("holdfast_watchers", "Local watches open now.");
  readonly #objects = this.registry.gauge("holdfast_cache_objects", "Objects kept.");
  readonly #bytes = this.registry.gauge("holdfast_store_bytes", "Size of the database and its log.");
  readonly #rows = this.registry.gauge("holdfast_store_rows_written", "Rows written or deleted since start.");
  readonly #commits = this.registry.gauge("holdfast_store_commits", "Transactions since start.");
  readonly #quarantined = this.registry.gauge("holdfast_store_quarantined", "Rows and files found damaged.");
  readonly #isOnDisk = this.registry.gauge(
    "holdfast_store_on_disk",
    "1 while the store is on its disk, 0 while in memory.",
  );
  readonly #expiry = this.registry.gauge("holdfast_certificate_expiry_timestamp_seconds", "When a certificate ends.", {
    name: ["upstream", "serving"],
  });
  readonly #counts: Record<"forwarded" | "servedFromCache" | "refusedWrites", number> = {
    forwarded: 0,
    servedFromCache: 0,
    refusedWrites: 0,
  };

  /** Counts so far. */
  get counts(): Readonly<Record<"forwarded" | "servedFromCache" | "refusedWrites", number>> {
    return this.#counts;
  }

  /** One answer's source, or one refused write. */
  request(what: "forwarded" | "servedFromCache" | "refusedWrites"): void {
    this.#counts[what]++;
    this.#answers.add({ source: what });
  }

  /** One request is answered. */
  observe(verb: string, code: number, seconds: number): void {
    this.#requests.add({ verb, code: `${Math.floor(code / 100)}xx` });
    if (verb !== "watch") this.#duration.observe(seconds, { verb });
  }

  /** A scope listed. */
  upstreamList(reason: string): void {
    this.#lists.add({ reason });
  }

  /** Bytes that did not have to come from the API server. */
  shared(bytes: number): void {
    this.#shared.add({}, bytes);
  }

  /** Something answered in the API server's place. */
  foreignAnswer(): void {
    this.#foreign.add();
  }

  /** So many refusals withhold something now. */
  refusalsStanding(count: number): void {
    this.#refusals.set(count);
  }

  /** The link changed. */
  linkChanged(isOnline: boolean): void {
    this.#isUp.set(isOnline ? 1 : 0);
    this.#changes.add();
  }

  /** A connection through the tunnel is over. */
  tunnelStream(toKubelet: number, fromKubelet: number, end: string): void {
    this.#tunnelStreams.add({ end });
    this.#tunnelBytes.add({ direction: "to kubelet" }, toKubelet);
    this.#tunnelBytes.add({ direction: "from kubelet" }, fromKubelet);
  }

  /** Brings gauges up to date. */
  refresh({ link, scopes, store, certificates, offline, conditions, tunnel }: StatusReport): void {
    this.#tunnelOpen.set(tunnel?.state === "open" ? 1 : 0);
    this.#overlays.set(offline?.overlays ?? 0);
    this.#eventsWaiting.set(offline?.eventsWaiting ?? 0);
    this.#expiredTokens.set(offline?.expiredTokensServed ?? 0);
    for (const [outcome, count] of Object.entries(offline?.agentChanges ?? {}))
      this.#agentChanges.set(count, { outcome });
    this.#isRefused.set(conditions.some(({ type }) => type === "CredentialRefused") ? 1 : 0);
    for (const name of CONDITIONS)
      this.#conditions.set(conditions.some(({ type }) => type === name) ? 1 : 0, { type: name });
    this.#isUp.set(link.state === "online" ? 1 : 0);
    for (const state of STATES) this.#scopes.set(scopes.filter((scope) => scope.state === state).length, { state });
    this.#watchers.set(scopes.reduce((sum, { watchers }) => sum + watchers, 0));
    this.#objects.set(store.objects);
    this.#bytes.set(store.sizeBytes);
    this.#rows.set(store.rowsWritten);
    this.#commits.set(store.commits);
    this.#quarantined.set(store.quarantined);
    this.#isOnDisk.set(store.mode === "disk" ? 1 : 0);
    for (const { name, notAfterMs } of certificates) this.#expiry.set(Math.floor(notAfterMs / 1_000), { name });
  }
}
