/**
 * One HTTP/2 connection to an API server: many requests at once.
 *
 *   opening -> open -> left (no new requests; ends with the last one) -> closed
 *
 * Whoever breaks the protocol loses the connection, and is told why (GOAWAY);
 * what the other end does not take in does not pile up.
 *
 * The connection's own window is opened as bytes come in, so that one slow
 * reader stops nobody else; what waits unread in all streams together has a
 * bound, and beyond it the answer that holds most breaks off.
 *
 * A connection that says nothing while answers are awaited is asked with a
 * PING: one that is held open by nobody is found within a minute.
 *
 * Source: RFC 9113.
 */

import type { Socket } from "bun";
import {
  CODE,
  ConnectionError,
  FLAG,
  FRAME,
  frameHead,
  headersFrames,
  numbersFrame,
  PREFACE,
  SETTING,
  settingsFrame,
} from "../http2/frames.ts";
import { HeaderEncoder } from "../http2/header-encoder.ts";
import type { HeaderField } from "../http2/header-table.ts";
import { HpackError } from "../http2/hpack-error.ts";
import { Inbound, MAX_HEAD_BYTES, type InboundTaker } from "../http2/inbound.ts";
import { Windows } from "../http2/windows.ts";
import { FrameOutbox } from "./frame-outbox.ts";
import { timedOut } from "./arrival.ts";
import { nothingArrives, type DeadSockets, type Ends, type Mortal } from "./dead-sockets.ts";
import { Http2Failure, Http2UnsupportedError } from "./http2-failure.ts";
import { MalformedAnswerError, requestFields } from "./http2-head.ts";
import { Http2Stream, malformed, STREAM_WINDOW, type StreamWay } from "./http2-stream.ts";
import { Http2Upload, type UploadWay } from "./http2-upload.ts";
import { isStream, type PoolRequest } from "./pool-request.ts";
import type { RawAnswer } from "./raw-answer.ts";
import { wanBytes } from "./wan.ts";

/** The connection's window; opened again as bytes come in. */
const CONNECTION_WINDOW = 1024 * 1024;
/** What may wait unread in all answers of a connection. */
const MAX_UNREAD_BYTES = 8 * 1024 * 1024;
/** As API servers allow; also what is taken for theirs before they have said it. */
const MAX_STREAMS = 100;
/** What may wait for a socket that takes nothing. */
const MAX_OUT_BYTES = 1024 * 1024;
const MAX_STREAM_ID = 0x7fff_ffff;
const SETTINGS_MS = 10_000;
/** Silence after which it is asked, and after which it is given up. */
const PING_AFTER_MS = 30_000;
const PING_MS = 15_000;
/** Without a request it is closed, before API servers and balancers do. */
const IDLE_MS = 30_000;

/** One connection. */
export class Http2Connection implements InboundTaker, Mortal, StreamWay {
  readonly #secured = Promise.withResolvers<void>();
  readonly #streams = new Map<number, Http2Stream>();
  readonly #inbound = new Inbound(this);
  readonly #encoder = new HeaderEncoder();
  readonly #windows = new Windows(CONNECTION_WINDOW);
  #socket: Socket<Http2Connection> | undefined;
  #outbox: FrameOutbox | undefined;
  #isLeft = false;
  #isClosed = false;
  #nextId = 1;
  /** Requests that wait until it is open. */
  #reserved = 0;
  #maxStreams = MAX_STREAMS;
  #unreadBytes = 0;
  /** Since when it waits: for the settings, then for a request. */
  #sinceMs: number;
  #heardMs: number;
  #pingedMs: number | undefined;

  /** @param onClosed nothing goes over it any more. */
  constructor(
    private readonly authority: string,
    private readonly nowMs: () => number,
    private readonly onClosed: (connection: Http2Connection) => void,
  ) {
    this.#sinceMs = this.#heardMs = nowMs();
    this.#secured.promise.catch(() => {});
  }

  /** Resolves when requests may be sent. */
  get secured(): Promise<void> {
    return this.#secured.promise;
  }

  /** It was used before: a failure may be that of a kept connection. */
  get isKept(): boolean {
    return this.#nextId > 1;
  }

