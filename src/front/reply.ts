/**
 * The answer to one request, as HTTP/1.1 says it.
 *
 * The head waits for the first bytes of the body, so that a small answer is
 * one write; `flushHeaders` sends it at once, for a watch that has nothing to
 * say yet. An answer without a length goes out in chunks, to HTTP/1.0 clients
 * until the connection ends.
 */

import { chunkOf, LAST_CHUNK } from "../http1/chunked.ts";
import type { PlainAnswer } from "../http1/response-head.ts";

/** What an answer needs of its connection. */
export interface ReplyWay {
  /** @returns false when the client does not keep up. */
  write(bytes: Uint8Array): boolean;
  /** Nothing waits in the socket's queue. */
  isWritable(): boolean;
  /** The answer is complete. */
  done(): void;
  /** Ends the connection at once, so that the client sees the answer is not whole. */
  breakOff(): void;
  /** Whether another request may follow; decided anew until the head is out. */
  keepsAlive(): boolean;
}

/** How the request wants to be answered. */
export interface ReplyTerms {
  readonly isHead: boolean;
  /** HTTP/1.0: no chunks. */
  readonly isOld: boolean;
}

/** Header values as they are handed in. */
export type ReplyHeaders = Readonly<Record<string, string | number | readonly string[]>>;

/** What changes a body as it goes by. */
export interface BodyEditor {
  /** @returns what can go on by now. */
  push(bytes: Uint8Array): Uint8Array[];
  /** @returns the rest. */
  end(): Uint8Array[];
}

/** Bodies up to this size leave in one piece with their head. */
const ONE_PIECE_BYTES = 64 * 1024;

/** One answer. */
export class Reply {
  #head: string | undefined;
  #isChunked = false;
  #hasBody = true;
  #isFramed = false;
  #isDestroyed = false;
  #editor: BodyEditor | undefined;
  #drains: Set<() => void> | undefined;
  #once: Set<() => void> | undefined;

  /** As sent, or as it will be. */
  statusCode = 200;
  /** The head was handed in; it cannot be changed any more. */
  headersSent = false;
  /** `end` was called. */
  writableEnded = false;
  /** Bytes handed in so far, head and frames included. */
  sentBytes = 0;

  constructor(
    private readonly way: ReplyWay,
    private readonly terms: ReplyTerms,
  ) {}

  /** Whether to wait for "drain" before writing on. */
  get writableNeedDrain(): boolean {
    return !this.#isDestroyed && !this.way.isWritable();
  }

  /** From now on the body goes through there; its length is then not known beforehand. */
  edit(editor: BodyEditor): void {
    this.#editor = editor;
  }

  /** Whether the body is changed on its way: then it may not be passed as it came. */
  get isEdited(): boolean {
    return this.#editor !== undefined;
  }

