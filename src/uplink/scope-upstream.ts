/**
 * The API server as scopes see it: lists and watches made on a principal's behalf.
 *
 * Lists ask for gzip, because the uplink is what is dear; watches ask for
 * identity, because Kubernetes 1.37 starts a new gzip member at every flush.
 */

import { type AskedBetween, betweenNow } from "../base/asked.ts";
import type { Clock } from "../base/clock.ts";
import { readList, readWatch, type WireAnswer } from "./read-answer.ts";
import { MAX_UNFOLDED_BYTES, unfolded } from "./unfold.ts";
import {
  UnreachableError,
  UpstreamRefusedError,
  type ListPage,
  type ScopeSource,
  type WatchStart,
  type WatchStream,
} from "./scope-source.ts";
import { MalformedError } from "../kube/codec.ts";
import { collectionPath } from "../kube/resource-path.ts";
import { representationsOfKey, upstreamAccept } from "../kube/representation.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import { reasonOf, type Upstream, type UpstreamCredential } from "./upstream.ts";
import type { UpstreamAnswer } from "./upstream-answer.ts";

const MAX_PRINCIPALS = 4096;
/** A service account speaks through the tokens of several pods, old and renewed. */
const MAX_CREDENTIALS = 4;
/** Strangers whose first list or watch is under way. */
const MAX_LENT = 256;

/** Credentials of callers that the API server has accepted since start, and requests made with them. */
export class ScopeUpstream implements ScopeSource {
  /** Newest first. */
  #credentials = new Map<string, readonly UpstreamCredential[]>();
  #spokeLast: string | undefined;
  /** Told of every yes to a list, a watch or a review. */
  onAccepted: ((principal: string, asked: AskedBetween) => void) | undefined;
  #lent = new Map<
    string,
    { readonly credential: UpstreamCredential; readonly onAccepted: (asked: AskedBetween) => void; users: number }
  >();

  constructor(
    private readonly upstream: Upstream,
    private readonly userAgent: string,
    private readonly onWaiting: () => void,
    private readonly clock: Clock,
  ) {}

