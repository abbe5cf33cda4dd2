/**
 * To the API server and back, unchanged.
 *
 * The raw target, the method, the caller's headers and body go up as they
 * came, less what belongs to one connection; the answer comes down as it came.
 * A read that has a kept copy does not wait for a dead link: after a second
 * without a byte the link is probed, and before two seconds have passed the
 * copy is the answer.
 */

import { Cancel } from "../base/cancel.ts";
import type { Clock } from "../base/clock.ts";
import { Deadlines } from "../base/deadlines.ts";
import { Race } from "../base/race.ts";
import { inSlices, Slices } from "../base/turns.ts";
import type { StatusError } from "../kube/status-error.ts";
import type { Word } from "../kube/whose-word.ts";
import { mayHaveArrived } from "../uplink/arrival.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import { breakOff, drained } from "./answer.ts";
import { type RefusalWords, unreached, unstored } from "./no-answer.ts";
import { requestHeaders, responseHeaders } from "./passed-headers.ts";
import { sentBody, type SentBody } from "./sent-body.ts";
import type { Exchange } from "./exchange.ts";
import type { Caller } from "../callers/identify.ts";
import { PATIENCE_MS, type Link } from "../uplink/link.ts";
import type { Storage } from "../uplink/storage.ts";
import { isRead } from "../uplink/pool-request.ts";
import type { Upstream, UpstreamRequest } from "../uplink/upstream.ts";
import type { UpstreamAnswer, UpstreamHeaders } from "../uplink/upstream-answer.ts";

/** An answer from what is kept, found and ready to be given. */
export type KeptAnswer = () => Promise<void> | void;

/** What is kept and could answer instead. */
export interface Fallback {
  /** Looks once; what it finds is what answers. */
  readonly find: () => KeptAnswer | undefined;
  /**
   * What it may stand in for: by default any failure, a slow answer and 5xx
   * among them. "storage": a lost link, or storage known to be silent, because
   * the answer leaves a mark that only a return takes off.
   */
  readonly givesWay?: "storage";
}

/** Sees an answer go by. */
export interface AnswerTap {
  /**
   * @param word whose it is: only a refusal takes anything back, only an answer is kept.
   * @returns whether it wants the body.
   */
  head(status: number, headers: UpstreamHeaders, word: Word): boolean;
  /** Bytes as they came, possibly compressed. */
  chunk(bytes: Uint8Array): void;
  /** The body came whole; the client's answer ends when this resolves. */
  end(): Promise<void> | void;
  /** Whether an answer, and no refusal, may be shown to `whole` in the place of `chunk` and `end`; now, that is before its head. */
  readonly takesWhole: boolean;
  /** All of the body. */
  whole?(bytes: Uint8Array): void;
  /** It did not. */
  abort(): void;
}

/** Whether the API server accepts our own credential. */
export interface OwnAccess {
  readonly isRefused: () => boolean;
  /** It has just answered 401. */
  readonly refused: () => void;
}

/** How one request is forwarded. */
export interface ForwardOptions {
  readonly fallback?: Fallback;
  readonly tap?: AnswerTap;
  /** Replaces the caller's Accept. */
  readonly accept?: string;
  /** The request's body, when it was read already. */
  readonly sent?: SentBody;
  /** A write whose answer may be a long list. */
  readonly hasLongAnswer?: boolean;
  /** Goes up as soon as the API server answers again, before this node's turn among those that come back. Default false. */
  readonly isHeartbeat?: boolean;
  /** The request in words, for who gets no answer. */
  readonly words?: () => RefusalWords;
}

/** What storage does not answer now it will hardly answer within this. */
const SILENT_PATIENCE_MS = 300;
const SMALL_ANSWER_BYTES = 256 * 1024;
/** How long one waits for an answer while nothing is amiss; any other patience has a timer of its own. */
const USUAL_PATIENCE_MS = PATIENCE_MS.normal;

