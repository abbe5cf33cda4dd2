/**
 * A Node object in JSON, read and changed where it says where it is.
 *
 *   metadata.annotations[...]
 *   status.addresses[]{type, address}
 *   status.daemonEndpoints.kubeletEndpoint.Port
 *
 * Everything else keeps its bytes and its place, in the API server's layout or
 * indented. What names a node comes as itself, as a watch's event, as a row of
 * a Table, or as metadata alone; a row's cells show its first addresses.
 */

import { type Json, parseExact, rewritten } from "./exact-json.ts";
import type { NodeAddress } from "./place.ts";
import {
  PLACE_ANNOTATION,
  readAnnotation,
  shownAs,
  trueOf,
  type NodeEdit,
  type SeenNode,
  type Shown,
  type Whereabouts,
} from "./placed-node.ts";

/** A JSON object, not to be written to. */
export type JsonFields = { readonly [key: string]: Json };

/** Who knows what a node is restored to. */
export interface Lens {
  /** The one node that is looked at. */
  readonly name: string;
  /** What is shown of it as it comes; undefined: it is as its kubelet wrote it. */
  shownOf(node: SeenNode): Shown | undefined;
  /** Metadata alone says that it is shown. */
  heardOf(): void;
  /** What was shown last; for rows that bring no object. */
  lastShown(): Shown | undefined;
}

/** Bytes of JSON that hold one node, as its kubelet wrote them; the same bytes where nothing was shown. @throws {MalformedError} */
export function restoredJson(bytes: Uint8Array, lens: Lens): Uint8Array {
  const before = parseExact(bytes);
  const after = restored(before, lens);
  return after === before ? bytes : rewritten(bytes, before, after);
}

/** Bytes of a whole node with the edit in it. @returns undefined when they are no node of that name. @throws {MalformedError} */
export function editedJson(
  bytes: Uint8Array,
  name: string,
  edit: (node: SeenNode) => NodeEdit,
): Uint8Array | undefined {
  const before = parseExact(bytes);
  if (!isFields(before) || before["kind"] !== "Node" || nameOf(before) !== name) return undefined;
  const changes = edit(seenIn(before));
  return changes.where === undefined && changes.annotation === undefined
    ? bytes
    : rewritten(bytes, before, edited(before, changes));
}

/** Whether the value is an object and no list. */
export function isFields(value: Json | undefined): value is JsonFields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The object there, or an empty one. */
export function fieldsIn(value: Json | undefined): JsonFields {
  return isFields(value) ? value : {};
}

/** Where a Node object says that it is. */
export function whereIn(status: Json | undefined): Whereabouts {
  const { addresses, daemonEndpoints } = fieldsIn(status);
  const port = fieldsIn(fieldsIn(daemonEndpoints)["kubeletEndpoint"])["Port"];
  const list = Array.isArray(addresses) ? (addresses as readonly Json[]) : [];
  return { addresses: list.map(addressIn), port: typeof port === "number" ? port : 0 };
}

function restored(value: Json, lens: Lens): Json {
  if (!isFields(value)) return value;
  if (typeof value["type"] === "string" && isFields(value["object"]))
    return withField(value, "object", restored(value["object"], lens));
  if (Array.isArray(value["cells"])) return restoredRow(value, lens);
  if (value["kind"] === "Table" && Array.isArray(value["rows"])) {
    const rows = value["rows"] as readonly Json[];
    const after = rows.map((row) => restored(row, lens));
    return after.every((row, at) => row === rows[at]) ? value : { ...value, rows: after };
  }
  return restoredObject(value, lens);
}

function restoredObject(object: JsonFields, lens: Lens): JsonFields {
  if (nameOf(object) !== lens.name) return object;
  const node = seenIn(object);
  if (!isFields(object["status"])) {
    // Metadata alone; an annotation that cannot be read is nobody's to take away.
    if (node.annotation === undefined || readAnnotation(node.annotation) === undefined) return object;
    lens.heardOf();
    return edited(object, { annotation: null });
  }
  const shown = lens.shownOf(node);
  if (shown === undefined) return object;
  return edited(object, {
    where: trueOf(node.now, shown),
    annotation: node.annotation === undefined ? undefined : null,
  });
}

