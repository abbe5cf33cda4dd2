/**
 * What every handler of the stand-in may use.
 */

import type { Exchange } from "./exchange.ts";
import type { Cluster } from "./mint.ts";
import type { Resources } from "./resources.ts";
import type { Store } from "./store.ts";
import type { Tokens } from "./tokens.ts";
import type { WatchStream } from "./watch.ts";

/** Behaviour that tests change while the server runs. */
export interface Behaviour {
  /** Between bookmarks on a quiet watch; 60,000 as in the real server. */
  bookmarkIntervalMs: number;
  /** How a watch below the window is refused: inside a 200 stream (the real server's way) or as HTTP status. */
  expiredAs: "event" | "status";
  /** Whether watches with initial events are gzipped when asked (WatchListCompression, on since 1.37). */
  compressWatchLists: boolean;
  /** false: `sendInitialEvents` is refused with 422, as with the WatchList gate off. */
  streamingLists: boolean;
  /** What becomes of certificate requests: those for clients are signed, refused, or wait; default they wait. */
  signing: Signing;
}

/** How certificate requests are judged. */
export interface Signing {
  readonly verdict: "approve" | "deny" | "fail" | "wait";
  /** Of issued certificates, from now; an hour. */
  readonly lifeMs?: number;
  /** How far back they begin; five minutes as in the real signer. */
  readonly backdateMs?: number;
}

/** What all handlers share. */
export interface World {
  readonly store: Store;
  readonly resources: Resources;
  readonly cluster: Cluster;
  readonly tokens: Tokens;
  readonly behaviour: Behaviour;
  /** Live watches, for faults and shutdown. */
  readonly watches: Set<WatchStream>;
  /** Lines of a container's log. */
  readonly logs: (namespace: string, pod: string) => readonly string[];
}

/** Answers one exchange; what it throws becomes a Status. */
export type Handler = (world: World, exchange: Exchange) => void | Promise<void>;
