/**
 * Ask the API server.
 *
 * Watches and writes go over HTTP/2 where the API server speaks it: many
 * watches share a connection, heads that repeat cost a few bytes, and a write
 * whose connection breaks is not sent again (over HTTP/1.1 `fetch` repeats a
 * PUT and a DELETE). Lists and gets go over HTTP/1.1, because over HTTP/2 the
 * runtime reads megabytes ahead of a slow reader. `fetch` normalises paths: a
 * target it would change goes out through node:https byte for byte.
 *
 * Each credential has its own connections; a caller on a token never travels
 * on a connection that carries our certificate. After a cut all connections
 * are left behind for new ones: the old may be held open by nobody.
 */

import { UnreachableError } from "../cache/scope-source.ts";

/** What a request is made with. */
export interface UpstreamCredential {
  /** Names it in our memory; never sent. */
  readonly id: string;
  readonly certificate?: { readonly certPem: string; readonly keyPem: string };
  /** The whole Authorization header. */
  readonly authorization?: string;
}

/** One request. */
export interface UpstreamRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
  readonly credential: UpstreamCredential;
  readonly signal: AbortSignal;
  /** Its answer never ends by itself. */
  readonly isWatch?: boolean;
  /** May be sent to another API server when one does not answer: only for reads. */
  readonly mayRetry?: boolean;
  /** A new connection, closed afterwards. */
  readonly isProbe?: boolean;
}

/** How the API servers are reached. */
export interface UpstreamOptions {
  readonly servers: readonly string[];
  readonly caPem: string;
  readonly tlsServerName?: string;
  readonly proxyFor: (server: string) => string | undefined;
  /** An answer's head arrived, or a request failed without one. */
  readonly onAnswer: (server: string) => void;
  readonly onFailure: (server: string, reason: string) => void;
  /** A request has waited a second for its head. */
  readonly onWaiting: () => void;
}

interface TlsMaterial {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

const HEAD_PATIENCE_MS = 1_000;

/** The API servers of one cluster. */
export class Upstream {
  #preferred = 0;
  #generation = 0;
  #tls = new Map<string, TlsMaterial>();
  #isHttp2 = new Map<string, boolean>();

  constructor(private readonly options: UpstreamOptions) {}

