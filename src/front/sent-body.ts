/**
 * What a client has sent, as it goes up: a small body in one piece with its exact length, a large one as it comes.
 */

import type { Exchange } from "./exchange.ts";

/** More than this is not gathered. */
const BUFFERED_BODY_BYTES = 1024 * 1024;

/** A request's body: none, whole, or as it comes. */
export interface SentBody {
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
}

/** A small body in one piece with its exact length; a large one as it comes. */
export function sentBody(exchange: Exchange): SentBody | Promise<SentBody> {
  const { bodyLength, method } = exchange;
  if (bodyLength !== 0) return readBody(exchange);
  return method === "POST" || method === "PUT" || method === "PATCH" ? { body: new Uint8Array(0) } : NOTHING_SENT;
}

const NOTHING_SENT: SentBody = {};

async function readBody({ body }: Exchange): Promise<SentBody> {
  const iterator = body[Symbol.asyncIterator]();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return { body: new Uint8Array(Buffer.concat(parts)) };
    parts.push(value);
    size += value.length;
    if (size > BUFFERED_BODY_BYTES) break;
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
