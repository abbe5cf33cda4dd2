/**
 * The stand-in itself: its world, who may speak, and the faults that tests order.
 */

import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { requireAllowed, sendScripted, serveResource } from "./answering.ts";
import type { ApiServer, ApiServerOptions, LoggedRequest } from "./api-server.ts";
import { authenticate } from "./authenticate.ts";
import { isPublic, serveDiscovery } from "./discovery.ts";
import { Exchange } from "./exchange.ts";
import { Failure, notFound, statusObject } from "./failure.ts";
import { Faults, matches, type ForeignAnswer, type Match, type ScriptedStatus } from "./faults.ts";
import { startLink, type Link } from "./link.ts";
import { Listening } from "./listening.ts";
import { mintCluster, type Cluster, type KubeconfigOptions } from "./mint.ts";
import { keyOf } from "./read.ts";
import { RequestLog } from "./request-log.ts";
import { requestInfo, type RequestInfo, type User } from "./request.ts";
import { Resources, storageName, type Resource } from "./resources.ts";
import type { Authorize } from "./reviews.ts";
import { isObject, type JsonObject, textAt } from "./schema.ts";
import { Store } from "./store.ts";
import { serveUpgrade } from "./streams.ts";
import { Tokens } from "./tokens.ts";
import type { WatchStream } from "./watch.ts";
import type { Behaviour, World } from "./world.ts";
import { putObject } from "./commit.ts";
import { deleteObject } from "./delete.ts";

const SYSTEM_NAMESPACES = ["default", "kube-system", "kube-public", "kube-node-lease"];

