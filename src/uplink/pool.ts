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
import type { Ending } from "../base/cancel.ts";
import { Deadlines } from "../base/deadlines.ts";
import { passedThrough } from "../base/memory.ts";
import { sentInVain } from "./arrival.ts";
import { ChunkedReader, chunkOf, LAST_CHUNK } from "../http1/chunked.ts";
import { Outbox } from "../http1/outbox.ts";
import { readResponseHead, type ResponseHead } from "../http1/response-head.ts";
import { nothingArrives, type DeadSockets, type Ends, type Mortal } from "./dead-sockets.ts";
import { headText, isRead, isStream, type PoolRequest } from "./pool-request.ts";
import { RawAnswer, type AnswerFlow } from "./raw-answer.ts";
import { CONNECT_DEADLINE_MS, connectSecurely, placeOf, type Place, type SecureTarget } from "./secure-socket.ts";
import { wanBytes } from "./wan.ts";

const IDLE_MS = 30_000;
/** A connection that only listens is asked whether it is there after this long, and given up ten seconds later. */
const KEEP_ALIVE_MS = 15_000;
const MAX_IDLE = 64;
const MAX_HEAD_BYTES = 128 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);
const ALPN_HTTP_1_1 = Buffer.from("\x08http/1.1", "latin1");

/** Kept connections. */
export class Pool {
  readonly #place: Place;
  readonly #hostHeader: string;
  #idle: PoolConnection[] = [];
  #isLeft = false;
  readonly #rests: Deadlines;

