/**
 * How a local watch begins: with what is there, at a moment that is vouched
 * for, or with the word that its client must list.
 *
 *   no moment, or initial events    the scope is brought up to date, then what is served
 *   vouched for                     the events after it: rows, then edits
 *   ahead of the rows, online       held open; it sees what is newer than itself
 *   older, and the scope asleep     the scope's own watch begins there, once
 *   older, online                   the API server is asked: it often still knows
 *   anything else                   200, an ERROR event of code 410, the end
 */

import { compareResourceVersions, isResourceVersion, newerResourceVersion } from "../kube/resource-version.ts";
import { badRequest, expired, resourceVersionTooLarge } from "../kube/status-error.ts";
import type { Codec, StatusFields } from "../kube/codec.ts";
import type { ListedState, ScopeSnapshot } from "../store/contract.ts";
import type { Audience } from "./audience.ts";
import { isLocalVersion } from "./edits.ts";
import type { Follower } from "./follower.ts";
import type { Frame, FrameSink } from "./frames.ts";
import { neverObserved } from "./freshness.ts";
import type { History, Vouch } from "./history.ts";
import type { Layer } from "./layer.ts";
import type { Scope } from "./scope.ts";
import { AskUpstreamError } from "./scope-errors.ts";
import type { Shown } from "./shown-ahead.ts";
import type { Station, WatcherOptions } from "./scope-watcher.ts";
import type { Waiting } from "./waiting.ts";

/** How a client asked to watch. */
export interface WatchRequest {
  /** "" (unset), "0", or a real one. */
  readonly resourceVersion: string;
  /** Initial events, then a bookmark that says they are complete (streaming list). */
  readonly sendInitialEvents: boolean;
  readonly allowBookmarks: boolean;
  /** The stream ends cleanly after this long. */
  readonly timeoutMs: number;
  /** The API server was asked and has not answered: it is not asked again. */
  readonly isInstead?: boolean;
  /** It is told a part that objects come into and go out of: what each event replaced must be known. */
  readonly isPart?: boolean;
}

/** What a watch begins from. */
export interface TapStart {
  /** As it is served at that moment. */
  readonly listed: ListedState;
  readonly codec: Codec;
}

/** What watches are opened with. */
export interface LocalWatchParts {
  readonly audience: Audience;
  readonly follower: Follower;
  readonly history: History;
  readonly waiting: Waiting;
  readonly isVoid: (localVersion: string) => boolean;
  readonly layer: () => Layer | undefined;
  readonly listed: () => ListedState | undefined;
  readonly scope: Scope;
}

/** As long as the API server waits, edits are waited for to end. */
const CATCH_UP_MS = 3_000;

/** Opens local watches of one scope. */
export class LocalWatches {
  /** What was shown ahead just now, and is not kept yet. */
  #shownTo = "";

  constructor(private readonly parts: LocalWatchParts) {}

  /** As {@link Scope.tap}. */
  async open(
    request: WatchRequest,
    open: (start: TapStart) => FrameSink,
    over: (view: ScopeSnapshot) => ScopeSnapshot = (view) => view,
  ): Promise<() => void> {
    const { audience, scope } = this.parts;
    const { resourceVersion: at, sendInitialEvents } = request;
    const wantsState = sendInitialEvents || at === "" || at === "0";
    const lastWord = wantsState ? await this.#bringUp(request) : await this.#prepare(request);
    const listed = this.parts.listed();
    // A refusal met by another request may have taken the rows away meanwhile.
    if (listed === undefined) throw neverObserved(scope.identity);
    scope.follow();
    const start: TapStart = { listed, codec: scope.codec(listed) };
    if (lastWord !== undefined) {
      open(start).end(lastWord);
      return () => {};
    }
    const options = wantsState ? this.#fromState(request, over) : this.#from(at, request.allowBookmarks);
    return audience.attach(options, request.timeoutMs, open(start));
  }

  /** Whether everything after this moment can be told from here, without asking for what was before now. */
  tellsFrom(at: string): boolean {
    const word = this.#vouchesFor(at);
    const isAhead = word === "ask upstream" && compareResourceVersions(at, this.parts.scope.servedVersion) > 0;
    return word === "yes" || (isAhead && this.parts.scope.isCurrent);
  }

