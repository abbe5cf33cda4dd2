/**
 * To the API server and back, unchanged.
 *
 * The raw target, the method, the caller's headers and body go up as they
 * came, less what belongs to one connection; the answer comes down as it came.
 * A read that has a kept copy does not wait for a dead link: after a second
 * without a byte the link is probed, and before two seconds have passed the
 * copy is the answer.
 */

import type { Clock } from "../base/clock.ts";
import { StatusError, unavailable } from "../kube/status-error.ts";
import type { Word } from "../kube/whose-word.ts";
import { ForeignAnswerError, UnreachableError } from "../uplink/scope-source.ts";
import { breakOff, drained } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import type { Caller } from "../callers/identify.ts";
import type { Link } from "../uplink/link.ts";
import type { Storage } from "../uplink/storage.ts";
import type { Upstream } from "../uplink/upstream.ts";
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
   * the answer leaves a mark that only a return takes off. "loss": a lost link alone.
   */
  readonly givesWay?: "storage" | "loss";
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
  readonly sent?: RequestBody;
  /** A write whose answer may be a long list. */
  readonly hasLongAnswer?: boolean;
  /** The request in words, for who gets no answer. */
  readonly words?: RefusalWords;
}

/** What a person reads when there is no answer. */
export interface RefusalWords {
  /** What cannot be done: `get pods "web-0"`. */
  readonly asked: string;
  /** A question that changes nothing, though it is a POST. */
  readonly isQuestion?: boolean;
  /** Of a read: what is kept instead. Default: that no copy is. */
  readonly instead?: () => string;
}

/** Headers that belong to one connection (RFC 9110 section 7.6.1); those named in Connection join them. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);
const BUFFERED_BODY_BYTES = 1024 * 1024;
/** What storage does not answer now it will hardly answer within this. */
const SILENT_PATIENCE_MS = 300;
const SMALL_ANSWER_BYTES = 256 * 1024;

/** Forwards requests. */
export class Forwarder {
  constructor(
    private readonly upstream: Upstream,
    private readonly link: Link,
    private readonly count: (what: "forwarded" | "refusedWrites") => void,
    private readonly access: OwnAccess,
    private readonly storage: Pick<Storage, "isSilent" | "suspect">,
    private readonly clock: Clock,
  ) {}

  /** Answers the exchange from the API server, or from the fallback, or throws what becomes a Status. */
  async forward(exchange: Exchange, caller: Caller, options: ForwardOptions = {}): Promise<void> {
    const { fallback } = options;
    if (!this.link.isOnline() || (caller.isOwn && this.access.isRefused())) {
      const kept = fallback?.find();
      if (kept === undefined) throw this.#offline(exchange, options.words);
      return kept();
    }
    // A write that went up and was answered from here could be carried out when storage is back.
    const isWrite = exchange.method !== "GET" && exchange.method !== "HEAD";
    const atOnce = isWrite && this.storage.isSilent && fallback?.givesWay !== "loss" ? fallback?.find() : undefined;
    if (atOnce !== undefined) return atOnce();
    const controller = new AbortController();
    const giveUp = () => controller.abort(new Error("client went away"));
    exchange.signal.addEventListener("abort", giveUp, { once: true });
    if (exchange.signal.aborted) giveUp();
    try {
      const response = await this.#head(exchange, caller, options, controller);
      if (typeof response === "function") return await response();
      const isRefused = response.status === 401 && response.word === "refusal" && caller.isOwn;
      if (isRefused) this.access.refused();
      const kept = isRefused || (await this.#isFailure(response, fallback)) ? fallback?.find() : undefined;
      if (kept !== undefined) {
        controller.abort(new Error("answered from the copy"));
        return await kept();
      }
      this.count("forwarded");
      await this.#answer(exchange, response, options.tap, controller);
    } finally {
      exchange.signal.removeEventListener("abort", giveUp);
    }
  }

  /** Whether a 5xx is one that the fallback stands in for. */
  async #isFailure({ status }: UpstreamAnswer, fallback: Fallback | undefined): Promise<boolean> {
    if (status < 500 || fallback === undefined || fallback.givesWay === "loss") return false;
    const verdict = this.storage.suspect();
    return fallback.givesWay === undefined || (await verdict);
  }

