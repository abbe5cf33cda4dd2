/**
 * One request and its answer on their way through Holdfast.
 */

import type { Peer } from "../callers/identify.ts";
import type { RequestHead } from "../http1/request-head.ts";
import { acceptedRepresentations, type Representation } from "../kube/representation.ts";
import type { Reply } from "./reply.ts";
import type { RequestBody } from "./request-body.ts";

/** A request on its way through Holdfast. */
export interface Exchange {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  /** Names as sent, in order. */
  readonly headers: readonly (readonly [string, string])[];
  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined;
  readonly socket: Peer;
  /** Bytes of the body that were announced: -1 when it comes in chunks, 0 for none. */
  readonly bodyLength: number;
  /** To be iterated once. */
  readonly body: RequestBody;
  readonly response: Reply;
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

/**
 * Puts a request together.
 *
 * @returns the exchange, and what tells it that its client is gone.
 */
export function exchangeOf(
  { method, target, block }: RequestHead,
  socket: Peer,
  body: RequestBody,
  response: Reply,
): { readonly exchange: Exchange; readonly abort: () => void } {
  // Made when somebody asks for it: most answers are out before anybody could go away.
  let controller: AbortController | undefined;
  let isGone = false;
  let accepted: readonly Representation[] | undefined;
  const exchange: Exchange = {
    method,
    target,
    headers: block.headers,
    header: (name) => block.byName.get(name),
    socket,
    bodyLength: block.isChunked ? -1 : Math.max(0, block.length),
    body,
    response,
    get signal() {
      if (controller === undefined) {
        controller = new AbortController();
        if (isGone) controller.abort(new Error("client went away"));
      }
      return controller.signal;
    },
    get accepted() {
      return (accepted ??= acceptedOf(block.byName.get("accept") ?? ""));
    },
  };
  const abort = () => {
    isGone = true;
    controller?.abort(new Error("client went away"));
  };
  return { exchange, abort };
}