  /** The API server that is asked first. */
  get server(): string {
    return this.options.servers[this.#preferred]!;
  }

  /** Leaves all present connections behind: the next request opens a new one. */
  renewConnections(): void {
    this.#generation++;
    this.#tls.clear();
  }

  /**
   * Sends a request and resolves with the answer's head; the body streams and
   * is not decoded.
   *
   * @throws {UnreachableError} when no API server gave a head, or the signal aborted.
   */
  async request(request: UpstreamRequest): Promise<Response> {
    const { servers } = this.options;
    const attempts = request.mayRetry === true ? servers.length : 1;
    let failure: unknown;
    for (let attempt = 0; attempt < attempts; attempt++) {
      const index = this.#preferred;
      const server = servers[index]!;
      try {
        const response = await this.#send(server, request);
        this.options.onAnswer(server);
        return response;
      } catch (error) {
        failure = error;
        if (request.signal.aborted) break;
        this.options.onFailure(server, reasonOf(error));
        if (this.#preferred === index) this.#preferred = (index + 1) % servers.length;
      }
    }
    throw new UnreachableError(`Cannot reach the API server: ${reasonOf(failure)}`, { cause: failure });
  }

  /** TLS options for a credential on this generation of connections. */
  tlsFor(credential: UpstreamCredential): TlsMaterial {
    const known = this.#tls.get(credential.certificate === undefined ? "" : credential.id);
    if (known !== undefined && known.cert === credential.certificate?.certPem) return known;
    const { caPem, tlsServerName } = this.options;
    const made: TlsMaterial = {
      // fetch keeps a pool for each different TLS configuration; a blank line more is a new pool.
      ca: caPem + "\n".repeat(this.#generation % 64),
      ...(credential.certificate === undefined
        ? {}
        : { cert: credential.certificate.certPem, key: credential.certificate.keyPem }),
      ...(tlsServerName === undefined ? {} : { serverName: tlsServerName }),
    };
    this.#tls.set(credential.certificate === undefined ? "" : credential.id, made);
    return made;
  }

  async #send(server: string, request: UpstreamRequest): Promise<Response> {
    const waiting = setTimeout(this.options.onWaiting, HEAD_PATIENCE_MS);
    try {
      if (!survivesUrl(server, request.target)) return await this.#sendExactly(server, request);
      if (isForHttp2(request) && this.#isHttp2.get(server) !== false) {
        try {
          return await this.#fetch(server, request, "http2");
        } catch (error) {
          if ((error as { code?: string }).code !== "HTTP2Unsupported") throw error;
          this.#isHttp2.set(server, false);
        }
      }
      return await this.#fetch(server, request, "http1.1");
    } finally {
      clearTimeout(waiting);
    }
  }

  #fetch(server: string, request: UpstreamRequest, protocol: "http2" | "http1.1"): Promise<Response> {
    const proxy = this.options.proxyFor(server);
    return fetch(server + request.target, {
      method: request.method,
      headers: headersOf(request),
      ...(request.body === undefined ? {} : { body: request.body }),
      ...(request.body instanceof ReadableStream ? { duplex: "half" } : {}),
      redirect: "manual",
      decompress: false,
      keepalive: request.isProbe !== true,
      timeout: false,
      protocol,
      tls: this.tlsFor(request.credential),
      ...(proxy === undefined ? {} : { proxy }),
      signal: request.signal,
    } as RequestInit);
  }

  /** Byte for byte, for targets that a URL parser would change. */
  async #sendExactly(server: string, request: UpstreamRequest): Promise<Response> {
    const [https, { Readable }] = await Promise.all([import("node:https"), import("node:stream")]);
    const url = new URL(server);
    const tls = this.tlsFor(request.credential);
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const outgoing = https.request(
      {
        host: url.hostname.replace(/^\[|\]$/g, ""),
        port: url.port === "" ? 443 : Number(url.port),
        method: request.method,
        path: request.target,
        headers: Object.fromEntries(headersOf(request)),
        agent: false,
        ca: tls.ca,
        ...(tls.cert === undefined ? {} : { cert: tls.cert, key: tls.key }),
        ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
        signal: request.signal,
      },
      (incoming) => {
        const status = incoming.statusCode ?? 502;
        const headers = new Headers();
        for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2)
          headers.append(incoming.rawHeaders[i]!, incoming.rawHeaders[i + 1]!);
        const hasBody = status >= 200 && status !== 204 && status !== 304;
        resolve(
          new Response(hasBody ? (Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array>) : null, {
            status: Math.max(status, 200),
            headers,
          }),
        );
      },
    );
    outgoing.on("error", reject);
    if (request.body instanceof ReadableStream) Readable.fromWeb(request.body as never).pipe(outgoing);
    else outgoing.end(request.body);
    return promise;
  }
}

function isForHttp2({ method, body, isWatch, isProbe }: UpstreamRequest): boolean {
  if (isProbe === true || body instanceof ReadableStream) return false;
  return isWatch === true || (method !== "GET" && method !== "HEAD");
}

/** The headers with the credential's Authorization; callers leave theirs out. */
function headersOf({ headers, credential }: UpstreamRequest): [string, string][] {
  const { authorization } = credential;
  return (authorization === undefined ? headers : [...headers, ["Authorization", authorization]]) as [string, string][];
}

/** Whether a URL parser leaves the target as it is. */
function survivesUrl(server: string, target: string): boolean {
  if (!/["<>\\^`{|}#]|%(?![0-9A-Fa-f]{2})|\/\.|[^\x21-\x7e]/.test(target)) return true;
  try {
    const url = new URL(server + target);
    return url.pathname + url.search === target && url.hash === "";
  } catch {
    return false;
  }
}

/** The error's code or message; never a header or a body. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: unknown };
  return typeof code === "string" ? code : error.message;
}