  /** Remembers, in memory only, what an accepted principal's requests are made with. */
  remember(principal: string, credential: UpstreamCredential): void {
    const known = this.#credentials.get(principal) ?? [];
    if (principal === this.#spokeLast && known[0] === credential) return;
    this.#spokeLast = principal;
    // Who spoke last stands at the end, and ours is not counted among those that give way.
    this.#credentials.delete(principal);
    if (this.#credentials.size >= MAX_PRINCIPALS) this.#forgetOldest();
    const others = known.filter(({ id }) => id !== credential.id);
    const all = known[0] === credential ? known : [credential, ...others].slice(0, MAX_CREDENTIALS);
    this.#credentials.set(principal, all);
  }

  #forgetOldest(): void {
    for (const [principal, [newest]] of this.#credentials) {
      if (newest?.id === "own") continue;
      this.#credentials.delete(principal);
      return;
    }
  }

  /**
   * A stranger's credential, for one request of it.
   *
   * @param onAccepted the API server has answered a list or a review made with it.
   * @returns ends it; undefined when too many are under way.
   */
  lend(
    principal: string,
    credential: UpstreamCredential,
    onAccepted: (asked: AskedBetween) => void,
  ): (() => void) | undefined {
    const lent = this.#lent.get(principal) ?? { credential, onAccepted, users: 0 };
    if (lent.users === 0 && this.#lent.size >= MAX_LENT) return undefined;
    lent.users++;
    this.#lent.set(principal, lent);
    return () => {
      if (--lent.users === 0) this.#lent.delete(principal);
    };
  }

  /** The API server has said yes to this principal. @param asked when it was asked. */
  accepted(principal: string, asked: AskedBetween): void {
    this.#lent.get(principal)?.onAccepted(asked);
    this.onAccepted?.(principal, asked);
  }

  /** Forgets a credential that the API server refused. @param id of that one; all when absent. */
  forget(principal: string, id?: string): void {
    const others = id === undefined ? [] : (this.#credentials.get(principal) ?? []).filter((one) => one.id !== id);
    if (others.length === 0) this.#credentials.delete(principal);
    else this.#credentials.set(principal, others);
  }

  /** What a principal's requests are made with, once it has spoken. */
  credentialOf(principal: string): UpstreamCredential | undefined {
    return this.#credentials.get(principal)?.[0] ?? this.#lent.get(principal)?.credential;
  }

  hasCredential(principal: string): boolean {
    return this.credentialOf(principal) !== undefined;
  }

  async list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<ListPage> {
    const query = selectors(identity);
    if (page.limit > 0) query.set("limit", String(page.limit));
    if (page.continueToken !== "") query.set("continue", page.continueToken);
    return this.#asked(identity, "list", query, signal, (answer) => readList(answer, identity));
  }

  async watch(
    identity: ScopeIdentity,
    { resourceVersion, shape }: WatchStart,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    const query = selectors(identity);
    query.set("watch", "true");
    query.set("allowWatchBookmarks", "true");
    query.set("resourceVersion", resourceVersion);
    query.set("timeoutSeconds", String(timeoutSeconds));
    return this.#asked(identity, "watch", query, signal, (answer) => readWatch(answer, identity, shape));
  }

  /** With the principal's newest credential; one of several that is refused gives way to the next. */
  async #asked<T>(
    identity: ScopeIdentity,
    verb: "list" | "watch",
    query: URLSearchParams,
    signal: AbortSignal,
    read: (answer: WireAnswer) => Promise<T>,
  ): Promise<T> {
    const { principal } = identity;
    for (;;) {
      const credential = this.credentialOf(principal);
      if (credential === undefined) throw new UnreachableError("no credential at hand");
      const asked = betweenNow();
      const response = await this.#send(identity, verb, query, credential, signal);
      try {
        const answered = await read(new ResponseAnswer(response, verb, this.onWaiting, this.clock));
        this.accepted(principal, asked);
        return answered;
      } catch (error) {
        const isRefused = error instanceof UpstreamRefusedError && error.status === 401;
        if (!isRefused || (this.#credentials.get(principal)?.length ?? 0) < 2) throw error;
        this.forget(principal, credential.id);
      }
    }
  }

  #send(
    identity: ScopeIdentity,
    verb: "list" | "watch",
    query: URLSearchParams,
    credential: UpstreamCredential,
    signal: AbortSignal,
  ): Promise<UpstreamAnswer> {
    const [key = "json"] = identity.representation.split(";includeObject=");
    const text = query.toString().replaceAll("+", "%20");
    return this.upstream.request({
      method: "GET",
      target: `${collectionPath(identity)}${text === "" ? "" : `?${text}`}`,
      headers: [
        ["Accept", upstreamAccept(representationsOfKey(key), verb)],
        ["Accept-Encoding", verb === "list" ? "gzip" : "identity"],
        ["User-Agent", this.userAgent],
      ],
      credential,
      signal,
      isWatch: verb === "watch",
      mayRetry: true,
    });
  }
}

function selectors({ fieldSelector, labelSelector, representation }: ScopeIdentity): URLSearchParams {
  const query = new URLSearchParams();
  if (fieldSelector !== "") query.set("fieldSelector", fieldSelector);
  if (labelSelector !== "") query.set("labelSelector", labelSelector);
  const [, includeObject] = representation.split(";includeObject=");
  if (includeObject !== undefined) query.set("includeObject", includeObject);
  return query;
}

/** An answer in the terms of scopes. */
class ResponseAnswer implements WireAnswer {
  readonly status: number;
  readonly word: UpstreamAnswer["word"];

  constructor(
    private readonly response: UpstreamAnswer,
    private readonly verb: "list" | "watch",
    private readonly onSilence: () => void,
    private readonly clock: Clock,
  ) {
    this.status = response.status;
    this.word = response.word;
  }

  header(name: string): string | undefined {
    return this.response.headers.get(name) ?? undefined;
  }

  get chunks(): AsyncIterable<Uint8Array> {
    return this.#chunks();
  }

  async *#chunks(): AsyncGenerator<Uint8Array> {
    const { body } = this.response;
    if (body === null) return;
    const reader = body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    const encoding = this.header("content-encoding") ?? "identity";
    try {
      if (encoding === "identity") yield* this.#read(reader);
      else if (encoding === "gzip")
        // A watch was asked for without, and may be as long as it likes if it comes so all the same.
        yield* unfolded(this.#read(reader), this.verb === "list" ? MAX_UNFOLDED_BYTES : 0);
      else throw new Error(`it is encoded as ${encoding.slice(0, 100)}`);
    } catch (error) {
      if (error instanceof MalformedError) throw error;
      throw new UnreachableError(`The API server's answer broke off: ${reasonOf(error)}`, { cause: error });
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** A list whose bytes stop coming makes the link suspect, again and again: the link may die just after one look found it well. */
  async *#read(reader: ReadableStreamDefaultReader<Uint8Array>): AsyncGenerator<Uint8Array, void> {
    let cancel = () => {};
    const wait = () => {
      cancel = this.clock.after(1_000, () => {
        this.onSilence();
        wait();
      });
    };
    for (;;) {
      if (this.verb === "list") wait();
      const { done, value } = await reader.read().finally(() => cancel());
      if (done) return;
      yield value;
    }
  }
}
