/**
 * What a TokenRequest asks for, and what its answer holds.
 *
 * authentication.k8s.io/v1, in JSON or protobuf:
 *
 *   TokenRequest      metadata = 1, spec = 2, status = 3
 *   spec              audiences = 1, boundObjectRef = 3, expirationSeconds = 4
 *   boundObjectRef    kind = 1, apiVersion = 2, name = 3, uid = 4
 *   status            token = 1, expirationTimestamp = 2
 */

import * as v from "valibot";
import { MalformedError } from "./codec.ts";
import { fieldsOf, fieldText, MAGIC, openEnvelope, type Field } from "./protobuf-wire.ts";

/** A TokenRequest's spec, as far as it names a token. */
export interface TokenSpec {
  /** Sorted; empty for the API server's own audience. */
  readonly audiences: readonly string[];
  /** The object the token lives and dies with; "" for none. */
  readonly boundKind: string;
  readonly boundName: string;
  readonly boundUid: string;
}

const requestSchema = v.object({
  spec: v.optional(
    v.object({
      audiences: v.optional(v.nullable(v.array(v.string()))),
      boundObjectRef: v.optional(
        v.nullable(
          v.object({ kind: v.optional(v.string()), name: v.optional(v.string()), uid: v.optional(v.string()) }),
        ),
      ),
    }),
  ),
});
const answerSchema = v.object({ status: v.object({ token: v.string() }) });

/** What the body of a POST to serviceaccounts/NAME/token asks for. @throws {MalformedError} */
export function readTokenSpec(body: Uint8Array): TokenSpec {
  if (!isProtobuf(body)) {
    const { spec } = parsed(requestSchema, body);
    const ref = spec?.boundObjectRef;
    return {
      audiences: [...(spec?.audiences ?? [])].sort(),
      boundKind: ref?.kind ?? "",
      boundName: ref?.name ?? "",
      boundUid: ref?.uid ?? "",
    };
  }
  const audiences: string[] = [];
  const bound = ["", "", "", "", ""];
  for (const spec of messagesOf(body, 2)) {
    for (const field of fieldsOf(body, spec.start, spec.end)) {
      if (field.wireType !== 2) continue;
      if (field.number === 1) audiences.push(fieldText(body, field));
      if (field.number !== 3) continue;
      for (const inner of fieldsOf(body, field.start, field.end))
        if (inner.wireType === 2 && inner.number <= 4) bound[inner.number] = fieldText(body, inner);
    }
  }
  return { audiences: audiences.sort(), boundKind: bound[1]!, boundName: bound[3]!, boundUid: bound[4]! };
}

/** The token in an answer. @throws {MalformedError} */
export function readToken(body: Uint8Array): string {
  if (!isProtobuf(body)) return parsed(answerSchema, body).status.token;
  for (const status of messagesOf(body, 3))
    for (const field of fieldsOf(body, status.start, status.end))
      if (field.number === 1 && field.wireType === 2) return fieldText(body, field);
  throw new MalformedError("Cannot read a TokenRequest: it holds no token");
}

function isProtobuf(body: Uint8Array): boolean {
  return MAGIC.every((byte, i) => body[i] === byte);
}

function messagesOf(body: Uint8Array, number: number): Field[] {
  const { start, end } = openEnvelope(body, 0, body.length);
  return [...fieldsOf(body, start, end)].filter((field) => field.number === number && field.wireType === 2);
}

function parsed<const Schema extends v.GenericSchema>(schema: Schema, body: Uint8Array): v.InferOutput<Schema> {
  try {
    return v.parse(schema, JSON.parse(Buffer.from(body).toString("utf8")));
  } catch {
    // The cause would quote the body.
    throw new MalformedError("Cannot read a TokenRequest: the body is not one");
  }
}
