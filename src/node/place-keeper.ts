/**
 * Puts right where the node is shown, when nobody else is about to write.
 *
 * Kubelet writes its addresses when they change, which is next to never; the
 * place comes and goes with the tunnel. So when the API server's node stands
 * where it should not, one status write says the truth once more, and shows it
 * where it is to be shown on its way up (`uplink/node-place.ts`).
 *
 *   the place is another, or gone             a moment later: several changes are one write
 *   nobody has read the node since our start  it is read, where it is shown or is to be
 *   the link is back                          behind the order of the return
 *   the write was refused, or did not help    later and later: somebody else writes there too
 *
 * A write names the version that was seen: whoever wrote meanwhile has won, and
 * what they wrote is looked at first.
 */

import type { Clock } from "../base/clock.ts";
import type { Finding } from "../base/conditions.ts";
import type { Log } from "../base/log.ts";
import type { Correction, NodePlace } from "../uplink/node-place.ts";

/** What it is built over. */
export interface PlaceKeeperParts {
  readonly place: Pick<NodePlace, "isAstray" | "needsLook" | "correction" | "onChange">;
  readonly link: { readonly isOnline: () => boolean; onChange(listener: (isOnline: boolean) => void): () => void };
  readonly clock: Clock;
  readonly log: Log;
  /** Resolves when the node's writes may go up. */
  readonly mayWrite: () => Promise<void>;
  /** Reads the node, which says where it stands; fails silently. */
  readonly read: (signal: AbortSignal) => Promise<void>;
  /** @returns the answer's status; undefined when nobody answered. */
  readonly write: (correction: Correction, signal: AbortSignal) => Promise<number | undefined>;
  /** Somebody else writes addresses too; undefined: no more. */
  readonly onContested: (finding: Finding | undefined) => void;
}

const SETTLE_MS = 500;
const FIRST_PAUSE_MS = 2_000;
const LONGEST_PAUSE_MS = 300_000;
/** So long nothing has to be put right before the next write is a first one again. */
const CALM_MS = 60_000;
/** So many writes in a row that did not last are no coincidence. */
const CONTESTED_AFTER = 5;

/** The keeper. */
export class PlaceKeeper {
  #cancel: (() => void) | undefined;
  #isWriting = false;
  /** Writes since it was last calm. */
  #writes = 0;
  #lastWriteMs = Number.NEGATIVE_INFINITY;
  #stops: (() => void)[] = [];

  constructor(private readonly parts: PlaceKeeperParts) {}

  /** Begins to look; ends when the signal aborts. */
  start(signal: AbortSignal): void {
    const { place, link } = this.parts;
    const look = () => this.#look(signal);
    this.#stops = [place.onChange(look), link.onChange((isOnline) => isOnline && look())];
    signal.addEventListener("abort", () => this.stop(), { once: true });
    look();
  }

  /** Looks no more. */
  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #look(signal: AbortSignal): void {
    const { place, link, clock } = this.parts;
    if (this.#isWriting || this.#cancel !== undefined || signal.aborted || !link.isOnline()) return;
    if (!place.isAstray && !place.needsLook) return;
    this.#cancel = clock.after(this.#pauseMs(), () => {
      this.#cancel = undefined;
      void this.#write(signal);
    });
  }

  /** The first write soon, the next ones at least so long after the one before. */
  #pauseMs(): number {
    const sinceMs = this.parts.clock.monotonicMs() - this.#lastWriteMs;
    if (sinceMs >= CALM_MS && sinceMs >= this.#gapMs()) {
      this.#writes = 0;
      this.parts.onContested(undefined);
    }
    return Math.max(SETTLE_MS, this.#writes === 0 ? 0 : this.#gapMs() - sinceMs);
  }

  #gapMs(): number {
    return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(20, Math.max(0, this.#writes - 1)));
  }

  async #write(signal: AbortSignal): Promise<void> {
    const { place, clock, log } = this.parts;
    this.#isWriting = true;
    try {
      await this.parts.mayWrite();
      if (place.needsLook && !(await this.#seen(signal))) return;
      const correction = place.correction();
      if (correction === undefined || signal.aborted || !this.parts.link.isOnline()) return;
      this.#writes++;
      this.#lastWriteMs = clock.monotonicMs();
      const status = await this.parts.write(correction, signal);
      if (status === 200) log.info("node addresses put right", { writes: this.#writes });
      else log.warn("node addresses not put right", { status: status ?? "no answer" });
      if (this.#writes === CONTESTED_AFTER) this.parts.onContested(CONTESTED);
    } finally {
      this.#isWriting = false;
      this.#look(signal);
    }
  }

  /** Kubelet goes on from what it has read before our start, so that it may be minutes until anybody asks. */
  async #seen(signal: AbortSignal): Promise<boolean> {
    const { place, clock } = this.parts;
    await this.parts.read(signal);
    if (!place.needsLook) return true;
    // No node, or no answer: its next reader is heard, and so is the next change.
    this.#writes++;
    this.#lastWriteMs = clock.monotonicMs();
    return false;
  }
}

const CONTESTED: Finding = {
  reason: "AddressesRewritten",
  message: "The node's addresses do not stay as they are written: something else writes them too, or refuses it",
  next: "See who: kubectl get node NAME --show-managed-fields -o yaml; a cloud controller that owns addresses needs mode: port",
};
