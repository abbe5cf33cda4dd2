/**
 * One life of Holdfast with the rooms it has: front, callers, node, cache,
 * store and uplink as `src/daemon` builds them, from the exchange down to the
 * request that goes up. Only sockets are left out, at both ends.
 *
 * It has the face of `NodeProcess`, so that the same clients, weather and
 * checks hold it to the same promises.
 */

import { signalOf } from "../../src/base/cancel.ts";
import type { Clock } from "../../src/base/clock.ts";
import { Conditions } from "../../src/base/conditions.ts";
import { silentLog } from "../../src/base/log.ts";
import type { WatchSink } from "../../src/cache/frames.ts";
import type { WatchRequest } from "../../src/cache/local-watches.ts";
import type { Scopes } from "../../src/cache/scopes.ts";
import type { ScopeLimits } from "../../src/cache/scope-parts.ts";
import { identityText } from "../../src/store/contract.ts";
import type { Config } from "../../src/config/config.ts";
import type { Ground } from "../../src/daemon/ground.ts";
import { DaemonMetrics } from "../../src/daemon/metrics.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import type { Peer } from "../../src/callers/identify.ts";
import type { Credential } from "../../src/kube/credential.ts";
import { ClientExchange, type Exchange } from "../../src/front/exchange.ts";
import type { Reply, ReplyHeaders } from "../../src/front/reply.ts";
import { RequestBody } from "../../src/front/request-body.ts";
import { readRequestHead } from "../../src/http1/request-head.ts";
import type { ScopeIdentity, Store } from "../../src/store/contract.ts";
import type { Fleet } from "../../src/uplink/fleet.ts";
import type { Link } from "../../src/uplink/link.ts";
import type { VirtualClock } from "./clock.ts";
import type { Code } from "./code.ts";
import type { Disk } from "./disk.ts";
import { LocalError, nextOrder, readObject, type ReadList, type ReadObject } from "./node-process.ts";
import type { Wire } from "./way-wire.ts";

/** What a process is made of. */
export interface WayParts {
  readonly code: Code;
  readonly clock: VirtualClock;
  readonly wire: Pick<Wire, "send">;
  /** Whose process it is and who asks it, where both are one node. Default: our own token, and callers on tokens. */
  readonly node?: { readonly credential: Credential; readonly peer: Peer; readonly fleetSize: number | undefined };
  readonly disk: Disk;
  readonly random: () => number;
  readonly limits: ScopeLimits & { readonly storeMaxBytes: number };
  readonly onInternalError: (error: unknown) => void;
  readonly count: (what: string) => void;
  readonly trace: (text: () => string) => void;
}

/** What came back for one request. */
export interface LocalAnswer {
  readonly status: number;
  readonly headers: ReplyHeaders;
  readonly text: string;
}

const CA = mintCluster().ca;
/** Who shows no certificate. */
const STRANGER: Peer = { authorized: false, authorizationError: undefined, getPeerCertificate: () => undefined };

/** One life of Holdfast, its real rooms. */
export class WayProcess {
  readonly link: Link;
  readonly store: Store;
  readonly scopes: Scopes;
  readonly fleet: Fleet;
  isStopping = false;
  readonly #proxy: { handle(exchange: Exchange): Promise<void>; stop(): void };
  readonly #stopping: (() => void)[] = [];
  readonly #stopped = new AbortController();
  readonly #pending = new Map<(error: Error) => void, number>();
  readonly #replies = new Set<SimReply>();
  /** The end of its sockets. */
  readonly #gone = new AbortController();
  #isAlive = true;

