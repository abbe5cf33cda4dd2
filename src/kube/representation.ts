/**
 * Which form of an object a client asked for.
 *
 * The Accept header is reduced to an ordered list of representations that can
 * be kept, and to a canonical key; two clients that would get the same bytes
 * get the same key.
 *
 * CBOR and YAML are left out of what goes upstream: the first is not offered
 * by default clients, the second has no streaming form; but whoever takes YAML
 * can read JSON, which is YAML. Table exists in JSON only.
 *
 * Source: apiserver endpoints/handlers/negotiation; meta.k8s.io conversion by
 * `;as=KIND;v=VERSION;g=meta.k8s.io`.
 */

import { Remembered } from "../base/remembered.ts";
import type { Codec } from "./codec.ts";
import { jsonCodec } from "./json-codec.ts";
import { protobufCodec } from "./protobuf-codec.ts";

/** One acceptable form. */
export interface Representation {
  readonly format: "json" | "protobuf";
  /** Plain objects, a Table, or metadata only. */
  readonly as: "object" | "Table" | "PartialObjectMetadata";
  /** meta.k8s.io version of `as`; "" for plain objects. */
  readonly asVersion: string;
}

/** Kubernetes' protobuf, as a Content-Type. */
export const PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf";
const MEDIA_TYPES = { json: "application/json", protobuf: PROTOBUF_TYPE } as const;
const YAML = "application/yaml";
const CBOR = "application/cbor";
const PLAIN_JSON: Representation = { format: "json", as: "object", asVersion: "" };

/** One clause of an Accept header. */
interface Clause {
  readonly mediaType: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly quality: number;
}

/**
 * What the client accepts, best first: by quality, then wildcards behind
 * named types, then in the header's order, as the API server has it.
 *
 * @param accept missing or empty means anything, which is JSON.
 * @returns empty when nothing of it can be served (406).
 */
export function acceptedRepresentations(accept: string | undefined): readonly Representation[] {
  if (accept === undefined || accept.trim() === "") return [PLAIN_JSON];
  const found = new Map<string, Representation>();
  for (const clause of clausesOf(accept)) {
    const representation = representationOf(clause);
    if (representation !== undefined && !found.has(keyOfOne(representation)))
      found.set(keyOfOne(representation), representation);
  }
  return [...found.values()];
}

/** Whether YAML is what the client wants before anything else. */
export function prefersYaml(accept: string | undefined): boolean {
  return accept !== undefined && yamlFirst.of(accept, (text) => clausesOf(text)[0]?.mediaType === YAML);
}

const yamlFirst = new Remembered<boolean>(64, 1_024);

/**
 * The forms in which an object's recorded answer can be read by this client, best first.
 *
 * @returns representations as `representationKey` writes one of them, "yaml" or "cbor".
 */
export function readableForms(accept: string | undefined): readonly string[] {
  if (accept === undefined || accept.trim() === "") return ["json"];
  const forms = clausesOf(accept).flatMap((clause) => {
    const own = clause.mediaType === YAML ? ["yaml"] : clause.mediaType === CBOR ? ["cbor"] : [];
    const representation = representationOf(clause);
    return representation === undefined ? own : [...own, keyOfOne(representation)];
  });
  return [...new Set(forms)];
}

/** The forms in which discovery, OpenAPI and the like can be read: media types with their parameters, in one spelling. */
export function readableDocuments(accept: string | undefined): readonly string[] {
  if (accept === undefined || accept.trim() === "") return [MEDIA_TYPES.json];
  const isAny = ({ mediaType: type }: Clause) => type === "*/*" || type === "application/*";
  return [...new Set(clausesOf(accept).map((clause) => (isAny(clause) ? MEDIA_TYPES.json : documentOf(clause))))];
}

/** The form of a document by its Content-Type, as `readableDocuments` spells it. */
export function documentForm(contentType: string): string {
  return documentOf(clauseOf(contentType));
}

/** kube-openapi answers what was asked for with "@" with a dot. */
function documentOf({ mediaType: type, parameters }: Clause): string {
  const named = [...parameters].filter(([name]) => name === "as" || name === "g" || name === "v");
  return [type.replace("@", "."), ...named.map(([name, value]) => `${name}=${value.toLowerCase()}`).sort()].join(";");
}

/** What is acceptable at all, best first. */
function clausesOf(accept: string): readonly Clause[] {
  const clauses = accept
    .split(",")
    .map(clauseOf)
    .filter(({ quality }) => quality > 0);
  return clauses.sort((a, b) => b.quality - a.quality || wildcards(a) - wildcards(b));
}

