/**
 * One own write as it lies on disk: a line of JSON that says what it is, then
 * the body's bytes as the API server sent them.
 */

import * as v from "valibot";

const headSchema = v.object({
  principal: v.string(),
  group: v.string(),
  version: v.string(),
  resource: v.string(),
  namespace: v.string(),
  name: v.string(),
  /** "" when the answer did not say. */
  uid: v.string(),
  /** "" for one that is gone. */
  resourceVersion: v.string(),
  /** When the API server answered, ms since the epoch. */
  atMs: v.number(),
  isGone: v.boolean(),
  contentType: v.optional(v.string()),
});

/** A caller's write and its answer; without a body the object is gone. */
export type Written = Readonly<v.InferOutput<typeof headSchema>> & { readonly body?: Uint8Array };

/** The value that is kept. */
export function writtenBytes(written: Written): Uint8Array {
  const { body, ...rest } = written;
  const head = v.parse(headSchema, rest);
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body ?? new Uint8Array(0)]);
}

/** Reads a kept value; undefined for what is none. */
export function readWritten(value: Uint8Array | undefined): Written | undefined {
  const end = value?.indexOf(0x0a) ?? -1;
  if (value === undefined || end < 0) return undefined;
  try {
    const head = v.parse(headSchema, JSON.parse(Buffer.from(value.subarray(0, end)).toString("utf8")));
    return head.contentType === undefined ? head : { ...head, body: new Uint8Array(value.subarray(end + 1)) };
  } catch {
    return undefined;
  }
}
