/**
 * What is laid over a scope's rows while the cloud cannot be asked.
 *
 * The rows stay what the API server said; an edited item stands before its row
 * in every list, watch and GET until the API server speaks of the scope again.
 * The layer has a history of its own, whose moments are resourceVersions of
 * ours (`edits.ts`): who stands at one of them can go on here and nowhere else.
 *
 * When it is taken off, the rows' items go out in the edits' places, oldest
 * first. A client that hears only some of them stands at the last one's
 * resourceVersion, and everything newer than that it is told again: by the
 * rows' history, by the API server, or by the list it has to make.
 */

import type { Item } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { ListedState, ScopeSnapshot } from "../store/contract.ts";
import type { Audience } from "./audience.ts";
import type { Vouch } from "./history.ts";
import { Ring } from "./ring.ts";

/** The edits of one cut on one scope. */
export class Layer {
  readonly ring: Ring;
  readonly #items = new Map<string, Item>();
  #version = "";

  /** @param rowsAt where the rows stand: a client that stands there is told of all edits. */
  constructor(
    bounds: { readonly ringMaxEvents: number; readonly ringMaxBytes: number },
    private readonly rowsAt: string,
  ) {
    this.ring = new Ring(bounds.ringMaxEvents, bounds.ringMaxBytes, rowsAt);
  }

  /** resourceVersion of the newest edit. */
  get version(): string {
    return this.#version;
  }

  /** Whether a client that comes from the rows can still be told of every edit. */
  get isWhole(): boolean {
    return this.ring.floor === this.rowsAt;
  }

  /** What a client that stands at one of our moments can be promised; it may be from before a restart. */
  vouchesFor(at: string): Vouch {
    const isHeld = compareResourceVersions(at, this.ring.floor) >= 0 && compareResourceVersions(at, this.#version) <= 0;
    return isHeld ? "yes" : "relist";
  }

  /** The edited item of this key. */
  get(key: string): Item | undefined {
    return this.#items.get(key);
  }

  /**
   * Lays an item over its row and tells of it.
   *
   * @param item its resourceVersion must be one of ours, newer than all before.
   * @param before what was served in its place.
   */
  put(item: Item, before: Item | undefined): void {
    this.#items.set(objectKey(item.meta.namespace, item.meta.name), item);
    this.#version = item.meta.resourceVersion;
    this.ring.append({ type: "MODIFIED", item, before });
  }

  /** The rows as they are to be served. */
  over(snapshot: ScopeSnapshot): ScopeSnapshot {
    return new EditedSnapshot(snapshot, new Map(this.#items), this.#version);
  }

  /**
   * The rows in the edits' places, oldest first, and then where the rows stand.
   *
   * @param rowsAt where they stand now.
   */
  takenOff(row: (namespace: string, name: string) => Item | undefined, rowsAt: string): Ring {
    const changes: { readonly item: Item; readonly before: Item }[] = [];
    for (const before of this.#items.values()) {
      const item = row(before.meta.namespace, before.meta.name);
      if (item !== undefined) changes.push({ item, before });
    }
    changes.sort((a, b) => compareResourceVersions(a.item.meta.resourceVersion, b.item.meta.resourceVersion));
    const truth = new Ring(changes.length + 1, Number.POSITIVE_INFINITY, "");
    for (const change of changes) truth.append({ type: "MODIFIED", ...change });
    truth.append({ type: "BOOKMARK", resourceVersion: rowsAt, isInitialEventsEnd: false });
    return truth;
  }
}

/** The edits of one scope, from the first of a cut until the API server speaks of it again. */
export class Edits {
  #layer: Layer | undefined;

  constructor(
    private readonly bounds: { readonly ringMaxEvents: number; readonly ringMaxBytes: number },
    private readonly audience: Audience,
    private readonly rows: {
      readonly listed: ListedState | undefined;
      item(namespace: string, name: string): Item | undefined;
      row(namespace: string, name: string): Item | undefined;
    },
    private readonly onAdvanced: () => void,
  ) {}

  /** What lies over the rows; undefined when nothing does. */
  get layer(): Layer | undefined {
    return this.#layer;
  }

  /** Lays items over their rows; watchers that stand at the rows are told. */
  lay(items: readonly Item[]): void {
    const { audience, bounds, rows } = this;
    const { listed } = rows;
    if (listed === undefined) return;
    if (this.#layer === undefined) {
      this.#layer = new Layer(bounds, listed.resourceVersion);
      audience.enter(this.#layer.ring, listed.resourceVersion);
    }
    for (const item of items) this.#layer.put(item, rows.item(item.meta.namespace, item.meta.name));
    this.onAdvanced();
  }

  /** Takes everything off; watchers are told of the rows in their places. */
  takeOff(): void {
    const layer = this.#layer;
    if (layer === undefined) return;
    this.#layer = undefined;
    const { audience, rows } = this;
    audience.leave(layer.takenOff((namespace, name) => rows.row(namespace, name), rows.listed?.resourceVersion ?? ""));
    this.onAdvanced();
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
