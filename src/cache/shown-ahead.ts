/**
 * What a client was shown ahead of its copy is not taken back at the return.
 *
 * A copy that stands still is shown with what its caller knows newer from
 * elsewhere (known-newer.ts). When its watch goes on it brings what came before
 * that, too:
 *
 *   shown                  comes             told
 *   a (uid 2) at 120       MODIFIED a at 110   no: it would go back
 *                          DELETED a (uid 1) at 115   no: what was shown is there
 *                          anything of a at 120 or later   yes
 *   a gone at 120          ADDED, MODIFIED a at 110   no
 *                          DELETED a at 115   yes: to whoever was not shown it
 *   a (uid 1) deleted by   MODIFIED a (uid 1)   no: when it went nobody said
 *   this caller            DELETED a (uid 1), anything of a (uid 2)   yes
 *
 * A list that replaces the rows tells how it differs from them, and not from
 * what was shown: whoever was shown more lists again (410).
 *
 * A bookmark between the two is kept back with them: who stands there and
 * goes on elsewhere would never hear of a at 110.
 *
 * This is of one client: who has watched all the time was shown nothing ahead,
 * and hears everything. Of one that comes back it is not known: what anybody
 * was shown counts for it, unless the answer that showed it stood at a later
 * moment than the client. What lies between an event that is kept from it and
 * what was shown waits for the latter, for a client that stands between the two
 * and goes on elsewhere would never hear of the first:
 *
 *   stands at 112, and    DELETED a (uid 1) at 119   kept
 *   somebody was shown    ADDED d at 120             waits
 *   a (uid 2) at 133      MODIFIED a (uid 2) at 133  both are told
 *
 * Bound: so many events wait, or so many bytes; then the client lists again (410).
 */

import type { StatusFields } from "../kube/codec.ts";
import { compareResourceVersions, newerResourceVersion } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import { expired } from "../kube/status-error.ts";
import { momentOf, sizeOf, type Frame, type FrameSink } from "./frames.ts";

/** At which moment an object was shown, and which object; none where it was shown as gone. */
export interface Shown {
  readonly at: string;
  readonly uid: string | undefined;
  /** Where the answer stood that showed it, so that no client that stands before has it from there; none where nobody remembers. */
  readonly since?: string;
  /** The object that its caller deleted at a moment that nobody said; `at` is where the rows stood then. */
  readonly goneUid?: string;
}

/** So much waits for what one client may have been shown. */
const MAX_WAITING = { events: 1_000, bytes: 1024 * 1024 } as const;

/** Takes note of what is shown, by the object's key. */
export type OnShown = (key: string, shown: Shown) => void;

/** Keeps from a client what is older than what it was shown. */
export class AheadSink implements FrameSink {
  readonly isPart?: boolean;
  /** Where the client stands by what was kept from it: nobody says that it knows less. */
  #keptUntil = "";
  #waiting: Frame[] = [];
  #waitingBytes = 0;
  #isOver = false;

  /**
   * @param shown to this client; may grow until its first event.
   * @param onGivenUp of a client that comes back: its stream has ended, and is to be detached.
   */
  constructor(
    private readonly sink: FrameSink,
    private readonly shown: ReadonlyMap<string, Shown>,
    private readonly onGivenUp?: () => void,
  ) {
    if (sink.isPart !== undefined) this.isPart = sink.isPart;
  }

  isAheadOf(at: string): boolean {
    // What was deleted is missing in the list too.
    for (const { at: shownAt, goneUid } of this.shown.values())
      if (goneUid === undefined && compareResourceVersions(shownAt, at) > 0) return true;
    return false;
  }

  take(frames: readonly Frame[]): boolean {
    if (this.#isOver) return true;
    if (this.shown.size === 0) return this.sink.take(frames);
    const told: Frame[] = [];
    for (const frame of frames) {
      if (!this.#isToTell(frame)) continue;
      if (this.#hasToWait(frame)) this.#wait(frame);
      else told.push(...this.#waited(), frame);
    }
    const isKeeping = told.length === 0 || this.sink.take(told);
    if (this.#waiting.length > MAX_WAITING.events || this.#waitingBytes > MAX_WAITING.bytes) this.#giveUp();
    return isKeeping;
  }

  onDrain(resume: () => void): void {
    this.sink.onDrain(resume);
  }

  end(lastWord?: StatusFields): void {
    if (!this.#isOver) this.sink.end(lastWord);
    this.#isOver = true;
  }

  /** Whether it would bring a client of which nothing is known to a moment between. */
  #hasToWait(frame: Frame): boolean {
    return this.onGivenUp !== undefined && compareResourceVersions(momentOf(frame), this.#keptUntil) < 0;
  }

  #wait(frame: Frame): void {
    this.#waiting.push(frame);
    this.#waitingBytes += sizeOf(frame);
  }

  #waited(): Frame[] {
    const waited = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    return waited;
  }

  #giveUp(): void {
    this.#waited();
    this.end(expired("too old resource version: too much came before what was shown").status);
    this.onGivenUp?.();
  }

  #isToTell(frame: Frame): boolean {
    if (frame.type === "BOOKMARK") return compareResourceVersions(frame.resourceVersion, this.#keptUntil) >= 0;
    const { namespace, name, resourceVersion, uid } = frame.item.meta;
    const shown = this.shown.get(objectKey(namespace, name));
    if (shown?.goneUid !== undefined) return frame.type === "DELETED" || uid !== shown.goneUid;
    if (shown === undefined || compareResourceVersions(resourceVersion, shown.at) >= 0) return true;
    if (frame.type === "DELETED" && shown.uid === undefined) return true;
    this.#keptUntil = newerResourceVersion(this.#keptUntil, shown.at);
    return false;
  }
}
