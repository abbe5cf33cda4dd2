/**
 * An API server as a whole fleet meets it: what each node may read is little,
 * what all of them ask is counted.
 *
 * Collections are of two kinds: shared ones, whose changes go to every node's
 * watch, and those that are one node's own. History is kept whole. One
 * resourceVersion serves all, and grows by one with each write of anybody, as
 * etcd's does; a node that stands for several in the count writes as often.
 */

import { mintCluster } from "../../src/demo/api-server/mint.ts";
import type { UpstreamBody, UpstreamResponse } from "../../src/uplink/upstream-answer.ts";
import type { UpstreamRequest } from "../../src/uplink/upstream.ts";
import type { Random, VirtualClock } from "./clock.ts";

/** What was asked in one second, of the whole fleet. */
export interface Second {
  requests: number;
  watches: number;
  lists: number;
  leases: number;
  probes: number;
  connections: number;
  /** Both ways, heads included. */
  bytes: number;
  /** Answered with 429. */
  refused: number;
}

/** How the server is made. */
export interface FleetServerOptions {
  readonly clock: VirtualClock;
  readonly random: Random;
  /** Each node counts as so many. */
  readonly weight: number;
  /** Requests a second that it takes; what is more gets 429 and Retry-After: 1. Default: any number. */
  readonly mostPerSecond?: number;
}

interface Collection {
  readonly kind: string;
  readonly apiVersion: string;
  readonly items: Map<string, string>;
  readonly events: { readonly revision: number; readonly text: string }[];
  readonly watches: Set<Watch>;
}

interface Watch {
  readonly body: Stream;
  readonly node: number;
}

/** A node's connections, as the pools of `src/uplink` keep them. */
interface Connections {
  hasHttp2: boolean;
  /** When its HTTP/1.1 connection was used last. */
  keptAtMs: number;
}

const HEAD_BYTES = 300;
const TLS_BYTES = 4_500;
const KEPT_MS = 30_000;
const BOOKMARK_MS = 60_000;
const LATENCY_MS = { least: 10, most: 40 } as const;
const VERSION = '{"major":"1","minor":"37","gitVersion":"v1.37.2","platform":"linux/amd64"}';
const BUSY =
  '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too many requests","reason":"TooManyRequests","code":429}';
const NOT_FOUND = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","code":404}';
const FILLING = "x".repeat(900);

/** The node's certificate and key; every node's is the same, and the wire tells them apart. */
export const NODE_PAIR = mintCluster().clientCertificate("system:node:edge", ["system:nodes"]);

/** Answers a fleet. */
export class FleetServer {
  revision = 1_000_000;
  /** Whether it answers anybody. */
  isUp = true;
  /** By whole seconds of the clock. */
  readonly seconds = new Map<number, Second>();
  /** What was asked again by a node that had been told to wait, before its time. */
  readonly tooSoon: string[] = [];
  readonly #cutNodes = new Set<number>();
  readonly #collections = new Map<string, Collection>();
  readonly #connections = new Map<number, Connections>();
  readonly #open = new Map<number, Set<Stream>>();
  readonly #notBefore = new Map<string, number>();

  constructor(private readonly options: FleetServerOptions) {
    if (!Number.isInteger(options.weight)) throw new RangeError("a node counts as a whole number of nodes");
  }

  /** Makes a collection. @param path of its list; one node's own where it ends in "@NODE". */
  collection(path: string, kind: string, apiVersion: string, names: readonly string[]): void {
    const items = new Map(names.map((name) => [name, itemOf(name, ++this.revision)]));
    this.#collections.set(path, { kind, apiVersion, items, events: [], watches: new Set() });
  }

  /** Changes one object; whoever watches is told. */
  change(path: string, name: string): void {
    const collection = this.#collections.get(path)!;
    const revision = ++this.revision;
    const item = itemOf(name, revision);
    collection.items.set(name, item);
    const text = `{"type":"MODIFIED","object":{"kind":"${collection.kind}","apiVersion":"${collection.apiVersion}",${item.slice(1)}}\n`;
    collection.events.push({ revision, text });
    for (const { body, node } of collection.watches) this.#push(body, node, text);
  }

