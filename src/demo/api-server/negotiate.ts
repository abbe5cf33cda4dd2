/**
 * From an Accept header to the form of the answer.
 */

import { notAcceptable } from "./failure.ts";

/** What the client gets. */
export interface Form {
  readonly format: "json" | "protobuf";
  readonly as: "object" | "Table" | "PartialObjectMetadata";
  /** meta.k8s.io version of `as`: "v1" or "v1beta1"; "" for plain objects. */
  readonly asVersion: string;
}

/** The media type of JSON. */
export const JSON_TYPE = "application/json";
/** The media type of Kubernetes' protobuf. */
export const PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf";
/** Plain objects in JSON: what nobody in particular asks for. */
export const PLAIN_JSON: Form = { format: "json", as: "object", asVersion: "" };

/** One element of an Accept header. */
export interface MediaRange {
  readonly type: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/** The elements of an Accept header, the most wanted first. */
export function mediaRanges(accept: string): MediaRange[] {
  const ranges = accept.split(",").flatMap((text) => {
    const [type = "", ...parameters] = text.split(";").map((part) => part.trim());
    if (type === "") return [];
    return [
      {
        type: type.toLowerCase(),
        parameters: Object.fromEntries(
          parameters.map((parameter) => parameter.split("=", 2).map((half) => half.trim()) as [string, string]),
        ),
      },
    ];
  });
  return ranges.sort((a, b) => Number(b.parameters["q"] ?? 1) - Number(a.parameters["q"] ?? 1));
}

/**
 * The first acceptable form.
 *
 * @param hasProtobuf whether plain objects of this kind exist as protobuf.
 * @throws {Failure} 406 when nothing fits.
 */
export function negotiate(accept: string | undefined, hasProtobuf: boolean): Form {
  if (!accept) return PLAIN_JSON;
  for (const { type, parameters } of mediaRanges(accept)) {
    const as = parameters["as"] ?? "object";
    const format =
      type === PROTOBUF_TYPE ? "protobuf" : [JSON_TYPE, "application/*", "*/*"].includes(type) ? "json" : undefined;
    if (!format) continue;
    if (as === "object" && (format === "json" || hasProtobuf)) return { format, as, asVersion: "" };
    const asVersion = parameters["v"] ?? "";
    if (parameters["g"] !== "meta.k8s.io" || !["v1", "v1beta1"].includes(asVersion)) continue;
    if (as === "Table" && format === "json") return { format, as, asVersion };
    if (as === "PartialObjectMetadata" || as === "PartialObjectMetadataList")
      return { format, as: "PartialObjectMetadata", asVersion };
  }
  throw notAcceptable(hasProtobuf ? [JSON_TYPE, "application/yaml", PROTOBUF_TYPE] : [JSON_TYPE, "application/yaml"]);
}
