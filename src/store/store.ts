/**
 * Everything the node remembers, in one SQLite file.
 *
 * This is the door; behind it each file has one story:
 *
 *   copies      scopes' rows, through handles     (copy, list-writer, snapshot, object-rows, scope-rows)
 *   responses   recorded answers                  values    named values
 *   commits     when what is queued is written
 *   backing     the database, and what is done when it fails   (place, salvage, schema)
 *   quarantine  what was found damaged            seal, packing    how a value lies in its row
 *
 * Start-up always succeeds, whatever lies in the folder.
 */

import { statSync } from "node:fs";
import type { Database } from "bun:sqlite";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Backing } from "./backing.ts";
import { CLUSTER_VALUE, isSameCluster, ownerOf, type Cluster } from "./clusters.ts";
import { Commits, type CommitParts } from "./commits.ts";
import type { Copy, ResponseKey, ScopeIdentity, Store, StoredResponse, StoreStatus } from "./contract.ts";
import { Copies } from "./copies.ts";
import { StateLock } from "./lock.ts";
import { Quarantine } from "./quarantine.ts";
import { Responses } from "./responses.ts";
import { sumsOf } from "./resum.ts";
import { pragma } from "./schema.ts";
import { openSealer, type Sealer } from "./seal.ts";
import { Sums } from "./sums.ts";
import { Values } from "./values.ts";

/** How a store is opened. */
export interface StoreOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Beyond it whoever listens to `onExcess` chooses what goes. */
  readonly maxBytes: number;
  /** For looking at a file that a daemon may be using: nothing is ever written. Default false. */
  readonly isReadOnly?: boolean;
  /** The configured cluster, as its CA bundle's fingerprints: state of another is neither served nor touched before `proven`. Default: the state is nobody's in particular. */
  readonly cluster?: Cluster;
  /** Whether a principal is the node itself: its rows come along first where not all have room. Default: nobody is. */
  readonly isOwn?: (principal: string) => boolean;
  /** Which scopes' objects are sealed. Default: Secrets. */
  readonly isSealed?: (identity: ScopeIdentity) => boolean;
}

const LOOK_EVERY_MS = 60_000;
/** Four times what SQLite lets it grow to between two checkpoints. */
const MAX_LOG_BYTES = 16 * 1024 * 1024;

/**
 * Opens the store of a state folder, and locks the folder for this process.
 *
 * @throws {StateFolderLockedError} if another process has it, before anything was read or written; never because of the disk, unless it is opened to be read only.
 */
export function openStore(options: StoreOptions): SqliteStore {
  return new SqliteStore(options);
}

/** The store on SQLite. */
export class SqliteStore implements Store {
  readonly #lock: StateLock | undefined;
  readonly #sealer: Sealer;
  readonly #backing: Backing;
  readonly #quarantine: Quarantine;
  readonly #copies: Copies;
  readonly #responses: Responses;
  readonly #values: Values;
  readonly #commits: Commits;
  #lastLookMs: number;
  #onExcess: ((isInMemory: boolean) => void) | undefined;
  #isClosed = false;

