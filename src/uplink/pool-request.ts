/**
 * A request as a pool sends it, and its head in bytes.
 */

import type { Ending } from "../base/cancel.ts";
import type { RawAnswer } from "./raw-answer.ts";

/** A request as it goes out. */
export interface PoolRequest {
  readonly method: string;
  readonly target: string;
  /** As they are to be sent, without Host and what frames the body; a name that is there twice is sent twice. */
  readonly headers: readonly (readonly [string, string])[];
  /** The whole Authorization header, where there is one. */
  readonly authorization?: string | undefined;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array> | undefined;
  readonly signal: Ending;
  /** Shown an answer that came whole, in the turn in which it came; it resolves afterwards as any other. */
  readonly atOnce?: ((answer: RawAnswer) => void) | undefined;
}

/** Whether a request changes nothing: it may be sent twice without harm. */
export function isRead({ method }: { readonly method: string }): boolean {
  return method === "GET" || method === "HEAD";
}

/** Whether a body comes in pieces. */
export function isStream(body: PoolRequest["body"]): body is AsyncIterable<Uint8Array> {
  return body !== undefined && !(body instanceof Uint8Array);
}

/** Header lines that were put together for a client's header block, which comes again and again. */
const linesOf = new WeakMap<PoolRequest["headers"], string>();

/** The body's frame is said outright, also for a DELETE's. */
export function headText({ method, target, headers, authorization, body }: PoolRequest, hostHeader: string): string {
  let lines = linesOf.get(headers);
  if (lines === undefined) {
    lines = "";
    for (const [name, value] of headers) lines += `${name}: ${value}\r\n`;
    linesOf.set(headers, lines);
  }
  let text = `${method} ${target} HTTP/1.1\r\nHost: ${hostHeader}\r\n${lines}`;
  if (authorization !== undefined) text += `Authorization: ${authorization}\r\n`;
  if (isStream(body)) text += "Transfer-Encoding: chunked\r\n";
  else if (body !== undefined) text += `Content-Length: ${body.length}\r\n`;
  return `${text}\r\n`;
}
