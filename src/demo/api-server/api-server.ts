/**
 * A Kubernetes API server to try things on: it keeps its objects in memory and
 * follows the real server's rules for list, watch, write and refusal, and it
 * can be made to fail in every way the real one and its network do.
 *
 *   await using api = await startApiServer({ objects: [pod] });
 *   api.url, api.cluster.ca                    where it is and what to trust
 *   api.cluster.clientCertificate("system:node:edge-1", ["system:nodes"])
 *   api.kubeconfig({ user: "admin" })          a client certificate, inline
 *   api.addToken("secret", { name: "demo", groups: [] })
 *   api.put(object), api.remove("Pod", "shop", "web-0"), api.object(...)
 *   await api.cut(), api.blackHole(), await api.heal()
 *   api.nextStatus({ code: 429, retryAfterSeconds: 1 }, { verb: "list" })
 *   api.count({ verb: "list", resource: "pods" }, since)
 *
 * Everything goes over one TCP relay (link.ts) in front of the server itself,
 * so that a cut, a silence and the bytes on the wire are the network's doing.
 * HTTP/1.1 and HTTP/2; client certificates and bearer tokens; 401 otherwise.
 *
 * Its answers never pass through the product's codecs: what it prints is
 * independent evidence, and test/contract holds it against a real server.
 */

import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Socket } from "node:net";
import { authenticate } from "./authenticate.ts";
import { isPublic, serveDiscovery } from "./discovery.ts";
import { Exchange } from "./exchange.ts";
import { badRequest, Failure, forbidden, methodNotAllowed, noSuchResource, notFound, statusObject } from "./failure.ts";
import { Faults, matches, type ForeignAnswer, type Match, type ScriptedStatus } from "./faults.ts";
import { startLink, type Link } from "./link.ts";
import { mintCluster, type Cluster, type KubeconfigOptions } from "./mint.ts";
import { keyOf, serveGet, serveList } from "./read.ts";
import { requestInfo, type RequestInfo, type User } from "./request.ts";
import { Resources, storageName, type Resource } from "./resources.ts";
import { serveReview, serveTokenRequest, type Authorize } from "./reviews.ts";
import { isObject, type JsonObject, textAt } from "./schema.ts";
import { Store } from "./store.ts";
import { serveLog, serveUpgrade } from "./streams.ts";
import { Tokens } from "./tokens.ts";
import { serveWatch, type WatchStream } from "./watch.ts";
import type { Behaviour, World } from "./world.ts";
import {
  deleteObject,
  putObject,
  serveCreate,
  serveDelete,
  serveDeleteCollection,
  servePatch,
  serveUpdate,
} from "./write.ts";

const MAX_LOGGED_REQUESTS = 20_000;
const SYSTEM_NAMESPACES = ["default", "kube-system", "kube-public", "kube-node-lease"];

/** How a server is to be; every field has a default that a test can live with. */
export interface ApiServerOptions extends Partial<Behaviour> {
  /** 127.0.0.1 and a free port by default. */
  readonly host?: string;
  readonly port?: number;
  /** The CA; a fresh one by default. Two servers of one cluster share it. */
  readonly cluster?: Cluster;
  /** Names in the serving certificate besides localhost, the loopback addresses and `host`. */
  readonly servingNames?: readonly string[];
  /** Bearer tokens; addToken adds more. */
  readonly tokens?: Readonly<Record<string, User>>;
  /** true: requests without a credential are system:anonymous and go to `authorize`; false (default): 401, except health and /version. */
  readonly allowsAnonymous?: boolean;
  /** The stand-in's RBAC; everything is allowed by default. */
  readonly authorize?: Authorize;
  /** Written before the first request, each as `put` does. The four system namespaces and every namespace named are there. */
  readonly objects?: readonly JsonObject[];
  /** The counter's start; 1000. */
  readonly firstResourceVersion?: number;
  /** How much history a watch can resume from: 10,000 changes and 5 minutes. */
  readonly history?: { readonly changes?: number; readonly ageMs?: number };
  /** A container's log; one line naming the pod by default. */
  readonly logs?: (namespace: string, pod: string) => readonly string[];
}

