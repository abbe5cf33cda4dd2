/**
 * How many scopes of one caller are followed at once.
 *
 * Each costs a watch at the API server, and for every event a row and a place
 * in its recent events: a caller with a small right, asking with ever new
 * selectors, would have thousands. What is not followed is forwarded.
 *
 *   watched             512   clients stand on them
 *   unwatched           128   listed a while ago; the one unused longest is put to rest, with its rows
 *   of one collection    64   by selectors, and of long ones fewer: each counts one, and one more for a hundred objects,
 *                             up to 512 in all; from sixteen on the whole of it is followed (bases.ts) and stands for the rest
 */

import type { ScopeIdentity } from "../store/contract.ts";
import type { Scope } from "./scope.ts";

const MAX_WATCHED = 512;
const MAX_UNWATCHED = 128;
const MAX_SELECTIONS = 64;
const MAX_SELECTED_WEIGHT = 512;
const OBJECTS_A_WEIGHT = 100;
/** Of a selection that has not been listed, where no other of its collection has. */
const UNKNOWN_WEIGHT = 8;
/** What was listed just now is not put to rest for the next list. */
const LEAST_LINGER_MS = 2_000;

/**
 * Whether a scope of this identity may be followed beside what its caller has.
 *
 * @param ofResource the caller's scopes on that resource.
 * @param all its scopes altogether; undefined for none.
 */
export function mayFollow(
  identity: ScopeIdentity,
  ofResource: Iterable<Scope>,
  all: ReadonlySet<Scope> | undefined,
): boolean {
  if (isSelection(identity) && !hasRoomForSelection(ofResource)) return false;
  if (all === undefined || all.size < MAX_UNWATCHED) return true;
  let watched = 0;
  const unwatched: Scope[] = [];
  for (const scope of all) {
    if (!scope.isFollowing) continue;
    if (scope.watcherCount > 0) watched++;
    else unwatched.push(scope);
  }
  if (watched >= MAX_WATCHED) return false;
  if (unwatched.length < MAX_UNWATCHED) return true;
  const idle = unwatched.reduce((most, one) => (one.unusedMs > most.unusedMs ? one : most));
  if (idle.unusedMs < LEAST_LINGER_MS) return false;
  idle.rest();
  return true;
}

function hasRoomForSelection(scopes: Iterable<Scope>): boolean {
  let unlisted = 1;
  let listed = 0;
  let weight = 0;
  let heaviest = 0;
  for (const { identity, isFollowing, copy } of scopes) {
    if (!isFollowing || !isSelection(identity)) continue;
    if (copy.listed === undefined) unlisted++;
    else {
      const own = 1 + copy.size().items / OBJECTS_A_WEIGHT;
      heaviest = Math.max(heaviest, own);
      weight += own;
      listed++;
    }
  }
  const expected = heaviest === 0 ? UNKNOWN_WEIGHT : heaviest;
  return listed + unlisted <= MAX_SELECTIONS && weight + unlisted * expected <= MAX_SELECTED_WEIGHT;
}

/** A single object by its name costs little, and nothing wider may stand for it. */
function isSelection({ fieldSelector, labelSelector }: ScopeIdentity): boolean {
  return labelSelector !== "" || (fieldSelector !== "" && !/(^|,)metadata\.name=/.test(fieldSelector));
}
