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
import { counted, finite, jsonOr, rowOr, text, version } from "./row-shapes.ts";
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
  contentType: text,
  epoch: version,
  rows: counted,
});
const identitySchema = v.tuple([text, text, text, text, text, text, text, text]);

const rowSchema = v.object({
  id: counted,
  identity: text,
  head: v.nullable(text),
  checksum: finite,
  resource_version: version,
  changed_at: version,
  last_contact: finite,
  last_used: finite,
  objects: finite,
  digest: finite,
  partly_told: finite,
  withheld: finite,
  shown_to: version,
  mark_checksum: finite,
});

type Row = v.InferOutput<typeof rowSchema>;

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
  const flags = `${version < 2 ? "0 AS partly_told" : "m.partly_told"}, ${version < 3 ? "0 AS withheld" : "m.withheld"}, ${version < 4 ? "'' AS shown_to" : "m.shown_to"}`;
  const rows = database
    .query(
      "SELECT s.id, s.identity, s.head, s.checksum, m.resource_version, m.changed_at, m.last_contact, m.last_used, m.objects, m.digest, m.checksum AS mark_checksum, " +
        `${flags} FROM scopes s LEFT JOIN marks m ON m.scope = s.id`,
    )
    .all() as { readonly id: number }[];
  const scopes: StoredScope[] = [];
  const damaged: number[] = [];
  for (const row of rows) {
    const read = rowOr(rowSchema, row);
    const scope = read === undefined ? undefined : scopeOf(read, sums);
    if (scope === undefined) damaged.push(row.id);
    else scopes.push(scope);
  }
  return { scopes, damaged };
}

/** All that a start needs to know of a file: its scopes, how many objects each number has, and the numbers to go on with. */
export function readFile(database: Database, sums: Sums) {
  const counts = new Map<number, number>();
  let hasStrange = false;
  const isNumber = (rows: unknown): rows is number => {
    const isOne = v.is(counted, rows);
    hasStrange ||= !isOne;
    return isOne;
  };
  for (const [rows, count] of database.query("SELECT rows, count(*) FROM objects GROUP BY rows").values())
    if (isNumber(rows)) counts.set(rows, count as number);
  for (const [rows] of database.query("SELECT rows FROM dictionaries").values())
    if (isNumber(rows) && !counts.has(rows)) counts.set(rows, 0);
  return {
    ...readScopes(database, sums),
    counts,
    /** Rows of what is no number, which nobody can ever point to. */
    hasStrange,
    nextCopy: readNumber(database, "next_copy"),
    nextRows: readNumber(database, "next_rows"),
  };
}

function scopeOf(row: Row, sums: Sums): StoredScope | undefined {
  const { id, head, last_used: lastUsedMs } = row;
  if (!sums.holdsFields(row.checksum, id, row.identity, head)) return undefined;
  if (!sums.holdsFields(row.mark_checksum, id, ...marksOf(row))) return undefined;
  const known = jsonOr(identitySchema, row.identity);
  if (known === undefined) return undefined;
  const scope: StoredScope = {
    id,
    identity: identityOf(known),
    rows: 0,
    listed: undefined,
    tally: { objects: 0, digest: 0 },
    lastUsedMs,
    isWithheld: row.withheld !== 0,
  };
  return head === null ? scope : listedScope(scope, head, row);
}

function listedScope(scope: StoredScope, head: string, row: Row): StoredScope | undefined {
  const read = jsonOr(headSchema, head);
  if (read === undefined) return undefined;
  const { shape, contentType, epoch, rows } = read;
  const listed: ListedState = {
    shape: shape as Shape,
    contentType,
    epoch,
    resourceVersion: row.resource_version,
    changedAt: row.changed_at,
    lastContactMs: row.last_contact,
    isPartlyTold: row.partly_told !== 0,
    ...(row.shown_to === "" ? {} : { shownTo: row.shown_to }),
  };
  return { ...scope, rows, tally: { objects: row.objects, digest: row.digest }, listed };
}

/** The marks as their sum counts them. */
function marksOf(row: Row): readonly (string | number)[] {
  const { resource_version: resourceVersion } = row;
  const { changed_at: changedAt, last_contact: lastContact, last_used: lastUsed, objects, digest } = row;
  return [
    resourceVersion,
    changedAt,
    lastContact,
    lastUsed,
    objects,
    digest,
    ...countedOf(row.partly_told, row.withheld, row.shown_to),
  ];
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
  const flags = [Number(listed?.isPartlyTold === true), Number(isWithheld), listed?.shownTo ?? ""] as const;
  database
    .query(
      "INSERT OR REPLACE INTO marks (scope, resource_version, changed_at, last_contact, last_used, objects, digest, partly_told, withheld, shown_to, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .run(id, ...fields, ...flags, sums.ofFields(id, ...fields, ...countedOf(...flags)));
}

/** What the flags add to a row's sum: nothing where they are unset, as in rows that were written before there were any. */
function countedOf(partlyTold: number, withheld: number, shownTo: string): (number | string)[] {
  if (shownTo !== "") return [partlyTold, withheld, shownTo];
  return withheld === 0 ? (partlyTold === 0 ? [] : [partlyTold]) : [partlyTold, withheld];
}

/** Removes rows of what is no number. */
export function clearStrange(database: Database): void {
  for (const table of ["objects", "dictionaries"])
    database.run(`DELETE FROM ${table} WHERE typeof(rows) <> 'integer' OR rows < 0 OR rows > ${2 ** 52}`);
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