  constructor(private readonly target: SecureTarget) {
    this.#rests = new Deadlines(target.clock, IDLE_MS);
    const url = new URL(target.server);
    this.#hostHeader = url.host;
    this.#place = placeOf(url);
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
  request(request: PoolRequest, isAlone = false): Promise<RawAnswer> {
    const kept = isAlone ? undefined : this.#idle.pop();
    if (kept === undefined) return this.#requestAnew(request, isAlone);
    const again = isRead(request) && !isStream(request.body) ? () => this.#requestAnew(request, false) : undefined;
    return kept.send(request, this.#hostHeader, again);
  }

  async #requestAnew(request: PoolRequest, isAlone: boolean): Promise<RawAnswer> {
    const connection = await this.#open(request.signal, isAlone);
    return connection.send(request, this.#hostHeader);
  }

  async #open(signal: Ending, isAlone: boolean): Promise<PoolConnection> {
    const { tls, clock, standing } = this.target;
    const connection = new PoolConnection(
      (free) => !isAlone && this.#keep(free),
      () => void standing?.delete(connection),
      // Those that rest have stood as long.
      () => this.#idle.splice(0).forEach((resting) => resting.close()),
    );
    standing?.add(connection);
    const cancelDeadline = clock.after(CONNECT_DEADLINE_MS, () =>
      connection.broke(new Error("no connection within 10 s")),
    );
    const onAbort = () => connection.broke(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (signal.aborted) throw signal.reason;
      const opening = connectSecurely(this.#place, tls, ALPN_HTTP_1_1, connection, HANDLERS);
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
    connection.rest(this.#rests, () => {
      const at = this.#idle.indexOf(connection);
      if (at >= 0) this.#idle.splice(at, 1);
    });
    return true;
  }
}

/** One connection; at most one request at a time. */
class PoolConnection implements Mortal {
  readonly #secured = Promise.withResolvers<void>();
  #socket: Socket<PoolConnection> | undefined;
  #outbox: Outbox | undefined;
  #onEmpty: (() => void) | undefined;
  #isClosed = false;
  /** What a request waits for: its answer's head. */
  #head: PromiseWithResolvers<RawAnswer> | undefined;
  /** Sends the request once more, should a kept connection prove dead before a byte of the answer came. */
  #again: (() => Promise<RawAnswer>) | undefined;
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
  #signal: Ending | undefined;
  #atOnce: PoolRequest["atOnce"];
  #stopListening: (() => void) | undefined;
  #endRest: (() => void) | undefined;
  readonly #flow: AnswerFlow = {
    pause: () => this.#socket?.pause(),
    resume: () => this.#socket?.resume(),
    cancel: () => this.close(),
  };

  constructor(
    private readonly onFree: (connection: PoolConnection) => boolean,
    private readonly onClosed: () => void,
    private readonly onDead: () => void,
  ) {
    this.#secured.promise.catch(() => {});
  }

  /** Resolves when TLS is done and the API server is who it must be. */
  get secured(): Promise<void> {
    return this.#secured.promise;
  }

  endDead(dead: DeadSockets): void {
    if (!dead.has(this.#socket as unknown as Ends)) return;
    this.onDead();
    this.broke(nothingArrives());
  }

  /** Waits for the next request; is closed after a while. @param onGone it is not to be used any more. */
  rest(deadlines: Deadlines, onGone: () => void): void {
    const cancel = deadlines.begin(() => this.close());
    this.#endRest = () => {
      this.#endRest = undefined;
      cancel();
      onGone();
    };
  }

  /** @param again where the request may be sent twice. */
  send(request: PoolRequest, hostHeader: string, again?: () => Promise<RawAnswer>): Promise<RawAnswer> {
    this.#endRest?.();
    const { method, signal, body } = request;
    const head = Promise.withResolvers<RawAnswer>();
    if (this.#isClosed) return again?.() ?? Promise.reject(new Error("the connection was closed"));
    this.#head = head;
    this.#again = again;
    this.#signal = signal;
    this.#atOnce = request.atOnce;
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
    wanBytes.sent += start.length + (body instanceof Uint8Array ? body.length : 0);
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
        wanBytes.sent += part.length;
        if (part.length > 0 && !this.#outbox!.write(chunkOf(part))) await this.#writable();
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
    if (isDone && error === null) {
      this.#socket?.setKeepAlive(true, KEEP_ALIVE_MS);
      this.#secured.resolve();
    } else this.broke(error ?? new Error("the TLS handshake failed"));
  }

  drained(): void {
    this.#outbox?.drain();
  }

  received(bytes: Buffer): void {
    wanBytes.received += bytes.length;
    if (this.#answer !== undefined) return this.#body(bytes);
    // Bytes that nobody asked for.
    if (this.#head === undefined) return this.close();
    this.#hasByte = true;
    const all = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    const end = all.indexOf(HEAD_END, Math.max(0, this.#unread.length - 3));
    this.#unread = EMPTY;
    if (end < 0) {
      if (all.length > MAX_HEAD_BYTES) return this.broke(new Error("the answer's head is too long"));
      this.#unread = all;
      return;
    }
    let head: ResponseHead;
    try {
      head = readResponseHead(all.toString("latin1", 0, end + 2), this.#isHeadRequest);
    } catch (error) {
      return this.broke(error as Error);
    }
    const { frame } = head;
    if (frame.kind === "length" && frame.bytes > 0 && frame.bytes === all.length - end - 4)
      return this.#arrived(head, all, end + 4);
    const rest = all.subarray(end + 4);
    if (head.status === 101) return this.broke(new Error("the API server changed the protocol unasked"));
    if (head.status < 200) return rest.length === 0 ? undefined : this.received(rest);
    this.#begin(head);
    this.#body(rest);
  }

  broke(error: Error): void {
    if (this.#isClosed) return;
    const isStale = this.#again !== undefined && !this.#hasByte && this.#signal?.aborted !== true;
    this.#finish();
    this.#secured.reject(error);
    if (isStale) this.#head?.resolve(this.#again!());
    else this.#head?.reject(sentInVain(error));
    this.#head = undefined;
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
    this.onClosed();
    this.#stopListening?.();
    this.#outbox?.close();
    this.#onEmpty?.();
    this.#endRest?.();
  }

  // ---- the answer's body ----

  #begin(head: ResponseHead): void {
    const { frame } = head;
    this.#keepsAlive = head.keepsAlive;
    this.#untilClose = frame.kind === "close";
    this.#chunked = frame.kind === "chunked" ? new ChunkedReader() : undefined;
    this.#left = frame.kind === "length" ? frame.bytes : 0;
    this.#answer = new RawAnswer(head, this.#flow);
    const waiting = this.#head!;
    this.#head = undefined;
    waiting.resolve(this.#answer);
  }

  /** Head and body came at once and nothing else: the usual small answer. */
  #arrived(head: ResponseHead, all: Buffer, bodyAt: number): void {
    const answer = new RawAnswer(head, this.#flow);
    answer.arrive(all, bodyAt);
    const waiting = this.#head!;
    this.#head = undefined;
    this.#keepsAlive = head.keepsAlive;
    this.#atOnce?.(answer);
    waiting.resolve(answer);
    this.#whole(answer, false);
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
  data(socket: Socket<PoolConnection>, bytes: Buffer) {
    passedThrough(bytes.length);
    socket.data.received(bytes);
  },
  drain: (socket: Socket<PoolConnection>) => socket.data.drained(),
  end: (socket: Socket<PoolConnection>) => socket.data.ended(),
  close: (socket: Socket<PoolConnection>) => socket.data.closed(),
  error: (socket: Socket<PoolConnection>, error: Error) => socket.data.broke(error),
  connectError: (socket: Socket<PoolConnection>, error: Error) => socket.data.broke(error),
} as Bun.SocketHandler<PoolConnection>;
