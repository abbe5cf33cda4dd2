/**
 * One request and its response, whichever HTTP version carries them.
 *
 * Node's HTTP/1.1 and HTTP/2 servers hand out look-alike objects; this is the
 * part of them that the proxy uses.
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { TLSSocket } from "node:tls";
import { acceptedRepresentations, type Representation } from "../kube/representation.ts";

/** A request on its way through the proxy. */
export interface Exchange {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  readonly isHttp2: boolean;
  /** Names as sent, in order; without HTTP/2's pseudo-headers. */
  readonly headers: readonly (readonly [string, string])[];
  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined;
  readonly socket: TLSSocket;
  readonly request: IncomingMessage | Http2ServerRequest;
  readonly response: ServerResponse;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
  /** What the client accepts, best first. */
  readonly accepted: readonly Representation[];
}

const MAX_REMEMBERED_ACCEPTS = 64;
const remembered = new Map<string, readonly Representation[]>();

/** Clients send the same few Accept headers again and again. */
function acceptedOf(accept: string): readonly Representation[] {
  let accepted = remembered.get(accept);
  if (accepted === undefined) {
    accepted = acceptedRepresentations(accept);
    if (remembered.size >= MAX_REMEMBERED_ACCEPTS) remembered.clear();
    remembered.set(accept, accepted);
  }
  return accepted;
}

/** Wraps what the server handed out. */
export function exchangeOf(
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
): Exchange {
  const isHttp2 = request.httpVersionMajor === 2;
  const headers: [string, string][] = [];
  const { rawHeaders } = request;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.startsWith(":")) continue;
    headers.push([rawHeaders[i]!, rawHeaders[i + 1]!]);
  }
  const controller = new AbortController();
  // A reset on purpose (breakOff) is an error event too; nobody else needs to hear it.
  response.on("error", () => {});
  response.on("close", () => controller.abort(new Error("client went away")));
  const header = (name: string) => {
    const value = request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
  let accepted: readonly Representation[] | undefined;
  return {
    method: request.method ?? "GET",
    target: request.url ?? "/",
    isHttp2,
    headers,
    header,
    socket: (isHttp2 ? (request as Http2ServerRequest).stream.session!.socket : request.socket) as TLSSocket,
    request,
    response: response as ServerResponse,
    signal: controller.signal,
    get accepted() {
      return (accepted ??= acceptedOf(header("accept") ?? ""));
    },
  };
}
