/**
 * The JSON wire format: plain objects, PartialObjectMetadata and Table.
 *
 * One codec serves all three, because the API server answers each with the
 * same Content-Type and may answer a wish for a Table with plain objects; the
 * shape that was read from the list says which of them it is.
 *
 * What is written here has the API server's own order of members and its
 * newline at the end. Lists of custom resources begin with apiVersion and have
 * their metadata before the items (the API server sorts it behind them), so
 * that the resourceVersion is known when the first byte is written.
 */

import { joinBytes } from "./byte-buffer.ts";
import { type Codec, MalformedError, type Shape, type StatusFields } from "./codec.ts";
import { itemKind } from "./item-kind.ts";
import { isParsed, JsonListReader, textOf } from "./json-list-reader.ts";
import { memberOf, membersOf, parseText } from "./json-scan.ts";
import { JsonWatchReader } from "./json-watch-reader.ts";
import { statusJson } from "./status.ts";

const encoder = new TextEncoder();
const COMMA_BYTES = encoder.encode(",");
const EVENT_END = encoder.encode("}\n");
const NEWLINE = encoder.encode("\n");
const ROWS_END = encoder.encode("]}");
const NOTHING = new Uint8Array(0);

/** Lists, watches and single objects in JSON; which representation is the shape's matter. */
export const jsonCodec: Codec = {
  contentType: "application/json",
  watchContentType: "application/json",

  listReader: () => new JsonListReader(),
  watchReader: (shape) => new JsonWatchReader(shape),

  listStart: (shape, resourceVersion) => encoder.encode(listStart(shape, resourceVersion)),
  listItemLead: (_item, index) => (index === 0 ? NOTHING : COMMA_BYTES),
  listEnd: () => encoder.encode("]}\n"),

  event: (shape, type, item) =>
    joinBytes([encoder.encode(`{"type":"${type}","object":`), ...objectParts(shape, item), EVENT_END]),
  bookmark: (shape, resourceVersion, isInitialEventsEnd) =>
    encoder.encode(`{"type":"BOOKMARK","object":${bookmarkObject(shape, resourceVersion, isInitialEventsEnd)}}\n`),
  errorEvent: (status: StatusFields) => encoder.encode(`{"type":"ERROR","object":${statusJson(status)}}\n`),
  single: (shape, item) => joinBytes([...objectParts(shape, item), NEWLINE]),
  withResourceVersion,
};

function listStart(shape: Shape, resourceVersion: string): string {
  if (shape.listKind === "Table") return tableStart(shape, resourceVersion);
  const kind = JSON.stringify(shape.listKind);
  const apiVersion = JSON.stringify(shape.apiVersion);
  // Lists of custom resources are maps in the API server: sorted, with an empty `continue` that typed lists leave out.
  const isMap = !shape.isBare && shape.listKind !== "PartialObjectMetadataList";
  const rest = `"metadata":{${isMap ? '"continue":"",' : ""}"resourceVersion":${JSON.stringify(resourceVersion)}},"items":[`;
  // The order of the first two tells a reader whether items are bare when there are none to look at.
  return isMap
    ? `{"apiVersion":${apiVersion},"kind":${kind},${rest}`
    : `{"kind":${kind},"apiVersion":${apiVersion},${rest}`;
}

function tableStart(shape: Shape, resourceVersion: string): string {
  return `{"kind":"Table","apiVersion":${JSON.stringify(shape.apiVersion)},"metadata":{"resourceVersion":${JSON.stringify(resourceVersion)}},"columnDefinitions":${shape.columnDefinitions ?? "null"},"rows":[`;
}

/** The object of an event or a GET, in parts around the item's own bytes. */
function objectParts(shape: Shape, item: Uint8Array): readonly Uint8Array[] {
  if (shape.listKind === "Table") return [encoder.encode(tableStart(shape, rowResourceVersion(item))), item, ROWS_END];
  if (!shape.isBare) return [item];
  return [
    encoder.encode(`{"kind":${JSON.stringify(itemKind(shape))},"apiVersion":${JSON.stringify(shape.apiVersion)},`),
    item.subarray(1),
  ];
}

function rowResourceVersion(row: Uint8Array): string {
  const parsed = parseText(row);
  const object = isParsed(parsed) ? parsed["object"] : undefined;
  const metadata = isParsed(object) ? object["metadata"] : undefined;
  return isParsed(metadata) ? textOf(metadata["resourceVersion"]) : "";
}

function bookmarkObject(shape: Shape, resourceVersion: string, isInitialEventsEnd: boolean): string {
  const annotations = isInitialEventsEnd ? { "k8s.io/initial-events-end": "true" } : undefined;
  const metadata = { resourceVersion, creationTimestamp: null, annotations };
  if (shape.listKind !== "Table")
    return JSON.stringify({ kind: itemKind(shape), apiVersion: shape.apiVersion, metadata });
  const row = { cells: [], object: { kind: "PartialObjectMetadata", apiVersion: shape.apiVersion, metadata } };
  return `${tableStart(shape, resourceVersion)}${JSON.stringify(row)}]}`;
}

/** An object has its metadata at the top; a Table's row, which has none there, in `object`. */
function withResourceVersion(item: Uint8Array, resourceVersion: string): Uint8Array {
  let metadata = memberOf(item, 0, "metadata");
  if (metadata === undefined) {
    const object = memberOf(item, 0, "object");
    if (object !== undefined) metadata = memberOf(item, object.valueStart, "metadata");
  }
  if (metadata === undefined) throw new MalformedError("Cannot write object: it has no metadata");
  const value = JSON.stringify(resourceVersion);
  const members = membersOf(item, metadata.valueStart);
  const present = members.findLast((member) => member.key === "resourceVersion");
  const [from, to, text] =
    present === undefined
      ? [metadata.valueStart + 1, metadata.valueStart + 1, `"resourceVersion":${value}${members.length > 0 ? "," : ""}`]
      : [present.valueStart, present.valueEnd, value];
  return joinBytes([item.subarray(0, from), encoder.encode(text), item.subarray(to)]);
}
