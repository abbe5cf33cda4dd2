/**
 * Recorded answers, replayed as they were.
 *
 * Bodies are kept apart under the hash of their bytes: the same document
 * fetched by ten callers lies there once. A secret body is named with a key
 * and shared with nobody. An answer that says the same again moves only its
 * time, and that is written with the next held-back bookmarks.
 */

import type { Database } from "bun:sqlite";
import * as v from "valibot";
import type { ResponseKey, StoredResponse } from "./contract.ts";
import { isSealed, pack, unpack } from "./packing.ts";
import { blob, finite, jsonOr, rowOr, text } from "./row-shapes.ts";
import type { Sealer } from "./seal.ts";
import type { Sums } from "./sums.ts";

/** What the store lends to its answers. */
export interface ResponseParts {
  readonly database: () => Database;
  readonly sealer: Sealer;
  readonly sums: Sums;
  readonly quarantine: (what: string, value: Uint8Array | undefined) => void;
  readonly write: (task: () => void) => void;
}

interface Queued {
  readonly key: ResponseKey;
  /** Undefined forgets it. */
  readonly response: StoredResponse | undefined;
  readonly isSecret: boolean;
}

const sizedBodySchema = v.object({ size: finite, packing: finite, checksum: finite, value: blob });
const rowSchema = v.object({
  principal: text,
  target: text,
  accept: text,
  status: finite,
  headers: text,
  body: blob,
  stored_at: finite,
  checksum: finite,
});
const listedSchema = v.object({
  principal: text,
  target: text,
  accept: text,
  status: finite,
  stored_at: finite,
  size: v.nullable(finite),
});
const responseKeySchema = v.object({ principal: text, target: text, accept: text });
const keySchema = v.object({ target: text, accept: text });
const bodySchema = v.object({ packing: finite, checksum: finite, value: blob });

type Row = v.InferOutput<typeof rowSchema>;

const COLUMNS = "principal, target, accept, status, headers, body, stored_at, checksum";
const headersSchema = v.record(v.string(), v.string());

/** The store's recorded answers. */
export class Responses {
  #queue = new Map<string, Queued>();
  #queuedBytes = 0;
  /** Later times of answers that are written already. */
  #heldBack = new Map<string, { readonly key: ResponseKey; readonly storedAtMs: number }>();

  constructor(private readonly parts: ResponseParts) {}

  /** How many wait to be written. */
  get queued(): number {
    return this.#queue.size;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get isHoldingBack(): boolean {
    return this.#heldBack.size > 0;
  }

  put(key: ResponseKey, response: StoredResponse | undefined, isSecret: boolean): void {
    this.#queue.set(textOf(key), { key, response, isSecret });
    this.#queuedBytes += response?.body.length ?? 0;
  }

  get(key: ResponseKey): StoredResponse | undefined {
    const queued = this.#queue.get(textOf(key));
    if (queued !== undefined) return queued.response;
    const row = this.#row(key);
    if (row === undefined) return undefined;
    if (row === "damaged") return this.#lost(key, undefined);
    const headers = isWhole(row, this.parts.sums) ? jsonOr(headersSchema, row.headers) : undefined;
    if (headers === undefined) return this.#lost(key, row.body);
    const body = this.#body(row, key);
    if (!(body instanceof Uint8Array)) return this.#lost(key, row.body, body.found);
    return {
      status: row.status,
      headers,
      body,
      storedAtMs: this.#heldBack.get(textOf(key))?.storedAtMs ?? row.stored_at,
    };
  }