  /** The answer's head; or what answers in its place, when the link is lost or patience has run out. */
  async #head(
    exchange: Exchange,
    caller: Caller,
    options: ForwardOptions,
    controller: AbortController,
  ): Promise<UpstreamAnswer | KeptAnswer> {
    const { fallback } = options;
    const isRead = exchange.method === "GET" || exchange.method === "HEAD";
    const lost = Promise.withResolvers<KeptAnswer | undefined>();
    const stopListening = this.link.onChange((isOnline) => isOnline || lost.resolve(undefined));
    const impatience =
      fallback === undefined
        ? undefined
        : this.clock.after(this.#patienceMs(), () => void this.#outOfPatience(fallback, lost.resolve));
    try {
      const asking = this.upstream.request({
        method: exchange.method,
        target: exchange.target,
        headers: requestHeaders(exchange, options.accept),
        ...(options.sent ?? (await requestBody(exchange))),
        credential: caller.credential,
        signal: controller.signal,
        mayRetry: isRead,
        ...(options.hasLongAnswer === true ? { hasLongAnswer: true } : {}),
      });
      asking.catch(() => {});
      const response = await Promise.race([asking, lost.promise]);
      if (response !== undefined && typeof response !== "function") return response;
      controller.abort(new Error("link lost"));
      if (response !== undefined) return response;
    } catch (error) {
      if (!(error instanceof UnreachableError) || exchange.signal.aborted) throw error;
      const kept = fallback?.find();
      if (kept === undefined) throw this.#offline(exchange, options.words, error);
      // One connection broke, the link did not: what was laid over a copy now would be taken off by no return.
      if (
        fallback?.givesWay !== undefined &&
        (await Promise.race([this.link.standsAfterFailure(), lost.promise])) === true
      )
        throw this.#offline(exchange, options.words, error);
      return kept;
    } finally {
      stopListening();
      impatience?.();
    }
    const kept = fallback?.find();
    if (kept === undefined) throw this.#offline(exchange, options.words);
    return kept;
  }

  #patienceMs(): number {
    return this.storage.isSilent ? Math.min(SILENT_PATIENCE_MS, this.link.patienceMs) : this.link.patienceMs;
  }

  /** An answer that does not come: of the link, the connection, the storage, or by its own nature. */
  async #outOfPatience(fallback: Fallback, giveUp: (kept: KeptAnswer) => void): Promise<void> {
    const kept = fallback.find();
    if (kept === undefined) return;
    const { givesWay } = fallback;
    const isStarting = this.link.state === "starting";
    if (givesWay === "loss" && !isStarting) return;
    this.link.suspect();
    const verdict = this.storage.suspect();
    if (givesWay === undefined || isStarting || (await verdict)) giveUp(kept);
  }

  async #answer(
    exchange: Exchange,
    upstream: UpstreamAnswer,
    tap: AnswerTap | undefined,
    controller: AbortController,
  ): Promise<void> {
    const { response } = exchange;
    const listening = tap?.head(upstream.status, upstream.headers, upstream.word) === true ? tap : undefined;
    response.writeHead(upstream.status, responseHeaders(upstream.headers));
    if (upstream.body === null || exchange.method === "HEAD") {
      response.end();
      return;
    }
    // A list or object that stops half-way on a dead link is broken off, so that the client asks again; logs and the like may sit it out.
    const stopListening =
      listening === undefined
        ? () => {}
        : this.link.onChange((isOnline) => isOnline || controller.abort(new Error("link lost")));
    const length = upstream.headers.get("content-length");
    if (length !== null && Number(length) <= SMALL_ANSWER_BYTES)
      return this.#answerSmall(exchange, upstream, Number(length), listening).finally(stopListening);
    response.flushHeaders();
    const reader = upstream.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || value === undefined) break;
        listening?.chunk(value);
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

  #offline(exchange: Exchange, words: RefusalWords | undefined, cause: unknown = this.link.failure): StatusError {
    const isRead = exchange.method === "GET" || exchange.method === "HEAD";
    const why = cause instanceof ForeignAnswerError ? cause.message : "the API server cannot be reached";
    const asked = words?.asked ?? (isRead ? "read" : "write");
    if (isRead) {
      const instead = words?.instead?.() ?? "no copy of this is kept for this caller";
      return unavailable(`Cannot ${asked}: ${why}; ${instead}`, { cause });
    }
    if (words?.isQuestion === true)
      return unavailable(`Cannot ${asked}: ${why}, and no decision of it on this is remembered`, { cause });
    this.count("refusedWrites");
    const outcome = cause === undefined && this.link.isOnline() ? "; whether it was carried out is not known" : "";
    return unavailable(`Cannot ${asked}: ${why}, and nothing is queued${outcome}; try again when the link is back`, {
      cause,
    });
  }
}

/** The caller's headers as they go up. */
export function requestHeaders(exchange: Exchange, accept?: string): [string, string][] {
  const dropped = namedInConnection(exchange.header("connection"));
  const headers: [string, string][] = [];
  let hasEncoding = false;
  for (const [name, value] of exchange.headers) {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || NOT_PASSED.has(lower) || dropped?.has(lower) === true) continue;
    if (accept !== undefined && lower === "accept") continue;
    if (lower === "accept-encoding") hasEncoding = true;
    headers.push([name, value]);
  }
  if (accept !== undefined) headers.push(["Accept", accept]);
  // Left out, fetch would ask for gzip, br and zstd on the caller's behalf.
  if (!hasEncoding) headers.push(["Accept-Encoding", "identity"]);
  return headers;
}

/** Set anew for the way up: the host is another, the length follows from the body, the credential from the caller. */
const NOT_PASSED: ReadonlySet<string> = new Set(["host", "content-length", "expect", "authorization"]);

function namedInConnection(value: string | null | undefined): ReadonlySet<string> | undefined {
  if (value === undefined || value === null || value === "" || value.toLowerCase() === "keep-alive") return undefined;
  return new Set(value.split(",").map((name) => name.trim().toLowerCase()));
}

/** The answer's headers as they go down: less what belongs to one connection, names as they came. */
function responseHeaders(headers: UpstreamHeaders): Record<string, string | string[]> {
  const dropped = namedInConnection(headers.get("connection"));
  const kept = headers.toJSON();
  for (const name in kept) {
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || dropped?.has(lower) === true) delete kept[name];
  }
  return kept;
}

/** A request's body: none, whole, or as it comes. */
export interface RequestBody {
  readonly body?: Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
}

/** A small body in one piece with its exact length; a large one as it comes. */
export async function requestBody({ body, bodyLength, method }: Exchange): Promise<RequestBody> {
  if (bodyLength === 0)
    return method === "POST" || method === "PUT" || method === "PATCH" ? { body: new Uint8Array(0) } : {};
  const iterator = body[Symbol.asyncIterator]();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await iterator.next();
    if (done === true) return { body: new Uint8Array(Buffer.concat(parts)) };
    parts.push(value);
    size += value.length;
    if (size > BUFFERED_BODY_BYTES) break;
  }
  return {
    body: new ReadableStream<Uint8Array>({
      async pull(controller) {
        const first = parts.shift();
        if (first !== undefined) return controller.enqueue(first);
        const { done, value } = await iterator.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await iterator.return?.();
      },
    }),
  };
}
