/**
 * A stream of a tunnel and a TCP connection, joined: bytes, ends and breaks of
 * one become those of the other. What the bytes say is nobody's business here.
 *
 * The connection may open later than the stream; what comes meanwhile waits,
 * within the stream's window. Nothing is granted to the far side before the
 * connection has taken what came.
 */

import type { Socket, SocketHandler } from "bun";
import { Outbox } from "../http1/outbox.ts";
import type { MuxStream, StreamEvents } from "./stream.ts";

/** What a pipe asks of its stream. */
export type PipeStream = Pick<MuxStream, "id" | "write" | "end" | "reset" | "resetAfterwards" | "consumed">;

/** What a pipe has carried. */
export interface PipeReport {
  readonly streamId: number;
  /** From the connection into the tunnel. */
  readonly bytesIn: number;
  /** From the tunnel into the connection. */
  readonly bytesOut: number;
  readonly tookMs: number;
  /** Why it is over: both said their last, somebody broke it off, it was idle. */
  readonly end: "ended" | "broken" | "idle" | "unreachable";
}

/** What pipes need. */
export interface PipeParts {
  readonly nowMs: () => number;
  readonly onClosed: (pipe: Pipe, report: PipeReport) => void;
  /** Nobody holds the connection's other end any more; said by whoever can see it, without it nobody can. */
  readonly isLeft?: (socket: Socket<Pipe>) => boolean;
  /** Bytes that ask for a sign of life and say nothing else: they may wait while the connection has much to say. */
  readonly isPing?: (bytes: Uint8Array) => boolean;
}

/** What came before a break has left within this time, or never. */
const PARTING_MS = 5_000;

/** So long after it last waited, what a connection has received may still be unread. */
const UNREAD_MS = 1_000;

/** Pings wait at most so long, are looked at so often, and are at most so many bytes. */
const PING_MS = 20_000;
const PING_LOOK_MS = 250;
const PING_BYTES = 4_096;

/** A joint. */
export class Pipe implements StreamEvents {
  readonly #openedMs: number;
  #movedMs: number;
  /** When the connection last waited for the stream, by the monotonic clock; it waits now. */
  #waitedMs = Number.NEGATIVE_INFINITY;
  #isWaiting = false;
  #stream: PipeStream | undefined;
  #socket: Socket<Pipe> | undefined;
  #bytesIn = 0;
  #bytesOut = 0;
  #unconsumed = 0;
  #endsWhenEmpty = false;
  /** We have said our last to the connection. */
  #isShut = false;
  /** It has said its last. */
  #hasEnded = false;
  #isSocketGone = false;
  #isStreamDone = false;
  /** Pings that wait, and since when. */
  #pings: Uint8Array[] = [];
  #pingedMs = 0;
  #pingTimer: Timer | undefined;
  /** Broken, but for what waits. */
  #isBreaking = false;
  #isClosed = false;
  readonly #outbox = new Outbox({ write: (bytes) => this.#socket?.write(bytes) ?? 0 }, () => this.#emptied());

  constructor(private readonly parts: PipeParts) {
    this.#openedMs = this.#movedMs = parts.nowMs();
  }

  /** Since when nothing has moved, by the monotonic clock. */
  get movedMs(): number {
    return this.#movedMs;
  }

  /** The connection has taken all that came from the stream. */
  get isEmpty(): boolean {
    return this.#outbox.isEmpty;
  }

  /** The stream's side. */
  joinStream(stream: PipeStream): this {
    this.#stream = stream;
    return this;
  }

