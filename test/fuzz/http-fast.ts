/**
 * The same stream through the code that runs: head reader, chunk reader and
 * the order in which a connection uses them.
 */

import { ChunkedReader } from "../../src/http1/chunked.ts";
import { readRequestHead } from "../../src/http1/request-head.ts";
import type { ReadRequest, ReadStream } from "./http-reference.ts";

/** Reads a stream as `front/connection.ts` does. @param text latin1. */
export function readFast(text: string): ReadStream {
  const requests: ReadRequest[] = [];
  let rest: Uint8Array = Buffer.from(text, "latin1");
  while (rest.length > 0) {
    const all = Buffer.from(rest.buffer, rest.byteOffset, rest.length);
    const start = all[0] === 0x0d && all[1] === 0x0a ? 2 : 0;
    const end = all.indexOf("\r\n\r\n", start);
    if (end < 0) return { requests, end: all.includes("\n\n", start) ? "refused" : "short" };
    try {
      const { method, target, minor, block } = readRequestHead(all.toString("latin1", start, end + 2));
      const behind = all.subarray(end + 4);
      const body: Buffer[] = [];
      let taken: number;
      if (block.isChunked) {
        const chunked = new ChunkedReader();
        taken = chunked.push(behind, (data) => body.push(Buffer.from(data)));
        if (!chunked.isDone) return { requests, end: "short" };
      } else {
        taken = Math.max(0, block.length);
        if (behind.length < taken) return { requests, end: "short" };
        body.push(behind.subarray(0, taken));
      }
      requests.push({ method, target, headers: block.headers, body: Buffer.concat(body).toString("latin1") });
      if (!(block.keepAlive ?? minor === 1)) return { requests, end: "whole" };
      rest = behind.subarray(taken);
    } catch {
      return { requests, end: "refused" };
    }
  }
  return { requests, end: "whole" };
}
