/**
 * The only place where parts meet: what starts in which order, and what ends.
 *
 *   store -> link, upstream -> scopes -> certificates -> listeners -> health, admin
 *
 * Everything ends through one signal: watches end cleanly with a last
 * bookmark, then the store settles and closes.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Overlays } from "../node/overlays.ts";
import { Scopes } from "../cache/scopes.ts";
import type { ScopeParts } from "../cache/scope.ts";
import { SharingSource } from "../cache/sharing.ts";
import { loadOrCreateLocalAuthority, servingPair } from "../certificates/authority.ts";
import type { Config } from "../config/config.ts";
import { DaemonMetrics } from "./metrics.ts";
import { reportStatus } from "./status.ts";
import { startAdmin } from "../health/admin.ts";
import { startHealth, type HealthServer } from "../health/health.ts";
import { AccessReviews } from "../callers/access-review.ts";
import { Forwarder } from "../front/forward.ts";
import { EventRing } from "../node/event-ring.ts";
import { Identifier, upstreamCredential } from "../callers/identify.ts";
import { Link } from "../uplink/link.ts";
import { listen, type Listener } from "../front/listen.ts";
import { NodeLease } from "../node/node-lease.ts";
import { NodeWrites } from "../node/node-writes.ts";
import {
  askNode,
  askSmall,
  certificatesOf,
  datesOf,
  isSignedForClients,
  lastPodUids,
  nodeOf,
  podUids,
  registerNode,
  sendEvent,
  subjectOf,
  sweepHourly,
} from "../node/own-node.ts";
import { witnessParts } from "./witness.ts";
import { Witness } from "../witness/witness.ts";
import { SELF_SUBJECT_REVIEW, serviceAccountOf, userOfReview } from "../callers/own-user.ts";
import { Proxy } from "../front/proxy.ts";
import { Reconnect } from "../node/reconnect.ts";
import { Registration } from "../node/registration.ts";
import { ReviewMemory } from "../callers/review-memory.ts";
import { Refusals } from "../callers/refusals.ts";
import { ScopeUpstream } from "../uplink/scope-upstream.ts";
import { CopyServer } from "../front/serve.ts";
import { ServiceAccounts } from "../callers/service-accounts.ts";
import { TokenVault } from "../node/token-vault.ts";
import { Upstream } from "../uplink/upstream.ts";
import { openStore } from "../store/store.ts";
import type { Store } from "../store/contract.ts";

/** A running daemon. */
export interface Daemon {
  /** Ports actually listened on, in the order of the configuration. */
  readonly ports: readonly number[];
  readonly healthPort: number;
  /** Resolves when everything has ended. */
  readonly ended: Promise<void>;
}

/** What a daemon is started with. */
export interface DaemonOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly random?: () => number;
}

const MAX_SCOPES = 2_000;

