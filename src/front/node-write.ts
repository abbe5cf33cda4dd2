/**
 * Which writes are answered while the link is cut, as one table.
 *
 * Most are the node's own; events and reviews may be anybody's, changes of pods
 * and nodes an agent's. What each is answered stands in `node/node-writes.ts`.
 */

import type { Caller } from "../callers/identify.ts";
import { REVIEWS } from "../callers/review-memory.ts";
import type { Exchange } from "./exchange.ts";
import type { AnswerTap } from "./forward.ts";
import type { RequestInfo } from "./request-info.ts";

/** Which answer a write has while offline. */
export type NodeWrite = "lease" | "status" | "event" | "token" | "node" | "review" | "agent";

/** Forwards such a write; if there is nobody to forward it to, answers it. */
export interface NodeWriter {
  /** @param passing sees the API server's answer too. @throws what becomes a Status. */
  serve(exchange: Exchange, info: RequestInfo, caller: Caller, kind: NodeWrite, passing: AnswerTap): Promise<void>;
}

const LEASE_NAMESPACE = "kube-node-lease";

/** Which of the table's rows a request is; undefined for none. A table, like the one in `route.ts`. */
export function nodeWriteOf(info: RequestInfo, caller: Caller): NodeWrite | undefined {
  const { verb, group, resource, subresource, namespace, name, query } = info;
  if (caller.isImpersonating || query.has("dryRun")) return undefined;
  if ((group === "" || group === "events.k8s.io") && resource === "events" && subresource === "")
    return (verb === "create" && name === "") || verb === "patch" ? "event" : undefined;
  if (verb === "create" && REVIEWS.has(resource) && /^(authentication|authorization)\.k8s\.io$/.test(group))
    return "review";
  const { nodeName } = caller;
  const isChange = verb === "patch" || verb === "update";
  const isAgents = group === "" && (resource === "pods" || resource === "nodes") && name !== "";
  if (nodeName === undefined) return isChange && isAgents && /^(status)?$/.test(subresource) ? "agent" : undefined;
  if (group === "coordination.k8s.io" && resource === "leases" && namespace === LEASE_NAMESPACE && subresource === "")
    return (verb === "create" && name === "") || (name === nodeName && (verb === "get" || verb === "update"))
      ? "lease"
      : undefined;
  if (group !== "") return undefined;
  if (verb === "patch" && subresource === "status")
    return resource === "pods" || (resource === "nodes" && name === nodeName) ? "status" : undefined;
  if (verb === "create" && resource === "nodes" && name === "") return "node";
  if (verb === "create" && resource === "serviceaccounts" && subresource === "token") return "token";
  return undefined;
}
