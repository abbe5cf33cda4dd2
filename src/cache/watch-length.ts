/**
 * How long an upstream watch is asked to last: until its next tick.
 *
 * The API server sends each watch a bookmark a minute after it began, and so
 * on. Thirty watches that began each in a second of its own never let an idle
 * link rest, and a radio never sleep; those that began in the same second get
 * theirs in one burst a minute. (Bytes it saves few: a bookmark is mostly a
 * packet of its own even so.) So all watches of a node end on one grid, and
 * are opened again together. Where the grid begins is drawn for each run, lest
 * nodes that were switched on together ask together.
 *
 *   collections    4 to 12 minutes at first, then 8 (client-go: 5 to 10)
 *   one object     1 to 9 minutes at first, then up to 40 (kubelet: 30 to 60)
 *
 * Source: k8s.io/apiserver storage/cacher, bookmarks by the second.
 */

import type { ScopeIdentity } from "../store/contract.ts";

/** Ticks of collections and of single objects; the longer is a multiple of the shorter, so that they meet. */
const TICK_SECONDS = 480;
const OBJECT_TICK_SECONDS = 2_400;
/** One that begins so soon after a tick ended with the others there. */
const TOGETHER_SECONDS = 2;
/** No watch is asked to last shorter. */
const LEAST_SECONDS = { collection: TICK_SECONDS / 2, object: 60 } as const;

/**
 * How long a watch that begins now is asked to last, in seconds.
 *
 * @param nowMs by the monotonic clock.
 * @param phase in [0, 1), the same for all watches of this run.
 * @returns a whole number.
 */
export function watchSeconds(
  { fieldSelector }: Pick<ScopeIdentity, "fieldSelector">,
  nowMs: number,
  phase: number,
): number {
  const seconds = nowMs / 1_000 + phase * OBJECT_TICK_SECONDS;
  const isObject = fieldSelector.startsWith("metadata.name=");
  if (isObject && seconds % TICK_SECONDS < TOGETHER_SECONDS) return left(seconds, OBJECT_TICK_SECONDS);
  const untilTick = left(seconds, TICK_SECONDS);
  return untilTick >= LEAST_SECONDS[isObject ? "object" : "collection"] ? untilTick : untilTick + TICK_SECONDS;
}

function left(seconds: number, tick: number): number {
  return Math.ceil(tick - (seconds % tick));
}
