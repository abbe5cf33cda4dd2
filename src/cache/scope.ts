/**
 * A scope: what one principal may see of one resource, kept and followed.
 *
 * It lists upstream once, then owns one upstream watch and hands its events to
 * any number of local watchers. A cut changes nothing for them; at the return
 * the watch goes on at the stored resourceVersion, and only if the API server
 * has forgotten that moment (410) the scope lists again and sends the
 * difference.
 *
 *   unseen -> listing -> live <-> stale
 *
 * Invariants:
 * - Nothing is served before a list was committed whole.
 * - Rows and resourceVersion move together, in the store's transaction.
 * - What a resuming watcher can be promised is the history's word alone.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { MalformedError, type Codec, type Item, type StatusFields, type WatchFrame } from "../kube/codec.ts";
import { codecFor } from "../kube/representation.ts";
import { compareResourceVersions, isResourceVersion } from "../kube/resource-version.ts";
import { badRequest, expired, resourceVersionTooLarge, unavailable, type StatusError } from "../kube/status-error.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Copy, ListedState, ListWriter, ScopeIdentity, ScopeSnapshot, Store } from "../store/contract.ts";
import { CopyDroppedError } from "../store/errors.ts";
import { Difference } from "./difference.ts";
import { Edits, isLocalVersion } from "./edits.ts";
import { Encoder, type Frame, type FrameSink, type ObjectFrame, type WatchSink } from "./frames.ts";
import { ListAdoption } from "./list-adoption.ts";
import { History, isNextBookmark, isNextEvent } from "./history.ts";
import type { Ring } from "./ring.ts";
import { RolledBackError, ScopeTooLargeError, StoppedError } from "./scope-errors.ts";
import {
  UnreachableError,
  UnsaidError,
  UpstreamRefusedError,
  type LinkView,
  type ScopeSource,
} from "../uplink/scope-source.ts";
import { ScopeWatcher } from "./scope-watcher.ts";
import { readWholeList } from "./upstream-list.ts";
import { watchSeconds } from "./watch-length.ts";

/** Bounds and times of scopes; units in the names. */
export interface ScopeLimits {
  readonly scopeMaxItems: number;
  readonly scopeMaxBytes: number;
  readonly ringMaxEvents: number;
  readonly ringMaxBytes: number;
  /** How long a scope is followed after its last use. */
  readonly lingerMs: number;
  readonly bookmarkIntervalMs: number;
}

/** What scopes share. */
export interface ScopeParts {
  readonly store: Store;
  readonly source: ScopeSource;
  readonly link: LinkView;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: ScopeLimits;
  /** In [0, 1); spreads retries. */
  readonly random: () => number;
  /** In [0, 1), drawn once: where the grid begins on which upstream watches end. Default 0. */
  readonly phase?: number;
  /** Resolves when a scope may ask the API server again after the link's return; at once when there is no order to keep. */
  readonly turn?: (identity: ScopeIdentity) => Promise<void>;
  /** Whether the API server refuses this principal's credential, which is ours: as good as a cut for its scopes. */
  readonly isBarred?: (principal: string) => boolean;
  /** Whether an edited item's resourceVersion is from before the link was last there. */
  readonly isVoid?: (localVersion: string) => boolean;
  /** Counts for metrics: why a list went upstream. */
  readonly countList: (reason: "first" | "expired" | "rollback") => void;
  /** The API server refuses what a scope follows with 401, 403 or 404: it is withheld. */
  readonly onRefused?: (identity: ScopeIdentity, status: number) => void;
}

/** How a client asked to watch. */
export interface WatchRequest {
  /** "" (unset), "0", or a real one. */
  readonly resourceVersion: string;
  /** Initial events, then a bookmark that says they are complete (streaming list). */
  readonly sendInitialEvents: boolean;
  readonly allowBookmarks: boolean;
  /** The stream ends cleanly after this long. */
  readonly timeoutMs: number;
}

/** What a watch begins from. */
export interface TapStart {
  /** As it is served at that moment. */
  readonly listed: ListedState;
  readonly codec: Codec;
}

/** Where a scope stands. */
export type ScopeState = "unseen" | "listing" | "live" | "stale";

interface Following {
  readonly controller: AbortController;
  /** Settles when the API server first answered the watch: true if it goes on from where it was asked to. */
  readonly verdict: PromiseWithResolvers<boolean>;
  /** Why it ended for good. */
  refusal?: UpstreamRefusedError | ScopeTooLargeError;
}

/** Without a byte for this long the link is looked at; bookmarks come about once a minute. */
const SILENCE_SUSPECT_MS = 90_000;
const SILENCE_CHECK_MS = 30_000;
/** Without a byte for this long, though the link is well, the watch is opened anew. */
const SILENCE_REOPEN_MS = 300_000;
/** A watch that is to vouch for an older moment waits this long for the API server's word. */
const VERDICT_PATIENCE_MS = 1_800;
/** A watch taken up again has brought what was missed when nothing came for this long, within these bounds. */
const QUIET_MS = 20;
const QUIET_MOST_MS = 250;
/** How long a reader waits for a backlog to end, and how long the truth may take to be handed down before edits end. */
const BACKLOG_PATIENCE_MS = { read: 500, truth: 3_000 } as const;
/** A burst waits this long for watchers that are behind. */
const KEEP_UP_PATIENCE_MS = 500;
/** As the API server waits for its cache to reach an asked resourceVersion. */
const CATCH_UP_MS = 3_000;

