/**
 * What a status says, as far as anybody here acts upon it.
 */

import type { Json } from "../kube/exact-json.ts";

/** A JSON object. */
export type Fields = { readonly [key: string]: Json };

/** Whether a pod has run to its end. */
export function isTerminal(status: Fields | undefined): boolean {
  return status?.["phase"] === "Succeeded" || status?.["phase"] === "Failed";
}

/** A pod's addresses. */
export function addressesOf(status: Fields | undefined): string[] {
  const listed = ((status?.["podIPs"] ?? []) as readonly Fields[]).map(({ ip }) => ip);
  return (listed.length > 0 ? listed : [status?.["podIP"]]).filter((ip): ip is string => typeof ip === "string");
}

/** Whether a pod takes traffic. */
export function isReady(status: Fields | undefined): boolean {
  const conditions = (status?.["conditions"] ?? []) as readonly Fields[];
  return !isTerminal(status) && conditions.some(({ type, status: value }) => type === "Ready" && value === "True");
}

/** What a reboot would miss of a pod: another phase, other addresses, another readiness. */
export function differsInWords(before: Fields | undefined, after: Fields): boolean {
  return (
    before?.["phase"] !== after["phase"] ||
    addressesOf(before).join() !== addressesOf(after).join() ||
    isReady(before) !== isReady(after)
  );
}
