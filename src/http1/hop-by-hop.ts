/**
 * Header lines that belong to one connection and are never passed on.
 *
 * Source: RFC 9110 section 7.6.1, RFC 9113 section 8.2.2 and its predecessor.
 */

/** By lower-case name; those that a Connection header names join them. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);

/** The lower-case names in a Connection header; undefined when it names none that matter. */
export function namedInConnection(value: string | null | undefined): ReadonlySet<string> | undefined {
  if (value === undefined || value === null || value === "" || value.toLowerCase() === "keep-alive") return undefined;
  return new Set(value.split(",").map((name) => name.trim().toLowerCase()));
}
