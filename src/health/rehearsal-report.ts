/**
 * How a rehearsed cut went, line by line as the daemon tells it, and at the end.
 */

import * as v from "valibot";

const reportSchema = v.object({
  endedBy: v.picklist(["time", "person", "disconnect", "stop"]),
  lastedMs: v.number(),
  /** Answers from copies meanwhile. */
  servedFromCache: v.number(),
  refusedWrites: v.number(),
  /** What was answered 503, by kind; the most frequent first, 64 kinds at most. */
  unanswered: v.array(v.object({ verb: v.string(), resource: v.string(), caller: v.string(), times: v.number() })),
});

/** A line of its telling: it has begun, it goes on, it is over. */
export const rehearsalLineSchema = v.union([
  v.object({ state: v.literal("cut"), untilMs: v.number() }),
  v.object({ state: v.literal("running") }),
  v.object({ state: v.literal("ended"), report: reportSchema }),
]);

/** How it went. */
export type RehearsalReport = v.InferOutput<typeof reportSchema>;
