/**
 * What is kept: scopes, who may share one, and what a refusal takes back.
 */

import type { Finding } from "../base/conditions.ts";
import { Quota } from "../cache/quota.ts";
import { RingBudget } from "../cache/ring-budget.ts";
import { OwnWrites } from "../cache/own-writes.ts";
import type { ScopeParts } from "../cache/scope-parts.ts";
import { Scopes } from "../cache/scopes.ts";
import { SharingSource } from "../cache/sharing.ts";
import { AccessReviews } from "../callers/access-review.ts";
import { Refusals } from "../callers/refusals.ts";
import { nodeOf } from "../node/own-node.ts";
import { PlacedLists } from "../uplink/list-places.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import { questionsOver } from "./questions.ts";
import type { Uplink } from "./uplink.ts";

/** What is built here. */
export interface Copies {
  readonly scopes: Scopes;
  readonly sharing: SharingSource;
  readonly refusals: Refusals;
  readonly writes: OwnWrites;
  readonly part: Part;
}

/** What scopes ask of parts that are built after them. */
export type ScopeOrders = Pick<ScopeParts, "turn" | "isBarred" | "isVoid">;

const MAX_SCOPES = 2_000;
/** Without these two kubelet cannot begin. */
const NODE_RESOURCES: ReadonlySet<string> = new Set(["pods", "nodes"]);

/** What gives way has gone already, or the link is away and nothing goes. */
const QUOTA_REACHED: Finding = {
  reason: "StoreFull",
  message: "More is kept than limits.storeMaxBytes allows: what others keep makes room, the node's own stays",
  next: "See holdfast cache ls; raise limits.storeMaxBytes",
};

/** Builds it. */
export function buildCopies(ground: Ground, uplink: Uplink, orders: ScopeOrders): Copies {
  const { upstream, link, sources } = uplink;
  const { config, clock, log, metrics, random, store } = ground;
  const { limits } = config;
  const isOwn = (principal: string) => principal === nodeOf(config.upstream.credential)?.principal;
  const sharing = new SharingSource({
    source: new PlacedLists(sources, isOwn, clock),
    reviewer: new AccessReviews(upstream, sources),
    link,
    clock,
    log,
    onBytes: (bytes) => metrics.shared(bytes),
  });
  const { retentionMs } = limits;
  const writes = new OwnWrites({ store, clock, retentionMs, copiesOf: (...of) => scopes.of(...of) });
  const scopes: Scopes = new Scopes(
    {
      ...orders,
      store,
      source: sharing,
      link,
      clock,
      log,
      ...{ limits, isOwn, random },
      ...{ ringBudget: new RingBudget(limits.allRingsMaxBytes), phase: random() },
      countList: (reason) => metrics.upstreamList(reason),
      onRolledBack: ({ group, resource }, at, beganMs) => writes.rolledBack(group, resource, at, beganMs),
      onRefused: (identity, status) => refusals.scopeRefused(identity, status),
    },
    {
      retentionMs,
      writes,
      maxScopes: MAX_SCOPES,
      ownPrincipal: () => nodeOf(config.upstream.credential)?.principal,
    },
  );
  sharing.serve(scopes);
  const refusals = buildRefusals(ground, uplink, scopes);
  watchQuota(ground, scopes, link);
  const part: Part = {
    name: "scopes",
    check: () => unlisted(ground, scopes),
    drain() {
      refusals.close();
      sharing.close();
      scopes.close();
    },
  };
  return { scopes, sharing, refusals, writes, part };
}

/** Beyond its quota the store asks who is to make room. */
function watchQuota({ config, clock, conditions, log, store }: Ground, scopes: Scopes, link: Uplink["link"]): void {
  const own = nodeOf(config.upstream.credential)?.principal;
  const quota = new Quota({
    store,
    scopes,
    isOnline: () => link.isOnline(),
    isOwn: (principal) => principal === own,
    clock,
    log,
  });
  store.onExcess((isInMemory) => void quota.giveWay(isInMemory));
  conditions.watch("QuotaReached", () => (store.excessBytes() > 0 ? QUOTA_REACHED : undefined));
}

function buildRefusals(ground: Ground, { upstream, link, ownCredential, sources }: Uplink, scopes: Scopes): Refusals {
  const { clock, log, metrics, store } = ground;
  const questions = questionsOver(upstream, ownCredential, clock);
  const refusals = new Refusals({
    ...questions,
    scopes,
    source: sources,
    link,
    onCount: (standing) => metrics.refusalsStanding(standing),
    store,
    clock,
    log,
  });
  sources.onAccepted = (principal, asked) => refusals.accepted(principal, asked);
  return refusals;
}

/** A list that kubelet waits for and that has never arrived. */
function unlisted({ config }: Ground, scopes: Scopes): string | undefined {
  const node = nodeOf(config.upstream.credential);
  if (node === undefined) return undefined;
  for (const { identity, listed, watcherCount } of scopes.all()) {
    if (identity.principal !== node.principal || !NODE_RESOURCES.has(identity.resource)) continue;
    if (listed === undefined && watcherCount > 0) return `${identity.resource} of the node were never listed`;
  }
  return undefined;
}
