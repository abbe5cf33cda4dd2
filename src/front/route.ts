/**
 * Where a request goes: one table, read from top to bottom.
 *
 *   request                                   online              offline
 *   ----------------------------------------  ------------------  ---------------------------------
 *   lease, own status, event, token, review   forward, learned    answered: see node-writes.ts
 *   any other write, connect, unknown method  forward             503
 *   impersonated                              forward, not kept   503
 *   watch                                     scope               scope, else 503
 *   watch or list, a parameter unknown        forward, not kept   scope, else 503
 *   list, "any" or "not older than N"         scope               scope, else 503
 *   list, most recent / exact / paged         forward, adopted    scope, else 503 (410 for pages)
 *   get of an object, discovery               forward, recorded   scope or recording, else 503
 *   anything else (logs, proxy, healthz ...)  forward             503
 *
 * "Forward" while online still falls back to what is kept when the API server
 * does not answer that very request. To keep another kind of answer, add a row
 * to `keptPath` (whole answers) or a parameter to `LIST_PARAMETERS`.
 */

import type { Caller } from "../callers/identify.ts";
import { nodeWriteOf, type NodeWrite } from "./node-write.ts";
import { flag, type RequestInfo } from "./request-info.ts";
import type { Representation } from "../kube/representation.ts";
import { representationKey } from "../kube/representation.ts";
import { canonicalFieldSelector, canonicalLabelSelector } from "../kube/selectors.ts";
import type { ScopeIdentity } from "../store/contract.ts";

/** How a request is served. */
export type Route =
  /** A write that is answered while offline. */
  | { readonly kind: "node-write"; readonly write: NodeWrite }
  /** To the API server and back, nothing kept. */
  | { readonly kind: "forward" }
  /** A watch of a scope; one with an unknown parameter is asked of the API server while it is there. */
  | { readonly kind: "watch"; readonly identity: ScopeIdentity; readonly isKnown: boolean }
  /** A list that a live scope may answer. */
  | { readonly kind: "list-scope"; readonly identity: ScopeIdentity; readonly notOlderThan: string }
  /** A list that only the API server can answer while it is there. */
  | {
      readonly kind: "list-forward";
      readonly identity: ScopeIdentity;
      /** What its scope takes from it: the answer itself, that it is asked for, or nothing. */
      readonly learns: "answer" | "use" | "nothing";
      /** The answer claims to be recent: an older one than what is held means that history went back. */
      readonly isRecent: boolean;
    }
  /** A GET whose whole answer is kept. */
  | { readonly kind: "recorded"; readonly isObject: boolean };

/**
 * Query parameters whose meaning is known here. What another one means to the
 * API server is not known: with it a list or watch is forwarded and not kept.
 * One that does not know it either ignores it, and so does a copy.
 */
const LIST_PARAMETERS: ReadonlySet<string> = new Set([
  "limit",
  "continue",
  "resourceVersion",
  "resourceVersionMatch",
  "timeoutSeconds",
  "timeout",
  "watch",
  "allowWatchBookmarks",
  "sendInitialEvents",
  "fieldSelector",
  "labelSelector",
  "pretty",
  "includeObject",
]);

/** Overlays merge JSON: these are asked for as JSON whenever the client takes it. */
const JSON_PREFERRED: ReadonlySet<string> = new Set(["/pods", "/nodes"]);
const PLAIN_JSON: Representation = { format: "json", as: "object", asVersion: "" };

/** How the client wants its answer, where a copy cannot give it like that. */
export interface Wish {
  /** Indented. */
  readonly isPretty: boolean;
  /** As YAML before anything else. */
  readonly isYaml: boolean;
}

