/**
 * Ask the API server.
 *
 * Watches and small writes go over HTTP/2 where the API server speaks it: many
 * watches share a connection, heads that repeat cost a few bytes. Everything
 * else goes over HTTP/1.1. Both on raw connections of our own (`http2-pool.ts`,
 * `pool.ts`): byte for byte, a third of the CPU of `fetch`, a write never twice
 * unless the API server says that it did nothing with it, and never megabytes
 * ahead of a slow reader.
 *
 * Through an HTTP proxy the runtime's clients do it: `fetch`, and node:https
 * (`exact-client.ts`) for what fetch would change or repeat: targets that it
 * would normalise, headers that it would join, and writes.
 *
 * Each credential has its own connections; a caller on a token never travels
 * on a connection that carries our certificate. After a cut all connections
 * are left behind for new ones: the old may be held open by nobody.
 */

import { signalOf, type Ending } from "../base/cancel.ts";
import type { Clock } from "../base/clock.ts";
import { askedForm } from "../kube/whose-word.ts";
import type { Mortal } from "./dead-sockets.ts";
import type { ExactClient } from "./exact-client.ts";
import type { Gate } from "./gate.ts";
import { HeadPatience } from "./head-patience.ts";
import { Http2UnsupportedError } from "./http2-failure.ts";
import { Http2Pool } from "./http2-pool.ts";
import type { NodePlace } from "./node-place.ts";
import { Pool } from "./pool.ts";
import type { RawAnswer } from "./raw-answer.ts";
import { ForeignAnswerError, UnreachableError } from "./scope-source.ts";
import { admitted, admittedAtOnce, type UpstreamAnswer, type UpstreamResponse } from "./upstream-answer.ts";
import { countedResponse, wanBytes } from "./wan.ts";

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
  readonly signal: Ending;
  /** Its answer never ends by itself. */
  readonly isWatch?: boolean;
  /** May be sent to another API server when one does not answer: only for reads. */
  readonly mayRetry?: boolean;
  /** Its answer may be megabytes that are read slowly, as a deletecollection's is. */
  readonly hasLongAnswer?: boolean;
  /** A new connection, closed afterwards. */
  readonly isProbe?: boolean;
  /** Goes up though the gate is shut. */
  readonly passesGate?: boolean;
  /**
   * Offered an answer that came whole, in the turn in which it came.
   *
   * @returns whether it was taken: `request` resolves with it afterwards all the same. Must not throw.
   */
  readonly atOnce?: (answer: UpstreamAnswer) => boolean;
}

/** How the API servers are reached. */
export interface UpstreamOptions {
  readonly servers: readonly string[];
  /** The CAs that count now, PEM. */
  readonly caPem: () => string;
  readonly tlsServerName?: string;
  readonly proxyFor: (server: string) => string | undefined;
  readonly clock: Clock;
  /** An API server answered, or a request failed without an answer. */
  readonly onAnswer: (server: string) => void;
  readonly onFailure: (server: string, reason: string) => void;
  /** Something answered in its place; `onFailure` is called too. */
  readonly onForeign?: (server: string, reason: string) => void;
  /** A request has waited a second for its head. */
  readonly onWaiting: () => void;
  /** Shut, nothing goes up. */
  readonly gate?: Gate;
  /** Where this node is shown: what is said of it goes up and comes down through there. */
  readonly place?: Pick<NodePlace, "looksAt" | "up" | "down" | "concerns">;
  /** In the place of the network: for the simulation. */
  readonly send?: (server: string, request: UpstreamRequest) => Promise<UpstreamResponse>;
}

/** What a TLS connection to an API server is made with. */
export interface TlsMaterial {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

/** The API servers of one cluster. */
export class Upstream {
  #preferred = 0;
  #generation = 0;
  #tls = new Map<string, TlsMaterial>();
  #isHttp2 = new Map<string, boolean>();
  /** For each TLS configuration and server. */
  #exactClients = new Map<TlsMaterial, Map<string, ExactClient>>();
  #pools = new Map<TlsMaterial, Map<string, Pool>>();
  #http2Pools = new Map<TlsMaterial, Map<string, Http2Pool>>();
  #ca = { pem: "", generation: 0, text: "" };
  /** Connections, those left behind too. */
  readonly #standing = new Set<Mortal>();
  readonly #patience: HeadPatience;

  constructor(private readonly options: UpstreamOptions) {
    this.#patience = new HeadPatience(options, this.#standing);
  }

