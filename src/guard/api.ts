/**
 * The API server, as far as the guard asks it for single objects.
 *
 * Paths are complete ("/api/v1/namespaces/NAMESPACE/secrets/NAME"); objects go
 * in and come out as JSON values, and are parsed where they are used. Lists
 * and watches are another story.
 */

import type {
  CoreV1Event,
  V1CertificateSigningRequest,
  V1ConfigMap,
  V1Lease,
  V1Node,
  V1Pod,
  V1Secret,
} from "@kubernetes/client-node";
import { EdgeError } from "../base/errors.ts";
import type { Patch, Wire } from "../kube/wire.ts";

/** How a patch is to be read. */
export type PatchType =
  "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json";

/** What the guard creates. */
export type Created = Wire<CoreV1Event> | Wire<V1ConfigMap> | Wire<V1Lease> | Wire<V1Secret>;

/** What it writes whole, with its resourceVersion: a newer one on the server is a conflict. */
export type Updated = Wire<V1CertificateSigningRequest> | Wire<V1Lease> | Wire<V1Secret>;

/** An operation of a JSON patch, RFC 6902. */
export type JsonPatchOperation =
  | { readonly op: "test" | "replace" | "add"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string };

/** A part of an object, or what is to be done to it, by the patch's type. */
export type Patched = Patch<V1Node> | Patch<V1Pod> | readonly JsonPatchOperation[];

/** What the guard does to objects. Whatever is refused throws `ApiError`. */
export interface KubernetesApi {
  /** @returns undefined when there is no such object. */
  get(path: string): Promise<unknown>;
  /** @param path of the collection. */
  create(path: string, object: Created): Promise<unknown>;
  update(path: string, object: Updated): Promise<unknown>;
  patch(path: string, type: PatchType, body: Patched): Promise<unknown>;
}

/** The API server refused, or did not answer (`status` 0). */
export class ApiError extends EdgeError {
  override readonly name = "ApiError";
  readonly code = "API";

  /**
   * @param status of the HTTP answer.
   * @param reason as in a Status: "Conflict", "AlreadyExists", "Invalid".
   */
  constructor(
    message: string,
    readonly status: number,
    readonly reason: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Somebody else was first: read again and decide anew. A patch whose `test` fails is answered with 422. */
  get isConflict(): boolean {
    return this.status === 409;
  }
}
/** A page of a list. */
export interface ListPage {
  readonly items: readonly unknown[];
  readonly resourceVersion: string;
  /** Where the next page begins; undefined on the last. */
  readonly next: string | undefined;
  /** Of the answer's body. */
  readonly sizeBytes: number;
}

/** An event of a watch, as it stands in the stream. */
export interface WatchEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: unknown;
}

/** What the live view and explain ask for beside single objects. */
export interface KubernetesClient extends KubernetesApi {
  /** Deletes an object; one that is gone is no error. */
  delete(path: string): Promise<void>;
  /** @param path of the collection, with selectors in its query if need be. */
  list(path: string, page: { readonly limit: number; readonly next?: string | undefined }): Promise<ListPage>;
  /**
   * Follows a collection from a resourceVersion on; ends when the server ends it.
   *
   * @param signal ends it at once.
   * @throws {ApiError} with status 410 when the version is too old; 0 when the stream breaks or falls silent.
   */
  watch(path: string, resourceVersion: string, signal: AbortSignal): AsyncIterable<WatchEvent>;
  /** @returns a text that is no object, such as /metrics; throws like `get`. */
  text(path: string): Promise<string>;
}
