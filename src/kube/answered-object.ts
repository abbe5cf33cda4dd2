/**
 * An object as the API server answers with it: read far enough to tell which
 * one it is, and whether it is still there.
 *
 * A DELETE may answer with an object that stays (finalizers, a grace period),
 * an update with one that is gone: its last finalizer was removed. Both say so:
 * who is being deleted goes when nothing holds it back any more.
 *
 *   ObjectMeta   deletionTimestamp=9  deletionGracePeriodSeconds=10  finalizers=14
 *   Status       details=5 { uid=6 }
 *
 * Source: k8s.io/apiserver registry/generic/registry/store.go
 * (ShouldDeleteDuringUpdate, deletionFinalizersForGarbageCollection).
 */

import { copyBytes } from "./byte-buffer.ts";
import { MalformedError, type Item, type ItemMeta, type Shape } from "./codec.ts";
import { itemKind } from "./item-kind.ts";
import { isParsed, metaOf, textOf, type Parsed } from "./json-list-reader.ts";
import { jsonCodec } from "./json-codec.ts";
import { parseText } from "./json-scan.ts";
import { protobufMetaOf } from "./protobuf-list-reader.ts";
import { fieldText, fieldsOf, openEnvelope } from "./protobuf-wire.ts";
import { mediaType, PROTOBUF_TYPE } from "./representation.ts";

/** An object, or the word that one is gone. */
export interface AnsweredObject {
  readonly kind: string;
  readonly apiVersion: string;
  readonly format: "json" | "protobuf";
  /** Of a Status: that of what it is about, as far as it says. */
  readonly meta: ItemMeta;
  /** deletionTimestamp is set. */
  readonly isBeingDeleted: boolean;
  /** Something still holds it back from being gone. */
  readonly isHeld: boolean;
  /** The bare message of a protobuf answer; the whole text of a JSON one. */
  readonly bytes: Uint8Array;
}

/** Reads an answer's body; undefined for what is no object in JSON or protobuf. */
export function readAnsweredObject(contentType: string, body: Uint8Array): AnsweredObject | undefined {
  const type = mediaType(contentType);
  try {
    if (type === "application/json") return readJson(body);
    return type === PROTOBUF_TYPE ? readProtobuf(body) : undefined;
  } catch (error) {
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

/**
 * The object as a list of this shape carries it.
 *
 * @returns undefined when such a list has no place for it: another kind, a Table, another format.
 */
export function asListItem({ kind, format, meta, bytes }: AnsweredObject, shape: Shape): Item | undefined {
  if (kind !== itemKind(shape)) return undefined;
  if (format === "protobuf") return { meta, bytes };
  // An event's object becomes an item in the one place where that is known.
  const frame = Buffer.concat([Buffer.from('{"type":"MODIFIED","object":'), trimmed(bytes), Buffer.from("}\n")]);
  const [event] = jsonCodec.watchReader(shape).push(frame);
  return event !== undefined && "item" in event ? event.item : undefined;
}

function trimmed(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1]! <= 0x20) end--;
  return bytes.subarray(0, end);
}

function readJson(body: Uint8Array): AnsweredObject | undefined {
  const object = parseText(body);
  if (!isParsed(object)) return undefined;
  const kind = textOf(object["kind"]);
  const base = { kind, apiVersion: textOf(object["apiVersion"]), format: "json", bytes: body } as const;
  if (kind === "Status") {
    const details = isParsed(object["details"]) ? object["details"] : {};
    const meta = { namespace: "", name: textOf(details["name"]), uid: textOf(details["uid"]), resourceVersion: "" };
    return { ...base, meta, isBeingDeleted: false, isHeld: false };
  }
  const metadata = object["metadata"] as Parsed;
  const meta = metaOf(object);
  const { finalizers, deletionGracePeriodSeconds: graceSeconds } = metadata;
  const isHeld =
    (Array.isArray(finalizers) && finalizers.length > 0) || (typeof graceSeconds === "number" && graceSeconds > 0);
  return { ...base, meta, isBeingDeleted: textOf(metadata["deletionTimestamp"]) !== "", isHeld };
}

function readProtobuf(body: Uint8Array): AnsweredObject {
  const { kind, apiVersion, start, end } = openEnvelope(body, 0, body.length);
  const bytes = copyBytes(body, start, end);
  const base = { kind, apiVersion, format: "protobuf", bytes } as const;
  if (kind === "Status") return { ...base, meta: statusMeta(bytes), isBeingDeleted: false, isHeld: false };
  let isBeingDeleted = false;
  let isHeld = false;
  for (const outer of fieldsOf(bytes)) {
    if (outer.number !== 1 || outer.wireType !== 2) continue;
    for (const field of fieldsOf(bytes, outer.start, outer.end)) {
      if (field.number === 9) isBeingDeleted = true;
      else if (field.number === 14 || (field.number === 10 && field.wireType === 0 && field.value > 0)) isHeld = true;
    }
  }
  return { ...base, meta: protobufMetaOf(bytes), isBeingDeleted, isHeld };
}

function statusMeta(bytes: Uint8Array): ItemMeta {
  const meta = { namespace: "", name: "", uid: "", resourceVersion: "" };
  for (const outer of fieldsOf(bytes)) {
    if (outer.number !== 5 || outer.wireType !== 2) continue;
    for (const field of fieldsOf(bytes, outer.start, outer.end)) {
      if (field.wireType !== 2) continue;
      if (field.number === 1) meta.name = fieldText(bytes, field);
      else if (field.number === 6) meta.uid = fieldText(bytes, field);
    }
  }
  return meta;
}
