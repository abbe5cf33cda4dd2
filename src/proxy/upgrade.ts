/**
 * Upgrades: exec, attach and port-forward, over WebSocket or SPDY.
 *
 * The request is replayed byte for byte on an HTTP/1.1 connection of its own
 * to the API server, and from then on bytes go both ways untouched, each side
 * paused while the other does not read. After a refused upgrade the connection
 * is never used for anything else (CVE-2018-1002105).
 */

import * as net from "node:net";
import * as tls from "node:tls";
import type { Duplex } from "node:stream";
import type { Exchange } from "./exchange.ts";
import type { Caller } from "./identify.ts";
import { reasonOf, type Upstream } from "./upstream.ts";
import { UnreachableError } from "../cache/scope-source.ts";

const CONNECT_DEADLINE_MS = 10_000;

/** What tunnels need. */
export interface UpgradeParts {
  readonly upstream: Upstream;
  readonly proxyFor: (server: string) => string | undefined;
  readonly onFailure: (server: string, reason: string) => void;
}

/**
 * Opens the way to the API server and joins it with the client's socket.
 *
 * @param early bytes the client sent behind the request's head.
 * @throws {UnreachableError} before a byte was written to the client.
 */
export async function tunnelUpgrade(
  parts: UpgradeParts,
  exchange: Exchange,
  caller: Caller,
  client: Duplex,
  early: Uint8Array,
): Promise<void> {
  const { server } = parts.upstream;
  let socket: tls.TLSSocket;
  try {
    socket = await connect(parts, server, caller);
  } catch (error) {
    parts.onFailure(server, reasonOf(error));
    throw new UnreachableError(`Cannot reach the API server: ${reasonOf(error)}`, { cause: error });
  }
  const lines = [`${exchange.method} ${exchange.target} HTTP/1.1`, `Host: ${new URL(server).host}`];
  for (const [name, value] of exchange.headers) {
    const lower = name.toLowerCase();
    if (lower === "host" || lower === "authorization") continue;
    lines.push(`${name}: ${value}`);
  }
  if (caller.credential.authorization !== undefined) lines.push(`Authorization: ${caller.credential.authorization}`);
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  if (early.length > 0) socket.write(early);
  join(client, socket);
  join(socket, client);
}

/** Carries bytes one way: pauses the source while the sink does not take them, passes on the end, and ends both when one breaks. */
function join(from: Duplex, to: Duplex): void {
  from.on("data", (chunk: Uint8Array) => {
    if (to.destroyed || to.writableEnded) return;
    if (!to.write(chunk)) from.pause();
  });
  to.on("drain", () => from.resume());
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
  from.on("close", () => {
    if (!to.writableEnded) to.end();
    setTimeout(() => to.destroy(), 1_000).unref();
  });
}

async function connect({ upstream, proxyFor }: UpgradeParts, server: string, caller: Caller): Promise<tls.TLSSocket> {
  const url = new URL(server);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port === "" ? 443 : Number(url.port);
  const material = upstream.tlsFor(caller.credential);
  const proxy = proxyFor(server);
  const through = proxy === undefined ? undefined : await connectThrough(new URL(proxy), host, port);
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  const serverName = material.serverName ?? (net.isIP(host) === 0 ? host : undefined);
  const socket = tls.connect({
    ...(through === undefined ? { host, port } : { socket: through }),
    ca: material.ca,
    ...(material.cert === undefined ? {} : { cert: material.cert, key: material.key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
    ALPNProtocols: ["http/1.1"],
  });
  const deadline = setTimeout(() => socket.destroy(new Error("no answer within 10 s")), CONNECT_DEADLINE_MS);
  socket.once("secureConnect", () => resolve(socket));
  socket.once("error", reject);
  try {
    return await promise;
  } finally {
    clearTimeout(deadline);
  }
}

/** A CONNECT tunnel through an HTTP proxy. */
async function connectThrough(proxy: URL, host: string, port: number): Promise<net.Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<net.Socket>();
  const target = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const socket = net.connect({
    host: proxy.hostname.replace(/^\[|\]$/g, ""),
    port: proxy.port === "" ? 80 : Number(proxy.port),
  });
  const credentials =
    proxy.username === ""
      ? ""
      : `Proxy-Authorization: Basic ${Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString("base64")}\r\n`;
  socket.once("connect", () => socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${credentials}\r\n`));
  let head = "";
  const onData = (chunk: Buffer) => {
    head += chunk.toString("latin1");
    const end = head.indexOf("\r\n\r\n");
    if (end < 0 && head.length < 16_384) return;
    socket.off("data", onData);
    socket.pause();
    if (/^HTTP\/1\.[01] 2\d\d/.test(head)) resolve(socket);
    else reject(new Error("the HTTP proxy refused the connection"));
  };
  socket.on("data", onData);
  socket.once("error", reject);
  socket.once("close", () => reject(new Error("the HTTP proxy closed the connection")));
  return promise;
}
