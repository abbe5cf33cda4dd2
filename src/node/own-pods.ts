/**
 * Which pods this node has, and what its own object says.
 *
 * "Is this pod still there" deletes tokens and ends callers, so only a copy
 * that holds every pod of the node may answer it: the node's own, of all
 * namespaces, without a label selector, selected by the node's name or not at
 * all. A client of the node's that watches one pod by name, or a part by
 * label, says nothing about the others. Where no copy vouches, nothing is said.
 */

import { compareResourceVersions } from "../kube/resource-version.ts";
import type { Scope } from "../cache/scope.ts";
import type { Scopes } from "../cache/scopes.ts";

/** Our own node, and whose copies are its own. */
export interface OwnNode {
  readonly principal: string;
  readonly name: string;
}

/** UIDs of the node's pods; undefined while no copy that holds all of them is live. */
export function podUids(scopes: Scopes, node: OwnNode): ReadonlySet<string> | undefined {
  return uidsIn(newestOf(vouching(scopes, node).filter(({ state }) => state === "live")));
}

/** UIDs of the node's pods as they were last heard of, online or not; undefined when they never were listed whole. */
export function lastPodUids(scopes: Scopes, node: OwnNode): ReadonlySet<string> | undefined {
  return uidsIn(newestPods(scopes, node));
}

/**
 * The node as it was last heard of, in whatever form a client asked for it; undefined when nobody follows it.
 *
 * Rows are read, not copies: a snapshot writes first what the store holds
 * back, and the witness looks every few seconds.
 */
export function lastOwnNode(scopes: Scopes, { principal, name }: OwnNode): Uint8Array | undefined {
  let newest: { readonly resourceVersion: string; readonly bytes: Uint8Array } | undefined;
  for (const scope of scopes.of(principal, "", "v1", "nodes")) {
    const row = scope.row("", name);
    if (row === undefined) continue;
    const { resourceVersion } = row.meta;
    if (newest === undefined || compareResourceVersions(resourceVersion, newest.resourceVersion) > 0)
      newest = { resourceVersion, bytes: row.bytes };
  }
  return newest?.bytes;
}

/** The newest copy that holds every pod of the node, online or not; undefined when they never were listed whole. */
export function newestPods(scopes: Scopes, node: OwnNode): Scope | undefined {
  return newestOf(vouching(scopes, node));
}

/** The copies that hold every pod of the node. */
function vouching(scopes: Scopes, { principal, name }: OwnNode): Scope[] {
  return [...scopes.of(principal, "", "v1", "pods")].filter(({ identity, listed }) => {
    const { namespace, fieldSelector, labelSelector } = identity;
    const isWhole = fieldSelector === "" || /^spec\.nodeName==?(.+)$/.exec(fieldSelector)?.[1] === name;
    return listed !== undefined && namespace === "" && labelSelector === "" && isWhole;
  });
}

function newestOf(candidates: readonly Scope[]): Scope | undefined {
  let newest: Scope | undefined;
  for (const scope of candidates) {
    const held = newest?.listed?.resourceVersion ?? "";
    if (newest === undefined || compareResourceVersions(scope.listed?.resourceVersion ?? "", held) > 0) newest = scope;
  }
  return newest;
}

function uidsIn(scope: Scope | undefined): ReadonlySet<string> | undefined {
  using rows = scope?.rows();
  return rows === undefined ? undefined : new Set([...rows.items()].map(({ meta }) => meta.uid));
}
