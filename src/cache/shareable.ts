/**
 * Which scopes may be fed by another's watch, and by which: sharing's own
 * bounds on top of what containment allows.
 */

import type { Representation } from "../kube/representation.ts";
import { selectionOf, type Selection } from "../kube/selectors.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import { askedForms, formatOf, partOf, selectionWithin, type Part } from "./containment.ts";
import type { Scope } from "./scope.ts";

/**
 * Resources that several callers of one node really follow whole. Not here:
 *
 *   secrets, configmaps   followed one name at a time; all of them are nobody's business on a node
 *   pods                  spec.nodeName selects a handful of thousands; kubelet's copy is edited while offline
 *   leases, events        not kept, or of no use offline
 *
 * Custom resources are shared too (Calico and Cilium follow theirs whole).
 */
const SHARED: ReadonlySet<string> = new Set([
  "/services",
  "/endpoints",
  "/namespaces",
  "/nodes",
  "discovery.k8s.io/endpointslices",
  "networking.k8s.io/networkpolicies",
]);

/** A node's own object out of all nodes is little, and kubelet may see no other; kubelet's copy is edited while offline. */
const SHARED_WHOLE_ONLY: ReadonlySet<string> = new Set(["/nodes"]);
/** Of these nobody is made to follow more than was asked for, however much that is. */
const NEVER_WIDENED: ReadonlySet<string> = new Set(["/secrets", "coordination.k8s.io/leases", "/events"]);

/** The selection of a scope that may take part: in plain objects, and understood to the last detail. */
export function shareableSelection(identity: ScopeIdentity): Selection | undefined {
  if (firstForm(identity)?.as !== "object") return undefined;
  const selection = selectionOf(identity);
  return isWholeOnly(identity) && selection?.isAll !== true ? undefined : selection;
}

/** Whether different callers may share a watch of this resource. */
export function isShared({ group, resource }: Pick<ScopeIdentity, "group" | "resource">): boolean {
  return SHARED.has(`${group}/${resource}`) || isCustom(group);
}

/** Whether a caller's many narrow watches of this resource may be replaced by one of the whole. */
export function mayBeWidened({ group, resource }: Pick<ScopeIdentity, "group" | "resource">): boolean {
  return !NEVER_WIDENED.has(`${group}/${resource}`) && !isWholeOnly({ group, resource });
}

/** Whether only unselected scopes of this resource take part. */
export function isWholeOnly({ group, resource }: Pick<ScopeIdentity, "group" | "resource">): boolean {
  return SHARED_WHOLE_ONLY.has(`${group}/${resource}`);
}

/** Built-in groups have no dot or end in k8s.io. */
function isCustom(group: string): boolean {
  return group.includes(".") && !/(^|\.)k8s\.io$/.test(group);
}

/** The form asked for first, if the scope keeps plain answers to it. */
export function firstForm(identity: ScopeIdentity): Representation | undefined {
  return identity.representation.includes(";includeObject=") ? undefined : askedForms(identity)[0];
}

/**
 * Whether what a scope selects lies within what the candidate holds or is
 * about to hold, byte for byte as the API server would send it.
 *
 * A proof speaks of a whole collection, so a base is one without selectors;
 * among scopes that select alike the older one is the base, so there is no
 * circle.
 */
export function isWithin(scope: Scope, candidate: Scope): boolean {
  const [part, whole] = [scope.identity, candidate.identity];
  if (scope === candidate || whole.fieldSelector !== "" || whole.labelSelector !== "") return false;
  if (selectionWithin(whole, part) === undefined) return false;
  const isAlike = part.fieldSelector === "" && part.labelSelector === "" && part.namespace === whole.namespace;
  if (isAlike && candidate.order > scope.order) return false;
  const [asked, held] = [firstForm(part), firstForm(whole)];
  if (asked?.as !== "object" || held?.as !== "object") return false;
  // A custom resource is JSON whatever was asked for first; then only the same wish is sure to get the same.
  const { listed } = candidate;
  const format = listed === undefined ? held.format : formatOf(listed);
  return part.representation === whole.representation || asked.format === format;
}

/** How a scope is cut out of a listed base that it lies within; its form is the base's. */
export function partOfBase(scope: Scope, base: Scope): Part | undefined {
  const { identity, listed } = base;
  if (listed === undefined) return undefined;
  return partOf({ identity, listed }, scope.identity, { format: formatOf(listed), as: "object", asVersion: "" });
}