/** One scope. */
export class Scope {
  static #made = 0;
  /** Grows from scope to scope of this process: tells which of two is the older. */
  readonly order = ++Scope.#made;
  readonly identity: ScopeIdentity;
  readonly #history: History;
  #watchers = new Set<ScopeWatcher>();
  #following: Following | undefined;
  #listing: Promise<void> | undefined;
  #isConnected = false;
  /** What was missed has come, as far as can be told. */
  #hasCaughtUp = false;
  /** How long the API server took to answer the present watch. */
  #answeredInMs = 0;
  #attempt: AbortController | undefined;
  #hasRolledBack = false;
  readonly #edits = new Edits();
  #lastPauseBytes = 0;
  #lastPauseSeq = 0;
  /** Watchers that did not keep up when they were last waited for. */
  #slow = new Set<ScopeWatcher>();
  #hasListHead = false;
  #isOversize = false;
  #lastUsedMs: number;
  /** By the monotonic clock; undefined while this process has not seen it used. */
  #usedAtMs: number | undefined;
  #cancelLinger: (() => void) | undefined;
  #cancelBookmarks: (() => void) | undefined;
  #advanced = new Set<() => void>();
  /** Somebody who selects has come since it is followed, and may be back after a cut. */
  #keepsBefore = false;

  constructor(
    /** Its rows; dropped with the scope. */
    readonly copy: Copy,
    private readonly parts: ScopeParts,
    private readonly onDropped: (scope: Scope) => void,
  ) {
    this.identity = copy.identity;
    this.#lastUsedMs = copy.lastUsedMs;
    this.#history = new History(parts.limits, copy.listed);
  }

