/**
 * WebSocket frames (RFC 6455 section 5.2), read strictly and written once.
 *
 *   byte 0   FIN 0x80 | RSV 0x70, none here | opcode 0x0f
 *   byte 1   MASK 0x80 | length; 126: two bytes of it follow, 127: eight
 *   [4]      mask key, from the client alone
 *   payload
 *
 * A tunnel's binary frames are one stream of bytes, so where a frame ends does
 * not matter and nothing is put together; text and control frames are short
 * and come whole. No extension is agreed upon: RSV bits end the connection.
 */

import { createHash, randomBytes } from "node:crypto";
import { EdgeError } from "../base/errors.ts";

/** What the other end sent is no WebSocket of ours. */
export class FrameError extends EdgeError {
  override readonly name = "FrameError";
  readonly code = "WEBSOCKET_FRAME";
}

/** Opcodes. */
const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** Of a text: more than a chain of certificates needs. */
const MAX_TEXT_BYTES = 64 * 1024;
const MAX_CONTROL_BYTES = 125;
const MAX_HEAD_BYTES = 14;
/** RFC 6455 section 1.3. */
const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const EMPTY = Buffer.alloc(0);

/** The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key. */
export function acceptOf(key: string): string {
  return createHash("sha1").update(`${key}${ACCEPT_SUFFIX}`).digest("base64");
}

/** Where frames go: a socket with its queue. */
export interface FrameSink {
  /** Takes all of it; false when it is full, and `drained` of the channel comes later. */
  write(bytes: Uint8Array): boolean;
  /** Bytes it has taken and not sent. */
  readonly waitingBytes: number;
  /** Sends what waits, then the end. */
  end(): void;
  /** Ends at once. */
  terminate(): void;
}

/** What comes. */
export interface FrameEvents {
  /** Bytes of binary frames; a view, to be copied before it is kept. */
  onData(bytes: Uint8Array): void;
  onText(text: string): void;
  /** The other end is closing, with these words. */
  onClosing(reason: string): void;
}

/** One end of a WebSocket, after the upgrade. */
export class WebSocketChannel {
  #head = Buffer.alloc(MAX_HEAD_BYTES);
  #headLength = 0;
  #opcode = 0;
  #isFragmented = false;
  #left = 0;
  #maskKey: Uint8Array | undefined;
  #maskAt = 0;
  /** Of a text or control frame. */
  #whole: Buffer = EMPTY;
  #isClosing = false;

  /** @param isClient masks what it sends, as RFC 6455 section 5.3 demands of clients alone. */
  constructor(
    private readonly isClient: boolean,
    private readonly sink: FrameSink,
    private readonly events: FrameEvents,
  ) {}

  /** Bytes that wait to be sent. */
  get waitingBytes(): number {
    return this.sink.waitingBytes;
  }

  /** Sends binary bytes, in one frame. @returns false when the socket is full; they are taken all the same. */
  send(head: Uint8Array, body: Uint8Array = EMPTY): boolean {
    return this.#write(BINARY, head, body);
  }

  /** Sends a text. */
  sendText(text: string): void {
    this.#write(TEXT, Buffer.from(text));
  }

  /** Asks for a sign of life. */
  ping(): void {
    this.#write(PING, EMPTY);
  }

