/**
 * Connections to one API server with one credential: HTTP/1.1, kept.
 *
 * One request at a time on a connection, byte for byte as it was handed in. A
 * read whose kept connection proves dead before a byte of the answer is sent
 * once more, on a new one; a write never is, for the API server may have had
 * it. What came after an answer's end, or an answer nobody asked for, ends the
 * connection.
 *
 * Idle connections are closed after half a minute, before API servers and
 * balancers do (a minute at least), so that hardly a write meets one that its
 * other end is just closing.
 */

import type { Socket } from "bun";
import { isIP } from "node:net";
import type { Clock } from "../base/clock.ts";
import { passedThrough } from "../base/memory.ts";
import { ChunkedReader, chunkOf, LAST_CHUNK } from "../http1/chunked.ts";
import { Outbox } from "../http1/outbox.ts";
import { readResponseHead, type ResponseHead } from "../http1/response-head.ts";
import { RawAnswer } from "./raw-answer.ts";
import type { TlsMaterial } from "./upstream.ts";

/** A request as it goes out. */
export interface PoolRequest {
  readonly method: string;
  readonly target: string;
  /** As they are to be sent, without Host and what frames the body; a name that is there twice is sent twice. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
}

/** Where a pool's connections lead. */
export interface PoolTarget {
  /** https://HOST:PORT */
  readonly server: string;
  readonly tls: TlsMaterial;
  readonly clock: Clock;
}

const CONNECT_DEADLINE_MS = 10_000;
const IDLE_MS = 30_000;
const MAX_IDLE = 64;
const MAX_HEAD_BYTES = 128 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);
const ALPN_HTTP_1_1 = Buffer.from("\x08http/1.1", "latin1");
const TLS_1_2 = 0x0303;

/** Kept connections. */
export class Pool {
  readonly #place: { readonly host: string; readonly port: number };
  readonly #hostHeader: string;
  #idle: PoolConnection[] = [];
  #isLeft = false;

