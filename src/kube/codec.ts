/**
 * What a wire format must be able to do, so that scopes need not know it.
 *
 * Holdfast keeps the API server's bytes and never a parsed object. A codec
 * splits lists and watch streams into *items* and puts them together again.
 * An item is the object exactly as a LIST of its kind carries it:
 *
 *   JSON            the object's text; built-in kinds carry no kind/apiVersion
 *                   in lists (the API server leaves them out), custom resources do
 *   JSON Table      one element of `rows`
 *   protobuf        the bare message, without the k8s\0 envelope
 *
 * so an item from a list and the same item from a watch event compare equal
 * byte for byte. Unknown fields survive because nothing is re-serialised.
 */

import { EdgeError } from "../base/errors.ts";

/** The bytes do not follow the format; nothing of the stream may be believed. */
export class MalformedError extends EdgeError {
  override readonly name = "MalformedError";
  readonly code = "MALFORMED";
}

/** The few fields of metadata that Holdfast reads; absent ones are "". */
export interface ItemMeta {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

/** One object: its bytes as in a list, and what was read from them. Bytes are an own copy, never a view of a network chunk. */
export interface Item {
  readonly meta: ItemMeta;
  readonly bytes: Uint8Array;
}

/** What was learned from a list's envelope and is needed to write lists and events of it. Plain JSON; stored with the scope. */
export interface Shape {
  /** As the list says it: "PodList", "Table", "PartialObjectMetadataList". */
  readonly listKind: string;
  /** The list's apiVersion; objects of a JSON or protobuf list share it ("v1", "apps/v1", "meta.k8s.io/v1"). */
  readonly apiVersion: string;
  /** JSON only: items in lists carry no kind and apiVersion of their own; watch events get them added. */
  readonly isBare: boolean;
  /** The items' kind, only where it is not the listKind without "List" (a custom resource may name its list freely). */
  readonly itemKind?: string;
  /** Table only: the JSON text of `columnDefinitions`. */
  readonly columnDefinitions?: string;
}

/** A whole list's envelope, known only after its last byte. */
export interface ListHead {
  readonly shape: Shape;
  readonly resourceVersion: string;
  /** "" when this is the last (or only) page. */
  readonly continueToken: string;
}

/** Splits one LIST response. Holds at most one item and the envelope in memory. */
export interface ListReader {
  /** @returns items completed by this chunk. @throws {MalformedError} */
  push(chunk: Uint8Array): Item[];
  /** @returns the envelope. @throws {MalformedError} if the list is not complete. */
  end(): ListHead;
}

/** ADDED, MODIFIED and DELETED carry an item; the others do not. */
export type EventType = "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";

/** One watch event as received. */
export type WatchFrame =
  | { readonly type: "ADDED" | "MODIFIED" | "DELETED"; readonly item: Item }
  | { readonly type: "BOOKMARK"; readonly resourceVersion: string; readonly isInitialEventsEnd: boolean }
  | { readonly type: "ERROR"; readonly code: number; readonly reason: string; readonly message: string };

/** Splits one watch stream. Holds at most one frame in memory. */
export interface WatchReader {
  /** @returns frames completed by this chunk. @throws {MalformedError} on bytes that are no event. */
  push(chunk: Uint8Array): WatchFrame[];
  /** Whether the stream may end here: no frame is half read. */
  isBetweenFrames(): boolean;
}

/** The Status that ends a watch from within (an ERROR event), or answers a request. */
export interface StatusFields {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  /** `details.causes[].reason`, for ResourceVersionTooLarge. */
  readonly causes?: readonly { readonly reason: string; readonly message: string }[];
  /** `details.retryAfterSeconds`. */
  readonly retryAfterSeconds?: number;
}

/** One wire format in one representation (plain objects, Table or PartialObjectMetadata). Stateless; readers carry the state. */
export interface Codec {
  /** Content-Type of a LIST or GET answer in this format. */
  readonly contentType: string;
  /** Content-Type of a watch stream in this format. */
  readonly watchContentType: string;

  listReader(): ListReader;
  /** @param shape of the scope's list, to bring event objects into the list's form. */
  watchReader(shape: Shape): WatchReader;

  /**
   * A list put together from items, in pieces: `listStart`, each item as
   * `listItem(item, index)`, then `listEnd`.
   *
   * @param itemSizes length in bytes of every item, in order; protobuf needs
   *   the total before the first byte, JSON ignores it.
   */
  listStart(shape: Shape, resourceVersion: string, itemSizes: Iterable<number>): Uint8Array;
  /** The bytes that stand before the item's own bytes (a comma; a tag and a length). */
  listItemLead(item: Uint8Array, index: number): Uint8Array;
  listEnd(shape: Shape): Uint8Array;

  /** One watch event carrying an item; kind and apiVersion are added where the list left them out. */
  event(shape: Shape, type: "ADDED" | "MODIFIED" | "DELETED", item: Uint8Array): Uint8Array;
  /** A bookmark; with `isInitialEventsEnd` it carries the annotation k8s.io/initial-events-end: "true". */
  bookmark(shape: Shape, resourceVersion: string, isInitialEventsEnd: boolean): Uint8Array;
  /** An ERROR event whose object is a v1 Status. */
  errorEvent(status: StatusFields): Uint8Array;
  /** The body of a GET for one item, with its envelope. */
  single(shape: Shape, item: Uint8Array): Uint8Array;
  /** The same item with another metadata.resourceVersion; every other byte stays. */
  withResourceVersion(item: Uint8Array, resourceVersion: string): Uint8Array;
}
