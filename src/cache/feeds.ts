/**
 * What each thing that comes from upstream means for those whom a scope serves.
 */

import type { Clock } from "../base/clock.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { expired } from "../kube/status-error.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";
import type { UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { Audience } from "./audience.ts";
import type { FollowerFeeds } from "./follower-parts.ts";
import type { History } from "./history.ts";
import type { Edits } from "./layer.ts";
import { commitList } from "./relist.ts";
import { ScopeTooLargeError } from "./scope-errors.ts";
import type { WholeList } from "./upstream-list.ts";
import type { Waiting } from "./waiting.ts";

/** Whom it is told to. */
export interface FeedsParts {
  readonly identity: ScopeIdentity;
  readonly clock: Clock;
  readonly history: History;
  readonly audience: Audience;
  readonly edits: Edits;
  readonly waiting: Waiting;
  readonly listed: () => ListedState | undefined;
  /** The rows may not be served any more: nothing of a collection that outgrew its bounds is half kept. */
  readonly refused: (error: UpstreamRefusedError | ScopeTooLargeError) => void;
}

/** Hands on what a follower brings. */
export class Feeds implements FollowerFeeds {
  /** Somebody who selects has come since it is followed, and may be back after a cut. */
  #keepsBefore = false;

  constructor(private readonly parts: FeedsParts) {}

  listed(): ListedState | undefined {
    return this.parts.listed();
  }

  spoken(): void {
    this.parts.edits.takeOff();
  }

  advanced(): void {
    this.parts.audience.pump();
    this.parts.waiting.tell();
  }

  caughtUp(): void {
    // What was laid over the rows since belongs to another cut.
    if (this.parts.edits.layer === undefined) this.parts.audience.endReturning();
  }

  keepsBefore(): boolean {
    return this.#keepsBefore;
  }

  /** For as long as it is followed every event keeps what stood before it. */
  keepBefore(): void {
    this.#keepsBefore = true;
  }

  ended(): void {
    this.#keepsBefore = false;
  }

  paced(): Promise<void> {
    return this.parts.audience.keptUp();
  }

  commit(list: WholeList): void {
    const { audience, clock, edits, history } = this.parts;
    edits.takeOff();
    commitList(list, { audience, clock, history, before: this.listed(), keepsBefore: this.keepsBefore() });
    this.advanced();
  }

  forgotten(floor: string): void {
    this.parts.audience.end(
      expired(`too old resource version: what happened before ${floor} is not known any more`).status,
      ({ startAt }) => compareResourceVersions(startAt, floor) < 0,
    );
  }

  refused(error: UpstreamRefusedError | ScopeTooLargeError): void {
    const { audience, identity, refused } = this.parts;
    const { resource } = identity;
    if (error instanceof ScopeTooLargeError)
      // They list for themselves, past Holdfast.
      audience.end(expired(`too old resource version: ${resource} is not kept any more`).status);
    else
      audience.end({
        code: error.status,
        reason: { 401: "Unauthorized", 403: "Forbidden", 404: "NotFound" }[error.status] ?? "Unknown",
        message: `the server refuses to watch ${resource}`,
      });
    refused(error);
  }
}
