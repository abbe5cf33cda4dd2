/**
 * What a client that comes back at a resourceVersion can be promised.
 *
 * All arithmetic with resourceVersions is here; sockets, rows and the API
 * server are not. A history is a ring of recent events and three moments:
 *
 *        told         floor         now
 *   -------|------------|------------|------->
 *      1         2            3           4
 *
 *   now     where the rows stand: the last list, event or bookmark
 *   floor   every event above it is in the ring
 *   told    the last list whose difference was told to watchers
 *
 *   where a client stands       what it is promised
 *   3, at the floor or at now   everything newer, from the ring
 *   2                           nothing by us; the API server may know more
 *   1, below `told`             to list again: it may have heard a part of a
 *                               difference, and no history makes up for the rest
 *   4                           what is newer than itself, as soon as the API
 *                               server can be asked; nobody else knows the moment
 *   a resourceVersion of ours   to list again: these rows never had it
 *
 * Nobody has to be remembered who heard only half: see `difference.ts`.
 */

import { compareResourceVersions } from "../kube/resource-version.ts";
import type { ListedState } from "../store/contract.ts";
import { isLocalVersion } from "./edits.ts";
import { Ring } from "./ring.ts";
import type { RingBudget } from "./ring-budget.ts";
import type { Shown } from "./shown-ahead.ts";

/** What a history says to a moment: all that is newer is known here, list again, or only the API server may know. */
export type Vouch = "yes" | "relist" | "ask upstream";

/** What an event means for the rows and for the ring. */
export type EventPlace =
  /** Newer than the rows. */
  | "new"
  /** In the rows already; a client that resumes waits for it. */
  | "replayed"
  /** In the rows already, and nobody waits for it. */
  | "known";

/** More objects than this are not shown ahead of the rows at once. */
const MAX_SHOWN_AHEAD = 10_000;

/** The recent past of one scope's rows. */
export class History {
  readonly ring: Ring;
  /** Where the rows stood when this process took them over; "" for rows of its own. */
  readonly keptAt: string;
  /** Up to which moment clients had been shown more than the rows then; "" for no more. */
  readonly shownBefore: string;
  #toldBelow: string;
  /** By key: objects that were shown ahead of the rows. */
  readonly #shownAhead = new Map<string, Shown>();
  /** While an older moment is replayed for a client that resumes: how far it has come, and where the rows stood. */
  #replay: { at: string; readonly until: string } | undefined;

  /**
   * @param listed as the store has it; what was told before the last restart is known by its epoch.
   * @param budget what the recent events of all scopes share; to be told of the ring by whoever makes it.
   */
  constructor(
    bounds: { readonly ringMaxEvents: number; readonly ringMaxBytes: number },
    listed?: ListedState,
    budget?: RingBudget,
  ) {
    this.ring = new Ring(bounds.ringMaxEvents, bounds.ringMaxBytes, listed?.changedAt ?? "", budget);
    this.keptAt = listed?.resourceVersion ?? "";
    this.shownBefore = listed?.shownTo ?? "";
    this.#toldBelow = listed?.isPartlyTold === true ? listed.epoch : "";
  }

  /** Whether some moment below the epoch may be a part of a difference; kept with the rows. */
  get isTold(): boolean {
    return this.#toldBelow !== "";
  }

