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
  /** Ends it, as `stop` does. */
  readonly signal?: AbortSignal;
}

/** An open health listener. */
export interface HealthServer {
  readonly port: number;
  stop(): void;
}

/** The health address cannot be listened on. */
export class HealthListenError extends EdgeError {
  override readonly name = "HealthListenError";

  constructor(
    message: string,
    readonly code: "LISTEN_TAKEN" | "LISTEN_UNUSABLE",
    options: ErrorOptions,
  ) {
    super(message, options);
  }
}

/**
 * Opens the health listener.
 *
 * @throws {HealthListenError} naming address, field and flag.
 */
export function startHealth(options: HealthOptions): HealthServer {
  const { host, port } = options.listen;
  try {
    // In production the runtime shares ports by default: a second daemon would start and get every other probe.
    const server = Bun.serve({
      hostname: host,
      port,
      development: false,
      reusePort: false,
      fetch: healthApp(options).fetch,
    });
    const stop = () => void server.stop(true);
    if (options.signal?.aborted === true) stop();
    options.signal?.addEventListener("abort", stop, { once: true });
    return { port: server.port ?? port, stop };
  } catch (error) {
    const { code } = error as { code?: string };
    const isTaken = code === "EADDRINUSE";
    const why = isTaken
      ? "another program has the port"
      : code === "EADDRNOTAVAIL"
        ? "no interface of this machine has the address"
        : (code ?? "the address cannot be used");
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    throw new HealthListenError(
      `Cannot listen on "${address}" for health: ${why}; choose another address with healthListen in the configuration or --health-listen`,
      isTaken ? "LISTEN_TAKEN" : "LISTEN_UNUSABLE",
      { cause: error },
    );
  }
}

/** The application behind it. */
export function healthApp({ checks, metrics, beforeScrape }: Omit<HealthOptions, "listen" | "signal">): Hono {
  const app = new Hono();
  app.use(async (context, next) => {
    const { method } = context.req;
    return method === "GET" || method === "HEAD"
      ? next()
      : context.text("method not allowed\n", 405, { Allow: "GET, HEAD" });
  });
  app.notFound((context) => context.text("404 page not found\n", 404));
  // Its kind alone: this listener speaks in the clear to whoever asks.
  app.onError((error, context) => context.text(`internal error: ${error.name}\n`, 500));
  app.get("/livez", (context) => context.text("ok"));
  app.get("/readyz", (context) => {
    const results = checks.map(({ name, check }) => ({ name, reason: outcome(check) }));
    const isReady = results.every(({ reason }) => reason === undefined);
    if (isReady && context.req.query("verbose") === undefined) return context.text("ok");
    const lines = results.map(({ name, reason }) =>
      reason === undefined ? `[+]${name} ok` : `[-]${name} failed: ${reason}`,
    );
    return context.text(`${lines.join("\n")}\nreadyz check ${isReady ? "passed" : "failed"}\n`, isReady ? 200 : 503);
  });
  const scrape = sparingly(() => {
    beforeScrape();
    return metrics.text();
  });
  app.get("/metrics", (context) => {
    return context.body(scrape(), 200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  return app;
}

/** What took so long was a report of many copies, and whoever asks again at once gets the same one: it takes a fifth of the time at most. */
const LONG_MS = 5;
const SPARED = 4;

function sparingly(make: () => string): () => string {
  let made = "";
  let freshUntilMs = Number.NEGATIVE_INFINITY;
  return () => {
    const beganMs = performance.now();
    if (beganMs < freshUntilMs) return made;
    made = make();
    const tookMs = performance.now() - beganMs;
    freshUntilMs = tookMs < LONG_MS ? beganMs : beganMs + (1 + SPARED) * tookMs;
    return made;
  };
}

/** A check that throws has failed; one broken check must not hide the others. */
function outcome(check: HealthCheck["check"]): string | undefined {
  try {
    return check();
  } catch (error) {
    return `the check itself failed: ${(error as Error).name}`;
  }
}