  /** Whether another request may be sent. */
  get hasRoom(): boolean {
    if (this.#isLeft || this.#isClosed || this.#nextId > MAX_STREAM_ID) return false;
    const isFull = (this.#outbox?.waitingBytes ?? 0) > MAX_OUT_BYTES / 2;
    return !isFull && this.#streams.size + this.#reserved < this.#maxStreams;
  }

  /** Keeps room for a request that will be sent when the connection is there. @returns gives it back. */
  reserve(): () => void {
    this.#reserved++;
    return () => void this.#reserved--;
  }

  /** No more requests; it ends with those under way. */
  leaveBehind(): void {
    this.#isLeft = true;
    this.#settle();
  }

  /** Sends a request. @throws {Http2Failure} */
  send(request: PoolRequest): Promise<RawAnswer> {
    const { body, method, signal } = request;
    if (this.#isClosed || this.#isLeft || this.#nextId > MAX_STREAM_ID) {
      this.#settle();
      return Promise.reject(new Http2Failure("not-processed", "the connection was closed"));
    }
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    const stream = new Http2Stream(this.#nextId, method === "HEAD", this);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    const onAbort = () => this.#end(stream, CODE.cancel, (signal.reason as Error | undefined) ?? new Error("aborted"));
    signal.addEventListener("abort", onAbort, { once: true });
    stream.stopListening = () => signal.removeEventListener("abort", onAbort);
    const isBare = body === undefined || (!isStream(body) && body.length === 0);
    this.#outbox!.together(() => {
      this.#write(...headersFrames(stream.id, this.#encoder.write(requestFields(request, this.authority)), isBare));
      if (isBare) return;
      stream.upload = new Http2Upload(stream.id, this.#windows.initialOut, this.#uploadWay(stream));
      stream.upload.start(body);
    });
    return stream.answered.promise;
  }

  /** Looks at deadlines. */
  tick(): void {
    if (this.#isClosed) return;
    this.#inbound.tick();
    const nowMs = this.nowMs();
    if (!this.#inbound.hasSettings) {
      if (nowMs - this.#sinceMs > SETTINGS_MS) this.broke(timedOut("no HTTP/2 within 10 s"));
    } else if (this.#streams.size === 0) {
      if (nowMs - this.#sinceMs > IDLE_MS) this.leaveBehind();
    } else if (this.#pingedMs !== undefined) {
      if (nowMs - this.#pingedMs > PING_MS) this.broke(timedOut("the connection is dead: nobody answers a ping"));
    } else if (nowMs - this.#heardMs > PING_AFTER_MS) {
      this.#pingedMs = nowMs;
      this.#write(frameHead(FRAME.ping, 0, 0, 8), Buffer.alloc(8));
    }
  }

  endDead(dead: DeadSockets): void {
    if (dead.has(this.#socket as unknown as Ends)) this.broke(nothingArrives());
  }

  // ---- the socket's calls ----

  opened(socket: Socket<Http2Connection>): void {
    this.#socket = socket;
    this.#outbox = new FrameOutbox(socket, () => this.#pump());
    if (this.#isClosed) socket.terminate();
  }

  handshaken(isDone: boolean, error: Error | null): void {
    if (!isDone || error !== null) return this.broke(error ?? new Error("the TLS handshake failed"));
    if ((this.#socket as unknown as { alpnProtocol: unknown }).alpnProtocol !== "h2")
      return this.broke(new Http2UnsupportedError("the API server speaks HTTP/1.1 alone"));
    this.#sinceMs = this.#heardMs = this.nowMs();
    const settings = [
      [SETTING.enablePush, 0],
      [SETTING.initialWindowSize, STREAM_WINDOW],
      [SETTING.maxHeaderListSize, MAX_HEAD_BYTES],
    ] as const;
    this.#write(PREFACE, settingsFrame(settings), numbersFrame(FRAME.windowUpdate, 0, this.#windows.open()));
    this.#secured.resolve();
  }

  received(bytes: Buffer): void {
    if (this.#isClosed) return;
    wanBytes.received += bytes.length;
    this.#heardMs = this.nowMs();
    this.#pingedMs = undefined;
    this.#outbox!.together(() => {
      try {
        this.#inbound.push(bytes);
      } catch (error) {
        this.#giveUp(error as Error);
      }
    });
  }

  drained(): void {
    this.#outbox?.drain();
  }

  closed(): void {
    this.broke(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" }));
  }

  /** It cannot be used any more, by the reason given. */
  broke(error: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#outbox?.close();
    this.#secured.reject(error);
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.fail(new Http2Failure("connection", error.message, { cause: error }));
    this.#socket?.terminate();
    this.onClosed(this);
  }

  // ---- what came in ----

  data(id: number, bytes: Buffer, frameBytes: number, isEnd: boolean): void {
    const credit = this.#windows.received(frameBytes);
    if (credit > 0) this.#write(numbersFrame(FRAME.windowUpdate, 0, credit));
    this.#judged(this.#known(id), (stream) => {
      stream.data(bytes, frameBytes);
      if (isEnd) this.#whole(stream);
    });
    if (this.#unreadBytes > MAX_UNREAD_BYTES) this.#breakLongest();
  }

  fields(id: number, fields: readonly HeaderField[], isEnd: boolean): void {
    this.#judged(this.#known(id), (stream) => {
      stream.fields(fields, isEnd);
      if (isEnd) this.#whole(stream);
    });
  }

  reset(id: number, code: number): void {
    const kind = code === CODE.refused ? "not-processed" : "stream";
    const stream = this.#known(id);
    stream?.fail(new Http2Failure(kind, `the API server ended the request (HTTP/2 code ${code})`));
    if (stream !== undefined) this.#forget(stream);
  }

  setting(id: number, value: number): void {
    if (id === SETTING.headerTableSize) this.#encoder.resize(value);
    else if (id === SETTING.maxConcurrentStreams) this.#maxStreams = Math.min(value, MAX_STREAMS);
    else if (id === SETTING.initialWindowSize) {
      const change = this.#windows.setInitialOut(value);
      for (const { upload } of this.#streams.values()) upload?.grow(change);
    }
  }

  settingsEnd(): void {
    this.#answer(settingsFrame([]));
    this.#pump();
  }

  ping(payload: Buffer): void {
    this.#answer(Buffer.concat([frameHead(FRAME.ping, FLAG.ack, 0, payload.length), payload]));
  }

  /** It takes no more: what it has begun goes on, what it has not can go elsewhere. */
  goAway(lastStream: number): void {
    this.#isLeft = true;
    for (const stream of [...this.#streams.values()]) {
      if (stream.id <= lastStream) continue;
      stream.fail(new Http2Failure("not-processed", "the API server takes no more requests on this connection"));
      this.#streams.delete(stream.id);
    }
    this.#settle();
  }

  windowUpdate(id: number, bytes: number): void {
    if (id === 0) {
      this.#windows.growOut(bytes);
      return this.#pump();
    }
    const stream = this.#known(id);
    if (stream === undefined) return;
    if (bytes === 0) return this.#end(stream, CODE.protocol, new Http2Failure("stream", "a window opened by nothing"));
    stream.upload?.grow(bytes);
    stream.upload?.pump();
  }

  /** @returns the stream, undefined when it has ended here. @throws {ConnectionError} when it never began. */
  #known(id: number): Http2Stream | undefined {
    if (id === 0 || id >= this.#nextId) throw new ConnectionError(CODE.protocol, "a stream of nobody");
    return this.#streams.get(id);
  }

  /** An answer that is none ends its stream. */
  #judged(stream: Http2Stream | undefined, take: (stream: Http2Stream) => void): void {
    if (stream === undefined) return;
    try {
      take(stream);
    } catch (error) {
      if (!(error instanceof MalformedAnswerError)) throw error;
      this.#end(stream, CODE.protocol, malformed(error));
    }
  }

  /** The answer is whole; a request that is not has no reader any more (section 8.1). */
  #whole(stream: Http2Stream): void {
    const isSending = stream.upload !== undefined;
    stream.ended();
    if (isSending) this.#reset(stream, CODE.none);
    else this.#forget(stream);
  }

  // ---- a stream's calls ----

  credit(stream: Http2Stream, bytes: number): void {
    this.#write(numbersFrame(FRAME.windowUpdate, stream.id, bytes));
  }

  held(bytes: number): void {
    this.#unreadBytes += bytes;
  }

  cancel(stream: Http2Stream): void {
    this.#reset(stream, CODE.cancel);
  }

  #uploadWay(stream: Http2Stream): UploadWay {
    return {
      room: () => (this.#outbox?.hasRoom === true ? this.#windows.out : 0),
      write: (parts, dataBytes) => {
        this.#windows.sent(dataBytes);
        this.#write(...parts);
      },
      done: () => (stream.upload = undefined),
      broke: (error) => this.#end(stream, CODE.cancel, error),
    };
  }

  #pump(): void {
    for (const { upload } of this.#streams.values()) upload?.pump();
  }

  // ---- what goes out ----

  #write(...parts: Uint8Array[]): void {
    if (!this.#isClosed) this.#outbox?.write(...parts);
  }

  /** What the other end makes us say; one that does not read it makes us say no more. */
  #answer(frame: Uint8Array): void {
    this.#write(frame);
    if ((this.#outbox?.waitingBytes ?? 0) > MAX_OUT_BYTES)
      throw new ConnectionError(CODE.calm, "it asks, and does not read the answers");
  }

  // ---- ends ----

  /** Too much waits unread: whoever holds most is not reading. */
  #breakLongest(): void {
    let longest: Http2Stream | undefined;
    for (const stream of this.#streams.values())
      if (longest === undefined || stream.unreadBytes > longest.unreadBytes) longest = stream;
    if (longest !== undefined) this.#end(longest, CODE.cancel, new Http2Failure("stream", "the answer was not read"));
  }

  #end(stream: Http2Stream, code: number, error: Error): void {
    stream.fail(error);
    this.#reset(stream, code);
  }

  #reset(stream: Http2Stream, code: number): void {
    if (!this.#streams.has(stream.id)) return;
    this.#write(numbersFrame(FRAME.reset, stream.id, code));
    this.#forget(stream);
  }

  #forget(stream: Http2Stream): void {
    this.#streams.delete(stream.id);
    this.#settle();
  }

  #settle(): void {
    if (this.#streams.size > 0) return;
    this.#sinceMs = this.nowMs();
    if (this.#isLeft && this.#reserved === 0) this.#giveUp(new ConnectionError(CODE.none, "it was left"));
  }

  /** Says why, and ends. */
  #giveUp(error: Error): void {
    const code = error instanceof ConnectionError ? error.http2Code : CODE.internal;
    this.#write(numbersFrame(FRAME.goAway, 0, 0, error instanceof HpackError ? CODE.compression : code));
    this.#outbox?.flush();
    this.broke(error);
  }
}
