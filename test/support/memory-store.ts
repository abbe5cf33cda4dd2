/**
 * A store that forgets: the contract of src/store in memory, for tests of what stands above it.
 */

import { createHmac } from "node:crypto";
import type { Item } from "../../src/kube/codec.ts";
import { objectKey } from "../../src/kube/resource-path.ts";
import { compareResourceVersions } from "../../src/kube/resource-version.ts";
import type {
  ListChange,
  ListedState,
  ListWriter,
  ResponseKey,
  ScopeIdentity,
  ScopeRecord,
  ScopeSnapshot,
  Store,
  StoredResponse,
  StoreStatus,
} from "../../src/store/contract.ts";

interface Row {
  identity: ScopeIdentity;
  listed: ListedState | undefined;
  lastUsedMs: number;
  items: Map<string, Item>;
}

export class MemoryStore implements Store {
  #rows = new Map<number, Row>();
  #responses = new Map<string, { key: ResponseKey; response: StoredResponse }>();
  #values = new Map<string, Uint8Array>();
  #nextId = 1;

  scopes(): ScopeRecord[] {
    return [...this.#rows].map(([id, row]) => this.#record(id, row));
  }

  openScope(identity: ScopeIdentity, nowMs: number): ScopeRecord {
    for (const [id, row] of this.#rows)
      if (JSON.stringify(row.identity) === JSON.stringify(identity)) return this.#record(id, row);
    const row: Row = { identity, listed: undefined, lastUsedMs: nowMs, items: new Map() };
    this.#rows.set(this.#nextId, row);
    return this.#record(this.#nextId++, row);
  }

  dropScope(scopeId: number): void {
    this.#rows.delete(scopeId);
  }

  beginList(scopeId: number): ListWriter {
    if (!this.#rows.has(scopeId)) throw new RangeError(`Cannot begin a list: no scope ${scopeId}`);
    const taken = new Map<string, Item>();
    let itemBytes = 0;
    return {
      add: (item) => {
        taken.set(keyOf(item), item);
        itemBytes += item.bytes.length;
      },
      get itemCount() {
        return taken.size;
      },
      get itemBytes() {
        return itemBytes;
      },
      abort: () => taken.clear(),
      commit: ({ shape, contentType, resourceVersion, nowMs, isPartlyTold = false }, onChange) => {
        const row = this.#rows.get(scopeId);
        if (row === undefined) return;
        const before = row.items;
        const isFirst = row.listed === undefined;
        row.items = new Map(taken);
        row.listed = {
          shape,
          contentType,
          resourceVersion,
          changedAt: resourceVersion,
          epoch: resourceVersion,
          isPartlyTold,
          lastContactMs: nowMs,
        };
        if (isFirst) return;
        const changed = [...taken.values()]
          .filter((item) => !same(before.get(keyOf(item)), item))
          .sort((a, b) => compareResourceVersions(a.meta.resourceVersion, b.meta.resourceVersion));
        const changes: ListChange[] = [];
        for (const item of changed) {
          const old = before.get(keyOf(item));
          if (old !== undefined && old.meta.uid !== item.meta.uid)
            changes.push({ type: "DELETED", old }, { type: "ADDED", item });
          else changes.push({ type: old === undefined ? "ADDED" : "MODIFIED", item });
        }
        for (const [key, old] of before) if (!taken.has(key)) changes.push({ type: "DELETED", old });
        for (const change of changes) onChange(change);
      },
    };
  }

  putObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    const row = this.#rows.get(scopeId);
    row?.items.set(keyOf(item), item);
    this.#moved(row, resourceVersion, nowMs);
  }

  deleteObject(scopeId: number, item: Item, resourceVersion: string, nowMs: number): void {
    const row = this.#rows.get(scopeId);
    row?.items.delete(keyOf(item));
    this.#moved(row, resourceVersion, nowMs);
  }

  touchScope(
    scopeId: number,
    { resourceVersion, lastContactMs, lastUsedMs, isPartlyTold }: Parameters<Store["touchScope"]>[1],
  ): void {
    const row = this.#rows.get(scopeId);
    if (row === undefined) return;
    if (lastUsedMs !== undefined) row.lastUsedMs = lastUsedMs;
    if (row.listed !== undefined)
      row.listed = {
        ...row.listed,
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
        ...(isPartlyTold === undefined ? {} : { isPartlyTold }),
      };
  }

  getObject(scopeId: number, namespace: string, name: string): Item | undefined {
    return this.#rows.get(scopeId)?.items.get(objectKey(namespace, name));
  }

  snapshot(scopeId: number): ScopeSnapshot | undefined {
    const row = this.#rows.get(scopeId);
    if (row?.listed === undefined) return undefined;
    const items = [...row.items].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
    return {
      listed: row.listed,
      itemCount: items.length,
      itemSizes: () => items.map(({ bytes }) => bytes.length),
      items: () => items,
      [Symbol.dispose]() {},
    };
  }

  listedState(scopeId: number): ListedState | undefined {
    return this.#rows.get(scopeId)?.listed;
  }

  putResponse(key: ResponseKey, response: StoredResponse): void {
    this.#responses.set(JSON.stringify(key), { key, response });
  }

  getResponse(key: ResponseKey): StoredResponse | undefined {
    return this.#responses.get(JSON.stringify(key))?.response;
  }

  deleteResponse(key: ResponseKey): void {
    this.#responses.delete(JSON.stringify(key));
  }

  deleteResponsesForPath(principal: string, path: string): void {
    for (const [text, { key }] of this.#responses)
      if (key.principal === principal && key.target.split("?")[0] === path) this.#responses.delete(text);
  }

  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void {
    for (const [id, row] of this.#rows)
      if (row.identity.principal === principal && matches(row.identity)) this.#rows.delete(id);
  }

  listResponses(): ReturnType<Store["listResponses"]> {
    return [...this.#responses.values()].map(({ key, response }) => ({
      key,
      status: response.status,
      sizeBytes: response.body.length,
      storedAtMs: response.storedAtMs,
    }));
  }

  getValue(name: string): Uint8Array | undefined {
    return this.#values.get(name);
  }

  putValue(name: string, value: Uint8Array): void {
    this.#values.set(name, value);
  }

  deleteValue(name: string): void {
    this.#values.delete(name);
  }

  valueNames(prefix: string): string[] {
    return [...this.#values.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  keyedHash(text: string): string {
    return createHmac("sha256", "test").update(text).digest("hex");
  }

  flush(): void {}
  settle(): void {}

  verify(): { checked: number; damaged: number } {
    return { checked: 0, damaged: 0 };
  }

  status(): StoreStatus {
    return {
      mode: "memory",
      reason: "test",
      path: "",
      sizeBytes: 0,
      scopes: this.#rows.size,
      objects: 0,
      responses: this.#responses.size,
      quarantined: 0,
      commits: 0,
      rowsWritten: 0,
      sealing: "memory",
    };
  }

  close(): void {}

  #record(id: number, row: Row): ScopeRecord {
    return {
      id,
      identity: row.identity,
      ...(row.listed === undefined ? {} : { listed: row.listed }),
      lastUsedMs: row.lastUsedMs,
    };
  }

  #moved(row: Row | undefined, resourceVersion: string, lastContactMs: number): void {
    if (row?.listed !== undefined)
      row.listed = { ...row.listed, resourceVersion, changedAt: resourceVersion, lastContactMs };
  }
}

function keyOf({ meta }: Item): string {
  return objectKey(meta.namespace, meta.name);
}

function same(a: Item | undefined, b: Item): boolean {
  return a !== undefined && Buffer.from(a.bytes).equals(b.bytes);
}
