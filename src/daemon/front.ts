/**
 * A request's way: listeners, the proxy behind them, and what it answers from.
 */

import { hostPortText } from "../base/address.ts";
import { abortsAfter } from "../base/clock.ts";
import type { KeyPair } from "../certificates/authority.ts";
import { LocalCertificates } from "../certificates/local.ts";
import type { ListenAddress } from "../config/address.ts";
import type { PodAccessConfig } from "../config/config.ts";
import type { PodAccess } from "../kube/pod-access.ts";
import { AccessReviews } from "../callers/access-review.ts";
import { FreshRights } from "../callers/fresh-rights.ts";
import { FreshAnswers } from "../front/fresh-answers.ts";
import { Forwarder } from "../front/forward.ts";
import { isSignedForClients } from "../node/own-node.ts";
import { listen, type Listener } from "../front/listen.ts";
import { Proxy } from "../front/proxy.ts";
import { Gets } from "../front/gets.ts";
import { Lessons } from "../front/lessons.ts";
import { Lists } from "../front/lists.ts";
import type { RequestInfo } from "../front/request-info.ts";
import { Recordings } from "../front/recordings.ts";
import { CopyServer } from "../front/serve.ts";
import type { Callers } from "./callers.ts";
import type { Copies } from "./copies.ts";
import type { Ground } from "./ground.ts";
import type { NodeParts } from "./node.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** What is built here. */
export interface Front {
  /** Refuses what comes from now on; the listeners stay open until the watches have ended. */
  readonly proxy: Proxy;
  readonly listeners: Listeners;
  readonly parts: readonly Part[];
}

/** What the front is built over. */
export interface FrontGround {
  readonly uplink: Uplink;
  readonly copies: Copies;
  readonly callers: Callers;
  readonly node: NodeParts;
  /** A caller was answered. */
  readonly onAnswered?: (code: number, principal: string, info: RequestInfo) => void;
}

/** How soon the pods' address is tried again. */
const PODS_RETRY_MS = 2_000;

/** The open addresses and the certificate that is served on them. */
export class Listeners implements Part {
  readonly name = "listeners";
  #open: Listener[] = [];
  #local: LocalCertificates | undefined;
  #cancelPods = () => {};
  #isStopped = false;

  constructor(
    private readonly ground: Ground,
    private readonly proxy: Proxy,
  ) {}

  /** Actual ports, in the order of the configuration. */
  get ports(): readonly number[] {
    return this.#open.map(({ port }) => port);
  }

  /** The served pair; undefined before the start. */
  get serving(): KeyPair | undefined {
    return this.#local?.serving;
  }

  /** The local CA and what it has signed; undefined before the start. */
  get local(): LocalCertificates | undefined {
    return this.#local;
  }

  /** @throws {ListenError} naming the address. */
  async start(): Promise<void> {
    const { config, clock, log, renewals } = this.ground;
    const { podAccess } = config;
    const pods = podAccess === undefined ? [] : [podAccess.listen.host, podAccess.serviceAddress];
    const hosts = [...config.listen.map(({ host }) => host), ...pods];
    this.#local = new LocalCertificates({ stateDir: config.stateDir, hosts, clock, log, renewals });
    for (const address of config.listen) this.#open.push(await this.#listen(address, hosts));
    if (podAccess !== undefined) await this.#listenForPods(podAccess, hosts);
  }

  /** How pods find us; undefined where they do not. */
  podAccess(): PodAccess | undefined {
    const { podAccess } = this.ground.config;
    const caPem = this.#local?.trusted;
    if (podAccess === undefined || caPem === undefined) return undefined;
    return { serviceAddress: podAccess.serviceAddress, port: podAccess.listen.port, caPem };
  }

