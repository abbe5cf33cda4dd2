/**
 * An HTTP/2 server that says frame for frame what a test wants, right or wrong.
 */

import * as tls from "node:tls";
import type { mintCluster } from "../../src/demo/api-server/mint.ts";
import {
  FLAG,
  FRAME,
  FrameReader,
  frameHead,
  headersFrames,
  numbersFrame,
  PREFACE,
  settingsFrame,
} from "../../src/http2/frames.ts";
import { HeaderDecoder } from "../../src/http2/header-decoder.ts";
import { HeaderEncoder } from "../../src/http2/header-encoder.ts";
import type { HeaderField } from "../../src/http2/header-table.ts";

/** A request as it came in. */
export interface FramedRequest {
  readonly id: number;
  readonly fields: ReadonlyMap<string, string>;
  readonly raw: readonly HeaderField[];
  /** What has come of its body so far. */
  body: Buffer;
  isWhole: boolean;
}

/** One connection, from the server's side. */
export class FramedConnection {
  readonly requests: FramedRequest[] = [];
  /** Frames other than HEADERS and DATA: kind, stream, payload. */
  readonly others: {
    readonly type: number;
    readonly flags: number;
    readonly stream: number;
    readonly payload: Buffer;
  }[] = [];
  readonly #encoder = new HeaderEncoder();

  constructor(
    readonly socket: tls.TLSSocket,
    /** From 0. */
    readonly number: number,
  ) {}

  /** Sends bytes as they are. */
  send(...bytes: readonly Uint8Array[]): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(bytes));
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array | string = ""): void {
    const bytes = Buffer.from(payload as string, "latin1");
    this.send(frameHead(type, flags, stream, bytes.length), bytes);
  }

  head(stream: number, fields: readonly HeaderField[], isEnd = false): void {
    this.send(...headersFrames(stream, this.#encoder.write(fields), isEnd));
  }

  data(stream: number, bytes: Uint8Array | string, isEnd = false): void {
    this.frame(FRAME.data, isEnd ? FLAG.endStream : 0, stream, bytes);
  }

  /** A whole answer. */
  answer(stream: number, text = "ok", status = "200"): void {
    this.head(stream, [
      [":status", status],
      ["content-type", "text/plain"],
    ]);
    this.data(stream, text, true);
  }

  /** Takes no more after this stream. */
  goAway(lastStream: number, code = 0): void {
    this.send(numbersFrame(FRAME.goAway, 0, lastStream, code));
  }
}

/** What the server does. */
export interface FramedScript {
  /** Sent first; default: empty settings. */
  readonly settings?: readonly (readonly [number, number])[];
  /** Says nothing at first, not even settings. */
  readonly isMute?: boolean;
  /** A request's head is here. */
  readonly onRequest?: (connection: FramedConnection, request: FramedRequest) => void;
  /** A request is here whole. */
  readonly onWhole?: (connection: FramedConnection, request: FramedRequest) => void;
  readonly alpn?: readonly string[];
}

/** Starts one on a port of the kernel's choice. */
export async function startFramedServer(cluster: ReturnType<typeof mintCluster>, script: FramedScript) {
  const { cert, key } = cluster.servingCertificate(["127.0.0.1"]);
  const connections: FramedConnection[] = [];
  const options = { cert, key, ca: cluster.ca, requestCert: true, rejectUnauthorized: false };
  const server = tls.createServer({ ...options, ALPNProtocols: [...(script.alpn ?? ["h2"])] }, (socket) => {
    socket.on("error", () => {});
    if (socket.alpnProtocol !== "h2")
      return void socket.on("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold"));
    const connection = new FramedConnection(socket, connections.length);
    connections.push(connection);
    if (script.isMute !== true) connection.send(settingsFrame(script.settings ?? []).with(4, 0) as Buffer);
    read(connection, script);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as { port: number }).port}`,
    connections,
    stop() {
      for (const { socket } of connections) socket.destroy();
      server.close();
    },
  };
}

function read(connection: FramedConnection, script: FramedScript): void {
  const decoder = new HeaderDecoder();
  let parts: Buffer[] = [];
  let isEnd = false;
  const reader = new FrameReader((type, flags, stream, payload) => {
    if (type === FRAME.data) {
      const request = connection.requests.find(({ id }) => id === stream)!;
      request.body = Buffer.concat([request.body, payload]);
      return whole(request, (flags & FLAG.endStream) !== 0);
    }
    if (type !== FRAME.headers && type !== FRAME.continuation)
      return void connection.others.push({ type, flags, stream, payload: Buffer.from(payload) });
    if (type === FRAME.headers) isEnd = (flags & FLAG.endStream) !== 0;
    parts.push(payload);
    if ((flags & FLAG.endHeaders) === 0) return;
    const raw = decoder.read(Buffer.concat(parts), 1e6);
    parts = [];
    const request = { id: stream, fields: new Map(raw), raw, body: Buffer.alloc(0), isWhole: false };
    connection.requests.push(request);
    script.onRequest?.(connection, request);
    whole(request, isEnd);
  });
  const whole = (request: FramedRequest, isLast: boolean) => {
    request.isWhole ||= isLast;
    if (isLast) script.onWhole?.(connection, request);
  };
  let seen = 0;
  connection.socket.on("data", (bytes: Buffer) => {
    const skip = Math.min(bytes.length, PREFACE.length - seen);
    seen += skip;
    reader.push(bytes.subarray(skip));
  });
}
