/**
 * What a request asks for, in the API server's own terms.
 *
 * Decided on the raw target, and the raw target is what goes upstream: a path
 * that one party normalises and the other does not is how checks are bypassed.
 * Dot segments, empty segments and absolute forms are refused outright.
 */

import { Remembered } from "../base/remembered.ts";
import { canonicalFieldSelector } from "../kube/selectors.ts";
import { badRequest } from "../kube/status-error.ts";

/** The verbs of Kubernetes' authorization, and "connect" for upgrades and unknown methods. */
export type Verb = "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection" | "connect";

/** A request's meaning. For paths outside /api and /apis, `resource` is "". */
export interface RequestInfo {
  readonly method: string;
  /** As sent, byte for byte. */
  readonly target: string;
  /** The target up to "?". */
  readonly path: string;
  /** The same path in one spelling: what means the same is the same text. Never what goes upstream. */
  readonly canonicalPath: string;
  readonly query: URLSearchParams;
  readonly verb: Verb;
  readonly group: string;
  readonly version: string;
  readonly namespace: string;
  readonly resource: string;
  readonly subresource: string;
  readonly name: string;
}

/** Never written to. */
const NO_QUERY = new URLSearchParams();
const VERBS: Readonly<Record<string, Verb>> = {
  GET: "get",
  HEAD: "get",
  POST: "create",
  PUT: "update",
  PATCH: "patch",
  DELETE: "delete",
};

/**
 * Reads method and raw target.
 *
 * @throws {StatusError} 400 for targets that could mean two things.
 */
export function requestInfo(method: string, target: string): RequestInfo {
  return method === "GET" ? remembered.of(target, infoOfGet) : readInfo(method, target);
}

/** Of reads, which are the same again and again; what is refused is refused anew. */
const remembered = new Remembered<RequestInfo>(128, 1_024);

function infoOfGet(target: string): RequestInfo {
  return readInfo("GET", target);
}

function readInfo(method: string, target: string): RequestInfo {
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  if (!path.startsWith("/")) throw badRequest("The request target must be a path that starts with /");
  const segments = path.slice(1).split("/").map(decoded);
  for (const [index, segment] of segments.entries()) {
    if (segment === "" && index < segments.length - 1)
      throw badRequest("The path must not contain empty segments (//)");
    if (segment.includes(".") && /(^|\/)\.\.?(\/|$)/.test(segment))
      throw badRequest("The path must not contain dot segments");
  }
  if ((segments[0] === "api" || segments[0] === "apis") && hasHiddenSlash(segments))
    throw badRequest("The path must not contain encoded slashes");
  const query = mark < 0 ? NO_QUERY : readQuery(target.slice(mark + 1));
  const base = { method, target, path, canonicalPath: spelled(path, segments), query };
  const isCore = segments[0] === "api";
  const behind = isCore ? segments.slice(2) : segments[0] === "apis" ? segments.slice(3) : [];
  const isWatchPath = behind[0] === "watch" && method === "GET";
  const rest = isWatchPath ? behind.slice(1) : behind;
  if (rest.length === 0 || rest[0] === "" || rest[0] === "watch" || rest[0] === "proxy")
    return { ...base, ...NO_RESOURCE, verb: VERBS[method] ?? "connect" };
  const group = isCore ? "" : segments[1]!;
  const version = isCore ? segments[1]! : segments[2]!;
  const named = { ...base, group, version, ...namesIn(rest) };
  return isWatchPath ? watchOf(named) : { ...named, verb: verbOf(VERBS[method] ?? "connect", named.name, query) };
}

const NO_RESOURCE = { group: "", version: "", namespace: "", resource: "", subresource: "", name: "" } as const;

/** What stands behind the version. */
function namesIn(rest: readonly string[]): Pick<RequestInfo, "namespace" | "resource" | "subresource" | "name"> {
  // namespaces/NAME and its status and finalize are about the namespace itself.
  const isInside =
    rest[0] === "namespaces" &&
    rest.length > 2 &&
    !(rest.length === 3 && (rest[2] === "status" || rest[2] === "finalize"));
  const [resource = "", name = "", ...subresources] = isInside ? rest.slice(2) : rest;
  const namespace = isInside ? rest[1]! : resource === "namespaces" ? name : "";
  return { namespace, resource, subresource: subresources.join("/"), name };
}

/** The old form of a watch, with `watch/` in its path; the name of one object is a field selector to the API server too. */
function watchOf(named: Omit<RequestInfo, "verb">): RequestInfo {
  const { query, name, resource, namespace } = named;
  if (name === "") return { ...named, verb: "watch" };
  const selector = canonicalFieldSelector(`metadata.name=${name.replace(/[\\,=]/g, "\\$&")}`);
  const asked = canonicalFieldSelector(query.get("fieldSelector") ?? "");
  // A selector beside the name that says something else is the API server's to refuse or to combine.
  if (asked !== "" && asked !== selector) return { ...named, ...NO_RESOURCE, verb: "connect" };
  const selecting = new URLSearchParams(query);
  selecting.set("fieldSelector", selector);
  return {
    ...named,
    query: selecting,
    verb: "watch",
    name: "",
    namespace: resource === "namespaces" ? "" : namespace,
  };
}

/** Whether a query parameter switches something on, as Go reads it: "yes" and "" do; undefined when it is not there. */
export function flag(query: URLSearchParams, name: string): boolean | undefined {
  const value = query.get(name)?.toLowerCase();
  return value === undefined ? undefined : value !== "false" && value !== "0";
}

/** Go drops a pair with ";" or a bad escape in it; URLSearchParams would read it. */
function readQuery(text: string): URLSearchParams {
  const isOdd = (part: string) => /;|%(?![0-9A-Fa-f]{2})/.test(part);
  return new URLSearchParams(
    isOdd(text)
      ? text
          .split("&")
          .filter((pair) => !isOdd(pair))
          .join("&")
      : text,
  );
}

/** Beside a name in the path, `watch` means nothing. */
function verbOf(verb: Verb, name: string, query: URLSearchParams): Verb {
  if (verb === "get" && name === "") return flag(query, "watch") === true ? "watch" : "list";
  if (verb === "delete" && name === "") return "deletecollection";
  return verb;
}

/** The API server decodes before it splits, so that namespaces/shop%2Fsecrets is a list of secrets to it; behind `proxy` the path is another server's. */
function hasHiddenSlash(segments: readonly string[]): boolean {
  const versionedAt = segments[0] === "api" ? 2 : 3;
  const resourceAt = segments[versionedAt] === "watch" ? versionedAt + 1 : versionedAt;
  const subresourceAt = resourceAt + (segments[resourceAt] === "namespaces" ? 4 : 2);
  const own = segments[subresourceAt] === "proxy" ? segments.slice(0, subresourceAt) : segments;
  return own.some((segment) => segment.includes("/"));
}

/** Escapes only what must be; a path without escapes is its own spelling. */
function spelled(path: string, segments: readonly string[]): string {
  if (!path.includes("%")) return path;
  const escaped = (segment: string) =>
    encodeURIComponent(segment).replace(/%(?:3A|40|24|2C|2B|3D|26)/g, decodeURIComponent);
  return `/${segments.map(escaped).join("/")}`;
}

/** Bad escapes stay as they are: the API server is the one to refuse them. */
function decoded(segment: string): string {
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment.replaceAll(/%2e/gi, ".");
  }
}