  constructor(private readonly target: PoolTarget) {
    const url = new URL(target.server);
    this.#hostHeader = url.host;
    this.#place = {
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? 443 : Number(url.port),
    };
  }

  /** No connection serves another request; those at work end with their answer. */
  leaveBehind(): void {
    this.#isLeft = true;
    for (const connection of this.#idle.splice(0)) connection.close();
  }

  /**
   * Sends a request and resolves with the answer's head; the body streams.
   *
   * @param isAlone on a new connection, closed afterwards.
   * @throws {Error} when there was no head, or the signal aborted.
   */
  async request(request: PoolRequest, isAlone = false): Promise<RawAnswer> {
    const kept = isAlone ? undefined : this.#idle.pop();
    if (kept !== undefined) {
      try {
        return await kept.send(request, this.#hostHeader);
      } catch (error) {
        const isRead = request.method === "GET" || request.method === "HEAD";
        const mayRepeat = isRead && !isStream(request.body) && !request.signal.aborted;
        if (!mayRepeat || !(error instanceof ConnectionGoneError)) throw error;
      }
    }
    const connection = await this.#open(request.signal, isAlone);
    return connection.send(request, this.#hostHeader);
  }

  async #open(signal: AbortSignal, isAlone: boolean): Promise<PoolConnection> {
    const { tls, clock } = this.target;
    const { host, port } = this.#place;
    const serverName = tls.serverName ?? (isIP(host) === 0 ? host : undefined);
    const connection = new PoolConnection(clock, (free) => !isAlone && this.#keep(free));
    const cancelDeadline = clock.after(CONNECT_DEADLINE_MS, () =>
      connection.broke(new Error("no connection within 10 s")),
    );
    const onAbort = () => connection.broke(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      const opening = Bun.connect<PoolConnection>({
        hostname: host,
        port,
        data: connection,
        socket: HANDLERS,
        tls: {
          ca: tls.ca,
          ...(tls.cert === undefined ? {} : { cert: tls.cert, key: tls.key }),
          ...(serverName === undefined ? {} : { serverName }),
          minVersion: TLS_1_2,
          ALPNProtocols: ALPN_HTTP_1_1,
          rejectUnauthorized: true,
        } as Bun.TLSOptions,
      });
      opening.catch((error: Error) => connection.broke(error));
      await connection.secured;
      return connection;
    } finally {
      cancelDeadline();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #keep(connection: PoolConnection): boolean {
    if (this.#isLeft || this.#idle.length >= MAX_IDLE) return false;
    this.#idle.push(connection);
    connection.rest(IDLE_MS, () => {
      const at = this.#idle.indexOf(connection);
      if (at >= 0) this.#idle.splice(at, 1);
    });
    return true;
  }
}

/** A kept connection was closed before a byte of the answer came. */
class ConnectionGoneError extends Error {
  override readonly name = "ConnectionGoneError";
}

/** One connection; at most one request at a time. */
class PoolConnection {
  readonly #secured = Promise.withResolvers<void>();
  #socket: Socket<PoolConnection> | undefined;
  #outbox: Outbox | undefined;
  #onEmpty: (() => void) | undefined;
  #isClosed = false;
  #uses = 0;
  /** What a request waits for: its answer's head. */
  #head: PromiseWithResolvers<RawAnswer> | undefined;
  #isHeadRequest = false;
  #unread: Buffer = EMPTY;
  #hasByte = false;
  #answer: RawAnswer | undefined;
  #keepsAlive = true;
  #left = 0;
  #chunked: ChunkedReader | undefined;
  #untilClose = false;
  /** The request's body is still on its way. */
  #isSending = false;
  #stopListening: (() => void) | undefined;
  #endRest: (() => void) | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly onFree: (connection: PoolConnection) => boolean,
  ) {
    this.#secured.promise.catch(() => {});
  }

  /** Resolves when TLS is done and the API server is who it must be. */
  get secured(): Promise<void> {
    return this.#secured.promise;
  }

  /** Waits for the next request; is closed after a while. @param onGone it is not to be used any more. */
  rest(idleMs: number, onGone: () => void): void {
    const cancel = this.clock.after(idleMs, () => this.close());
    this.#endRest = () => {
      this.#endRest = undefined;
      cancel();
      onGone();
    };
  }

  send(request: PoolRequest, hostHeader: string): Promise<RawAnswer> {
    this.#endRest?.();
    const { method, signal, body } = request;
    const head = Promise.withResolvers<RawAnswer>();
    if (this.#isClosed) return Promise.reject(new ConnectionGoneError("the connection was closed"));
    this.#head = head;
    this.#uses++;
    this.#hasByte = false;
    this.#isHeadRequest = method === "HEAD";
    const onAbort = () => this.broke((signal.reason as Error | undefined) ?? new Error("aborted"));
    if (signal.aborted) {
      onAbort();
      return head.promise;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    this.#stopListening = () => signal.removeEventListener("abort", onAbort);
    const start = Buffer.from(headText(request, hostHeader), "latin1");
    if (isStream(body)) {
      this.#outbox!.write(start);
      this.#isSending = true;
      void this.#sendBody(body);
    } else this.#outbox!.write(body === undefined || body.length === 0 ? start : Buffer.concat([start, body]));
    return head.promise;
  }

  async #sendBody(body: AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const part of body) {
        if (this.#isClosed) return;
        if (part.length > 0 && !this.#outbox!.write(chunkOf(part))) await this.#writable();
        passedThrough(part.length);
      }
      if (!this.#isClosed) this.#outbox!.write(LAST_CHUNK);
      this.#isSending = false;
    } catch (error) {
      this.broke(error as Error);
    }
  }

  async #writable(): Promise<void> {
    if (this.#outbox!.isEmpty || this.#isClosed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onEmpty = resolve;
    await promise;
  }

  // ---- the socket's calls ----

  opened(socket: Socket<PoolConnection>): void {
    this.#socket = socket;
    this.#outbox = new Outbox(socket, () => this.#onEmpty?.());
    if (this.#isClosed) socket.terminate();
  }

  handshaken(isDone: boolean, error: Error | null): void {
    if (isDone && error === null) this.#secured.resolve();
    else this.broke(error ?? new Error("the TLS handshake failed"));
  }

  drained(): void {
    this.#outbox?.drain();
  }

  received(bytes: Buffer): void {
    if (this.#answer !== undefined) return this.#body(bytes);
    // Bytes that nobody asked for.
    if (this.#head === undefined) return this.close();
    this.#hasByte = true;
    const all = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    const end = all.indexOf(HEAD_END, Math.max(0, this.#unread.length - 3));
    this.#unread = EMPTY;
    if (end < 0) {
      if (all.length > MAX_HEAD_BYTES) return this.broke(new Error("the answer's head is too long"));
      this.#unread = Buffer.from(all);
      return;
    }
    let head: ResponseHead;
    try {
      head = readResponseHead(all.toString("latin1", 0, end + 2), this.#isHeadRequest);
    } catch (error) {
      return this.broke(error as Error);
    }
    const rest = all.subarray(end + 4);
    if (head.status === 101) return this.broke(new Error("the API server changed the protocol unasked"));
    if (head.status < 200) return rest.length === 0 ? undefined : this.received(rest);
    this.#begin(head);
    this.#body(rest);
  }

  broke(error: Error): void {
    if (this.#isClosed) return;
    const isStale = this.#uses > 1 && !this.#hasByte && this.#head !== undefined;
    this.#finish();
    const failure = isStale && !isAbort(error) ? new ConnectionGoneError(error.message, { cause: error }) : error;
    this.#secured.reject(failure);
    this.#head?.reject(failure);
    this.#answer?.fail(error);
    this.#socket?.terminate();
  }

  /** The API server sends no more: the end of an answer that ends with its connection. */
  ended(): void {
    if (this.#untilClose) this.#whole(this.#answer!, false);
    else this.closed();
  }

  closed(): void {
    this.broke(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" }));
  }

  close(): void {
    if (this.#isClosed) return;
    this.#finish();
    this.#socket?.terminate();
  }

  #finish(): void {
    this.#isClosed = true;
    this.#stopListening?.();
    this.#outbox?.close();
    this.#onEmpty?.();
    this.#endRest?.();
  }

  // ---- the answer's body ----

  #begin({ status, fields, keepsAlive, frame }: ResponseHead): void {
    this.#keepsAlive = keepsAlive;
    this.#untilClose = frame.kind === "close";
    this.#chunked = frame.kind === "chunked" ? new ChunkedReader() : undefined;
    this.#left = frame.kind === "length" ? frame.bytes : 0;
    const answer = new RawAnswer(status, fields, frame.kind !== "none", {
      pause: () => this.#socket?.pause(),
      resume: () => this.#socket?.resume(),
      cancel: () => this.close(),
    });
    this.#answer = answer;
    const head = this.#head!;
    this.#head = undefined;
    head.resolve(answer);
  }

  #body(bytes: Buffer): void {
    const answer = this.#answer!;
    if (this.#untilClose) return answer.push(bytes);
    let taken: number;
    if (this.#chunked !== undefined) {
      try {
        taken = this.#chunked.push(bytes, (data) => answer.push(data));
      } catch (error) {
        return this.broke(error as Error);
      }
      if (!this.#chunked.isDone) return;
    } else {
      taken = Math.min(this.#left, bytes.length);
      this.#left -= taken;
      answer.push(bytes.subarray(0, taken));
      if (this.#left > 0) return;
    }
    this.#whole(answer, taken < bytes.length);
  }

  #whole(answer: RawAnswer, hasMore: boolean): void {
    this.#answer = undefined;
    this.#untilClose = false;
    this.#stopListening?.();
    this.#stopListening = undefined;
    answer.end();
    // An answer that came before its request was sent leaves a connection in the middle of something.
    if (hasMore || !this.#keepsAlive || this.#isSending || this.#isClosed || !this.onFree(this)) this.close();
    else this.#socket?.resume();
  }
}

const HANDLERS: Bun.SocketHandler<PoolConnection> = {
  binaryType: "buffer",
  open: (socket: Socket<PoolConnection>) => socket.data.opened(socket),
  handshake: (socket: Socket<PoolConnection>, isDone: boolean, error: Error | null) =>
    socket.data.handshaken(isDone, error),
  data: (socket: Socket<PoolConnection>, bytes: Buffer) => socket.data.received(bytes),
  drain: (socket: Socket<PoolConnection>) => socket.data.drained(),
  end: (socket: Socket<PoolConnection>) => socket.data.ended(),
  close: (socket: Socket<PoolConnection>) => socket.data.closed(),
  error: (socket: Socket<PoolConnection>, error: Error) => socket.data.broke(error),
  connectError: (socket: Socket<PoolConnection>, error: Error) => socket.data.broke(error),
} as Bun.SocketHandler<PoolConnection>;

function isStream(body: PoolRequest["body"]): body is AsyncIterable<Uint8Array> {
  return body !== undefined && !(body instanceof Uint8Array);
}

function isAbort(error: unknown): boolean {
  return (error as { name?: string } | undefined)?.name === "AbortError";
}

/** The body's frame is said outright, also for a DELETE's. */
function headText({ method, target, headers, body }: PoolRequest, hostHeader: string): string {
  let text = `${method} ${target} HTTP/1.1\r\nHost: ${hostHeader}\r\n`;
  for (const [name, value] of headers) text += `${name}: ${value}\r\n`;
  if (isStream(body)) text += "Transfer-Encoding: chunked\r\n";
  else if (body !== undefined) text += `Content-Length: ${body.length}\r\n`;
  return `${text}\r\n`;
}