  /** Watches that are open, as the fleet counts them. */
  get openWatches(): number {
    let count = 0;
    for (const { watches } of this.#collections.values()) count += watches.size;
    return count * this.options.weight;
  }

  /** Every connection breaks, and nobody is answered. */
  goDown(): void {
    this.isUp = false;
    for (const node of this.#open.keys()) this.#break(node);
  }

  comeBack(): void {
    this.isUp = true;
  }

  /** One node alone loses its link. */
  cut(node: number): void {
    this.#cutNodes.add(node);
    this.#break(node);
  }

  heal(node: number): void {
    this.#cutNodes.delete(node);
  }

  /** The node leaves its connections behind. */
  leftBehind(node: number): void {
    this.#connections.delete(node);
  }

  /** In the place of a node's network. */
  async send(node: number, request: UpstreamRequest): Promise<UpstreamResponse> {
    const { clock, random } = this.options;
    const latencyMs = LATENCY_MS.least + random.next() * (LATENCY_MS.most - LATENCY_MS.least);
    await clock.sleep(latencyMs);
    if (request.signal.aborted) throw new Error("aborted");
    if (!this.#answers(node)) throw Object.assign(new Error("connection refused"), { code: "ECONNREFUSED" });
    this.#connected(node, request);
    const answer = this.#answer(node, request);
    await clock.sleep(latencyMs);
    if (request.signal.aborted || !this.#answers(node)) throw new Error("aborted");
    return answer;
  }

  #answers(node: number): boolean {
    return this.isUp && !this.#cutNodes.has(node);
  }

  #answer(node: number, request: UpstreamRequest): UpstreamResponse {
    const { method, target } = request;
    const url = new URL(`https://api${target}`);
    const isWatch = url.searchParams.get("watch") === "true";
    const kind = kindOf(method, url, isWatch);
    const bin = this.#second();
    const { weight } = this.options;
    bin.requests += weight;
    if (kind !== "other") bin[kind] += weight;
    this.#count(HEAD_BYTES + target.length + (request.body instanceof Uint8Array ? request.body.length : 0));
    const busy = kind === "probes" ? undefined : this.#busy(node, questionOf(method, url), bin);
    if (busy !== undefined) return this.#whole(429, BUSY, { "retry-after": "1" });
    if (url.pathname === "/version") return this.#whole(200, VERSION);
    if (kind === "leases" || method === "PATCH") return this.#written(node, url, request);
    return this.#read(node, url, isWatch, request);
  }

  #busy(node: number, what: string, bin: Second): true | undefined {
    const { clock, mostPerSecond, weight } = this.options;
    if (mostPerSecond === undefined) return undefined;
    const key = `${node} ${what}`;
    const nowMs = clock.monotonicMs();
    if (nowMs < (this.#notBefore.get(key) ?? 0)) this.tooSoon.push(key);
    this.#notBefore.delete(key);
    if (bin.requests - bin.refused <= mostPerSecond) return undefined;
    bin.refused += weight;
    this.#notBefore.set(key, nowMs + 1_000);
    return true;
  }

  /** A lease, or the node's status: any write moves the cluster on, and comes back as it was sent. */
  #written(node: number, url: URL, request: UpstreamRequest): UpstreamResponse {
    this.revision += this.options.weight;
    if (request.method === "PATCH") {
      const path = `/api/v1/nodes?metadata.name=edge@${node}`;
      this.change(path, "edge");
      return this.#whole(200, objectOf(this.#collections.get(path)!, "edge"));
    }
    const body = Buffer.from(request.body as Uint8Array).toString("utf8");
    const text = body.replace('"metadata":{', `"metadata":{"resourceVersion":"${this.revision}",`);
    return this.#whole(url.pathname.endsWith("/leases") ? 201 : 200, text);
  }

  #read(node: number, url: URL, isWatch: boolean, request: UpstreamRequest): UpstreamResponse {
    const selector = url.searchParams.get("fieldSelector");
    const shared = url.pathname + (selector === null ? "" : `?${selector}`);
    const collection = this.#collections.get(`${shared}@${node}`) ?? this.#collections.get(shared);
    if (collection === undefined) {
      const [, parent, name] = /^(.*)\/([^/]+)$/.exec(url.pathname)!;
      const of = this.#collections.get(`${parent}?metadata.name=${name}@${node}`);
      return of === undefined ? this.#whole(404, NOT_FOUND) : this.#whole(200, objectOf(of, name!));
    }
    if (isWatch) return this.#watch(node, collection, url, request);
    const items = [...collection.items.values()].join(",");
    return this.#whole(
      200,
      `{"kind":"${collection.kind}List","apiVersion":"${collection.apiVersion}","metadata":{"resourceVersion":"${this.revision}"},"items":[${items}]}\n`,
    );
  }

