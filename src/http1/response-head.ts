/**
 * An answer's head, as an API server writes it.
 *
 * Read strictly where it says how long the body is, because a reader that
 * guesses would take one answer's end for the next one's beginning; names and
 * values are passed on as they came.
 */

/** An answer that cannot be read. */
export class ResponseHeadError extends Error {
  override readonly name = "ResponseHeadError";
}

/** A status line and its header lines. */
export interface ResponseHead {
  readonly status: number;
  /** Names as sent, in order. */
  readonly fields: readonly (readonly [string, string])[];
  /** The connection may serve another request afterwards. */
  readonly keepsAlive: boolean;
  /** Where the body ends: nowhere to begin with, after so many bytes, with the last chunk, or with the connection. */
  readonly frame: { readonly kind: "none" | "chunked" | "close" } | { readonly kind: "length"; readonly bytes: number };
}

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
  let length = -1;
  let isChunked = false;
  let keepsAlive = text.startsWith("HTTP/1.1");
  for (let at = end + 2; at < text.length;) {
    const lineEnd = text.indexOf("\r\n", at);
    const colon = text.indexOf(":", at);
    if (lineEnd < 0 || colon <= at || colon > lineEnd) throw new ResponseHeadError("a header line is malformed");
    const name = text.slice(at, colon);
    const value = text.slice(colon + 1, lineEnd).trim();
    at = lineEnd + 2;
    fields.push([name, value]);
    // The names that frame a message, told apart by their length before anything is made lower-case.
    if (name.length === 14 && name.toLowerCase() === "content-length") length = lengthOf(value, length);
    else if (name.length === 17 && name.toLowerCase() === "transfer-encoding") {
      if (isChunked || value.toLowerCase() !== "chunked") throw new ResponseHeadError("unknown transfer encoding");
      isChunked = true;
    } else if (name.length === 10 && name.toLowerCase() === "connection" && /\bclose\b/i.test(value))
      keepsAlive = false;
  }
  if (isHead || status < 200 || status === 204 || status === 304)
    return { status, fields, keepsAlive, frame: { kind: "none" } };
  if (isChunked && length >= 0) throw new ResponseHeadError("both Content-Length and Transfer-Encoding");
  if (isChunked) return { status, fields, keepsAlive, frame: { kind: "chunked" } };
  if (length >= 0) return { status, fields, keepsAlive, frame: { kind: "length", bytes: length } };
  return { status, fields, keepsAlive: false, frame: { kind: "close" } };
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
