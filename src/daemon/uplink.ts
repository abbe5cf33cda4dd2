/**
 * The way to the API servers: connections, the link's verdict, what scopes ask through it.
 */

import type { Credential } from "../kube/credential.ts";
import { nodeOf } from "../node/own-node.ts";
import { upstreamCredential } from "../callers/identify.ts";
import { ForeignAnswers } from "../uplink/foreign-answers.ts";
import { Link } from "../uplink/link.ts";
import { Storage, type StorageWord } from "../uplink/storage.ts";
import { ScopeUpstream } from "../uplink/scope-upstream.ts";
import { Upstream, type UpstreamCredential } from "../uplink/upstream.ts";
import { untrusted } from "./findings.ts";
import type { UpstreamAnswer } from "../uplink/upstream-answer.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import { clusterFinding, clusterOf } from "./state.ts";

/** How each API server answered last. */
export type Servers = ReadonlyMap<string, { readonly lastContactMs?: number; readonly lastError?: string }>;

/** What is built here. */
export interface Uplink {
  readonly upstream: Upstream;
  readonly link: Link;
  readonly storage: Storage;
  readonly sources: ScopeUpstream;
  readonly servers: Servers;
  /** Our own credential, as its files hold it now. */
  readonly ownCredential: () => UpstreamCredential;
  /** Whether the last probe with our own credential was answered with 401. */
  readonly isRefused: () => boolean;
  /** A connection outside `upstream` failed. */
  readonly onFailure: (server: string, reason: string) => void;
  readonly part: Part;
}

/** Builds it. */
export function buildUplink(ground: Ground): Uplink {
  const { config, clock, conditions, log, metrics, signal, store, version } = ground;
  const { servers: urls, credential: own } = config.upstream;
  const servers = new Map<string, { lastContactMs?: number; lastError?: string }>(urls.map((url) => [url, {}]));
  const ownCredential = () => upstreamCredential("own", own);
  const onFailure = (server: string, reason: string) => {
    const entry = servers.get(server);
    if (entry !== undefined) entry.lastError = reason;
    const finding = untrusted(server, reason);
    if (finding !== undefined) conditions.raise("AuthorityMismatch", finding, server);
    link.failed();
  };
  const foreign = new ForeignAnswers(clock);
  conditions.watch("WrongCluster", () => clusterFinding(store));
  conditions.watch("ForeignAnswer", () => foreign.finding());
  const upstream: Upstream = new Upstream({
    clock,
    ...config.upstream,
    onAnswer: (server) => {
      servers.set(server, { lastContactMs: clock.nowMs() });
      conditions.clear("AuthorityMismatch", server);
      link.heard();
    },
    onFailure,
    onForeign(_, words) {
      metrics.foreignAnswer();
      foreign.came(words);
    },
    onWaiting: () => link.suspect(),
  });
  let isRefused = false;
  const link: Link = new Link({
    clock,
    log,
    probe: async (probeSignal) => {
      const status = await probe(upstream, ownCredential(), urls.length, probeSignal);
      isRefused = status === 401;
      // A version document over a connection that this CA vouches for: the cluster is the one that is configured.
      if (status === 200) store.proven(clusterOf(config));
    },
  });
  link.onChange((isOnline) => {
    upstream.renewConnections();
    metrics.linkChanged(isOnline);
    if (!isOnline) store.settle();
  });
  const storage = new Storage({
    clock,
    log,
    link,
    ask: (askSignal) => askStorage(upstream, own, ownCredential(), askSignal),
    renewConnections: () => upstream.renewConnections(),
  });
  conditions.watch("StorageFrozen", () => storage.finding());
  const sources = new ScopeUpstream(upstream, `holdfast/${version}`, () => link.suspect());
  const part: Part = {
    name: "link",
    start: () => link.start(signal),
    check: () => (link.state === "starting" ? "no API server has answered or failed yet" : undefined),
  };
  return { upstream, link, storage, sources, servers, ownCredential, isRefused: () => isRefused, onFailure, part };
}

/** What the API server says of its etcd; where it does not say, whether it can read our own node, or any namespace. */
async function askStorage(
  upstream: Upstream,
  own: Credential,
  credential: UpstreamCredential,
  signal: AbortSignal,
): Promise<StorageWord> {
  const ask = async (target: string): Promise<number> => {
    const headers = [
      ["Accept", "application/json"],
      ["Accept-Encoding", "identity"],
    ] as const;
    const answer = await upstream.request({ method: "GET", target, headers, credential, signal });
    await answer.bytes();
    return answer.status;
  };
  try {
    let status = await ask("/readyz/etcd");
    const node = nodeOf(own);
    if (status > 400 && status < 500)
      status = await ask(node === undefined ? "/api/v1/namespaces/default" : `/api/v1/nodes/${node.name}`);
    return status < 500 ? "well" : "silent";
  } catch {
    return "unanswered";
  }
}

/** A version document, or the API server's own word that we may not see one, or not now. */
function isSound({ word, status }: UpstreamAnswer): boolean {
  return word === "answer" || status === 401 || status === 403 || status === 429;
}

/** A trifle that any API server answers at once. @returns the status. */
async function probe(
  upstream: Upstream,
  credential: UpstreamCredential,
  serverCount: number,
  signal: AbortSignal,
): Promise<number> {
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
      await response.bytes();
      if (isSound(response)) return response.status;
      throw new Error(`the API server answers ${response.status}`);
    } catch (error) {
      if (attempt + 1 >= serverCount || signal.aborted) throw error;
    }
  }
}
