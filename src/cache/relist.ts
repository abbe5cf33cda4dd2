/**
 * A new list becomes a scope's rows, and its watchers hear how it differs.
 */

import type { Clock } from "../base/clock.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { expired } from "../kube/status-error.ts";
import type { ListedState } from "../store/contract.ts";
import type { Audience } from "./audience.ts";
import { Difference } from "./difference.ts";
import type { History } from "./history.ts";
import type { WholeList } from "./upstream-list.ts";

/** What a list meets. */
export interface RelistParts {
  readonly clock: Clock;
  readonly history: History;
  readonly audience: Audience;
  /** Whether a change is to be told with what it replaced. */
  readonly keepsBefore: boolean;
  /** The rows' state until now; undefined when nobody was served from them. */
  readonly before: ListedState | undefined;
}

/**
 * Commits a list.
 *
 * Watchers get the difference, and then the list's moment as a bookmark. They
 * get 410 where it cannot be told: there were no rows, the API server's history
 * went back, or a watcher began with a newer list than the rows, or was shown
 * anything newer.
 *
 * @throws {ScopeDamagedError} {CopyDroppedError} from the store; the rows are none then.
 */
export function commitList({ writer, codec, head }: WholeList, parts: RelistParts): void {
  const { audience, before, clock, history, keepsBefore } = parts;
  const { shape, resourceVersion } = head;
  const state = { shape, contentType: codec.contentType, resourceVersion, nowMs: clock.nowMs() };
  const hasGoneBack = before !== undefined && compareResourceVersions(resourceVersion, before.resourceVersion) < 0;
  if (audience.size === 0 || before === undefined || hasGoneBack) {
    writer.commit({ ...state, isPartlyTold: history.isTold }, () => {});
    const why = hasGoneBack ? "the API server's history went back to" : "the rows kept here were lost before";
    audience.end(expired(`too old resource version: ${why} ${resourceVersion}`).status);
    return history.startOver(resourceVersion);
  }
  audience.endAhead(
    before.resourceVersion,
    expired(`too old resource version: the copy kept here ended at ${before.resourceVersion}`).status,
  );
  history.tell(resourceVersion);
  const difference = new Difference({
    codec,
    before: before.resourceVersion,
    epoch: resourceVersion,
    send: (frame) => history.ring.append(frame),
  });
  writer.commit({ ...state, isPartlyTold: true }, (change) => {
    difference.add(change, keepsBefore);
    audience.pump();
  });
  if (difference.end()) return history.ring.append({ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: false });
  audience.end(expired(`too old resource version: what changed up to ${resourceVersion} has no order`).status);
  history.startOver(resourceVersion);
}
