/**
 * A scope: what one principal may see of one resource, kept and followed.
 *
 *   copy       its rows, on disk
 *   history    what a client that comes back can be promised
 *   follower   the upstream side: one list, then one watch
 *   audience   the local watchers
 *   layer      edits of a cut over the rows
 *
 * What it serves of rows and layer is its view (`scope-view.ts`). What is left
 * to the scope itself is use, freshness, and what each of them means for the
 * others. A cut changes nothing for local watchers; at the
 * return the follower goes on at the rows' resourceVersion, and only if the
 * API server has forgotten that moment the scope lists again and tells the
 * difference.
 *
 * Invariants:
 * - Nothing is served before a list was committed whole.
 * - Rows and resourceVersion move together, in the store's transaction.
 * - Rows never change under edits: when the API server speaks, the edits end.
 */

import type { Item, StatusFields } from "../kube/codec.ts";
import { compareResourceVersions, isResourceVersion } from "../kube/resource-version.ts";
import type { Copy, ScopeSnapshot } from "../store/contract.ts";
import type { UpstreamRefusedError } from "../uplink/scope-source.ts";
import { Audience } from "./audience.ts";
import { Feeds } from "./feeds.ts";
import { Follower } from "./follower.ts";
import { Encoder, type FrameSink, type WatchSink } from "./frames.ts";
import { listedFirst, resumed } from "./freshness.ts";
import { History } from "./history.ts";
import { Edits, type Layer } from "./layer.ts";
import { ListAdoption } from "./list-adoption.ts";
import { LocalWatches, type TapStart, type WatchRequest } from "./local-watches.ts";
import { ScopeTooLargeError } from "./scope-errors.ts";
import type { ScopeParts } from "./scope-parts.ts";
import { ScopeView } from "./scope-view.ts";
import { Usage } from "./usage.ts";
import { Waiting } from "./waiting.ts";

/** Where a scope stands. */
export type ScopeState = "unseen" | "listing" | "live" | "stale";

/** As the API server waits for its cache to reach an asked resourceVersion. */
const CATCH_UP_MS = 3_000;

/** One scope. */
export class Scope extends ScopeView {
  static #made = 0;
  /** Grows from scope to scope of this process: tells which of two is the older. */
  readonly order = ++Scope.#made;
  /** How its local watches begin. */
  readonly watches: LocalWatches;
  readonly #waiting: Waiting;
  readonly #history: History;
  readonly #audience: Audience;
  readonly #follower: Follower;
  readonly #edits: Edits;
  readonly #feeds: Feeds;
  readonly #usage: Usage;
  /** One forwarded list at a time is read along. */
  readonly adopting = { isTaken: false };
  /** How often it was withheld. */
  #refusals = 0;

  constructor(
    copy: Copy,
    private readonly parts: ScopeParts,
    private readonly onDropped: (scope: Scope) => void,
  ) {
    super(copy);
    const { clock, limits, log, phase = 0, turn = async () => {} } = parts;
    this.#usage = new Usage(copy, clock, limits.lingerMs, () => this.rest());
    this.#waiting = new Waiting(clock);
    this.#history = new History(limits, copy.listed, parts.ringBudget);
    parts.ringBudget?.add(this.#history.ring, parts.isOwn?.(this.identity.principal) === true);
    this.#audience = new Audience({
      ...{ rows: this.#history.ring, clock, log, limits },
      bookmarkAt: (isEdited) => this.#bookmarkAt(isEdited),
      onLeft: () => this.use(),
    });
    this.#edits = new Edits(limits, this.#audience, this, () => this.#feeds.advanced());
    const listed = () => this.listed;
    const shared = { history: this.#history, waiting: this.#waiting, audience: this.#audience, listed };
    this.#feeds = new Feeds({
      ...shared,
      ...{ clock, edits: this.#edits, identity: this.identity },
      refused: (error) => this.#refused(error),
    });
    this.#follower = new Follower({ ...parts, ...shared, copy, phase, turn, feeds: this.#feeds });
    this.watches = new LocalWatches({
      ...shared,
      follower: this.#follower,
      isVoid: (version) => parts.isVoid?.(version) === true,
      layer: () => this.#edits.layer,
      scope: this,
    });
  }

  protected override get layer(): Layer | undefined {
    return this.#edits.layer;
  }

  /** Where the scope stands now. */
  get state(): ScopeState {
    const { kind } = this.#follower.state;
    if (this.listed === undefined) return kind === "listing" ? "listing" : "unseen";
    return kind === "streaming" && this.parts.link.isOnline() ? "live" : "stale";
  }

