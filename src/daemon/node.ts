/**
 * What the node itself may say while cut, and the order of the return.
 */

import type { Forwarder } from "../front/forward.ts";
import type { CopyServer } from "../front/serve.ts";
import { ReviewMemory } from "../callers/review-memory.ts";
import { EventRing } from "../node/event-ring.ts";
import { NodeLease } from "../node/node-lease.ts";
import { NodeWrites } from "../node/node-writes.ts";
import { Overlays } from "../node/overlays.ts";
import { askNode, nodeOf, registerNode, sendEvent, sweepHourly } from "../node/own-node.ts";
import { podUids } from "../node/own-pods.ts";
import { Reconnect } from "../node/reconnect.ts";
import { Registration } from "../node/registration.ts";
import { SeenRights } from "../node/seen-rights.ts";
import { TokenVault } from "../node/token-vault.ts";
import type { Copies } from "./copies.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** What is built here. */
export interface NodeParts {
  readonly overlays: Overlays;
  readonly events: EventRing;
  readonly tokens: TokenVault;
  readonly reconnect: Reconnect;
  /** Kubelet's writes, over what the front gives them. */
  readonly writesOver: (front: { readonly forwarder: Forwarder; readonly copies: CopyServer }) => NodeWrites;
  readonly part: Part;
}

/** Builds it. */
export function buildNode(ground: Ground, uplink: Uplink, { scopes }: Copies): NodeParts {
  const { config, clock, log, signal, store } = ground;
  const own = config.upstream.credential;
  const overlays = new Overlays({ store, scopes, clock, log });
  const registration = new Registration(store, log);
  const events = new EventRing({ store, clock, log, own: () => nodeOf(own)?.principal });
  const tokens = new TokenVault(store, clock, log);
  const reconnect = buildReconnect(ground, uplink, { scopes, overlays, registration, events });
  const sweep = () => {
    const node = nodeOf(own);
    if (node === undefined || !uplink.link.isOnline()) return;
    overlays.settle();
    const uids = podUids(scopes, node);
    if (uids !== undefined) tokens.sweep((uid) => uids.has(uid));
  };
  let stopSweeping = () => {};
  const part: Part = {
    name: "node",
    start() {
      overlays.start();
      reconnect.start(signal);
      stopSweeping = sweepHourly(clock, sweep);
    },
    drain() {
      stopSweeping();
      overlays.flush();
      events.flush();
    },
  };
  const writesOver: NodeParts["writesOver"] = (front) =>
    new NodeWrites({
      ...front,
      scopes,
      store,
      overlays,
      events,
      rights: new SeenRights(store),
      tokens,
      reviews: new ReviewMemory(clock, (text) => store.keyedHash(text)),
      lease: new NodeLease(store, clock, config.limits.leaseIntervalMs),
      registration,
      nowMs: () => clock.nowMs(),
    });
  return { overlays, events, tokens, reconnect, writesOver, part };
}

/** The order of the return: authenticate, is the own node still there, what the cloud decided, what was written meanwhile. */
function buildReconnect(
  { config, clock, log, signal }: Ground,
  { upstream, link, sources, ownCredential }: Uplink,
  parts: {
    readonly scopes: Copies["scopes"];
    readonly overlays: Overlays;
    readonly registration: Registration;
    readonly events: EventRing;
  },
): Reconnect {
  const { scopes, overlays, registration, events } = parts;
  const own = config.upstream.credential;
  return new Reconnect({
    link,
    scopes,
    overlays,
    clock,
    log,
    node: () => nodeOf(own),
    askNode: (name, askSignal) => askNode(upstream, ownCredential(), name, askSignal),
    nodeMet: (isThere, askSignal) =>
      registration.met(isThere, (sent) => registerNode(upstream, ownCredential(), sent, askSignal)),
    afterwards: () =>
      events.replay((event) => {
        const isOurs = event.principal === nodeOf(own)?.principal;
        const credential = isOurs ? ownCredential() : sources.credentialOf(event.principal);
        return sendEvent(upstream, credential, event, signal);
      }),
  });
}
