/**
 * One client's connection: requests one after another, HTTP/1.1.
 *
 *   handshake -> idle <-> head -> answering -> idle | lingering -> closed
 *                                           -> upgraded
 *
 * Nothing here waits for ever and nothing piles up: a head has a deadline and
 * a size, a body that nobody reads pauses the socket, a request that was sent
 * before the last answer left waits unread, and an answer that the client does
 * not take ends the connection after a while. `tick` is the one timer's call.
 *
 * The end of what a client sends counts as its leaving, as in Go's server.
 */

import { Outbox } from "../http1/outbox.ts";
import { HeadError, readRequestHead, type RequestHead } from "../http1/request-head.ts";
import type { Peer } from "../callers/identify.ts";
import { ClientExchange, type Exchange } from "./exchange.ts";
import { Reply, reasonPhrase, type ReplyWay } from "./reply.ts";
import { NO_BODY, RequestBody } from "./request-body.ts";
import { UpgradedStream } from "./upgraded-stream.ts";

/** The raw socket under a connection. */
export interface RawSocket {
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
  /** Sends what the kernel has taken, then the end. */
  end(): void;
  /** Ends at once. */
  terminate(): void;
  setKeepAlive(isOn: boolean, initialDelayMs: number): unknown;
}

/** What connections share. */
export interface ConnectionParts {
  /** Monotonic, ms. */
  readonly nowMs: () => number;
  /** Whether a Host header names us. */
  readonly isOurHost: (host: string) => boolean;
  readonly onRequest: (exchange: Exchange) => void;
  readonly onUpgrade: (exchange: Exchange, stream: UpgradedStream, early: Uint8Array) => void;
}

/** A head's size in bytes, from a client with a certificate of the cluster and from any other. */
const MAX_HEAD_BYTES = { known: 128 * 1024, stranger: 32 * 1024 } as const;
/** As kube-apiserver: just short of its time-out for requests. */
const HEAD_MS = 32_000;
const HANDSHAKE_MS = 10_000;
/** A little longer than client-go keeps an idle connection, so that it is the client who closes. */
const IDLE_MS = 100_000;
/** A reader waits for the body's next byte. */
const BODY_STALL_MS = 60_000;
/** The client takes nothing of what was written. */
const WRITE_STALL_MS = 300_000;
const LAST_WRITE_STALL_MS = 30_000;
/** After an answer that came before its request's end: so much is read and dropped, so that the client gets to read. */
const LINGER_MS = 2_000;
const LINGER_BYTES = 256 * 1024;

const HEAD_END = Buffer.from("\r\n\r\n");
const BARE_END = Buffer.from("\n\n");
const CONTINUE = Buffer.from("HTTP/1.1 100 Continue\r\n\r\n");