/**
 * Starts everything.
 *
 * @throws {EdgeError} when an address cannot be listened on; never because of the store or the link.
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { config, clock, log, signal, version } = options;
  const random = options.random ?? Math.random;
  const startedAtMs = clock.nowMs();
  const store = openStore({ stateDir: config.stateDir, clock, log, maxBytes: config.limits.storeMaxBytes });
  forgetOtherCluster(store, config.upstream.caPem, log);
  const metrics = new DaemonMetrics();
  const own = config.upstream.credential;

  const servers = new Map<string, { lastContactMs?: number; lastError?: string }>(
    config.upstream.servers.map((server) => [server, {}]),
  );
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
    probe: (probeSignal) =>
      probe(upstream, upstreamCredential("own", own), config.upstream.servers.length, probeSignal),
  });
  link.onChange((isOnline) => {
    upstream.renewConnections();
    metrics.linkChanged(isOnline);
    if (!isOnline) store.settle();
  });

  const sources = new ScopeUpstream(upstream, `holdfast/${version}`, () => link.suspect());
  const sharing = new SharingSource({
    source: sources,
    reviewer: new AccessReviews(upstream, sources),
    store,
    link,
    clock,
    log,
    onBytes: (bytes) => metrics.shared(bytes),
    onForbidden: (identity) => void refusals.collectionRefused(identity, true),
  });
  // The scopes are made before what decides when they may ask.
  const order: { reconnect?: Reconnect; overlays?: Overlays } = {};
  const scopeParts: ScopeParts = {
    store,
    source: sharing,
    link,
    clock,
    log,
    limits: config.limits,
    random,
    phase: random(),
    turn: (identity) => order.reconnect?.turn(identity) ?? Promise.resolve(),
    isBarred: (principal) => order.reconnect?.isRefused === true && principal === nodeOf(own)?.principal,
    isVoid: (localVersion) => order.overlays?.isVoid(localVersion) === true,
    countList: (reason) => metrics.upstreamList(reason),
  };
  const scopes = new Scopes(scopeParts, { retentionMs: config.limits.retentionMs, maxScopes: MAX_SCOPES });
  sharing.serve(scopes);
  const refusals = new Refusals({ scopes, source: sources, store, clock, log });
  const refusedTokens = new Set<string>();
  let ownTokenUser: string | undefined;
  const serviceAccounts = new ServiceAccounts({
    ask: (request, credential, deadlineMs) => askSmall(upstream, request, credential, deadlineMs, signal),
    isOnline: () => link.isOnline(),
    patienceMs: () => link.patienceMs,
    ownPods: () => {
      const node = nodeOf(own);
      return node === undefined ? undefined : lastPodUids(scopes, node.principal);
    },
    store,
    clock,
    log,
  });
  const identifier = new Identifier(
    {
      own,
      ownTokenUser: () => ownTokenUser,
      clients: config.clients,
      keyedHash: (text) => store.keyedHash(text),
      signedForClients: (certificate) => isSignedForClients(certificate, config.clientCaPem),
      datesOf,
      isRefused: (id) => refusedTokens.has(id) && !link.isOnline(),
      serviceAccountOf: (token) => serviceAccounts.principalOf(token),
    },
    subjectOf,
  );
  const overlays = new Overlays({ store, scopes, clock, log });
  order.overlays = overlays;
  const registration = new Registration(store, log);
  const events = new EventRing(store, clock, log);
  const tokens = new TokenVault(store, clock, log);
  const reconnect = new Reconnect({
    link,
    scopes,
    overlays,
    clock,
    log,
    node: () => nodeOf(own),
    askNode: (name, askSignal) => askNode(upstream, upstreamCredential("own", own), name, askSignal),
    nodeMet: (isThere, askSignal) =>
      registration.met(isThere, (sent) => registerNode(upstream, upstreamCredential("own", own), sent, askSignal)),
    afterwards: () =>
      events.replay((event) => {
        const isOurs = event.principal === nodeOf(own)?.principal;
        const credential = isOurs ? upstreamCredential("own", own) : sources.credentialOf(event.principal);
        return sendEvent(upstream, credential, event, signal);
      }),
  });
  order.reconnect = reconnect;
  const forwarder = new Forwarder(upstream, link, (what) => metrics.request(what), {
    isRefused: () => reconnect.isRefused,
    refused: () => reconnect.refused(),
  });
  const copies = new CopyServer(scopes, store, random, (what) => metrics.request(what));
  const reviews = new ReviewMemory(clock, (text) => store.keyedHash(text));
  overlays.start();
  reconnect.start(signal);
  const stopSweeping = sweepHourly(clock, () => {
    const node = nodeOf(own);
    if (node === undefined || !link.isOnline()) return;
    overlays.settle();
    const uids = podUids(scopes, node.principal);
    if (uids !== undefined) tokens.sweep((uid) => uids.has(uid));
  });
  const proxy = new Proxy({
    identifier,
    serviceAccounts,
    link,
    forwarder,
    nodeWrites: new NodeWrites({
      forwarder,
      copies,
      scopes,
      store,
      overlays,
      events,
      tokens,
      reviews,
      lease: new NodeLease(store, clock, config.limits.leaseIntervalMs),
      registration,
      nowMs: () => clock.nowMs(),
    }),
    mayWrite: () => reconnect.mayWrite(),
    scopes,
    sources,
    copies,
    store,
    upgrades: { upstream, proxyFor: config.upstream.proxyFor, onFailure },
    refusals,
    refusedTokens,
    onRefused: (principal, status, info) => sharing.refused(principal, status, info),
    clock,
    log,
    observe: (verb, code, seconds) => metrics.observe(verb, code, seconds),
  });

  const witness = new Witness(witnessParts({ upstream, scopes, own, link, clock, log, signal }));
  const stopWitness = config.isWitness ? witness.start() : () => {};

  if (own.kind === "token") {
    ownTokenUser = (await serviceAccountOf(own.read())) ?? textOf(store.getValue("own-token-user"));
    if (ownTokenUser === undefined) {
      void askOwnUser(upstream, upstreamCredential("own", own), signal).then(
        (user) => {
          if (user === undefined) return;
          ownTokenUser = user;
          store.putValue("own-token-user", Buffer.from(user));
        },
        () => {},
      );
    }
  }

  const authority = loadOrCreateLocalAuthority(config.stateDir, clock, log);
  const serving = servingPair(
    authority,
    config.listen.map(({ host }) => host),
    config.stateDir,
    clock,
    log,
  );
  link.start(signal);
  const listeners: Listener[] = [];
  try {
    for (const { host, port } of config.listen) {
      listeners.push(
        await listen({
          host,
          port,
          certPem: serving.certPem,
          keyPem: serving.keyPem,
          clientCaPem: config.clientCaPem,
          onRequest: (exchange) => void proxy.handle(exchange),
          onUpgrade: (exchange, socket, early) => void proxy.upgrade(exchange, socket, early),
        }),
      );
    }
  } catch (error) {
    for (const listener of listeners) listener.stop();
    store.close();
    throw error;
  }
  const statusNow = () =>
    reportStatus({
      config,
      link,
      scopes,
      sharing,
      store,
      servers,
      metrics,
      version,
      startedAtMs,
      nowMs: clock.nowMs(),
      serving,
      offline: {
        overlays: overlays.size,
        eventsWaiting: events.size,
        eventsDropped: events.dropped,
        expiredTokensServed: tokens.servedExpired,
      },
      isRefused: reconnect.isRefused,
    });
  let health: HealthServer;
  try {
    health = startHealth({
      listen: config.healthListen,
      checks: [{ name: "listening", check: () => undefined }],
      metrics: metrics.registry,
      beforeScrape: () => metrics.refresh(statusNow()),
    });
  } catch (error) {
    for (const listener of listeners) listener.stop();
    store.close();
    throw error;
  }
  const admin =
    config.adminSocketPath === undefined
      ? undefined
      : await startAdmin({ path: config.adminSocketPath, status: statusNow, flush: () => store.settle(), log });
  log.info("serving", {
    ports: listeners.map(({ port }) => port).join(","),
    health: health.port,
    scopes: [...scopes.all()].length,
    profile: process.env["HOLDFAST_PROFILE"] ?? "default",
  });

  const ended = Promise.withResolvers<void>();
  const end = async () => {
    proxy.stop();
    stopSweeping();
    stopWitness();
    overlays.flush();
    events.flush();
    sharing.close();
    scopes.close();
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const listener of listeners) listener.stop();
    admin?.stop();
    health.stop();
    store.close();
    ended.resolve();
  };
  if (signal.aborted) void end();
  else signal.addEventListener("abort", () => void end(), { once: true });
  return { ports: listeners.map(({ port }) => port), healthPort: health.port, ended: ended.promise };
}

/** A trifle that any API server answers at once; 5xx is no sound answer, 401 and 403 are. */
async function probe(
  upstream: Upstream,
  credential: ReturnType<typeof upstreamCredential>,
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

async function askOwnUser(
  upstream: Upstream,
  credential: ReturnType<typeof upstreamCredential>,
  signal: AbortSignal,
): Promise<string | undefined> {
  const response = await upstream.request({
    method: "POST",
    target: "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    headers: [
      ["Content-Type", "application/json"],
      ["Accept", "application/json"],
    ],
    body: new Uint8Array(Buffer.from(SELF_SUBJECT_REVIEW)),
    credential,
    signal,
  });
  return response.status === 201 || response.status === 200 ? userOfReview(await response.text()) : undefined;
}

/** Rows of another cluster must never answer for this one: the state folder belongs to whoever signed the API server. */
function forgetOtherCluster(store: Store, caPem: string, log: Log): void {
  const fingerprints = certificatesOf(caPem).map(({ fingerprint256 }) => fingerprint256);
  const known = textOf(store.getValue("cluster"))?.split(",");
  if (known !== undefined && !known.some((fingerprint) => fingerprints.includes(fingerprint))) {
    log.warn("state folder belongs to another cluster: its copies are dropped");
    for (const { id } of store.scopes()) store.dropScope(id);
    for (const { key } of store.listResponses()) store.deleteResponse(key);
  }
  const now = fingerprints.join(",");
  if (known?.join(",") !== now) store.putValue("cluster", Buffer.from(now));
}

function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
}
