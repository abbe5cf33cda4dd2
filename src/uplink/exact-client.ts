/**
 * Requests over node:https: HTTP/1.1, byte for byte, and once.
 *
 * The runtime's `fetch` normalises targets, joins headers that are there
 * twice, and over HTTP/1.1 sends a PUT and a DELETE again when a kept
 * connection breaks. Here a request whose connection breaks has failed, and
 * whoever asked decides.
 *
 * Connections are kept, because a handshake costs more than a lease's
 * renewal. An idle one is closed after half a minute, before API servers and
 * balancers do (a minute at least), so that hardly a write meets a connection
 * that its other end is just closing.
 */

import type { ClientRequest } from "node:http";
import * as https from "node:https";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { dial, type DialTarget } from "./dial.ts";

const IDLE_MS = 30_000;
const MAX_IDLE_CONNECTIONS = 4;
const MAX_HEAD_BYTES = 131_072;

/** One request. */
export interface ExactRequest {
  readonly method: string;
  readonly target: string;
  /** As they are to be sent; a name that is there twice is sent twice. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body?: Uint8Array | ReadableStream<Uint8Array>;
  readonly signal: AbortSignal;
}

/** Connections to one API server with one credential. */
export class ExactClient {
  readonly #agent: DialAgent;

  constructor(private readonly target: DialTarget) {
    this.#agent = new DialAgent(target);
  }

  /** No connection of this client serves another request; those at work end with their answer. */
  leaveBehind(): void {
    this.#agent.keepAlive = false;
    for (const sockets of Object.values(this.#agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }

  /**
   * Sends a request and resolves with the answer's head; the body streams.
   *
   * @throws {Error} when there was no head. Only a read on a connection that had been used before is sent again.
   */
  request(request: ExactRequest): Promise<Response> {
    const { method, target, headers, body, signal } = request;
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const outgoing = https.request(
      {
        method,
        path: target,
        headers: { Host: new URL(this.target.server).host, ...gathered(headers), ...framing(body) },
        agent: this.#agent,
        maxHeaderSize: MAX_HEAD_BYTES,
        signal,
      },
      (incoming) => {
        const status = incoming.statusCode ?? 502;
        const answered = new Headers();
        for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2)
          answered.append(incoming.rawHeaders[i]!, incoming.rawHeaders[i + 1]!);
        const hasBody = method !== "HEAD" && status >= 200 && status !== 204 && status !== 304;
        if (!hasBody) incoming.resume();
        resolve(
          new Response(hasBody ? (Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array>) : null, {
            status: Math.max(status, 200),
            headers: answered,
          }),
        );
      },
    );
    outgoing.on("error", (error) => {
      const mayRepeat = (method === "GET" || method === "HEAD") && !(body instanceof ReadableStream);
      if (mayRepeat && outgoing.reusedSocket && !signal.aborted) resolve(this.request(request));
      else reject(error);
    });
    send(outgoing, body).catch(reject);
    return promise;
  }
}

/** Keeps connections as Node's agent does, and opens them through `dial`. */
class DialAgent extends https.Agent {
  // Node's own field; the types do not have it.
  declare keepAlive: boolean;

  constructor(private readonly target: DialTarget) {
    super({ keepAlive: true, maxFreeSockets: MAX_IDLE_CONNECTIONS, timeout: IDLE_MS });
  }

  override createConnection(_options: unknown, done?: (error: Error | null, socket: never) => void): never {
    dial(this.target).then(
      (socket) => done?.(null, socket as never),
      (error: Error) => done?.(error, undefined as never),
    );
    return undefined as never;
  }
}

async function send(outgoing: ClientRequest, body: ExactRequest["body"]): Promise<void> {
  if (body instanceof ReadableStream) await pipeline(Readable.fromWeb(body as never), outgoing);
  else outgoing.end(body);
}

/** Said outright: Node leaves a DELETE's body without either. */
function framing(body: ExactRequest["body"]): Record<string, string> {
  if (body === undefined) return {};
  return body instanceof ReadableStream
    ? { "Transfer-Encoding": "chunked" }
    : { "Content-Length": String(body.length) };
}

function gathered(headers: ExactRequest["headers"]): Record<string, string[]> {
  const byName = new Map<string, [string, string[]]>();
  for (const [name, value] of headers) {
    const known = byName.get(name.toLowerCase());
    if (known === undefined) byName.set(name.toLowerCase(), [name, [value]]);
    else known[1].push(value);
  }
  return Object.fromEntries(byName.values());
}
