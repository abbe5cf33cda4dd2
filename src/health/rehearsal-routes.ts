/**
 * Rehearsing a cut over the admin socket.
 *
 *   POST   /v1/rehearsal?for=MS[&force=true]   a line when it begins, one a second, one at the end
 *   DELETE /v1/rehearsal                       ends it; the line at the end is told over the POST
 *
 * Whoever goes away ends it: the connection is the dead man's switch.
 */

import type { Hono } from "hono";
import type { AdminOptions, StartedRehearsal } from "./admin.ts";

const BEAT_MS = 1_000;

/** Adds the routes. */
export function rehearsalRoutes(app: Hono, rehearse: AdminOptions["rehearse"]): void {
  let running: StartedRehearsal | undefined;
  app.post("/v1/rehearsal", async (context) => {
    const begun = await rehearse(Number(context.req.query("for")), context.req.query("force") === "true");
    if (typeof begun === "string") return context.json({ error: begun }, 409);
    running = begun;
    context.req.raw.signal.addEventListener("abort", () => begun.end("disconnect"));
    if (context.req.raw.signal.aborted) begun.end("disconnect");
    return new Response(told(begun), { headers: { "Content-Type": "application/x-ndjson" } });
  });
  app.delete("/v1/rehearsal", (context) => {
    running?.end("person");
    return context.body(null, 204);
  });
}

function told(rehearsal: StartedRehearsal): ReadableStream<Uint8Array> {
  let beat: ReturnType<typeof setInterval> | undefined;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const say = (line: object) => controller.enqueue(Buffer.from(`${JSON.stringify(line)}\n`));
      say({ state: "cut", untilMs: rehearsal.untilMs });
      beat = setInterval(() => say({ state: "running" }), BEAT_MS);
      void rehearsal.ended.then((report) => {
        clearInterval(beat);
        try {
          say({ state: "ended", report });
          controller.close();
        } catch {
          // Nobody listens any more.
        }
      });
    },
    cancel() {
      clearInterval(beat);
      rehearsal.end("disconnect");
    },
  });
}
