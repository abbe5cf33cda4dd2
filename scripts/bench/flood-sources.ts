/**
 * The floods, each bounded in count and in time, sent from a process of its
 * own: what they cost their sender is not what they cost a client.
 *
 *   bun scripts/bench/flood-sources.ts '{"port":N,"seconds":N,"floods":[NAME]}'
 *
 * It prints how many acts it has done: requests, connections, bodies.
 *
 * The attacker has no certificate: no credential at all, a made-up token, or a
 * pod's token with the right to read. It trusts whoever answers.
 */

import * as tls from "node:tls";
import { connect as connectTcp } from "node:net";

interface Order {
  readonly port: number;
  readonly seconds: number;
  readonly floods: readonly string[];
}

const READER = "Authorization: Bearer reader\r\n";
const SLICES = "/apis/discovery.k8s.io/v1/endpointslices";
const LAST_CHUNK = Buffer.from("0\r\n\r\n");
const order = JSON.parse(process.argv[2] ?? "{}") as Order;
const endsMs = performance.now() + order.seconds * 1_000;
const isOver = () => performance.now() > endsMs;

/** What floods, by name. */
const FLOODS: Readonly<Record<string, () => Promise<void>>> = {
  "made-up tokens": () =>
    asks(16, 2_000, (n) => head("GET", "/api/v1/pods", `Authorization: Bearer ${n}${"t".repeat(30_000)}\r\n`)),
  "bodies to a slow server": () => many(8, 8, body),
  "requests nobody reads": () => many(4, 4, pipeline),
  "stalled lists under churn": () => many(32, 300, (n) => stalled(`${SLICES}?labelSelector=a!%3D${n % 8}`)),
  "an answer that unfolds": () =>
    asks(2, 4, () => head("GET", "/api/v1/namespaces/unfolds/configmaps", `${READER}Accept-Encoding: gzip\r\n`)),
  "watches with selectors": () =>
    many(32, 300, (n) => stalled(`${SLICES}?watch=true&resourceVersion=0&labelSelector=a!%3Dv${n}`, true)),
  "GETs with long queries": () =>
    asks(32, 4_000, (n) => head("GET", `/api/v1/namespaces/default/pods/p?x=${n}${"q".repeat(4_000)}`, READER)),
  "idle connections": () => many(64, 2_000, () => stalled("")),
  "lists at speed": () =>
    asks(64, 2_100, (n) => head("GET", `/api/v1/namespaces/default/pods?labelSelector=b!%3D${n}`, READER)),
  "handshakes alone": () =>
    many(32, 20_000, async () => {
      (await open()).destroy();
    }),
  "connections that say nothing": () => many(64, 2_000, silent),
};

/** How many of the floods' single acts came to their end. */
let done = 0;
const held: { destroy(): unknown }[] = [];
await Promise.all(order.floods.map((name) => FLOODS[name]!()));
process.stdout.write(`${done}\n`);
while (!isOver()) await Bun.sleep(100);
for (const one of held) one.destroy();
process.exit(0);

/** Runs `count` of them, some at a time, until time is up. */
async function many(atOnce: number, count: number, one: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async () => {
    while (next < count && !isOver())
      await one(next++).then(
        () => done++,
        () => Bun.sleep(20),
      );
  };
  await Promise.all(Array.from({ length: atOnce }, run));
}

/** Asks over kept connections and reads the answers. */
async function asks(connections: number, count: number, text: (n: number) => string): Promise<void> {
  const free: tls.TLSSocket[] = [];
  await many(connections, count, async (n) => {
    const socket = free.pop() ?? (await open());
    await answered(socket, text(n));
    if (!socket.destroyed) free.push(socket);
  });
}

/** One request and its answer, which may be of any length; a silence of a tenth of a second ends a long one. */
function answered(socket: tls.TLSSocket, text: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let timer = setTimeout(finish, order.seconds * 1_000);
  let isFirst = true;
  let left = Number.POSITIVE_INFINITY;
  function finish(): void {
    clearTimeout(timer);
    socket.removeAllListeners("data");
    socket.off("close", finish);
    resolve();
  }
  socket.on("data", (bytes: Buffer) => {
    if (isFirst) {
      const start = bytes.toString("latin1", 0, 2_048);
      const length = /content-length: *(\d+)/i.exec(start);
      if (length !== null) left = Number(length[1]) + start.indexOf("\r\n\r\n") + 4;
      isFirst = false;
    }
    left -= bytes.length;
    clearTimeout(timer);
    if (left <= 0 || bytes.subarray(-5).equals(LAST_CHUNK)) finish();
    else timer = setTimeout(finish, 1_000);
  });
  socket.once("close", finish);
  socket.write(text);
  return promise;
}

/** 200 MB, as fast as it is taken. */
async function body(): Promise<void> {
  const socket = await open();
  const size = 200 * 1024 * 1024;
  const piece = Buffer.alloc(64 * 1024, 0x20);
  socket.resume();
  socket.write(
    `POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\n${READER}Content-Type: application/json\r\nContent-Length: ${size}\r\n\r\n`,
  );
  for (let sent = 0; sent < size && !isOver() && !socket.destroyed; sent += piece.length)
    if (!socket.write(piece)) await taken(socket);
  socket.destroy();
}

/** 46,000 requests on one connection, answers unread. */
async function pipeline(): Promise<void> {
  const socket = await open();
  held.push(socket);
  socket.pause();
  const piece = Buffer.from(head("GET", "/api/v1/namespaces/default/pods", READER).repeat(100));
  for (let sent = 0; sent < 46_000 && !isOver() && !socket.destroyed; sent += 100)
    if (!socket.write(piece)) await taken(socket);
}

/** Until the socket takes bytes again, is gone, or time is up. */
async function taken(socket: tls.TLSSocket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, Math.max(0, endsMs - performance.now()));
  socket.once("drain", resolve).once("close", resolve);
  await promise;
  clearTimeout(timer);
  socket.off("drain", resolve).off("close", resolve);
}

/** A connection that asks (or asks nothing) and stays. */
async function stalled(target: string, isRead = false): Promise<void> {
  const socket = await open();
  held.push(socket);
  if (target === "") return;
  if (isRead) socket.resume();
  else socket.pause();
  socket.write(head("GET", target, READER));
}

/** No word, not even TLS's first. */
async function silent(): Promise<void> {
  const socket = connectTcp(order.port, "127.0.0.1");
  held.push(socket);
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.once("connect", resolve).once("close", resolve));
}

function open(): Promise<tls.TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  // Who floods does not care whom.
  const socket = tls.connect({ host: "127.0.0.1", port: order.port, rejectUnauthorized: false });
  socket.once("secureConnect", () => resolve(socket));
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed")));
  return promise;
}

function head(method: string, target: string, more: string): string {
  return `${method} ${target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n${more}\r\n`;
}