/** One accepted connection. */
export class Connection {
  #state: "handshake" | "idle" | "head" | "answering" | "lingering" | "upgraded" | "closed" = "handshake";
  #sinceMs: number;
  #peer: Peer | undefined;
  /** Bytes that nobody has read yet: part of a head, or requests sent ahead. */
  #unread: Buffer = EMPTY;
  #scanned = 0;
  #body: RequestBody | undefined;
  #reply: Reply | undefined;
  #exchange: ClientExchange | undefined;
  #upgraded: UpgradedStream | undefined;
  #keepsAlive = true;
  #endsWhenEmpty = false;
  #lingered = 0;
  #movedMs: number;
  readonly #outbox: Outbox;
  /** One answer follows another: what they need of their connection is the same. */
  readonly #way: ReplyWay = {
    write: (bytes) => this.#write(bytes),
    isWritable: () => this.#outbox.isEmpty,
    done: () => this.#answered(),
    breakOff: () => this.terminate(),
    keepsAlive: () => this.#keepsAlive && this.#body?.isWhole === true,
  };

  constructor(
    private readonly socket: RawSocket,
    private readonly parts: ConnectionParts,
    private readonly onClosed: (connection: Connection) => void,
  ) {
    this.#sinceMs = this.#movedMs = parts.nowMs();
    this.#outbox = new Outbox(socket, () => this.#emptied());
  }

  /** No request is under way: it may be closed to make room. */
  get isIdle(): boolean {
    return this.#state === "handshake" || this.#state === "idle" || this.#state === "head";
  }

  /** Since when it stands as it stands, by the monotonic clock. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** A trusted CA signed its client's certificate. */
  get isKnown(): boolean {
    return this.#peer?.authorized === true;
  }

  /** The client's certificate, DER; undefined without one. */
  get certificate(): Uint8Array | undefined {
    return this.#peer?.getPeerCertificate()?.raw;
  }

  /** The TLS handshake is over. */
  secured(peer: Peer): void {
    this.#peer = peer;
    this.#enter("idle");
  }

  /** Bytes came, which are ours from now on. */
  received(bytes: Buffer): void {
    if (this.#state === "closed") return;
    if (this.#upgraded !== undefined) return this.#upgraded.received(bytes);
    if (this.#state === "lingering") return this.#linger(bytes.length);
    let rest = bytes;
    if (this.#body !== undefined && !this.#body.isWhole) {
      rest = this.#feed(this.#body, bytes);
      if (rest.length === 0) return;
    }
    if (this.#state === "answering") return this.#keep(rest);
    this.#read(rest);
  }

  /** The socket takes bytes again. */
  drained(): void {
    this.#movedMs = this.parts.nowMs();
    this.#outbox.drain();
  }

  /** The client sends no more, or the connection is gone. */
  ended(): void {
    if (this.#state === "closed") return;
    if (this.#upgraded !== undefined) return this.#upgraded.ended();
    this.terminate();
  }

  /** The connection is gone. */
  closed(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#outbox.close();
    this.#body?.fail(new Error("client went away"));
    this.#exchange?.leave();
    this.#reply?.drained();
    this.#upgraded?.gone();
    this.onClosed(this);
  }

  /** Ends it at once. */
  terminate(): void {
    if (this.#state === "closed") return;
    this.socket.terminate();
    this.closed();
  }

  /** Ends it after the present answer; at once when there is none. */
  retire(): void {
    this.#keepsAlive = false;
    if (this.isIdle) this.terminate();
  }

  /** Looks at the deadlines. */
  tick(nowMs: number): void {
    const inState = nowMs - this.#sinceMs;
    const unmoved = this.#outbox.isEmpty ? 0 : nowMs - this.#movedMs;
    const isOver =
      (this.#state === "handshake" && inState > HANDSHAKE_MS) ||
      (this.#state === "head" && inState > HEAD_MS) ||
      (this.#state === "idle" && inState > IDLE_MS) ||
      (this.#state === "lingering" && inState > LINGER_MS) ||
      (this.#body?.isAwaited === true && nowMs - this.#movedMs > BODY_STALL_MS) ||
      unmoved > (this.#endsWhenEmpty ? LAST_WRITE_STALL_MS : WRITE_STALL_MS);
    if (isOver) this.terminate();
  }

  #enter(state: "idle" | "head" | "answering" | "lingering" | "upgraded"): void {
    this.#state = state;
    this.#sinceMs = this.#movedMs = this.parts.nowMs();
  }

  // ---- reading ----

  #read(bytes: Buffer): void {
    const all = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    this.#unread = EMPTY;
    // A client may send one empty line before a request (RFC 9112 section 2.2).
    const start = all[0] === 0x0d && all[1] === 0x0a ? 2 : 0;
    const end = all.indexOf(HEAD_END, Math.max(start, this.#scanned - 3));
    const bound = this.isKnown ? MAX_HEAD_BYTES.known : MAX_HEAD_BYTES.stranger;
    if (end > bound || (end < 0 && all.length > bound)) return this.#refuse(new HeadError(431, "head too long"));
    if (end < 0) {
      if (all.includes(BARE_END, Math.max(0, this.#scanned - 1)))
        return this.#refuse(new HeadError(400, "lines end with CRLF"));
      this.#scanned = all.length;
      this.#unread = all;
      if (this.#state !== "head") this.#enter("head");
      return;
    }
    this.#scanned = 0;
    let head: RequestHead;
    try {
      head = readRequestHead(all.toString("latin1", start, end + 2));
      if (head.minor === 1 && !this.parts.isOurHost(head.block.byName.get("host")!))
        throw new HeadError(421, "this host is not served here");
    } catch (error) {
      return this.#refuse(error);
    }
    this.#begin(head, all.subarray(end + 4));
  }

  #begin(head: RequestHead, rest: Buffer): void {
    const { block, minor } = head;
    this.#enter("answering");
    this.#keepsAlive = block.keepAlive ?? minor === 1;
    if (block.isUpgrade && minor === 1 && block.length <= 0 && !block.isChunked) return this.#upgrade(head, rest);
    const hasBody = block.isChunked || block.length > 0;
    const body = hasBody ? this.#bodyOf(head) : NO_BODY;
    this.#body = body;
    const unread = hasBody ? this.#feed(body, rest) : rest;
    if ((this.#state as string) === "closed") return;
    if (unread.length > 0) this.#keep(unread);
    const reply = new Reply(this.#way, { isHead: head.method === "HEAD", isOld: minor === 0 });
    this.#reply = reply;
    const exchange = new ClientExchange(head, this.#peer!, body, reply);
    this.#exchange = exchange;
    this.parts.onRequest(exchange);
  }

  #bodyOf({ block, minor }: RequestHead): RequestBody {
    const body: RequestBody = new RequestBody(block, {
      pause: () => this.socket.pause(),
      resume: () => this.socket.resume(),
      begin: () => block.expectsContinue && minor === 1 && !body.isWhole && this.#outbox.write(CONTINUE),
    });
    return body;
  }

  #upgrade(head: RequestHead, early: Buffer): void {
    this.#enter("upgraded");
    const stream = new UpgradedStream(
      this.socket,
      (bytes) => this.#write(bytes),
      () => this.terminate(),
    );
    this.#upgraded = stream;
    const reply = new Reply(NOWHERE, { isHead: false, isOld: false });
    const exchange = new ClientExchange(head, this.#peer!, NO_BODY, reply);
    this.#exchange = exchange;
    this.parts.onUpgrade(exchange, stream, Buffer.from(early));
  }

  /** @returns what is not the body's. */
  #feed(body: RequestBody, bytes: Buffer): Buffer {
    this.#movedMs = this.parts.nowMs();
    try {
      return bytes.subarray(body.push(bytes));
    } catch (error) {
      // Where the body ends is not known any more, so nothing behind it can be read.
      body.fail(error as Error);
      this.terminate();
      return EMPTY;
    }
  }

  /** Sent ahead of the last answer's end: waits, and more than one head's worth is not taken from the socket. */
  #keep(bytes: Buffer): void {
    this.#unread = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    if (this.#unread.length > MAX_HEAD_BYTES.stranger) this.socket.pause();
  }

  /** What cannot be read is answered as Go's server does, and the connection ends: where the next request would begin is not known. */
  #refuse(error: unknown): void {
    const { status, message } = error instanceof HeadError ? error : new HeadError(400, "malformed request");
    const text = `${status} ${reasonPhrase(status)}: ${message}`;
    this.#write(
      Buffer.from(
        `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
        "latin1",
      ),
    );
    this.#enter("lingering");
    this.#unread = EMPTY;
    this.#endWhenEmpty();
  }

  // ---- writing ----

  #write(bytes: Uint8Array): boolean {
    if (this.#outbox.isEmpty) this.#movedMs = this.parts.nowMs();
    return this.#outbox.write(bytes);
  }

  #emptied(): void {
    if (this.#upgraded !== undefined) this.#upgraded.drained();
    else if (this.#endsWhenEmpty) this.#endWhenEmpty();
    else if (this.#state === "idle") this.#next();
    else this.#reply?.drained();
  }

  #answered(): void {
    if (this.#state !== "answering") return;
    const body = this.#body!;
    this.#body = this.#reply = this.#exchange = undefined;
    if (!body.isWhole) {
      body.discard();
      this.socket.resume();
      this.#enter("lingering");
      return;
    }
    if (!this.#keepsAlive) {
      this.#enter("lingering");
      return this.#endWhenEmpty();
    }
    this.#enter("idle");
    // Not from within the last answer's own call, and not before its bytes have left.
    if (this.#unread.length > 0 && this.#outbox.isEmpty) queueMicrotask(() => this.#next());
  }

  #next(): void {
    if (this.#state !== "idle" || this.#unread.length === 0) return;
    const unread = this.#unread;
    this.#unread = EMPTY;
    this.socket.resume();
    this.#read(unread);
  }

  #endWhenEmpty(): void {
    this.#endsWhenEmpty = true;
    if (this.#outbox.isEmpty) this.socket.end();
  }

  #linger(size: number): void {
    this.#lingered += size;
    if (this.#lingered > LINGER_BYTES) this.terminate();
  }
}

const EMPTY = Buffer.alloc(0);
/** An upgraded connection has no answer of its own: what is said goes through its stream. */
const NOWHERE: ReplyWay = {
  write: () => false,
  isWritable: () => true,
  done() {},
  breakOff() {},
  keepsAlive: () => false,
};