  /** Whether it is edited, or its watchers have yet to hear the end of it. */
  get isReturning(): boolean {
    return this.isEdited || this.#audience.hasReturning;
  }

  /** Whether what it serves is what the API server says now: live, and nothing of ours before the rows. */
  get isCurrent(): boolean {
    return this.state === "live" && !this.isEdited;
  }

  /** Whether it is current, and what its watch had missed was handed down. */
  get hasCaughtUp(): boolean {
    const { state } = this.#follower;
    return this.isCurrent && state.kind === "streaming" && state.hasCaughtUp;
  }

  /** Whether it outgrew its bounds since start; such a scope is passed through. */
  get isOversize(): boolean {
    const { state } = this.#follower;
    return state.kind === "refused" && state.error instanceof ScopeTooLargeError;
  }

  /** Whether an upstream watch is open or being kept up. */
  get isFollowing(): boolean {
    return this.#follower.isRunning;
  }

  /** The API server's history went back and the list in its place has not come yet. */
  get hasRolledBack(): boolean {
    return this.#follower.hasRolledBack;
  }

  /** Local watchers attached now. */
  get watcherCount(): number {
    return this.#audience.size;
  }

  /** Whether somebody watches all of it: then it is followed anyway, and parts cost nothing more. */
  get isWatchedWhole(): boolean {
    return this.#audience.hasWhole;
  }

  /** For how long no client has used it, in ms. */
  get unusedMs(): number {
    return this.#usage.unusedMs;
  }

  /** Nothing of it is served from now on, online or cut. @param status ends its watchers, in the API server's words. */
  withhold(status: StatusFields): void {
    this.#refusals++;
    this.#edits.takeOff();
    this.#audience.end(status);
    this.#follower.stop();
    if (this.copy.listed !== undefined && !this.copy.isWithheld) this.copy.touch({ isWithheld: true });
    this.#feeds.advanced();
  }

  /** The API server allows it again: what was kept is served as it was. */
  release(): void {
    if (this.copy.isDropped || !this.copy.isWithheld) return;
    const isToCome = this.#isListingFirst && this.#follower.arrivingList === undefined;
    this.copy.touch({ isWithheld: false });
    if (!isToCome || this.listed === undefined) return;
    // It was to be listed in the rows' place; now they stand, and its watch goes on from there.
    this.#follower.stop();
    this.follow();
  }

  /** Whether the API server can be asked on this principal's behalf. */
  get canAsk(): boolean {
    const { isBarred, link, source } = this.parts;
    const { principal } = this.identity;
    return link.isOnline() && source.hasCredential(principal) && isBarred?.(principal) !== true;
  }

  // ---- use and freshness ----

  /** Notes that a client used the scope, and keeps it followed for the linger time. */
  override use(): void {
    if (!this.copy.isDropped) this.#usage.note();
  }

