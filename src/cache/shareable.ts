/**
 * Which scopes may share a watch, and what with.
 *
 * A scope lies within another when the API server would have answered it with
 * a part of the other's bytes: same resource, a namespace and selectors that
 * can be decided here, and the same form.
 */

import { codecFor, mediaType, representationsOfKey, type Representation } from "../kube/representation.ts";
import { selectionOf, type Selection } from "../kube/selectors.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { Scope } from "./scope.ts";
import { formatOf } from "./shared-watch.ts";

/**
 * Resources that several clients of one node really follow whole. Not here:
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

/** The selection of a scope that may take part in sharing. */
export function shareableSelection(identity: ScopeIdentity): Selection | undefined {
  const kind = `${identity.group}/${identity.resource}`;
  if (!SHARED.has(kind) && !isCustom(identity.group)) return undefined;
  if (firstForm(identity.representation)?.as !== "object") return undefined;
  const selection = selectionOf(identity);
  return isWholeOnly(identity) && selection?.isAll !== true ? undefined : selection;
}

/** Whether only unselected scopes of this resource take part. */
export function isWholeOnly({ group, resource }: ScopeIdentity): boolean {
  return SHARED_WHOLE_ONLY.has(`${group}/${resource}`);
}

/** Built-in groups have no dot or end in k8s.io. */
function isCustom(group: string): boolean {
  return group.includes(".") && !/(^|\.)k8s\.io$/.test(group);
}

/** The form asked for first, if the scope keeps plain answers to it. */
export function firstForm(representation: string): Representation | undefined {
  return representation.includes(";includeObject=") ? undefined : representationsOfKey(representation)[0];
}

/** Whether what a scope selects lies within what the candidate holds, byte for byte as the API server would send it. */
export function isWithin(scope: Scope, candidate: Scope): boolean {
  const [part, whole] = [scope.identity, candidate.identity];
  if (scope === candidate || whole.fieldSelector !== "" || whole.labelSelector !== "") return false;
  if (part.group !== whole.group || part.version !== whole.version || part.resource !== whole.resource) return false;
  if (whole.namespace !== "" && whole.namespace !== part.namespace) return false;
  const isAlike = part.fieldSelector === "" && part.labelSelector === "" && part.namespace === whole.namespace;
  if (isAlike && candidate.order > scope.order) return false;
  const [asked, held] = [firstForm(part.representation), firstForm(whole.representation)];
  if (asked?.as !== "object" || held?.as !== "object") return false;
  // A custom resource is JSON whatever was asked for first; then only the same wish is sure to get the same.
  const { listed } = candidate;
  const format = listed === undefined ? held.format : formatOfType(listed.contentType);
  return part.representation === whole.representation || asked.format === format;
}

function formatOfType(contentType: string): "json" | "protobuf" | undefined {
  const codec = codecFor(mediaType(contentType));
  return codec === undefined ? undefined : formatOf(codec);
}
