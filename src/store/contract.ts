/**
 * What the store keeps, said without SQL.
 *
 * Three kinds of rows: *scopes* with their objects (kept by watches),
 * *responses* (whole GET answers replayed as they were), and a few named
 * *values* (keys, the cluster's identity). Objects and the scope's
 * resourceVersion are committed together or not at all.
 *
 * A scope's rows are reached through a *copy*, a handle that the store hands
 * out. It lives until the copy is dropped; whoever holds it then can write
 * nothing any more, and nothing that comes later shares rows with it.
 *
 *   dropped by  Copy.drop, Store.forget, the end of the state folder's cluster
 *   unlisted by damage, a database that was lost (the handle lives, and is listed anew)
 *
 * Writes are queued and committed in groups; `snapshot`, `get` and `flush`
 * first commit what is queued, so a reader always sees what was written
 * before it asked.
 */

import type { Item, Shape } from "../kube/codec.ts";

/** What a scope is: two scopes never share rows. Plain JSON. */
export interface ScopeIdentity {
  readonly principal: string;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  /** "" for all namespaces and for cluster-scoped resources. */
  readonly namespace: string;
  readonly fieldSelector: string;
  readonly labelSelector: string;
  /** Canonical key of the representation asked for, for example "json" or "protobuf,json". */
  readonly representation: string;
}

/** An identity as one text; two scopes never share it. */
export function identityText({
  principal,
  group,
  version,
  resource,
  namespace,
  fieldSelector,
  labelSelector,
  representation,
}: ScopeIdentity): string {
  return JSON.stringify([principal, group, version, resource, namespace, fieldSelector, labelSelector, representation]);
}

/** What a committed list and the events after it add up to. */
export interface ListedState {
  readonly shape: Shape;
  /** Content-Type the API server answered with ("application/json", "application/vnd.kubernetes.protobuf"). */
  readonly contentType: string;
  /** Last list, event or bookmark. */
  readonly resourceVersion: string;
  /** Last list or event that changed anything: a watcher at or above it has missed nothing. */
  readonly changedAt: string;
  /** resourceVersion of the last list that replaced the rows: resumes below it cannot be vouched for. */
  readonly epoch: string;
  /** How the last list differed was not, as far as is known, told to its end: a resume at or below the epoch cannot be vouched for. */
  readonly isPartlyTold: boolean;
  /** Up to which moment clients were shown more than the rows, since the last list; none: nothing more. */
  readonly shownTo?: string;
  /** Last time the API server spoke on this scope, ms since the epoch. */
  readonly lastContactMs: number;
}

/** How a list that replaced rows differs from them. `old` is the last state of an object that is gone. */
export type ListChange =
  | { readonly type: "ADDED"; readonly item: Item }
  /** `before` reads the row as it was; only while the change is being reported. */
  | { readonly type: "MODIFIED"; readonly item: Item; readonly before?: () => Item }
  | { readonly type: "DELETED"; readonly old: Item };

/** Takes a list's items as they arrive; nothing is visible before `commit`. */
export interface ListWriter {
  /** Queues one item; cheap and synchronous. Items may come in any order. Duplicates of a key: the last wins. */
  add(item: Item): void;
  /** Items and bytes taken so far, to be held against a scope's bounds. */
  readonly itemCount: number;
  readonly itemBytes: number;
  /**
   * Makes the list the scope's content, in one transaction, and reports what
   * differs from before: ADDED and MODIFIED in resourceVersion order, then
   * DELETED. A same name with another uid is DELETED (old) followed at once by
   * ADDED (new). A first list reports nothing. An item whose bytes did not
   * change is not written; one whose uid and resourceVersion did not change is
   * not reported, though its bytes may differ (a Table's ages, the defaults of
   * a newer API server) and are then written.
   *
   * An event that came while the list was under way and is newer than it
   * stands, and moves the listed state on to itself.
   *
   * @throws {ScopeDamagedError} when rows to compare with were lost meanwhile; the scope is unlisted then. A first list that lost its rows only leaves it unlisted.
   */
  commit(
    state: {
      readonly shape: Shape;
      readonly contentType: string;
      readonly resourceVersion: string;
      readonly nowMs: number;
      /** Somebody is being told how it differs; written with the list. Default false. */
      readonly isPartlyTold?: boolean;
    },
    onChange: (change: ListChange) => void,
  ): void;
  /** Forgets everything added; the scope's former content stands. */
  abort(): void;
}

/** A frozen view of one scope; events committed later do not show. To be closed. */
export interface ScopeSnapshot extends Disposable {
  readonly listed: ListedState;
  readonly itemCount: number;
  /** Sizes in bytes of all items in key order. */
  itemSizes(): Iterable<number>;
  /**
   * All items in the API server's order (by the text "namespace/name", or "name"), read as they are asked for. May be consumed across await points; an item shares memory with some of its neighbours.
   *
   * @throws {SnapshotGoneError} from the iteration when its reader stood still for seconds and rows changed meanwhile: the answer must break off and be asked for again.
   * @throws {ScopeDamagedError} from the iteration when rows are damaged or missing: the answer must break off, for a list that is silently short deletes things. The scope is unlisted then.
   */
  items(): Iterable<Item>;
}