/** The server behind the interface. */
export class Server implements ApiServer {
  readonly cluster: Cluster;
  readonly behaviour: Behaviour;
  authorize: Authorize;
  link!: Link;
  readonly #options: ApiServerOptions;
  readonly #world: World;
  readonly #faults = new Faults();
  readonly #log = new RequestLog();
  readonly #tokenTable = new Map<string, User>();
  readonly #stalled = new Set<Exchange>();
  #listening!: Listening;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.cluster = options.cluster ?? mintCluster();
    this.authorize = options.authorize ?? (() => true);
    this.behaviour = {
      bookmarkIntervalMs: options.bookmarkIntervalMs ?? 60_000,
      expiredAs: options.expiredAs ?? "event",
      compressWatchLists: options.compressWatchLists ?? true,
      streamingLists: options.streamingLists ?? true,
      signing: options.signing ?? { verdict: "wait" },
    };
    this.#world = {
      store: new Store(options.firstResourceVersion ?? 1000, {
        changes: options.history?.changes ?? 10_000,
        ageMs: options.history?.ageMs ?? 300_000,
      }),
      resources: new Resources(),
      cluster: this.cluster,
      tokens: new Tokens(
        ({ namespace, name, uid }) => textAt(this.object("Pod", namespace, name) ?? {}, "metadata.uid") === uid,
      ),
      behaviour: this.behaviour,
      watches: new Set(),
      logs: options.logs ?? ((namespace, pod) => [`log of ${namespace}/${pod}`]),
    };
    for (const [token, user] of Object.entries(options.tokens ?? {})) this.addToken(token, user);
    this.#seed(options.objects ?? []);
  }

  get requests(): readonly LoggedRequest[] {
    return this.#log.requests;
  }
  get url(): string {
    return `https://${this.host.includes(":") ? `[${this.host}]` : this.host}:${this.port}`;
  }
  get host(): string {
    return this.link.host;
  }
  get port(): number {
    return this.link.port;
  }
  get resourceVersion(): string {
    return String(this.#world.store.revision);
  }
  get watchCount(): number {
    return this.#world.watches.size;
  }

  async start(): Promise<void> {
    const { host = "127.0.0.1", port = 0, servingNames = [] } = this.#options;
    const names = [
      "kubernetes",
      "kubernetes.default",
      "kubernetes.default.svc",
      "localhost",
      "127.0.0.1",
      "::1",
      "10.96.0.1",
      host,
      ...servingNames,
    ];
    const pair = this.cluster.servingCertificate([...new Set(names)]);
    this.#listening = new Listening(
      { ...pair, ca: this.cluster.ca },
      (request, response) => void this.#serve(request, response),
      (request, socket, head) => this.#upgrade(request, socket, head),
    );
    this.link = await startLink({ to: { port: await this.#listening.open() }, host, port });
  }

  kubeconfig(options: Omit<KubeconfigOptions, "server"> & { readonly server?: string }): string {
    return this.cluster.kubeconfig({ server: this.url, ...options });
  }

  addToken(token: string, user: User): void {
    this.#tokenTable.set(token, user);
  }

  serviceAccountToken(
    namespace: string,
    name: string,
    expirationSeconds = 3600,
    more: {
      readonly pod?: { readonly name: string; readonly uid: string };
      readonly audiences?: readonly string[];
    } = {},
  ): string {
    const account =
      this.object("ServiceAccount", namespace, name) ??
      this.put({ apiVersion: "v1", kind: "ServiceAccount", metadata: { namespace, name } });
    const { uid = "" } = account["metadata"] as { uid?: string };
    return this.#world.tokens.issue({
      namespace,
      serviceAccount: name,
      serviceAccountUid: uid,
      audiences: more.audiences ?? ["https://kubernetes.default.svc"],
      expirationSeconds,
      ...(more.pod === undefined ? {} : { pod: more.pod }),
    }).token;
  }

  put(object: JsonObject): JsonObject {
    return putObject(this.#world, object);
  }

  edit(kind: string, namespace: string, name: string, change: (object: JsonObject) => JsonObject): JsonObject {
    const present = this.object(kind, namespace, name);
    if (!present) throw new RangeError(`Cannot edit ${kind} "${namespace}/${name}": there is none`);
    return this.put({ kind, ...change(structuredClone(present)) });
  }

  remove(kind: string, namespace: string, name: string): boolean {
    const present = this.object(kind, namespace, name);
    if (!present) return false;
    const { finalizers: _, deletionTimestamp: __, ...metadata } = present["metadata"] as JsonObject;
    deleteObject(this.#world, this.#ofKind(kind), { ...present, metadata }, 0);
    return true;
  }

  object(kind: string, namespace: string, name: string): JsonObject | undefined {
    const resource = this.#ofKind(kind);
    return this.#world.store.get(storageName(resource), keyOf(resource, namespace, name));
  }

  objects(kind: string): JsonObject[] {
    return this.#world.store.list(storageName(this.#ofKind(kind))).map(([, object]) => object);
  }

  count(match: Match, since = 0): number {
    return this.requests.slice(since).filter((request) => matches(match, request)).length;
  }

  async cut(): Promise<void> {
    await this.link.cut();
  }

  blackHole(): void {
    this.link.drop();
  }

  async heal(): Promise<void> {
    this.#faults.clear();
    for (const exchange of this.#stalled) exchange.destroy();
    this.#stalled.clear();
    await this.link.heal();
  }

  nextStatus(status: ScriptedStatus, match?: Match, times = 1): void {
    this.#faults.status(status, match, times);
  }

  answerInstead(answer: ForeignAnswer, match?: Match, times = Infinity): void {
    this.#faults.foreign(answer, match, times);
  }

  freezeStorage(): void {
    this.#faults.freeze();
  }

  stallMidBody(match?: Match, times = 1): void {
    this.#faults.body("stall", match, times);
  }

  truncateNextList(match: Match = { verb: "list" }): void {
    this.#faults.body("truncate", match, 1);
  }

  slow(ms: number, match?: Match): void {
    this.#faults.delay(ms, match);
  }

  cutWatchFrameInHalf(match?: Match): number {
    return this.#eachWatch(match, (watch) => {
      const frame = watch.render.bookmark(this.resourceVersion);
      watch.spoil(frame.subarray(0, Math.floor(frame.length / 2)), true);
    });
  }

  invalidFrame(match?: Match): number {
    const protobuf = Buffer.concat([Buffer.from([0, 0, 0, 5]), Buffer.alloc(5, 0xff)]);
    return this.#eachWatch(match, (watch) =>
      watch.spoil(
        watch.render.watchContentType.includes("protobuf") ? protobuf : Buffer.from('{"type":"MODIFIED","object":}}\n'),
        false,
      ),
    );
  }

  failWatches(status = { code: 410, reason: "Expired", message: "too old resource version" }, match?: Match): number {
    return this.#eachWatch(match, (watch) => watch.fail(statusObject(status.code, status.reason, status.message)));
  }

  endWatches(match?: Match): number {
    return this.#eachWatch(match, (watch) => watch.end());
  }

  sendBookmarks(match?: Match): number {
    return this.#eachWatch(match, (watch) => watch.bookmark());
  }

  compact(): void {
    this.#world.store.compact();
  }

  rollback(changes: number): void {
    this.#world.store.rollback(changes);
    this.link.reset();
  }

  async stop(): Promise<void> {
    for (const watch of this.#world.watches) watch.end();
    await this.link[Symbol.asyncDispose]();
    await this.#listening.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #seed(objects: readonly JsonObject[]): void {
    const named = objects
      .filter(isObject)
      .map((object) => (object["metadata"] as JsonObject | undefined)?.["namespace"]);
    const namespaces = new Set([...SYSTEM_NAMESPACES, ...named.filter((name) => typeof name === "string")]);
    for (const name of namespaces)
      this.put({
        apiVersion: "v1",
        kind: "Namespace",
        metadata: { name, labels: { "kubernetes.io/metadata.name": name } },
        spec: { finalizers: ["kubernetes"] },
        status: { phase: "Active" },
      });
    for (const object of objects) this.put(object);
  }

  #ofKind(kind: string): Resource {
    const resource = this.#world.resources.ofKind(kind);
    if (!resource) throw new TypeError(`Cannot find kind "${kind}": no such resource is served`);
    return resource;
  }

  #eachWatch(match: Match, act: (watch: WatchStream) => void): number {
    const meant = [...this.#world.watches].filter((watch) => matches(match, watch.exchange.info));
    for (const watch of meant) act(watch);
    return meant.length;
  }

  async #serve(
    request: IncomingMessage | Http2ServerRequest,
    response: ServerResponse | Http2ServerResponse,
  ): Promise<void> {
    request.on("error", () => {});
    response.on("error", () => {});
    let info: RequestInfo;
    try {
      info = requestInfo(request.method ?? "GET", request.url ?? "/");
    } catch {
      (response as ServerResponse).writeHead(400).end();
      return;
    }
    const exchange = new Exchange(request, response, info);
    const logged = this.#log.add(exchange);
    try {
      await this.#answer(exchange, logged);
    } catch (error) {
      const failure =
        error instanceof Failure
          ? error
          : new Failure(
              statusObject(500, "InternalError", `Internal error occurred: ${(error as Error).stack ?? String(error)}`),
            );
      if (exchange.status === 0) exchange.sendStatus(failure.status.code, failure.status, failure.headers);
      else exchange.destroy();
    }
    logged.status = exchange.status;
    if (exchange.bodyFault === "stall") this.#stalled.add(exchange);
  }

  async #answer(exchange: Exchange, logged: LoggedRequest): Promise<void> {
    const { info } = exchange;
    const foreign = this.#faults.takeForeign(info);
    if (foreign !== undefined) return exchange.sendForeign(foreign);
    await this.#faults.delayed(info);
    const scripted = this.#faults.takeStatus(info);
    if (scripted) return sendScripted(exchange, scripted);
    exchange.bodyFault = this.#faults.takeBody(info);
    const allowsAnonymous = this.#options.allowsAnonymous === true || isPublic(info.path);
    exchange.user = authenticate(exchange, { table: this.#tokenTable, tokens: this.#world.tokens, allowsAnonymous });
    logged.user = exchange.user.name;
    requireAllowed(exchange, this.authorize);
    if (!info.resource) {
      if (this.#faults.isFrozen && /^\/(livez|readyz|healthz)(\/etcd)?$/.test(info.path)) {
        // Its own check of etcd has two seconds.
        await Bun.sleep(2_000);
        const check = info.path.split("/")[1]!;
        return exchange.sendText(
          500,
          `[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n${check} check failed\n`,
        );
      }
      return serveDiscovery(this.#world, exchange);
    }
    const isFromCache = info.verb !== "create" && exchange.query.get("resourceVersion") === "0";
    await this.#faults.storage({ ...info, isFromCache });
    await serveResource(this.#world, exchange, {
      authorize: this.authorize,
      judgeToken: (token, audiences) => this.#tokenTable.get(token) ?? this.#world.tokens.judge(token, audiences),
    });
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => {});
    this.#listening.remember(socket);
    const refuse = (code: number, body: JsonObject) => {
      const text = JSON.stringify(body);
      socket.end(
        `HTTP/1.1 ${code} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
      );
    };
    const exchange = new Exchange(
      request,
      undefined as unknown as ServerResponse,
      requestInfo(request.method ?? "GET", request.url ?? "/"),
    );
    const logged = this.#log.add(exchange);
    try {
      exchange.user = authenticate(exchange, {
        table: this.#tokenTable,
        tokens: this.#world.tokens,
        allowsAnonymous: this.#options.allowsAnonymous === true,
      });
      logged.user = exchange.user.name;
      requireAllowed(exchange, this.authorize);
      const { namespace, name } = exchange.info;
      if (!this.#world.store.get("pods", `${namespace}/${name}`)) throw notFound({ group: "", resource: "pods" }, name);
      logged.status = 101;
      serveUpgrade(request, socket, head);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      logged.status = error.status.code;
      refuse(error.status.code, error.status);
    }
  }
}