  #watch(node: number, collection: Collection, url: URL, request: UpstreamRequest): UpstreamResponse {
    const { clock } = this.options;
    const from = Number(url.searchParams.get("resourceVersion"));
    const body = new Stream();
    const watch = { body, node };
    collection.watches.add(watch);
    let open = this.#open.get(node);
    if (open === undefined) this.#open.set(node, (open = new Set()));
    open.add(body);
    const endsMs = clock.monotonicMs() + Number(url.searchParams.get("timeoutSeconds")) * 1_000;
    const end = (error?: Error) => {
      collection.watches.delete(watch);
      open.delete(body);
      body.end(error);
    };
    body.onGone = () => end();
    request.signal.addEventListener("abort", () => end(new Error("aborted")), { once: true });
    for (const { revision, text } of collection.events) if (revision > from) this.#push(body, node, text);
    const tick = () => {
      if (!open.has(body)) return;
      if (clock.monotonicMs() >= endsMs) return end();
      this.#push(
        body,
        node,
        `{"type":"BOOKMARK","object":{"kind":"${collection.kind}","apiVersion":"${collection.apiVersion}","metadata":{"resourceVersion":"${this.revision}","creationTimestamp":null}}}\n`,
      );
      clock.after(Math.min(BOOKMARK_MS, Math.max(1, endsMs - clock.monotonicMs())), tick);
    };
    clock.after(BOOKMARK_MS, tick);
    return this.#streamed(200, body, {});
  }

  #push(body: Stream, node: number, text: string): void {
    if (!this.#answers(node)) return;
    this.#count(text.length);
    body.push(text);
  }

  #break(node: number): void {
    for (const body of [...(this.#open.get(node) ?? [])]) {
      body.onGone();
      body.end(Object.assign(new Error("connection reset"), { code: "ECONNRESET" }));
    }
    this.#connections.delete(node);
  }

  /** Probes dial anew, watches and writes share one connection, everything else keeps one for half a minute. */
  #connected(node: number, request: UpstreamRequest): void {
    const { clock } = this.options;
    const nowMs = clock.monotonicMs();
    const known = this.#connections.get(node) ?? { hasHttp2: false, keptAtMs: Number.NEGATIVE_INFINITY };
    this.#connections.set(node, known);
    const isHttp2 = request.isWatch === true || (request.method !== "GET" && request.method !== "HEAD");
    const isKept = isHttp2 ? known.hasHttp2 : nowMs - known.keptAtMs < KEPT_MS;
    if (request.isProbe !== true) {
      if (isHttp2) known.hasHttp2 = true;
      else known.keptAtMs = nowMs;
      if (isKept) return;
    }
    this.#second().connections += this.options.weight;
    this.#count(TLS_BYTES);
  }

  #whole(status: number, text: string, headers: Readonly<Record<string, string>> = {}): UpstreamResponse {
    const body = new Stream();
    body.push(text);
    body.end();
    this.#count(HEAD_BYTES + text.length);
    return this.#streamed(status, body, headers);
  }

  #streamed(status: number, body: Stream, headers: Readonly<Record<string, string>>): UpstreamResponse {
    const fields: Record<string, string> = { "content-type": "application/json", "audit-id": "1", ...headers };
    return {
      status,
      headers: { get: (name) => fields[name.toLowerCase()] ?? null, toJSON: () => fields },
      body,
      bytes: async () => {
        const parts: Uint8Array[] = [];
        for await (const part of body) parts.push(part);
        return new Uint8Array(Buffer.concat(parts));
      },
    };
  }

  #count(bytes: number): void {
    this.#second().bytes += bytes * this.options.weight;
  }

  #second(): Second {
    const at = Math.floor(this.options.clock.monotonicMs() / 1_000);
    let second = this.seconds.get(at);
    if (second === undefined)
      this.seconds.set(
        at,
        (second = {
          requests: 0,
          watches: 0,
          lists: 0,
          leases: 0,
          probes: 0,
          connections: 0,
          bytes: 0,
          refused: 0,
        }),
      );
    return second;
  }
}

