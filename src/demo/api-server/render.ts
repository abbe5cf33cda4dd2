/**
 * Stored objects to the bytes of an answer: lists, single objects and watch
 * frames, as JSON or protobuf, plain, as Table or as metadata only.
 *
 * Built-in objects are stored without kind and apiVersion: a JSON list carries
 * them so, and everything else gets them put in front. Custom objects are
 * stored with both among their sorted keys.
 */

import { encode, encodeList, envelope, watchFrame } from "./protobuf.ts";
import { JSON_TYPE, PROTOBUF_TYPE, type Form } from "./negotiate.ts";
import { apiVersionOf, type Resource } from "./resources.ts";
import {
  child,
  message,
  normalise,
  sortKeys,
  textAt,
  zeroObject,
  type Json,
  type JsonObject,
  type Message,
} from "./schema.ts";
import { columnsOf, rowOf } from "./table.ts";

/** `includeObject` of a Table request. */
export type IncludeObject = "None" | "Metadata" | "Object";

/** Writes objects of one resource in one form. A renderer serves one answer: a Table watch prints its columns once. */
export interface Renderer {
  readonly contentType: string;
  readonly watchContentType: string;
  single(object: JsonObject): Buffer;
  list(objects: readonly JsonObject[], metadata: JsonObject): Buffer;
  event(type: string, object: JsonObject): Buffer;
  bookmark(resourceVersion: string, annotations?: JsonObject): Buffer;
  errorEvent(status: JsonObject): Buffer;
}

/** The renderer for a resource and a negotiated form. */
export function renderer(resource: Resource, form: Form, includeObject: IncludeObject = "Metadata"): Renderer {
  if (form.format === "protobuf") return protobufRenderer(resource, form);
  if (form.as === "Table") return tableRenderer(resource, form, includeObject);
  return form.as === "PartialObjectMetadata" ? partialRenderer(resource, form) : plainRenderer(resource);
}

const itemTexts = new WeakMap<JsonObject, string>();

/** JSON as Go's encoder prints it: <, > and & escaped. */
export function goJson(value: Json): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function itemText(object: JsonObject): string {
  let text = itemTexts.get(object);
  if (text === undefined) itemTexts.set(object, (text = goJson(object)));
  return text;
}

const itemMessages = new WeakMap<JsonObject, Buffer>();

function itemBytes(object: JsonObject, of: Message): Buffer {
  let bytes = itemMessages.get(object);
  if (bytes === undefined) itemMessages.set(object, (bytes = encode(object, of)));
  return bytes;
}

/** The text with kind and apiVersion in front, where the stored object has none. */
function typedText(resource: Resource, object: JsonObject): string {
  if (resource.isCustom) return itemText(object);
  const text = itemText(object);
  const rest = text === "{}" ? "}" : `,${text.slice(1)}`;
  return `{"kind":"${resource.kind}","apiVersion":"${apiVersionOf(resource)}"${rest}`;
}

const jsonEvent = (type: string, object: string) => Buffer.from(`{"type":"${type}","object":${object}}\n`);
const jsonErrorEvent = (status: JsonObject) => jsonEvent("ERROR", goJson(status));

/** List metadata in Go's order; `continue` and remainingItemCount only when there are more. */
const listMeta = (metadata: JsonObject) => normalise(metadata, message("meta.ListMeta"));

function plainRenderer(resource: Resource): Renderer {
  const typed = (object: JsonObject) => typedText(resource, object);
  return {
    contentType: JSON_TYPE,
    watchContentType: JSON_TYPE,
    single: (object) => Buffer.from(`${typed(object)}\n`),
    list: (objects, metadata) => {
      const apiVersion = `"apiVersion":"${apiVersionOf(resource)}"`;
      const kind = `"kind":"${resource.listKind}"`;
      const items = `"items":[${objects.map(itemText).join(",")}]`;
      if (resource.isCustom)
        return Buffer.from(`{${apiVersion},${items},${kind},"metadata":${goJson(customListMeta(metadata))}}\n`);
      return Buffer.from(`{${kind},${apiVersion},"metadata":${goJson(listMeta(metadata))},${items}}\n`);
    },
    event: (type, object) => jsonEvent(type, typed(object)),
    bookmark: (resourceVersion, annotations) =>
      jsonEvent("BOOKMARK", typed(bookmarkObject(resource, resourceVersion, annotations))),
    errorEvent: jsonErrorEvent,
  };
}

/** A custom resource's list is an unstructured map: sorted, and with `continue` even when empty. */
const customListMeta = (metadata: JsonObject): JsonObject => ({
  continue: metadata["continue"] ?? "",
  ...(metadata["remainingItemCount"] === undefined ? {} : { remainingItemCount: metadata["remainingItemCount"] }),
  resourceVersion: metadata["resourceVersion"] ?? "",
});