/** One request as the server saw it. */
export interface LoggedRequest extends RequestInfo {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly httpVersion: string;
  /** "" until authenticated. */
  user: string;
  /** 0 until answered. */
  status: number;
  readonly startedAtMs: number;
  /** Body bytes of the answer so far. */
  readonly bytesSent: number;
}

/** A running server. Disposing it ends everything it holds. */
export interface ApiServer extends AsyncDisposable {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly cluster: Cluster;
  /** The wire in front of it: latency, bandwidth, bytes counted, connections. */
  readonly link: Link;
  /** May be changed while it runs. */
  readonly behaviour: Behaviour;
  authorize: Authorize;
  /** Every request, oldest first; the last 20,000. */
  readonly requests: readonly LoggedRequest[];
  /** The revision of the last write. */
  readonly resourceVersion: string;
  /** Live watches. */
  readonly watchCount: number;

  kubeconfig(options: Omit<KubeconfigOptions, "server"> & { readonly server?: string }): string;
  addToken(token: string, user: User): void;
  /** A real service-account token, as the account's `token` subresource would return it. */
  serviceAccountToken(
    namespace: string,
    name: string,
    expirationSeconds?: number,
    more?: { readonly pod?: { readonly name: string; readonly uid: string }; readonly audiences?: readonly string[] },
  ): string;

  /** Creates or replaces an object, status and all. @returns it as stored. */
  put(object: JsonObject): JsonObject;
  /** As `put`, of the object's present state with `change` merged at the top level of each field. */
  edit(kind: string, namespace: string, name: string, change: (object: JsonObject) => JsonObject): JsonObject;
  /** Deletes at once. @returns whether there was one. */
  remove(kind: string, namespace: string, name: string): boolean;
  object(kind: string, namespace: string, name: string): JsonObject | undefined;
  objects(kind: string): JsonObject[];
  /** How many logged requests match, from `since` (an index into `requests`, or 0). */
  count(match: Match, since?: number): number;

  /** Resets every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Connections stay, nothing moves. */
  blackHole(): void;
  /** Undoes cut, blackHole, slow and every order not yet taken. */
  heal(): Promise<void>;
  /** The next `times` matching requests get this answer. */
  nextStatus(status: ScriptedStatus, match?: Match, times?: number): void;
  /** Something else answers for it: matching requests, for good or the next `times`. */
  answerInstead(answer: ForeignAnswer, match?: Match, times?: number): void;
  /** etcd stops answering: what needs it waits for `heal`; watches, discovery, health and lists "any" go on. */
  freezeStorage(): void;
  /** The next `times` matching answers stop for good in the middle of their body, the connection open. */
  stallMidBody(match?: Match, times?: number): void;
  /** The next matching answer (a LIST by default) breaks off in the middle. */
  truncateNextList(match?: Match): void;
  /** Every matching request waits; 0 ends it. */
  slow(ms: number, match?: Match): void;
  /** Live watches get half an event, then their connection breaks. @returns how many. */
  cutWatchFrameInHalf(match?: Match): number;
  /** Live watches get bytes that are no event. @returns how many. */
  invalidFrame(match?: Match): number;
  /** Live watches end with an ERROR event. @returns how many. */
  failWatches(
    status?: { readonly code: number; readonly reason: string; readonly message: string },
    match?: Match,
  ): number;
  /** Live watches end cleanly. @returns how many. */
  endWatches(match?: Match): number;
  /** Live watches get a bookmark now. @returns how many. */
  sendBookmarks(match?: Match): number;
  /** Forgets the history: a watch from before now is Expired. */
  compact(): void;
  /** etcd comes back from a backup `changes` writes old; every connection breaks. */
  rollback(changes: number): void;
  /** Stops for good; the same as disposing. */
  stop(): Promise<void>;
}

