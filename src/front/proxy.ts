/**
 * The way of one request: who asks, what for, and who answers.
 *
 *   gate.enter      callers/gate.ts     a caller, or 401
 *   requestInfo     request-info.ts     what the target means
 *   seats           seats.ts            at work now, or in its turn
 *   route           route.ts            one table: which way it goes
 *   gets, lists     gets.ts, lists.ts   reads: the API server, or what is kept
 *   forwarder       forward.ts          anything else, unchanged
 *   nodeWrites      node/               what the node may say while cut
 *   answerError     answer.ts           whatever is thrown becomes a Status
 */

import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { Entered, Gate } from "../callers/gate.ts";
import type { PodAccess } from "../kube/pod-access.ts";
import { prefersYaml } from "../kube/representation.ts";
import { StatusError } from "../kube/status-error.ts";
import type { Link } from "../uplink/link.ts";
import { UnsaidError, UpstreamRefusedError } from "../uplink/scope-source.ts";
import { answerError, statusOf } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import type { Forwarder } from "./forward.ts";
import type { Gets } from "./gets.ts";
import type { Lessons } from "./lessons.ts";
import type { Lists } from "./lists.ts";
import type { NodeWrite, NodeWriter } from "./node-write.ts";
import { asKubeletSees } from "./pod-view.ts";
import { requestInfo, type RequestInfo } from "./request-info.ts";
import { route } from "./route.ts";
import { Seats } from "./seats.ts";
import { refuseSecrets } from "./secrets.ts";
import { bodyIsOver } from "./sent-body.ts";
import { refuseUpgrade, tunnelUpgrade, type UpgradeParts } from "./upgrade.ts";
import { wordsFor } from "./words.ts";

/** What the proxy is made of. */
export interface ProxyParts {
  readonly gate: Gate;
  readonly link: Link;
  readonly forwarder: Forwarder;
  readonly scopes: Scopes;
  readonly gets: Gets;
  readonly lists: Lists;
  readonly lessons: Lessons;
  readonly nodeWrites: NodeWriter;
  /** Resolves when the node's writes may go up again after the link's return. */
  readonly mayWrite: () => Promise<void>;
  /** Why nobody is answered on this device, for who asks; undefined while it is the node. */
  readonly keptOut: () => string | undefined;
  /** Whether the cut has lasted so long that Secrets are for the node alone. */
  readonly haveSecretsEnded: () => boolean;
  readonly upgrades: UpgradeParts;
  /** Told of every request that ended in 401 or 403: what its caller had proven is in doubt. */
  readonly onRefused: (principal: string, status: 401 | 403, info: RequestInfo) => void;
  /** How this node's pods find the API server; undefined where they go their own way. */
  readonly podAccess: () => PodAccess | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Counts an answered request for metrics. */
  readonly observe: (
    verb: string,
    code: number,
    seconds: number,
    asked?: { readonly principal: string; readonly info: RequestInfo },
  ) => void;
}

/** A watch that sent nothing for so long has told what there was; so has one that is not answered at all for longer. */
const QUIET_MS = 50;
const UNANSWERED_MS = 1_000;
const MAX_INITIAL_MS = 10_000;

/** Serves exchanges. */
export class Proxy {
  readonly #seats: Seats;
  #isStopping = false;

  constructor(private readonly parts: ProxyParts) {
    this.#seats = new Seats(parts.clock);
  }

  /**
   * From now on every request is told to come back in a second. A client whose
   * watch has just ended asks again within a millisecond, over the same
   * connection: a watch that begins and breaks off at once would make client-go
   * list everything, 429 makes it wait with its resourceVersion in hand.
   */
  stop(): void {
    this.#isStopping = true;
  }

  /** Answers one request; never throws. */
  async handle(exchange: Exchange): Promise<void> {
    const startedMs = this.parts.clock.monotonicMs();
    let verb = "unknown";
    let leave: (() => void) | undefined;
    let asked: { readonly principal: string; readonly info: RequestInfo } | undefined;
    try {
      if (this.#isStopping)
        throw new StatusError({
          code: 429,
          reason: "TooManyRequests",
          message: "Holdfast is stopping; try again",
          retryAfterSeconds: 1,
        });
      this.#refuseKeptOut();
      const entering = this.parts.gate.enter(exchange);
      const caller = entering instanceof Promise ? await entering : entering;
      const info = requestInfo(exchange.method, exchange.target);
      verb = info.verb;
      if (!caller.isImpersonating && !caller.isStranger) asked = { principal: caller.principal, info };
      const seat = this.#seats.take(caller, info, exchange);
      leave = seat instanceof Promise ? await seat : seat;
      if (leave !== undefined) leave = this.#atWork(exchange, info, leave);
      await this.#serve(asKubeletSees(exchange, info, caller, this.parts.podAccess()), info, caller);
    } catch (error) {
      const isSaid = error instanceof UpstreamRefusedError || error instanceof UnsaidError;
      if (!isSaid && statusOf(error).code === 500)
        this.parts.log.error("request failed", { verb, error: String(error) });
      answerError(exchange, error);
    } finally {
      leave?.();
      bodyIsOver(exchange);
      const { statusCode } = exchange.response;
      if (asked !== undefined && (statusCode === 401 || statusCode === 403))
        this.parts.onRefused(asked.principal, statusCode, asked.info);
      this.parts.observe(verb, statusCode, (this.parts.clock.monotonicMs() - startedMs) / 1_000, asked);
    }
  }

  /** Joins an upgraded connection with the API server; refusals are written as plain HTTP/1.1. */
  async upgrade(exchange: Exchange, client: Duplex, early: Uint8Array): Promise<void> {
    client.on("error", () => client.destroy());
    try {
      this.#refuseKeptOut();
      const caller = await this.parts.gate.enter(exchange);
      requestInfo(exchange.method, exchange.target);
      if (!this.parts.link.isOnline()) {
        throw new StatusError({
          code: 503,
          reason: "ServiceUnavailable",
          message: "Cannot connect: the API server cannot be reached",
        });
      }
      await tunnelUpgrade(this.parts.upgrades, exchange, caller, client, early).catch(async (error) => {
        if (error instanceof UpstreamRefusedError && error.status === 401)
          await this.parts.lessons.unauthorized(caller);
        throw error;
      });
    } catch (error) {
      refuseUpgrade(client, error);
    }
  }

  /** @throws {StatusError} 403: nothing that this device has is its own to tell. */
  #refuseKeptOut(): void {
    const message = this.parts.keptOut();
    if (message !== undefined) throw new StatusError({ code: 403, reason: "Forbidden", message });
  }

