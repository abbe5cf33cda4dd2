/**
 * How things of the cache are called in tables: `status` and `cache ls` say the same.
 */

import type { ScopeIdentity } from "../store/contract.ts";

/** "1 scope", "2 scopes". */
export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}

/** "nodes (metadata.name=gw-1)": resource, group and selectors. */
export function scopeName({
  resource,
  group,
  fieldSelector,
  labelSelector,
}: Pick<ScopeIdentity, "resource" | "group" | "fieldSelector" | "labelSelector">): string {
  const selectors = [fieldSelector, labelSelector].filter((text) => text !== "").join(" ");
  return `${resource}${group === "" ? "" : `.${group}`}${selectors === "" ? "" : ` (${selectors})`}`;
}

/** "certificate:admin|system:masters" as "admin"; a token's hash by its first digits. */
export function shortPrincipal(principal: string): string {
  const colon = principal.indexOf(":");
  const rest = principal.slice(colon + 1);
  return principal.slice(0, colon) === "token" ? `token ${rest.slice(0, 8)}` : rest.split("|")[0]!;
}