  #listen({ host, port }: ListenAddress, hosts: readonly string[]): Promise<Listener> {
    const { config, clock } = this.ground;
    const { certPem, keyPem } = this.#local!.serving;
    return listen({
      host,
      port,
      certPem,
      keyPem,
      clientCaPem: config.clientCaPem(),
      names: hosts,
      clock,
      onRequest: (exchange) => void this.proxy.handle(exchange),
      onUpgrade: (exchange, socket, early) => void this.proxy.upgrade(exchange, socket, early),
    });
  }

  /** Its address may come later than we do, or never: kubelet is served all the same. */
  async #listenForPods(access: PodAccessConfig, hosts: readonly string[]): Promise<void> {
    const { clock, conditions } = this.ground;
    try {
      const listener = await this.#listen(access.listen, hosts);
      if (this.#isStopped) return listener.stop();
      this.#open.push(listener);
      conditions.clear("PodsCannotReach");
    } catch {
      if (this.#isStopped) return;
      const address = hostPortText(access.listen);
      conditions.raise("PodsCannotReach", {
        reason: "AddressMissing",
        message: `Pods cannot reach Holdfast: ${address} cannot be listened on`,
        next: "See: systemctl status holdfast-pods",
      });
      this.#cancelPods = clock.after(PODS_RETRY_MS, () => void this.#listenForPods(access, hosts));
    }
  }

  /** Other CAs count for clients from now on; who has none of them any more is let go. */
  trust(clientCaPem: string): void {
    const { log } = this.ground;
    log.info("the CAs of local clients have changed");
    this.#renew(clientCaPem, (certificate) => isSignedForClients(certificate, clientCaPem));
  }

  /** New connections are met with the pair that is served now; open ones live on. */
  renewed(): void {
    this.#renew(this.ground.config.clientCaPem());
  }

  #renew(clientCaPem: string, isStillTrusted?: (certificate: Uint8Array) => boolean): void {
    const { serving } = this;
    if (serving === undefined) return;
    for (const listener of this.#open) listener.renew({ ...serving, clientCaPem }, isStillTrusted);
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelPods();
    for (const listener of this.#open) listener.stop();
  }
}

/** Recorded answers; those of pods and nodes are shown with what was written over them while cut. */
function buildRecordings({ clock, store }: Ground, overlays: FrontGround["node"]["overlays"]): Recordings {
  return new Recordings(
    store,
    () => clock.nowMs(),
    ({ group, resource, subresource, namespace, name }, body) =>
      group === "" && subresource === "" && (resource === "pods" || resource === "nodes")
        ? overlays.over({ resource, namespace, name }, body)
        : body,
  );
}

/** Builds it. */
export function buildFront(ground: Ground, over: FrontGround): Front {
  const { config, clock, log, metrics, random } = ground;
  const { upstream, link, onFailure, sources, storage } = over.uplink;
  const { scopes, sharing, refusals, writes } = over.copies;
  const { reconnect, overlays } = over.node;
  const count = (what: "forwarded" | "servedFromCache" | "refusedWrites") => metrics.request(what);
  const forwarder = new Forwarder(
    upstream,
    link,
    count,
    {
      isRefused: () => reconnect.isRefused,
      refused: () => reconnect.refused(),
    },
    storage,
    clock,
  );
  const recordings = buildRecordings(ground, overlays);
  const rights = buildRights(ground, over.uplink);
  refusals.onTaken((principal) => writes.forget(principal));
  const copies = new CopyServer(scopes, recordings, writes, clock, random, count);
  const { gate } = over.callers;
  const lessons = new Lessons({ gate, scopes, copies, recordings, writes, refusals, rights, clock, log });
  const fresh = new FreshAnswers({ rights, scopes, copies, source: sources, lessons, link, clock });
  const proxy = new Proxy({
    gate,
    link,
    forwarder,
    scopes,
    gets: new Gets({ forwarder, scopes, copies, refusals, rights, lessons }),
    lists: new Lists({ gate, link, forwarder, scopes, copies, lessons, rights, fresh }),
    lessons,
    nodeWrites: over.node.writesOver({ forwarder, copies }),
    ...over.node.asked,
    keptOut: () => over.node.holder?.keptOut(),
    upgrades: { upstream, link, proxyFor: config.upstream.proxyFor, onFailure },
    onRefused: (principal, status, info) => sharing.refused(principal, status, info),
    podAccess: () => listeners.podAccess(),
    clock,
    log,
    observe(verb, code, seconds, asked) {
      metrics.observe(verb, code, seconds);
      if (asked !== undefined) over.onAnswered?.(code, asked.principal, asked.info);
    },
  });
  const listeners: Listeners = new Listeners(ground, proxy);
  const written: Part = { name: "own writes", start: () => writes.start(), drain: () => writes.stop() };
  link.onChange((isOnline) => isOnline || writes.save());
  return { proxy, listeners, parts: [written, listeners, { name: "proxy", drain: () => proxy.stop() }] };
}

/** What callers were allowed just now. */
function buildRights({ clock }: Ground, { upstream, link, sources }: Uplink): FreshRights {
  const reviews = new AccessReviews(upstream, sources);
  return new FreshRights({
    clock,
    review: (credential, verb, of) =>
      reviews.review(credential, verb, of, abortsAfter(clock, link.patienceMs)).catch(() => undefined),
  });
}