  /** The connection's side is open. */
  joinSocket(socket: Socket<Pipe>): void {
    if (this.#isClosed) return void socket.terminate();
    this.#socket = socket;
    socket.data = this;
    this.#outbox.drain();
    if (this.#endsWhenEmpty) this.#endWhenEmpty();
  }

  /** Breaks it off. */
  breakOff(end: PipeReport["end"]): void {
    if (this.#isClosed) return;
    this.#stream?.reset();
    this.#close(end);
  }

  // ---- the stream ----

  onData(bytes: Uint8Array): void {
    this.#bytesOut += bytes.length;
    this.#movedMs = this.parts.nowMs();
    if (this.#holdsPing(bytes)) return;
    this.#releasePings();
    this.#give(bytes);
  }

  #give(bytes: Uint8Array): void {
    // The connection ended well and what it said last is under way: the far side will hear of it.
    if (this.#isSocketGone || this.#isLeft()) return void this.#stream?.consumed(bytes.length);
    if (this.#outbox.write(bytes)) this.#stream?.consumed(bytes.length);
    else this.#unconsumed += bytes.length;
  }

  onEnd(): void {
    this.#releasePings();
    this.#endsWhenEmpty = true;
    this.#endWhenEmpty();
  }

  onWritable(): void {
    if (this.#isWaiting) this.#waitedMs = this.parts.nowMs();
    this.#isWaiting = false;
    this.#socket?.resume();
  }

  onBroken(): void {
    if (this.#isClosed || this.#outbox.isEmpty || this.#socket === undefined) return this.#close("broken");
    // What came before the break is the connection's, if it takes it soon.
    this.#isBreaking = true;
    setTimeout(() => this.#close("broken"), PARTING_MS).unref();
  }

  onDone(): void {
    this.#isStreamDone = true;
    if (this.#isSocketGone) this.#close("ended");
  }

  // ---- the connection ----

  /** Bytes came from the connection. */
  received(bytes: Uint8Array): void {
    this.#bytesIn += bytes.length;
    this.#movedMs = this.parts.nowMs();
    if (this.#stream?.write(bytes) !== false) return;
    this.#isWaiting = true;
    this.#socket?.pause();
  }

  /** The connection takes bytes again. */
  drained(): void {
    this.#movedMs = this.parts.nowMs();
    this.#outbox.drain();
  }

  /** The connection sends no more. */
  ended(): void {
    this.#hasEnded = true;
    this.#stream?.end();
  }

  /**
   * The connection is gone. The runtime tells no end to whoever has shut his own side: gone is then ended.
   *
   * @param isReset by its other end.
   */
  closed(isReset: boolean): void {
    if (this.#isClosed || this.#isSocketGone) return;
    if (this.#isBreaking) return this.#close("broken");
    if (!this.#hasEnded && (isReset || !this.#isShut)) {
      this.#stream?.resetAfterwards();
      return this.#close("broken");
    }
    this.#isSocketGone = true;
    this.#outbox.close();
    this.#emptied();
    this.ended();
    if (this.#isStreamDone) this.#close("ended");
  }

  /** What the connection has received may still be unread. */
  get #isCongested(): boolean {
    return this.#isWaiting || this.parts.nowMs() - this.#waitedMs <= UNREAD_MS;
  }

  /**
   * Whether what comes for the connection would cost what came from it: nobody holds its other end, and its
   * last words are not all read. A byte to such an end draws a reset, and a reset discards them, here and there:
   *
   *     kubelet   writes 20 MB, closes; megabytes of it wait in the two kernels for a slow link
   *     kubectl   pings, as every five seconds
   *     kernel    resets; without this, `exec` ends early and says that it ended well
   */
  #isLeft(): boolean {
    if (this.#socket === undefined || this.parts.isLeft === undefined || !this.#isCongested) return false;
    return this.parts.isLeft(this.#socket);
  }

  /**
   * Takes a ping that may wait. Between kubelet and the container runtime is one more such connection, which
   * nobody here can look at: a ping that passes through kubelet does the same there.
   */
  #holdsPing(bytes: Uint8Array): boolean {
    if (this.#socket === undefined || !this.#isCongested || this.parts.isPing?.(bytes) !== true) return false;
    if (this.#pings.length === 0) this.#pingedMs = this.parts.nowMs();
    this.#pings.push(bytes.slice());
    this.#pingTimer ??= setInterval(() => {
      const isOld = this.parts.nowMs() - this.#pingedMs > PING_MS;
      if (isOld || !this.#isCongested) this.#releasePings();
    }, PING_LOOK_MS).unref();
    if (this.#pings.reduce((sum, one) => sum + one.length, 0) > PING_BYTES) this.#releasePings();
    return true;
  }

  #releasePings(): void {
    clearInterval(this.#pingTimer);
    this.#pingTimer = undefined;
    const pings = this.#pings;
    this.#pings = [];
    for (const ping of pings) this.#give(ping);
  }

  #emptied(): void {
    const bytes = this.#unconsumed;
    this.#unconsumed = 0;
    if (bytes > 0) this.#stream?.consumed(bytes);
    if (this.#isBreaking) this.#close("broken");
    else this.#endWhenEmpty();
  }

  #endWhenEmpty(): void {
    if (!this.#endsWhenEmpty || this.#isShut || !this.#outbox.isEmpty || this.#socket === undefined) return;
    this.#isShut = true;
    this.#socket.shutdown();
  }

  #close(end: PipeReport["end"]): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#pingTimer);
    this.#outbox.close();
    this.#socket?.terminate();
    this.parts.onClosed(this, {
      streamId: this.#stream?.id ?? 0,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      tookMs: Math.round(this.parts.nowMs() - this.#openedMs),
      end,
    });
  }
}

/** Handlers of a TCP socket whose data is its pipe. @param open is called with each new socket. */
export function pipeHandlers(open: (socket: Socket<Pipe>) => void): SocketHandler<Pipe> {
  return {
    binaryType: "buffer",
    open,
    data: (socket, bytes) => socket.data?.received(bytes),
    drain: (socket) => socket.data?.drained(),
    end: (socket) => socket.data?.ended(),
    close: (socket, error) => socket.data?.closed(error !== undefined),
    error: (socket) => socket.data?.closed(true),
  } as SocketHandler<Pipe>;
}
