/**
 * Whether a Lease differs from another by its renewTime alone.
 *
 * coordination.k8s.io/v1, in protobuf: Lease metadata = 1, spec = 2; LeaseSpec
 * holderIdentity = 1, leaseDurationSeconds = 2, acquireTime = 3, renewTime = 4.
 */

import { joinBytes } from "./byte-buffer.ts";
import { MalformedError } from "./codec.ts";
import { fieldsOf, MAGIC, openEnvelope } from "./protobuf-wire.ts";

const SPEC = 2;
const RENEW_TIME = 4;
const RENEW_TIME_JSON = /"renewTime":"[^"]*"/;

/**
 * Whether the second is the first, renewed and nothing else.
 *
 * @param before @param after bodies as they went over the wire, in JSON or protobuf.
 * @returns false when they are in different formats, or one of them cannot be read.
 */
export function isRenewal(before: Uint8Array, after: Uint8Array): boolean {
  if (isProtobuf(before) !== isProtobuf(after)) return false;
  try {
    return isProtobuf(after)
      ? Buffer.compare(unrenewed(before), unrenewed(after)) === 0
      : unrenewedText(before) === unrenewedText(after);
  } catch (error) {
    if (error instanceof MalformedError) return false;
    throw error;
  }
}

function isProtobuf(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, i) => bytes[i] === byte);
}

function unrenewedText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("utf8").replace(RENEW_TIME_JSON, "").trimEnd();
}

function unrenewed(bytes: Uint8Array): Uint8Array {
  const { start, end, kind } = openEnvelope(bytes, 0, bytes.length);
  if (kind !== "Lease") throw new MalformedError("Cannot read a lease: it is another kind");
  const kept: Uint8Array[] = [];
  for (const field of fieldsOf(bytes, start, end)) {
    if (field.number !== SPEC || field.wireType !== 2) {
      kept.push(bytes.subarray(field.at, field.end));
      continue;
    }
    for (const inner of fieldsOf(bytes, field.start, field.end))
      if (inner.number !== RENEW_TIME) kept.push(bytes.subarray(inner.at, inner.end));
  }
  return joinBytes(kept);
}
