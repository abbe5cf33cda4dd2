/**
 * What the node itself may say while cut, and the order of the return.
 */

import type { Forwarder } from "../front/forward.ts";
import type { CopyServer } from "../front/serve.ts";
import { ReviewMemory } from "../callers/review-memory.ts";
import { SelfReviews, type ReviewedCopies } from "../callers/self-reviews.ts";
import { CutAge } from "../node/cut-age.ts";
import type { Holder } from "../node/holder.ts";
import { EventRing } from "../node/event-ring.ts";
import { NodeLease } from "../node/node-lease.ts";
import { NodeWrites } from "../node/node-writes.ts";
import { Overlays } from "../node/overlays.ts";
import { askRight, readObject, writeObject } from "../node/agent-asks.ts";
import { AgentReturn } from "../node/agent-return.ts";
import { askNode, nodeOf, registerNode, sendEvent, sweepHourly } from "../node/own-node.ts";
import { podUids } from "../node/own-pods.ts";
import { Reconnect } from "../node/reconnect.ts";
import { Registration } from "../node/registration.ts";
import { SeenRights } from "../node/seen-rights.ts";
import { TokenVault } from "../node/token-vault.ts";
import type { Copies } from "./copies.ts";
import type { Ground } from "./ground.ts";
import { buildHolder } from "./holder.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** What is built here. */
export interface NodeParts {
  readonly overlays: Overlays;
  readonly events: EventRing;
  readonly tokens: TokenVault;
  readonly agents: AgentReturn;
  readonly reconnect: Reconnect;
  readonly cutAge: CutAge;
  /** Keeps this node one device; undefined where the configuration does not ask for it. */
  readonly holder: Holder | undefined;
  /** What a request's way asks of the node. */
  readonly asked: { readonly mayWrite: () => Promise<void>; readonly haveSecretsEnded: () => boolean };
  /** Kubelet's writes, over what the front gives them. */
  readonly writesOver: (front: { readonly forwarder: Forwarder; readonly copies: CopyServer }) => NodeWrites;
  readonly part: Part;
}

/** Builds it. */
export function buildNode(ground: Ground, uplink: Uplink, { scopes }: Copies): NodeParts {
  const { config, clock, log, signal, store } = ground;
  const own = config.upstream.credential;
  const overlays: Overlays = new Overlays({
    store,
    scopes,
    clock,
    log,
    isCutOff: ({ identity, state }) =>
      uplink.storage.isSilent ||
      (reconnect.isRefused && identity.principal === nodeOf(own)?.principal) ||
      (uplink.link.state === "starting" && state !== "live"),
  });
  const rights = new SeenRights(store);
  const registration = new Registration(store, log);
  const events = new EventRing({ store, clock, log, own: () => nodeOf(own)?.principal });
  const tokens = new TokenVault(store, clock, log);
  const agents = buildAgentReturn(ground, uplink, { overlays, rights });
  const holder = buildHolder(ground, uplink, { scopes });
  const reconnect: Reconnect = buildReconnect(ground, uplink, {
    ...{ scopes, overlays, registration, events, agents },
    holder,
  });
  const cutAge = new CutAge({ store, clock, link: uplink.link, lastContactMs: () => lastContactMs(scopes) });
  uplink.fleet.counts(() => followedCount(scopes));
  const part = nodePart(ground, uplink, { scopes, overlays, events, tokens, reconnect, cutAge, holder });
  const writesOver: NodeParts["writesOver"] = (front) =>
    new NodeWrites({
      ...front,
      scopes,
      overlays,
      ownNode: () => nodeOf(own),
      agents: config.nodeAgents,
      askRight: ({ credential }, right) => askRight(uplink.upstream, credential, right, signal),
      events,
      rights,
      tokens,
      reviews: new ReviewMemory(clock, (text) => store.keyedHash(text), new SelfReviews(store, hasCopyIn(scopes))),
      lease: new NodeLease(store, clock, config.limits.leaseIntervalMs, (version) => uplink.fleet.renewed(version)),
      registration,
    });
  const asked = {
    mayWrite: () => reconnect.mayWrite(),
    haveSecretsEnded: () => cutAge.ms >= config.limits.podSecretsMs,
  };
  return { overlays, events, tokens, agents, reconnect, cutAge, holder, asked, writesOver, part };
}

function followedCount(scopes: Copies["scopes"]): number {
  let count = 0;
  for (const { isFollowing } of scopes.all()) if (isFollowing) count++;
  return count;
}

