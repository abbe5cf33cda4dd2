/**
 * Rows of `scopes` and `marks`: what a scope is, and where it stands.
 *
 * The head changes with a list, the marks with every commit; apart, a minute
 * of bookmarks of all scopes rewrites one page.
 */

import type { Database } from "bun:sqlite";
import * as v from "valibot";
import type { Shape } from "../kube/codec.ts";
import { identityText, type ListedState, type ScopeIdentity } from "./contract.ts";
import type { Tally } from "./object-rows.ts";
import { pragma, readNumber } from "./schema.ts";
import type { Sums } from "./sums.ts";

/** A scope as its rows say. */
export interface StoredScope {
  readonly id: number;
  readonly identity: ScopeIdentity;
  /** The number its objects carry; 0 when it has none. */
  rows: number;
  listed: ListedState | undefined;
  tally: Tally;
  lastUsedMs: number;
  /** The API server refuses it now: kept, and not served. */
  isWithheld: boolean;
}

/** What a copy is, as its rows are bound to it. */
export function rowIdentityOf({ id, identity }: Pick<StoredScope, "id" | "identity">): string {
  return `${id}\n${identityText(identity)}`;
}

const headSchema = v.object({
  shape: v.object({
    listKind: v.string(),
    apiVersion: v.string(),
    isBare: v.boolean(),
    itemKind: v.optional(v.string()),
    columnDefinitions: v.optional(v.string()),
  }),
  contentType: v.string(),
  epoch: v.string(),
  rows: v.number(),
});
const text = v.string();
const identitySchema = v.tuple([text, text, text, text, text, text, text, text]);

interface Row {
  readonly id: number;
  readonly identity: string;
  readonly head: string | null;
  readonly checksum: number;
  readonly resource_version: string | null;
  readonly changed_at: string;
  readonly last_contact: number;
  readonly last_used: number;
  readonly objects: number;
  readonly digest: number;
  readonly partly_told: number;
  readonly withheld: number;
  readonly mark_checksum: number;
}

/** Reads all scopes; no object is touched. @returns also the ids of rows that cannot be believed. */
export function readScopes(
  database: Database,
  sums: Sums,
): {
  readonly scopes: StoredScope[];
  readonly damaged: readonly number[];
} {
  // A damaged file is read as it is, before any migration.
  const version = pragma(database, "user_version");
  const flags = `${version < 2 ? "0 AS partly_told" : "m.partly_told"}, ${version < 3 ? "0 AS withheld" : "m.withheld"}`;
  const rows = database
    .query(
      "SELECT s.id, s.identity, s.head, s.checksum, m.resource_version, m.changed_at, m.last_contact, m.last_used, m.objects, m.digest, m.checksum AS mark_checksum, " +
        `${flags} FROM scopes s LEFT JOIN marks m ON m.scope = s.id`,
    )
    .all() as Row[];
  const scopes: StoredScope[] = [];
  const damaged: number[] = [];
  for (const row of rows) {
    const scope = scopeOf(row, sums);
    if (scope === undefined) damaged.push(row.id);
    else scopes.push(scope);
  }
  return { scopes, damaged };
}

/** All that a start needs to know of a file: its scopes, how many objects each number has, and the numbers to go on with. */
export function readFile(database: Database, sums: Sums) {
  const counts = new Map(
    database.query("SELECT rows, count(*) FROM objects GROUP BY rows").values() as [rows: number, count: number][],
  );
  for (const [rows] of database.query("SELECT rows FROM dictionaries").values() as [number][])
    if (!counts.has(rows)) counts.set(rows, 0);
  return {
    ...readScopes(database, sums),
    counts,
    nextCopy: readNumber(database, "next_copy"),
    nextRows: readNumber(database, "next_rows"),
  };
}

function scopeOf(row: Row, sums: Sums): StoredScope | undefined {
  const { id, head, last_used: lastUsedMs } = row;
  const { resource_version: resourceVersion } = row;
  if (!sums.holdsFields(row.checksum, id, row.identity, head) || resourceVersion === null) return undefined;
  if (!sums.holdsFields(row.mark_checksum, id, resourceVersion, ...marksOf(row))) return undefined;
  const known = v.safeParse(identitySchema, parsed(row.identity));
  if (!known.success) return undefined;
  const scope: StoredScope = {
    id,
    identity: identityOf(known.output),
    rows: 0,
    listed: undefined,
    tally: { objects: 0, digest: 0 },
    lastUsedMs,
    isWithheld: row.withheld !== 0,
  };
  return head === null ? scope : listedScope(scope, head, resourceVersion, row);
}