function restoredRow(row: JsonFields, lens: Lens): JsonFields {
  const cells = row["cells"] as readonly Json[];
  const object = row["object"];
  if (isFields(object) ? nameOf(object) !== lens.name : cells[0] !== lens.name) return row;
  const annotation = isFields(object) ? seenIn(object).annotation : undefined;
  const shown = annotation === undefined ? lens.lastShown() : readAnnotation(annotation);
  const after = isFields(object) ? withField(row, "object", restoredObject(object, lens)) : row;
  if (shown === undefined) return after;
  const changed = restoredCells(cells, shown);
  return changed === cells ? after : { ...after, cells: changed };
}

/** The columns Internal-IP and External-IP, in this order, hold the first address of their type. */
function restoredCells(cells: readonly Json[], { truth, place }: Shown): readonly Json[] {
  const shown = shownAs(truth, place);
  const after = [...cells];
  let from = 1;
  for (const type of ["InternalIP", "ExternalIP"]) {
    const at = after.indexOf(firstOf(shown.addresses, type), from);
    if (at < 0) continue;
    after[at] = firstOf(truth.addresses, type);
    from = at + 1;
  }
  return after.every((cell, at) => cell === cells[at]) ? cells : after;
}

function firstOf(addresses: readonly NodeAddress[], wanted: string): string {
  return addresses.find(({ type }) => type === wanted)?.address ?? "<none>";
}

function seenIn(object: JsonFields): SeenNode {
  const metadata = fieldsIn(object["metadata"]);
  const annotations = fieldsIn(metadata["annotations"]);
  const annotation = annotations[PLACE_ANNOTATION];
  return {
    uid: textIn(metadata["uid"]),
    resourceVersion: textIn(metadata["resourceVersion"]),
    now: whereIn(object["status"]),
    annotation: typeof annotation === "string" ? annotation : undefined,
    hasAnnotations: Object.keys(annotations).length > 0,
  };
}

function edited(object: JsonFields, { where, annotation }: NodeEdit): JsonFields {
  const metadata = fieldsIn(object["metadata"]);
  const after = annotation === undefined ? object : { ...object, metadata: annotated(metadata, annotation) };
  return where === undefined ? after : { ...after, status: placedStatus(fieldsIn(object["status"]), where) };
}

function annotated(metadata: JsonFields, annotation: string | null): JsonFields {
  const { [PLACE_ANNOTATION]: _, ...others } = fieldsIn(metadata["annotations"]);
  if (annotation !== null) return { ...metadata, annotations: { ...others, [PLACE_ANNOTATION]: annotation } };
  if (Object.keys(others).length > 0) return { ...metadata, annotations: others };
  const { annotations: _none, ...rest } = metadata;
  return rest;
}

function placedStatus(status: JsonFields, { addresses, port }: Whereabouts): JsonFields {
  const before = Array.isArray(status["addresses"]) ? (status["addresses"] as readonly Json[]) : [];
  const endpoints = fieldsIn(status["daemonEndpoints"]);
  const after =
    port === whereIn(status).port
      ? status
      : {
          ...status,
          daemonEndpoints: { ...endpoints, kubeletEndpoint: { ...fieldsIn(endpoints["kubeletEndpoint"]), Port: port } },
        };
  return {
    ...after,
    // An entry that stands there already keeps what else is in it.
    addresses: addresses.map(
      ({ type, address }) =>
        before.find((one) => fieldsIn(one)["type"] === type && fieldsIn(one)["address"] === address) ?? {
          type,
          address,
        },
    ),
  };
}

function withField(fields: JsonFields, key: string, value: Json): JsonFields {
  return fields[key] === value ? fields : { ...fields, [key]: value };
}

function nameOf(object: JsonFields): Json | undefined {
  return fieldsIn(object["metadata"])["name"];
}

function addressIn(entry: Json): NodeAddress {
  const { type, address } = fieldsIn(entry);
  return { type: textIn(type), address: textIn(address) };
}

function textIn(value: Json | undefined): string {
  return typeof value === "string" ? value : "";
}
