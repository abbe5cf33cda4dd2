/**
 * HTTP/1.1 requests as RFC 9112's grammar says them, slowly.
 *
 * A second reader to hold the fast one against: it takes the whole of what a
 * client sent, matches the grammar with regular expressions from left to
 * right, and shares no line with `src/http1`.
 */

/** What a stream of bytes is: requests, and how it ends. */
export interface ReadStream {
  readonly requests: readonly ReadRequest[];
  /** "whole": nothing is left over; "short": a request has begun; otherwise refused. */
  readonly end: "whole" | "short" | "refused";
}

/** One request as read. */
export interface ReadRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string;
}

const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const REQUEST_LINE = new RegExp(`^(${TOKEN}) ([\\x21-\\x7e]+) HTTP/1\\.([01])\\r\\n`);
const FIELD_LINE = new RegExp(
  `^(${TOKEN}):[ \\t]*((?:[\\x21-\\x7e\\x80-\\xff](?:[\\x20-\\x7e\\x80-\\xff\\t]*[\\x21-\\x7e\\x80-\\xff])?)?)[ \\t]*\\r\\n`,
);
const HOST = /^[\x21-\x2b\x2d\x2e\x30-\x3f\x41-\x5b\x5d-\x7e]+$/;
const CHUNK_LINE = /^([0-9A-Fa-f]{1,12})(;[\x20-\x7e\x80-\xff\t\x7f]*)?\r\n/;
const TRAILER_LINE = /^[^\r\n: \t][^\r\n:]*:[^\r\n]*\r\n/;

/**
 * Reads a stream.
 *
 * @param text latin1.
 */
export function readStream(text: string): ReadStream {
  const requests: ReadRequest[] = [];
  let rest = text;
  while (rest !== "") {
    if (rest.startsWith("\r\n")) rest = rest.slice(2);
    const headEnd = rest.indexOf("\r\n\r\n");
    if (headEnd < 0) return { requests, end: rest.includes("\n\n") ? "refused" : "short" };
    const head = readHead(rest.slice(0, headEnd + 2));
    if (head === undefined) return { requests, end: "refused" };
    const body = readBody(rest.slice(headEnd + 4), head);
    if (body === "refused" || body === "short") return { requests, end: body };
    requests.push({ method: head.method, target: head.target, headers: head.headers, body: body.text });
    // An upgrade or a close ends what is read as requests.
    if (head.isLast) return { requests, end: "whole" };
    rest = body.rest;
  }
  return { requests, end: "whole" };
}

interface Head {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly length: number;
  readonly isChunked: boolean;
  readonly isLast: boolean;
}

function readHead(text: string): Head | undefined {
  const line = REQUEST_LINE.exec(text);
  if (line === null || line[1]!.length > 20) return undefined;
  const headers: [string, string][] = [];
  let rest = text.slice(line[0].length);
  while (rest !== "") {
    const field = FIELD_LINE.exec(rest);
    if (field === null) return undefined;
    headers.push([field[1]!, field[2]!]);
    rest = rest.slice(field[0].length);
  }
  const all = (name: string) => headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value);
  const isOld = line[3] === "0";
  const hosts = all("host");
  const lengths = all("content-length");
  const codings = all("transfer-encoding");
  const isRefused =
    headers.length > 256 ||
    hosts.length > 1 ||
    (hosts.length === 0 && !isOld) ||
    hosts.some((host) => !HOST.test(host)) ||
    lengths.length > 1 ||
    lengths.some((length) => !/^\d{1,15}$/.test(length)) ||
    codings.length > 1 ||
    codings.some((coding) => coding.toLowerCase() !== "chunked") ||
    (codings.length > 0 && (lengths.length > 0 || isOld)) ||
    all("expect").some((value) => value.toLowerCase() !== "100-continue");
  if (isRefused) return undefined;
  const options = all("connection").flatMap((value) =>
    value
      .toLowerCase()
      .split(",")
      .map((option) => option.trim()),
  );
  const isClose = options.includes("close") || (isOld && !options.includes("keep-alive"));
  return {
    method: line[1]!,
    target: line[2]!,
    headers,
    length: Number(lengths[0] ?? 0),
    isChunked: codings.length > 0,
    isLast: isClose,
  };
}

function readBody(text: string, { length, isChunked }: Head): { text: string; rest: string } | "short" | "refused" {
  if (!isChunked) return text.length < length ? "short" : { text: text.slice(0, length), rest: text.slice(length) };
  let body = "";
  for (let rest = text; ;) {
    const line = lineOf(rest);
    if (line === undefined) return "short";
    const size = CHUNK_LINE.exec(line);
    if (size === null || hasControl(size[2] ?? "")) return "refused";
    rest = rest.slice(line.length);
    const bytes = Number.parseInt(size[1]!, 16);
    if (bytes === 0) return readTrailers(rest, body);
    if (rest.length < bytes + 2) {
      // What is there of the end must be right already.
      const end = rest.slice(bytes);
      return end === "" || end === "\r" ? "short" : "refused";
    }
    if (rest.slice(bytes, bytes + 2) !== "\r\n") return "refused";
    body += rest.slice(0, bytes);
    rest = rest.slice(bytes + 2);
  }
}

function readTrailers(text: string, body: string): { text: string; rest: string } | "short" | "refused" {
  for (let rest = text; ;) {
    const line = lineOf(rest);
    if (line === undefined) return "short";
    rest = rest.slice(line.length);
    if (line === "\r\n") return { text: body, rest };
    if (!TRAILER_LINE.test(line)) return "refused";
  }
}

/** Up to and with the next line feed. */
function lineOf(text: string): string | undefined {
  const end = text.indexOf("\n");
  return end < 0 ? undefined : text.slice(0, end + 1);
}

function hasControl(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) < 0x20 && text[i] !== "\t") return true;
  return false;
}
