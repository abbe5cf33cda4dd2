/**
 * What a follower asks with, feeds, and where it can stand.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Copy, ListedState, ScopeIdentity } from "../store/contract.ts";
import type { LinkView, ScopeSource, UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { History } from "./history.ts";
import type { ScopeTooLargeError } from "./scope-errors.ts";
import type { WholeList } from "./upstream-list.ts";
import type { Waiting } from "./waiting.ts";

/** Why a list goes upstream. */
export type ListReason = "first" | "expired" | "rollback";

/** Where the upstream side stands. */
export type FollowerState =
  | { readonly kind: "idle" }
  | { readonly kind: "waiting"; readonly for: "link" | "turn" | "pause" }
  /** `hasHead`: the answer has begun to arrive. */
  | { readonly kind: "listing"; hasHead: boolean }
  | { readonly kind: "opening"; readonly at: string }
  /** `hasCaughtUp`: what was missed has come, as far as can be told. */
  | { readonly kind: "streaming"; readonly answeredInMs: number; hasCaughtUp: boolean }
  | { readonly kind: "refused"; readonly error: UpstreamRefusedError | ScopeTooLargeError };

/** What a follower asks with, and what it feeds. */
export interface FollowerParts {
  readonly copy: Copy;
  readonly history: History;
  readonly source: ScopeSource;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: { readonly scopeMaxItems: number; readonly scopeMaxBytes: number };
  readonly random: () => number;
  readonly phase: number;
  readonly turn: (identity: ScopeIdentity) => Promise<void>;
  readonly countList: (reason: ListReason) => void;
  /** The API server's history had gone back: the list that was asked for at `beganMs` says where it is now. */
  readonly onRolledBack?: (identity: ScopeIdentity, resourceVersion: string, beganMs: number) => void;
  readonly waiting: Waiting;
  readonly feeds: FollowerFeeds;
}

/** Told of what comes. */
export interface FollowerFeeds {
  /** What may be served of the rows. */
  listed(): ListedState | undefined;
  /** The API server speaks: it has answered the watch, or an event is about to change the rows. */
  spoken(): void;
  /** Rows, history or state have moved. */
  advanced(): void;
  /** What was missed has come. */
  caughtUp(): void;
  /** Whether an event is to keep what stood before it. */
  keepsBefore(): boolean;
  /** Resolves when those who are fed can take more. */
  paced(): Promise<void>;
  /** A whole list has come; it becomes the rows. */
  commit(list: WholeList): void;
  /** What was to be replayed from an older moment is forgotten; nobody below `floor` can be promised anything. */
  forgotten(floor: string): void;
  /** It is not followed any more. */
  ended(): void;
  /** It has ended for good. */
  refused(error: UpstreamRefusedError | ScopeTooLargeError): void;
}
