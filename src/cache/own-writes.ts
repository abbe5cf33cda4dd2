/**
 * What a caller wrote itself is known to it: the object it was answered with
 * is its copy until a newer one comes.
 *
 * A cut may begin before the watch has brought the write down, and a list that
 * nobody follows any more never brings it. So the answer to a write is kept
 * beside the copies, and held against them when they are read while cut:
 *
 *   GET                    the newest item wins, wherever it stands
 *   list, streaming list   the copy with the caller's newer writes in it; a watch
 *                          that goes on from there does not take them back
 *                          (shown-ahead.ts)
 *   exact list             the copy as it stood
 *   deleted                out of all of them, by its uid
 *
 * The rows of a copy stay what the API server said. A write is kept in memory
 * and goes to disk at a cut, at the end of the process, or when no copy has
 * brought it within ten minutes: a client that writes every second must not
 * wear the card. Bodies are sealed, whatever they are.
 *
 * Invariant: what is kept here was an answer of the API server to that caller.
 */

import type { Clock } from "../base/clock.ts";
import { readAnsweredObject, type AnsweredObject } from "../kube/answered-object.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { objectKey } from "../kube/resource-path.ts";
import type { ListedState, ScopeIdentity, Store } from "../store/contract.ts";
import { readWritten, type Written, writtenBytes } from "./written.ts";

/** What own writes are kept with. */
export interface OwnWriteParts {
  readonly store: Store;
  /** A caller's copies of a resource. */
  readonly copiesOf: (
    principal: string,
    group: string,
    version: string,
    resource: string,
  ) => Iterable<{ readonly identity: ScopeIdentity; readonly listed: ListedState | undefined }>;
  readonly clock: Clock;
  readonly retentionMs: number;
}

/** One object of one caller. */
export interface WrittenWhere {
  readonly principal: string;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  /** "" for cluster-scoped ones; of a namespace itself too. */
  readonly namespace: string;
  readonly name: string;
}

const VALUE_PREFIX = "own-write/";
const MAX_WRITES = 512;
const MAX_BYTES = 4 * 1024 * 1024;
/** A larger answer is not kept. */
export const MAX_WRITTEN_BYTES = 1024 * 1024;
const SWEEP_MS = 600_000;

/** The callers' own writes. */
export class OwnWrites {
  /** By object, the longest known first. */
  #writes = new Map<string, Written & { isSaved: boolean }>();
  #bytes = 0;
  #cancelSweep: () => void = () => {};

  constructor(private readonly parts: OwnWriteParts) {}

  /** Reads what an earlier process left, and looks every ten minutes at what can go. */
  start(): void {
    const { store } = this.parts;
    for (const name of store.valueNames(VALUE_PREFIX)) {
      const written = readWritten(store.getValue(name));
      if (written === undefined) store.deleteValue(name);
      else this.#put(written, true);
    }
    this.#scheduleSweep();
  }

  /** Writes what no copy has brought, and stops looking. */
  stop(): void {
    this.#cancelSweep();
    this.save();
  }

  /** The API server answered a write of this caller with success. @returns what that left; undefined for nothing. */
  answered(
    asked: WrittenWhere & { readonly verb: string },
    contentType: string,
    body: Uint8Array,
  ): Written | undefined {
    const { verb, ...where } = asked;
    const object = readAnsweredObject(contentType, body);
    if (object === undefined) return undefined;
    const nowMs = this.parts.clock.nowMs();
    const { meta } = object;
    if (object.kind === "Status") {
      // Of a delete it says that the object is gone; of anything else it says nothing about it.
      if (verb !== "delete" || where.name === "") return undefined;
      return this.#put({ ...where, uid: meta.uid, resourceVersion: "", atMs: nowMs, isGone: true });
    }
    if (object.apiVersion !== (where.group === "" ? where.version : `${where.group}/${where.version}`))
      return undefined;
    if (where.name !== "" && meta.name !== where.name) return undefined;
    const isGone =
      verb === "delete" ? !(object.isBeingDeleted && object.isHeld) : object.isBeingDeleted && !object.isHeld;
    const written = { ...where, name: meta.name, uid: meta.uid, resourceVersion: meta.resourceVersion, atMs: nowMs };
    return this.#put(isGone ? { ...written, isGone } : { ...written, isGone, contentType, body: new Uint8Array(body) });
  }

  /** What this caller last wrote of an object. */
  find(where: WrittenWhere): Written | undefined {
    return this.#writes.get(keyOf(where));
  }