  /** @returns what is to be called when the request was handled. */
  #atWork(exchange: Exchange, info: RequestInfo, leave: () => void): () => void {
    const { widths } = this.#seats;
    widths.begun(info, exchange.response);
    const ended = () => {
      widths.ended(exchange.response);
      leave();
    };
    return info.verb === "watch" ? this.#untilQuiet(exchange, ended) : ended;
  }

  /**
   * A watch keeps its seat while it tells what there is: until it falls silent,
   * ends, or has had ten seconds.
   *
   * @returns what does nothing: its answer outlasts the handling of its request.
   */
  #untilQuiet({ response, signal }: Exchange, leave: () => void): () => void {
    const { clock } = this.parts;
    const startedMs = clock.monotonicMs();
    let sentBytes = 0;
    const look = () => {
      const forMs = clock.monotonicMs() - startedMs;
      const isQuiet = response.sentBytes === sentBytes && (sentBytes > 0 || forMs >= UNANSWERED_MS);
      if (isQuiet || response.writableEnded || signal.aborted || forMs >= MAX_INITIAL_MS) return leave();
      sentBytes = response.sentBytes;
      clock.after(QUIET_MS, look);
    };
    clock.after(QUIET_MS, look);
    return () => {};
  }

  #serve(exchange: Exchange, info: RequestInfo, caller: Entered): Promise<void> | void {
    const { gets, link, lists } = this.parts;
    if (!link.isOnline() && !caller.isOwn && this.parts.haveSecretsEnded()) refuseSecrets(info);
    const isYaml = prefersYaml(exchange.header("accept"));
    const way = route(info, caller, exchange.accepted, { isPretty: isPretty(exchange, info), isYaml });
    switch (way.kind) {
      case "node-write":
        return this.#nodeWrite(exchange, info, caller, way.write);
      case "forward":
        return this.#forward(exchange, info, caller);
      case "recorded":
        return gets.get(exchange, info, caller, way.isObject);
      case "watch":
        return lists.watch(exchange, info, caller, way);
      case "list-scope":
        if (link.isOnline()) return lists.fromScope(exchange, info, caller, way.identity, way.notOlderThan);
        return lists.cut(exchange, info, caller, way.identity);
      case "list-forward":
        return lists.forwarded(exchange, info, caller, way);
    }
  }

  async #nodeWrite(exchange: Exchange, info: RequestInfo, caller: Entered, write: NodeWrite): Promise<void> {
    const { lessons, nodeWrites } = this.parts;
    if (WAITING_WRITES.has(write)) await this.parts.mayWrite();
    const tap = lessons.tap(caller, () => lessons.ofWrite(info, caller));
    return nodeWrites.serve(exchange, info, caller, write, tap);
  }

  async #forward(exchange: Exchange, info: RequestInfo, caller: Entered): Promise<void> {
    const { forwarder, lessons, scopes } = this.parts;
    if (caller.nodeName !== undefined && info.verb !== "get") await this.parts.mayWrite();
    return forwarder.forward(exchange, caller, {
      tap: lessons.tap(caller, () => lessons.ofWrite(info, caller)),
      hasLongAnswer: info.verb === "deletecollection",
      words: () => wordsFor(info, caller, scopes),
    });
  }
}

/** Node writes that wait, after a cut, until what the cloud decided meanwhile has come down. */
const WAITING_WRITES: ReadonlySet<NodeWrite> = new Set<NodeWrite>(["status", "lease", "node"]);

/** The API server indents for curl and Wget, and when asked. */
function isPretty(exchange: Exchange, { query }: RequestInfo): boolean {
  const pretty = query.get("pretty");
  if (pretty !== null) return pretty !== "false" && pretty !== "0";
  return /^(curl|Wget)\//.test(exchange.header("user-agent") ?? "");
}
