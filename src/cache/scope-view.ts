/**
 * What a scope serves: its rows, and before them the edits of a cut.
 *
 * What is withheld is not served, and neither are rows of which no whole list
 * was committed: then nothing is `listed`.
 */

import type { Codec, Item } from "../kube/codec.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { Copy, ListedState, ScopeIdentity, ScopeSnapshot } from "../store/contract.ts";
import { keptCodec } from "./freshness.ts";
import type { Layer } from "./layer.ts";

/** The reading side of a scope. */
export abstract class ScopeView {
  readonly identity: ScopeIdentity;

  constructor(
    /** Its rows; dropped with the scope. */
    readonly copy: Copy,
  ) {
    this.identity = copy.identity;
  }

  /** What lies over the rows; undefined when nothing does. */
  protected abstract get layer(): Layer | undefined;

  /** Notes that a client used the scope. */
  abstract use(): void;

  /** The content's state, or undefined while nothing may be served. */
  get listed(): ListedState | undefined {
    return this.copy.isWithheld ? undefined : this.copy.listed;
  }

  /** Whether its rows answer nobody, because the API server refused this principal; they are kept, and a list that it allows takes them back. */
  get isWithheld(): boolean {
    return this.copy.isWithheld;
  }

  /** Whether items are served that are edited here. */
  get isEdited(): boolean {
    return this.layer !== undefined;
  }

  /** The resourceVersion of what is served: the rows', or the newest edit's. */
  get servedVersion(): string {
    return this.layer?.version ?? this.listed?.resourceVersion ?? "";
  }

  /** The codec of the kept bytes; only for a listed scope. */
  codec(listed: ListedState): Codec {
    return keptCodec(this.identity, listed);
  }

  /** A frozen view of what is served, or undefined while nothing was committed. */
  snapshot(): ScopeSnapshot | undefined {
    this.use();
    const rows = this.rows();
    return rows === undefined || this.layer === undefined ? rows : this.layer.over(rows);
  }

  /** One item as it is served. */
  item(namespace: string, name: string): Item | undefined {
    const row = this.row(namespace, name);
    const edited = this.layer?.get(objectKey(namespace, name));
    return row !== undefined && edited?.meta.uid === row.meta.uid ? edited : row;
  }

  /** One item as the API server gave it. */
  row(namespace: string, name: string): Item | undefined {
    return this.listed === undefined ? undefined : this.copy.get(namespace, name);
  }

  /** Whether an edited item stands before this row. */
  isItemEdited(namespace: string, name: string): boolean {
    return this.layer?.get(objectKey(namespace, name)) !== undefined;
  }

  /** All items as the API server gave them; to be disposed of. */
  rows(): ScopeSnapshot | undefined {
    return this.listed === undefined ? undefined : this.copy.snapshot();
  }
}