  constructor(private readonly options: StoreOptions) {
    const { stateDir, clock, cluster } = options;
    const isReadOnly = options.isReadOnly === true;
    this.#lock = isReadOnly ? undefined : new StateLock(stateDir);
    this.#sealer = openSealer(stateDir, isReadOnly);
    this.#backing = this.#openBacking(isReadOnly);
    const common = this.#common(isReadOnly);
    this.#quarantine = new Quarantine(common);
    this.#copies = new Copies({
      ...common,
      isSealed: options.isSealed ?? isSecret,
      commits: () => this.#commits,
    });
    this.#values = new Values(common);
    this.#responses = new Responses({
      ...common,
      database: () => this.#backing.database,
      write: (task) => this.#backing.write(task),
    });
    this.#commits = this.#openCommits(common);
    this.#lastLookMs = clock.monotonicMs();
    this.#quarantine.load();
    this.#copies.load(isReadOnly);
    if (this.#backing.damagedAtStart > 0) this.#quarantine.add(this.#backing.damagedAtStart);
    // Whatever is kept from now on is somebody's; a mistake costs an empty file that is set aside.
    if (cluster !== undefined && !isReadOnly && this.getValue(CLUSTER_VALUE) === undefined) this.#claim(cluster);
  }

  #openBacking(isReadOnly: boolean): Backing {
    const { stateDir, clock, log, maxBytes, cluster } = this.options;
    return new Backing({
      sealer: this.#sealer,
      isOwn: this.options.isOwn ?? (() => false),
      lock: this.#lock,
      cluster,
      stateDir,
      clock,
      log,
      maxBytes,
      isReadOnly,
      undone: () => this.#copies.undone(),
      leaving: () => this.#copies.leave(),
      replaced: (damaged) => {
        this.#copies.adopt();
        if (damaged > 0) this.#quarantine.add(damaged);
      },
      settle: () => this.settle(),
      returned: () => this.#sealer.keep(stateDir),
    });
  }

  /** What each part is given. */
  #common(isReadOnly: boolean) {
    const { clock, log } = this.options;
    return {
      clock,
      log,
      backing: () => this.#backing,
      sealer: this.#sealer,
      sums: isReadOnly ? sumsToLook(this.#backing.database, this.#sealer) : Sums.keyed(this.#sealer),
      quarantine: (what: string, value: Uint8Array | undefined) => this.#quarantine.put(what, value),
    };
  }

  #openCommits(common: Pick<CommitParts, "clock" | "backing" | "sums">): Commits {
    return new Commits({
      ...common,
      responses: this.#responses,
      copies: () => this.#copies.all(),
      get: (copy, namespace, name) => this.#copies.get(copy, namespace, name),
      writeObject: (...args) => this.#copies.writeObject(...args),
      lost: (copy) => this.#copies.unlist(copy),
      committed: () => {
        this.#boundLog();
        this.#maintain();
      },
    });
  }

  /** Whether what lies in the state folder is another cluster's: nothing of it is served, and nothing touched. */
  get isOthers(): boolean {
    return this.#backing.isOthers;
  }

  /** Whether a CA bundle is this cluster's; true where the state is nobody's. */
  isOf(cluster: Cluster): boolean {
    const owner = this.#backing.read(() => ownerOf(this.#backing.database, this.#sealer), nothing);
    return isSameCluster(owner ?? this.options.cluster ?? cluster, cluster);
  }

  /**
   * An API server of the configured cluster has proven itself: a TLS handshake
   * under this CA bundle and a version document. State of another cluster is
   * set aside now, and the state is said to be of this one. Cheap when that is
   * so already.
   *
   * @param cluster the bundle as it is now; it may have changed since start.
   */
  proven(cluster: Cluster): void {
    if (this.options.isReadOnly === true || !this.isOf(cluster) || !this.#backing.proven()) return;
    this.#claim(cluster);
  }

  copies(): Copy[] {
    return this.#copies.all();
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    return this.#copies.open(identity, nowMs);
  }

  putResponse(key: ResponseKey, response: StoredResponse, { isSecret }: { readonly isSecret: boolean }): void {
    this.#responses.put(key, response, isSecret);
    this.#commits.grew();
  }

  getResponse(key: ResponseKey): StoredResponse | undefined {
    return this.#backing.read(() => this.#responses.get(key), nothing);
  }

  deleteResponse(key: ResponseKey): void {
    this.#responses.put(key, undefined, false);
    this.#commits.grew();
  }

  deleteResponsesForPath(principal: string, path: string): void {
    const keys = this.#backing.read(() => this.#responses.keysForPath(principal, path), none);
    for (const key of keys) this.deleteResponse(key);
  }

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const copy of this.#copies.all())
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
    // A recorded answer has no scope; it goes when everything of its principal goes.
    if (!matches({ ...NOTHING, principal })) return;
    for (const { key } of this.listResponses()) if (key.principal === principal) this.deleteResponse(key);
    this.flush();
  }

  listResponses(): ReturnType<Store["listResponses"]> {
    this.flush();
    return this.#backing.read(() => this.#responses.list(), none);
  }

  getValue(name: string): Uint8Array | undefined {
    return this.#values.get(name);
  }

  putValue(name: string, value: Uint8Array, options: { readonly isSecret?: boolean } = {}): void {
    this.#values.put(name, value, options.isSecret === true);
  }

  deleteValue(name: string): void {
    this.#values.delete(name);
  }

  valueNames(prefix: string): string[] {
    return this.#values.names(prefix);
  }

  keyedHash(text: string): string {
    return this.#sealer.hash(text);
  }

  flush(): void {
    this.#commits.flush();
  }

  settle(): void {
    this.#commits.settle();
  }

  verify(): { readonly checked: number; readonly damaged: number } {
    this.flush();
    let checked = 0;
    let damaged = 0;
    for (const copy of this.#copies.all()) {
      const found = this.#copies.verify(copy);
      checked += found.checked;
      damaged += found.damaged;
    }
    for (const { key } of this.listResponses()) {
      checked++;
      if (this.getResponse(key) === undefined) damaged++;
    }
    return { checked, damaged };
  }

  excessBytes(): number {
    return this.#backing.read(
      () => usedBytes(this.#backing.database) - this.#backing.maxBytes,
      () => 0,
    );
  }

  onExcess(handler: (isInMemory: boolean) => void): void {
    this.#onExcess = handler;
  }

  usage(): ReadonlyMap<Copy, number> {
    return this.#copies.usage();
  }

  status(): StoreStatus {
    const { mode, reason, path } = this.#backing.opened;
    const counts = this.#backing.read(
      () => ({
        objects: countOf(this.#backing.database, "objects"),
        responses: countOf(this.#backing.database, "responses"),
      }),
      () => ({ objects: 0, responses: 0 }),
    );
    return {
      mode,
      reason,
      path,
      sizeBytes: sizeOf(path) + sizeOf(`${path}-wal`),
      scopes: this.#copies.count,
      ...counts,
      quarantined: this.#quarantine.count,
      commits: this.#backing.commits,
      rowsWritten: this.#commits.rowsWritten,
      sealing: this.#sealer.source,
    };
  }

  close(): void {
    if (this.#isClosed) return;
    this.settle();
    this.#backing.close();
    this.#isClosed = true;
    this.#commits.close();
    this.#lock?.release();
  }

  #claim(cluster: Cluster): void {
    this.putValue(CLUSTER_VALUE, Buffer.from(cluster.join(",")));
  }

  /** The log begins anew only in a moment without readers: beyond its bound they are not waited for. */
  #boundLog(): void {
    const { mode, path } = this.#backing.opened;
    if (mode === "memory" && path === ":memory:") return;
    if (sizeOf(`${path}-wal`) <= MAX_LOG_BYTES) return;
    this.#copies.releaseReaders();
    this.#backing.read(() => this.#backing.database.run("PRAGMA wal_checkpoint(TRUNCATE)"), nothing);
  }

  /** Once a minute, behind a commit: is the file still there, and does it stay within its bounds? */
  #maintain(): void {
    const now = this.options.clock.monotonicMs();
    if (now - this.#lastLookMs < LOOK_EVERY_MS || this.options.isReadOnly === true) return;
    this.#lastLookMs = now;
    this.#backing.checkPlace();
    if (this.#onExcess !== undefined && this.excessBytes() > 0) this.#onExcess(this.#backing.opened.mode === "memory");
  }
}

const NOTHING: ScopeIdentity = {
  principal: "",
  group: "",
  version: "",
  resource: "",
  namespace: "",
  fieldSelector: "",
  labelSelector: "",
  representation: "",
};

/** Secrets never lie open on the card; neither do the tokens in them. */
function isSecret({ group, resource }: ScopeIdentity): boolean {
  return group === "" && (resource === "secrets" || resource === "serviceaccounts/token");
}

/** Who only looks is shown what is there, also without the key. */
function sumsToLook(database: Database, sealer: Sealer): Sums {
  return sumsOf(database, sealer) ?? Sums.trusting(sealer);
}

function usedBytes(database: Database): number {
  return (pragma(database, "page_count") - pragma(database, "freelist_count")) * pragma(database, "page_size");
}

function countOf(database: Database, table: "objects" | "responses"): number {
  return (database.query(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function nothing(): undefined {
  return undefined;
}

function none(): never[] {
  return [];
}
