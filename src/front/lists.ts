/**
 * Lists and watches of one caller: from its copies or from the API server.
 *
 *                       online                                cut
 *   list, any age       a copy that is brought up to date     the newest copy that vouches
 *   list, most recent   forwarded; seeds the copy             the newest copy that vouches
 *   watch               a copy, made and followed if need be  the newest copy that vouches
 *
 * Online a copy answers only whom the API server has said yes to just now
 * (fresh-answers.ts); otherwise the API server answers itself.
 *
 * What vouches, and how a part is cut out of a wider copy, is decided in
 * `cache/containment.ts`; it is looked up once and handed along as an answer.
 */

import { type Asked, betweenNow } from "../base/asked.ts";
import { isLocalVersion } from "../cache/edits.ts";
import type { Scope } from "../cache/scope.ts";
import { PassThroughError, ScopeTooLargeError } from "../cache/scope-errors.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { FreshRights } from "../callers/fresh-rights.ts";
import type { Entered, Gate } from "../callers/gate.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { StatusError } from "../kube/status-error.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { Link } from "../uplink/link.ts";
import type { Exchange } from "./exchange.ts";
import type { FreshAnswers } from "./fresh-answers.ts";
import type { Forwarder } from "./forward.ts";
import type { Lessons } from "./lessons.ts";
import type { RequestInfo } from "./request-info.ts";
import type { Route } from "./route.ts";
import type { CopyServer } from "./serve.ts";
import { ListTap, type RefusedStatus } from "./taps.ts";
import { unanswered, wordsFor } from "./words.ts";

/** What lists are made of. */
export interface ListParts {
  readonly gate: Gate;
  readonly link: Link;
  readonly forwarder: Forwarder;
  readonly scopes: Scopes;
  readonly copies: CopyServer;
  readonly lessons: Lessons;
  readonly rights: FreshRights;
  readonly fresh: FreshAnswers;
}

/** Answers them. */
export class Lists {
  constructor(private readonly parts: ListParts) {}

  /** From a copy alone. */
  cut(exchange: Exchange, info: RequestInfo, caller: Entered, identity: ScopeIdentity): Promise<void> {
    const answer = this.parts.copies.answerFor(identity, exchange);
    if (answer === undefined) throw unanswered(info, caller, this.parts.scopes);
    return this.parts.copies.list(exchange, info, answer);
  }

