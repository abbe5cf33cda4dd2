/**
 * What rows must look like before anything is believed of them. SQLite keeps
 * whatever it is given in whatever column, and a page that was overwritten may
 * hold anything.
 *
 * Rows of objects are too many for a schema each: their values are looked at
 * by their sums, their fields where they become an item.
 */

import * as v from "valibot";

/** A name, a key, a resourceVersion as text. */
export const text = v.string();
/** A time or a size. */
export const finite = v.pipe(v.number(), v.finite());
/** A number that is counted up; beyond 2^52 adding one would be no more than hoping. */
export const counted = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(2 ** 52));
/** A value as packed. */
export const blob = v.instance(Uint8Array);
/** A resourceVersion, or none. */
export const version = v.pipe(v.string(), v.regex(/^[0-9]*$/));

/** A row, or undefined if it is not of this shape. */
export function rowOr<S extends v.GenericSchema>(schema: S, row: unknown): v.InferOutput<S> | undefined {
  const read = v.safeParse(schema, row);
  return read.success ? read.output : undefined;
}

/** JSON in a column, of this shape; undefined if it is not. */
export function jsonOr<S extends v.GenericSchema>(schema: S, json: string): v.InferOutput<S> | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch {
    return undefined;
  }
  return rowOr(schema, parsed);
}
