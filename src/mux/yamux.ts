/**
 * Many streams over one connection, each with a window of its own: yamux, as
 * hashicorp/yamux specifies it (spec.md, version 0).
 *
 *   0 version | 1 type | 2 flags (2) | 4 stream (4) | 8 length (4)      all big-endian
 *   type   0 data, 1 window update, 2 ping, 3 go away
 *   flags  1 SYN opens, 2 ACK accepts, 4 FIN half-closes, 8 RST breaks off
 *
 * Of data nobody sends more than the receiver has granted, and nothing is
 * granted before the bytes have left on the far side: a slow reader holds up
 * its own stream and no other. What waits to be sent goes out in turns, a small
 * piece each. What a session holds in all is bounded: past the bound the stream
 * that holds most is broken off, so that stalled readers cost memory no one else
 * needs.
 *
 * A stream begins with a window of 256 KiB; where one is used up within a
 * second its reader doubles it, for links that are long and wide.
 */

import { EdgeError } from "../base/errors.ts";
import { MuxStream, type StreamEvents, type StreamParts } from "./stream.ts";

/** The other end does not keep to the protocol; the session ends. */
export class MuxError extends EdgeError {
  override readonly name = "MuxError";
  readonly code = "YAMUX";
}

/** What is under a session. */
export interface Carrier {
  /** Takes a frame whole; false: it is full, and says so by the session's `drained`. */
  send(head: Uint8Array, body?: Uint8Array): boolean;
  /** Bytes taken and not sent. */
  readonly waitingBytes: number;
  /** Ends the connection: the other end cannot be spoken with. */
  fail(error: MuxError): void;
}

/** What a session is made of. */
export interface SessionParts {
  /** Who opens streams with odd numbers; one of the two ends. */
  readonly isClient: boolean;
  readonly carrier: Carrier;
  readonly nowMs: () => number;
  /** Takes a stream the other end opens; undefined refuses it. Left out: all are refused. */
  readonly accept?: (stream: MuxStream) => StreamEvents | undefined;
  /** The other end takes no new streams. */
  readonly onGoAway?: () => void;
  /** Streams at once. */
  readonly maxStreams: number;
  /** Of all streams together, received and not taken, or not yet sent. */
  readonly maxHeldBytes: number;
}

const VERSION = 0;
const TYPE = { data: 0, window: 1, ping: 2, goAway: 3 } as const;
const FLAG = { syn: 1, ack: 2, fin: 4, rst: 8 } as const;
const HEAD_BYTES = 12;
/** A turn of a stream that sends. */
const CHUNK_BYTES = 16 * 1024;
/** Answers that the other end does not take: pongs, refusals, windows. */
const MAX_ANSWERS_BYTES = 1024 * 1024;
const EMPTY = Buffer.alloc(0);

/** One end of a session. */
export class MuxSession {
  readonly #streams = new Map<number, MuxStream>();
  readonly #ready = new Set<MuxStream>();
  readonly #streamParts: StreamParts;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headLength = 0;
  #bodyLeft = 0;
  #bodyStream: MuxStream | undefined;
  #endsAfterBody = false;
  #nextId: number;
  #held = 0;
  #isFull = false;
  #isOver = false;
  #goesAway = false;
  #isLeft = false;