function clauseOf(text: string): Clause {
  const [mediaType = "", ...rest] = text.split(";").map((part) => part.trim());
  const parameters = new Map<string, string>();
  for (const part of rest) {
    const equals = part.indexOf("=");
    if (equals > 0)
      parameters.set(
        part.slice(0, equals).trim().toLowerCase(),
        part
          .slice(equals + 1)
          .trim()
          .replace(/^"(.*)"$/, "$1"),
      );
  }
  const quality = Number(parameters.get("q") ?? "1");
  return { mediaType: mediaType.toLowerCase(), parameters, quality: Number.isNaN(quality) ? 0 : quality };
}

function wildcards({ mediaType }: Clause): number {
  return mediaType === "*/*" ? 2 : mediaType.endsWith("/*") ? 1 : 0;
}

function representationOf({ mediaType, parameters }: Clause): Representation | undefined {
  const format =
    mediaType === MEDIA_TYPES.protobuf
      ? "protobuf"
      : mediaType === MEDIA_TYPES.json || mediaType === "*/*" || mediaType === "application/*" || mediaType === YAML
        ? "json"
        : undefined;
  if (format === undefined) return undefined;
  const as = parameters.get("as");
  if (as === undefined) return format === "json" ? PLAIN_JSON : { format, as: "object", asVersion: "" };
  const asVersion = parameters.get("v") ?? "";
  if (parameters.get("g") !== "meta.k8s.io" || (asVersion !== "v1" && asVersion !== "v1beta1")) return undefined;
  if (as === "Table") return format === "json" ? { format, as, asVersion } : undefined;
  if (as === "PartialObjectMetadata" || as === "PartialObjectMetadataList")
    return { format, as: "PartialObjectMetadata", asVersion };
  return undefined;
}

/**
 * The canonical text of a list: "json", "protobuf,json", "json;Table;v1,json".
 *
 * It ends with plain JSON where that occurs: every API server can write that,
 * so what stands behind it makes no difference to the bytes.
 */
export function representationKey(list: readonly Representation[]): string {
  const plain = list.findIndex(({ format, as }) => format === "json" && as === "object");
  return (plain < 0 ? list : list.slice(0, plain + 1)).map(keyOfOne).join(",");
}

function keyOfOne({ format, as, asVersion }: Representation): string {
  return as === "object" ? format : `${format};${as};${asVersion}`;
}

/**
 * The list that a key stands for.
 *
 * @throws {RangeError} on text that `representationKey` does not make.
 */
export function representationsOfKey(key: string): readonly Representation[] {
  if (key === "") return [];
  return key.split(",").map((one) => {
    const [format, as = "object", asVersion = ""] = one.split(";");
    const isKnown =
      (format === "json" || format === "protobuf") &&
      (as === "object" || as === "Table" || as === "PartialObjectMetadata");
    if (!isKnown) throw new RangeError(`Cannot read representation "${key}": no such form`);
    return { format, as, asVersion };
  });
}

/** The Accept header to send upstream for that list; metadata alone has another name for lists than for objects. */
export function upstreamAccept(list: readonly Representation[], verb: "list" | "watch" | "get"): string {
  return list
    .map(({ format, as, asVersion }) => {
      if (as === "object") return MEDIA_TYPES[format];
      const kind = as === "PartialObjectMetadata" && verb === "list" ? "PartialObjectMetadataList" : as;
      return `${MEDIA_TYPES[format]};as=${kind};g=meta.k8s.io;v=${asVersion}`;
    })
    .join(",");
}

/**
 * The codec of an answer, by its Content-Type.
 *
 * Tables and PartialObjectMetadata need none of their own: what a list is,
 * its envelope says, and the shape read from it carries that on.
 *
 * @returns undefined for a type that is not kept.
 */
export function codecFor(contentType: string): Codec | undefined {
  const type = mediaType(contentType);
  if (type === MEDIA_TYPES.json) return jsonCodec;
  return type === MEDIA_TYPES.protobuf ? protobufCodec : undefined;
}

/** A Content-Type without its parameters, in lower case: "application/json" for "application/json; charset=utf-8". */
export function mediaType(contentType: string): string {
  return mediaTypes.of(contentType, readMediaType);
}

const mediaTypes = new Remembered<string>(64, 256);

function readMediaType(contentType: string): string {
  return contentType.split(";", 1)[0]!.trim().toLowerCase();
}