/** Shows bytes to a tap; of many a slice in a turn. */
async function learned(tap: AnswerTap, bytes: Uint8Array, slices: Slices): Promise<void> {
  for (const piece of inSlices(bytes)) {
    tap.chunk(piece);
    await slices.spend(piece.length);
  }
}

/** Forwards requests. */
export class Forwarder {
  readonly #usual: Deadlines;

  constructor(
    private readonly upstream: Upstream,
    private readonly link: Link,
    private readonly count: (what: "forwarded" | "refusedWrites") => void,
    private readonly access: OwnAccess,
    private readonly storage: Pick<Storage, "isSilent" | "suspect">,
    private readonly clock: Clock,
  ) {
    this.#usual = new Deadlines(clock, USUAL_PATIENCE_MS);
  }

  /** Answers the exchange from the API server, or from the fallback, or throws what becomes a Status. */
  async forward(exchange: Exchange, caller: Caller, options: ForwardOptions = {}): Promise<void> {
    const { fallback } = options;
    const isCut = !this.link.isOnline() && !(options.isHeartbeat === true && this.link.turnInMs !== undefined);
    if (isCut || (caller.isOwn && this.access.isRefused())) {
      const kept = fallback?.find();
      if (kept === undefined) throw this.#offline(exchange, options.words, false);
      return kept();
    }
    // A write that went up and was answered from here could be carried out when storage is back.
    if (this.storage.isSilent && !isRead(exchange)) {
      const atOnce = fallback?.find() ?? this.#refusal(exchange, caller, options.words, false);
      if (atOnce !== undefined) return atOnce();
    }
    const asking = new Cancel();
    const { signal } = exchange;
    const giveUp = () => asking.cancel(new Error("client went away"));
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
    try {
      const response = await this.#head(exchange, caller, options, asking);
      if (response === "given") return;
      if (typeof response === "function") return await response();
      const isRefused = response.status === 401 && response.word === "refusal" && caller.isOwn;
      if (isRefused) this.access.refused();
      const isFailure = isRefused || (response.status >= 500 && (await this.#standsInFor(fallback)));
      const kept = isFailure ? fallback?.find() : undefined;
      if (kept !== undefined) {
        asking.cancel(new Error("answered from the copy"));
        return await kept();
      }
      this.count("forwarded");
      const answering = this.#answer(exchange, response, options.tap, asking);
      if (answering !== undefined) await answering;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  /**
   * Refuses a write of the node's that nothing here answers while storage is
   * silent: kubelet's loops wait for theirs, and no static pod starts while the
   * write of its mirror hangs.
   *
   * @param hasGoneUp whether it may have been carried out.
   * @returns undefined for every other request: it waits for the API server's word.
   */
  #refusal(
    exchange: Exchange,
    { nodeName }: Caller,
    words: (() => RefusalWords) | undefined,
    hasGoneUp: boolean,
  ): KeptAnswer | undefined {
    const said = nodeName === undefined || isRead(exchange) ? undefined : words?.();
    if (said === undefined || said.isQuestion === true) return undefined;
    return () => {
      this.count("refusedWrites");
      throw unstored(said, hasGoneUp);
    };
  }

  /** Whether a 5xx is one that the fallback stands in for. */
  async #standsInFor(fallback: Fallback | undefined): Promise<boolean> {
    if (fallback === undefined) return false;
    const verdict = this.storage.suspect();
    return fallback.givesWay === undefined || (await verdict);
  }

  /** The answer's head; or what answers in its place, when the link is lost or patience has run out. */
  async #head(
    exchange: Exchange,
    caller: Caller,
    options: ForwardOptions,
    asking: Cancel,
  ): Promise<UpstreamAnswer | KeptAnswer | "given"> {
    const { fallback } = options;
    const race = new Race<UpstreamAnswer | KeptAnswer | undefined>();
    const stopListening = this.link.onChange((isOnline) => isOnline || race.win(undefined));
    const inItsPlace = fallback?.find ?? this.#refusal(exchange, caller, options.words, true);
    const impatience =
      inItsPlace && this.#loosePatience(() => void this.#outOfPatience(exchange, caller, options, race));
    let isGiven = false;
    const atOnce = (answer: UpstreamAnswer) =>
      !race.isOver && (isGiven = this.#giveAtOnce(exchange, answer, options.tap, race));
    try {
      const sent = options.sent ?? sentBody(exchange, caller.nodeName !== undefined);
      const { body } = sent instanceof Promise ? await sent : sent;
      const request = this.#requestOf(exchange, caller, options, asking);
      race.enter(this.upstream.request(body === undefined ? { ...request, atOnce } : { ...request, body }));
      const response = await race.over;
      if (isGiven) return "given";
      if (response !== undefined && typeof response !== "function") return response;
      asking.cancel(new Error("link lost"));
      if (response !== undefined) return response;
    } catch (error) {
      if (!(error instanceof UnreachableError) || exchange.signal.aborted) throw error;
      const kept = fallback?.find();
      if (kept === undefined) throw this.#offline(exchange, options.words, mayHaveArrived(error), error);
      // One connection broke, the link did not: what was laid over a copy now would be taken off by no return.
      if (fallback?.givesWay !== undefined && (await this.#standsAfterFailure()))
        throw this.#offline(exchange, options.words, mayHaveArrived(error), error);
      return kept;
    } finally {
      stopListening();
      impatience?.();
    }
    const kept = fallback?.find();
    if (kept === undefined) throw this.#offline(exchange, options.words, true);
    return kept;
  }

  #requestOf(exchange: Exchange, { credential }: Caller, options: ForwardOptions, asking: Cancel): UpstreamRequest {
    const { method, target } = exchange;
    return {
      method,
      target,
      headers: requestHeaders(exchange, options.accept),
      credential,
      signal: asking,
      mayRetry: isRead(exchange),
      hasLongAnswer: options.hasLongAnswer === true,
    };
  }

  /** Whether the link stands though a connection broke; false at once when it is lost meanwhile. */
  async #standsAfterFailure(): Promise<boolean> {
    const lost = Promise.withResolvers<boolean>();
    const stopListening = this.link.onChange((isOnline) => isOnline || lost.resolve(false));
    try {
      return await Promise.race([this.link.standsAfterFailure(), lost.promise]);
    } finally {
      stopListening();
    }
  }

  #loosePatience(task: () => void): () => void {
    const patienceMs = this.#patienceMs();
    return patienceMs === USUAL_PATIENCE_MS ? this.#usual.begin(task) : this.clock.after(patienceMs, task);
  }

  #patienceMs(): number {
    return this.storage.isSilent ? Math.min(SILENT_PATIENCE_MS, this.link.patienceMs) : this.link.patienceMs;
  }

