/**
 * /livez, /readyz and /metrics, as Kubernetes components serve them.
 *
 * Ready means that local clients can be answered, from the API server or from
 * the copy: a lost link is no reason to be restarted.
 */

import { Hono } from "hono";
import { EdgeError } from "../base/errors.ts";
import type { Metrics } from "../base/metrics.ts";

/** A named check: undefined when it holds, else the reason. */
export interface HealthCheck {
  readonly name: string;
  readonly check: () => string | undefined;
}

/** What health is served from. */
export interface HealthOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly checks: readonly HealthCheck[];
  readonly metrics: Metrics;
  /** Brings gauges up to date before they are read. */
  readonly beforeScrape: () => void;
}

/** An open health listener. */
export interface HealthServer {
  readonly port: number;
  stop(): void;
}

/** The health address cannot be listened on. */
export class HealthListenError extends EdgeError {
  override readonly name = "HealthListenError";
  readonly code = "HEALTH_LISTEN";
}

/**
 * Opens the health listener.
 *
 * @throws {HealthListenError} naming the address and the flag.
 */
export function startHealth(options: HealthOptions): HealthServer {
  const { host, port } = options.listen;
  try {
    const server = Bun.serve({ hostname: host, port, fetch: healthApp(options).fetch });
    return { port: server.port ?? port, stop: () => void server.stop(true) };
  } catch (error) {
    throw new HealthListenError(`Cannot listen on ${host}:${port} for health: ${(error as { code?: string }).code ?? "address not usable"}; choose another address with --health-listen`, { cause: error });
  }
}

/** The application behind it. */
export function healthApp({ checks, metrics, beforeScrape }: Omit<HealthOptions, "listen">): Hono {
  const app = new Hono();
  app.get("/livez", (context) => context.text("ok"));
  app.get("/readyz", (context) => {
    const results = checks.map(({ name, check }) => ({ name, reason: check() }));
    const isReady = results.every(({ reason }) => reason === undefined);
    if (isReady && context.req.query("verbose") === undefined) return context.text("ok");
    const lines = results.map(({ name, reason }) => (reason === undefined ? `[+]${name} ok` : `[-]${name} failed: ${reason}`));
    return context.text(`${lines.join("\n")}\nreadyz check ${isReady ? "passed" : "failed"}\n`, isReady ? 200 : 503);
  });
  app.get("/metrics", (context) => {
    beforeScrape();
    return context.body(metrics.text(), 200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  return app;
}
