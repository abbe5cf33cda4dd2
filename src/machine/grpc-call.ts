/**
 * One gRPC call over a unix socket: a message in, a message out.
 *
 * The runtime's HTTP/2 client costs 6 MB of memory for good, and this is one
 * request a few times an hour, so its frames are written here (RFC 9113):
 *
 *   out   preface, SETTINGS, WINDOW_UPDATE, HEADERS, DATA with END_STREAM
 *   in    SETTINGS and PING are acknowledged, DATA of stream 1 is taken;
 *         HEADERS are not read: an answer without a whole message has failed,
 *         and its trailers would only say why
 *
 * Header fields go out as literals without indexing (RFC 7541, 6.2.2), so
 * neither side keeps a table for us.
 */

import { connect } from "node:net";

/** Frame types, RFC 9113 section 6. */
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const;
const FLAG = { endStream: 1, ack: 1, endHeaders: 4 } as const;
const HEAD_BYTES = 9;
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/** SETTINGS_INITIAL_WINDOW_SIZE: the whole answer may come without our saying more. */
const INITIAL_WINDOW = 4;

/**
 * Calls a unary method.
 *
 * @param method for example "/runtime.v1.ImageService/ListImages".
 * @throws {Error} in words, or with a system's code; also when the answer is larger than `maxBytes` or late.
 */
export function callUnix(
  path: string,
  method: string,
  message: Uint8Array,
  { maxBytes, patienceMs }: { readonly maxBytes: number; readonly patienceMs: number },
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const socket = connect(path);
  const timer = setTimeout(() => reject(new Error(`no answer within ${patienceMs / 1_000} s`)), patienceMs);
  const answer = new Answer(maxBytes, (frame) => socket.write(frame), { resolve, reject });
  socket.on("connect", () => socket.write(request(method, message, maxBytes)));
  socket.on("data", (bytes: Buffer) => answer.take(bytes));
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("it hung up")));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

function request(method: string, message: Uint8Array, window: number): Buffer {
  const setting = Buffer.alloc(6);
  setting.writeUInt16BE(INITIAL_WINDOW);
  setting.writeUInt32BE(window, 2);
  const more = Buffer.alloc(4);
  more.writeUInt32BE(window);
  const fields = Buffer.concat(
    [
      [":method", "POST"],
      [":scheme", "http"],
      [":path", method],
      [":authority", "localhost"],
      ["content-type", "application/grpc"],
      ["te", "trailers"],
    ].map(([name, value]) => Buffer.concat([Buffer.of(0), literal(name!), literal(value!)])),
  );
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([
    Buffer.from(PREFACE),
    frameOf(FRAME.settings, 0, 0, setting),
    frameOf(FRAME.windowUpdate, 0, 0, more),
    frameOf(FRAME.headers, FLAG.endHeaders, 1, fields),
    frameOf(FRAME.data, FLAG.endStream, 1, Buffer.concat([head, message])),
  ]);
}

/** Not Huffman-coded, shorter than 127 bytes: a byte of length, then the text. */
function literal(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length >= 127) throw new RangeError(`a header field of ${bytes.length} bytes takes a longer length`);
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function frameOf(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Reads the frames that come back. */
class Answer {
  #rest: Buffer = Buffer.alloc(0);
  readonly #data: Buffer[] = [];
  #size = 0;

  constructor(
    private readonly maxBytes: number,
    private readonly write: (frame: Buffer) => void,
    private readonly outcome: { resolve(message: Uint8Array): void; reject(error: Error): void },
  ) {}

  take(bytes: Buffer): void {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= HEAD_BYTES) {
      const length = this.#rest.readUIntBE(0, 3);
      if (length > this.maxBytes) return this.outcome.reject(new Error("it does not speak gRPC"));
      if (this.#rest.length < HEAD_BYTES + length) return;
      const [type, flags] = [this.#rest[3]!, this.#rest[4]!];
      const payload = this.#rest.subarray(HEAD_BYTES, HEAD_BYTES + length);
      this.#rest = this.#rest.subarray(HEAD_BYTES + length);
      this.#frame(type, flags, payload);
    }
  }

  #frame(type: number, flags: number, payload: Buffer): void {
    if (type === FRAME.settings && (flags & FLAG.ack) === 0)
      this.write(frameOf(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)));
    if (type === FRAME.ping && (flags & FLAG.ack) === 0) this.write(frameOf(FRAME.ping, FLAG.ack, 0, payload));
    if (type === FRAME.reset || type === FRAME.goAway) this.outcome.reject(new Error("it refused the call"));
    if (type === FRAME.data) {
      this.#size += payload.length;
      if (this.#size > this.maxBytes) return this.outcome.reject(new Error("its answer is too long"));
      this.#data.push(Buffer.from(payload));
    }
    if ((type === FRAME.data || type === FRAME.headers) && (flags & FLAG.endStream) !== 0) this.#end();
  }

  #end(): void {
    const body = Buffer.concat(this.#data);
    if (body.length < 5 || body[0] !== 0 || body.readUInt32BE(1) !== body.length - 5)
      this.outcome.reject(new Error("it answered without a message"));
    else this.outcome.resolve(body.subarray(5));
  }
}