  /** Whether what an event after this moment replaced is not known, so that no part can be told from there. */
  lacksBefore(at: string): boolean {
    if (!isLocalVersion(at) && this.parts.history.isReplayedAfter(at)) return true;
    for (const frame of this.#framesAfter(at)) if (frame.type === "MODIFIED" && frame.before === undefined) return true;
    return false;
  }

  /** The frames that such a watch would begin with. */
  *#framesAfter(at: string): Generator<Frame, void> {
    for (const { ring, cursor, until } of this.#route(at))
      for (let seq = cursor; seq < (until ?? ring.nextSeq); seq++) {
        const frame = ring.at(seq)?.frame;
        if (frame !== undefined) yield frame;
      }
  }

  /** An object was shown to a client as it is, or as gone, at a later moment than the rows'. @param isNow and not before this process. */
  showedAhead(key: string, shown: Shown, isNow: boolean): void {
    const { history, listed } = this.parts;
    history.showedAhead(key, isNow ? { ...shown, since: listed()?.resourceVersion ?? "" } : shown);
    if (!isNow || compareResourceVersions(shown.at, newerResourceVersion(this.#shownTo, listed()?.shownTo ?? "")) <= 0)
      return;
    // A list shows many at once, and is one write.
    if (this.#shownTo === "") queueMicrotask(() => this.#keepShown());
    this.#shownTo = shown.at;
  }

  #keepShown(): void {
    const { copy } = this.parts.scope;
    if (!copy.isDropped) copy.touch({ shownTo: this.#shownTo });
    this.#shownTo = "";
  }

  /** Up to which moment clients had been shown more than the rows when this process took them over; "" for no more. */
  get shownBefore(): string {
    return this.parts.history.shownBefore;
  }

  /** Whether a client that stands at this moment may have come to it before this process. */
  isFromBefore(at: string): boolean {
    return compareResourceVersions(at, this.parts.history.keptAt) <= 0;
  }

  /** What a client that stands at this moment may have been shown ahead. */
  shownAfter(at: string): Iterable<[string, Shown]> {
    return this.parts.history.shownAfter(at);
  }

  async #bringUp({ resourceVersion: at, isInstead = false }: WatchRequest): Promise<undefined> {
    const { layer, listed, scope } = this.parts;
    if (!isInstead) await scope.ensureFresh();
    if (at === "" || at === "0") return undefined;
    const isForeign = layer() === undefined && isLocalVersion(at);
    if ((isForeign || !(await scope.reaches(at))) && listed() !== undefined)
      throw resourceVersionTooLarge(at, scope.servedVersion);
    return undefined;
  }

  /** Makes sure that a watch at this moment misses nothing. @returns the word that its client must list. */
  async #prepare({
    resourceVersion: at,
    isInstead = false,
    isPart = false,
  }: WatchRequest): Promise<StatusFields | undefined> {
    const { audience, follower, layer, listed, scope, waiting } = this.parts;
    if (!isResourceVersion(at))
      throw badRequest(`Invalid value: "${at.slice(0, 64)}": resourceVersion is not a decimal number`);
    if (!isInstead) await scope.ensureListed();
    const mayAsk = (): boolean => !isInstead && scope.canAsk;
    if (mayAsk()) await waiting.until(() => layer() === undefined, CATCH_UP_MS);
    const held = listed()?.resourceVersion;
    if (held === undefined) throw neverObserved(scope.identity);
    const word = this.#vouchesFor(at);
    if (word === "yes" && !(isPart && this.lacksBefore(at))) return undefined;
    const isAhead = word === "ask upstream" && compareResourceVersions(at, held) > 0;
    if (word === "relist" || !mayAsk() || layer() !== undefined)
      return isAhead
        ? expired(
            `The copy kept here ends at resourceVersion ${held}, before ${at}, and the API server cannot be reached`,
          ).status
        : expired(`too old resource version: ${at} (${scope.servedVersion})`).status;
    if (isAhead) return undefined;
    // What comes a second time does not say what it replaced.
    const isAsleep = !isPart && !follower.isRunning && audience.size === 0;
    // Since the head of the API server's answer its first event may have said 410.
    if (isAsleep && (await follower.startAt(at)) && this.#vouchesFor(at) === "yes") return undefined;
    throw new AskUpstreamError(`Cannot watch from ${at}: the copy kept here knows nothing before ${held}`);
  }

  #vouchesFor(at: string): Vouch {
    const { history, isVoid, listed, layer: edits } = this.parts;
    const layer = edits();
    if (isLocalVersion(at)) return layer === undefined || isVoid(at) ? "relist" : layer.vouchesFor(at);
    const state = listed();
    const word = state === undefined ? "relist" : history.vouchesFor(at, state);
    return word === "yes" && layer?.isWhole === false ? "relist" : word;
  }

  #fromState(
    { allowBookmarks, sendInitialEvents }: WatchRequest,
    over: (view: ScopeSnapshot) => ScopeSnapshot,
  ): WatcherOptions {
    const { history, layer, scope } = this.parts;
    const snapshot = scope.snapshot();
    if (snapshot === undefined) throw neverObserved(scope.identity);
    const { resourceVersion: startAt } = snapshot.listed;
    const ring = layer()?.ring ?? history.ring;
    return {
      startAt,
      allowBookmarks,
      route: [{ ring, cursor: ring.nextSeq, above: startAt }],
      isEdited: layer() !== undefined,
      initial: { snapshot: over(snapshot), withEndBookmark: sendInitialEvents && allowBookmarks },
    };
  }

  #from(at: string, allowBookmarks: boolean): WatcherOptions {
    return { startAt: at, allowBookmarks, route: this.#route(at), isEdited: this.parts.layer() !== undefined };
  }

  /** The rows after this moment, then the edits. */
  #route(at: string): Station[] {
    const rows = this.parts.history.ring;
    const layer = this.parts.layer()?.ring;
    if (layer === undefined) return [{ ring: rows, cursor: rows.seqAfter(at), above: at }];
    if (isLocalVersion(at)) return [{ ring: layer, cursor: layer.seqAfter(at), above: at }];
    return [
      { ring: rows, cursor: rows.seqAfter(at), until: rows.nextSeq, above: at },
      { ring: layer, cursor: layer.firstSeq, above: "" },
    ];
  }
}
