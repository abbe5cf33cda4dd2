/**
 * The way to the API servers: connections, the link's verdict, what scopes ask through it.
 */

import { upstreamCredential } from "../callers/identify.ts";
import { Link } from "../uplink/link.ts";
import { ScopeUpstream } from "../uplink/scope-upstream.ts";
import { Upstream, type UpstreamCredential } from "../uplink/upstream.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

/** How each API server answered last. */
export type Servers = ReadonlyMap<string, { readonly lastContactMs?: number; readonly lastError?: string }>;

/** What is built here. */
export interface Uplink {
  readonly upstream: Upstream;
  readonly link: Link;
  readonly sources: ScopeUpstream;
  readonly servers: Servers;
  /** Our own credential, as its files hold it now. */
  readonly ownCredential: () => UpstreamCredential;
  /** A connection outside `upstream` failed. */
  readonly onFailure: (server: string, reason: string) => void;
  readonly part: Part;
}

/** Builds it. */
export function buildUplink(ground: Ground): Uplink {
  const { config, clock, log, metrics, signal, store, version } = ground;
  const { servers: urls, credential: own } = config.upstream;
  const servers = new Map<string, { lastContactMs?: number; lastError?: string }>(urls.map((url) => [url, {}]));
  const ownCredential = () => upstreamCredential("own", own);
  const onFailure = (server: string, reason: string) => {
    const entry = servers.get(server);
    if (entry !== undefined) entry.lastError = reason;
    link.failed();
  };
  const upstream: Upstream = new Upstream({
    ...config.upstream,
    onAnswer: (server) => {
      servers.set(server, { lastContactMs: clock.nowMs() });
      link.heard();
    },
    onFailure,
    onWaiting: () => link.suspect(),
  });
  const link: Link = new Link({
    clock,
    log,
    probe: (probeSignal) => probe(upstream, ownCredential(), urls.length, probeSignal),
  });
  link.onChange((isOnline) => {
    upstream.renewConnections();
    metrics.linkChanged(isOnline);
    if (!isOnline) store.settle();
  });
  const sources = new ScopeUpstream(upstream, `holdfast/${version}`, () => link.suspect());
  const part: Part = {
    name: "link",
    start: () => link.start(signal),
    check: () => (link.state === "starting" ? "no API server has answered or failed yet" : undefined),
  };
  return { upstream, link, sources, servers, ownCredential, onFailure, part };
}

/** A trifle that any API server answers at once; 5xx is no sound answer, 401 and 403 are. */
async function probe(
  upstream: Upstream,
  credential: UpstreamCredential,
  serverCount: number,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await upstream.request({
        method: "GET",
        target: "/version",
        headers: [
          ["Accept", "application/json"],
          ["Accept-Encoding", "identity"],
        ],
        credential,
        signal,
        isProbe: true,
      });
      await response.arrayBuffer();
      if (response.status >= 500) throw new Error(`the API server answers ${response.status}`);
      return;
    } catch (error) {
      if (attempt + 1 >= serverCount || signal.aborted) throw error;
    }
  }
}
