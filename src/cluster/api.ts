/**
 * The API server, as the guard asks it: single objects by their kind, and
 * collections that are listed and followed.
 *
 * Objects go in and come out as JSON; what comes out is parsed where it is used.
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

/** An operation of a JSON patch, RFC 6902. */
export type JsonPatchOperation =
  | { readonly op: "test" | "replace" | "add"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string };

/** The two kinds of webhook configurations. */
export type WebhookKind = "validating" | "mutating";

/**
 * Single objects. A read says undefined when there is none; whatever else is
 * refused throws `ApiError`. What is replaced carries its resourceVersion: a
 * newer one on the server is a conflict.
 */
export interface ClusterApi {
  readNode(name: string): Promise<unknown>;
  patchNode(name: string, type: PatchType, patch: Patch<V1Node>): Promise<void>;
  patchNodeStatus(name: string, type: PatchType, patch: Patch<V1Node>): Promise<void>;
  /** In kube-node-lease. */
  readNodeLease(nodeName: string): Promise<unknown>;
  readPod(namespace: string, name: string): Promise<unknown>;
  patchPodStatus(namespace: string, name: string, type: PatchType, patch: Patch<V1Pod>): Promise<void>;
  readConfigMap(namespace: string, name: string): Promise<unknown>;
  createConfigMap(namespace: string, object: Wire<V1ConfigMap>): Promise<void>;
  readLease(namespace: string, name: string): Promise<unknown>;
  createLease(namespace: string, lease: Wire<V1Lease>): Promise<void>;
  replaceLease(namespace: string, name: string, lease: Wire<V1Lease>): Promise<void>;
  readSecret(namespace: string, name: string): Promise<unknown>;
  createSecret(namespace: string, secret: Wire<V1Secret>): Promise<void>;
  replaceSecret(namespace: string, name: string, secret: Wire<V1Secret>): Promise<void>;
  /** At most a hundred. */
  readEvents(namespace: string, fieldSelector: string): Promise<readonly unknown[]>;
  createEvent(namespace: string, event: Wire<CoreV1Event>): Promise<void>;
  /** Writes the approval of a certificate request. */
  approveRequest(name: string, request: Wire<V1CertificateSigningRequest>): Promise<void>;
  readWebhooks(kind: WebhookKind, name: string): Promise<unknown>;
  patchWebhooks(kind: WebhookKind, name: string, patch: readonly JsonPatchOperation[]): Promise<void>;
  /** Of the API server itself, in the text format. */
  readMetrics(): Promise<string>;
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

/** Collections, as they come: a field that nobody knows stays where it is. */
export interface Collections {
  /** @param path of the collection, with selectors in its query if need be. */
  list(path: string, page: { readonly limit: number; readonly next?: string | undefined }): Promise<ListPage>;
  /**
   * Follows a collection from a resourceVersion on; ends when the server ends it.
   *
   * @param signal ends it at once.
   * @throws {ApiError} with status 410 when the version is too old; 0 when the stream breaks or falls silent.
   */
  watch(path: string, resourceVersion: string, signal: AbortSignal): AsyncIterable<WatchEvent>;
}
