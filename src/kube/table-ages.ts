/**
 * The ages in a kept Table, counted anew.
 *
 * The API server writes an age as text when it makes the Table: a copy of it
 * shows how old things were then. Which cell is an age is told by its column:
 * named Age, and described as printers describe metadata.creationTimestamp.
 * Whatever is not known for one stays as it is, byte for byte; so does a row
 * that carries no object.
 *
 * Source: k8s.io/kubernetes pkg/printers/internalversion (columns),
 * apiextensions-apiserver pkg/registry/customresource/tableconvertor.
 */

import { elementsOf, memberOf, parseText } from "./json-scan.ts";
import { isParsed, textOf } from "./json-list-reader.ts";
import { humanDuration } from "./human-duration.ts";
import { joinBytes } from "./byte-buffer.ts";

const OF_CREATION = [
  "CreationTimestamp is a timestamp representing the server time when this object was created",
  "Custom resource definition column (in JSONPath format): .metadata.creationTimestamp",
];

/** At which places of a row ages stand; none when the Table has no such column. @param columnDefinitions as the Table says them. */
export function ageColumns(columnDefinitions: string | undefined): readonly number[] {
  if (columnDefinitions === undefined) return [];
  const columns = parseText(Buffer.from(columnDefinitions));
  if (!Array.isArray(columns)) return [];
  return columns.flatMap((column: unknown, index) =>
    isParsed(column) &&
    column["name"] === "Age" &&
    OF_CREATION.some((start) => textOf(column["description"]).startsWith(start))
      ? [index]
      : [],
  );
}

/** A row of a Table with the ages of now. @returns the same bytes when nothing can be said anew. */
export function withAgesOfNow(row: Uint8Array, columns: readonly number[], nowMs: number): Uint8Array {
  const createdMs = createdAtMs(row);
  const cells = createdMs === undefined ? undefined : memberOf(row, 0, "cells");
  if (createdMs === undefined || cells === undefined) return row;
  const places = elementsOf(row, cells.valueStart);
  const parts: Uint8Array[] = [];
  let from = 0;
  for (const column of columns) {
    const place = places[column];
    if (place === undefined) continue;
    parts.push(row.subarray(from, place.start), Buffer.from(JSON.stringify(humanDuration(nowMs - createdMs))));
    from = place.end;
  }
  return joinBytes([...parts, row.subarray(from)]);
}

/** A whole Table with the ages of now, as one answer carries it. */
export function tableWithAgesOfNow(table: Uint8Array, nowMs: number): Uint8Array {
  const definitions = memberOf(table, 0, "columnDefinitions");
  const rows = memberOf(table, 0, "rows");
  if (definitions === undefined || rows === undefined) return table;
  const text = Buffer.from(table.subarray(definitions.valueStart, definitions.valueEnd)).toString("utf8");
  const columns = ageColumns(text);
  if (columns.length === 0) return table;
  const parts: Uint8Array[] = [];
  let from = 0;
  for (const { start, end } of elementsOf(table, rows.valueStart)) {
    parts.push(table.subarray(from, start), withAgesOfNow(table.subarray(start, end), columns, nowMs));
    from = end;
  }
  return joinBytes([...parts, table.subarray(from)]);
}

function createdAtMs(row: Uint8Array): number | undefined {
  const object = memberOf(row, 0, "object");
  if (object === undefined || row[object.valueStart] !== 0x7b) return undefined;
  const metadata = memberOf(row, object.valueStart, "metadata");
  if (metadata === undefined || row[metadata.valueStart] !== 0x7b) return undefined;
  const created = memberOf(row, metadata.valueStart, "creationTimestamp");
  if (created === undefined) return undefined;
  const atMs = Date.parse(textOf(parseText(row, created.valueStart, created.valueEnd)));
  return Number.isNaN(atMs) ? undefined : atMs;
}
