/**
 * How a new list differs from the rows before it, told event by event.
 *
 * Whoever is told only a part of it must not be able to go on from there as if
 * it had heard everything. So the list's own resourceVersion, the epoch, is on
 * the last change alone; all before it stand below, and below the epoch nobody
 * is promised anything:
 *
 *   rows at 100, list at 110    sent
 *   b changed at 104            MODIFIED b@104
 *   c deleted and made anew     DELETED c@106 (just before the new one), ADDED c@107
 *   a, d deleted                DELETED a@109 (just before the list), DELETED d@110
 *                               BOOKMARK 110
 *
 * Had something changed at 110 itself it would come last, and d's deletion at
 * 109. A client that hears all but the last stands at 109 and lists again. One
 * that listed at 110 may watch from there at once.
 *
 * These are moments of the API server's, too: its resourceVersions count
 * single writes. Where one does not (two objects that changed in one moment),
 * the difference cannot be told in steps, and watchers get 410.
 */

import type { Codec, Item } from "../kube/codec.ts";
import { compareResourceVersions, isResourceVersion } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { ListChange } from "../store/contract.ts";
import type { ObjectFrame } from "./frames.ts";

/** The frames of a difference. */
export interface DifferenceParts {
  readonly codec: Codec;
  /** Where the rows stood. */
  readonly before: string;
  /** The list's resourceVersion. */
  readonly epoch: string;
  readonly send: (frame: ObjectFrame) => void;
}

type Change =
  | Exclude<ListChange, { type: "MODIFIED" }>
  | { readonly type: "MODIFIED"; readonly item: Item; readonly was: Item | undefined };

/** Takes a list's changes as the store reports them and sends them in steps. */
export class Difference {
  /** The change before this one; only the next one, or the end, says where it stands. */
  #held: Change | undefined;
  /** Changed at the epoch itself: it goes last. */
  #last: Change | undefined;
  #at: string;
  #isTellable = true;

  constructor(private readonly parts: DifferenceParts) {
    this.#at = parts.before;
  }

  /**
   * The next change: ADDED and MODIFIED in resourceVersion order, each after the DELETED of its name's old object, then DELETED.
   *
   * @param keepsBefore whether what a change replaced is told with it.
   */
  add(change: ListChange, keepsBefore = false): void {
    const held = this.#held;
    // Only now: when the change is told the row before it may be gone.
    const before = keepsBefore && change.type === "MODIFIED" ? change.before?.() : undefined;
    this.#held = change.type === "MODIFIED" ? { type: "MODIFIED", item: change.item, was: before } : change;
    if (held !== undefined) this.#tell(held, this.#isReplacedBy(held, change) ? change : undefined);
  }

  /** @returns false if it could not be told in steps: nobody may go on from where it ended. */
  end(): boolean {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined && this.#last === undefined && held.type === "DELETED") {
      if (this.#isTellable) this.#send(held, this.parts.epoch);
    } else if (held !== undefined) this.#tell(held, undefined);
    if (this.#isTellable && this.#last !== undefined) this.#send(this.#last, this.parts.epoch);
    return this.#isTellable;
  }

  #isReplacedBy(held: Change, change: ListChange): change is ListChange & { type: "ADDED" } {
    return held.type === "DELETED" && change.type === "ADDED" && keyOf(held) === keyOf(change);
  }

  #tell(change: Change, replacement: (ListChange & { type: "ADDED" }) | undefined): void {
    if (!this.#isTellable) return;
    if (change.type === "DELETED") {
      const next = replacement === undefined ? this.parts.epoch : replacement.item.meta.resourceVersion;
      return this.#step(change, momentBefore(next), true);
    }
    const { resourceVersion } = change.item.meta;
    if (compareResourceVersions(resourceVersion, this.parts.epoch) < 0)
      return this.#step(change, resourceVersion, false);
    if (this.#last !== undefined) this.#isTellable = false;
    this.#last = change;
  }

  /** Deletions have no moment of their own: several may share one, but it must be newer than the rows were. */
  #step(change: Change, at: string, isDeletion: boolean): void {
    const isAfter = compareResourceVersions(at, this.parts.before) > 0;
    const order = compareResourceVersions(at, this.#at);
    if (!isAfter || order < 0 || (order === 0 && !isDeletion)) this.#isTellable = false;
    else this.#send(change, at);
  }

  #send(change: Change, at: string): void {
    const { codec, send } = this.parts;
    this.#at = at;
    if (change.type === "ADDED") return send(change);
    if (change.type === "MODIFIED") return send({ type: "MODIFIED", item: change.item, before: change.was });
    const { meta, bytes } = change.old;
    const item = { meta: { ...meta, resourceVersion: at }, bytes: codec.withResourceVersion(bytes, at) };
    send({ type: "DELETED", item });
  }
}

function keyOf(change: Change | ListChange): string {
  const { namespace, name } = (change.type === "DELETED" ? change.old : change.item).meta;
  return objectKey(namespace, name);
}

/** The moment of the write before this one; "" where there is none. */
function momentBefore(resourceVersion: string): string {
  return isResourceVersion(resourceVersion) ? String(BigInt(resourceVersion) - 1n) : "";
}