function listedScope(scope: StoredScope, head: string, resourceVersion: string, row: Row): StoredScope | undefined {
  const read = v.safeParse(headSchema, parsed(head));
  if (!read.success) return undefined;
  const { shape, contentType, epoch, rows } = read.output;
  const listed: ListedState = {
    shape: shape as Shape,
    contentType,
    epoch,
    resourceVersion,
    changedAt: row.changed_at,
    lastContactMs: row.last_contact,
    isPartlyTold: row.partly_told !== 0,
  };
  return { ...scope, rows, tally: { objects: row.objects, digest: row.digest }, listed };
}

/** The marks behind the resourceVersion, as their sum counts them. */
function marksOf(row: Row): readonly (string | number)[] {
  const { changed_at: changedAt, last_contact: lastContact, last_used: lastUsed, objects, digest } = row;
  return [changedAt, lastContact, lastUsed, objects, digest, ...countedOf(row.partly_told, row.withheld)];
}

/** Adds a scope that has no rows. */
export function insertScope(
  database: Database,
  sums: Sums,
  { id, identity, lastUsedMs, isWithheld }: Pick<StoredScope, "id" | "identity" | "lastUsedMs" | "isWithheld">,
): void {
  const name = identityText(identity);
  database
    .query("INSERT OR REPLACE INTO scopes (id, identity, head, checksum) VALUES (?, ?, NULL, ?)")
    .run(id, name, sums.ofFields(id, name, null));
  saveMarks(database, sums, { id, listed: undefined, lastUsedMs, isWithheld, tally: { objects: 0, digest: 0 } });
}

/** Points a scope to its rows, or to none. */
export function saveHead(
  database: Database,
  sums: Sums,
  { id, identity, listed, rows }: Pick<StoredScope, "id" | "identity" | "listed" | "rows">,
): void {
  const name = identityText(identity);
  const head =
    listed === undefined
      ? null
      : JSON.stringify({ shape: listed.shape, contentType: listed.contentType, epoch: listed.epoch, rows });
  database.query("UPDATE scopes SET head = ?, checksum = ? WHERE id = ?").run(head, sums.ofFields(id, name, head), id);
}

/** Writes where a scope stands. */
export function saveMarks(
  database: Database,
  sums: Sums,
  {
    id,
    listed,
    lastUsedMs,
    isWithheld,
    tally,
  }: Pick<StoredScope, "id" | "listed" | "lastUsedMs" | "isWithheld" | "tally">,
): void {
  const fields = [
    listed?.resourceVersion ?? "",
    listed?.changedAt ?? "",
    Math.round(listed?.lastContactMs ?? 0),
    Math.round(lastUsedMs),
    tally.objects,
    tally.digest,
  ] as const;
  const flags = [Number(listed?.isPartlyTold === true), Number(isWithheld)] as const;
  database
    .query(
      "INSERT OR REPLACE INTO marks (scope, resource_version, changed_at, last_contact, last_used, objects, digest, partly_told, withheld, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .run(id, ...fields, ...flags, sums.ofFields(id, ...fields, ...countedOf(...flags)));
}

/** What the flags add to a row's sum: nothing while they are 0, as in rows that were written before there were any. */
function countedOf(partlyTold: number, withheld: number): number[] {
  return withheld === 0 ? (partlyTold === 0 ? [] : [partlyTold]) : [partlyTold, withheld];
}

/** Removes a scope's own rows; its objects are another matter. */
export function deleteScope(database: Database, id: number): void {
  database.query("DELETE FROM scopes WHERE id = ?").run(id);
  database.query("DELETE FROM marks WHERE scope = ?").run(id);
}

/** The resources that kubelet lives on: the last to give way. */
const VITAL = new Set(["pods", "nodes", "secrets", "configmaps"]);

/** Orders scopes by what is given up first: other callers', then what kubelet does not live on, then the longest unused. */
export function byDispensability(isOwn: (principal: string) => boolean) {
  const rank = ({ identity: { principal, group, resource } }: StoredScope) =>
    Number(isOwn(principal)) * 2 + Number(group === "" && VITAL.has(resource));
  return (a: StoredScope, b: StoredScope): number => rank(a) - rank(b) || a.lastUsedMs - b.lastUsedMs;
}

function identityOf([
  principal,
  group,
  version,
  resource,
  namespace,
  fieldSelector,
  labelSelector,
  representation,
]: v.InferOutput<typeof identitySchema>): ScopeIdentity {
  return { principal, group, version, resource, namespace, fieldSelector, labelSelector, representation };
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
