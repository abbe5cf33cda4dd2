/**
 * PartialObjectMetadata, made of items that carry the same metadata and more.
 *
 *   JSON object     {"metadata":{...},"spec":...}     its metadata, byte for byte
 *   row of a Table  {"cells":[...],"object":{...}}    the object's metadata
 *   protobuf        field 1 of the bare message       that field alone
 *
 * Nothing is invented: the way back does not exist.
 *
 * Source: k8s.io/apimachinery meta/v1 types.go; each element of a
 * PartialObjectMetadataList in JSON carries kind and apiVersion.
 */

import { joinBytes } from "./byte-buffer.ts";
import { MalformedError, type Item, type Shape } from "./codec.ts";
import { memberOf } from "./json-scan.ts";
import { fieldsOf } from "./protobuf-wire.ts";

const encoder = new TextEncoder();
const JSON_END = encoder.encode("}");

/** The shape of a list of metadata alone. @param asVersion of meta.k8s.io. */
export function partialShape(asVersion: string, format: "json" | "protobuf"): Shape {
  return {
    listKind: "PartialObjectMetadataList",
    apiVersion: `meta.k8s.io/${asVersion}`,
    isBare: format === "protobuf",
  };
}

/**
 * The item's metadata as an item of such a list.
 *
 * @throws {MalformedError} on bytes that are no object.
 */
export function partialItem({ meta, bytes }: Item, asVersion: string, format: "json" | "protobuf"): Item {
  return { meta, bytes: format === "json" ? fromJson(bytes, asVersion) : fromProtobuf(bytes) };
}

/** The object in a Table's row, as far as the row carries it. @throws {MalformedError} when it carries none. */
export function objectOfRow({ meta, bytes }: Item): Item {
  const object = memberOf(bytes, 0, "object");
  if (object === undefined) throw new MalformedError("Cannot read a row: it carries no object");
  return { meta, bytes: bytes.subarray(object.valueStart, object.valueEnd) };
}

function fromJson(bytes: Uint8Array, asVersion: string): Uint8Array {
  const metadata = memberOf(bytes, 0, "metadata");
  if (metadata === undefined) throw new MalformedError("Cannot read object: it has no metadata");
  const start = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/${asVersion}","metadata":`;
  return joinBytes([encoder.encode(start), bytes.subarray(metadata.valueStart, metadata.valueEnd), JSON_END]);
}

function fromProtobuf(bytes: Uint8Array): Uint8Array {
  let at = 0;
  for (const { number, end } of fieldsOf(bytes)) {
    if (number === 1) return bytes.slice(at, end);
    at = end;
  }
  throw new MalformedError("Cannot read object: it has no metadata");
}
