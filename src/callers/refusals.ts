/**
 * What the API server has refused to a caller whom it had let in before, and
 * which copies that withholds, and in the end takes away.
 *
 * A caller must not read while cut what it could no longer read before. One
 * refusal tells of one request; what it means for the caller's other copies:
 *
 *   a list or watch refused    the same collection is withheld, and every wider
 *                              one without selectors: who may list all may list
 *                              a part
 *   a get refused              that object answers no get, though a list that
 *                              is still allowed holds it
 *   either, of something kept  a permission was taken back: the API server is
 *                              asked once for every other list of that caller,
 *                              and recordings from before are not believed
 *   the credential (401)       everything is withheld
 *   an object is gone (404)    its recordings are not believed
 *
 * The caller hears of its refusal when all this has been done, so that no cut
 * falls in between. A client that asks again and again for what it never had
 * costs nothing: nothing of it is kept.
 *
 * But a refusal may be no more than an API server that has only just started:
 * its caches of 30,000 role bindings take seconds. So nothing is lost at once:
 *
 *   refused -> withheld -> looked at again, 1 s to 1 min apart -> allowed: as it was
 *                                                              -> refused for five minutes by an
 *                                                                 API server that is ready: taken away
 *
 * Our own node is exempt but for single objects, as pods come and go: what runs
 * must go on.
 *
 * Invariant: what is withheld answers nobody, online or cut, over a restart
 * too; only the API server's own yes takes a refusal back, and only to what was
 * asked for after it (base/asked.ts).
 */