/** Decides from the request and its caller alone; the link's state comes later. */
export function route(info: RequestInfo, caller: Caller, accepted: readonly Representation[], wish: Wish): Route {
  const write = nodeWriteOf(info, caller);
  if (write !== undefined) return { kind: "node-write", write };
  const isRead = info.verb === "get" || info.verb === "list" || info.verb === "watch";
  if (!isRead || caller.isImpersonating || info.method !== "GET") return { kind: "forward" };
  if (info.resource === "")
    return keptPath(info.canonicalPath) ? { kind: "recorded", isObject: false } : { kind: "forward" };
  if (accepted.length === 0) return { kind: "forward" };
  if (info.verb === "get") {
    const isKept = info.subresource === "" || info.subresource === "status" || info.subresource === "scale";
    // Leases change every few seconds and are of no use offline.
    return isKept && info.resource !== "leases"
      ? { kind: "recorded", isObject: info.subresource === "" }
      : { kind: "forward" };
  }
  if (info.subresource !== "") return { kind: "forward" };
  const isKnown = [...info.query.keys()].every((name) => LIST_PARAMETERS.has(name));
  const identity = scopeIdentity(info, caller.principal, accepted);
  if (info.verb === "watch")
    // There is no stream of YAML.
    return isValidWatch(info.query) && !wish.isYaml ? { kind: "watch", identity, isKnown } : { kind: "forward" };
  return listRoute(info, identity, isKnown, wish);
}

/** Which copy may answer a list, and what is learned from it. */
function listRoute(info: RequestInfo, identity: ScopeIdentity, isKnown: boolean, wish: Wish): Route {
  const resourceVersion = info.query.get("resourceVersion") ?? "";
  const match = info.query.get("resourceVersionMatch") ?? "";
  const isPaged = (info.query.get("limit") ?? "0") !== "0" || (info.query.get("continue") ?? "") !== "";
  const isAny =
    resourceVersion === "0" && (match === "" || match === "NotOlderThan") && (info.query.get("continue") ?? "") === "";
  const isNotOlder =
    /^[1-9][0-9]*$/.test(resourceVersion) && (match === "NotOlderThan" || (match === "" && !isPaged)) && !isPaged;
  const isPlain = isKnown && !wish.isPretty && !wish.isYaml;
  if ((isAny || isNotOlder) && isPlain && !info.query.has("sendInitialEvents"))
    return { kind: "list-scope", identity, notOlderThan: resourceVersion };
  return {
    kind: "list-forward",
    identity,
    learns: !isKnown ? "nothing" : !isPaged && isPlain && resourceVersion === "" ? "answer" : "use",
    // A later page is as old as the first one, and whoever names a resourceVersion gets that one or a cache's.
    isRecent: resourceVersion === "" && match === "" && (info.query.get("continue") ?? "") === "",
  };
}

/** Whole answers kept beside objects: what kubectl and client-go need to find their way. */
function keptPath(path: string): boolean {
  return (
    /^\/(api|apis|version|openapi\/v2|openid\/v1\/jwks|\.well-known\/openid-configuration)\/?$/.test(path) ||
    /^\/api\/[^/]+\/?$/.test(path) ||
    /^\/apis\/[^/]+(\/[^/]+)?\/?$/.test(path) ||
    /^\/openapi\/v3(\/.*)?$/.test(path)
  );
}

/** The API server refuses some combinations with 422; it is the one to say so. */
function isValidWatch(query: URLSearchParams): boolean {
  if (!/^(0|[1-9][0-9]*)?$/.test(query.get("resourceVersion") ?? "")) return false;
  if ((query.get("continue") ?? "") !== "") return false;
  const match = query.get("resourceVersionMatch") ?? "";
  const sends = flag(query, "sendInitialEvents");
  return sends === undefined ? match === "" : sends && match === "NotOlderThan";
}

/** Whether this is asked for as JSON though the client names protobuf first. */
export function prefersJson({ group, resource }: RequestInfo, accepted: readonly Representation[]): boolean {
  return (
    JSON_PREFERRED.has(`${group}/${resource}`) &&
    accepted[0]!.as === "object" &&
    accepted.some(({ format, as }) => format === "json" && as === "object")
  );
}

/** The scope a list or watch belongs to. */
function scopeIdentity(info: RequestInfo, principal: string, accepted: readonly Representation[]): ScopeIdentity {
  const { group, version, resource, query } = info;
  const kept = prefersJson(info, accepted) ? [PLAIN_JSON] : accepted;
  const includeObject = query.get("includeObject");
  return {
    principal,
    group,
    version,
    resource,
    namespace: resource === "namespaces" ? "" : info.namespace,
    fieldSelector: canonicalFieldSelector(query.get("fieldSelector") ?? ""),
    labelSelector: canonicalLabelSelector(query.get("labelSelector") ?? ""),
    representation:
      representationKey(kept) +
      (includeObject === null || includeObject === "Metadata" ? "" : `;includeObject=${includeObject}`),
  };
}
