/**
 * A v1 Status on the wire, and the reason that belongs to a code.
 *
 *   protobuf  metadata=1 (ListMeta)  status=2  message=3  reason=4  details=5  code=6
 *   details   name=1  group=2  kind=3  causes=4  retryAfterSeconds=5  uid=6
 *   cause     reason=1  message=2  field=3
 *
 * Source: k8s.io/apimachinery, meta/v1/generated.proto and types.go.
 */

import type { StatusFields } from "./codec.ts";
import { envelope, listMeta, message, text, varint } from "./protobuf-wire.ts";

/** What the Status is about; each part may be left out. */
export interface StatusDetails {
  readonly name?: string;
  readonly group?: string;
  /** The resource's plural name, whatever the field is called. */
  readonly kind?: string;
  readonly uid?: string;
}

/** A Status to be written. */
export type StatusToWrite = StatusFields & { readonly details?: StatusDetails };

/** The body of an answer that refuses, in the client's format. JSON ends with a newline, as the API server's does. */
export function statusBody(status: StatusToWrite, format: "json" | "protobuf"): Uint8Array {
  if (format === "protobuf") return statusEnvelope(status);
  return new TextEncoder().encode(`${statusJson(status)}\n`);
}

/** The Status as JSON text, members in the API server's order. */
export function statusJson(status: StatusToWrite): string {
  const { code, reason, message, causes, retryAfterSeconds, details } = status;
  const hasDetails = details !== undefined || causes !== undefined || retryAfterSeconds !== undefined;
  return JSON.stringify({
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message,
    reason: reason === "" ? undefined : reason,
    details: hasDetails
      ? {
          name: details?.name,
          group: details?.group,
          kind: details?.kind,
          uid: details?.uid,
          causes,
          retryAfterSeconds,
        }
      : undefined,
    code,
  });
}

/** The Status as protobuf with the k8s\0 envelope. */
export function statusEnvelope(status: StatusToWrite): Uint8Array {
  const { code, reason, causes, retryAfterSeconds, details } = status;
  const fields = [message(1, listMeta("")), text(2, "Failure"), text(3, status.message), text(4, reason)];
  if (details !== undefined || causes !== undefined || retryAfterSeconds !== undefined) {
    fields.push(
      message(5, [
        text(1, details?.name ?? ""),
        text(2, details?.group ?? ""),
        text(3, details?.kind ?? ""),
        ...(causes ?? []).map((cause) => message(4, [text(1, cause.reason), text(2, cause.message), text(3, "")])),
        varint(5, retryAfterSeconds ?? 0),
        text(6, details?.uid ?? ""),
      ]),
    );
  }
  fields.push(varint(6, code));
  return envelope("v1", "Status", fields);
}

const REASONS: ReadonlyMap<number, string> = new Map([
  [400, "BadRequest"],
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "NotFound"],
  [405, "MethodNotAllowed"],
  [406, "NotAcceptable"],
  [409, "Conflict"],
  // "Gone" is the older name; the watch cache and etcd's compaction both say Expired.
  [410, "Expired"],
  [413, "RequestEntityTooLarge"],
  [415, "UnsupportedMediaType"],
  [422, "Invalid"],
  [429, "TooManyRequests"],
  [500, "InternalError"],
  [503, "ServiceUnavailable"],
  [504, "Timeout"],
]);

/** The reason the API server gives with an HTTP code; "InternalError" for other codes from 500 on, else "" (unknown). */
export function statusReason(code: number): string {
  return REASONS.get(code) ?? (code >= 500 ? "InternalError" : "");
}