  constructor(private readonly parts: SessionParts) {
    this.#nextId = parts.isClient ? 1 : 2;
    this.#streamParts = {
      nowMs: parts.nowMs,
      sendNow: (stream, bytes) => this.#sendNow(stream, bytes),
      ready: (stream) => void this.#ready.add(stream),
      end: (stream) => this.#frame(TYPE.window, stream.takeFlags() | FLAG.fin, stream.id, 0),
      reset: (stream) => {
        this.#frame(TYPE.window, FLAG.rst, stream.id, 0);
        this.#forget(stream);
      },
      grant: (stream, bytes) => this.#frame(TYPE.window, stream.takeFlags(), stream.id, bytes),
      held: (bytes) => this.#hold(bytes),
      closed: (stream) => this.#forget(stream),
      // Half of what may be held is left to windows that nobody widened.
      mayGrow: () => this.#held < this.parts.maxHeldBytes / 2,
    };
  }

  /** Streams that are open. */
  get streamCount(): number {
    return this.#streams.size;
  }

  /** Bytes held for all streams. */
  get heldBytes(): number {
    return this.#held;
  }

  /** No stream can be opened: it is over, or the other end goes away. */
  get isClosed(): boolean {
    return this.#isOver || this.#isLeft;
  }

  /**
   * Opens a stream.
   *
   * @returns undefined when there are too many, or the session is closed.
   */
  open(events: StreamEvents): MuxStream | undefined {
    if (this.isClosed || this.#streams.size >= this.parts.maxStreams || this.#nextId > 0xffff_fffd) return undefined;
    const stream = new MuxStream(this.#nextId, this.#streamParts, FLAG.syn, events);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.#frame(TYPE.window, stream.takeFlags(), stream.id, 0);
    return stream;
  }

  /** Asks the other end to open no more streams; those that are open go on. */
  goAway(): void {
    if (this.#goesAway || this.#isOver) return;
    this.#goesAway = true;
    this.#frame(TYPE.goAway, 0, 0, 0);
  }

  /** Bytes came; views are handed on. @throws {MuxError} when they cannot be understood: end the connection. */
  received(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#isOver) {
      if (this.#bodyLeft > 0) {
        const part = bytes.subarray(at, at + this.#bodyLeft);
        at += part.length;
        this.#bodyLeft -= part.length;
        this.#bodyStream?.received(part);
        if (this.#bodyLeft === 0) this.#bodyEnded();
        continue;
      }
      const missing = HEAD_BYTES - this.#headLength;
      const part = bytes.subarray(at, at + missing);
      this.#head.set(part, this.#headLength);
      this.#headLength += part.length;
      at += part.length;
      if (this.#headLength < HEAD_BYTES) return;
      this.#headLength = 0;
      this.#readHead();
    }
  }

  /** The carrier takes bytes again. */
  drained(): void {
    this.#isFull = false;
    this.#pump();
  }

  /** The connection is gone: every stream is broken. */
  over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const stream of [...this.#streams.values()]) stream.broken();
    this.#streams.clear();
    this.#ready.clear();
    this.#held = 0;
  }

  // ---- reading ----

  #readHead(): void {
    const [version, type] = this.#head;
    const flags = this.#head.readUInt16BE(2);
    const id = this.#head.readUInt32BE(4);
    const length = this.#head.readUInt32BE(8);
    if (version !== VERSION) throw new MuxError(`version ${version} is not spoken here`);
    if (type === TYPE.data || type === TYPE.window) this.#streamFrame(type, flags, id, length);
    else if (type === TYPE.ping) {
      if ((flags & FLAG.syn) !== 0) this.#frame(TYPE.ping, FLAG.ack, 0, length);
    } else if (type === TYPE.goAway) {
      this.#isLeft = true;
      this.parts.onGoAway?.();
    } else throw new MuxError(`a frame of type ${type}`);
  }

  #streamFrame(type: number, flags: number, id: number, length: number): void {
    const stream = (flags & FLAG.syn) === 0 ? this.#streams.get(id) : this.#accept(id);
    // One that was broken off here: what is still under way for it counts no more.
    if (type === TYPE.data) {
      if (stream !== undefined && !stream.admits(length)) throw new MuxError("more data than was granted");
      this.#bodyStream = stream;
      this.#bodyLeft = length;
      this.#endsAfterBody = (flags & FLAG.fin) !== 0;
    }
    if (stream === undefined) return;
    if ((flags & FLAG.rst) !== 0) {
      this.#bodyStream = undefined;
      stream.broken();
      return this.#forget(stream);
    }
    if (type === TYPE.data) {
      if (length === 0) this.#bodyEnded();
      return;
    }
    if (!stream.granted(length)) throw new MuxError("a window beyond all bounds");
    if ((flags & FLAG.fin) !== 0) stream.ended();
    this.#pump();
  }

  #bodyEnded(): void {
    const stream = this.#bodyStream;
    this.#bodyStream = undefined;
    if (this.#endsAfterBody) stream?.ended();
    this.#endsAfterBody = false;
  }

  #accept(id: number): MuxStream | undefined {
    const isTheirs = id !== 0 && id % 2 === (this.parts.isClient ? 0 : 1);
    // Numbers may come out of order: HashiCorp's own end takes one and sends it later.
    if (!isTheirs || this.#streams.has(id)) throw new MuxError(`stream ${id} cannot be opened by the other end`);
    const isRoom = this.#streams.size < this.parts.maxStreams && !this.#goesAway;
    const stream = new MuxStream(id, this.#streamParts, FLAG.ack);
    const events = isRoom ? this.parts.accept?.(stream) : undefined;
    if (events === undefined) {
      this.#frame(TYPE.window, FLAG.rst, id, 0);
      return undefined;
    }
    stream.heard(events);
    this.#streams.set(id, stream);
    this.#frame(TYPE.window, stream.takeFlags(), id, 0);
    return stream;
  }

  // ---- writing ----

  /** @returns what could not be sent now. */
  #sendNow(stream: MuxStream, bytes: Uint8Array): Uint8Array {
    let rest = bytes;
    while (rest.length > 0 && !this.#isFull && !this.#isOver && stream.sendWindow > 0) {
      const chunk = rest.subarray(0, Math.min(CHUNK_BYTES, stream.sendWindow));
      stream.sent(chunk.length);
      this.#frame(TYPE.data, stream.takeFlags(), stream.id, chunk.length, chunk);
      rest = rest.subarray(chunk.length);
    }
    return rest;
  }

  /** What waits goes out, a piece of each stream in turn. */
  #pump(): void {
    while (!this.#isFull && !this.#isOver) {
      const [stream] = this.#ready;
      if (stream === undefined) return;
      this.#ready.delete(stream);
      if (stream.sendQueued(CHUNK_BYTES)) this.#ready.add(stream);
    }
  }

  #frame(type: number, flags: number, id: number, length: number, body: Uint8Array = EMPTY): void {
    if (this.#isOver) return;
    const head = Buffer.allocUnsafe(HEAD_BYTES);
    head[0] = VERSION;
    head[1] = type;
    head.writeUInt16BE(flags, 2);
    head.writeUInt32BE(id, 4);
    head.writeUInt32BE(length, 8);
    if (!this.parts.carrier.send(head, body)) this.#isFull = true;
    if (type !== TYPE.data && this.parts.carrier.waitingBytes > MAX_ANSWERS_BYTES)
      this.parts.carrier.fail(new MuxError("the other end asks and does not read"));
  }

  #forget(stream: MuxStream): void {
    this.#streams.delete(stream.id);
    this.#ready.delete(stream);
    this.#held -= stream.letGo();
    if (this.#bodyStream === stream) this.#bodyStream = undefined;
  }

  #hold(bytes: number): void {
    this.#held += bytes;
    if (this.#held <= this.parts.maxHeldBytes) return;
    let fattest: MuxStream | undefined;
    for (const stream of this.#streams.values())
      if (fattest === undefined || stream.heldBytes > fattest.heldBytes) fattest = stream;
    if (fattest === undefined) return;
    fattest.reset();
    fattest.broken();
  }
}