  /** Follows it, if there is something to follow with. */
  follow(): void {
    if (this.isOversize || this.listed === undefined) return;
    if (this.parts.source.hasCredential(this.identity.principal)) this.#follower.start();
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
    if (this.listed === undefined) return this.ensureListed();
    this.follow();
    const { clock, link, log } = this.parts;
    if (this.canAsk && this.isFollowing)
      await resumed(this, { clock, link, log, follower: this.#follower, waiting: this.#waiting });
  }

  /** Lists if nothing is kept yet. @throws as {@link ensureFresh}. */
  async ensureListed(): Promise<void> {
    if (this.listed === undefined) await listedFirst(this, this.#follower);
  }

  /** Resolves once the scope has reached a resourceVersion. @returns false if it did not in time. */
  reaches(resourceVersion: string, timeoutMs = CATCH_UP_MS): Promise<boolean> {
    return this.#waiting.until(() => compareResourceVersions(this.servedVersion, resourceVersion) >= 0, timeoutMs);
  }

  /** Follows no more while nobody watches it; the rows stay, and the next use takes up its watch again. */
  rest(): void {
    if (this.#audience.size > 0 || this.#follower.state.kind === "listing") return this.use();
    this.#follower.stop();
    this.#usage.settle();
  }

  // ---- edits ----

  /**
   * Lays edited items over their rows and tells the watchers. Their
   * resourceVersions grow from item to item. Whatever the API server says of
   * this scope after that takes all of them off.
   */
  edit(items: readonly Item[]): void {
    if (this.listed !== undefined && items.length > 0) this.#edits.lay(items);
  }

  /**
   * Takes all edits off. Watchers get the rows' items in their place, and then
   * 410: the resourceVersions they hold are none of the API server's.
   */
  endEdits(): void {
    this.#edits.takeOff();
    this.#audience.endReturning();
  }

  // ---- lists and watches ----

  /**
   * Takes over a complete list that a client's own forwarded request brought
   * (that client is being answered by the API server itself). Ignored when the
   * scope has a watch of its own.
   */
  adopt(): ListAdoption | undefined {
    if (this.isFollowing || this.#audience.size > 0 || this.isOversize) return undefined;
    const refusals = this.#refusals;
    const finish: ConstructorParameters<typeof ListAdoption>[2] = (contentType, head, writer) => {
      const { shape, resourceVersion } = head;
      // It came whole before our own first list, which may never come: it counts, and ours is given up.
      // What was asked for before a refusal says nothing of what is allowed since.
      if (refusals !== this.#refusals) return writer.abort();
      const isFree = this.#audience.size === 0 && (!this.isFollowing || this.#isListingFirst);
      if (!isFree || head.continueToken !== "" || !isResourceVersion(resourceVersion)) return writer.abort();
      this.#follower.stop();
      this.#edits.takeOff();
      const isPartlyTold = this.#history.isTold;
      writer.commit({ shape, contentType, resourceVersion, nowMs: this.parts.clock.nowMs(), isPartlyTold }, () => {});
      this.parts.countList("first");
      this.#history.startOver(resourceVersion);
      this.use();
      this.follow();
    };
    return new ListAdoption(this.copy, this.parts.limits, finish, this.adopting);
  }

  get #isListingFirst(): boolean {
    return this.listed === undefined && this.#follower.state.kind === "listing";
  }

  /** The API server gave out an older resourceVersion than what is held here: etcd was restored from a backup. Lists anew. */
  rolledBack(): void {
    this.#follower.distrust();
  }

  /**
   * Attaches a local watch. Where the client must list anew it is told so as
   * the API server does: an answer, an ERROR event of code 410, and the end.
   *
   * @param open called once when the watch is accepted, before the first byte.
   * @returns detaches it, to be called when the client goes away.
   * @throws {StatusError} {UpstreamRefusedError} {ScopeTooLargeError} before `open`.
   * @throws {AskUpstreamError} before `open`, when only the API server may know the moment.
   */
  watch(request: WatchRequest, open: () => WatchSink): Promise<() => void> {
    return this.tap(request, ({ codec, listed }) => new Encoder(codec, listed.shape, open()));
  }

  /**
   * As `watch`, with frames in the place of bytes.
   *
   * @param open called once when the watch is accepted, before the first frame.
   * @param over what is shown of a view that the watch begins with.
   */
  tap(
    request: WatchRequest,
    open: (start: TapStart) => FrameSink,
    over?: (view: ScopeSnapshot) => ScopeSnapshot,
  ): Promise<() => void> {
    this.use();
    return this.watches.open(request, open, over);
  }

  /** From now on, for as long as it is followed, every event keeps what stood before it: a watch of a part is about to come. */
  keepBefore(): void {
    this.#feeds.keepBefore();
  }

  /** Is kept no more: its watchers list for themselves, past Holdfast, and so does whoever comes. */
  passThrough(): void {
    this.#follower.giveUp(new ScopeTooLargeError(`Cannot keep ${this.identity.resource}: there is no room`));
  }

  /** Ends all watches and stops following; what is kept stays. */
  close(): void {
    this.#audience.close();
    this.#follower.stop();
    this.#usage.stop();
  }

  /** Where the rows stand is no bookmark for a watcher that is still being told how they came about. */
  #bookmarkAt(isEdited: boolean): string | undefined {
    if (this.#history.isReplaying) return undefined;
    return isEdited ? this.#edits.layer?.version : this.listed?.resourceVersion;
  }

  /** Its watchers have heard of it. */
  #refused(error: UpstreamRefusedError | ScopeTooLargeError): void {
    const { log, onRefused } = this.parts;
    const { resource, namespace } = this.identity;
    this.#edits.takeOff();
    if (error instanceof ScopeTooLargeError) {
      if (!this.copy.isDropped) this.copy.clear();
      return this.#history.startOver("");
    }
    const { status } = error;
    if (this.copy.listed === undefined) {
      this.copy.drop();
      return this.onDropped(this);
    }
    if (!this.isWithheld) log.warn("upstream refuses a scope: it is withheld", { resource, namespace, status });
    this.copy.touch({ isWithheld: true });
    onRefused?.(this.identity, status);
  }
}