import { type AskedBetween, betweenNow, LastRefusals } from "../base/asked.ts";
import { abortsAfter, type Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { StatusFields } from "../kube/codec.ts";
import type { ListedState, ScopeIdentity, Store } from "../store/contract.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";
import type { UpstreamCredential } from "../uplink/upstream.ts";
import { RefusalLooks, type LookedAt } from "./refusal-looks.ts";
import { collectionText, isWithin, objectOf, type AskedObject } from "./standing.ts";
import { KEYS, StandingBook } from "./standing-book.ts";
import { askOthers, statusOfList } from "./taken-back.ts";

/** What is kept for callers, as far as a refusal concerns it. */
export interface KeptCopies {
  all(): Iterable<{
    readonly identity: ScopeIdentity;
    readonly listed: ListedState | undefined;
    readonly isWithheld: boolean;
  }>;
  withhold(principal: string, matches: (identity: ScopeIdentity) => boolean, status: StatusFields): boolean;
  release(principal: string, matches: (identity: ScopeIdentity) => boolean): void;
  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void;
}

/** What refusals act upon. */
export interface RefusalParts {
  readonly scopes: KeptCopies;
  readonly source: Pick<ScopeUpstream, "list" | "credentialOf">;
  /** The status of a GET, asked with a credential: 2xx or a refusal's; undefined when the API server says nothing. */
  readonly statusOf: (path: string, credential: UpstreamCredential) => Promise<number | undefined>;
  /** Whether the API server knows a credential; undefined when it does not say. */
  readonly knows: (credential: UpstreamCredential) => Promise<boolean | undefined>;
  /** Whether the API server says that it is ready. */
  readonly isReady: () => Promise<boolean>;
  readonly link: { onChange(listener: (isOnline: boolean) => void): () => void; isOnline(): boolean };
  /** Told how many refusals stand. */
  readonly onCount: (standing: number) => void;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

const MAX_REFUSED = 1_024;
const MAX_OBJECTS = 512;
const MAX_COLLECTIONS = 128;
const LOOK_DEADLINE_MS = 5_000;
const REASONS: Readonly<Record<number, string>> = { 401: "Unauthorized", 403: "Forbidden", 404: "NotFound" };

/** Remembers refusals and draws their consequences. */
export class Refusals {
  readonly #book: StandingBook;
  #doubting = new Map<string, Promise<void>>();
  readonly #looks: RefusalLooks;
  /** Refused credentials, to ask with whether they still are. */
  #refused = new Map<string, UpstreamCredential>();
  /** By caller and key. */
  readonly #last = new LastRefusals();
  #takenListeners = new Set<(principal: string) => void>();

  constructor(private readonly parts: RefusalParts) {
    // Refusals are forgotten with all that they keep from being read.
    this.#book = new StandingBook(parts, (principal) => parts.scopes.forget(principal, () => true));
    this.#looks = new RefusalLooks({
      ...parts,
      standing: (principal) => this.#book.keysOf(principal),
      ask: (principal, key) => this.#ask(principal, key),
      lift: (principal, key) => this.#lift(principal, key),
      believe: (principal, key) => this.#believe(principal, key),
    });
    for (const principal of this.#book.principals()) this.#looks.begin(principal);
  }

  /** Whether this answers no get: refused, and not allowed since. */
  isRefused(principal: string, info: AskedObject): boolean {
    const standing = this.#book.find(principal);
    return standing !== undefined && (standing.whole !== undefined || standing.objects.has(objectOf(info)));
  }

  /** A recording of this counts only if it is younger, ms since the epoch. */
  doubtedAtMs(principal: string, { canonicalPath, resource }: AskedObject): number {
    const standing = this.#book.find(principal);
    if (standing === undefined) return 0;
    const { doubtedAtMs, collections, objects, gone } = standing;
    const goneAtMs = gone.get(canonicalPath) ?? 0;
    // Discovery and the like are no objects: a permission taken back says nothing of them.
    if (resource === "") return goneAtMs;
    const refusedAtMs = [...collections.values()].map(({ sinceMs }) => sinceMs);
    const objectsAtMs = [...objects.values()].map(({ sinceMs }) => sinceMs);
    return Math.max(goneAtMs, doubtedAtMs, ...objectsAtMs, ...refusedAtMs);
  }

  /** Calls back when everything of a caller was taken away for good. */
  onTaken(listener: (principal: string) => void): void {
    this.#takenListeners.add(listener);
  }

  /** The API server answered a get with the object. @param asked when it was asked, here as below. */
  allowed(principal: string, info: AskedObject, asked: AskedBetween): void {
    const standing = this.#book.find(principal);
    if (standing === undefined) return;
    const object = objectOf(info);
    const isLifted = !this.#isOutdated(principal, KEYS.object + object, asked) && standing.objects.delete(object);
    const isBack =
      !this.#isOutdated(principal, KEYS.gone + info.canonicalPath, asked) && standing.gone.delete(info.canonicalPath);
    if (isLifted || isBack) this.#book.save(principal);
  }

  /** Whether an answer to a get is of before: it was not there, or refused, since. */
  isLate(principal: string, info: AskedObject, asked: AskedBetween): boolean {
    const keys = [KEYS.object + objectOf(info), KEYS.gone + info.canonicalPath, KEYS.whole];
    return keys.some((key) => this.#isOutdated(principal, key, asked));
  }

  /** The API server answered a request of this caller with what it asked for: its credential counts. */
  accepted(principal: string, asked: AskedBetween): void {
    if (this.#book.find(principal) === undefined) return;
    this.#looks.hasten(principal);
    this.known(principal, asked);
  }

  /** The API server said no to what this caller asked, and not to who asks: its credential counts. */
  known(principal: string, asked: AskedBetween): void {
    if (!this.#isOutdated(principal, KEYS.whole, asked)) this.#isKnown(principal);
  }

  #isKnown(principal: string): void {
    const standing = this.#book.find(principal);
    if (standing?.whole === undefined) return;
    standing.whole = undefined;
    this.#refused.delete(principal);
    this.#release(principal, () => true);
    this.#book.save(principal);
  }

  /**
   * A get was refused.
   *
   * @param isKept whether a copy would have answered it.
   * @returns when the caller may hear of it.
   */
  async objectRefused(principal: string, info: AskedObject, isKept: boolean): Promise<void> {
    this.#note(principal, KEYS.object + objectOf(info));
    if (!isKept || this.isRefused(principal, info) || this.#isOurs(principal)) return;
    const standing = this.#book.of(principal);
    if (standing.objects.size >= MAX_OBJECTS) {
      // More than can be remembered: then nothing is left that could answer them.
      this.parts.scopes.forget(principal, () => true);
      standing.objects.clear();
    }
    standing.objects.set(objectOf(info), { path: info.canonicalPath, sinceMs: this.parts.clock.nowMs() });
    this.#book.save(principal);
    await this.#doubt(principal);
    this.#looks.begin(principal);
  }

  /** A get was answered with 404. @param isRecorded whether a recording would have answered it. */
  objectGone(principal: string, { canonicalPath }: AskedObject, isRecorded: boolean): void {
    this.#note(principal, KEYS.gone + canonicalPath);
    if (!isRecorded) return;
    const { gone } = this.#book.of(principal);
    if (gone.has(canonicalPath)) return;
    if (gone.size >= MAX_OBJECTS) this.#takeGone(principal, gone.keys().next().value!);
    gone.set(canonicalPath, this.parts.clock.nowMs());
    this.#book.save(principal);
    this.#looks.begin(principal);
  }

  /**
   * A list or watch was refused, or what it lists is not there (404).
   *
   * @returns when the caller may hear of it.
   */
  async collectionRefused(identity: ScopeIdentity, status = 403): Promise<void> {
    const { principal } = identity;
    const isOurs = this.#isOurs(principal);
    // The node's own lists go on; one of a single object is taken from it as its pod goes.
    if (status === 403 && isOurs && !/(^|,)metadata\.name=/.test(identity.fieldSelector)) return;
    const wasAllowed = this.parts.scopes.withhold(principal, (other) => isWithin(identity, other), words(status));
    if (wasAllowed) this.#stands(identity);
    this.#standsToo(identity);
    this.#looks.begin(principal);
    if (!wasAllowed) return void (await this.#doubting.get(principal));
    if (status === 403 && !isOurs) await this.#doubt(principal);
  }

  /** A scope's own list or watch was refused; it has withheld itself. */
  scopeRefused(identity: ScopeIdentity, status: number): void {
    const { principal } = identity;
    const credential = this.parts.source.credentialOf(principal);
    if (status === 401) return credential === undefined ? undefined : this.credentialRefused(principal, credential);
    this.parts.scopes.withhold(principal, (other) => isWithin(identity, other), words(status));
    this.#stands(identity);
    this.#standsToo(identity);
    if (status === 403 && !this.#isOurs(principal)) void this.#doubt(principal);
    this.#looks.begin(principal);
  }

  /** The API server does not know this caller's credential any more: all is withheld. */
  credentialRefused(principal: string, credential: UpstreamCredential): void {
    this.#note(principal, KEYS.whole);
    const standing = this.#book.of(principal);
    standing.whole ??= this.parts.clock.nowMs();
    if (this.#refused.size >= MAX_REFUSED) this.#refused.delete(this.#refused.keys().next().value!);
    this.#refused.set(principal, credential);
    this.parts.scopes.withhold(principal, () => true, words(401));
    this.#book.save(principal);
    this.#looks.begin(principal);
  }

  /** Ends all looks; what stands is kept. */
  close(): void {
    this.#looks.close();
  }

  #stands({ principal, ...identity }: ScopeIdentity): void {
    const { collections } = this.#book.of(principal);
    const text = collectionText(identity);
    this.#note(principal, KEYS.collection + text);
    if (collections.has(text)) return;
    // The oldest stays withheld all the same, until its client is allowed to list it again.
    if (collections.size >= MAX_COLLECTIONS) collections.delete(collections.keys().next().value!);
    collections.set(text, { identity, sinceMs: this.parts.clock.nowMs() });
    this.#book.save(principal);
  }

  /** What it withholds, or another did before, is looked at for itself: a yes to a part, or the end of another refusal, is no yes to this. */
  #standsToo(identity: ScopeIdentity): void {
    for (const { identity: other, isWithheld } of this.parts.scopes.all())
      if (isWithheld && other.principal === identity.principal && isWithin(identity, other)) this.#stands(other);
  }

  /** Something was taken back: asks what else was. */
  async #doubt(principal: string): Promise<void> {
    const known = this.#doubting.get(principal);
    const onForbidden = (identity: ScopeIdentity) => {
      this.parts.scopes.withhold(principal, (other) => isWithin(identity, other), words(403));
      this.#stands(identity);
    };
    const asking = Promise.all([known, askOthers(this.parts, principal, onForbidden)]).then(() => {});
    this.#doubting.set(principal, asking);
    await asking;
    if (this.#doubting.get(principal) === asking) this.#doubting.delete(principal);
  }

  // ---- looking again ----

  /** What the API server says now. A yes from before the last refusal of the same is none. */
  async #ask(principal: string, key: string): Promise<LookedAt> {
    const asked = betweenNow();
    const word = await this.#wordOf(principal, key);
    return word === "allowed" && this.#isOutdated(principal, key, asked) ? undefined : word;
  }

  #note(principal: string, key: string): void {
    this.#last.note(`${principal}\n${key}`);
  }

  #isOutdated(principal: string, key: string, asked: AskedBetween): boolean {
    return this.#last.outdate(`${principal}\n${key}`, asked);
  }

  async #wordOf(principal: string, key: string): Promise<LookedAt> {
    const { clock, source, statusOf, knows } = this.parts;
    const rest = key.slice(1);
    if (key === KEYS.whole) {
      const refused = this.#refused.get(principal);
      const isKnown = refused === undefined ? undefined : await knows(refused);
      return isKnown === undefined ? undefined : isKnown ? "allowed" : "refused";
    }
    if (key.startsWith(KEYS.collection)) {
      const identity = this.#book.of(principal).collections.get(rest)?.identity;
      if (identity === undefined) return undefined;
      return wordOf(
        await statusOfList(source, { principal, ...identity }, abortsAfter(clock, LOOK_DEADLINE_MS)),
        [403, 404],
      );
    }
    const credential = source.credentialOf(principal);
    const path = key.startsWith(KEYS.gone) ? rest : this.#book.of(principal).objects.get(rest)?.path;
    if (credential === undefined || path === undefined) return undefined;
    return wordOf(await statusOf(path, credential), key.startsWith(KEYS.gone) ? [404] : [403, 404]);
  }

  #lift(principal: string, key: string): void {
    const standing = this.#book.of(principal);
    const rest = key.slice(1);
    if (key === KEYS.whole) {
      this.#looks.hasten(principal);
      return this.#isKnown(principal);
    }
    if (key.startsWith(KEYS.collection)) {
      const identity = standing.collections.get(rest)?.identity;
      standing.collections.delete(rest);
      if (identity !== undefined) this.#release(principal, (other) => isWithin({ principal, ...identity }, other));
    } else if (key.startsWith(KEYS.object)) standing.objects.delete(rest);
    else standing.gone.delete(rest);
    this.#book.save(principal);
  }

  /** It has stood: what it withheld is taken away. */
  #believe(principal: string, key: string): void {
    if (key === KEYS.whole) return this.#takeAll(principal);
    const { log, scopes, store } = this.parts;
    const standing = this.#book.of(principal);
    const rest = key.slice(1);
    if (key.startsWith(KEYS.collection)) {
      const refused = standing.collections.get(rest);
      if (refused === undefined) return;
      standing.doubtedAtMs = Math.max(standing.doubtedAtMs, refused.sinceMs);
      standing.collections.delete(rest);
      scopes.forget(principal, (other) => isWithin({ principal, ...refused.identity }, other));
      log.info("a refusal has stood: what it withheld is gone", { resource: refused.identity.resource });
    } else if (key.startsWith(KEYS.object)) {
      // A list that is still allowed may hold it: the refusal stands on, its recordings go.
      const { path, sinceMs } = standing.objects.get(rest)!;
      standing.doubtedAtMs = Math.max(standing.doubtedAtMs, sinceMs);
      standing.objects.set(rest, { path: "", sinceMs });
      store.deleteResponsesForPath(principal, path);
    } else this.#takeGone(principal, rest);
    this.#book.save(principal);
  }

  #takeGone(principal: string, path: string): void {
    this.#book.of(principal).gone.delete(path);
    this.parts.store.deleteResponsesForPath(principal, path);
  }

  /** What another refusal that stands withholds stays withheld. */
  #release(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    const standing = this.#book.of(principal);
    if (standing.whole !== undefined) return;
    const others = [...standing.collections.values()].map(({ identity }) => ({ principal, ...identity }));
    this.parts.scopes.release(
      principal,
      (identity) => matches(identity) && !others.some((refused) => isWithin(refused, identity)),
    );
  }

  #takeAll(principal: string): void {
    this.parts.log.info("a caller's credential has stayed refused: what was withheld is gone");
    this.parts.scopes.forget(principal, () => true);
    for (const taken of this.#takenListeners) taken(principal);
    this.#refused.delete(principal);
    this.#book.forget(principal);
  }

  #isOurs(principal: string): boolean {
    return this.parts.source.credentialOf(principal)?.id === "own";
  }
}

function wordOf(status: number | undefined, refusals: readonly number[]): LookedAt {
  if (status === undefined) return undefined;
  return status < 300 ? "allowed" : refusals.includes(status) ? "refused" : undefined;
}

function words(status: number): StatusFields {
  return { code: status, reason: REASONS[status] ?? "Unknown", message: "the server refuses this to its caller" };
}
