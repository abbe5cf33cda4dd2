/**
 * The admin socket: what the CLI asks a running daemon.
 *
 * A unix socket that only root (and the daemon's own user) can open: the
 * folder is 0700 where we make it, the socket 0600 from its first moment.
 * Only a socket on which nobody answers is removed, never anything else that
 * a slip in the configuration may point at.
 */

import { Hono } from "hono";
import { chmodSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import type { Log } from "../base/log.ts";
import type { CoverageReport } from "./coverage-report.ts";
import type { RehearsalReport } from "./rehearsal-report.ts";
import { rehearsalRoutes } from "./rehearsal-routes.ts";
import type { StatusReport } from "./status-report.ts";

/** What the socket offers. */
export interface AdminOptions {
  readonly path: string;
  readonly status: () => StatusReport;
  /** Which pods would come back; undefined where there is no node to speak of. */
  readonly coverage: () => Promise<CoverageReport | undefined>;
  /** Commits what is queued, so that a reader of the file sees it. */
  readonly flush: () => void;
  /** Cuts the link for so long; in words why not. */
  readonly rehearse: (forMs: number, isForced: boolean) => Promise<StartedRehearsal | string>;
  /** A new PIN for the technician's page, and where that is; nowhere: undefined. */
  readonly renewPin: () => { readonly pin: string; readonly address?: string };
  /** What is kept of a resource, line by line; the query is the view's own. */
  readonly objects: (query: URLSearchParams) => Iterable<object>;
  /** Does something with one certificate; words for people come back. */
  readonly certificates: (action: string, name: string) => Promise<CertificateAnswer>;
  readonly log: Log;
}

/** A rehearsal that runs. */
export interface StartedRehearsal {
  readonly untilMs: number;
  end(because: RehearsalReport["endedBy"]): void;
  readonly ended: Promise<RehearsalReport>;
}

/** What came of it: 200 done, 202 under way, 409 cannot be done. */
export interface CertificateAnswer {
  readonly status: 200 | 202 | 409;
  readonly message: string;
}

/** Status is asked for more often than a container runtime answers. */
const COVERAGE_PATIENCE_MS = 1_500;

/** Opens the socket; a socket that cannot be opened costs the CLI, not the node. */
export async function startAdmin(options: AdminOptions): Promise<{ stop(): void }> {
  const { path, log } = options;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const present = lstatSync(path, { throwIfNoEntry: false });
    if (present !== undefined) {
      if (!present.isSocket()) throw new Error("something that is no socket is in its place");
      if (await isAlive(path)) throw new Error("another daemon answers on it");
      rmSync(path);
    }
    const server = serveOwnerOnly(options);
    const { ino } = lstatSync(path);
    return {
      stop() {
        void server.stop(true);
        // Not the socket of a daemon that has come after us.
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
      },
    };
  } catch (error) {
    log.warn("admin socket not opened: holdfast status will not work", {
      path,
      reason: String((error as { code?: string }).code ?? (error as Error).message),
    });
    return { stop() {} };
  }
}

/** The application behind it. */
export function adminApp({
  status,
  coverage,
  rehearse,
  renewPin,
  flush,
  objects,
  certificates,
}: Omit<AdminOptions, "path" | "log">): Hono {
  const app = new Hono();
  app.notFound((context) => context.json({ error: "there is no such path" }, 404));
  app.onError((error, context) => context.json({ error: `${error.name}: ${error.message}` }, 500));
  app.get("/v1/status", async (context) => {
    const patience = Promise.withResolvers<undefined>();
    const timer = setTimeout(patience.resolve, COVERAGE_PATIENCE_MS, undefined);
    // Neither a runtime that hangs nor a fault of the look keeps the rest from whoever asks.
    const covered = await Promise.race([coverage().catch(() => undefined), patience.promise]);
    clearTimeout(timer);
    return context.json({ ...status(), ...(covered === undefined ? {} : { coverage: covered }) });
  });
  app.get("/v1/coverage", async (context) => {
    const covered = await coverage();
    return covered === undefined
      ? context.json({ error: "the kubeconfig's credential is not a node's" }, 404)
      : context.json(covered);
  });
  app.get("/v1/objects", (context) => {
    const lines = objects(new URL(context.req.url).searchParams);
    return new Response(inLines(lines), { headers: { "Content-Type": "application/x-ndjson" } });
  });
  app.post("/v1/certificates/:action/:name", async (context) => {
    const { action, name } = context.req.param();
    const answer = await certificates(action, name);
    return context.json({ message: answer.message }, answer.status);
  });
  rehearsalRoutes(app, rehearse);
  app.post("/v1/page/pin", (context) => context.json(renewPin()));
  app.post("/v1/flush", (context) => {
    flush();
    return context.body(null, 204);
  });
  return app;
}

const CHUNK_BYTES = 64 * 1024;

/** One line of JSON each, made as they are taken: a resource may be larger than memory allows twice. */
function inLines(lines: Iterable<object>): ReadableStream<Uint8Array> {
  const iterator = lines[Symbol.iterator]();
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      let text = "";
      while (text.length < CHUNK_BYTES) {
        const { done, value } = iterator.next();
        if (done === true) {
          if (text !== "") controller.enqueue(Buffer.from(text));
          return controller.close();
        }
        text += `${JSON.stringify(value)}\n`;
      }
      controller.enqueue(Buffer.from(text));
    },
    cancel: () => void iterator.return?.(),
  });
}

/** Bound under a mask: between bind and chmod anybody could have connected. */
function serveOwnerOnly(options: AdminOptions) {
  const mask = process.umask(0o177);
  try {
    const server = Bun.serve({ unix: options.path, development: false, fetch: adminApp(options).fetch });
    chmodSync(options.path, 0o600);
    return server;
  } finally {
    process.umask(mask);
  }
}

/** Dead is only who refuses: a full backlog or a forbidden socket belongs to somebody. */
function isAlive(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path, () => resolve(true));
  socket.on("error", (error: NodeJS.ErrnoException) =>
    resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
  );
  return promise.finally(() => socket.destroy());
}
