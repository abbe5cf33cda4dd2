/**
 * Logs, and the upgraded connections of exec, attach and port-forward.
 *
 *   SPDY/3.1             after the 101 every byte is echoed
 *   WebSocket            v5.channel.k8s.io (and v4): a message's first byte is
 *                        its channel; what comes on 0 (stdin) goes back on 1
 *                        (stdout), other channels on themselves; closing stdin
 *                        (255, 0) or the socket ends with a Success Status on 3
 */

import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Exchange } from "./exchange.ts";
import { notFound } from "./failure.ts";
import { isTrue } from "./request.ts";
import type { World } from "./world.ts";

const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const SUBPROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"];

/** Answers pods/NAME/log: what there is, and with `follow` one more line each second. */
export function serveLog(world: World, exchange: Exchange): void {
  const { namespace, name } = exchange.info;
  if (!world.store.get("pods", `${namespace}/${name}`)) throw notFound({ group: "", resource: "pods" }, name);
  const tail = exchange.query.get("tailLines");
  const all = world.logs(namespace, name);
  const lines = tail === null ? all : all.slice(Math.max(0, all.length - Number(tail)));
  exchange.head(200, { "content-type": "text/plain" });
  for (const line of lines) exchange.write(Buffer.from(`${line}\n`));
  if (!isTrue(exchange.query.get("follow"))) return exchange.end();
  let count = 0;
  const timer = setInterval(() => exchange.write(Buffer.from(`follow ${count++}\n`)), 1000);
  timer.unref();
  exchange.response.on("close", () => clearInterval(timer));
}

/** Takes over an upgraded connection. */
export function serveUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const protocol = String(request.headers.upgrade ?? "").toLowerCase();
  if (protocol === "websocket") openWebSocket(request, socket, head);
  else if (protocol.startsWith("spdy/")) openEcho(request, socket, head);
  else socket.end("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

function openEcho(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const offered = String(request.headers["x-stream-protocol-version"] ?? "v4.channel.k8s.io")
    .split(",")[0]!
    .trim();
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${offered}\r\n\r\n`,
  );
  if (head.length > 0) socket.write(head);
  socket.pipe(socket);
}

function openWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const offered = String(request.headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((one) => one.trim());
  const chosen = SUBPROTOCOLS.find((one) => offered.includes(one));
  const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}${WEBSOCKET_GUID}`).digest("base64");
  const protocol = chosen ? `Sec-WebSocket-Protocol: ${chosen}\r\n` : "";
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${protocol}\r\n`,
  );
  let pending = head;
  const onBytes = (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    for (let frame = readFrame(pending); frame; frame = readFrame(pending)) {
      pending = pending.subarray(frame.size);
      onFrame(socket, frame);
    }
  };
  socket.on("data", onBytes);
  if (head.length > 0) onBytes(Buffer.alloc(0));
}

interface Frame {
  readonly opcode: number;
  readonly payload: Buffer;
  readonly size: number;
}

const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

function onFrame(socket: Duplex, { opcode, payload }: Frame): void {
  if (opcode === PING) socket.write(frameOf(PONG, payload));
  if (opcode === CLOSE) return void socket.end(frameOf(CLOSE, payload));
  if (opcode !== BINARY || payload.length === 0) return;
  const [channel = 0] = payload;
  if (channel === 255) {
    const success = Buffer.from(JSON.stringify({ metadata: {}, status: "Success" }));
    socket.write(frameOf(BINARY, Buffer.concat([Buffer.from([3]), success])));
    return void socket.end(frameOf(CLOSE, Buffer.from([0x03, 0xe8])));
  }
  socket.write(frameOf(BINARY, Buffer.concat([Buffer.from([channel === 0 ? 1 : channel]), payload.subarray(1)])));
}

/** RFC 6455 section 5.2; the client's payload is masked. */
function readFrame(bytes: Buffer): Frame | undefined {
  if (bytes.length < 2) return undefined;
  const short = bytes[1]! & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const maskAt = 2 + lengthBytes;
  const start = maskAt + (bytes[1]! & 0x80 ? 4 : 0);
  if (bytes.length < start) return undefined;
  const length =
    lengthBytes === 2 ? bytes.readUInt16BE(2) : lengthBytes === 8 ? Number(bytes.readBigUInt64BE(2)) : short;
  if (bytes.length < start + length) return undefined;
  const payload = Buffer.from(bytes.subarray(start, start + length));
  if (start > maskAt) for (let at = 0; at < length; at++) payload[at]! ^= bytes[maskAt + (at % 4)]!;
  return { opcode: bytes[0]! & 0x0f, payload, size: start + length };
}

function frameOf(opcode: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const header =
    length < 126 ? Buffer.from([0x80 | opcode, length]) : Buffer.from([0x80 | opcode, 126, length >> 8, length & 0xff]);
  return Buffer.concat([header, payload]);
}