  /** Sets the head; it leaves with the first bytes, or at `flushHeaders`. @throws {Error} when it was set already. */
  writeHead(status: number, headers: ReplyHeaders = {}): void {
    if (this.headersSent) throw new Error("Cannot set an answer's head twice");
    this.headersSent = true;
    this.statusCode = status;
    this.#hasBody = !this.terms.isHead && status >= 200 && status !== 204 && status !== 304;
    this.#head = headText(status, headers, (lower) => {
      if (lower === "content-length") {
        if (this.#editor !== undefined && this.#hasBody) return false;
        this.#isFramed = true;
      }
      return lower !== "connection" && lower !== "transfer-encoding";
    });
  }

  /** The whole answer as it came, in one piece. @throws {Error} when a head was set already, or the body is edited. */
  pass({ status, bytes, headEnd }: PlainAnswer): void {
    if (this.headersSent) throw new Error("Cannot set an answer's head twice");
    if (this.isEdited) throw new Error("Cannot pass an answer as it came: its body is edited");
    this.headersSent = this.writableEnded = true;
    this.statusCode = status;
    this.sentBytes = bytes.length;
    const keepsAlive = this.way.keepsAlive();
    if (keepsAlive && !this.terms.isOld) this.way.write(bytes);
    else {
      const option = keepsAlive ? KEEP_ALIVE : CLOSE;
      this.way.write(Buffer.concat([bytes.subarray(0, headEnd), option, bytes.subarray(headEnd)]));
    }
    this.way.done();
  }

  /** Sends the head now. */
  flushHeaders(): void {
    if (this.#head !== undefined) this.way.write(this.#headBytes());
  }

  /** @returns false when the client does not keep up: wait for "drain". */
  write(given: Uint8Array): boolean {
    if (!this.headersSent) this.writeHead(200);
    const bytes = this.#editor === undefined ? given : Buffer.concat(this.#editor.push(given));
    // An empty chunk would end the answer.
    if (bytes.length === 0 && given.length > 0) return this.way.isWritable();
    const head = this.#head === undefined ? undefined : this.#headBytes();
    const body = !this.#hasBody ? EMPTY : this.#isChunked ? chunkOf(bytes) : bytes;
    return this.#send(head, body);
  }

  /** Ends the answer, after these bytes. */
  end(bytes: Uint8Array | string = EMPTY): void {
    if (this.writableEnded) return;
    if (!this.headersSent) this.writeHead(200);
    const given = typeof bytes === "string" ? Buffer.from(bytes) : bytes;
    const editor = this.#editor;
    const last = editor === undefined ? given : Buffer.concat([...editor.push(given), ...editor.end()]);
    this.writableEnded = true;
    const head = this.#head === undefined ? undefined : this.#headBytes(last.length);
    const body = !this.#hasBody ? EMPTY : this.#isChunked ? Buffer.concat([chunkOf(last), LAST_CHUNK]) : last;
    this.#send(head, body);
    this.way.done();
  }

  /** Breaks the answer off: a reset, never a clean end. */
  destroy(_error?: Error): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.way.breakOff();
  }

  on(_event: "drain", listener: () => void): void {
    (this.#drains ??= new Set()).add(listener);
  }

  once(_event: "drain", listener: () => void): void {
    (this.#once ??= new Set()).add(listener);
  }

  off(_event: "drain", listener: () => void): void {
    this.#drains?.delete(listener);
    this.#once?.delete(listener);
  }

  /** For the connection: everything that waited has gone. */
  drained(): void {
    const once = this.#once;
    this.#once = undefined;
    for (const listener of [...(once ?? []), ...(this.#drains ?? [])]) listener();
  }

  /** A small answer is one write; a long one is not copied for its head's sake. */
  #send(head: Uint8Array | undefined, body: Uint8Array): boolean {
    this.sentBytes += body.length + (head?.length ?? 0);
    if (head === undefined) return body.length === 0 ? this.way.isWritable() : this.way.write(body);
    if (body.length <= ONE_PIECE_BYTES) return this.way.write(Buffer.concat([head, body]));
    this.way.write(head);
    return this.way.write(body);
  }

  /** @param length of the whole body, when it is known now. */
  #headBytes(length?: number): Uint8Array {
    let head = this.#head!;
    this.#head = undefined;
    if (!this.#isFramed && this.#hasBody) {
      if (length !== undefined) head += `Content-Length: ${length}\r\n`;
      else if (!this.terms.isOld) {
        this.#isChunked = true;
        head += "Transfer-Encoding: chunked\r\n";
      }
    }
    const isOpenEnded = this.#hasBody && !this.#isFramed && length === undefined && this.terms.isOld;
    if (isOpenEnded || !this.way.keepsAlive()) head += "Connection: close\r\n";
    else if (this.terms.isOld) head += "Connection: keep-alive\r\n";
    return Buffer.from(`${head}\r\n`, "latin1");
  }
}

const EMPTY = new Uint8Array(0);
const KEEP_ALIVE = Buffer.from("Connection: keep-alive\r\n");
const CLOSE = Buffer.from("Connection: close\r\n");

/** Status line and header lines, without the empty one. @throws {TypeError} for a value that would begin a line of its own. */
function headText(status: number, headers: ReplyHeaders, isKept: (lowerName: string) => boolean): string {
  let text = `HTTP/1.1 ${status} ${REASONS[status] ?? "Status"}\r\n`;
  let hasDate = false;
  for (const name in headers) {
    const lower = name.toLowerCase();
    if (lower === "date") hasDate = true;
    if (!isKept(lower)) continue;
    const value = headers[name]!;
    for (const one of Array.isArray(value) ? (value as readonly string[]) : [String(value)]) {
      if (one.includes("\n") || one.includes("\r"))
        throw new TypeError(`Cannot send header "${name}": it has a line end`);
      text += `${name}: ${one}\r\n`;
    }
  }
  return hasDate ? text : `${text}Date: ${httpDate()}\r\n`;
}

let dateText = "";
let dateSecond = 0;

/** The date as HTTP writes it, made once a second. */
function httpDate(): string {
  const second = Math.floor(Date.now() / 1_000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(second * 1_000).toUTCString();
  }
  return dateText;
}

/** As Go's net/http names them. */
const REASONS: Readonly<Record<number, string>> = {
  100: "Continue",
  101: "Switching Protocols",
  200: "OK",
  201: "Created",
  202: "Accepted",
  204: "No Content",
  206: "Partial Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  408: "Request Timeout",
  409: "Conflict",
  410: "Gone",
  411: "Length Required",
  412: "Precondition Failed",
  413: "Request Entity Too Large",
  414: "Request URI Too Long",
  415: "Unsupported Media Type",
  416: "Requested Range Not Satisfiable",
  417: "Expectation Failed",
  421: "Misdirected Request",
  422: "Unprocessable Entity",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};

/** The reason phrase of a status. */
export function reasonPhrase(status: number): string {
  return REASONS[status] ?? "Status";
}
