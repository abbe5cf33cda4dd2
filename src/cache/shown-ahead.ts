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
 * and hears everything. Of one that comes back it is not known, so what anybody
 * was shown counts for it.
 */

import type { StatusFields } from "../kube/codec.ts";
import { compareResourceVersions, newerResourceVersion } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Frame, FrameSink } from "./frames.ts";

/** At which moment an object was shown, and which object; none where it was shown as gone. */
export interface Shown {
  readonly at: string;
  readonly uid: string | undefined;
  /** The object that its caller deleted at a moment that nobody said; `at` is where the rows stood then. */
  readonly goneUid?: string;
}

/** Takes note of what is shown, by the object's key. */
export type OnShown = (key: string, shown: Shown) => void;

/** Keeps from a client what is older than what it was shown. */
export class AheadSink implements FrameSink {
  readonly isPart?: boolean;
  /** Where the client stands by what was kept from it: nobody says that it knows less. */
  #keptUntil = "";

  /** @param shown to this client; may grow until its first event. */
  constructor(
    private readonly sink: FrameSink,
    private readonly shown: ReadonlyMap<string, Shown>,
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
    if (this.shown.size === 0) return this.sink.take(frames);
    const told = frames.filter((frame) => this.#isToTell(frame));
    return told.length === 0 || this.sink.take(told);
  }

  onDrain(resume: () => void): void {
    this.sink.onDrain(resume);
  }

  end(lastWord?: StatusFields): void {
    this.sink.end(lastWord);
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
