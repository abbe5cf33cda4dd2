/**
 * What is laid over a scope's rows while the cloud cannot be asked.
 *
 * The rows stay what the API server said; an edited item stands before its row
 * in every list, watch and GET until the link is back. Edited items carry
 * resourceVersions of ours: larger than any real one, decimal, within what a
 * double holds exactly, and far enough from real ones that they are known for
 * ours for ever: a client that comes back with one after the return gets 410.
 *
 *   5 000 000 000 000 000  +  generation * 2^20  +  count
 *
 * A generation is one run of Holdfast that edited something, or what is left of
 * it after the link's return, so that what a client saw before a restart is
 * never above what it sees after, and that an edit from before a return is
 * known for what it is: rows may have gone since.
 */

import type { Item } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { ListedState, ScopeSnapshot, Store } from "../store/contract.ts";

const FIRST_LOCAL = 5_000_000_000_000_000;
const GENERATION_SPAN = 2 ** 20;
const GENERATION_VALUE = "edit-generation";
/** The first generation since the link was last there; kept, because a client may come back after a restart. */
const FLOOR_VALUE = "edit-floor";

/** Whether a resourceVersion was made here and not by an API server. */
export function isLocalVersion(resourceVersion: string): boolean {
  return compareResourceVersions(resourceVersion, String(FIRST_LOCAL)) >= 0;
}

/** Hands out resourceVersions for edited items; they grow across restarts. */
export class LocalVersions {
  #last = 0;
  #floor: number | undefined;

  constructor(private readonly store: Store) {}

  /** The next one. */
  next(): string {
    if (this.#last === 0) {
      const generation = this.#stored(GENERATION_VALUE) + 1;
      this.store.putValue(GENERATION_VALUE, Buffer.from(String(generation)));
      this.#last = FIRST_LOCAL + generation * GENERATION_SPAN;
    }
    return String(++this.#last);
  }

  /** The link is there: whoever is told of edits from before may have missed what the API server says now. */
  voidAll(): void {
    const next = this.#stored(GENERATION_VALUE) + 1;
    if (this.#floorGeneration() === next) return;
    this.#last = 0;
    this.#floor = next;
    this.store.putValue(FLOOR_VALUE, Buffer.from(String(next)));
  }

  /** Whether one of ours is from before the link was last there. */
  isVoid(resourceVersion: string): boolean {
    const floor = String(FIRST_LOCAL + this.#floorGeneration() * GENERATION_SPAN);
    return compareResourceVersions(resourceVersion, floor) < 0;
  }

  #floorGeneration(): number {
    return (this.#floor ??= this.#stored(FLOOR_VALUE));
  }

  #stored(name: string): number {
    const stored = Number(Buffer.from(this.store.getValue(name) ?? []).toString("latin1"));
    return Number.isSafeInteger(stored) && stored > 0 ? stored : 0;
  }
}

/** The edited items of one scope, by key. */
export class Edits {
  #items = new Map<string, Item>();
  #version = "";

  /** How many items are edited. */
  get size(): number {
    return this.#items.size;
  }

  /** resourceVersion of the newest edit; "" for none. */
  get version(): string {
    return this.#version;
  }

  /** The keys of edited items, in no order. */
  keys(): string[] {
    return [...this.#items.keys()];
  }

  /** The edited item of this key. */
  get(key: string): Item | undefined {
    return this.#items.get(key);
  }

  /** Lays an item over its row; its resourceVersion must come from {@link LocalVersions}. */
  put(item: Item): void {
    this.#items.set(objectKey(item.meta.namespace, item.meta.name), item);
    this.#version = item.meta.resourceVersion;
  }

  /** Takes one item off: the API server has spoken about it. */
  delete(key: string): void {
    this.#items.delete(key);
  }

  /** Takes everything off. */
  clear(): void {
    this.#items.clear();
    this.#version = "";
  }

  /** The rows as they are to be served. */
  over(snapshot: ScopeSnapshot): ScopeSnapshot {
    if (this.#version === "") return snapshot;
    return new EditedSnapshot(snapshot, new Map(this.#items), this.#version);
  }
}

/** Rows with edited items in their places. */
class EditedSnapshot implements ScopeSnapshot {
  readonly listed: ListedState;

  constructor(
    private readonly rows: ScopeSnapshot,
    private readonly edited: ReadonlyMap<string, Item>,
    resourceVersion: string,
  ) {
    this.listed = { ...rows.listed, resourceVersion };
  }

  get itemCount(): number {
    return this.rows.itemCount;
  }

  *itemSizes(): Iterable<number> {
    for (const { bytes } of this.items()) yield bytes.length;
  }

  *items(): Iterable<Item> {
    for (const item of this.rows.items()) yield this.#standing(item);
  }

  [Symbol.dispose](): void {
    this.rows[Symbol.dispose]();
  }

  #standing(item: Item): Item {
    const edited = this.edited.get(objectKey(item.meta.namespace, item.meta.name));
    return edited !== undefined && edited.meta.uid === item.meta.uid ? edited : item;
  }
}
