/**
 * The protobuf wire format, without a schema.
 *
 * Lists, events and single objects are envelopes around bare messages whose
 * bytes are never changed; the layouts stand beside the readers and in
 * protobuf-wire.ts. What is written here equals the API server's bytes where
 * Go writes empty fields too.
 *
 * Source: k8s.io/apimachinery runtime/serializer/protobuf, util/framer,
 * meta/v1/generated.proto.
 */

import { joinBytes } from "./byte-buffer.ts";
import { type Codec, MalformedError, type Shape } from "./codec.ts";
import { itemKind } from "./item-kind.ts";
import { ProtobufListReader } from "./protobuf-list-reader.ts";
import { ProtobufWatchReader } from "./protobuf-watch-reader.ts";
import {
  ENVELOPE_END,
  envelope,
  envelopeStart,
  fieldsOf,
  lead,
  listMeta,
  message,
  text,
  varintSize,
} from "./protobuf-wire.ts";
import { statusEnvelope } from "./status.ts";

/** Lists, watches and single objects in protobuf, plain or PartialObjectMetadata. */
export const protobufCodec: Codec = {
  contentType: "application/vnd.kubernetes.protobuf",
  watchContentType: "application/vnd.kubernetes.protobuf;stream=watch",

  listReader: () => new ProtobufListReader(),
  watchReader: (shape) => new ProtobufWatchReader(shape),

  listStart,
  listItemLead: (item) => lead(2, item.length),
  listEnd: () => ENVELOPE_END,

  event: (shape, type, item) => watchFrame(type, objectEnvelope(shape, item)),
  bookmark: (shape, resourceVersion, isInitialEventsEnd) =>
    watchFrame("BOOKMARK", objectEnvelope(shape, bookmarkObject(resourceVersion, isInitialEventsEnd))),
  errorEvent: (status) => watchFrame("ERROR", statusEnvelope(status)),
  single: objectEnvelope,
  withResourceVersion,
};

/** The length of the whole list stands before its first byte, so it is the sum of all items with their tags. */
function listStart(shape: Shape, resourceVersion: string, itemSizes: Iterable<number>): Uint8Array {
  const metadata = message(1, listMeta(resourceVersion));
  let size = metadata.length;
  for (const itemSize of itemSizes) size += 1 + varintSize(itemSize) + itemSize;
  return joinBytes([envelopeStart(shape.apiVersion, shape.listKind, size), metadata]);
}

function objectEnvelope(shape: Shape, item: Uint8Array): Uint8Array {
  return envelope(shape.apiVersion, itemKind(shape), [item]);
}

function bookmarkObject(resourceVersion: string, isInitialEventsEnd: boolean): Uint8Array {
  const annotation = message(12, [text(1, "k8s.io/initial-events-end"), text(2, "true")]);
  return message(1, [text(6, resourceVersion), ...(isInitialEventsEnd ? [annotation] : [])]);
}

function watchFrame(type: string, object: Uint8Array): Uint8Array {
  const event = [text(1, type), message(2, [message(1, [object])])];
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, event[0]!.length + event[1]!.length);
  return joinBytes([length, ...event]);
}

/** Field 6 of field 1 gets the new text; the length of field 1 follows. */
function withResourceVersion(item: Uint8Array, resourceVersion: string): Uint8Array {
  for (const metadata of fieldsOf(item)) {
    if (metadata.number !== 1 || metadata.wireType !== 2) continue;
    const fields = [...fieldsOf(item, metadata.start, metadata.end)];
    const present = fields.findLast(({ number, wireType }) => number === 6 && wireType === 2);
    // Missing: before the first field behind it, where Go would write it.
    const from = present?.at ?? fields.find(({ number }) => number > 6)?.at ?? metadata.end;
    const content = [
      item.subarray(metadata.start, from),
      text(6, resourceVersion),
      item.subarray(present?.end ?? from, metadata.end),
    ];
    return joinBytes([item.subarray(0, metadata.at), message(1, content), item.subarray(metadata.end)]);
  }
  throw new MalformedError("Cannot write object: it has no metadata");
}
