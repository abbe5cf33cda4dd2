/**
 * What an HTTP/2 server sends, held against the protocol and told in its own terms.
 *
 * The server is believed in nothing: it must begin with its settings, a head
 * must come in one piece, heads and the tables behind them have bounds, and
 * frames that bring nothing are counted. What cannot be told from a fault ends
 * the connection.
 *
 * Source: RFC 9113 sections 5.5, 6 and 10.5.
 */

import {
  CODE,
  ConnectionError,
  FLAG,
  FRAME,
  FrameReader,
  MAX_PAYLOAD,
  MAX_WINDOW,
  SETTING,
  unpadded,
} from "./frames.ts";
import { HeaderDecoder } from "./header-decoder.ts";
import type { HeaderField } from "./header-table.ts";

/** A head, and all its frames before they are decoded. */
export const MAX_HEAD_BYTES: number = 128 * 1024;
const MAX_HEAD_FRAMES = 32;
/** Frames that bring nothing, before somebody says that time has passed. */
const MAX_IDLE_FRAMES = 4_000;
const SETTING_BYTES = 6;
const PING_BYTES = 8;

/** Gets what has come. */
export interface InboundTaker {
  /** @param frameBytes as windows count them, with padding. */
  data(stream: number, bytes: Buffer, frameBytes: number, isEnd: boolean): void;
  fields(stream: number, fields: readonly HeaderField[], isEnd: boolean): void;
  reset(stream: number, code: number): void;
  /** A value within its bounds; then `settingsEnd`, once for all of a frame. */
  setting(id: number, value: number): void;
  settingsEnd(): void;
  ping(payload: Buffer): void;
  goAway(lastStream: number): void;
  /** @param stream 0 for the connection. @param bytes may be 0, which is a fault. */
  windowUpdate(stream: number, bytes: number): void;
}

/** Reads one connection. */
export class Inbound {
  readonly #frames = new FrameReader((type, flags, stream, payload) => this.#frame(type, flags, stream, payload));
  readonly #decoder = new HeaderDecoder();
  #hasSettings = false;
  #idleFrames = 0;
  /** A head that goes on in CONTINUATION frames. */
  #head: { readonly stream: number; readonly isEnd: boolean; readonly parts: Buffer[]; bytes: number } | undefined;

  constructor(private readonly taker: InboundTaker) {}

  /** The server has begun as it must. */
  get hasSettings(): boolean {
    return this.#hasSettings;
  }

  /** What the table of its heads costs. */
  get tableBytes(): number {
    return this.#decoder.tableBytes;
  }

  /**
   * Takes bytes, which are kept.
   *
   * @throws {ConnectionError} @throws {HpackError} when the connection must end; and what the taker throws.
   */
  push(bytes: Buffer): void {
    this.#frames.push(bytes);
  }

  /** Time has passed: idle frames are counted anew. */
  tick(): void {
    this.#idleFrames = 0;
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    const has = (flag: number) => (flags & flag) !== 0;
    this.#checkOrder(type, has(FLAG.ack), stream);
    if (type === FRAME.data ? payload.length === 0 : type !== FRAME.headers) this.#countIdle();
    switch (type) {
      case FRAME.data: {
        const bytes = unpadded(type, flags, payload);
        return this.taker.data(checked(stream), bytes, payload.length, has(FLAG.endStream));
      }
      case FRAME.headers:
        this.#head = { stream: checked(stream), isEnd: has(FLAG.endStream), parts: [], bytes: 0 };
        return this.#headPart(unpadded(type, flags, payload), has(FLAG.endHeaders));
      case FRAME.continuation:
        return this.#headPart(payload, has(FLAG.endHeaders));
      case FRAME.reset:
        return this.taker.reset(checked(stream), numberOf(payload));
      case FRAME.settings:
        return this.#settings(stream, payload, has(FLAG.ack));
      case FRAME.ping:
        if (stream !== 0) throw new ConnectionError(CODE.protocol, "a ping of a stream");
        if (payload.length !== PING_BYTES) throw new ConnectionError(CODE.frameSize, "a ping of a wrong size");
        return has(FLAG.ack) ? undefined : this.taker.ping(payload);
      case FRAME.goAway:
        if (stream !== 0) throw new ConnectionError(CODE.protocol, "a farewell of a stream");
        if (payload.length < 8) throw new ConnectionError(CODE.frameSize, "a farewell that is too short");
        return this.taker.goAway(payload.readUInt32BE(0) & MAX_WINDOW);
      case FRAME.windowUpdate:
        return this.taker.windowUpdate(stream, numberOf(payload) & MAX_WINDOW);
      case FRAME.pushPromise:
        throw new ConnectionError(CODE.protocol, "a push that was not wanted");
      // PRIORITY, and what is not known, mean nothing to us.
    }
  }

  #checkOrder(type: number, isAck: boolean, stream: number): void {
    if (!this.#hasSettings && (type !== FRAME.settings || isAck))
      throw new ConnectionError(CODE.protocol, "it does not begin with its settings");
    const goesOn = type === FRAME.continuation;
    if (goesOn !== (this.#head !== undefined) || (goesOn && stream !== this.#head!.stream))
      throw new ConnectionError(CODE.protocol, "a head in pieces that do not follow each other");
  }

  #countIdle(): void {
    if (++this.#idleFrames > MAX_IDLE_FRAMES)
      throw new ConnectionError(CODE.calm, "too many frames that bring nothing");
  }

  #headPart(part: Buffer, isLast: boolean): void {
    const head = this.#head!;
    head.parts.push(part);
    head.bytes += part.length;
    if (head.bytes > MAX_HEAD_BYTES || head.parts.length > MAX_HEAD_FRAMES)
      throw new ConnectionError(CODE.calm, "a head is too long");
    if (!isLast) return;
    this.#head = undefined;
    // Read even when nobody wants it any more: the table goes on with it.
    const block = head.parts.length === 1 ? part : Buffer.concat(head.parts);
    this.taker.fields(head.stream, this.#decoder.read(block, MAX_HEAD_BYTES), head.isEnd);
  }

  #settings(stream: number, payload: Buffer, isAck: boolean): void {
    if (stream !== 0) throw new ConnectionError(CODE.protocol, "settings of a stream");
    if (payload.length % SETTING_BYTES !== 0 || (isAck && payload.length > 0))
      throw new ConnectionError(CODE.frameSize, "settings of a wrong size");
    if (isAck) return;
    this.#hasSettings = true;
    for (let at = 0; at < payload.length; at += SETTING_BYTES) {
      const id = payload.readUInt16BE(at);
      const value = payload.readUInt32BE(at + 2);
      checkSetting(id, value);
      this.taker.setting(id, value);
    }
    this.taker.settingsEnd();
  }
}

function checkSetting(id: number, value: number): void {
  if (id === SETTING.enablePush && value !== 0) throw new ConnectionError(CODE.protocol, "a server that wants pushes");
  if (id === SETTING.initialWindowSize && value > MAX_WINDOW)
    throw new ConnectionError(CODE.flowControl, "a window that cannot be");
  if (id === SETTING.maxFrameSize && (value < MAX_PAYLOAD || value > 0xff_ffff))
    throw new ConnectionError(CODE.protocol, "a frame size that cannot be");
}

/** The first half of the streams is ours to begin; a server begins none. */
function checked(stream: number): number {
  if (stream % 2 === 0) throw new ConnectionError(CODE.protocol, "a stream of nobody");
  return stream;
}

function numberOf(payload: Buffer): number {
  if (payload.length !== 4) throw new ConnectionError(CODE.frameSize, "a frame of a wrong size");
  return payload.readUInt32BE(0);
}
