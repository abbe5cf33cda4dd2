/**
 * The handle on one scope's rows.
 *
 * It carries what is known of them and hands the work to the store. Its number
 * ties it to its rows on disk and leaves this folder nowhere; numbers are given
 * out once in a file's life, so that whatever a dropped copy left behind, also
 * at a crash, belongs to nobody.
 */

import type { Item } from "../kube/codec.ts";
import type { Copy, ListedState, ListWriter, ScopeIdentity, ScopeSnapshot } from "./contract.ts";
import { CopyDroppedError } from "./errors.ts";
import type { StagedList } from "./list-writer.ts";
import type { Tally } from "./object-rows.ts";
import { rowIdentityOf, type StoredScope } from "./scope-rows.ts";

/** What the store does for its handles. */
export interface CopyParts {
  readonly beginList: (copy: StoredCopy) => ListWriter;
  /** @param item undefined deletes it. */
  readonly enqueue: (
    copy: StoredCopy,
    meta: Item["meta"],
    item: Item | undefined,
    resourceVersion: string,
    nowMs: number,
  ) => void;
  readonly get: (copy: StoredCopy, namespace: string, name: string) => Item | undefined;
  readonly snapshot: (copy: StoredCopy) => ScopeSnapshot | undefined;
  readonly size: (copy: StoredCopy) => { readonly items: number; readonly bytes: number };
  /** Its marks moved. @param isUrgent written before it returns; the rest waits for company. */
  readonly touched: (copy: StoredCopy, isUrgent: boolean) => void;
  readonly clear: (copy: StoredCopy) => void;
  readonly drop: (copy: StoredCopy) => void;
}

/** The store's Copy. */
export class StoredCopy implements Copy, StoredScope {
  readonly id: number;
  /** What its rows are bound to. */
  readonly rowIdentity: string;
  readonly identity: ScopeIdentity;
  rows: number;
  listed: ListedState | undefined;
  tally: Tally;
  lastUsedMs: number;
  isWithheld: boolean;
  isDropped = false;
  /** It has a row on disk: one that never had a list leaves no mark there. */
  isStored = false;
  /** Its marks moved and are not written yet. */
  isTouched = false;
  /** Lists under way. */
  readonly lists = new Set<StagedList>();

  constructor(
    { id, identity, rows, listed, tally, lastUsedMs, isWithheld }: StoredScope,
    readonly isSealed: boolean,
    private readonly parts: CopyParts,
  ) {
    this.id = id;
    this.identity = identity;
    this.rows = rows;
    this.listed = listed;
    this.tally = tally;
    this.lastUsedMs = lastUsedMs;
    this.isWithheld = isWithheld;
    this.rowIdentity = rowIdentityOf(this);
  }

  beginList(): ListWriter {
    return this.#alive().beginList(this);
  }

  put(item: Item, resourceVersion: string, nowMs: number): void {
    this.#alive().enqueue(this, item.meta, item, resourceVersion, nowMs);
  }

  delete({ meta }: Item, resourceVersion: string, nowMs: number): void {
    this.#alive().enqueue(this, meta, undefined, resourceVersion, nowMs);
  }

  touch({ resourceVersion, lastContactMs, lastUsedMs, isWithheld, shownTo }: Parameters<Copy["touch"]>[0]): void {
    const parts = this.#alive();
    if (lastUsedMs !== undefined) this.lastUsedMs = lastUsedMs;
    if (this.listed !== undefined) {
      this.listed = {
        ...this.listed,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
        ...(shownTo === undefined ? {} : { shownTo }),
      };
    }
    if (isWithheld !== undefined) this.isWithheld = isWithheld;
    if (!this.isStored) return;
    this.isTouched = true;
    parts.touched(this, isWithheld !== undefined || shownTo !== undefined);
  }

  get(namespace: string, name: string): Item | undefined {
    return this.#alive().get(this, namespace, name);
  }

  snapshot(): ScopeSnapshot | undefined {
    return this.#alive().snapshot(this);
  }

  size(): { readonly items: number; readonly bytes: number } {
    return this.#alive().size(this);
  }

  clear(): void {
    const parts = this.#alive();
    if (this.listed !== undefined) parts.clear(this);
  }

  drop(): void {
    if (!this.isDropped) this.parts.drop(this);
  }

  /** What its rows say of it. */
  get state(): StoredScope {
    const { id, identity, rows, listed, tally, lastUsedMs, isWithheld } = this;
    return { id, identity, rows, listed, tally, lastUsedMs, isWithheld };
  }

  /** Its rows are gone; what is known of it goes with them. */
  forgetRows(): void {
    this.listed = undefined;
    this.rows = 0;
    this.tally = { objects: 0, digest: 0 };
  }

  #alive(): CopyParts {
    if (this.isDropped) throw new CopyDroppedError(this.identity.resource);
    return this.parts;
  }
}