/** A recorded answer to a GET. */
export interface StoredResponse {
  readonly status: number;
  /** Lower-case names; only content-type, etag, vary, cache-control, last-modified and the like. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  readonly storedAtMs: number;
}

/** What a response answers. */
export interface ResponseKey {
  readonly principal: string;
  /** The raw request target as sent, without resourceVersion and timeout parameters. */
  readonly target: string;
  /** Canonical Accept. */
  readonly accept: string;
}

/** Where the store stands, for `status`, /readyz and metrics. */
export interface StoreStatus {
  /** "disk" normally; "memory" when the disk is full, read-only or unusable, with the reason. */
  readonly mode: "disk" | "memory";
  readonly reason: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly scopes: number;
  readonly objects: number;
  readonly responses: number;
  /** Rows and files found damaged since the state folder was made. */
  readonly quarantined: number;
  readonly commits: number;
  /** Rows written or deleted since start; an unchanged row counts nowhere. */
  readonly rowsWritten: number;
  /** Where the sealing key comes from. */
  readonly sealing: "credential" | "file" | "memory";
}

/**
 * One scope's rows, while it is kept.
 *
 * Once it is dropped every method throws CopyDroppedError and writes
 * nothing, its ListWriters' too; the properties can still be read.
 */
export interface Copy {
  readonly identity: ScopeIdentity;
  /** The listed state including what is queued; undefined until a list was committed whole, and once dropped: nothing may be served then. May become undefined at any time, by damage. */
  readonly listed: ListedState | undefined;
  readonly isDropped: boolean;
  /** Last time a client used it, ms since the epoch. */
  readonly lastUsedMs: number;
  /** The API server refuses it, as far as was heard: it is kept, and nobody may be served from it. A list that is committed takes it back. */
  readonly isWithheld: boolean;

  beginList(): ListWriter;
  /** Queues one event's effect. Same bytes as stored: only the resourceVersion moves. Without a list nothing is written. */
  put(item: Item, resourceVersion: string, nowMs: number): void;
  delete(item: Item, resourceVersion: string, nowMs: number): void;
  /** A bookmark or mere contact. Held back for minutes and written with the next real change, at `flush` or at `settle`: idle nodes must not wear their card. That it is withheld, or is no more, is written before this returns: no crash gives back what was just refused. So is what was shown ahead: its client may outlive this process. */
  touch(state: {
    readonly resourceVersion?: string;
    readonly lastContactMs?: number;
    readonly lastUsedMs?: number;
    readonly isWithheld?: boolean;
    readonly shownTo?: string;
  }): void;
  get(namespace: string, name: string): Item | undefined;
  snapshot(): ScopeSnapshot | undefined;
  /** Items and bytes that are kept, for `status`. */
  size(): { readonly items: number; readonly bytes: number };
  /** Takes its rows away: nothing is listed then. The handle lives. */
  clear(): void;
  /** Forgets it: rows and identity. Twice is once. */
  drop(): void;
}

/** Everything the node remembers. One instance per state folder. */
export interface Store {
  /** All copies, the longest known first. */
  copies(): Copy[];
  /** The copy of this identity, made empty if there is none; the same handle until it is dropped. Nothing is written before its first list is committed. */
  openCopy(identity: ScopeIdentity, nowMs: number): Copy;

  putResponse(key: ResponseKey, response: StoredResponse, options: { readonly isSecret: boolean }): void;
  getResponse(key: ResponseKey): StoredResponse | undefined;
  deleteResponse(key: ResponseKey): void;
  /** Forgets recorded answers of this principal to exactly this path (its text before "?"), whatever the query or Accept. */
  deleteResponsesForPath(principal: string, path: string): void;
  /** Drops every copy of a principal that `matches` (a revoked permission); recorded answers, which have no scope, only when `matches` accepts everything. */
  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void;
  listResponses(): {
    readonly key: ResponseKey;
    readonly status: number;
    readonly sizeBytes: number;
    readonly storedAtMs: number;
  }[];

  getValue(name: string): Uint8Array | undefined;
  putValue(name: string, value: Uint8Array, options?: { readonly isSecret?: boolean }): void;
  deleteValue(name: string): void;
  /** Names of values that begin with this, in order. */
  valueNames(prefix: string): string[];
  /** HMAC-SHA256 with a key that never leaves this store, hex; names a token's principal without keeping the token. */
  keyedHash(text: string): string;

  /** Commits what is queued. */
  flush(): void;
  /** `flush`, and held-back bookmarks too: called at a cut and at shutdown. */
  settle(): void;
  /** What is kept beyond the quota, where it lies now; 0 or less within it. */
  excessBytes(): number;
  /** Who is told that the store is beyond its quota, behind a commit and at most once a minute, and chooses what goes; nobody before. `isInMemory`: the disk takes nothing. */
  onExcess(handler: (isInMemory: boolean) => void): void;
  /** Bytes kept of each copy, unpacked. */
  usage(): ReadonlyMap<Copy, number>;
  /** Reads every row and checks it. @returns counts; damaged rows are quarantined. */
  verify(): { readonly checked: number; readonly damaged: number };
  status(): StoreStatus;
  close(): void;
}
