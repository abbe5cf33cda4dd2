/**
 * The way to the API servers: connections, the link's verdict, what scopes ask through it.
 */

import { upstreamCredential } from "../callers/identify.ts";
import { ForeignAnswers } from "../uplink/foreign-answers.ts";
import { Fleet } from "../uplink/fleet.ts";
import { Gate } from "../uplink/gate.ts";
import type { NodePlace } from "../uplink/node-place.ts";
import { Link } from "../uplink/link.ts";
import { Storage } from "../uplink/storage.ts";
import { ScopeUpstream } from "../uplink/scope-upstream.ts";
import { untrusted } from "../uplink/untrusted.ts";
import { Upstream, type UpstreamCredential } from "../uplink/upstream.ts";
import { askStorage, newestVersion, probe } from "./asking.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import { buildNodePlace } from "./place.ts";
import { clusterFinding, clusterOf } from "./state.ts";

/** How each API server answered last. */
export type Servers = ReadonlyMap<string, { readonly lastContactMs?: number; readonly lastError?: string }>;

/** What is built here. */
export interface Uplink {
  readonly upstream: Upstream;
  readonly link: Link;
  readonly storage: Storage;
  /** Shuts the way up for a rehearsal. */
  readonly gate: Gate;
  /** Where this node is shown. */
  readonly place: NodePlace;
  /** When this node comes back among many. */
  readonly fleet: Fleet;
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
  const ownCredential = () => upstreamCredential("own", own);
  const record = new ServerRecord(ground);
  const onFailure = (server: string, reason: string) => {
    record.failed(server, reason);
    link.failed();
  };
  const [gate, place] = [new Gate(), buildNodePlace(ground)];
  const upstream: Upstream = buildUpstream(ground, { gate, place }, { record, onFailure, link: () => link });
  const fleet = buildFleet(ground, upstream, ownCredential);
  let isRefused = false;
  const link: Link = new Link({
    clock,
    log,
    turns: fleet,
    probe: async (probeSignal) => {
      const { status, retryAfterMs } = await probe(upstream, ownCredential(), urls.length, probeSignal);
      if (retryAfterMs > 0) fleet.askedToWait(retryAfterMs);
      isRefused = status === 401;
      // A version document over a connection that this CA vouches for: the cluster is the one that is configured.
      if (status === 200) store.proven(clusterOf(config));
    },
  });
  link.onChange((isOnline) => {
    upstream.renewConnections();
    metrics.linkChanged(isOnline, clock.monotonicMs());
    if (!isOnline) store.settle();
  });
  const storage = new Storage({
    clock,
    log,
    link,
    ask: (askSignal) => askStorage(upstream, own, ownCredential(), askSignal),
    renewConnections: () => upstream.renewConnections(),
  });
  conditions.watch("WrongCluster", () => clusterFinding(store));
  conditions.watch("StorageFrozen", () => storage.finding());
  const sources = new ScopeUpstream(upstream, `holdfast/${version}`, () => link.suspect(), clock);
  const part = linkPart(link, signal);
  const asking = { upstream, link, storage, gate, place, fleet, sources, servers: record.servers, ownCredential };
  return { ...asking, isRefused: () => isRefused, onFailure, part };
}

function buildFleet(
  { config, clock, random }: Ground,
  upstream: Upstream,
  ownCredential: Uplink["ownCredential"],
): Fleet {
  const askNewest = (signal: AbortSignal) => newestVersion(upstream, ownCredential(), signal);
  return new Fleet({ clock, random, size: config.fleetSize, askNewest });
}

function linkPart(link: Link, signal: AbortSignal): Part {
  return {
    name: "link",
    start: () => link.start(signal),
    check: () => (link.state === "starting" ? "no API server has answered or failed yet" : undefined),
  };
}

function buildUpstream(
  { config, clock, conditions, metrics, send }: Ground,
  { gate, place }: Pick<Uplink, "gate" | "place">,
  { record, onFailure, link }: { record: ServerRecord; onFailure: Uplink["onFailure"]; link: () => Link },
): Upstream {
  const foreign = new ForeignAnswers(clock);
  conditions.watch("ForeignAnswer", () => foreign.finding());
  return new Upstream({
    clock,
    gate,
    ...config.upstream,
    ...(send === undefined ? {} : { send }),
    place,
    onAnswer(server) {
      record.answered(server);
      link().heard();
    },
    onFailure,
    onForeign(_, words) {
      metrics.foreignAnswer();
      foreign.came(words);
    },
    onWaiting: () => link().suspect(),
  });
}

/** How each API server answered last, and the condition when it shows a certificate that is not believed. */
class ServerRecord {
  readonly servers: Map<string, { lastContactMs?: number; lastError?: string }>;

  constructor(private readonly ground: Ground) {
    this.servers = new Map(ground.config.upstream.servers.map((url) => [url, {}]));
  }

  answered(server: string): void {
    const { clock, conditions } = this.ground;
    this.servers.set(server, { lastContactMs: clock.nowMs() });
    conditions.clear("AuthorityMismatch", server);
  }

  failed(server: string, reason: string): void {
    const entry = this.servers.get(server);
    if (entry !== undefined) entry.lastError = reason;
    const finding = untrusted(server, reason);
    if (finding !== undefined) this.ground.conditions.raise("AuthorityMismatch", finding, server);
  }
}