  list(): {
    readonly key: ResponseKey;
    readonly status: number;
    readonly sizeBytes: number;
    readonly storedAtMs: number;
  }[] {
    const found = this.parts
      .database()
      .query(
        "SELECT r.principal, r.target, r.accept, r.status, r.stored_at, b.size FROM responses r LEFT JOIN bodies b ON b.hash = r.body ORDER BY r.principal, r.target, r.accept",
      )
      .all();
    const rows = found.flatMap((row) => rowOr(listedSchema, row) ?? []);
    return rows.map(({ principal, target, accept, status, stored_at: storedAt, size }) => {
      const key = { principal, target, accept };
      return { key, status, sizeBytes: size ?? 0, storedAtMs: this.#heldBack.get(textOf(key))?.storedAtMs ?? storedAt };
    });
  }

  /** Keys of a principal's answers to exactly this path, queued ones included. */
  keysForPath(principal: string, path: string): ResponseKey[] {
    const queued = [...this.#queue.values()]
      .map(({ key }) => key)
      .filter((key) => key.principal === principal && pathOf(key.target) === path);
    // "?" is followed by "@" in ASCII: the range holds the path itself and the path with any query.
    const rows = this.parts
      .database()
      .query("SELECT target, accept FROM responses WHERE principal = ? AND target >= ? AND target < ?")
      .all(principal, path, `${path}@`)
      .flatMap((row) => rowOr(keySchema, row) ?? []);
    return [
      ...queued,
      ...rows
        .filter(({ target }) => pathOf(target) === path)
        .map(({ target, accept }) => ({ principal, target, accept })),
    ];
  }

  /** Takes what is queued, to be written within a transaction that may run twice. */
  takeQueue(): readonly Queued[] {
    const taken = [...this.#queue.values()];
    this.#queue.clear();
    this.#queuedBytes = 0;
    return taken;
  }

  /** Writes one. @returns whether a row was written; the same answer again is held back. */
  write({ key, response, isSecret }: Queued): boolean {
    const database = this.parts.database();
    const { principal, target, accept } = key;
    const found = this.#row(key);
    if (found === "damaged") this.#delete(key, undefined);
    const before = found === "damaged" ? undefined : found;
    if (response === undefined) {
      this.#heldBack.delete(textOf(key));
      if (before !== undefined) this.#delete(key, before.body);
      return found !== undefined;
    }
    const hash = this.#nameOf(response.body, isSecret, key);
    const headers = JSON.stringify(response.headers);
    if (
      before !== undefined &&
      isWhole(before, this.parts.sums) &&
      before.status === response.status &&
      before.headers === headers &&
      hash.equals(before.body)
    ) {
      this.#heldBack.set(textOf(key), { key, storedAtMs: response.storedAtMs });
      return false;
    }
    this.#heldBack.delete(textOf(key));
    const name = hash.toString("hex");
    if (database.query("SELECT 1 FROM bodies WHERE hash = ?").get(hash) === null) {
      const { packing, value } = pack(response.body, name, { sealer: isSecret ? this.parts.sealer : undefined });
      database
        .query("INSERT INTO bodies (hash, size, packing, checksum, value) VALUES (?, ?, ?, ?, ?)")
        .run(hash, response.body.length, packing, this.parts.sums.of(value, bodyText(name, packing)), value);
    }
    const storedAt = Math.round(response.storedAtMs);
    const sum = this.parts.sums.ofFields(principal, target, accept, response.status, headers, name, storedAt);
    database
      .query(`INSERT OR REPLACE INTO responses (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`)
      .run(principal, target, accept, response.status, headers, hash, storedAt, sum);
    if (before !== undefined) this.#dropBody(before.body);
    return true;
  }

  /** Writes the times that were held back, within a transaction. */
  writeHeldBack(): void {
    for (const { key, storedAtMs } of this.#heldBack.values()) {
      const row = this.#row(key);
      if (row === undefined || row === "damaged" || !isWhole(row, this.parts.sums)) continue;
      const moved = { ...row, stored_at: Math.round(storedAtMs) };
      this.parts
        .database()
        .query("UPDATE responses SET stored_at = ?, checksum = ? WHERE principal = ? AND target = ? AND accept = ?")
        .run(moved.stored_at, this.parts.sums.ofFields(...fieldsOf(moved)), key.principal, key.target, key.accept);
    }
  }

  forgetHeldBack(): void {
    this.#heldBack.clear();
  }

  #row({ principal, target, accept }: ResponseKey): Row | "damaged" | undefined {
    const row = this.parts
      .database()
      .query(`SELECT ${COLUMNS} FROM responses WHERE principal = ? AND target = ? AND accept = ?`)
      .get(principal, target, accept);
    return row === null ? undefined : (rowOr(rowSchema, row) ?? "damaged");
  }

  #body(row: Row, key: ResponseKey): Uint8Array | { readonly found: Uint8Array | undefined } {
    const name = Buffer.from(row.body).toString("hex");
    const stored = rowOr(
      bodySchema,
      this.parts.database().query("SELECT packing, checksum, value FROM bodies WHERE hash = ?").get(row.body),
    );
    if (stored === undefined) return { found: undefined };
    if (!this.parts.sums.holds(stored.checksum, stored.value, bodyText(name, stored.packing)))
      return { found: stored.value };
    const body = unpack(stored, name, this.parts.sealer);
    return body !== undefined && this.#nameOf(body, isSealed(stored.packing), key).equals(row.body)
      ? body
      : { found: stored.value };
  }

  /** A damaged body takes all answers with it that share it. */
  #lost(key: ResponseKey, body: Uint8Array | undefined, found?: Uint8Array): undefined {
    this.parts.quarantine(`answer ${key.target}`, found);
    this.parts.write(() => {
      this.#delete(key, undefined);
      if (body === undefined) return;
      const database = this.parts.database();
      database.query("DELETE FROM responses WHERE body = ?").run(body);
      database.query("DELETE FROM bodies WHERE hash = ?").run(body);
    });
    return undefined;
  }

