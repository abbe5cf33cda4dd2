/**
 * The admin socket: what the CLI asks a running daemon.
 *
 * A unix socket that only root (and the daemon's own user) can open: the
 * folder is 0700 where we make it, the socket 0600.
 */

import { Hono } from "hono";
import { chmodSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import type { Log } from "../base/log.ts";
import type { StatusReport } from "./status-report.ts";

/** What the socket offers. */
export interface AdminOptions {
  readonly path: string;
  readonly status: () => StatusReport;
  /** Commits what is queued, so that a reader of the file sees it. */
  readonly flush: () => void;
  readonly log: Log;
}

/** Opens the socket; a socket that cannot be opened costs the CLI, not the node. */
export async function startAdmin(options: AdminOptions): Promise<{ stop(): void }> {
  const { path, log } = options;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if (existsSync(path)) {
      if (await answers(path)) throw new Error("another daemon answers on it");
      rmSync(path);
    }
    const server = Bun.serve({ unix: path, fetch: adminApp(options).fetch });
    chmodSync(path, 0o600);
    return {
      stop() {
        void server.stop(true);
        rmSync(path, { force: true });
      },
    };
  } catch (error) {
    log.warn("admin socket not opened: holdfast status will not work", { path, reason: String((error as { code?: string }).code ?? (error as Error).message) });
    return { stop() {} };
  }
}

/** The application behind it. */
export function adminApp({ status, flush }: Pick<AdminOptions, "status" | "flush">): Hono {
  const app = new Hono();
  app.get("/v1/status", (context) => context.json(status()));
  app.post("/v1/flush", (context) => {
    flush();
    return context.body(null, 204);
  });
  return app;
}

function answers(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path, () => resolve(true));
  socket.on("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}