/** Starts a server. @throws if the port is taken. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = new Server(options);
  await server.start();
  return server;
}

class Server implements ApiServer {
  readonly cluster: Cluster;
  readonly behaviour: Behaviour;
  readonly requests: LoggedRequest[] = [];
  authorize: Authorize;
  link!: Link;
  readonly #options: ApiServerOptions;
  readonly #world: World;
  readonly #faults = new Faults();
  readonly #tokenTable = new Map<string, User>();
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #stalled = new Set<Exchange>();
  #http!: Http2SecureServer;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.cluster = options.cluster ?? mintCluster();
    this.authorize = options.authorize ?? (() => true);
    this.behaviour = {
      bookmarkIntervalMs: options.bookmarkIntervalMs ?? 60_000,
      expiredAs: options.expiredAs ?? "event",
      compressWatchLists: options.compressWatchLists ?? true,
      streamingLists: options.streamingLists ?? true,
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
    const { cert, key } = this.cluster.servingCertificate([...new Set(names)]);
    this.#http = createSecureServer({
      allowHTTP1: true,
      requestCert: true,
      rejectUnauthorized: false,
      ca: this.cluster.ca,
      cert,
      key,
    });
    this.#http.on(
      "request",
      (request: Http2ServerRequest, response: Http2ServerResponse) => void this.#serve(request, response),
    );
    this.#http.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#upgrade(request, socket, head),
    );
    this.#http.on("session", (session: ServerHttp2Session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
      session.on("error", () => {});
    });
    this.#http.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
    });
    this.#http.on("tlsClientError", () => {});
    await new Promise<void>((resolve, reject) => {
      this.#http.once("error", reject);
      this.#http.listen(0, "127.0.0.1", resolve);
    });
    const inner = (this.#http.address() as { port: number }).port;
    this.link = await startLink({ to: { port: inner }, host, port });
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
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 200))]);
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
    const logged = this.#log(exchange);
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
    const delayMs = this.#faults.takeDelay(info);
    if (delayMs !== undefined) await Bun.sleep(delayMs);
    const scripted = this.#faults.takeStatus(info);
    if (scripted) return sendScripted(exchange, scripted);
    exchange.bodyFault = this.#faults.takeBody(info);
    const allowsAnonymous = this.#options.allowsAnonymous === true || isPublic(info.path);
    exchange.user = authenticate(exchange, { table: this.#tokenTable, tokens: this.#world.tokens, allowsAnonymous });
    logged.user = exchange.user.name;
    this.#requireAllowed(exchange);
    if (!info.resource) {
      if (this.#faults.isFrozen && /^\/(livez|readyz|healthz)(\/etcd)?$/.test(info.path)) {
        // Its own check of etcd has two seconds.
        await Bun.sleep(2_000);
        return exchange.sendText(500, "internal server error: etcd failed: context deadline exceeded\n");
      }
      return serveDiscovery(this.#world, exchange);
    }
    const isFromCache = info.verb !== "create" && exchange.query.get("resourceVersion") === "0";
    await this.#faults.storage({ ...info, isFromCache });
    await this.#serveResource(exchange);
  }

  #requireAllowed({ user, info }: Exchange): void {
    if (isPublic(info.path) || this.authorize(user, info)) return;
    if (!info.resource)
      throw new Failure(
        statusObject(403, "Forbidden", `forbidden: User "${user.name}" cannot ${info.verb} path "${info.path}"`, {}),
      );
    const { group, resource, subresource, namespace, name, verb } = info;
    const what = subresource ? `${resource}/${subresource}` : resource;
    const where = namespace ? `in the namespace "${namespace}"` : "at the cluster scope";
    throw forbidden(
      { group, resource },
      name,
      `User "${user.name}" cannot ${verb} resource "${what}" in API group "${group}" ${where}`,
    );
  }

  async #serveResource(exchange: Exchange): Promise<void> {
    const { info, method } = exchange;
    const resource = this.#world.resources.find(info.group, info.version, info.resource);
    if (!resource && !this.#world.resources.hasGroup(info.group)) return exchange.sendText(404, "404 page not found\n");
    const isUnscopedName = resource?.isNamespaced && !info.namespace && info.path.split("/").at(-1) !== info.resource;
    if (!resource || isUnscopedName) throw noSuchResource();
    const isCollection = !info.name || !info.path.endsWith(`/${info.name}`);
    if (
      (method === "POST" && resource.isNamespaced && !info.namespace) ||
      (isCollection && !info.subresource && ["PUT", "PATCH"].includes(method))
    )
      throw methodNotAllowed();
    if (resource.isReview) {
      if (method !== "POST") throw methodNotAllowed();
      return serveReview(
        exchange,
        resource,
        this.authorize,
        (token, audiences) => this.#tokenTable.get(token) ?? this.#world.tokens.judge(token, audiences),
      );
    }
    if (info.subresource && info.subresource !== "status") return this.#serveSubresource(exchange, resource);
    if (info.subresource === "status" && !resource.hasStatus) throw noSuchResource();
    switch (info.verb) {
      case "get":
        return serveGet(this.#world, exchange, resource);
      case "list":
        return serveList(this.#world, exchange, resource);
      case "watch":
        return serveWatch(this.#world, exchange, resource);
      case "create":
        if (exchange.info.name) throw methodNotAllowed();
        return serveCreate(this.#world, exchange, resource);
      case "update":
        return serveUpdate(this.#world, exchange, resource);
      case "patch":
        return servePatch(this.#world, exchange, resource);
      case "delete":
        return serveDelete(this.#world, exchange, resource);
      case "deletecollection":
        return serveDeleteCollection(this.#world, exchange, resource);
      default:
        throw methodNotAllowed();
    }
  }

  async #serveSubresource(exchange: Exchange, resource: Resource): Promise<void> {
    const { subresource, namespace, name } = exchange.info;
    if (!resource.subresources.includes(subresource)) throw noSuchResource();
    if (subresource === "log") return serveLog(this.#world, exchange);
    if (subresource === "token" && exchange.method === "POST") return serveTokenRequest(this.#world, exchange);
    if (subresource === "eviction" && exchange.method === "POST") {
      const pod = this.#world.store.get(storageName(resource), keyOf(resource, namespace, name));
      if (!pod) throw notFound(resource, name);
      deleteObject(this.#world, resource, pod, undefined);
      return exchange.sendJson(201, { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", code: 201 });
    }
    if (["exec", "attach", "portforward"].includes(subresource)) throw badRequest("Upgrade request required");
    throw methodNotAllowed();
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => {});
    this.#sockets.add(socket as Socket);
    socket.on("close", () => this.#sockets.delete(socket as Socket));
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
    const logged = this.#log(exchange);
    try {
      exchange.user = authenticate(exchange, {
        table: this.#tokenTable,
        tokens: this.#world.tokens,
        allowsAnonymous: this.#options.allowsAnonymous === true,
      });
      logged.user = exchange.user.name;
      this.#requireAllowed(exchange);
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

  #log(exchange: Exchange): LoggedRequest {
    const { request, info } = exchange;
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value.join(", ") : String(value),
      ]),
    );
    const logged: LoggedRequest = {
      ...info,
      method: exchange.method,
      target: request.url ?? "/",
      headers,
      httpVersion: request.httpVersion,
      user: "",
      status: 0,
      startedAtMs: Date.now(),
      get bytesSent() {
        return exchange.bytesSent;
      },
    };
    this.requests.push(logged);
    if (this.requests.length > MAX_LOGGED_REQUESTS) this.requests.shift();
    return logged;
  }
}

function sendScripted(exchange: Exchange, { code, reason, message, retryAfterSeconds }: ScriptedStatus): void {
  const known: Record<number, [string, string]> = {
    401: ["Unauthorized", "Unauthorized"],
    429: ["TooManyRequests", "Too many requests, please try again later."],
    500: ["InternalError", "Internal error occurred: scripted"],
    503: ["ServiceUnavailable", "the server is currently unable to handle the request"],
    504: ["Timeout", "Timeout: request did not complete within the allotted timeout"],
  };
  const [knownReason, knownMessage] = known[code] ?? ["", "scripted"];
  const details = retryAfterSeconds === undefined ? undefined : { retryAfterSeconds };
  const headers: Record<string, string> =
    retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  exchange.sendStatus(code, statusObject(code, reason ?? knownReason, message ?? knownMessage, details), headers);
}
