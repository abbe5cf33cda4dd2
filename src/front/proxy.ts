/**
 * The way of one request: identify, understand, route, answer.
 */

import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { isLocalVersion } from "../cache/edits.ts";
import { CopyAnswer } from "../cache/copy-answer.ts";
import type { Scope } from "../cache/scope.ts";
import { PassThroughError, ScopeTooLargeError } from "../cache/scope-errors.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { Word } from "../kube/whose-word.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { StatusError, unavailable } from "../kube/status-error.ts";
import type { ScopeIdentity, Store } from "../store/contract.ts";
import { answerError, statusOf } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import type { AnswerTap, Forwarder, RefusalWords } from "./forward.ts";
import type { Entered, Gate } from "../callers/gate.ts";
import type { Caller } from "../callers/identify.ts";
import type { Link } from "../uplink/link.ts";
import type { NodeWrite, NodeWriter } from "./node-write.ts";
import type { Refusals } from "../callers/refusals.ts";
import { refuseSecrets } from "./secrets.ts";
import { requestInfo, type RequestInfo } from "./request-info.ts";
import { UnsaidError, UpstreamRefusedError } from "../uplink/scope-source.ts";
import { prefersJson, route, type Route } from "./route.ts";
import type { OwnWrites } from "./own-writes.ts";
import type { Recordings } from "./recordings.ts";
import { prefersYaml } from "../kube/representation.ts";
import { objectAsked, type CopyServer } from "./serve.ts";
import { CallerTap } from "./caller-tap.ts";
import { ListTap, RecordTap, type RefusedStatus, type OnResourceVersion } from "./taps.ts";
import { keptInstead, refusalWords } from "./words.ts";
import { leavesObject, WriteTap } from "./write-tap.ts";
import { refuseUpgrade, tunnelUpgrade, type UpgradeParts } from "./upgrade.ts";

/** What the proxy is made of. */
export interface ProxyParts {
  readonly gate: Gate;
  readonly link: Link;
  readonly forwarder: Forwarder;
  readonly scopes: Scopes;
  readonly copies: CopyServer;
  readonly recordings: Recordings;
  readonly writes: OwnWrites;
  readonly nodeWrites: NodeWriter;
  /** Resolves when the node's writes may go up again after the link's return. */
  readonly mayWrite: () => Promise<void>;
  /** Whether the cut has lasted so long that Secrets are for the node alone. */
  readonly haveSecretsEnded: () => boolean;
  readonly store: Store;
  readonly upgrades: UpgradeParts;
  readonly refusals: Refusals;
  /** Told of every request that ended in 401 or 403: what its caller had proven is in doubt. */
  readonly onRefused: (principal: string, status: 401 | 403, info: RequestInfo) => void;
  readonly clock: Clock;
  readonly log: Log;
  /** Counts an answered request for metrics. */
  readonly observe: (verb: string, code: number, seconds: number) => void;
}

/** Serves exchanges. */
export class Proxy {
  #isStopping = false;
  /** After the client has its answer: what is learned from it must not cost it a millisecond. */
  readonly #later = (task: () => void): void => void this.parts.clock.after(0, task);

  constructor(private readonly parts: ProxyParts) {}

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
    let asked: { readonly principal: string; readonly info: RequestInfo } | undefined;
    try {
      if (this.#isStopping)
        throw new StatusError({
          code: 429,
          reason: "TooManyRequests",
          message: "Holdfast is stopping; try again",
          retryAfterSeconds: 1,
        });
      const caller = await this.parts.gate.enter(exchange);
      const info = requestInfo(exchange.method, exchange.target);
      verb = info.verb;
      if (!caller.isImpersonating && !caller.isStranger) asked = { principal: caller.principal, info };
      await this.#serve(exchange, info, caller);
    } catch (error) {
      const isSaid = error instanceof UpstreamRefusedError || error instanceof UnsaidError;
      if (!isSaid && statusOf(error).code === 500)
        this.parts.log.error("request failed", { verb, error: String(error) });
      answerError(exchange, error);
    } finally {
      const { statusCode } = exchange.response;
      if (asked !== undefined && (statusCode === 401 || statusCode === 403))
        this.parts.onRefused(asked.principal, statusCode, asked.info);
      this.parts.observe(verb, statusCode, (this.parts.clock.monotonicMs() - startedMs) / 1_000);
    }
  }

