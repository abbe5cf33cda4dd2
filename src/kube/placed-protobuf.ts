/**
 * A Node object in protobuf, read and changed where it says where it is.
 *
 *   Node, PartialObjectMetadata   metadata = 1; Node: status = 3
 *   ObjectMeta                    name = 1, uid = 5, resourceVersion = 6, annotations = 12 (entries { key = 1, value = 2 })
 *   NodeStatus                    addresses = 5 (type = 1, address = 2), daemonEndpoints = 6
 *   NodeDaemonEndpoints           kubeletEndpoint = 1 { Port = 1 }
 *   a list's items = 2; a watch's event { type = 1, object = 2 { raw = 1 } }
 *
 * Fields are cut out and put in where they stand; all others keep their bytes,
 * also those that are known to nobody here.
 *
 * Source: k8s.io/api/core/v1 generated.proto, apimachinery meta/v1 generated.proto.
 */

import { joinBytes } from "./byte-buffer.ts";
import { MalformedError } from "./codec.ts";
import type { NodeAddress } from "./place.ts";
import type { Lens } from "./placed-json.ts";
import {
  PLACE_ANNOTATION,
  readAnnotation,
  trueOf,
  type NodeEdit,
  type SeenNode,
  type Whereabouts,
} from "./placed-node.ts";
import { type Field, fieldsOf, fieldText, MAGIC, message, openEnvelope, text, varint } from "./protobuf-wire.ts";

/** An answer's body in its envelope, a node, a list of nodes or metadata alone, as its kubelet wrote it. @throws {MalformedError} */
export function restoredProtobuf(bytes: Uint8Array, lens: Lens): Uint8Array {
  const { kind } = openEnvelope(bytes, 0, bytes.length);
  const restore = (content: Uint8Array) => restoredNode(content, lens, kind);
  if (!kind.endsWith("List")) return inEnvelope(bytes, restore);
  return inEnvelope(bytes, (list) =>
    rebuilt(list, ({ number }, content) => (number === 2 ? restoredNode(content, lens, kind.slice(0, -4)) : content)),
  );
}

/** One event of a watch, without its length. @throws {MalformedError} */
export function restoredEvent(event: Uint8Array, lens: Lens): Uint8Array {
  return rebuilt(event, (field, extension) =>
    field.number !== 2
      ? extension
      : rebuilt(extension, ({ number }, raw) =>
          number !== 1
            ? raw
            : inEnvelope(raw, (node) => restoredNode(node, lens, openEnvelope(raw, 0, raw.length).kind)),
        ),
  );
}

/** Bytes of a whole node in its envelope with the edit in it. @returns undefined when they are no node of that name. @throws {MalformedError} */
export function editedProtobuf(
  bytes: Uint8Array,
  name: string,
  edit: (node: SeenNode) => NodeEdit,
): Uint8Array | undefined {
  const { kind, start, end } = openEnvelope(bytes, 0, bytes.length);
  const node = seenIn(bytes.subarray(start, end));
  if (kind !== "Node" || node.name !== name) return undefined;
  return inEnvelope(bytes, (content) => edited(content, edit(node)));
}

function restoredNode(content: Uint8Array, lens: Lens, kind: string): Uint8Array {
  if (kind !== "Node" && kind !== "PartialObjectMetadata") return content;
  const node = seenIn(content);
  if (node.name !== lens.name) return content;
  if (kind !== "Node") {
    if (node.annotation === undefined || readAnnotation(node.annotation) === undefined) return content;
    lens.heardOf();
    return edited(content, { annotation: null });
  }
  const shown = lens.shownOf(node);
  if (shown === undefined) return content;
  return edited(content, {
    where: trueOf(node.now, shown),
    annotation: node.annotation === undefined ? undefined : null,
  });
}

/**
 * The message with its fields of bytes as they are answered.
 *
 * @param change the same content leaves the field's bytes alone; undefined takes it away; others are put there in its place.
 */
function rebuilt(
  bytes: Uint8Array,
  change: (field: Field, content: Uint8Array) => Uint8Array | readonly Uint8Array[] | undefined,
  from = 0,
): Uint8Array {
  const pieces: Uint8Array[] = [bytes.subarray(0, from)];
  let isChanged = false;
  for (const field of fieldsOf(bytes, from)) {
    const content = bytes.subarray(field.start, field.end);
    const after = field.wireType === 2 ? change(field, content) : content;
    if (after === content) pieces.push(bytes.subarray(field.at, field.end));
    else {
      isChanged = true;
      if (after instanceof Uint8Array) pieces.push(message(field.number, [after]));
      else pieces.push(...((after ?? []) as readonly Uint8Array[]));
    }
  }
  return isChanged ? joinBytes(pieces) : bytes;
}

/** Unknown.raw = 2, behind the magic bytes. */
function inEnvelope(bytes: Uint8Array, change: (content: Uint8Array) => Uint8Array): Uint8Array {
  if (!MAGIC.every((byte, at) => bytes[at] === byte)) throw new MalformedError("Cannot read protobuf: no k8s envelope");
  return rebuilt(bytes, ({ number }, content) => (number === 2 ? change(content) : content), MAGIC.length);
}