  #delete({ principal, target, accept }: ResponseKey, body: Uint8Array | undefined): void {
    this.parts
      .database()
      .query("DELETE FROM responses WHERE principal = ? AND target = ? AND accept = ?")
      .run(principal, target, accept);
    if (body !== undefined) this.#dropBody(body);
  }

  #dropBody(hash: Uint8Array): void {
    this.parts
      .database()
      .query("DELETE FROM bodies WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM responses WHERE body = ?1)")
      .run(hash);
  }

  /** Equal bodies of different callers share a name; secret ones are named with a key, for their principal and target alone. */
  #nameOf(body: Uint8Array, isSecret: boolean, { principal, target }: ResponseKey): Buffer {
    const hash = new Bun.CryptoHasher("sha256").update(body).digest("hex");
    return Buffer.from(
      (isSecret ? this.parts.sealer.hash(`${principal}\n${target}\n${hash}`) : hash).slice(0, 32),
      "hex",
    );
  }
}

/** Copies answers to another database, the node's own first, then the newest, within a bound. */
export function copyResponses(
  from: Database,
  to: Database,
  maxBytes: number,
  sums: { readonly from: Sums; readonly to: Sums; readonly isOwn: (principal: string) => boolean },
): void {
  let bytesLeft = maxBytes;
  const keys = from
    .query("SELECT principal, target, accept FROM responses ORDER BY stored_at DESC")
    .all()
    .flatMap((row) => rowOr(responseKeySchema, row) ?? []);
  keys.sort((a, b) => Number(sums.isOwn(b.principal)) - Number(sums.isOwn(a.principal)));
  for (const { principal, target, accept } of keys) {
    const row = rowOr(
      rowSchema,
      from
        .query(`SELECT ${COLUMNS} FROM responses WHERE principal = ? AND target = ? AND accept = ?`)
        .get(principal, target, accept),
    );
    if (row === undefined || !isWhole(row, sums.from)) continue;
    const body = rowOr(
      sizedBodySchema,
      from.query("SELECT size, packing, checksum, value FROM bodies WHERE hash = ?").get(row.body),
    );
    if (body === undefined || (bytesLeft -= body.value.length) < 0) continue;
    const name = bodyText(Buffer.from(row.body).toString("hex"), body.packing);
    if (!sums.from.holds(body.checksum, body.value, name)) continue;
    to.query("INSERT OR IGNORE INTO bodies (hash, size, packing, checksum, value) VALUES (?, ?, ?, ?, ?)").run(
      row.body,
      body.size,
      body.packing,
      sums.to.of(body.value, name),
      body.value,
    );
    to.query(`INSERT OR REPLACE INTO responses (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`).run(
      row.principal,
      row.target,
      row.accept,
      row.status,
      row.headers,
      row.body,
      row.stored_at,
      sums.to.ofFields(...fieldsOf(row)),
    );
  }
}

/** Within a transaction: sums all answers anew; one that is damaged stays so. */
export function resumResponses(database: Database, sums: { readonly from: Sums; readonly to: Sums }): void {
  for (const [hash] of database.query("SELECT hash FROM bodies").values()) {
    const body = rowOr(
      bodySchema,
      database.query("SELECT packing, checksum, value FROM bodies WHERE hash = ?").get(hash as Uint8Array),
    );
    if (body === undefined || !(hash instanceof Uint8Array)) continue;
    const summed = bodyText(Buffer.from(hash).toString("hex"), body.packing);
    if (sums.from.holds(body.checksum, body.value, summed))
      database.query("UPDATE bodies SET checksum = ? WHERE hash = ?").run(sums.to.of(body.value, summed), hash);
  }
  const rows = database.query(`SELECT ${COLUMNS} FROM responses`).all();
  for (const row of rows.flatMap((found) => rowOr(rowSchema, found) ?? []))
    if (isWhole(row, sums.from))
      database
        .query("UPDATE responses SET checksum = ? WHERE principal = ? AND target = ? AND accept = ?")
        .run(sums.to.ofFields(...fieldsOf(row)), row.principal, row.target, row.accept);
}

/** What a body is the value of, for its sum. */
function bodyText(name: string, packing: number): string {
  return `${name}\n${packing}`;
}

function isWhole(row: Row, sums: Sums): boolean {
  return sums.holdsFields(row.checksum, ...fieldsOf(row));
}

function fieldsOf({ principal, target, accept, status, headers, body, stored_at: storedAt }: Row) {
  return [principal, target, accept, status, headers, Buffer.from(body).toString("hex"), storedAt] as const;
}

function textOf({ principal, target, accept }: ResponseKey): string {
  return JSON.stringify([principal, target, accept]);
}

function pathOf(target: string): string {
  const mark = target.indexOf("?");
  return mark < 0 ? target : target.slice(0, mark);
}
