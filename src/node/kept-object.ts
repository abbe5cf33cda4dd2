/**
 * One pod or node as a caller's own copy holds it, read as JSON: what answers
 * to writes are made from.
 */

import type { FoundObject, Scopes } from "../cache/scopes.ts";

/** The object, or undefined where this caller's copies do not hold it in JSON. */
export function keptObject(
  scopes: Scopes,
  principal: string,
  { resource, namespace, name }: { readonly resource: string; readonly namespace: string; readonly name: string },
): FoundObject | undefined {
  return scopes.findObject({ principal, group: "", version: "v1", resource, namespace, name }, [
    { format: "json", as: "object", asVersion: "" },
  ]);
}