  get #ring(): Ring {
    return this.#history.ring;
  }

  /** Where the scope stands now. */
  get state(): ScopeState {
    if (this.listed === undefined) return this.#listing === undefined ? "unseen" : "listing";
    return this.#isConnected && this.parts.link.isOnline() ? "live" : "stale";
  }

  /** Whether items are served that are edited here. */
  get isEdited(): boolean {
    return this.#edits.version !== "";
  }

  /** The resourceVersion of what is served: the rows', or the newest edit's. */
  get servedVersion(): string {
    return this.#edits.version === "" ? (this.listed?.resourceVersion ?? "") : this.#edits.version;
  }

  /** Whether what it serves is what the API server says now: live, and nothing of ours before the rows. */
  get isCurrent(): boolean {
    return this.state === "live" && !this.isEdited;
  }

  /** Whether it is current, and what its watch had missed was handed down. */
  get hasCaughtUp(): boolean {
    return this.isCurrent && this.#hasCaughtUp;
  }

  /** Whether it outgrew its bounds since start; such a scope is passed through. */
  get isOversize(): boolean {
    return this.#isOversize;
  }

  /** Whether an upstream watch is open or being kept up. */
  get isFollowing(): boolean {
    return this.#following !== undefined;
  }

  /** The API server's history went back and the list in its place has not come yet. */
  get hasRolledBack(): boolean {
    return this.#hasRolledBack;
  }

  /** Local watchers attached now. */
  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** Whether somebody watches all of it: then it is followed anyway, and parts cost nothing more. */
  get isWatchedWhole(): boolean {
    for (const { isPart } of this.#watchers) if (!isPart) return true;
    return false;
  }

  /** For how long no client has used it, in ms; a clock that is set meanwhile neither ages nor renews what this process saw used. */
  get unusedMs(): number {
    const { clock } = this.parts;
    return this.#usedAtMs === undefined ? clock.nowMs() - this.#lastUsedMs : clock.monotonicMs() - this.#usedAtMs;
  }

  /** The content's state, or undefined while nothing was committed. */
  get listed(): ListedState | undefined {
    return this.copy.isWithheld ? undefined : this.copy.listed;
  }

  /** Whether its rows answer nobody, because the API server refused this principal; they are kept, and a list that it allows takes them back. */
  get isWithheld(): boolean {
    return this.copy.isWithheld;
  }

  /** Nothing of it is served from now on, online or cut. @param status ends its watchers, in the API server's words. */
  withhold(status: StatusFields): void {
    this.#endWatchers(status);
    this.#stopFollowing();
    if (this.copy.listed !== undefined && !this.copy.isWithheld) this.copy.touch({ isWithheld: true });
    this.#tellAdvanced();
  }

  /** The API server allows it again: what was kept is served as it was. */
  release(): void {
    if (!this.copy.isDropped && this.copy.isWithheld) this.copy.touch({ isWithheld: false });
  }

  /** The codec of the kept bytes; only for a listed scope. */
  codec(listed: ListedState): Codec {
    const codec = codecFor(listed.contentType);
    if (codec === undefined)
      throw new MalformedError(
        `Cannot read a copy of ${this.identity.resource}: kept as ${listed.contentType}, which is not a known format`,
      );
    return codec;
  }

  /** Notes that a client used the scope, and keeps it followed for the linger time. */
  use(): void {
    if (this.copy.isDropped) return;
    const { clock } = this.parts;
    this.#usedAtMs = clock.monotonicMs();
    // A clock that stands before the last use was never set: what it says would make the scope decades old.
    const nowMs = Math.max(clock.nowMs(), this.#lastUsedMs);
    if (nowMs - this.#lastUsedMs > 60_000) this.copy.touch({ lastUsedMs: nowMs });
    this.#lastUsedMs = nowMs;
    this.#cancelLinger?.();
    this.#cancelLinger = this.parts.clock.after(this.parts.limits.lingerMs, () => this.#stopIfUnused());
  }

  /**
   * Brings the scope up to date before it is read: a live one is; a kept one
   * takes up its watch again, which costs what has changed and no list; an
   * unseen one is listed. If the API server does not answer in time what is
   * kept stands.
   *
   * @throws {UpstreamRefusedError} {ScopeTooLargeError} as the list or the watch met them.
   * @throws {StatusError} 503 when nothing was ever observed and nothing can be.
   */
  async ensureFresh(): Promise<void> {
    this.use();
    if (this.isCurrent) return;
    const { link, source } = this.parts;
    const canAsk =
      link.isOnline() &&
      source.hasCredential(this.identity.principal) &&
      this.parts.isBarred?.(this.identity.principal) !== true;
    if (this.listed !== undefined) {
      this.#ensureFollowing();
      if (canAsk) await this.#resume();
      return;
    }
    if (!canAsk) throw this.#neverObserved();
    try {
      await this.#list("first");
    } catch (error) {
      if (error instanceof UnreachableError || error instanceof CopyDroppedError) throw this.#neverObserved(error);
      if (!(error instanceof MalformedError)) throw error;
      throw unavailable(`Cannot list ${this.identity.resource}: the API server's answer is not a whole list`, {
        cause: error,
      });
    }
    this.#ensureFollowing();
  }

  /** Resolves once the scope has reached a resourceVersion. @returns false if it did not in time. */
  reaches(resourceVersion: string, timeoutMs = CATCH_UP_MS): Promise<boolean> {
    return this.#until(() => compareResourceVersions(this.servedVersion, resourceVersion) >= 0, timeoutMs);
  }

  /** Waits for the watch to take up where the rows end, as long as the link deserves. */
  async #resume(): Promise<void> {
    const following = this.#following;
    if (following === undefined) return;
    const { clock, link } = this.parts;
    const isSettled = () => this.isCurrent || this.#following !== following;
    const cancelSuspect = clock.after(link.patienceMs / 2, () => link.suspect());
    const stopListening = link.onChange((isOnline) => isOnline || this.#tellAdvanced());
    try {
      await this.#until(() => isSettled() || !link.isOnline(), link.patienceMs);
    } finally {
      cancelSuspect();
      stopListening();
    }
    // The watch found its moment forgotten, and the list in its place has begun to arrive.
    if (!isSettled() && this.#listing !== undefined && this.#hasListHead) await this.#listing.catch(() => {});
    if (following.refusal !== undefined) throw following.refusal;
    if (this.listed === undefined) throw this.#neverObserved();
    if (this.state === "live") await this.#untilQuiet(BACKLOG_PATIENCE_MS.read);
    else this.parts.log.info("scope served from its copy", { resource: this.identity.resource });
  }

  /** The API server sends what a resumed watch has missed at once; who reads first would get the past. */
  async #untilQuiet(patienceMs: number): Promise<void> {
    const untilMs = this.parts.clock.monotonicMs() + patienceMs;
    for (let seen = -1; seen !== this.#ring.nextSeq && this.parts.clock.monotonicMs() < untilMs;) {
      seen = this.#ring.nextSeq;
      // Events follow the answer's head as far behind as the link is slow.
      await this.#until(() => false, Math.min(QUIET_MOST_MS, Math.max(QUIET_MS, 2 * this.#answeredInMs)));
    }
  }

  async #until(isTrue: () => boolean, timeoutMs: number): Promise<boolean> {
    if (isTrue()) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const check = () => isTrue() && resolve(true);
    this.#advanced.add(check);
    const cancel = this.parts.clock.after(timeoutMs, () => resolve(isTrue()));
    try {
      return await promise;
    } finally {
      cancel();
      this.#advanced.delete(check);
    }
  }

  /** A frozen view of what is served, or undefined while nothing was committed. */
  snapshot(): ScopeSnapshot | undefined {
    this.use();
    return this.#view();
  }

  #view(): ScopeSnapshot | undefined {
    const rows = this.rows();
    return rows === undefined ? undefined : this.#edits.over(rows);
  }

  /** One item as it is served. */
  item(namespace: string, name: string): Item | undefined {
    const row = this.row(namespace, name);
    const edited = this.#edits.get(objectKey(namespace, name));
    return row !== undefined && edited?.meta.uid === row.meta.uid ? edited : row;
  }

  /** One item as the API server gave it. */
  row(namespace: string, name: string): Item | undefined {
    return this.listed === undefined ? undefined : this.copy.get(namespace, name);
  }

  /** Whether an edited item stands before this row. */
  isItemEdited(namespace: string, name: string): boolean {
    return this.#edits.get(objectKey(namespace, name)) !== undefined;
  }

  /** All items as the API server gave them; to be disposed of. */
  rows(): ScopeSnapshot | undefined {
    return this.listed === undefined ? undefined : this.copy.snapshot();
  }

  /** Lays edited items over their rows and tells the watchers. Their resourceVersions grow from item to item. */
  edit(items: readonly Item[]): void {
    const { listed } = this;
    if (listed === undefined) return;
    for (const watcher of this.#watchers)
      if (!isLocalVersion(watcher.startAt) && compareResourceVersions(watcher.startAt, listed.resourceVersion) > 0)
        watcher.withholdsEdits = true;
    for (const item of items) {
      const before = this.item(item.meta.namespace, item.meta.name);
      this.#edits.put(item);
      this.#ring.append({ type: "MODIFIED", item, before });
    }
    this.#tellAdvanced();
  }

  /**
   * Takes all edits off. Watchers get the rows' items in their place, and then
   * 410: the resourceVersions they hold are none of the API server's.
   */
  endEdits(): void {
    if (!this.isEdited) return;
    const edited = this.#edits.keys().map((key) => this.#edits.get(key)!);
    this.#edits.clear();
    const { listed } = this;
    if (listed !== undefined && this.#watchers.size > 0) {
      for (const before of edited) {
        const row = this.row(before.meta.namespace, before.meta.name);
        if (row !== undefined) this.#ring.append({ type: "MODIFIED", item: row, before });
      }
      for (const watcher of this.#watchers) watcher.restart();
      this.#tellAdvanced();
      this.#endWatchers(
        expired("too old resource version: the API server can be asked again; list anew").status,
        ({ withholdsEdits }) => !withholdsEdits,
      );
      for (const watcher of this.#watchers) watcher.withholdsEdits = false;
    }
    this.#ring.reset(listed?.resourceVersion ?? "");
    this.#tellAdvanced();
  }

  /**
   * Takes over a complete list that a client's own forwarded request brought
   * (that client is being answered by the API server itself). Ignored when the
   * scope has a watch of its own.
   */
  adopt(): ListAdoption | undefined {
    if (this.isFollowing || this.#listing !== undefined || this.#isOversize || this.#watchers.size > 0)
      return undefined;
    return new ListAdoption(this.copy, this.parts.limits, (contentType, head, writer) => {
      if (this.isFollowing || this.#listing !== undefined || this.#watchers.size > 0) return writer.abort();
      if (head.continueToken !== "" || !isResourceVersion(head.resourceVersion)) return writer.abort();
      const { shape, resourceVersion } = head;
      const isPartlyTold = this.#history.isTold;
      writer.commit({ shape, contentType, resourceVersion, nowMs: this.parts.clock.nowMs(), isPartlyTold }, () => {});
      this.parts.countList("first");
      this.#history.startOver(resourceVersion);
      this.use();
      this.#ensureFollowing();
    });
  }

  /** The API server gave out an older resourceVersion than what is held here: etcd was restored from a backup. Lists anew. */
  rolledBack(): void {
    // Between two attempts there is nothing to abort: the next one looks here first.
    this.#hasRolledBack = true;
    this.#attempt?.abort(new RolledBackError("The API server's resourceVersion went backwards"));
  }

  /**
   * Attaches a local watch.
   *
   * @param open called once when the watch is accepted, before the first byte.
   * @returns detaches it, to be called when the client goes away.
   * @throws {StatusError} {UpstreamRefusedError} {ScopeTooLargeError} before `open`.
   */
  watch(request: WatchRequest, open: () => WatchSink): Promise<() => void> {
    return this.tap(request, ({ codec, listed }) => new Encoder(codec, listed.shape, open()));
  }

  /** As `watch`, with frames in the place of bytes. @param open called once when the watch is accepted, before the first frame. */
  async tap(request: WatchRequest, open: (start: TapStart) => FrameSink): Promise<() => void> {
    this.use();
    const wantsState = request.sendInitialEvents || request.resourceVersion === "" || request.resourceVersion === "0";
    const isAt = request.resourceVersion !== "" && request.resourceVersion !== "0";
    if (wantsState) {
      await this.ensureFresh();
      const isForeign = !this.isEdited && isLocalVersion(request.resourceVersion);
      if (isAt && (isForeign || !(await this.reaches(request.resourceVersion))) && this.listed !== undefined)
        throw resourceVersionTooLarge(request.resourceVersion, this.servedVersion);
    } else {
      await this.#prepareResume(request.resourceVersion);
      // Since the head of the API server's answer its first event may have said 410.
      if (compareResourceVersions(request.resourceVersion, this.#ring.floor) < 0)
        throw expired(`too old resource version: ${request.resourceVersion} (${this.#ring.floor})`);
    }
    // A refusal met by another request may have taken the rows away meanwhile.
    if (this.listed === undefined) throw this.#neverObserved();
    this.#ensureFollowing();
    return this.#attach(request, wantsState, open);
  }

  /** From now on, for as long as it is followed, every event keeps what stood before it: a watch of a part is about to come. */
  keepBefore(): void {
    this.#keepsBefore = true;
  }

  /** Whether everything after this moment can be told from here, without asking for what was before now. */
  tellsFrom(at: string): boolean {
    const { listed } = this;
    if (listed === undefined) return false;
    if (isLocalVersion(at))
      return this.isEdited && this.parts.isVoid?.(at) !== true && compareResourceVersions(at, this.servedVersion) <= 0;
    if (this.#history.vouchesFor(at, listed) === "yes") return true;
    return this.isCurrent && compareResourceVersions(at, listed.resourceVersion) > 0;
  }

  /** Events that are newer than a moment it vouches for. */
  framesAfter(at: string): Iterable<Frame> {
    return this.#ring.from(this.#ring.seqAfter(at));
  }

  /** Is kept no more: its watchers list for themselves, past Holdfast, and so does whoever comes. */
  passThrough(): void {
    this.#isOversize = true;
    this.#endWatchers(expired(`too old resource version: ${this.identity.resource} is not kept any more`).status);
    this.#stopFollowing();
    if (!this.copy.isDropped) this.copy.clear();
    this.#tellAdvanced();
  }

  /** Ends all watches and stops following; what is kept stays. */
  close(): void {
    for (const watcher of [...this.#watchers]) {
      this.#bookmark(watcher);
      watcher.close();
    }
    this.#stopFollowing();
    this.#cancelLinger?.();
    this.#cancelBookmarks?.();
  }

  #attach(request: WatchRequest, wantsState: boolean, open: (start: TapStart) => FrameSink): () => void {
    const snapshot = wantsState ? this.#view() : undefined;
    const listed = snapshot?.listed ?? this.listed!;
    const startAt = wantsState ? listed.resourceVersion : request.resourceVersion;
    const watcher = new ScopeWatcher(
      this.#ring,
      open({ codec: this.codec(listed), listed }),
      {
        startAt,
        allowBookmarks: request.allowBookmarks,
        cursor: wantsState ? this.#ring.nextSeq : this.#ring.seqAfter(startAt),
        ...(snapshot === undefined
          ? {}
          : { initial: { snapshot, withEndBookmark: request.sendInitialEvents && request.allowBookmarks } }),
      },
      (left) => this.#detached(left),
    );
    this.#watchers.add(watcher);
    this.#scheduleBookmarks();
    const cancelTimeout = this.parts.clock.after(request.timeoutMs, () => {
      this.#bookmark(watcher);
      watcher.close();
    });
    watcher.start().catch((error: unknown) => {
      this.parts.log.error("watch broken off", { resource: this.identity.resource, error: String(error) });
      watcher.close();
    });
    return () => {
      cancelTimeout();
      watcher.gone();
    };
  }

  #detached(watcher: ScopeWatcher): void {
    this.#slow.delete(watcher);
    if (this.#watchers.delete(watcher)) this.use();
  }

  /** Makes sure that a watch at this resourceVersion misses nothing, or says 410. */
  async #prepareResume(at: string): Promise<void> {
    if (!isResourceVersion(at))
      throw badRequest(`Invalid value: "${at.slice(0, 64)}": resourceVersion is not a decimal number`);
    const isOnline = this.parts.link.isOnline() && this.parts.source.hasCredential(this.identity.principal);
    if (this.listed === undefined) {
      if (!isOnline) throw this.#neverObserved();
      await this.ensureListed();
    }
    if (isOnline && this.isEdited) await this.#until(() => !this.isEdited, CATCH_UP_MS);
    if (this.listed === undefined) throw this.#neverObserved();
    const resourceVersion = this.servedVersion;
    const tooOld = () => expired(`too old resource version: ${at} (${resourceVersion})`);
    if (isLocalVersion(at)) {
      const isKnown = this.isEdited && this.parts.isVoid?.(at) !== true;
      if (!isKnown || compareResourceVersions(at, resourceVersion) > 0) throw tooOld();
      return;
    }
    const word = this.#history.vouchesFor(at, this.listed);
    if (word === "relist") throw tooOld();
    if (compareResourceVersions(at, this.listed.resourceVersion) > 0) {
      if (isOnline && !this.isEdited) return;
      throw expired(
        `The copy kept here ends at resourceVersion ${resourceVersion}, before ${at}, and the API server cannot be reached`,
      );
    }
    if (word === "yes") return;
    if (isOnline && !this.isFollowing && this.#watchers.size === 0 && (await this.#followFrom(at))) return;
    throw tooOld();
  }

  /** Lists if nothing is kept yet. */
  async ensureListed(): Promise<void> {
    if (this.listed !== undefined) return;
    try {
      await this.#list("first");
    } catch (error) {
      if (error instanceof UnreachableError || error instanceof CopyDroppedError) throw this.#neverObserved(error);
      throw error;
    }
  }

  #neverObserved(cause?: unknown): StatusError {
    const { resource, group, namespace } = this.identity;
    const what = `${resource}${group === "" ? "" : `.${group}`}${namespace === "" ? "" : ` in namespace "${namespace}"`}`;
    return unavailable(
      `Cannot list ${what}: the API server cannot be reached and this caller's list was never observed here`,
      { cause },
    );
  }

  // ---- following ----

  #ensureFollowing(): void {
    if (this.#following !== undefined || this.#isOversize || this.listed === undefined) return;
    if (!this.parts.source.hasCredential(this.identity.principal)) return;
    void this.#startFollowing(undefined);
  }

  /** Follows from an older moment than the rows, so that the ring can vouch for it. @returns false if the API server has forgotten that moment. */
  async #followFrom(at: string): Promise<boolean> {
    const following = this.#startFollowing(at);
    const { promise: timeout, resolve } = Promise.withResolvers<false>();
    const cancel = this.parts.clock.after(VERDICT_PATIENCE_MS, () => resolve(false));
    try {
      return await Promise.race([following.verdict.promise, timeout]);
    } finally {
      cancel();
    }
  }

  #startFollowing(from: string | undefined): Following {
    const following: Following = { controller: new AbortController(), verdict: Promise.withResolvers<boolean>() };
    this.#following = following;
    if (from === undefined) this.#history.endReplay();
    else this.#history.beginReplay(from, this.listed!.resourceVersion);
    this.#followLoop(following)
      .catch((error: unknown) => {
        this.parts.log.error("scope stopped following", { resource: this.identity.resource, error: String(error) });
      })
      .finally(() => {
        following.verdict.resolve(false);
        if (this.#following === following) this.#following = undefined;
        this.#isConnected = false;
        this.#tellAdvanced();
      });
    return following;
  }

  #stopFollowing(): void {
    const following = this.#following;
    this.#following = undefined;
    this.#isConnected = false;
    this.#keepsBefore = false;
    following?.controller.abort(new StoppedError("no longer used"));
  }

  #stopIfUnused(): void {
    this.#cancelLinger = undefined;
    if (this.#watchers.size > 0) return this.use();
    this.#stopFollowing();
    if (!this.copy.isDropped) this.copy.touch({ lastUsedMs: this.#lastUsedMs });
  }

  async #followLoop(following: Following): Promise<void> {
    const { clock, link, source } = this.parts;
    const { signal } = following.controller;
    let failures = 0;
    while (this.#following === following) {
      if (!link.isOnline()) failures = 0;
      if (!(await this.#linkUp(signal)) || !source.hasCredential(this.identity.principal)) return;
      await this.parts.turn?.(this.identity);
      if (this.#following !== following) return;
      if (!link.isOnline()) continue;
      const startedMs = clock.monotonicMs();
      const heldBefore = this.listed?.resourceVersion ?? "";
      let outcome = await this.#attemptOnce(following);
      if (outcome.kind === "expired" && this.#history.isReplaying) {
        // The older moment is forgotten; ours may not be.
        this.#endReplay(following);
        outcome = { kind: "ended", retryAfterMs: 0 };
      } else if (outcome.kind === "expired" && this.#isBeyond(heldBefore)) {
        // Forgotten is what was held when it was asked for; a list that was under way, or events, have gone on since.
        outcome = { kind: "ended", retryAfterMs: 0 };
      } else if (outcome.kind === "expired" || outcome.kind === "rollback") {
        outcome = await this.#relist(outcome.kind, following);
      }
      if (outcome.kind === "stop" || this.#following !== following) return;
      failures = outcome.kind === "ended" && clock.monotonicMs() - startedMs >= 1_000 ? 0 : failures + 1;
      if (failures > 0) await this.#pause(outcome.retryAfterMs ?? this.#backoffMs(failures), signal);
    }
  }

  #isBeyond(resourceVersion: string): boolean {
    return resourceVersion !== "" && compareResourceVersions(this.listed?.resourceVersion ?? "", resourceVersion) > 0;
  }

  /** The API server has forgotten the older moment: who relies on it lists again. */
  #endReplay(following: Following): void {
    following.verdict.resolve(false);
    const floor = this.#history.giveUpReplay(this.listed?.changedAt ?? "");
    this.#endWatchers(
      expired(`too old resource version: what happened before ${floor} is not known any more`).status,
      ({ startAt }) => compareResourceVersions(startAt, floor) < 0,
    );
  }

  async #attemptOnce(following: Following): Promise<FollowOutcome> {
    const attempt = new AbortController();
    this.#attempt = attempt;
    const abort = () => attempt.abort(following.controller.signal.reason);
    following.controller.signal.addEventListener("abort", abort);
    try {
      if (this.#hasRolledBack) return { kind: "rollback" };
      if (this.listed === undefined) await this.#list("first");
      return await this.#followOnce(following, this.#history.nextFrom(this.listed!.resourceVersion), attempt);
    } catch (error) {
      return attempt.signal.reason instanceof RolledBackError
        ? { kind: "rollback" }
        : this.#outcomeOf(error, following);
    } finally {
      following.controller.signal.removeEventListener("abort", abort);
      this.#isConnected = false;
    }
  }

  /** Opens the watch and reads it to its end. */
  async #followOnce(following: Following, from: string, attempt: AbortController): Promise<FollowOutcome> {
    const { clock, link, source, phase = 0 } = this.parts;
    const stopListening = link.onChange((isOnline) => isOnline || attempt.abort(new UnreachableError("link lost")));
    let lastByteMs = clock.monotonicMs();
    const checkSilence = () => {
      const silentMs = clock.monotonicMs() - lastByteMs;
      if (silentMs > SILENCE_REOPEN_MS) return attempt.abort(new UnreachableError("watch silent"));
      // Quiet resources get no bookmark for minutes; a probe would say no more than kubelet's lease a moment ago, and costs a handshake.
      if (silentMs > SILENCE_SUSPECT_MS) link.suspect(SILENCE_CHECK_MS);
      cancelSilence = clock.after(SILENCE_CHECK_MS, checkSilence);
    };
    let cancelSilence = clock.after(SILENCE_CHECK_MS, checkSilence);
    try {
      const askedMs = clock.monotonicMs();
      const seconds = watchSeconds(this.identity, askedMs, phase);
      const { shape, contentType } = this.listed!;
      const stream = await source.watch(this.identity, { resourceVersion: from, shape }, seconds, attempt.signal);
      const { codec } = stream;
      // An API server that has learned another format since the list: rows of two formats make no list.
      if (codec.contentType !== contentType) return { kind: "expired" };
      this.#isConnected = true;
      this.#answeredInMs = clock.monotonicMs() - askedMs;
      void this.#returnToTruth(following, attempt);
      following.verdict.resolve(true);
      this.#tellAdvanced();
      const position = { at: from };
      for await (const frames of stream.batches) {
        lastByteMs = clock.monotonicMs();
        if (this.#following !== following) return { kind: "stop" };
        for (const frame of frames) {
          const outcome = this.#take(frame, position);
          if (outcome !== undefined) return outcome;
          await this.#letWatchersKeepUp();
        }
      }
      return { kind: "ended" };
    } finally {
      cancelSilence();
      stopListening();
      attempt.abort(new StoppedError("done"));
    }
  }

  /** What changed meanwhile is handed down first, then the edits end. */
  async #returnToTruth(following: Following, attempt: AbortController): Promise<void> {
    this.#hasCaughtUp = false;
    if (this.isEdited) for (const watcher of this.#watchers) watcher.restart();
    await this.#untilQuiet(BACKLOG_PATIENCE_MS.truth);
    if (this.#following !== following || !this.#isConnected || this.#attempt !== attempt) return;
    this.#hasCaughtUp = true;
    this.endEdits();
  }

  /** One frame of the upstream watch. @returns an outcome if the watch cannot go on. */
  #take(frame: WatchFrame, position: { at: string }): FollowOutcome | undefined {
    const { clock } = this.parts;
    // Its rows were lost meanwhile: there is nothing that an event could be applied to.
    if (this.listed === undefined) return { kind: "ended" };
    if (frame.type === "ERROR") {
      if (frame.code === 410) return { kind: "expired" };
      throw new UpstreamRefusedError(frame.code, "application/json", "", undefined);
    }
    if (frame.type === "BOOKMARK") {
      if (!isResourceVersion(frame.resourceVersion)) return undefined;
      if (!isNextBookmark(frame.resourceVersion, position.at)) return { kind: "rollback" };
      position.at = frame.resourceVersion;
      if (compareResourceVersions(frame.resourceVersion, this.listed.resourceVersion) > 0) {
        this.copy.touch({ resourceVersion: frame.resourceVersion, lastContactMs: clock.nowMs() });
        this.#tellAdvanced();
      }
      this.#history.passed(position.at);
      return undefined;
    }
    const { resourceVersion } = frame.item.meta;
    if (!isResourceVersion(resourceVersion))
      throw new MalformedError("Cannot follow a watch whose objects carry no resourceVersion");
    if (!isNextEvent(resourceVersion, position.at)) return { kind: "rollback" };
    position.at = resourceVersion;
    this.#apply(frame);
    this.#history.passed(resourceVersion);
    return undefined;
  }

  #apply(frame: ObjectFrame): void {
    const { clock } = this.parts;
    const { item, type } = frame;
    const { name, namespace, resourceVersion } = item.meta;
    const place = this.#history.placeOf(resourceVersion, this.listed!.resourceVersion);
    if (place === "known") return;
    const needsBefore = place === "new" && type === "MODIFIED" && this.#keepsBefore;
    const before = needsBefore ? this.item(namespace, name) : undefined;
    if (place === "new") {
      if (type === "DELETED") this.copy.delete(item, resourceVersion, clock.nowMs());
      else this.copy.put(item, resourceVersion, clock.nowMs());
    }
    this.#edits.delete(objectKey(namespace, name));
    this.#ring.append({ type, item, before });
    this.#tellAdvanced();
  }

  /**
   * A burst larger than the ring would end every watcher, however fast it
   * reads: sockets drain only between two turns of the event loop. So after a
   * quarter of the ring the upstream waits for those who are behind, for a
   * moment and not for ever: who does not keep up is not waited for again
   * until it has.
   */
  async #letWatchersKeepUp(): Promise<void> {
    const { clock, limits } = this.parts;
    const grownBytes = this.#ring.appendedBytes - this.#lastPauseBytes;
    const grownEvents = this.#ring.nextSeq - this.#lastPauseSeq;
    if (grownBytes < limits.ringMaxBytes / 4 && grownEvents < limits.ringMaxEvents / 4) return;
    this.#lastPauseBytes = this.#ring.appendedBytes;
    this.#lastPauseSeq = this.#ring.nextSeq;
    const isBehind = (watcher: ScopeWatcher) => watcher.cursor < this.#ring.nextSeq;
    for (const watcher of this.#slow)
      if (!isBehind(watcher) || !this.#watchers.has(watcher)) this.#slow.delete(watcher);
    const untilMs = clock.monotonicMs() + KEEP_UP_PATIENCE_MS;
    const waitedFor = () => [...this.#watchers].filter((watcher) => isBehind(watcher) && !this.#slow.has(watcher));
    while (waitedFor().length > 0 && clock.monotonicMs() < untilMs) {
      const { promise, resolve } = Promise.withResolvers<void>();
      clock.after(5, resolve);
      await promise;
    }
    for (const watcher of waitedFor()) this.#slow.add(watcher);
  }

  #tellAdvanced(): void {
    for (const watcher of this.#watchers) watcher.pump();
    for (const check of this.#advanced) check();
  }

  #outcomeOf(error: unknown, following: Following): FollowOutcome {
    if (this.#following !== following) return { kind: "stop" };
    if (error instanceof ScopeTooLargeError) return this.#outgrown(error, following);
    if (error instanceof UpstreamRefusedError) {
      if (error.status === 410) return { kind: "expired" };
      if (error.status === 504 && error.body.includes("ResourceVersionTooLarge")) return { kind: "rollback" };
      if (error.status === 401 || error.status === 403 || error.status === 404) return this.#refused(error, following);
    }
    if (error instanceof UpstreamRefusedError || error instanceof UnsaidError)
      return error.retryAfterSeconds === undefined
        ? { kind: "failed" }
        : { kind: "failed", retryAfterMs: error.retryAfterSeconds * 1_000 };
    if (error instanceof MalformedError)
      this.parts.log.warn("upstream watch unreadable, opened anew", {
        resource: this.identity.resource,
        reason: error.message,
      });
    else if (!(error instanceof UnreachableError))
      this.parts.log.error("upstream watch failed", { resource: this.identity.resource, error: String(error) });
    return { kind: "failed" };
  }

  /** The API server no longer lets this principal watch here: end its watches in the API server's words, and forget what it was once allowed to see. */
  #refused(error: UpstreamRefusedError, following: Following): FollowOutcome {
    const { status } = error;
    // What runs must go on: only single objects are taken from the node, as pods come and go.
    const isExempt = status === 401 ? this.#isOwnCredential() : status === 403 && isWholeOfNode(this.identity);
    if (isExempt) return { kind: "failed", retryAfterMs: 30_000 };
    if (this.listed !== undefined)
      this.parts.log.warn("upstream refuses a scope: it is withheld", {
        resource: this.identity.resource,
        namespace: this.identity.namespace,
        status,
      });
    following.refusal = error;
    this.withhold({
      code: status,
      reason: { 401: "Unauthorized", 403: "Forbidden", 404: "NotFound" }[status] ?? "Unknown",
      message: `the server refuses to watch ${this.identity.resource}`,
    });
    if (this.copy.listed === undefined) {
      this.copy.drop();
      this.onDropped(this);
    } else this.parts.onRefused?.(this.identity, status);
    return { kind: "stop" };
  }

  /** Listed anew it was beyond its bounds: its watchers list for themselves, past Holdfast. */
  #outgrown(error: ScopeTooLargeError, following: Following): FollowOutcome {
    following.refusal = error;
    this.#endWatchers(expired(`too old resource version: ${this.identity.resource} is not kept any more`).status);
    this.#stopFollowing();
    this.#tellAdvanced();
    return { kind: "stop" };
  }

  #endWatchers(status: StatusFields, isMeant: (watcher: ScopeWatcher) => boolean = () => true): void {
    for (const watcher of [...this.#watchers].filter(isMeant)) watcher.close(status);
  }

  #isOwnCredential(): boolean {
    return this.identity.principal.startsWith("certificate:");
  }

  async #linkUp(signal: AbortSignal): Promise<boolean> {
    const { link } = this.parts;
    if (signal.aborted) return false;
    if (link.isOnline()) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const stopListening = link.onChange((isOnline) => isOnline && resolve(true));
    const onAbort = () => resolve(false);
    signal.addEventListener("abort", onAbort);
    try {
      return await promise;
    } finally {
      stopListening();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #pause(delayMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    const cancel = this.parts.clock.after(delayMs, wake);
    const stopListening = this.parts.link.onChange(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    cancel();
    stopListening();
    signal.removeEventListener("abort", wake);
  }

  #backoffMs(failures: number): number {
    return Math.min(30_000, 100 * 2 ** Math.min(failures, 12)) * (0.5 + this.parts.random() / 2);
  }

  // ---- listing ----

  #list(reason: "first" | "expired" | "rollback"): Promise<void> {
    this.#listing ??= this.#listOnce(reason).finally(() => (this.#listing = undefined));
    return this.#listing;
  }

  async #relist(reason: "expired" | "rollback", following: Following): Promise<FollowOutcome> {
    try {
      await this.#list(reason);
      return { kind: "ended" };
    } catch (error) {
      return this.#outcomeOf(error, following);
    }
  }

  async #listOnce(reason: "first" | "expired" | "rollback"): Promise<void> {
    const { link, source, clock, limits } = this.parts;
    const controller = new AbortController();
    this.#hasListHead = false;
    const onHead = () => {
      this.#hasListHead = true;
    };
    const stopListening = link.onChange((isOnline) => isOnline || controller.abort(new UnreachableError("link lost")));
    this.parts.countList(reason);
    try {
      const { writer, codec, head } = await readWholeList({
        copy: this.copy,
        source,
        identity: this.identity,
        limits,
        signal: controller.signal,
        onHead,
      });
      this.#commit(
        writer,
        {
          shape: head.shape,
          contentType: codec.contentType,
          resourceVersion: head.resourceVersion,
          nowMs: clock.nowMs(),
        },
        codec,
      );
    } catch (error) {
      controller.abort(new StoppedError("list given up"));
      if (error instanceof ScopeTooLargeError) this.#isOversize = true;
      throw error;
    } finally {
      stopListening();
    }
  }

  #commit(writer: ListWriter, state: Parameters<ListWriter["commit"]>[0], codec: Codec): void {
    const before = this.listed;
    this.#hasRolledBack = false;
    const { resourceVersion } = state;
    const hasGoneBack = before !== undefined && compareResourceVersions(resourceVersion, before.resourceVersion) < 0;
    const isTold = this.#watchers.size > 0 && before !== undefined && !hasGoneBack;
    if (!isTold) {
      writer.commit({ ...state, isPartlyTold: this.#history.isTold }, () => {});
      const gone = expired(`too old resource version: the API server's history went back to ${resourceVersion}`).status;
      for (const watcher of [...this.#watchers]) watcher.close(gone);
      this.#history.startOver(resourceVersion);
      return;
    }
    // Who began with a newer list than our rows must not be told how these differ.
    this.#endWatchers(
      expired(`too old resource version: the copy kept here ended at ${before.resourceVersion}`).status,
      ({ startAt }) => compareResourceVersions(startAt, before.resourceVersion) > 0,
    );
    this.#history.tell(resourceVersion);
    const send = (frame: ObjectFrame) => this.#ring.append(frame);
    const difference = new Difference({ codec, before: before.resourceVersion, epoch: resourceVersion, send });
    const keepsBefore = this.#keepsBefore;
    writer.commit({ ...state, isPartlyTold: true }, (change) => {
      difference.add(change, keepsBefore);
      for (const watcher of this.#watchers) watcher.pump();
    });
    if (!difference.end()) {
      this.#endWatchers(expired(`too old resource version: what changed up to ${resourceVersion} has no order`).status);
      return this.#history.startOver(resourceVersion);
    }
    this.#ring.append({ type: "BOOKMARK", resourceVersion, isInitialEventsEnd: false });
    this.#tellAdvanced();
  }

  #scheduleBookmarks(): void {
    if (this.#cancelBookmarks !== undefined) return;
    this.#cancelBookmarks = this.parts.clock.after(this.parts.limits.bookmarkIntervalMs, () => {
      this.#cancelBookmarks = undefined;
      if (this.listed === undefined || this.#watchers.size === 0) return;
      for (const watcher of this.#watchers) this.#bookmark(watcher);
      this.#scheduleBookmarks();
    });
  }

  /** Where the rows stand is no bookmark for a watcher that is still being told how they came about. */
  #bookmark(watcher: ScopeWatcher): void {
    const { listed } = this;
    if (listed !== undefined && !this.#history.isReplaying) watcher.bookmark(this.servedVersion);
  }
}

/** Whether it is our node's list of more than one object. */
function isWholeOfNode({ principal, fieldSelector }: ScopeIdentity): boolean {
  return principal.startsWith("certificate:system:node:") && !/(^|,)metadata\.name=/.test(fieldSelector);
}

type FollowOutcome =
  /** The watch came to a clean end. */
  | { readonly kind: "ended"; readonly retryAfterMs?: number }
  | { readonly kind: "failed"; readonly retryAfterMs?: number }
  /** The API server has forgotten the moment we resume from. */
  | { readonly kind: "expired"; readonly retryAfterMs?: number }
  /** The API server's resourceVersions went backwards. */
  | { readonly kind: "rollback"; readonly retryAfterMs?: number }
  | { readonly kind: "stop"; readonly retryAfterMs?: number };
