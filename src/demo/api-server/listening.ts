/**
 * TLS with HTTP/1.1 and HTTP/2 on one port of loopback, behind the link.
 */

import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";

/** Nobody waits longer for a connection to close. */
const CLOSE_PATIENCE_MS = 200;

/** The open port with all that hangs on it. */
export class Listening {
  readonly #http: Http2SecureServer;
  readonly #sockets = new Set<Duplex>();
  readonly #sessions = new Set<ServerHttp2Session>();

  constructor(
    tls: { readonly ca: string; readonly cert: string; readonly key: string },
    onRequest: (request: Http2ServerRequest, response: Http2ServerResponse) => void,
    onUpgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void,
  ) {
    this.#http = createSecureServer({ ...tls, allowHTTP1: true, requestCert: true, rejectUnauthorized: false });
    this.#http.on("request", (request: Http2ServerRequest, response: Http2ServerResponse) => {
      // Go's server says nothing of a connection that stays.
      if (request.httpVersionMajor === 1) response.removeHeader("connection");
      onRequest(request, response);
    });
    this.#http.on("upgrade", onUpgrade);
    this.#http.on("session", (session: ServerHttp2Session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
      session.on("error", () => {});
    });
    this.#http.on("connection", (socket: Duplex) => {
      this.remember(socket);
      socket.on("error", () => {});
    });
    this.#http.on("tlsClientError", () => {});
  }

  /** @returns its port. */
  async open(): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#http.once("error", reject);
      this.#http.listen(0, "127.0.0.1", resolve);
    });
    return (this.#http.address() as { port: number }).port;
  }

  /** A socket that ends with the port. */
  remember(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
  }

  /** Ends all of it. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, CLOSE_PATIENCE_MS))]);
  }
}
