/**
 * A body on disk with what is said about it: one line of JSON, then its bytes.
 */

import * as v from "valibot";

const NEWLINE = 0x0a;

/** The two as one value. */
export function headed(head: object, body: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body]);
}

/** Takes them apart; undefined for no value, and for one that is not what was written. */
export function readHeaded<const Schema extends v.GenericSchema>(
  value: Uint8Array | undefined,
  schema: Schema,
): { readonly head: v.InferOutput<Schema>; readonly body: Uint8Array } | undefined {
  const headEnd = value?.indexOf(NEWLINE) ?? -1;
  if (value === undefined || headEnd < 0) return undefined;
  try {
    const head = v.parse(schema, JSON.parse(Buffer.from(value.subarray(0, headEnd)).toString("utf8")));
    return { head, body: value.slice(headEnd + 1) };
  } catch {
    return undefined;
  }
}