  /** What a client that stands at this moment can be promised. */
  vouchesFor(at: string, { resourceVersion: now }: Pick<ListedState, "resourceVersion">): Vouch {
    if (isLocalVersion(at)) return "relist";
    if (compareResourceVersions(at, this.#toldBelow) < 0) return "relist";
    if (at === now) return "yes";
    if (compareResourceVersions(at, now) > 0) return "ask upstream";
    return compareResourceVersions(at, this.ring.floor) >= 0 ? "yes" : "ask upstream";
  }

  // ---- what was shown ahead of the rows ----

  /** An object was shown as it is, or as gone, at a later moment than the rows': see `shown-ahead.ts`. */
  showedAhead(key: string, shown: Shown): void {
    if (this.#shownAhead.size >= MAX_SHOWN_AHEAD) this.#forgetPassed();
    if (this.#shownAhead.size >= MAX_SHOWN_AHEAD) return;
    const known = this.#shownAhead.get(key);
    if (known !== undefined && compareResourceVersions(shown.at, known.at) < 0) return;
    const isEarlier = known !== undefined && compareResourceVersions(known.since ?? "", shown.since ?? "") < 0;
    this.#shownAhead.set(key, isEarlier ? { ...shown, since: known.since ?? "" } : shown);
  }

  /** What whoever stands at this moment may have been shown that is newer. */
  *shownAfter(at: string): Iterable<[string, Shown]> {
    for (const [key, shown] of this.#shownAhead) {
      if (compareResourceVersions(shown.since ?? "", at) > 0) continue;
      const order = compareResourceVersions(shown.at, at);
      // What its caller deleted goes at a later moment than the rows'.
      if (order > 0 || (order === 0 && shown.goneUid !== undefined)) yield [key, shown];
    }
  }

  /** Nobody goes on from before the floor. */
  #forgetPassed(): void {
    for (const [key, { at }] of this.#shownAhead)
      if (compareResourceVersions(at, this.ring.floor) <= 0) this.#shownAhead.delete(key);
  }

  /** The rows were replaced and nobody heard how: from now on only this moment and newer ones are known. */
  startOver(now: string): void {
    this.#shownAhead.clear();
    this.#replay = undefined;
    // After a restored backup what was told was told of another history.
    if (compareResourceVersions(this.#toldBelow, now) > 0) this.#toldBelow = now;
    this.ring.reset(now);
  }

  /** The difference of a list at this moment is being told: whoever stands below it may have heard a part. */
  tell(epoch: string): void {
    this.#shownAhead.clear();
    this.#replay = undefined;
    this.#toldBelow = epoch;
  }

  // ---- an older moment, replayed ----

  /** Whether what a resuming client missed is still on its way: where the rows stand is no bookmark then. */
  get isReplaying(): boolean {
    return this.#replay !== undefined;
  }

  /** Whether something after this moment is still to come a second time: what it replaced nobody knows any more. */
  isReplayedAfter(at: string): boolean {
    return this.#replay !== undefined && compareResourceVersions(at, this.#replay.until) < 0;
  }

  /** Where a watch has to begin: at the rows, or where the replay has come to. */
  nextFrom(now: string): string {
    return this.#replay?.at ?? now;
  }

  /** The API server is asked for everything after an older moment, so that the ring can vouch for it. */
  beginReplay(from: string, now: string): void {
    this.#replay = { at: from, until: now };
    this.ring.reset(from);
  }

  /** The API server has forgotten that moment. @returns the one below which nobody can be promised anything. */
  giveUpReplay(changedAt: string): string {
    this.#replay = undefined;
    this.ring.reset(changedAt);
    return changedAt;
  }

  /** No watch is open any more; the next one begins at the rows. */
  endReplay(): void {
    this.#replay = undefined;
  }

  /** The upstream watch has come to this moment. */
  passed(at: string): void {
    if (this.#replay === undefined) return;
    this.#replay.at = at;
    if (compareResourceVersions(at, this.#replay.until) >= 0) this.#replay = undefined;
  }

  /** What an event of the upstream watch is to rows that stand at `now`. */
  placeOf(resourceVersion: string, now: string): EventPlace {
    if (compareResourceVersions(resourceVersion, now) > 0) return "new";
    const isAwaited = this.#replay !== undefined && compareResourceVersions(resourceVersion, this.#replay.until) <= 0;
    return isAwaited ? "replayed" : "known";
  }
}

/** Whether a watch that stands at `position` can go on with this event: a watch's events only grow. */
export function isNextEvent(resourceVersion: string, position: string): boolean {
  return compareResourceVersions(resourceVersion, position) > 0;
}

/** Whether a watch that stands at `position` can go on with this bookmark: one may repeat where it stands. */
export function isNextBookmark(resourceVersion: string, position: string): boolean {
  return compareResourceVersions(resourceVersion, position) >= 0;
}
