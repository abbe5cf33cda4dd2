/**
 * What was refused or repaired lately, for `holdfast guard explain` and for people.
 *
 * A controller that is refused comes again, some for ever: the same deed on the
 * same object is one entry with a count, so that one stubborn pod does not push
 * all others out.
 */

/** One refusal or repair. */
export interface Denial {
  readonly firstMs: number;
  readonly lastMs: number;
  readonly count: number;
  /** The rule's path. */
  readonly rule: string;
  readonly reason: string;
  readonly message: string;
  readonly user: string;
  readonly namespace: string;
  readonly name: string;
  readonly nodeName: string;
}

/** What is known of a single one. */
export type DenialNote = Omit<Denial, "firstMs" | "lastMs" | "count"> & { readonly atMs: number };

const MOST = 512;

/** The last few hundred. */
export class Denials {
  readonly #byDeed = new Map<string, Denial>();

  /** @returns the entry, with its count. */
  add({ atMs, ...note }: DenialNote): Denial {
    const deed = `${note.rule}\n${note.reason}\n${note.namespace}\n${note.name}`;
    const known = this.#byDeed.get(deed);
    const denial = { ...note, firstMs: known?.firstMs ?? atMs, lastMs: atMs, count: (known?.count ?? 0) + 1 };
    // To the end: what goes first when room is needed is what has been quiet the longest.
    this.#byDeed.delete(deed);
    this.#byDeed.set(deed, denial);
    if (this.#byDeed.size > MOST) this.#byDeed.delete(this.#byDeed.keys().next().value!);
    return denial;
  }

  /** Latest last. */
  list(): Denial[] {
    return [...this.#byDeed.values()];
  }
}