  /** The API server that is asked first. */
  get server(): string {
    return this.options.servers[this.#preferred]!;
  }

  /** Leaves all present connections behind: the next request opens a new one. */
  renewConnections(): void {
    this.#generation++;
    this.#tls.clear();
    for (const clients of this.#exactClients.values()) for (const client of clients.values()) client.leaveBehind();
    this.#exactClients.clear();
    for (const pools of this.#pools.values()) for (const pool of pools.values()) pool.leaveBehind();
    this.#pools.clear();
    for (const pools of this.#http2Pools.values()) for (const pool of pools.values()) pool.leaveBehind();
    this.#http2Pools.clear();
  }

  /**
   * Sends a request and resolves with the API server's answer, as soon as it
   * is known for one; the body streams and is not decoded.
   *
   * @throws {ForeignAnswerError} when something else answered.
   * @throws {UnreachableError} when no API server answered, or the signal aborted.
   */
  request(request: UpstreamRequest): Promise<UpstreamAnswer> {
    const { place } = this.options;
    return place?.looksAt(request) === true ? this.#askedOfPlace(place, request) : this.#asked(request);
  }

  /** What may have to be changed is given to nobody before it was looked at. */
  async #askedOfPlace(place: NonNullable<UpstreamOptions["place"]>, request: UpstreamRequest): Promise<UpstreamAnswer> {
    const { atOnce: _, ...asked } = request;
    return place.down(asked, await this.#asked(place.up(asked)));
  }

  /** Whether an answer to that may have to be changed: it must come through `request`. */
  mayChange(method: string, target: string): boolean {
    return this.options.place?.concerns(method, target) === true;
  }

  async #asked(request: UpstreamRequest): Promise<UpstreamAnswer> {
    const { servers } = this.options;
    const attempts = request.mayRetry === true ? servers.length : 1;
    const asked = askedForm(request.method, request.target);
    let failure: unknown;
    for (let attempt = 0; attempt < attempts; attempt++) {
      const index = this.#preferred;
      const server = servers[index]!;
      try {
        const response = await this.#sendInTime(server, request);
        const judged = admitted(response, asked, request.method === "HEAD");
        const answer = judged instanceof Promise ? await judged : judged;
        // Unsigned and saying nothing, it may be anybody's.
        if (answer.word !== "unsaid" || answer.headers.get("audit-id") !== null) this.options.onAnswer(server);
        return answer;
      } catch (error) {
        failure = error;
        if (request.signal.aborted) break;
        if (error instanceof ForeignAnswerError) this.options.onForeign?.(server, error.message);
        this.options.onFailure(server, reasonOf(error));
        if (this.#preferred === index) this.#preferred = (index + 1) % servers.length;
      }
    }
    if (failure instanceof ForeignAnswerError) throw failure;
    throw new UnreachableError(`Cannot reach the API server: ${reasonOf(failure)}`, { cause: failure });
  }

  /** TLS options for a credential on this generation of connections. */
  tlsFor(credential: UpstreamCredential): TlsMaterial {
    const known = this.#tls.get(credential.certificate === undefined ? "" : credential.id);
    const { tlsServerName } = this.options;
    const ca = this.#caText();
    if (known !== undefined && known.cert === credential.certificate?.certPem && known.ca === ca) return known;
    if (known !== undefined) this.#leave(known);
    const made: TlsMaterial = {
      ca,
      ...(credential.certificate === undefined
        ? {}
        : { cert: credential.certificate.certPem, key: credential.certificate.keyPem }),
      ...(tlsServerName === undefined ? {} : { serverName: tlsServerName }),
    };
    this.#tls.set(credential.certificate === undefined ? "" : credential.id, made);
    return made;
  }

  /** fetch keeps a pool for each different TLS configuration; a blank line more is a new pool. */
  #caText(): string {
    const pem = this.options.caPem();
    const generation = this.#generation % 64;
    if (this.#ca.pem !== pem || this.#ca.generation !== generation)
      this.#ca = { pem, generation, text: pem + "\n".repeat(generation) };
    return this.#ca.text;
  }

  /** A certificate or a CA has been renewed: what is under way on the old goes on to its end. */
  #leave(tls: TlsMaterial): void {
    for (const client of this.#exactClients.get(tls)?.values() ?? []) client.leaveBehind();
    for (const pool of this.#pools.get(tls)?.values() ?? []) pool.leaveBehind();
    for (const pool of this.#http2Pools.get(tls)?.values() ?? []) pool.leaveBehind();
    this.#exactClients.delete(tls);
    this.#pools.delete(tls);
    this.#http2Pools.delete(tls);
  }

  async #sendInTime(server: string, asked: UpstreamRequest): Promise<UpstreamResponse> {
    const { gate } = this.options;
    if (asked.passesGate !== true) gate?.pass();
    const isCuttable = gate !== undefined && asked.isWatch === true;
    const request = isCuttable ? { ...asked, signal: gate.watchSignal(asked.signal) } : asked;
    const hasHead = this.#patience.begin();
    try {
      return await this.#send(server, request);
    } finally {
      hasHead();
    }
  }

  #send(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    if (this.options.send !== undefined) return this.options.send(server, request);
    if (this.options.proxyFor(server) !== undefined) return this.#sendThroughProxy(server, request);
    if (isForHttp2(request) && this.#isHttp2.get(server) !== false) return this.#sendOverHttp2(server, request);
    return this.#sendOverPool(server, request);
  }

  async #sendOverHttp2(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    const { body, credential, headers, method, signal, target } = request;
    const { authorization } = credential;
    try {
      const asked = { method, target, headers, authorization, body, signal };
      return await this.#http2PoolFor(server, credential).request(asked);
    } catch (error) {
      if (!(error instanceof Http2UnsupportedError)) throw error;
      this.#isHttp2.set(server, false);
      return this.#sendOverPool(server, request);
    }
  }

  #sendOverPool(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    const { method, target, headers, credential, body, signal } = request;
    const { authorization } = credential;
    const atOnce = request.atOnce === undefined ? undefined : offerTo(request, request.atOnce);
    return this.#poolFor(server, request).request(
      { method, target, headers, authorization, body, signal, atOnce },
      request.isProbe === true,
    );
  }

  /**
   * HTTP/2 must not even be tried here: behind a proxy with TLS, fetch sends the
   * request over HTTP/1.1 first and says HTTP2Unsupported then. Over HTTP/1.1
   * it would send a write again when a kept connection breaks.
   */
  async #sendThroughProxy(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    if (isWrite(request) || !survivesFetch(server, request)) return this.#sendExactly(server, request);
    return this.#fetch(server, request);
  }

  #poolFor(server: string, { credential }: UpstreamRequest): Pool {
    const tls = this.tlsFor(credential);
    let pools = this.#pools.get(tls);
    if (pools === undefined) this.#pools.set(tls, (pools = new Map()));
    let pool = pools.get(server);
    if (pool === undefined)
      pools.set(server, (pool = new Pool({ server, tls, clock: this.options.clock, standing: this.#standing })));
    return pool;
  }

  #http2PoolFor(server: string, credential: UpstreamCredential): Http2Pool {
    const tls = this.tlsFor(credential);
    let pools = this.#http2Pools.get(tls);
    if (pools === undefined) this.#http2Pools.set(tls, (pools = new Map()));
    let pool = pools.get(server);
    if (pool === undefined)
      pools.set(server, (pool = new Http2Pool({ server, tls, clock: this.options.clock, standing: this.#standing })));
    return pool;
  }

  #fetch(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    const proxy = this.options.proxyFor(server);
    const headers = headersOf(request);
    wanBytes.sent += request.method.length + request.target.length + lengthOf(headers, request.body);
    const answer = fetch(server + request.target, {
      method: request.method,
      headers,
      ...(request.body === undefined ? {} : { body: request.body }),
      ...(request.body instanceof ReadableStream ? { duplex: "half" } : {}),
      redirect: "manual",
      decompress: false,
      keepalive: request.isProbe !== true,
      timeout: false,
      protocol: "http1.1",
      tls: this.tlsFor(request.credential),
      ...(proxy === undefined ? {} : { proxy }),
      signal: signalOf(request.signal),
    } as RequestInit) as Promise<Response & UpstreamResponse>;
    return answer.then(countedResponse);
  }

  /** Over node:https: byte for byte, and once. */
  async #sendExactly(server: string, request: UpstreamRequest): Promise<UpstreamResponse> {
    const { ExactClient } = await import("./exact-client.ts");
    const tls = this.tlsFor(request.credential);
    let clients = this.#exactClients.get(tls);
    if (clients === undefined) this.#exactClients.set(tls, (clients = new Map()));
    let client = clients.get(server);
    if (client === undefined)
      clients.set(server, (client = new ExactClient({ server, tls, proxy: this.options.proxyFor(server) })));
    return client.request({ ...request, headers: headersOf(request), signal: signalOf(request.signal) }) as Promise<
      Response & UpstreamResponse
    >;
  }
}

/** Offers what is known for an answer; what is none is judged again by whoever waits for it. */
function offerTo(
  { method, target }: UpstreamRequest,
  take: (answer: UpstreamAnswer) => boolean,
): (answer: RawAnswer) => void {
  return (response) => {
    const answer = admittedAtOnce(response, askedForm(method, target));
    if (answer !== undefined && take(answer)) response.taken = answer;
  };
}

/** Of a head and a body that is there whole. */
function lengthOf(headers: readonly (readonly [string, string])[], body: UpstreamRequest["body"]): number {
  let length = body instanceof Uint8Array ? body.length : 0;
  for (const [name, value] of headers) length += name.length + value.length + 4;
  return length;
}

function isForHttp2(request: UpstreamRequest): boolean {
  if (request.isProbe === true || request.hasLongAnswer === true || request.body instanceof ReadableStream)
    return false;
  return request.isWatch === true || isWrite(request);
}

function isWrite({ method }: UpstreamRequest): boolean {
  return method !== "GET" && method !== "HEAD";
}

/** The headers with the credential's Authorization; callers leave theirs out. */
function headersOf({ headers, credential }: UpstreamRequest): [string, string][] {
  const { authorization } = credential;
  return (authorization === undefined ? headers : [...headers, ["Authorization", authorization]]) as [string, string][];
}

/**
 * Whether `fetch` takes the request and leaves it as it is: a header that is
 * there twice means something else when joined (Impersonate-Group), and a read
 * with a body it refuses.
 */
function survivesFetch(server: string, request: UpstreamRequest): boolean {
  if (request.body !== undefined && !isWrite(request)) return false;
  const names = new Set(request.headers.map(([name]) => name.toLowerCase()));
  return names.size === request.headers.length && survivesUrl(server, request.target);
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