  /** An answer that does not come: of the link, the connection, the storage, or by its own nature. */
  async #outOfPatience(
    exchange: Exchange,
    caller: Caller,
    { fallback, words }: ForwardOptions,
    race: { win(kept: KeptAnswer): void },
  ): Promise<void> {
    const kept = fallback?.find();
    const inItsPlace = kept ?? this.#refusal(exchange, caller, words, true);
    if (inItsPlace === undefined) return;
    const isStarting = this.link.state === "starting";
    this.link.suspect();
    const verdict = this.storage.suspect();
    const isGivenNow = kept !== undefined && (fallback?.givesWay === undefined || isStarting);
    if (isGivenNow || (await verdict)) race.win(inItsPlace);
  }

  /** Gives the usual answer to a read in the turn in which it came, without a copy. @returns whether it was given. */
  #giveAtOnce(
    exchange: Exchange,
    { status, headers, word, plain, whole }: UpstreamAnswer,
    tap: AnswerTap | undefined,
    race: { lose(error: unknown): void },
  ): boolean {
    const isTapped = tap !== undefined && !tap.takesWhole;
    if (plain === undefined || whole === undefined || isTapped || exchange.response.isEdited || exchange.signal.aborted)
      return false;
    try {
      this.count("forwarded");
      if (tap?.head(status, headers, word) === true) tap.whole!(whole);
      exchange.response.pass(plain);
    } catch (error) {
      race.lose(error);
    }
    return true;
  }

  /** @returns undefined when the answer is out already. */
  #answer(
    exchange: Exchange,
    upstream: UpstreamAnswer,
    tap: AnswerTap | undefined,
    asking: Cancel,
  ): Promise<void> | undefined {
    const listening = tap?.head(upstream.status, upstream.headers, upstream.word) === true ? tap : undefined;
    const { whole } = upstream;
    if (whole === undefined || exchange.method === "HEAD")
      return this.#answerAsItComes(exchange, upstream, listening, asking);
    listening?.chunk(whole);
    const learning = listening?.end();
    if (learning === undefined) answerWhole(exchange, upstream, whole);
    else return learning.then(() => answerWhole(exchange, upstream, whole));
    return undefined;
  }

  async #answerAsItComes(
    exchange: Exchange,
    upstream: UpstreamAnswer,
    listening: AnswerTap | undefined,
    asking: Cancel,
  ): Promise<void> {
    const { response } = exchange;
    response.writeHead(upstream.status, responseHeaders(upstream.headers));
    if (upstream.body === null || exchange.method === "HEAD") {
      response.end();
      return;
    }
    const length = upstream.headers.get("content-length");
    // What has an end and stops half-way on a dead link is broken off, so that the client asks again; logs and the like may sit it out.
    const stopListening =
      listening === undefined && length === null && upstream.status < 400
        ? () => {}
        : this.link.onChange((isOnline) => isOnline || asking.cancel(new Error("link lost")));
    if (length !== null && Number(length) <= SMALL_ANSWER_BYTES)
      return this.#answerSmall(exchange, upstream, Number(length), listening).finally(stopListening);
    response.flushHeaders();
    const reader = upstream.body.getReader();
    const slices = new Slices();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || value === undefined) break;
        if (listening !== undefined) await learned(listening, value, slices);
        if (!response.write(value)) await drained(response, exchange.signal);
        if (exchange.signal.aborted) throw new UnreachableError("client went away");
      }
      await listening?.end();
      response.end();
    } catch {
      listening?.abort();
      reader.cancel().catch(() => {});
      breakOff(exchange);
    } finally {
      stopListening();
    }
  }

  async #answerSmall(
    exchange: Exchange,
    upstream: UpstreamAnswer,
    length: number,
    tap: AnswerTap | undefined,
  ): Promise<void> {
    let body: Uint8Array;
    try {
      body = await upstream.bytes();
      if (body.length !== length) throw new UnreachableError("The API server's answer broke off");
    } catch {
      tap?.abort();
      breakOff(exchange);
      return;
    }
    if (tap !== undefined) {
      tap.chunk(body);
      await tap.end();
    }
    exchange.response.end(body);
  }

  #offline(
    exchange: Exchange,
    words: (() => RefusalWords) | undefined,
    hasGoneUp: boolean,
    cause: unknown = this.link.failure,
  ): StatusError {
    if (!isRead(exchange) && words?.().isQuestion !== true) this.count("refusedWrites");
    return unreached(isRead(exchange), words?.(), cause, hasGoneUp);
  }
}

/** Gives an answer that is here; as it came, where nothing in it belongs to its connection. */
function answerWhole({ response }: Exchange, { status, headers, plain }: UpstreamAnswer, body: Uint8Array): void {
  if (plain !== undefined && !response.isEdited) return response.pass(plain);
  response.writeHead(status, responseHeaders(headers));
  response.end(body);
}
