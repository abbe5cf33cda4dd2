/**
 * What the daemon counts, by the names that dashboards rely on.
 */

import { Metrics } from "../base/metrics.ts";
import type { StatusReport } from "../health/status-report.ts";
import { ReportMetrics } from "./report-metrics.ts";

const VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect", "unknown"];
const CODES = ["2xx", "3xx", "4xx", "5xx"];

/** The daemon's metrics. */
export class DaemonMetrics {
  readonly registry = new Metrics();
  readonly #report = new ReportMetrics(this.registry);
  #cutAtMs: number | undefined;
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
  readonly #changes = this.registry.counter(
    "holdfast_upstream_changes_total",
    "Changes of the link between online and offline.",
  );
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

  /** The link changed. @param atMs by the monotonic clock. */
  linkChanged(isOnline: boolean, atMs: number): void {
    this.#changes.add();
    if (isOnline && this.#cutAtMs !== undefined) this.#report.cutEnded((atMs - this.#cutAtMs) / 1_000);
    this.#cutAtMs = isOnline ? undefined : atMs;
  }

  /** A connection through the tunnel is over. */
  tunnelStream(toKubelet: number, fromKubelet: number, end: string): void {
    this.#tunnelStreams.add({ end });
    this.#tunnelBytes.add({ direction: "to kubelet" }, toKubelet);
    this.#tunnelBytes.add({ direction: "from kubelet" }, fromKubelet);
  }

  /** Brings gauges up to date. */
  refresh(report: StatusReport): void {
    this.#tunnelOpen.set(report.tunnel?.state === "open" ? 1 : 0);
    this.#report.refresh(report);
  }
}
