/**
 * Which form of an object a client asked for.
 *
 * The Accept header is reduced to an ordered list of representations that can
 * be kept, and to a canonical key; two clients that would get the same bytes
 * get the same key.
 */

/** One acceptable form. */
export interface Representation {
  readonly format: "json" | "protobuf";
  /** Plain objects, a Table, or metadata only. */
  readonly as: "object" | "Table" | "PartialObjectMetadata";
  /** meta.k8s.io version of `as`; "" for plain objects. */
  readonly asVersion: string;
}