function bookmarkObject(resource: Resource, resourceVersion: string, annotations?: JsonObject): JsonObject {
  const metadata: JsonObject = { resourceVersion, ...(annotations ? { annotations } : {}) };
  if (resource.isCustom)
    return sortKeys({ apiVersion: apiVersionOf(resource), kind: resource.kind, metadata }) as JsonObject;
  return { ...zeroObject(resource.message), metadata };
}

const META_V1 = (version: string) => `meta.k8s.io/${version}`;

function partialRenderer(resource: Resource, { asVersion }: Form): Renderer {
  const apiVersion = META_V1(asVersion);
  const partial = (metadata: Json) => goJson({ kind: "PartialObjectMetadata", apiVersion, metadata });
  const metadataOf = (object: JsonObject) => normalise(child(object, "metadata"), message("meta.ObjectMeta"));
  return {
    contentType: JSON_TYPE,
    watchContentType: JSON_TYPE,
    single: (object) => Buffer.from(`${partial(metadataOf(object))}\n`),
    list: (objects, metadata) =>
      Buffer.from(
        `${goJson({ kind: "PartialObjectMetadataList", apiVersion, metadata: listMeta(metadata), items: objects.map((object) => ({ kind: "PartialObjectMetadata", apiVersion, metadata: metadataOf(object) })) })}\n`,
      ),
    event: (type, object) => jsonEvent(type, partial(metadataOf(object))),
    bookmark: (resourceVersion, annotations) =>
      jsonEvent("BOOKMARK", partial(metadataOf(bookmarkObject(resource, resourceVersion, annotations)))),
    errorEvent: jsonErrorEvent,
  };
}

function tableRenderer(resource: Resource, { asVersion }: Form, includeObject: IncludeObject): Renderer {
  let hasPrintedColumns = false;
  const embedded = (object: JsonObject): Json => {
    if (includeObject === "None") return null;
    if (includeObject === "Object") return JSON.parse(typedText(resource, object)) as Json;
    return {
      kind: "PartialObjectMetadata",
      apiVersion: META_V1(asVersion),
      metadata: normalise(child(object, "metadata"), message("meta.ObjectMeta")),
    };
  };
  const table = (metadata: Json, objects: readonly JsonObject[], withColumns: boolean) =>
    goJson({
      kind: "Table",
      apiVersion: META_V1(asVersion),
      metadata,
      columnDefinitions: withColumns ? columnsOf(resource) : null,
      rows: objects.map((object) => ({ cells: rowOf(resource, object), object: embedded(object) })),
    });
  const eventTable = (object: JsonObject) => {
    const text = table({ resourceVersion: textAt(object, "metadata.resourceVersion") }, [object], !hasPrintedColumns);
    hasPrintedColumns = true;
    return text;
  };
  return {
    contentType: JSON_TYPE,
    watchContentType: JSON_TYPE,
    single: (object) =>
      Buffer.from(`${table({ resourceVersion: textAt(object, "metadata.resourceVersion") }, [object], true)}\n`),
    list: (objects, metadata) => Buffer.from(`${table(listMeta(metadata), objects, true)}\n`),
    event: (type, object) => jsonEvent(type, eventTable(object)),
    bookmark: (resourceVersion, annotations) =>
      jsonEvent("BOOKMARK", eventTable(bookmarkObject(resource, resourceVersion, annotations))),
    errorEvent: jsonErrorEvent,
  };
}

function protobufRenderer(resource: Resource, form: Form): Renderer {
  const isPartial = form.as === "PartialObjectMetadata";
  const of = isPartial ? message("meta.PartialObjectMetadata")! : resource.message!;
  const apiVersion = isPartial ? META_V1(form.asVersion) : apiVersionOf(resource);
  const kind = isPartial ? "PartialObjectMetadata" : resource.kind;
  const encoded = (object: JsonObject) => (isPartial ? encode(object, of) : itemBytes(object, of));
  const wrap = (object: JsonObject) => envelope(apiVersion, kind, encoded(object));
  return {
    contentType: PROTOBUF_TYPE,
    watchContentType: `${PROTOBUF_TYPE};stream=watch`,
    single: wrap,
    list: (objects, metadata) => envelope(apiVersion, `${kind}List`, encodeList(metadata, objects.map(encoded))),
    event: (type, object) => watchFrame(type, wrap(object)),
    bookmark: (resourceVersion, annotations) =>
      watchFrame("BOOKMARK", wrap(bookmarkObject(resource, resourceVersion, annotations))),
    errorEvent: (status) => watchFrame("ERROR", protobufStatus(status)),
  };
}

/** A Status in its envelope. */
export function protobufStatus(status: JsonObject): Buffer {
  return envelope("v1", "Status", encode(status, message("meta.Status")!));
}
