/**
 * Accept: TLS on loopback, HTTP/1.1 and HTTP/2, client certificates optional.
 *
 * Node's HTTP/2 server is the one listener of this runtime that shows the
 * client's certificate on both protocols and sends an answer's head before its
 * first byte; a watch without events would otherwise never begin.
 */

import * as http2 from "node:http2";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { EdgeError } from "../base/errors.ts";
import { exchangeOf, type Exchange } from "./exchange.ts";

/** An address cannot be listened on. */
export class ListenError extends EdgeError {
  override readonly name = "ListenError";
  readonly code = "LISTEN";
}

/** How to listen. */
export interface ListenOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly certPem: string;
  readonly keyPem: string;
  readonly clientCaPem: string;
  readonly onRequest: (exchange: Exchange) => void;
  readonly onUpgrade: (exchange: Exchange, socket: Duplex, early: Uint8Array) => void;
}

/** An open listener. */
export interface Listener {
  readonly port: number;
  /** Takes no more connections and ends the open ones. */
  stop(): void;
}

const MAX_CONNECTIONS = 2_000;
/** As Go's server: a client opens a second connection beyond it. */
const MAX_STREAMS = 250;

/**
 * Opens a listener.
 *
 * @throws {ListenError} naming the address when it is taken or not ours.
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const server = http2.createSecureServer({
    allowHTTP1: true,
    requestCert: true,
    // Who shows no certificate may still have a token; `identify` decides.
    rejectUnauthorized: false,
    key: options.keyPem,
    cert: options.certPem,
    ca: options.clientCaPem,
    minVersion: "TLSv1.2",
    settings: { maxConcurrentStreams: MAX_STREAMS },
  });
  server.maxConnections = MAX_CONNECTIONS;
  const sockets = new Set<Duplex>();
  server.on("secureConnection", (socket: Duplex) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
  });
  server.on("request", (request, response) => options.onRequest(exchangeOf(request, response)));
  server.on("upgrade", ((request: IncomingMessage, socket: Duplex, early: Uint8Array) =>
    options.onUpgrade(upgradeExchange(request, socket), socket, early)) as never);
  server.on("sessionError", () => {});
  server.on("tlsClientError", () => {});
  server.setTimeout(0);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", (error: NodeJS.ErrnoException) =>
    reject(
      new ListenError(
        `Cannot listen on ${options.host}:${options.port}: ${error.code ?? error.message}; choose another address with --listen`,
        { cause: error },
      ),
    ),
  );
  server.listen(options.port, options.host, resolve);
  await promise;
  server.on("error", () => {});
  return {
    port: (server.address() as AddressInfo).port,
    stop() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** An upgrade has no response object: only the parts that identification and the tunnel read. */
function upgradeExchange(request: IncomingMessage, socket: Duplex): Exchange {
  const stub = { on() {}, headersSent: false } as never;
  return { ...exchangeOf(request, stub), socket: (request.socket ?? socket) as never, accepted: [] };
}