  /** Joins an upgraded connection with the API server; refusals are written as plain HTTP/1.1. */
  async upgrade(exchange: Exchange, client: Duplex, early: Uint8Array): Promise<void> {
    client.on("error", () => client.destroy());
    try {
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
        if (error instanceof UpstreamRefusedError && error.status === 401) await this.#refused(401, caller, undefined);
        throw error;
      });
    } catch (error) {
      refuseUpgrade(client, error);
    }
  }

  async #serve(exchange: Exchange, info: RequestInfo, caller: Entered): Promise<void> {
    const { forwarder, link } = this.parts;
    if (!link.isOnline() && !caller.isOwn && this.parts.haveSecretsEnded()) refuseSecrets(info);
    const isYaml = prefersYaml(exchange.header("accept"));
    const way = route(info, caller, exchange.accepted, { isPretty: isPretty(exchange, info), isYaml });
    switch (way.kind) {
      case "node-write":
        if (WAITING_WRITES.has(way.write)) await this.parts.mayWrite();
        return this.parts.nodeWrites.serve(
          exchange,
          info,
          caller,
          way.write,
          this.#tap(caller, () => this.#writeTap(info, caller)),
        );
      case "forward":
        if (caller.nodeName !== undefined && info.verb !== "get") await this.parts.mayWrite();
        return forwarder.forward(exchange, caller, {
          tap: this.#tap(caller, () => this.#writeTap(info, caller)),
          hasLongAnswer: info.verb === "deletecollection",
          words: this.#words(info, caller),
        });
      case "recorded":
        return this.#recorded(exchange, info, caller, way.isObject);
      case "watch":
        return this.#watch(exchange, info, caller, way);
      case "list-scope":
        if (link.isOnline()) return this.#listFromScope(exchange, info, caller, way.identity, way.notOlderThan);
        return this.#listCut(exchange, info, caller, way.identity);
      case "list-forward":
        return this.#listForwarded(exchange, info, caller, way);
    }
  }

  /** There is neither an API server nor a copy. */
  #unanswered(info: RequestInfo, caller: Caller): StatusError {
    const { asked, instead } = this.#words(info, caller);
    return unavailable(`Cannot ${asked}: the API server cannot be reached; ${instead?.() ?? "no copy is kept"}`);
  }

  /** What is said of a request that nobody answers. */
  #words(info: RequestInfo, { principal }: Caller): RefusalWords {
    if (info.resource === "" || info.subresource !== "") return refusalWords(info);
    const { group, version, resource } = info;
    return {
      ...refusalWords(info),
      instead: () => keptInstead(info, this.parts.scopes.of(principal, group, version, resource)),
    };
  }

  #listCut(exchange: Exchange, info: RequestInfo, caller: Caller, identity: ScopeIdentity): Promise<void> {
    const answer = this.parts.copies.answerFor(identity, exchange);
    if (answer === undefined) throw this.#unanswered(info, caller);
    return this.parts.copies.list(exchange, info, answer);
  }

  async #listFromScope(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    identity: ScopeIdentity,
    notOlderThan: string,
  ): Promise<void> {
    const { copies } = this.parts;
    const isNewEnough = ({ servedVersion }: Scope) =>
      notOlderThan === "0" || compareResourceVersions(servedVersion, notOlderThan) >= 0;
    const within = copies.within(identity);
    if (within !== undefined && isNewEnough(within.scope)) return copies.list(exchange, info, within);
    const ended = this.parts.gate.lend(caller);
    const scope = ended === undefined ? undefined : this.parts.scopes.open(identity);
    if (scope === undefined || scope.isOversize) return this.#forwardUnkept(exchange, info, caller, ended);
    try {
      await scope.ensureFresh().finally(() => this.#strangerEnded(scope, ended));
    } catch (error) {
      if (error instanceof ScopeTooLargeError) return this.#forwardUnkept(exchange, info, caller);
      await this.#refusedBy(error, caller, identity);
      const kept = copies.answerFor(identity, exchange);
      if (error instanceof StatusError && kept !== undefined) return copies.list(exchange, info, kept);
      throw error;
    }
    if (!isLocalVersion(notOlderThan) && !isNewEnough(scope) && this.parts.link.isOnline()) {
      return this.#listForwarded(exchange, info, caller, {
        identity,
        learns: "use",
        isRecent: false,
      });
    }
    return copies.list(exchange, info, copies.answerOf(scope, exchange));
  }

  #listForwarded(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    { identity, learns, isRecent }: Omit<Extract<Route, { kind: "list-forward" }>, "kind">,
  ): Promise<void> {
    const { copies, forwarder, link, scopes } = this.parts;
    const onRefused = (status: RefusedStatus) => this.#refused(status, caller, identity);
    const onVersion = isRecent ? this.#rollbackWatch(info) : undefined;
    const listTap = () => {
      const isOwn = link.isOnline() && learns !== "nothing" && copies.within(identity) === undefined;
      const scope = isOwn ? scopes.open(identity) : undefined;
      return new ListTap(scope, learns === "answer" ? scope?.adopt() : undefined, onRefused, onVersion);
    };
    const find = () => {
      const answer = copies.answerFor(identity, exchange);
      return answer === undefined ? undefined : () => copies.list(exchange, info, answer);
    };
    const isJsonPreferred = identity.representation === "json" && exchange.accepted[0]?.format === "protobuf";
    return forwarder.forward(exchange, caller, {
      ...(isJsonPreferred ? { accept: "application/json" } : {}),
      words: this.#words(info, caller),
      tap: this.#tap(caller, listTap),
      fallback: { find },
    });
  }

  async #watch(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    { identity, isKnown }: { readonly identity: ScopeIdentity; readonly isKnown: boolean },
  ): Promise<void> {
    const { copies, link, scopes } = this.parts;
    if (link.isOnline() && !isKnown) return this.#forwardUnkept(exchange, info, caller);
    const at = info.query.get("resourceVersion") ?? "";
    const ended = this.parts.gate.lend(caller);
    const own = () => {
      const scope = ended === undefined ? undefined : scopes.open(identity);
      return scope === undefined || scope.isOversize ? undefined : new CopyAnswer(scope);
    };
    const isOnline = link.isOnline();
    const answer = isOnline ? (copies.within(identity, at) ?? own()) : copies.answerFor(identity, exchange, at);
    if (isOnline && answer === undefined) return this.#forwardUnkept(exchange, info, caller, ended);
    if (answer === undefined) throw this.#unanswered(info, caller);
    try {
      await copies.watch(exchange, info, answer).finally(() => this.#strangerEnded(answer.scope, ended));
    } catch (error) {
      if (error instanceof PassThroughError) return this.#forwardUnkept(exchange, info, caller);
      await this.#refusedBy(error, caller, identity);
      // Just now the link was thought to stand.
      const isLost = isOnline && error instanceof StatusError && error.status.code === 503;
      const kept = isLost ? copies.answerFor(identity, exchange, at) : undefined;
      if (kept === undefined) throw error;
      await copies.watch(exchange, info, kept);
    }
  }

  async #recorded(exchange: Exchange, info: RequestInfo, caller: Entered, isObject: boolean): Promise<void> {
    const { copies, forwarder } = this.parts;
    const { refusals } = this.parts;
    const kept = () =>
      refusals.isRefused(caller.principal, info)
        ? undefined
        : copies.kept(exchange, info, caller, isObject, refusals.doubtedAtMs(caller.principal, info));
    const isProven = caller.isOwn || refusals.isProven(caller.principal, info);
    if (isObject && isProven && info.query.get("resourceVersion") === "0" && !prefersYaml(exchange.header("accept"))) {
      const live = copies.findObject(exchange, info, caller, (scope) => scope.state === "live");
      if (live !== undefined) return copies.object(exchange, live);
    }
    return forwarder.forward(exchange, caller, {
      ...(isObject && prefersJson(info, exchange.accepted) && exchange.accepted[0]?.format === "protobuf"
        ? { accept: "application/json" }
        : {}),
      words: this.#words(info, caller),
      tap: this.#tap(caller, () => this.#recordTap(exchange, info, caller, isObject)),
      fallback: { find: kept },
    });
  }

  /** What an answer to this caller is learned from with. */
  #tap(caller: Entered, make: () => AnswerTap): AnswerTap {
    const { gate } = this.parts;
    const isUnknown = caller.isStranger && !caller.isImpersonating;
    const onRefused = isUnknown ? () => void gate.refused(caller) : undefined;
    return new CallerTap(() => gate.accepted(caller), onRefused, make);
  }

  /** A stranger that got nothing leaves nothing. */
  #strangerEnded(scope: Scope, ended: (() => void) | undefined): void {
    ended?.();
    this.parts.scopes.dismiss(scope);
  }

  /** To the API server and back, whoever asks: nothing of the answer is kept. */
  #forwardUnkept(exchange: Exchange, info: RequestInfo, caller: Caller, ended?: () => void): Promise<void> {
    ended?.();
    return this.parts.forwarder.forward(exchange, caller, { words: this.#words(info, caller) });
  }

  #recordTap(exchange: Exchange, info: RequestInfo, caller: Entered, isObject: boolean): RecordTap {
    const { copies, recordings, refusals, writes } = this.parts;
    const best = exchange.accepted.slice(0, 1);
    return new RecordTap({
      later: this.#later,
      keep: (answer) => recordings.keep(exchange, info, caller.principal, answer),
      isKept: () =>
        isObject &&
        copies.findObject({ ...exchange, accepted: best }, info, caller, (scope) => scope.state === "live") !==
          undefined,
      onRefused: async (status) => {
        if (status === 401) return this.#refused(401, caller, undefined);
        const isKept = copies.kept(exchange, info, caller, isObject) !== undefined;
        await refusals.objectRefused(caller.principal, info, isKept);
      },
      onAllowed: () => refusals.allowed(caller.principal, info),
      onGone: () => {
        refusals.objectGone(caller.principal, info, recordings.find(exchange, info, caller.principal) !== undefined);
        if (isObject) writes.withdraw(objectAsked(info, caller));
      },
    });
  }

  /** What a write's answer leaves. Of where history stands it tells nothing: a write that changed nothing is answered with the object as old as it is. */
  #writeTap(info: RequestInfo, caller: Entered): AnswerTap {
    const { recordings, writes } = this.parts;
    const onStatus = (status: number, word: Word) => {
      if (status === 401 && word === "refusal") void this.#refused(401, caller, undefined);
    };
    if (caller.isImpersonating || !leavesObject(info)) return new WriteTap({ onStatus, later: this.#later });
    const onWritten = (contentType: string, body: Uint8Array) => {
      const written = writes.answered({ ...objectAsked(info, caller), verb: info.verb }, contentType, body);
      if (written?.isGone === true) recordings.forget(caller.principal, info);
    };
    return new WriteTap({ onStatus, onWritten, later: this.#later });
  }

  /** A list that claims to be recent is newer than what is held now, or the API server's history went back. */
  #rollbackWatch({ group, resource }: RequestInfo): OnResourceVersion {
    const { scopes } = this.parts;
    const held = scopes.newestHeld(group, resource);
    return (resourceVersion) => scopes.noticeResourceVersion(group, resource, resourceVersion, held);
  }

  async #refusedBy(error: unknown, caller: Entered, identity: ScopeIdentity): Promise<void> {
    if (!(error instanceof UpstreamRefusedError)) return;
    const { status } = error;
    if (status === 401 || status === 403 || status === 404) await this.#refused(status, caller, identity);
  }

  /** Takes back what a caller could once read. Our own certificate refused is our trouble, not theirs: what runs must go on. */
  async #refused(status: RefusedStatus, caller: Entered, identity: ScopeIdentity | undefined): Promise<void> {
    const { gate, log, refusals } = this.parts;
    if (status !== 401) {
      if (identity !== undefined && !caller.isStranger) await refusals.collectionRefused(identity, status);
      return;
    }
    if (caller.principal.startsWith("certificate:")) {
      log.error("the API server does not accept the node's certificate (401): what is kept goes on being served");
      return;
    }
    // One token of a service account ends with its pod; the others' pods go on.
    if (await gate.refused(caller)) return;
    refusals.credentialRefused(caller.principal, caller.credential);
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