/** Bytes as they come, and their end. */
class Stream implements UpstreamBody {
  #chunks: Uint8Array[] = [];
  #end: { readonly error?: Error } | undefined;
  #waiting: PromiseWithResolvers<{ done: boolean; value?: Uint8Array }> | undefined;
  onGone = () => {};

  push(text: string): void {
    if (this.#end !== undefined) return;
    this.#chunks.push(Buffer.from(text));
    this.#serve();
  }

  end(error?: Error): void {
    this.#end ??= error === undefined ? {} : { error };
    this.#serve();
  }

  read(): Promise<{ done: boolean; value?: Uint8Array }> {
    this.#waiting = Promise.withResolvers();
    const { promise } = this.#waiting;
    this.#serve();
    return promise;
  }

  getReader(): { read: () => Promise<{ done: boolean; value?: Uint8Array }>; cancel: () => Promise<void> } {
    return { read: () => this.read(), cancel: async () => this.cancel() };
  }

  cancel(): void {
    this.onGone();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const { done, value } = await this.read();
      if (done) return;
      yield value!;
    }
  }

  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined || (this.#chunks.length === 0 && this.#end === undefined)) return;
    this.#waiting = undefined;
    const value = this.#chunks.shift();
    if (value !== undefined) waiting.resolve({ done: false, value });
    else if (this.#end?.error === undefined) waiting.resolve({ done: true });
    else waiting.reject(this.#end.error);
  }
}

function kindOf(method: string, url: URL, isWatch: boolean): "watches" | "lists" | "leases" | "probes" | "other" {
  if (isWatch) return "watches";
  if (url.pathname === "/version") return "probes";
  if (method === "PUT" && url.pathname.includes("/leases/")) return "leases";
  return method === "GET" && !/\/nodes\/[^/]+$/.test(url.pathname) ? "lists" : "other";
}

/** A request as it is asked again: wherever it stands by then. */
function questionOf(method: string, url: URL): string {
  const { searchParams } = url;
  return `${method} ${url.pathname} ${searchParams.get("fieldSelector") ?? ""} ${searchParams.get("watch") ?? ""}`;
}

function itemOf(name: string, revision: number): string {
  return `{"metadata":{"name":"${name}","namespace":"","uid":"uid-${name}","resourceVersion":"${revision}"},"spec":{"nodeName":"edge"},"data":{"a":"${FILLING}"}}`;
}

function objectOf({ kind, apiVersion, items }: Collection, name: string): string {
  return `{"kind":"${kind}","apiVersion":"${apiVersion}",${(items.get(name) ?? "{}").slice(1)}`;
}
