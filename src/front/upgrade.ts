/**
 * Upgrades: exec, attach and port-forward, over WebSocket or SPDY.
 *
 * The request is replayed byte for byte on an HTTP/1.1 connection of its own
 * to the API server, and from then on bytes go both ways untouched, each side
 * paused while the other does not read. After a refused upgrade the connection
 * is never used for anything else (CVE-2018-1002105).
 */

import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { dial } from "../uplink/dial.ts";
import type { Exchange } from "./exchange.ts";
import type { Caller } from "../callers/identify.ts";
import { reasonOf, type Upstream } from "../uplink/upstream.ts";
import { UnreachableError } from "../uplink/scope-source.ts";

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
  let socket: TLSSocket;
  try {
    const tls = parts.upstream.tlsFor(caller.credential);
    socket = await dial({ server, tls, proxy: parts.proxyFor(server) });
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