  constructor(private readonly parts: WayParts) {
    const clock = parts.clock.ofProcess(() => this.#isAlive);
    this.store = named(parts.disk.open(clock));
    const ground = this.#ground(clock);
    const { code } = parts;
    const uplink = code.buildUplink(ground);
    this.link = uplink.link;
    this.fleet = uplink.fleet;
    const copies = code.buildCopies(ground, uplink, {
      turn: (identity) => node.reconnect.turn(identity),
      isBarred: () => false,
      isVoid: (localVersion) => node.overlays.isVoid(localVersion),
    });
    const node = code.buildNode(ground, uplink, copies);
    const callers = code.buildCallers(ground, uplink, copies);
    const front = code.buildFront(ground, { uplink, copies, node, callers });
    this.scopes = copies.scopes;
    this.#proxy = front.proxy;
    this.link.onChange((isOnline) => parts.trace(() => (isOnline ? "link up" : "link lost")));
    const own = front.parts.filter((part) => part !== front.listeners);
    for (const part of [copies.part, node.part, callers.part, uplink.part, ...own]) {
      void part.start?.();
      this.#stopping.unshift(() => part.drain?.());
    }
  }

  #ground(clock: Clock): Ground {
    const { parts } = this;
    return {
      config: configOf(parts.limits, parts.node),
      clock,
      log: {
        ...silentLog,
        error: (message, fields) =>
          this.isStopping || !this.#isAlive || parts.onInternalError(`${message} ${JSON.stringify(fields)}`),
      },
      random: parts.random,
      version: "sim",
      signal: this.#stopped.signal,
      startedAtMs: clock.nowMs(),
      metrics: new DaemonMetrics(),
      conditions: new Conditions(clock),
      store: this.store as Ground["store"],
      // Certificates are not this world's.
      renewals: { trustedAtMs: 0, lost() {} } as never,
      send: (_server, request) => {
        const signal = AbortSignal.any([signalOf(request.signal), this.#gone.signal]);
        return this.#whileAlive(parts.wire.send({ ...request, signal }));
      },
    };
  }

  /** The moment since which the longest waiting local request waits. */
  get waitingSinceMs(): number | undefined {
    return this.#pending.values().next().value;
  }

  /** Gone without a word: nothing of it goes up any more, and nothing reaches a client. */
  crash(): void {
    this.#isAlive = false;
    for (const reply of this.#replies) reply.leave();
    this.#gone.abort(new Error("process gone"));
    for (const reject of this.#pending.keys()) reject(new LocalError(0, "connection reset"));
  }

  /** Stops as on SIGTERM. */
  stop(): void {
    this.isStopping = true;
    for (const drain of this.#stopping) drain();
    this.#stopped.abort();
    this.store.settle();
    this.store.close();
    this.crash();
  }

  /** LIST: "" asks for the most recent, "0" for any, N for one not older. */
  async list(identity: ScopeIdentity, resourceVersion: string): Promise<ReadList> {
    const asked = nextOrder();
    const { text } = await this.#read(identity, pathOf(identity, "", { resourceVersion }));
    const list = parsed(text);
    const items = (list["items"] as Parameters<typeof readObject>[0][]).map((item) => ({ ...readObject(item), asked }));
    return { revision: Number((list["metadata"] as { resourceVersion: string }).resourceVersion), items };
  }

  /** GET of one object. @returns undefined for the API server's own 404. */
  async get(
    identity: ScopeIdentity,
    namespace: string,
    name: string,
    resourceVersion: string,
  ): Promise<{ readonly object: ReadObject | undefined; readonly from: ScopeIdentity | undefined }> {
    const asked = nextOrder();
    const path = pathOf({ ...identity, namespace, fieldSelector: "", labelSelector: "" }, name, { resourceVersion });
    const { status, text } = await this.request(tokenOf(identity), "GET", path);
    if (status === 404) return { object: undefined, from: undefined };
    if (status !== 200) throw new LocalError(status, text);
    return { object: { ...readObject(parsed(text) as never), asked }, from: undefined };
  }

  /** WATCH; resolves when the head is out. @returns hangs up. */
  async watch(
    identity: ScopeIdentity,
    request: WatchRequest,
    sink: WatchSink,
    opened: (isForwarded: boolean) => void,
  ): Promise<() => void> {
    const { resourceVersion, sendInitialEvents, timeoutMs } = request;
    const query = {
      watch: "true",
      allowWatchBookmarks: "true",
      timeoutSeconds: String(Math.ceil(timeoutMs / 1_000)),
      resourceVersion,
      ...(sendInitialEvents ? { sendInitialEvents: "true", resourceVersionMatch: "NotOlderThan" } : {}),
    };
    const head = Promise.withResolvers<LocalAnswer | undefined>();
    const reply = new SimReply({
      opened: (headers) => {
        // The API server signs its own answers.
        opened(headers["audit-id"] !== undefined);
        head.resolve(undefined);
      },
      sink,
      ended: (answer) => head.resolve(answer),
    });
    const hangUp = this.#handle(tokenOf(identity), "GET", pathOf(identity, "", query), "", reply, head.reject);
    const refused = await head.promise;
    if (refused !== undefined) throw new LocalError(refused.status, refused.text);
    return hangUp;
  }

  /** One request of a token's holder. */
  request(token: string, method: string, target: string, body = ""): Promise<LocalAnswer> {
    const answered = Promise.withResolvers<LocalAnswer>();
    const reply = new SimReply({ opened() {}, sink: undefined, ended: answered.resolve });
    this.#handle(token, method, target, body, reply, answered.reject);
    return answered.promise;
  }

  async #read(identity: ScopeIdentity, target: string): Promise<LocalAnswer> {
    const answer = await this.request(tokenOf(identity), "GET", target);
    if (answer.status !== 200) throw new LocalError(answer.status, answer.text);
    return answer;
  }

  /** Hands an exchange in, as a connection does. @returns the client's going away. */
  #handle(
    token: string,
    method: string,
    target: string,
    body: string,
    reply: SimReply,
    reject: (error: Error) => void,
  ): () => void {
    if (!this.#isAlive) {
      reject(new LocalError(0, "connection refused"));
      return () => {};
    }
    const length = body === "" ? "" : `Content-Length: ${body.length}\r\nContent-Type: application/json\r\n`;
    const { node } = this.parts;
    const bearer = node === undefined ? `Authorization: Bearer ${token}\r\n` : "";
    const head = readRequestHead(
      `${method} ${target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n${bearer}${length}`,
    );
    const requestBody = new RequestBody(head.block, { pause() {}, resume() {}, begin() {} });
    if (body !== "") requestBody.push(Buffer.from(body));
    const exchange = new ClientExchange(head, node?.peer ?? STRANGER, requestBody, reply as unknown as Reply);
    this.#pending.set(reject, this.parts.clock.monotonicMs());
    this.#replies.add(reply);
    void reply.isOver.then(() => {
      this.#replies.delete(reply);
      this.#pending.delete(reject);
      if (reply.isBroken) reject(new LocalError(0, "broken off"));
    });
    reply.whenOpen(() => this.#pending.delete(reject));
    this.#proxy.handle(exchange).catch((error: unknown) => this.#isAlive && this.parts.onInternalError(error));
    return () => {
      reply.leave();
      exchange.leave();
    };
  }

  /** A client's credential is known from its first accepted request on: nothing to show. */
  remember(_principal: string): void {}

  /** Somebody asks for the most recent of a resource: what comes back tells how far history is. */
  wrote(resource: string, _revision: number): void {
    const all = {
      group: "",
      version: "v1",
      namespace: "",
      fieldSelector: "",
      labelSelector: "",
      representation: "json",
    };
    this.list({ ...all, principal: "token:agent", resource }, "").catch(() => {});
  }

  /** The resourceVersion that is held of a collection; 0 for none. */
  heldOf(identity: ScopeIdentity): number {
    return Number(this.scopes.find(identity)?.listed?.resourceVersion ?? 0);
  }

  /** Nobody is there to hear the answer, or that there is none, once the process is gone. */
  async #whileAlive<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } finally {
      if (!this.#isAlive) await new Promise(() => {});
    }
  }
}

/** The answer as a client without a socket takes it. */
class SimReply {
  statusCode = 200;
  headersSent = false;
  writableEnded = false;
  isBroken = false;
  /** What seats are counted by. */
  sentBytes = 0;
  #headers: ReplyHeaders = {};
  #parts: Uint8Array[] = [];
  #isBlocked = false;
  #hasLeft = false;
  readonly #drains = new Set<() => void>();
  readonly #over = Promise.withResolvers<void>();
  #onOpen = () => {};

  constructor(
    private readonly client: {
      readonly opened: (headers: ReplyHeaders) => void;
      readonly sink: WatchSink | undefined;
      readonly ended: (answer: LocalAnswer) => void;
    },
  ) {
    client.sink?.onDrain(() => {
      this.#isBlocked = false;
      for (const drained of [...this.#drains]) drained();
    });
  }

  get isOver(): Promise<void> {
    return this.#over.promise;
  }

  get writableNeedDrain(): boolean {
    return this.#isBlocked;
  }

  whenOpen(open: () => void): void {
    this.#onOpen = open;
  }

  /** The client is gone: nothing reaches it any more. */
  leave(): void {
    this.#hasLeft = true;
    this.#over.resolve();
  }

  writeHead(status: number, headers: ReplyHeaders = {}): void {
    if (this.#hasLeft) return;
    this.headersSent = true;
    this.statusCode = status;
    this.#headers = headers;
    if (this.client.sink !== undefined && status === 200) {
      this.#onOpen();
      this.client.opened(headers);
    }
  }

  flushHeaders(): void {}

  write(bytes: Uint8Array): boolean {
    this.sentBytes += bytes.length;
    if (this.#hasLeft || this.isBroken) return true;
    if (this.client.sink === undefined || this.statusCode !== 200) {
      this.#parts.push(Buffer.from(bytes));
      return true;
    }
    this.#isBlocked = !this.client.sink.write(bytes);
    return !this.#isBlocked;
  }

  end(bytes: Uint8Array | string = ""): void {
    if (this.writableEnded) return;
    if (!this.headersSent) this.writeHead(200);
    const last = typeof bytes === "string" ? Buffer.from(bytes) : bytes;
    if (last.length > 0) this.write(last);
    this.writableEnded = true;
    this.#over.resolve();
    if (this.#hasLeft) return;
    if (this.client.sink !== undefined && this.statusCode === 200) return this.client.sink.end();
    const text = Buffer.concat(this.#parts).toString("utf8");
    this.client.ended({ status: this.statusCode, headers: this.#headers, text });
  }

  destroy(): void {
    this.isBroken = true;
    this.#over.resolve();
    const isWatch = this.headersSent && this.statusCode === 200;
    if (!this.#hasLeft && isWatch) this.client.sink?.end();
  }

  on(_event: "drain", listener: () => void): void {
    this.#drains.add(listener);
  }

  once(_event: "drain", listener: () => void): void {
    const once = () => {
      this.#drains.delete(once);
      listener();
    };
    this.#drains.add(once);
  }

  off(_event: "drain", listener: () => void): void {
    this.#drains.delete(listener);
  }
}

/** Principals by their tokens' own names, whatever the store's key. */
function named(store: Store): Store {
  const known = store as Store & { proven?: unknown };
  return Object.assign(known, {
    keyedHash: (text: string) => text,
    ...(known.proven === undefined ? { proven() {}, isOthers: false, isOf: () => true } : {}),
  });
}

function configOf(limits: WayParts["limits"], node: WayParts["node"]): Config {
  return {
    upstream: {
      servers: ["https://api:6443"],
      caPem: () => CA,
      proxyFor: () => undefined,
      credential: node?.credential ?? { kind: "token", read: () => "own" },
    },
    listen: [],
    healthListen: { host: "127.0.0.1", port: 0 },
    stateDir: "",
    adminSocketPath: undefined,
    clientCaPem: () => CA,
    clients: [],
    nodeAgents: [],
    expiredTokensFor: [],
    rotatesNodeClient: false,
    place: undefined,
    servesKubelet: false,
    limits: {
      allRingsMaxBytes: 2 ** 24,
      retentionMs: 7 * 86_400_000,
      leaseIntervalMs: 0,
      podSecretsMs: 86_400_000,
      ...limits,
    },
    followed: [],
    logLevel: "info",
    podAccess: undefined,
    fleetSize: node === undefined ? 1 : node.fleetSize,
    isWitness: false,
    claimsNode: false,
  } as Config;
}

function tokenOf({ principal }: ScopeIdentity): string {
  return principal.replace(/^token:/, "");
}

/** The target of a request for a collection, or one object of it. */
export function pathOf(
  { group, version, resource, namespace, fieldSelector, labelSelector }: ScopeIdentity,
  name: string,
  query: Readonly<Record<string, string>>,
): string {
  const place = namespace === "" ? "" : `/namespaces/${namespace}`;
  const all = new URLSearchParams(
    Object.entries({ fieldSelector, labelSelector, ...query }).filter(([, text]) => text !== ""),
  );
  const text = all.toString().replaceAll("+", "%20");
  const root = group === "" ? "/api/v1" : `/apis/${group}/${version}`;
  return `${root}${place}/${resource}${name === "" ? "" : `/${name}`}${text === "" ? "" : `?${text}`}`;
}

/** What came short of the API server comes short to the client, which sees that it did. */
function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw new LocalError(0, "the answer came short");
  }
}

/** An identity as one text, for maps. */
export const collectionKey = identityText;
