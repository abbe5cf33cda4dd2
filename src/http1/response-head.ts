/**
 * An answer's head, as an API server writes it.
 *
 * Read strictly where it says how long the body is, because a reader that
 * guesses would take one answer's end for the next one's beginning; names and
 * values are passed on as they came.
 */

import { Remembered } from "../base/remembered.ts";
import { HOP_BY_HOP } from "./hop-by-hop.ts";

/** An answer that cannot be read. */
export class ResponseHeadError extends Error {
  override readonly name = "ResponseHeadError";
}

/** A status line and its header lines. */
export interface ResponseHead {
  readonly status: number;
  /** Names as sent, in order. */
  readonly fields: readonly (readonly [string, string])[];
  /** The fields' names in lower case, in the same order. */
  readonly names: readonly string[];
  /** The connection may serve another request afterwards. */
  readonly keepsAlive: boolean;
  /** Where the body ends: nowhere to begin with, after so many bytes, with the last chunk, or with the connection. */
  readonly frame: { readonly kind: "none" | "chunked" | "close" } | { readonly kind: "length"; readonly bytes: number };
  /** May be passed on as it is: of HTTP/1.1, dated, with its length, and without a word about its connection. */
  readonly isPlain: boolean;
}

/** An answer that came whole and is plain. */
export interface PlainAnswer {
  readonly status: number;
  /** Head, empty line and body. */
  readonly bytes: Uint8Array;
  /** Where the empty line begins. */
  readonly headEnd: number;
}

const lowerNames = new Remembered<string>(256, 64);

/**
 * Reads a head.
 *
 * @param text latin1, up to and without the empty line's CRLF: every line ends with CRLF.
 * @param isHead the request was a HEAD.
 * @throws {ResponseHeadError}
 */
export function readResponseHead(text: string, isHead: boolean): ResponseHead {
  const end = text.indexOf("\r\n");
  const status = statusOf(end < 0 ? text : text.slice(0, end));
  const fields: [string, string][] = [];
  const names: string[] = [];
  const isLatest = text.startsWith("HTTP/1.1");
  const framing: Framing = { length: -1, isChunked: false, keepsAlive: isLatest, isPassable: isLatest, isDated: false };
  for (let at = end + 2; at < text.length;) {
    const lineEnd = text.indexOf("\r\n", at);
    const colon = text.indexOf(":", at);
    if (lineEnd < 0 || colon <= at || colon > lineEnd) throw new ResponseHeadError("a header line is malformed");
    const name = text.slice(at, colon);
    const value = text.slice(colon + 1, lineEnd).trim();
    const lower = lowerNames.of(name, lowerCase);
    at = lineEnd + 2;
    fields.push([name, value]);
    names.push(lower);
    note(framing, lower, value);
  }
  // Lines end with both or not at all: one of them alone would be a line's end to somebody else.
  if (countOf(text, "\n") !== fields.length + 1 || countOf(text, "\r") !== fields.length + 1)
    throw new ResponseHeadError("a header line is malformed");
  const { length, isChunked, keepsAlive } = framing;
  const head = { status, fields, names, keepsAlive, isPlain: false };
  if (isHead || status < 200 || status === 204 || status === 304) return { ...head, frame: { kind: "none" } };
  if (isChunked && length >= 0) throw new ResponseHeadError("both Content-Length and Transfer-Encoding");
  if (isChunked) return { ...head, frame: { kind: "chunked" } };
  if (length < 0) return { ...head, keepsAlive: false, frame: { kind: "close" } };
  return { ...head, isPlain: framing.isPassable && framing.isDated, frame: { kind: "length", bytes: length } };
}

interface Framing {
  length: number;
  isChunked: boolean;
  keepsAlive: boolean;
  isPassable: boolean;
  isDated: boolean;
}

/** What a header line says about the message's frame. */
function note(framing: Framing, name: string, value: string): void {
  if (HOP_BY_HOP.has(name)) framing.isPassable = false;
  switch (name) {
    case "content-length":
      framing.length = lengthOf(value, framing.length);
      return;
    case "transfer-encoding":
      if (framing.isChunked || value.toLowerCase() !== "chunked")
        throw new ResponseHeadError("unknown transfer encoding");
      framing.isChunked = true;
      return;
    case "connection":
      if (/\bclose\b/i.test(value)) framing.keepsAlive = false;
      return;
    case "date":
      framing.isDated = true;
  }
}

function lowerCase(name: string): string {
  return name.toLowerCase();
}

function countOf(text: string, char: string): number {
  let count = 0;
  for (let at = text.indexOf(char); at >= 0; at = text.indexOf(char, at + 1)) count++;
  return count;
}

/** HTTP/1.x SP 3DIGIT SP ... */
function statusOf(line: string): number {
  const status = Number(line.slice(9, 12));
  const isKnown = line.startsWith("HTTP/1.1 ") || line.startsWith("HTTP/1.0 ");
  if (!isKnown || !Number.isInteger(status) || status < 100 || status > 999 || (line.length > 12 && line[12] !== " "))
    throw new ResponseHeadError("no HTTP/1.1 answer");
  return status;
}

function lengthOf(value: string, known: number): number {
  if (known >= 0 || value === "" || value.length > 15) throw new ResponseHeadError("bad Content-Length");
  for (let i = 0; i < value.length; i++)
    if (value.charCodeAt(i) < 0x30 || value.charCodeAt(i) > 0x39) throw new ResponseHeadError("bad Content-Length");
  return Number(value);
}
