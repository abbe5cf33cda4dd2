/**
 * Connections to one API server with one credential: HTTP/2, many requests on each.
 *
 * Another is opened when all are full. A request is sent again when the API
 * server has said that it did nothing with it; beside that only a read whose
 * kept connection proved dead before its head came, and once. A write never
 * is, for the API server may have had it.
 */

import type { Socket } from "bun";
import { passedThrough } from "../base/memory.ts";
import { Http2Connection } from "./http2-connection.ts";
import { Http2Failure } from "./http2-failure.ts";
import { isRead, isStream, type PoolRequest } from "./pool-request.ts";
import type { RawAnswer } from "./raw-answer.ts";
import { CONNECT_DEADLINE_MS, connectSecurely, placeOf, type Place, type SecureTarget } from "./secure-socket.ts";

/** With a hundred requests on each. */
const MAX_CONNECTIONS = 64;
const TICK_MS = 5_000;
/** How often a request is sent that the API server does not begin with. */
const MAX_TRIES = 4;
const ALPN = Buffer.from("\x02h2\x08http/1.1", "latin1");

/** The connections, and what opens them. */
export class Http2Pool {
  readonly #place: Place;
  readonly #authority: string;
  #connections: Http2Connection[] = [];
  #isLeft = false;
  #isTicking = false;

  constructor(private readonly target: SecureTarget) {
    const url = new URL(target.server);
    this.#authority = url.host;
    this.#place = placeOf(url);
  }

  /** No connection takes another request; they end with those at work. */
  leaveBehind(): void {
    this.#isLeft = true;
    for (const connection of [...this.#connections]) connection.leaveBehind();
  }

  /**
   * Sends a request and resolves with the answer's head; the body streams.
   *
   * @throws {Http2UnsupportedError} before anything was sent.
   * @throws {Error} when there was no head, or the signal aborted.
   */
  async request(request: PoolRequest): Promise<RawAnswer> {
    for (let tries = 1; ; tries++) {
      const connection = this.#connections.find(({ hasRoom }) => hasRoom) ?? this.#open();
      const { isKept } = connection;
      await this.#secured(connection, request);
      try {
        const answer = connection.send(request);
        if (this.#isLeft) connection.leaveBehind();
        return await answer;
      } catch (error) {
        if (request.signal.aborted || tries === MAX_TRIES || !mayRepeat(request, error, isKept && tries === 1))
          throw error;
      }
    }
  }

  /** Waits for a connection, no longer than the request does. */
  async #secured(connection: Http2Connection, { signal }: PoolRequest): Promise<void> {
    const release = connection.reserve();
    const { promise, reject } = Promise.withResolvers<never>();
    const onAbort = () => reject((signal.reason as Error | undefined) ?? new Error("aborted"));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      if (signal.aborted) onAbort();
      await Promise.race([connection.secured, promise]);
    } finally {
      release();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #open(): Http2Connection {
    const { clock, standing, tls } = this.target;
    if (this.#connections.length >= MAX_CONNECTIONS) throw new Error("too many requests are under way");
    const connection = new Http2Connection(
      this.#authority,
      () => clock.monotonicMs(),
      (closed) => {
        this.#connections = this.#connections.filter((one) => one !== closed);
        standing?.delete(closed);
      },
    );
    this.#connections.push(connection);
    standing?.add(connection);
    const cancelDeadline = clock.after(CONNECT_DEADLINE_MS, () =>
      connection.broke(new Error("no connection within 10 s")),
    );
    connection.secured.then(cancelDeadline, cancelDeadline);
    connectSecurely(this.#place, tls, ALPN, connection, HANDLERS).catch((error: Error) => connection.broke(error));
    this.#tick();
    return connection;
  }

  /** One timer for all, while there are any. */
  #tick(): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    this.target.clock.after(TICK_MS, () => {
      this.#isTicking = false;
      for (const connection of [...this.#connections]) connection.tick();
      if (this.#connections.length > 0) this.#tick();
    });
  }
}

function mayRepeat(request: PoolRequest, error: unknown, wasKept: boolean): boolean {
  if (!(error instanceof Http2Failure) || isStream(request.body)) return false;
  if (error.kind === "not-processed") return true;
  return error.kind === "connection" && wasKept && isRead(request);
}

type ClientSocket = Socket<Http2Connection>;

const HANDLERS: Bun.SocketHandler<Http2Connection> = {
  binaryType: "buffer",
  open: (socket: ClientSocket) => socket.data.opened(socket),
  handshake: (socket: ClientSocket, isDone: boolean, error: Error | null) => socket.data.handshaken(isDone, error),
  data(socket: ClientSocket, bytes: Buffer) {
    passedThrough(bytes.length);
    socket.data.received(bytes);
  },
  drain: (socket: ClientSocket) => socket.data.drained(),
  end: (socket: ClientSocket) => socket.data.closed(),
  close: (socket: ClientSocket) => socket.data.closed(),
  error: (socket: ClientSocket, error: Error) => socket.data.broke(error),
  connectError: (socket: ClientSocket, error: Error) => socket.data.broke(error),
} as Bun.SocketHandler<Http2Connection>;
