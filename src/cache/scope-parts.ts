/**
 * What scopes share.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { ScopeIdentity, Store } from "../store/contract.ts";
import type { LinkView, ScopeSource } from "../uplink/scope-source.ts";
import type { RingBudget } from "./ring-budget.ts";
import type { ListReason } from "./follower-parts.ts";

/** Bounds and times of scopes; units in the names. */
export interface ScopeLimits {
  readonly scopeMaxItems: number;
  readonly scopeMaxBytes: number;
  readonly ringMaxEvents: number;
  readonly ringMaxBytes: number;
  /** How long a scope is followed after its last use. */
  readonly lingerMs: number;
  readonly bookmarkIntervalMs: number;
}

/** What scopes share. */
export interface ScopeParts {
  readonly store: Store;
  readonly source: ScopeSource;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: ScopeLimits;
  /** What the recent events of all scopes share. Default: each its own bounds alone. */
  readonly ringBudget?: RingBudget;
  /** Whether a principal is this node: its events give way last. Default: none is. */
  readonly isOwn?: (principal: string) => boolean;
  /** In [0, 1); spreads retries. */
  readonly random: () => number;
  /** In [0, 1), drawn once: where the grid begins on which upstream watches end. Default 0. */
  readonly phase?: number;
  /** Resolves when a scope may ask the API server again after the link's return; at once when there is no order to keep. */
  readonly turn?: (identity: ScopeIdentity) => Promise<void>;
  /** Whether the API server refuses this principal's credential, which is ours: as good as a cut for its scopes. */
  readonly isBarred?: (principal: string) => boolean;
  /** Whether an edited item's resourceVersion is from before the link was last there: who holds it has to list. */
  readonly isVoid?: (localVersion: string) => boolean;
  /** Counts for metrics: why a list went upstream. */
  readonly countList: (reason: ListReason) => void;
  /** The API server's history had gone back: the list that was asked for at `beganMs`, by the wall clock, says where it is now. */
  readonly onRolledBack?: (identity: ScopeIdentity, resourceVersion: string, beganMs: number) => void;
  /** The API server refuses what a scope follows with 401, 403 or 404: it is withheld. */
  readonly onRefused?: (identity: ScopeIdentity, status: number) => void;
}
