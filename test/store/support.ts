/**
 * A store in a temporary folder, a clock that stands until it is moved, and items to put in.
 */

import { Database } from "bun:sqlite";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import type { Item, Shape } from "../../src/kube/codec.ts";
import type { Copy, ListChange, ScopeIdentity, Store } from "../../src/store/contract.ts";
import { openStore, type SqliteStore, type StoreOptions } from "../../src/store/store.ts";

/** A clock moved by hand. */
export class HandClock implements Clock {
  #now = 1_000_000;
  #timers = new Set<{ readonly at: number; readonly task: () => void }>();

  nowMs(): number {
    return 1_700_000_000_000 + this.#now;
  }

  monotonicMs(): number {
    return this.#now;
  }

  after(delayMs: number, task: () => void): () => void {
    const timer = { at: this.#now + delayMs, task };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  pass(ms: number): void {
    const until = this.#now + ms;
    for (;;) {
      const next = [...this.#timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.task();
    }
    this.#now = until;
  }
}

/** A folder and the stores opened in it; all is gone at the end of the scope. */
export class Bench implements Disposable {
  readonly clock = new HandClock();
  readonly dir: string;
  readonly warnings: string[] = [];
  #stores: SqliteStore[] = [];
  readonly #crashed: string[] = [];

  constructor(parent = tmpdir()) {
    this.dir = mkdtempSync(join(parent, "holdfast-test-store-"));
  }

  get file(): string {
    return join(this.dir, "cache.db");
  }

  open(options: Partial<StoreOptions> = {}): SqliteStore {
    const log = {
      ...silentLog,
      warn: (message: string) => this.warnings.push(message),
      error: (message: string) => this.warnings.push(message),
    };
    const store = openStore({ stateDir: this.dir, clock: this.clock, log, maxBytes: 256 * 2 ** 20, ...options });
    this.#stores.push(store);
    return store;
  }

  /** The store as a process would find it after this one's death: on a copy of the folder, nothing closed before. */
  openAfterCrash(parent = tmpdir()): SqliteStore {
    const dir = mkdtempSync(join(parent, "holdfast-test-store-"));
    this.#crashed.push(dir);
    for (const name of readdirSync(this.dir))
      if (name !== "lock") cpSync(join(this.dir, name), join(dir, name), { recursive: true });
    return this.open({ stateDir: dir });
  }

  /** The file seen from outside, as it stands on disk. */
  look<T>(query: string): T[] {
    const database = new Database(this.file, { readonly: true });
    try {
      return database.query(query).all() as T[];
    } finally {
      database.close();
    }
  }

  /** Tries to bring the whole log into the file; `busy` is 1 while a reader stands. */
  checkpoint(): { readonly busy: number } {
    const database = new Database(this.file);
    try {
      return database.query("PRAGMA wal_checkpoint(TRUNCATE)").get() as { busy: number };
    } finally {
      database.close();
    }
  }

  /** Changes the file behind the store's back; no store may be open. */
  spoil(...statements: readonly string[]): void {
    const database = new Database(this.file);
    for (const statement of statements) database.run(statement);
    database.close();
  }

  /** The same where the file may not take it. @returns whether it did. */
  tryToSpoil(statement: string): boolean {
    const database = new Database(this.file);
    try {
      database.run(statement);
      return true;
    } catch {
      return false;
    } finally {
      database.close();
    }
  }

  closeAll(): void {
    for (const store of this.#stores) store.close();
  }

  [Symbol.dispose](): void {
    this.closeAll();
    for (const dir of [this.dir, ...this.#crashed]) rmSync(dir, { recursive: true, force: true });
  }
}

export const PODS: ScopeIdentity = {
  principal: "system:node:edge-1",
  group: "",
  version: "v1",
  resource: "pods",
  namespace: "",
  fieldSelector: "spec.nodeName=edge-1",
  labelSelector: "",
  representation: "json",
};
export const SECRETS: ScopeIdentity = { ...PODS, resource: "secrets", fieldSelector: "" };
export const SHAPE: Shape = { listKind: "PodList", apiVersion: "v1", isBare: true };

export interface ItemOptions {
  readonly uid?: string;
  readonly text?: string;
  readonly namespace?: string;
}

/** One object; the same arguments give the same bytes. */
export function item(
  name: string,
  resourceVersion: string | number,
  { uid = `uid-of-${name}`, text = "", namespace = "shop" }: ItemOptions = {},
): Item {
  const metadata = { name, ...(namespace === "" ? {} : { namespace }), uid, resourceVersion: String(resourceVersion) };
  const spec = {
    containers: [{ name: "main", image: "registry.example.com/shop/web:1.4", imagePullPolicy: "IfNotPresent" }],
    restartPolicy: "Always",
    nodeName: "edge-1",
    serviceAccountName: "default",
    text,
  };
  return {
    meta: { namespace, name, uid, resourceVersion: String(resourceVersion) },
    bytes: Buffer.from(JSON.stringify({ metadata, spec })),
  };
}

/** Lists items into a scope and says what changed, as "ADDED a@5". */
export function list(copy: Copy, items: readonly Item[], resourceVersion: string | number): string[] {
  const changes: string[] = [];
  const writer = copy.beginList();
  for (const one of items) writer.add(one);
  writer.commit(
    { shape: SHAPE, contentType: "application/json", resourceVersion: String(resourceVersion), nowMs: 1 },
    (change) => changes.push(spoken(change)),
  );
  return changes;
}

export function spoken(change: ListChange): string {
  const { meta } = change.type === "DELETED" ? change.old : change.item;
  return `${change.type} ${meta.name}@${meta.resourceVersion}`;
}

/** A scope with these items in it. */
export function listedScope(
  store: Store,
  items: readonly Item[],
  resourceVersion: string | number = 100,
  identity = PODS,
): Copy {
  const copy = store.openCopy(identity, 1);
  list(copy, items, resourceVersion);
  return copy;
}

/** The same scope's copy in a store that was opened later; an empty one if it is gone. */
export function keptIn(store: Store, { identity }: Pick<Copy, "identity">): Copy {
  return store.openCopy(identity, 1);
}

/** A scope's content as "shop/a@5", in the order it is served. */
export function contentOf(copy: Copy): string[] | undefined {
  using snapshot = copy.snapshot();
  if (snapshot === undefined) return undefined;
  return [...snapshot.items()].map(
    ({ meta }) => `${meta.namespace === "" ? "" : `${meta.namespace}/`}${meta.name}@${meta.resourceVersion}`,
  );
}

/** Every file under a folder. */
export function filesUnder(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .map((name) => join(dir, name))
    .filter((path) => statSync(path).isFile());
}

/** Files under a folder that hold this text. */
export function filesWith(dir: string, text: string): string[] {
  return filesUnder(dir).filter((path) => readFileSync(path).includes(text));
}

export function numbered(count: number, resourceVersion = 1, text = ""): Item[] {
  return Array.from({ length: count }, (_, n) =>
    item(`pod-${String(n).padStart(5, "0")}`, resourceVersion + n, { text }),
  );
}

/** How many objects a killed writer's scopes have. */
export const OBJECTS = 50;

/** Object `n` of a scope in lockstep, as it stands at a resourceVersion: event R rewrites object R modulo OBJECTS. */
export function objectAt(n: number, resourceVersion: number): Item {
  const own = resourceVersion - ((resourceVersion - n) % OBJECTS);
  return item(`pod-${String(n).padStart(3, "0")}`, own, { text: `written at ${own} `.repeat(40) });
}
