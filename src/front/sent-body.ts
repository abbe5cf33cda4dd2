/**
 * What a client has sent, as it goes up: a small body in one piece with its exact length, a large one as it comes.
 *
 * Many bodies that are gathered at once are as much memory as one that is
 * endless: beyond a bound for all of them the next ones go up as they come,
 * whatever their size. The node's are gathered always, and so are very small ones.
 */

import type { Exchange } from "./exchange.ts";

/** More than this is not gathered. */
const BUFFERED_BODY_BYTES = 1024 * 1024;
/** Of all together that are under way. */
const MAX_GATHERED_BYTES = 6 * 1024 * 1024;
/** Gathered whatever else is: seats bound how many of them there are. */
const VERY_SMALL_BYTES = 32 * 1024;

let gatheredBytes = 0;
const gathered = new WeakMap<Exchange, number>();

/** A request's body: none, whole, or as it comes. */
export interface SentBody {
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
}

/**
 * A small body in one piece with its exact length; a large one as it comes.
 *
 * @param isNode it is the node that sends it.
 */
export function sentBody(exchange: Exchange, isNode: boolean): SentBody | Promise<SentBody> {
  const { bodyLength, method } = exchange;
  if (bodyLength !== 0) return readBody(exchange, isNode);
  return method === "POST" || method === "PUT" || method === "PATCH" ? { body: new Uint8Array(0) } : NOTHING_SENT;
}

const NOTHING_SENT: SentBody = {};

/** The request is over, and with it what was gathered of it. */
export function bodyIsOver(exchange: Exchange): void {
  gatheredBytes -= gathered.get(exchange) ?? 0;
  gathered.delete(exchange);
}

/** Whether there is room for a piece more of a body. */
function isGathered(exchange: Exchange, size: number, piece: number, isNode: boolean): boolean {
  if (size > BUFFERED_BODY_BYTES) return false;
  if (!isNode && size > VERY_SMALL_BYTES && gatheredBytes + piece > MAX_GATHERED_BYTES) return false;
  gatheredBytes += piece;
  gathered.set(exchange, size);
  return true;
}

async function readBody(exchange: Exchange, isNode: boolean): Promise<SentBody> {
  const iterator = exchange.body[Symbol.asyncIterator]();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return { body: new Uint8Array(Buffer.concat(parts)) };
    parts.push(value);
    size += value.length;
    if (!isGathered(exchange, size, value.length, isNode)) break;
  }
  return {
    body: new ReadableStream<Uint8Array>({
      async pull(controller) {
        const first = parts.shift();
        if (first !== undefined) return controller.enqueue(first);
        const { done, value } = await iterator.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await iterator.return?.();
      },
    }),
  };
}
