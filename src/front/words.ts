/**
 * What a person reads who got no answer: which object or list it was about,
 * and what is kept instead that one could ask for.
 */

import { REVIEWS } from "../callers/review-memory.ts";
import type { ListedState, ScopeIdentity } from "../store/contract.ts";
import type { Caller } from "../callers/identify.ts";
import { unavailable, type StatusError } from "../kube/status-error.ts";
import type { RefusalWords } from "./no-answer.ts";
import type { RequestInfo } from "./request-info.ts";

/** A copy, as far as words need it. */
export interface KeptCopy {
  readonly identity: ScopeIdentity;
  readonly listed: ListedState | undefined;
}

/** Finds them. */
export interface CopiesOf {
  of(principal: string, group: string, version: string, resource: string): Iterable<KeptCopy>;
}

const MOST_NAMED = 3;
const MOST_CHARACTERS = 200;

/** What a refusal says of this request, but for what is kept instead. */
export function refusalWords(info: RequestInfo): RefusalWords {
  return { asked: askedFor(info), isQuestion: isReview(info) };
}

/** The same with the caller's copies of the resource. */
export function wordsFor(info: RequestInfo, { principal }: Caller, copies: CopiesOf): RefusalWords {
  const { group, version, resource, subresource } = info;
  if (resource === "" || subresource !== "") return refusalWords(info);
  return { ...refusalWords(info), instead: () => keptInstead(info, copies.of(principal, group, version, resource)) };
}

/** There is neither an API server nor a copy. */
export function unanswered(info: RequestInfo, caller: Caller, copies: CopiesOf): StatusError {
  const { asked, instead } = wordsFor(info, caller, copies);
  return unavailable(`Cannot ${asked}: the API server cannot be reached; ${instead?.() ?? "no copy is kept"}`);
}

/** The request in words: `list pods in namespace "shop"`. */
export function askedFor(info: RequestInfo): string {
  const { verb, group, resource, subresource, namespace, name } = info;
  if (resource === "") return `${verb === "connect" ? info.method : verb} ${short(info.canonicalPath)}`;
  if (isReview(info)) return resource === "tokenreviews" ? "review a token" : "review access";
  const kind = `${resource}${group === "" ? "" : `.${group}`}${subresource === "" ? "" : `/${subresource}`}`;
  const named = name === "" ? "" : ` "${short(name)}"`;
  const place = namespace === "" || resource === "namespaces" ? "" : ` in namespace "${short(namespace)}"`;
  return `${verb === "deletecollection" ? "delete all" : verb} ${kind}${named}${place}`;
}

function isReview({ verb, group, resource }: RequestInfo): boolean {
  return verb === "create" && REVIEWS.has(resource) && /^(authentication|authorization)\.k8s\.io$/.test(group);
}

/** Which copies of the resource there are: the widest first, so that one can ask for what is there. */
function keptInstead({ resource }: RequestInfo, copies: Iterable<KeptCopy>): string {
  const kept = [...copies].flatMap(({ identity, listed }) => (listed === undefined ? [] : [{ identity, listed }]));
  if (kept.length === 0) return `nothing of ${resource} is kept for this caller`;
  kept.sort((a, b) => narrowness(a.identity) - narrowness(b.identity));
  const names = [...new Set(kept.map(({ identity, listed }) => nameOf(identity, listed)))];
  const more = names.length > MOST_NAMED ? `, and ${names.length - MOST_NAMED} more` : "";
  return `kept for this caller are ${names.slice(0, MOST_NAMED).join(", ")}${more}`;
}

function narrowness({ namespace, fieldSelector, labelSelector }: ScopeIdentity): number {
  return Number(namespace !== "") + 2 * Number(fieldSelector !== "" || labelSelector !== "");
}

function nameOf({ resource, namespace, fieldSelector, labelSelector }: ScopeIdentity, listed: ListedState): string {
  const place = namespace === "" ? `all ${resource}` : `${resource} in namespace "${short(namespace)}"`;
  const selectors = [labelSelector, fieldSelector].filter((selector) => selector !== "").map(short);
  return `${place}${selectors.length === 0 ? "" : ` with ${selectors.join(" and ")}`} ${formOf(listed)}`;
}

function formOf({ contentType, shape }: ListedState): string {
  if (shape.listKind === "Table") return "as a Table";
  if (shape.listKind === "PartialObjectMetadataList") return "as metadata alone";
  return contentType === "application/json" ? "as JSON" : "as protobuf";
}

function short(text: string): string {
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}...` : text;
}
