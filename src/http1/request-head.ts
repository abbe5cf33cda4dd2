/**
 * A request's head, read as strictly as RFC 9112 can be read.
 *
 * Two readers that disagree about where a request ends let one caller's bytes
 * become another's request, so whatever a lenient reader might understand in
 * two ways is refused: bare LF or CR, folded lines, space before a colon, a
 * length said twice, a length beside chunks, any transfer coding but chunked,
 * no Host or two. Nothing is repaired.
 *
 *   head = method SP target SP "HTTP/1." ("0" | "1") CRLF *(name ":" OWS value OWS CRLF) CRLF
 *
 * A client sends the same header block again and again; blocks are remembered
 * in a bounded table, because reading one costs as much as the rest of a small
 * request. No regular expressions: heads come from strangers, and often.
 */

import { Remembered } from "../base/remembered.ts";

/** A head that is refused; the connection ends with it. */
export class HeadError extends Error {
  override readonly name = "HeadError";

  /** @param status 400, 417, 431 or 505. */
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** What the header lines of a request say, without the request line. Shared between requests: never change it. */
export interface HeaderBlock {
  /** Names and values as sent, in order; values without the white space around them. */
  readonly headers: readonly (readonly [string, string])[];
  /** The first value of each, by lower-case name. */
  readonly byName: ReadonlyMap<string, string>;
  /** undefined: what the version says. */
  readonly keepAlive: boolean | undefined;
  /** Body's length in bytes; -1 where none was said. */
  readonly length: number;
  readonly isChunked: boolean;
  readonly expectsContinue: boolean;
  /** Connection names "upgrade" and Upgrade names a protocol. */
  readonly isUpgrade: boolean;
}

/** A request's head. */
export interface RequestHead {
  readonly method: string;
  /** As sent. */
  readonly target: string;
  /** 0 or 1, of HTTP/1.x. */
  readonly minor: number;
  readonly block: HeaderBlock;
}

/** More header lines than this are refused. */
const MAX_LINES = 256;
const MAX_METHOD = 20;
const MAX_LENGTH_DIGITS = 15;

/** RFC 9110 section 5.6.2, by character code. */
const IS_TOKEN = new Uint8Array(128);
for (const char of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
  IS_TOKEN[char.charCodeAt(0)] = 1;

const remembered = new Remembered<HeaderBlock>(64, 8_192);

/**
 * Reads a head.
 *
 * @param text latin1, from the first byte of the request line up to and without the empty line's CRLF: every line ends with CRLF.
 * @throws {HeadError}
 */
export function readRequestHead(text: string): RequestHead {
  const end = text.indexOf("\r\n");
  if (end < 0) throw new HeadError(400, "the request line does not end");
  const first = text.indexOf(" ");
  const last = text.lastIndexOf(" ", end - 1);
  if (first <= 0 || first > MAX_METHOD || last <= first + 1 || first > end)
    throw new HeadError(400, "malformed request line");
  const method = text.slice(0, first);
  if (!isToken(method)) throw new HeadError(400, "malformed method");
  const target = text.slice(first + 1, last);
  if (!isVisible(target)) throw new HeadError(400, "malformed request target");
  const minor = minorOf(text.slice(last + 1, end));
  const block = remembered.of(text.slice(end + 2), readBlock);
  if (minor === 1 && !block.byName.has("host")) throw new HeadError(400, "missing required Host header");
  if (minor === 0 && block.isChunked) throw new HeadError(400, "HTTP/1.0 knows no chunks");
  return { method, target, minor, block };
}

function minorOf(version: string): number {
  if (version === "HTTP/1.1") return 1;
  if (version === "HTTP/1.0") return 0;
  if (version.startsWith("HTTP/") && version.length === 8) throw new HeadError(505, "HTTP version not supported");
  throw new HeadError(400, "malformed HTTP version");
}

interface Framing {
  keepAlive: boolean | undefined;
  length: number;
  isChunked: boolean;
  expectsContinue: boolean;
  hasUpgradeOption: boolean;
}

function readBlock(text: string): HeaderBlock {
  const headers: (readonly [string, string])[] = [];
  const byName = new Map<string, string>();
  const framing: Framing = {
    keepAlive: undefined,
    length: -1,
    isChunked: false,
    expectsContinue: false,
    hasUpgradeOption: false,
  };
  for (let at = 0; at < text.length;) {
    const end = text.indexOf("\r\n", at);
    if (end < 0) throw new HeadError(400, "a header line does not end");
    const colon = text.indexOf(":", at);
    if (colon < 0 || colon > end) throw new HeadError(400, "a header line without a colon");
    const name = text.slice(at, colon);
    if (!isToken(name)) throw new HeadError(400, "malformed header name");
    const value = trimmed(text, colon + 1, end);
    if (headers.length >= MAX_LINES) throw new HeadError(431, "too many header lines");
    headers.push([name, value]);
    const lower = name.toLowerCase();
    note(framing, lower, value, byName);
    if (!byName.has(lower)) byName.set(lower, value);
    at = end + 2;
  }
  const { hasUpgradeOption, ...rest } = framing;
  if (rest.isChunked && rest.length >= 0) throw new HeadError(400, "both Content-Length and Transfer-Encoding");
  return { headers, byName, ...rest, isUpgrade: hasUpgradeOption && byName.has("upgrade") };
}

/** What a header line says about the message's frame. */
function note(framing: Framing, name: string, value: string, seen: ReadonlyMap<string, string>): void {
  switch (name) {
    case "host":
      if (seen.has(name)) throw new HeadError(400, "too many Host headers");
      if (!isHost(value)) throw new HeadError(400, "malformed Host header");
      return;
    case "content-length":
      if (seen.has(name) || !isLength(value)) throw new HeadError(400, "bad Content-Length");
      framing.length = Number(value);
      return;
    case "transfer-encoding":
      if (seen.has(name) || value.toLowerCase() !== "chunked")
        throw new HeadError(400, "unsupported transfer encoding");
      framing.isChunked = true;
      return;
    case "expect":
      if (value.toLowerCase() !== "100-continue") throw new HeadError(417, "only 100-continue can be expected");
      framing.expectsContinue = true;
      return;
    case "connection":
      for (const option of value.toLowerCase().split(",")) {
        const one = option.trim();
        if (one === "close") framing.keepAlive = false;
        else if (one === "keep-alive") framing.keepAlive ??= true;
        else if (one === "upgrade") framing.hasUpgradeOption = true;
      }
  }
}

function isToken(text: string): boolean {
  if (text === "") return false;
  for (let i = 0; i < text.length; i++) if (IS_TOKEN[text.charCodeAt(i)] !== 1) return false;
  return true;
}

/** No white space, no control, nothing beyond ASCII: what a URI may not hold is not sent raw by any client we know. */
function isVisible(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f) return false;
  }
  return true;
}

/** Name or address, with or without a port: no path, no user, no list. */
function isHost(text: string): boolean {
  if (text === "") return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f || code === 0x2f || code === 0x40 || code === 0x2c || code === 0x5c) return false;
  }
  return true;
}

function isLength(text: string): boolean {
  if (text === "" || text.length > MAX_LENGTH_DIGITS) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}

/** The value without the white space around it; controls in it are refused (a bare CR or LF would be a line to somebody else). */
function trimmed(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    if ((code < 0x20 && code !== 0x09) || code === 0x7f) throw new HeadError(400, "malformed header value");
  }
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
