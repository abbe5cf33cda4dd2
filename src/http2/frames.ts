/**
 * Frames of HTTP/2, in and out.
 *
 *   length (3) | type (1) | flags (1) | stream (4, the first bit is nobody's) | payload
 *
 * Source: RFC 9113 sections 4 and 6.
 */

/** Kinds of frames. */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

/** Flags of frames. */
export const FLAG = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

/** What a RST_STREAM or a GOAWAY says. */
export const CODE = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const;

/** Settings that mean something to us. */
export const SETTING = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

/** What opens a connection. */
export const PREFACE: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** The window of a stream and of a connection before anything was said. */
export const DEFAULT_WINDOW = 65_535;
/** No window may grow beyond this. */
export const MAX_WINDOW = 0x7fff_ffff;
/** The largest payload, ours and theirs: we never ask for more. */
export const MAX_PAYLOAD = 16_384;
const HEAD_BYTES = 9;

/** The other end does not keep to the protocol: the connection ends, saying so. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";

  constructor(
    readonly http2Code: number,
    message: string,
  ) {
    super(`the API server broke HTTP/2: ${message}`);
  }
}

/** Gets each frame of a connection; the payload is its own. */
export type FrameTaker = (type: number, flags: number, stream: number, payload: Buffer) => void;

/** Puts frames together, from whatever pieces they come in. */
export class FrameReader {
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headBytes = 0;
  #payload: Buffer | undefined;
  #payloadBytes = 0;

  constructor(private readonly take: FrameTaker) {}

  /**
   * Takes bytes, which are kept: payloads are parts of them.
   *
   * @throws {ConnectionError} for a frame larger than we allow; and what the taker throws.
   */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#payload === undefined && this.#headBytes === 0 && bytes.length - at >= HEAD_BYTES) {
        const size = payloadBytes(bytes, at);
        if (bytes.length - at - HEAD_BYTES >= size) {
          at = this.#whole(bytes, at, size);
          continue;
        }
      }
      at = this.#part(bytes, at);
    }
  }

  #whole(bytes: Buffer, at: number, size: number): number {
    const from = at + HEAD_BYTES;
    this.take(bytes[at + 3]!, bytes[at + 4]!, streamOf(bytes, at), bytes.subarray(from, from + size));
    return from + size;
  }

  #part(bytes: Buffer, from: number): number {
    let at = from;
    if (this.#payload === undefined) {
      const copied = bytes.copy(this.#head, this.#headBytes, at, at + HEAD_BYTES - this.#headBytes);
      at += copied;
      this.#headBytes += copied;
      if (this.#headBytes < HEAD_BYTES) return at;
      this.#payload = Buffer.allocUnsafeSlow(payloadBytes(this.#head, 0));
      this.#payloadBytes = 0;
    }
    const payload = this.#payload;
    const copied = bytes.copy(payload, this.#payloadBytes, at, at + payload.length - this.#payloadBytes);
    this.#payloadBytes += copied;
    if (this.#payloadBytes < payload.length) return at + copied;
    this.#payload = undefined;
    this.#headBytes = 0;
    this.take(this.#head[3]!, this.#head[4]!, streamOf(this.#head, 0), payload);
    return at + copied;
  }
}

function payloadBytes(bytes: Buffer, at: number): number {
  const size = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
  if (size > MAX_PAYLOAD) throw new ConnectionError(CODE.frameSize, "a frame is too large");
  return size;
}

function streamOf(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at + 5) & MAX_WINDOW;
}

/** A frame's head. */
export function frameHead(type: number, flags: number, stream: number, size: number): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head.writeUIntBE(size, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return head;
}

/** A frame of numbers of four bytes each. */
export function numbersFrame(type: number, stream: number, ...numbers: readonly number[]): Buffer {
  const payload = Buffer.allocUnsafe(4 * numbers.length);
  for (const [i, number] of numbers.entries()) payload.writeUInt32BE(number, 4 * i);
  return Buffer.concat([frameHead(type, 0, stream, payload.length), payload]);
}

/** A SETTINGS frame; without settings the acknowledgement of one. */
export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const frame = [frameHead(FRAME.settings, settings.length === 0 ? FLAG.ack : 0, 0, 6 * settings.length)];
  for (const [id, value] of settings) {
    const setting = Buffer.allocUnsafe(6);
    setting.writeUInt16BE(id, 0);
    setting.writeUInt32BE(value, 2);
    frame.push(setting);
  }
  return Buffer.concat(frame);
}

/** A header block in as many frames as it needs. */
export function headersFrames(stream: number, block: Buffer, isLast: boolean): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0; at === 0 || at < block.length; at += MAX_PAYLOAD) {
    const part = block.subarray(at, at + MAX_PAYLOAD);
    const isWhole = at + MAX_PAYLOAD >= block.length;
    const flags = (isWhole ? FLAG.endHeaders : 0) | (at === 0 && isLast ? FLAG.endStream : 0);
    parts.push(frameHead(at === 0 ? FRAME.headers : FRAME.continuation, flags, stream, part.length), part);
  }
  return parts;
}

/**
 * The payload without padding, and without the priority of a HEADERS frame.
 *
 * @throws {ConnectionError} when there is more padding than payload.
 */
export function unpadded(type: number, flags: number, payload: Buffer): Buffer {
  const isPadded = (flags & FLAG.padded) !== 0;
  const from = (isPadded ? 1 : 0) + (type === FRAME.headers && (flags & FLAG.priority) !== 0 ? 5 : 0);
  const end = payload.length - (isPadded ? (payload[0] ?? 0) : 0);
  if (from > end) throw new ConnectionError(CODE.protocol, "more padding than payload");
  return payload.subarray(from, end);
}
