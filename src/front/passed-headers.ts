/**
 * Header lines on their way up and down: as they came, less what belongs to one connection.
 */

import { HOP_BY_HOP, namedInConnection } from "../http1/hop-by-hop.ts";
import type { UpstreamHeaders } from "../uplink/upstream-answer.ts";
import type { Exchange } from "./exchange.ts";

/** Of header blocks, which come again and again, as they go up; by the Accept that replaces the caller's. */
const headersUp = new WeakMap<Exchange["headers"], Map<string, [string, string][]>>();

/** The caller's headers as they go up. Shared between requests: never change them. */
export function requestHeaders(exchange: Exchange, accept?: string): readonly [string, string][] {
  let known = headersUp.get(exchange.headers);
  if (known === undefined) headersUp.set(exchange.headers, (known = new Map()));
  let headers = known.get(accept ?? "");
  if (headers === undefined) known.set(accept ?? "", (headers = passedHeaders(exchange, accept)));
  return headers;
}

function passedHeaders(exchange: Exchange, accept: string | undefined): [string, string][] {
  const dropped = namedInConnection(exchange.header("connection"));
  const headers: [string, string][] = [];
  let hasEncoding = false;
  for (const [name, value] of exchange.headers) {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || NOT_PASSED.has(lower) || dropped?.has(lower) === true) continue;
    if (accept !== undefined && lower === "accept") continue;
    if (lower === "accept-encoding") hasEncoding = true;
    headers.push([name, value]);
  }
  if (accept !== undefined) headers.push(["Accept", accept]);
  // Left out, fetch would ask for gzip, br and zstd on the caller's behalf.
  if (!hasEncoding) headers.push(["Accept-Encoding", "identity"]);
  return headers;
}

/** Set anew for the way up: the host is another, the length follows from the body, the credential from the caller. */
const NOT_PASSED: ReadonlySet<string> = new Set(["host", "content-length", "expect", "authorization"]);

/** The answer's headers as they go down: less what belongs to one connection, names as they came. */
export function responseHeaders(headers: UpstreamHeaders): Record<string, string | string[]> {
  const dropped = namedInConnection(headers.get("connection"));
  const kept = headers.toJSON();
  for (const name in kept) {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || dropped?.has(lower) === true) delete kept[name];
  }
  return kept;
}
