/**
 * A store that forgets: the contract of src/store in memory, for tests of what stands above it.
 */

import { createHmac } from "node:crypto";
import {
  identityText,
  type Copy,
  type ResponseKey,
  type ScopeIdentity,
  type Store,
  type StoredResponse,
  type StoreStatus,
} from "../../src/store/contract.ts";
import { BareCopy } from "./bare-copy.ts";

const NOTHING = () => {};

export class MemoryStore implements Store {
  #copies = new Map<string, BareCopy>();
  #responses = new Map<string, { key: ResponseKey; response: StoredResponse }>();
  #values = new Map<string, Uint8Array>();

  copies(): Copy[] {
    return [...this.#copies.values()];
  }

  openCopy(identity: ScopeIdentity, nowMs: number): Copy {
    const text = identityText(identity);
    const known = this.#copies.get(text);
    if (known !== undefined) return known;
    const copy = new BareCopy(
      { identity, listed: undefined, lastUsedMs: nowMs, isWithheld: false, items: new Map() },
      {
        flush: NOTHING,
        save: NOTHING,
        changed: NOTHING,
        hasChanged: () => false,
        touched: NOTHING,
        dropped: () => this.#copies.delete(text),
      },
    );
    this.#copies.set(text, copy);
    return copy;
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
    for (const copy of [...this.#copies.values()])
      if (copy.identity.principal === principal && matches(copy.identity)) copy.drop();
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

  excessBytes(): number {
    return 0;
  }

  onExcess(): void {}

  usage(): ReadonlyMap<Copy, number> {
    return new Map(this.copies().map((copy) => [copy, copy.size().bytes]));
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
      scopes: this.#copies.size,
      objects: 0,
      responses: this.#responses.size,
      quarantined: 0,
      commits: 0,
      rowsWritten: 0,
      sealing: "memory",
    };
  }

  close(): void {}
}