  /** A list for which a live copy is recent enough. */
  async fromScope(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    identity: ScopeIdentity,
    notOlderThan: string,
  ): Promise<void> {
    const { copies } = this.parts;
    if (!(await this.parts.fresh.mayList(caller, identity)))
      return this.forwarded(exchange, info, caller, { identity, learns: "use", isRecent: false });
    const isNewEnough = ({ servedVersion }: Scope) =>
      notOlderThan === "0" || compareResourceVersions(servedVersion, notOlderThan) >= 0;
    const within = copies.within(identity);
    if (within !== undefined && isNewEnough(within.scope)) return copies.list(exchange, info, within);
    const asked = betweenNow();
    const ended = this.parts.gate.lend(caller);
    const scope = ended === undefined ? undefined : this.parts.scopes.open(identity);
    if (scope === undefined || scope.isOversize) return this.#forwardUnkept(exchange, info, caller, ended);
    try {
      await scope.ensureFresh().finally(() => this.#strangerEnded(scope, ended));
    } catch (error) {
      if (error instanceof ScopeTooLargeError) return this.#forwardUnkept(exchange, info, caller);
      await this.parts.lessons.refusedBy(error, caller, identity, asked);
      const kept = copies.answerFor(identity, exchange);
      if (error instanceof StatusError && kept !== undefined) return copies.list(exchange, info, kept);
      throw error;
    }
    if (!isLocalVersion(notOlderThan) && !isNewEnough(scope) && this.parts.link.isOnline()) {
      return this.forwarded(exchange, info, caller, {
        identity,
        learns: "use",
        isRecent: false,
      });
    }
    return copies.list(exchange, info, copies.answerOf(scope, exchange));
  }

  /** A list that the API server answers while it is there. */
  forwarded(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    { identity, learns, isRecent }: Omit<Extract<Route, { kind: "list-forward" }>, "kind">,
  ): Promise<void> {
    const { copies, forwarder, link, rights, scopes } = this.parts;
    const onVersion = isRecent ? this.parts.lessons.ofRecentList(info) : undefined;
    const listTap = (asked: Asked) => {
      const onRefused = (status: RefusedStatus) => this.parts.lessons.refused(status, caller, identity, asked);
      const isOwn = link.isOnline() && learns !== "nothing" && copies.within(identity) === undefined;
      const scope = isOwn ? scopes.open(identity) : undefined;
      return new ListTap(scope, learns === "answer" ? scope?.adopt() : undefined, onRefused, onVersion);
    };
    const isWatch = info.verb === "watch";
    const find = () => {
      const answer = copies.answerFor(
        identity,
        exchange,
        isWatch ? (info.query.get("resourceVersion") ?? "") : undefined,
      );
      if (answer === undefined) return undefined;
      return () => (isWatch ? copies.watch : copies.list).call(copies, exchange, info, answer, true);
    };
    const isJsonPreferred = identity.representation === "json" && exchange.accepted[0]?.format === "protobuf";
    return forwarder.forward(exchange, caller, {
      ...(isJsonPreferred ? { accept: "application/json" } : {}),
      words: () => wordsFor(info, caller, this.parts.scopes),
      tap: this.parts.lessons.tap(caller, listTap, (asked) => isWatch || rights.heard(caller, "list", identity, asked)),
      fallback: { find },
    });
  }

  /** A watch. */
  async watch(
    exchange: Exchange,
    info: RequestInfo,
    caller: Entered,
    { identity, isKnown }: { readonly identity: ScopeIdentity; readonly isKnown: boolean },
  ): Promise<void> {
    const { copies, fresh, link, scopes } = this.parts;
    if (link.isOnline() && !isKnown) return this.#forwardUnkept(exchange, info, caller);
    if (!(await fresh.mayWatch(caller, identity)))
      return this.forwarded(exchange, info, caller, { identity, learns: "nothing", isRecent: false });
    const at = info.query.get("resourceVersion") ?? "";
    const asked = betweenNow();
    const ended = this.parts.gate.lend(caller);
    const own = () => {
      const scope = ended === undefined ? undefined : scopes.open(identity);
      return scope === undefined || scope.isOversize ? undefined : scopes.wholeOf(scope);
    };
    const isOnline = link.isOnline();
    const answer = isOnline ? (copies.within(identity, at) ?? own()) : copies.answerFor(identity, exchange, at);
    if (isOnline && answer === undefined) return this.#forwardUnkept(exchange, info, caller, ended);
    if (answer === undefined) throw unanswered(info, caller, scopes);
    try {
      await copies.watch(exchange, info, answer).finally(() => this.#strangerEnded(answer.scope, ended));
    } catch (error) {
      if (error instanceof PassThroughError) return this.#forwardUnkept(exchange, info, caller);
      await this.parts.lessons.refusedBy(error, caller, identity, asked);
      // Just now the link was thought to stand.
      const isLost = isOnline && error instanceof StatusError && error.status.code === 503;
      const kept = isLost ? copies.answerFor(identity, exchange, at) : undefined;
      if (kept === undefined) throw error;
      await copies.watch(exchange, info, kept, true);
    }
  }

  /** A stranger that got nothing leaves nothing. */
  #strangerEnded(scope: Scope, ended: (() => void) | undefined): void {
    ended?.();
    this.parts.scopes.dismiss(scope);
  }

  /** To the API server and back, whoever asks: nothing of the answer is kept. */
  #forwardUnkept(exchange: Exchange, info: RequestInfo, caller: Entered, ended?: () => void): Promise<void> {
    ended?.();
    return this.parts.forwarder.forward(exchange, caller, { words: () => wordsFor(info, caller, this.parts.scopes) });
  }
}
