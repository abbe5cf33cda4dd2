/**
 * The API server, as far as the guard asks it for single objects.
 *
 * Paths are complete ("/api/v1/namespaces/NAMESPACE/secrets/NAME"); objects go
 * in and come out as JSON values, and are parsed where they are used. Lists
 * and watches are another story.
 */

import { EdgeError } from "../base/errors.ts";

/** How a patch is to be read. */
export type PatchType =
  "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json";

/** What the guard does to objects. Whatever is refused throws `ApiError`. */
export interface KubernetesApi {
  /** @returns undefined when there is no such object. */
  get(path: string): Promise<unknown>;
  /** @param path of the collection. */
  create(path: string, object: object): Promise<unknown>;
  /** @param object with its resourceVersion: a newer one on the server is a conflict. */
  update(path: string, object: object): Promise<unknown>;
  patch(path: string, type: PatchType, body: unknown): Promise<unknown>;
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