/** What begins, is swept by the hour, and goes to disk in the end. */
function nodePart(
  { config, clock, signal }: Ground,
  { link }: Uplink,
  parts: Pick<NodeParts, "overlays" | "events" | "tokens" | "reconnect" | "cutAge" | "holder"> & Pick<Copies, "scopes">,
): Part {
  const { overlays, events, tokens, reconnect, cutAge, scopes } = parts;
  const sweep = () => {
    const node = nodeOf(config.upstream.credential);
    if (node === undefined || !link.isOnline()) return;
    overlays.settle();
    const uids = podUids(scopes, node);
    if (uids !== undefined) tokens.sweep((uid) => uids.has(uid));
  };
  const stops: (() => void)[] = [];
  return {
    name: "node",
    start() {
      overlays.start();
      parts.holder?.start(signal);
      reconnect.start(signal);
      stops.push(sweepHourly(clock, sweep), cutAge.start());
    },
    drain() {
      for (const stop of stops.splice(0)) stop();
      overlays.flush();
      events.flush();
    },
  };
}

function lastContactMs(scopes: Copies["scopes"]): number {
  let lastMs = 0;
  for (const { listed } of scopes.all()) lastMs = Math.max(lastMs, listed?.lastContactMs ?? 0);
  return lastMs;
}

/** What agents changed while cut, on its way up. */
function buildAgentReturn(
  { config, clock, log, conditions }: Ground,
  uplink: Uplink,
  { overlays, rights }: { readonly overlays: Overlays; readonly rights: SeenRights },
): AgentReturn {
  const { upstream, link, sources, ownCredential } = uplink;
  return new AgentReturn({
    overlays,
    clock,
    log,
    isOnline: () => link.isOnline(),
    ownNode: () => nodeOf(config.upstream.credential),
    hasCredential: (principal) => sources.credentialOf(principal) !== undefined,
    read: (target, signal) => readObject(upstream, ownCredential(), target, signal),
    write: (group, body, signal) => writeObject(upstream, sources.credentialOf(group.principal), group, body, signal),
    onForbidden: ({ principal, verb, resource, subresource, namespace, name }) =>
      rights.refused(principal, { verb, group: "", resource, subresource, namespace, name }),
    onDropped: (count, reason) =>
      conditions.raise("AgentWritesDropped", {
        reason: "NotSentUp",
        message: `${count} labels, annotations or conditions that agents of this node wrote while cut did not go up: ${reason}`,
        next: "restart the pods that the log names, if they miss them",
      }),
  });
}

/** The order of the return: authenticate, is the own node still there, what the cloud decided, what was written meanwhile. */
function buildReconnect(
  { config, clock, conditions, log, random, signal }: Ground,
  { upstream, link, storage, sources, ownCredential }: Uplink,
  parts: {
    readonly scopes: Copies["scopes"];
    readonly overlays: Overlays;
    readonly registration: Registration;
    readonly events: EventRing;
    readonly agents: AgentReturn;
    readonly holder: Holder | undefined;
  },
): Reconnect {
  const { scopes, overlays, registration, events, agents, holder } = parts;
  const own = config.upstream.credential;
  return new Reconnect({
    link,
    scopes,
    overlays,
    clock,
    log,
    random,
    node: () => nodeOf(own),
    askNode: (name, askSignal) => askNode(upstream, ownCredential(), name, askSignal),
    ...(holder === undefined ? {} : { mayBe: (askSignal) => holder.meet(askSignal) }),
    nodeMet: (isThere, askSignal) =>
      registration.met(isThere, (sent) => registerNode(upstream, ownCredential(), sent, askSignal)),
    storage,
    agentsReturn: (returnSignal) => {
      // What was lost at the last return has been told until this one.
      conditions.clear("AgentWritesDropped");
      return agents.sendUp(returnSignal);
    },
    afterwards: () =>
      events.replay((event) => {
        const isOurs = event.principal === nodeOf(own)?.principal;
        const credential = isOurs ? ownCredential() : sources.credentialOf(event.principal);
        return sendEvent(upstream, credential, event, signal);
      }),
  });
}

/** Whether a caller has a copy of what it was told it may read. */
function hasCopyIn(scopes: Copies["scopes"]): (principal: string, about: ReviewedCopies) => boolean {
  const isAny = (asked: string, kept: string) => asked === "*" || asked === kept;
  return (principal, { group, resource, namespace }) => {
    for (const { identity, listed } of scopes.all()) {
      if (identity.principal !== principal || listed === undefined) continue;
      const isPlace = namespace === "" || identity.namespace === "" || identity.namespace === namespace;
      if (isPlace && isAny(group, identity.group) && isAny(resource, identity.resource)) return true;
    }
    return false;
  };
}