  /** What this caller wrote of a resource and none of its copies has brought, in no order. */
  *of(principal: string, group: string, version: string, resource: string): Iterable<Written> {
    for (const write of this.#writes.values())
      if (
        write.principal === principal &&
        write.group === group &&
        write.version === version &&
        write.resource === resource &&
        !this.#isBrought(write)
      )
        yield write;
  }

  /** The API server has spoken of this object otherwise (404). */
  withdraw(where: WrittenWhere): void {
    this.#drop(keyOf(where));
  }

  /** The API server's history of a resource went back to this moment, as was heard after `beganMs`: what was written after it, or deleted, is no more. */
  rolledBack(group: string, resource: string, resourceVersion: string, beganMs: number): void {
    for (const [key, write] of this.#writes) {
      if (write.group !== group || write.resource !== resource || write.atMs > beganMs) continue;
      if (write.isGone || compareResourceVersions(write.resourceVersion, resourceVersion) > 0) this.#drop(key);
    }
  }

  /** Nothing of this caller is known any more. */
  forget(principal: string): void {
    for (const [key, write] of this.#writes) if (write.principal === principal) this.#drop(key);
  }

  /** Writes what no copy has brought: at a cut. */
  save(): void {
    const { store } = this.parts;
    for (const [key, write] of this.#writes) {
      if (this.#isBrought(write)) this.#drop(key);
      else if (!write.isSaved) {
        write.isSaved = true;
        store.putValue(valueName(store, key), writtenBytes(write), { isSecret: true });
      }
    }
  }

  #put(write: Written, isSaved = false): Written {
    const key = keyOf(write);
    const before = this.#writes.get(key);
    // Answers may arrive in another order than the API server gave them.
    if (
      before !== undefined &&
      !write.isGone &&
      !before.isGone &&
      compareResourceVersions(write.resourceVersion, before.resourceVersion) <= 0
    )
      return before;
    if (before !== undefined && before.isGone && before.uid !== "" && before.uid === write.uid) return before;
    this.#drop(key);
    this.#writes.set(key, { ...write, isSaved });
    this.#bytes += sizeOf(write);
    for (const [oldest] of this.#writes) {
      if (this.#writes.size <= MAX_WRITES && this.#bytes <= MAX_BYTES) break;
      this.#drop(oldest);
    }
    return write;
  }

  #drop(key: string): void {
    const write = this.#writes.get(key);
    if (write === undefined) return;
    this.#writes.delete(key);
    this.#bytes -= sizeOf(write);
    if (write.isSaved) this.parts.store.deleteValue(valueName(this.parts.store, key));
  }

  /** A copy of the caller in whole objects has come past it: what it says is newer, and kept. */
  #isBrought({ principal, group, version, resource, namespace, resourceVersion, isGone }: Written): boolean {
    if (isGone) return false;
    for (const { identity, listed } of this.parts.copiesOf(principal, group, version, resource)) {
      if (identity.fieldSelector !== "" || identity.labelSelector !== "") continue;
      if (identity.namespace !== "" && identity.namespace !== namespace) continue;
      if (listed === undefined || listed.shape.listKind === "Table") continue;
      if (listed.shape.listKind === "PartialObjectMetadataList") continue;
      if (compareResourceVersions(listed.resourceVersion, resourceVersion) >= 0) return true;
    }
    return false;
  }

  #scheduleSweep(): void {
    this.#cancelSweep = this.parts.clock.after(SWEEP_MS, () => {
      const { clock, retentionMs } = this.parts;
      for (const [key, { atMs }] of this.#writes) if (clock.nowMs() - atMs > retentionMs) this.#drop(key);
      this.save();
      this.#scheduleSweep();
    });
  }
}

/** The object of a write that left one. */
export function objectOf({ contentType, body }: Written): AnsweredObject | undefined {
  return contentType === undefined || body === undefined ? undefined : readAnsweredObject(contentType, body);
}

function sizeOf({ body }: Written): number {
  return 512 + (body?.length ?? 0);
}

function keyOf({ principal, group, version, resource, namespace, name }: WrittenWhere): string {
  return JSON.stringify([principal, group, version, resource, objectKey(namespace, name)]);
}

/** A principal is no file's or row's name. */
function valueName(store: Store, key: string): string {
  return `${VALUE_PREFIX}${store.keyedHash(`own-write\n${key}`)}`;
}