  /** Says why, then ends; once. */
  close(reason: string): void {
    if (this.#isClosing) return;
    const words = Buffer.from(reason).subarray(0, MAX_CONTROL_BYTES - 2);
    // 1000: normal closure. Reasons are ours and ASCII, so that a cut leaves no half character.
    this.#write(CLOSE, Buffer.concat([Buffer.of(1000 >> 8, 1000 & 255), words]));
    this.#isClosing = true;
    this.sink.end();
  }

  /** Bytes came from the socket; they are unmasked in place. @throws {FrameError} */
  received(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#isClosing) {
      if (this.#left === 0) {
        at = this.#readHead(bytes, at);
        continue;
      }
      const part = bytes.subarray(at, at + this.#left);
      at += part.length;
      this.#left -= part.length;
      if (this.#maskKey !== undefined) {
        applyMask(part, this.#maskKey, this.#maskAt);
        this.#maskAt += part.length;
      }
      if (this.#opcode === BINARY) this.events.onData(part);
      else {
        this.#whole = Buffer.concat([this.#whole, part]);
        if (this.#left === 0) this.#take();
      }
    }
  }

  /** @returns where the payload begins, or the end of the bytes while the head is not whole. */
  #readHead(bytes: Uint8Array, from: number): number {
    let at = from;
    while (at < bytes.length) {
      this.#head[this.#headLength++] = bytes[at++]!;
      if (this.#headLength < 2) continue;
      const short = this.#head[1]! & 0x7f;
      const isMasked = (this.#head[1]! & 0x80) !== 0;
      const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
      if (this.#headLength < 2 + lengthBytes + (isMasked ? 4 : 0)) continue;
      const length =
        lengthBytes === 0
          ? short
          : lengthBytes === 2
            ? this.#head.readUInt16BE(2)
            : Number(this.#head.readBigUInt64BE(2));
      this.#headLength = 0;
      this.#begin(length, isMasked ? Buffer.from(this.#head.subarray(2 + lengthBytes, 6 + lengthBytes)) : undefined);
      return at;
    }
    return at;
  }

  #begin(length: number, maskKey: Uint8Array | undefined): void {
    const first = this.#head[0]!;
    const isLast = (first & 0x80) !== 0;
    let opcode = first & 0x0f;
    if ((first & 0x70) !== 0) throw new FrameError("a reserved bit is set, and no extension was agreed upon");
    if ((maskKey === undefined) !== this.isClient)
      throw new FrameError(this.isClient ? "the server masks" : "the client does not mask");
    if (opcode === CONTINUATION) {
      if (!this.#isFragmented) throw new FrameError("a continuation of nothing");
      opcode = BINARY;
      this.#isFragmented = !isLast;
    } else if (opcode === BINARY) {
      if (this.#isFragmented) throw new FrameError("a message within a message");
      this.#isFragmented = !isLast;
    } else {
      if (!isLast || ![TEXT, CLOSE, PING, PONG].includes(opcode) || (opcode === TEXT && this.#isFragmented))
        throw new FrameError(`a frame of opcode ${opcode} that is not understood here`);
      const most = opcode === TEXT ? MAX_TEXT_BYTES : MAX_CONTROL_BYTES;
      if (length > most) throw new FrameError(`a frame of opcode ${opcode} and ${length} bytes`);
    }
    this.#opcode = opcode;
    this.#maskKey = maskKey;
    this.#maskAt = 0;
    this.#left = length;
    if (length === 0 && opcode !== BINARY) this.#take();
  }

  /** A text or control frame is there. */
  #take(): void {
    const whole = this.#whole;
    this.#whole = EMPTY;
    if (this.#opcode === TEXT) this.events.onText(whole.toString("utf8"));
    else if (this.#opcode === PING) this.#write(PONG, whole);
    else if (this.#opcode === CLOSE) {
      this.events.onClosing(whole.subarray(2).toString("utf8"));
      this.close("");
    }
  }

  #write(opcode: number, head: Uint8Array, body: Uint8Array = EMPTY): boolean {
    if (this.#isClosing) return false;
    const length = head.length + body.length;
    const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
    const start = 2 + lengthBytes + (this.isClient ? 4 : 0);
    const frame = Buffer.allocUnsafe(start + length);
    frame[0] = 0x80 | opcode;
    frame[1] = (this.isClient ? 0x80 : 0) | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
    if (lengthBytes === 2) frame.writeUInt16BE(length, 2);
    if (lengthBytes === 8) frame.writeBigUInt64BE(BigInt(length), 2);
    frame.set(head, start);
    frame.set(body, start + head.length);
    if (this.isClient) {
      const key = nextMaskKey();
      frame.set(key, start - 4);
      applyMask(frame.subarray(start), key, 0);
    }
    return this.sink.write(frame);
  }
}

const KEYS = 256;
let keys: Buffer = EMPTY;

/** Four random bytes; drawn many at a time, since a draw costs more than a small frame. */
function nextMaskKey(): Uint8Array {
  if (keys.length < 4) keys = randomBytes(4 * KEYS);
  const key = keys.subarray(0, 4);
  keys = keys.subarray(4);
  return key;
}

/**
 * Masks or unmasks in place.
 *
 * @param at how many bytes of the frame came before these.
 */
export function applyMask(bytes: Uint8Array, key: Uint8Array, at: number): void {
  const { length, byteOffset } = bytes;
  let i = 0;
  for (; i < length && (byteOffset + i) % 4 !== 0; i++) bytes[i]! ^= key[(at + i) & 3]!;
  const words = (length - i) >>> 2;
  if (words > 0) {
    // Four at a time; both machines we build for are little-endian.
    let word = 0;
    for (let j = 3; j >= 0; j--) word = (word << 8) | key[(at + i + j) & 3]!;
    const view = new Int32Array(bytes.buffer, byteOffset + i, words);
    for (let j = 0; j < words; j++) view[j]! ^= word;
    i += words * 4;
  }
  for (; i < length; i++) bytes[i]! ^= key[(at + i) & 3]!;
}
