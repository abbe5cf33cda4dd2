/**
 * Heads over HTTP/2: a request's fields, and an answer's as one over HTTP/1.1.
 *
 * What is passed on to a client over HTTP/1.1 must not become another line
 * there: names are tokens in lower case, values hold no line's end.
 *
 * Source: RFC 9113 sections 8.2 and 8.3.
 */

import { Remembered } from "../base/remembered.ts";
import { HOP_BY_HOP } from "../http1/hop-by-hop.ts";
import type { ResponseHead } from "../http1/response-head.ts";
import type { HeaderField } from "../http2/header-table.ts";
import { isStream, type PoolRequest } from "./pool-request.ts";

/** An answer that is none: its stream ends, the connection goes on. */
export class MalformedAnswerError extends Error {
  override readonly name = "MalformedAnswerError";
}

const OF_A_CONNECTION: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);
const NONE = { kind: "none" } as const;
const UNTIL_END = { kind: "close" } as const;
const tokens = new Remembered<boolean>(256, 64);
const lowerNames = new Remembered<string>(256, 64);

/** The fields of a request, as they go out. @param authority host and port of the server. */
export function requestFields(request: PoolRequest, authority: string): HeaderField[] {
  const { method, target, headers, authorization, body } = request;
  const fields: HeaderField[] = [
    [":method", method],
    [":scheme", "https"],
    [":authority", authority],
    [":path", target],
  ];
  for (const [name, value] of headers) {
    const lower = lowerNames.of(name, lowerCase);
    if (lower !== "host" && !HOP_BY_HOP.has(lower)) fields.push([lower, value]);
  }
  if (authorization !== undefined) fields.push(["authorization", authorization]);
  if (body !== undefined && !isStream(body)) fields.push(["content-length", String(body.length)]);
  return fields;
}

/** The status of an answer, final or not. @throws {MalformedAnswerError} */
export function statusOf([first]: readonly HeaderField[]): number {
  const text = first?.[0] === ":status" ? first[1] : "";
  const status = Number(text);
  if (text.length !== 3 || !Number.isInteger(status) || status < 100 || status === 101)
    throw new MalformedAnswerError("an answer without a status");
  return status;
}

/**
 * Reads a final answer's fields.
 *
 * @param isBare no body may follow, by the request or because the stream has ended.
 * @returns the head, and how long the body is by its word; -1 when it says nothing.
 * @throws {MalformedAnswerError}
 */
export function answerHead(
  all: readonly HeaderField[],
  status: number,
  isBare: boolean,
): { readonly head: ResponseHead; readonly length: number } {
  const fields = all.slice(1);
  const names: string[] = [];
  let length = -1;
  for (const [name, value] of fields) {
    checkField(name, value);
    names.push(name);
    if (name === "content-length") length = lengthOf(value, length);
  }
  const frame = isBare || status === 204 || status === 304 ? NONE : UNTIL_END;
  return { head: { status, fields, names, keepsAlive: true, frame, isPlain: false }, length };
}

/** @throws {MalformedAnswerError} when these are no trailers. */
export function checkTrailers(fields: readonly HeaderField[]): void {
  for (const [name, value] of fields) checkField(name, value);
}

function checkField(name: string, value: string): void {
  if (!tokens.of(name, isLowerToken) || OF_A_CONNECTION.has(name))
    throw new MalformedAnswerError("a header's name that cannot be");
  const isPadded = value.length > 0 && (isSpace(value.charCodeAt(0)) || isSpace(value.charCodeAt(value.length - 1)));
  if (isPadded || value.includes("\n") || value.includes("\r") || value.includes("\0"))
    throw new MalformedAnswerError("a header's value that cannot be");
}

const TOKEN_MARKS = "!#$%&'*+-.^_`|~";

function isLowerToken(name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    const isWord = (code >= 0x61 && code <= 0x7a) || (code >= 0x30 && code <= 0x39);
    if (!isWord && !TOKEN_MARKS.includes(name[i]!)) return false;
  }
  return name !== "";
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

function lengthOf(value: string, known: number): number {
  let isNumber = value !== "" && value.length <= 15;
  for (let i = 0; i < value.length; i++) isNumber &&= value.charCodeAt(i) >= 0x30 && value.charCodeAt(i) <= 0x39;
  if (known >= 0 || !isNumber) throw new MalformedAnswerError("a Content-Length that is none");
  return Number(value);
}

function lowerCase(name: string): string {
  return name.toLowerCase();
}