/** A node's own words, and its name. */
function seenIn(content: Uint8Array): SeenNode & { readonly name: string } {
  const texts = new Map<number, string>();
  let annotation: string | undefined;
  let hasAnnotations = false;
  let now: Whereabouts = { addresses: [], port: 0 };
  for (const field of messagesOf(content)) {
    const inner = content.subarray(field.start, field.end);
    if (field.number === 3) now = whereIn(inner);
    if (field.number !== 1) continue;
    for (const one of messagesOf(inner)) {
      if (one.number === 1 || one.number === 5 || one.number === 6) texts.set(one.number, fieldText(inner, one));
      else if (one.number === 12) {
        hasAnnotations = true;
        annotation = ours(inner.subarray(one.start, one.end)) ?? annotation;
      }
    }
  }
  const said = (number: number) => texts.get(number) ?? "";
  return { name: said(1), uid: said(5), resourceVersion: said(6), now, annotation, hasAnnotations };
}

function whereIn(status: Uint8Array): Whereabouts {
  const addresses: NodeAddress[] = [];
  let port = 0;
  for (const field of messagesOf(status)) {
    const inner = status.subarray(field.start, field.end);
    if (field.number === 5) addresses.push(addressIn(inner));
    else if (field.number === 6) port = portIn(inner);
  }
  return { addresses, port };
}

function portIn(endpoints: Uint8Array): number {
  let port = 0;
  for (const field of messagesOf(endpoints)) {
    if (field.number !== 1) continue;
    for (const one of fieldsOf(endpoints, field.start, field.end))
      if (one.number === 1 && one.wireType === 0) port = one.value;
  }
  return port;
}

function addressIn(entry: Uint8Array): NodeAddress {
  const [type, address] = pairIn(entry);
  return { type, address };
}

/** The annotation's text, if the entry is that one. */
function ours(entry: Uint8Array): string | undefined {
  const [key, value] = pairIn(entry);
  return key === PLACE_ANNOTATION ? value : undefined;
}

function pairIn(entry: Uint8Array): [string, string] {
  const texts = ["", "", ""];
  for (const field of messagesOf(entry)) if (field.number <= 2) texts[field.number] = fieldText(entry, field);
  return [texts[1]!, texts[2]!];
}

function edited(content: Uint8Array, { where, annotation }: NodeEdit): Uint8Array {
  const had = { metadata: false, status: false };
  const after = rebuilt(content, ({ number }, inner) => {
    if (number === 1 && annotation !== undefined) {
      had.metadata = true;
      return annotated(inner, annotation);
    }
    if (number === 3 && where !== undefined) {
      had.status = true;
      return placedStatus(inner, where);
    }
    return inner;
  });
  const missing: Uint8Array[] = [];
  if (where !== undefined && !had.status) missing.push(message(3, [placedStatus(new Uint8Array(0), where)]));
  return missing.length === 0 ? after : joinBytes([after, ...missing]);
}

function annotated(metadata: Uint8Array, annotation: string | null): Uint8Array {
  const after = rebuilt(metadata, ({ number }, entry) =>
    number === 12 && ours(entry) !== undefined ? undefined : entry,
  );
  return annotation === null
    ? after
    : joinBytes([after, message(12, [text(1, PLACE_ANNOTATION), text(2, annotation)])]);
}

/** The addresses stand where the first one stood; one that is there already keeps its bytes. */
function placedStatus(status: Uint8Array, { addresses, port }: Whereabouts): Uint8Array {
  const known = new Map<string, Uint8Array>();
  for (const field of messagesOf(status)) {
    if (field.number !== 5) continue;
    const { type, address } = addressIn(status.subarray(field.start, field.end));
    known.set(`${type} ${address}`, status.subarray(field.at, field.end));
  }
  const list = addresses.map(
    ({ type, address }) => known.get(`${type} ${address}`) ?? message(5, [text(1, type), text(2, address)]),
  );
  let isListed = false;
  let hasPort = false;
  const after = rebuilt(status, ({ number }, inner) => {
    if (number === 6) {
      hasPort = true;
      return portIn(inner) === port ? inner : withPort(inner, port);
    }
    if (number !== 5) return inner;
    if (isListed) return undefined;
    isListed = true;
    return list;
  });
  const missing = [
    ...(isListed ? [] : list),
    ...(hasPort || port === 0 ? [] : [message(6, [message(1, [varint(1, port)])])]),
  ];
  return missing.length === 0 ? after : joinBytes([after, ...missing]);
}

function withPort(endpoints: Uint8Array, port: number): Uint8Array {
  const after = rebuilt(endpoints, ({ number }, endpoint) => {
    if (number !== 1) return endpoint;
    const others = [...fieldsOf(endpoint)].filter((field) => field.number !== 1);
    return joinBytes([varint(1, port), ...others.map(({ at, end }) => endpoint.subarray(at, end))]);
  });
  return after === endpoints ? joinBytes([endpoints, message(1, [varint(1, port)])]) : after;
}

function* messagesOf(bytes: Uint8Array): Generator<Field, void> {
  for (const field of fieldsOf(bytes)) if (field.wireType === 2) yield field;
}
