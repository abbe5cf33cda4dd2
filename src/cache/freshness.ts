/**
 * How a scope is brought up to date for a reader, and what it says when there
 * is nothing to read.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { MalformedError, type Codec } from "../kube/codec.ts";
import { codecFor } from "../kube/representation.ts";
import { unavailable, type StatusError } from "../kube/status-error.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";
import { CopyDroppedError } from "../store/errors.ts";
import { UnreachableError, type LinkView } from "../uplink/scope-source.ts";
import type { Follower } from "./follower.ts";
import type { Scope } from "./scope.ts";
import { StoppedError } from "./scope-errors.ts";
import type { Waiting } from "./waiting.ts";

/** How long a reader waits for a backlog to end. */
const BACKLOG_PATIENCE_MS = 500;

/** The codec of kept bytes. @throws {MalformedError} when their format is none of ours. */
export function keptCodec({ resource }: ScopeIdentity, { contentType }: ListedState): Codec {
  const codec = codecFor(contentType);
  if (codec !== undefined) return codec;
  throw new MalformedError(`Cannot read a copy of ${resource}: kept as ${contentType}, which is not a known format`);
}

/** What to say when there is nothing to serve and nothing can be asked for. */
export function neverObserved({ resource, group, namespace }: ScopeIdentity, cause?: unknown): StatusError {
  const what = `${resource}${group === "" ? "" : `.${group}`}${namespace === "" ? "" : ` in namespace "${namespace}"`}`;
  return unavailable(
    `Cannot list ${what}: the API server cannot be reached and this caller's list was never observed here`,
    { cause },
  );
}

/**
 * Lists a scope of which nothing is kept.
 *
 * @throws {UpstreamRefusedError} {ScopeTooLargeError} as the list met them.
 * @throws {StatusError} 503 when nothing can be asked for.
 */
export async function listedFirst(scope: Scope, follower: Follower): Promise<void> {
  const { canAsk, identity } = scope;
  if (!canAsk) throw neverObserved(identity);
  try {
    await follower.firstList();
  } catch (error) {
    if (error instanceof UnreachableError || error instanceof CopyDroppedError || error instanceof StoppedError) {
      // Another list of it has come meanwhile, in the place of this one.
      if (scope.listed !== undefined) return;
      throw neverObserved(identity, error);
    }
    if (!(error instanceof MalformedError)) throw error;
    throw unavailable(`Cannot list ${identity.resource}: the API server's answer is not a whole list`, {
      cause: error,
    });
  }
}

/**
 * Waits for a scope's watch to take up where the rows end, as long as the link deserves.
 *
 * @throws what ended the watch for good.
 * @throws {StatusError} 503 when the rows are gone since.
 */
export async function resumed(
  scope: Scope,
  parts: {
    readonly clock: Clock;
    readonly link: LinkView;
    readonly log: Log;
    readonly follower: Follower;
    readonly waiting: Waiting;
  },
): Promise<void> {
  const { clock, follower, link, log, waiting } = parts;
  const isSettled = () => scope.isCurrent || !follower.isRunning;
  const cancelSuspect = clock.after(link.patienceMs / 2, () => link.suspect());
  const stopListening = link.onChange((isOnline) => isOnline || waiting.tell());
  try {
    await waiting.until(() => isSettled() || !link.isOnline(), link.patienceMs);
  } finally {
    cancelSuspect();
    stopListening();
  }
  // The watch found its moment forgotten, and the list in its place has begun to arrive.
  if (!isSettled()) await follower.arrivingList?.catch(() => {});
  const { state } = follower;
  if (state.kind === "refused") throw state.error;
  if (scope.listed === undefined) throw neverObserved(scope.identity);
  if (state.kind === "streaming") await follower.untilQuiet(BACKLOG_PATIENCE_MS);
  else log.info("scope served from its copy", { resource: scope.identity.resource });
}
