/**
 * What a scope needs of the world: an API server to ask, and word of the link.
 *
 * Answers come as items and frames. The bytes of a format were read once,
 * where they came in; whoever filters, keeps or hands on what a source says
 * parses nothing.
 *
 * The daemon hands in the uplink; the simulation hands in a model.
 */

import { EdgeError } from "../base/errors.ts";
import type { Codec, Item, ListHead, Shape, WatchFrame } from "../kube/codec.ts";
import type { ScopeIdentity } from "../store/contract.ts";

/** The API server gave no answer: refused, reset, timed out, or cut short. */
export class UnreachableError extends EdgeError {
  override readonly name: string = "UnreachableError";
  readonly code: string = "UNREACHABLE";
}

/** Something answered in the API server's place (an ingress, a firewall, a login page): a lost link, and nothing of it is kept. */
export class ForeignAnswerError extends UnreachableError {
  override readonly name = "ForeignAnswerError";
  override readonly code = "FOREIGN_ANSWER";
}

/** The API server answered, but not with a list or a watch: its own words are passed on. */
abstract class OtherAnswerError extends EdgeError {
  /**
   * @param status of the answer, or the code of the ERROR event that ended a watch.
   * @param body as it was sent; "" where it came as an event.
   */
  constructor(
    readonly status: number,
    readonly contentType: string,
    readonly body: string,
    readonly retryAfterSeconds: number | undefined,
  ) {
    super(`API server answered ${status}`);
  }
}

/** It refused, with a Status: the only word that may take anything back. */
export class UpstreamRefusedError extends OtherAnswerError {
  override readonly name = "UpstreamRefusedError";
  readonly code = "UPSTREAM_REFUSED";
}

/** It said nothing about what was asked ("404 page not found", 429 in plain text): asked again later, and nothing follows from it. */
export class UnsaidError extends OtherAnswerError {
  override readonly name = "UnsaidError";
  readonly code = "UNSAID";
}

/** One page of a list, as it comes. */
export interface ListPage {
  /** The format that the items are in. */
  readonly codec: Codec;
  /**
   * Items in the order in which they come; to be consumed once and to the end.
   * Each arrival of bytes gives a batch, also one that completes no item.
   *
   * @throws {UnreachableError} when the page is cut short. @throws {MalformedError} when it is none.
   */
  readonly batches: AsyncIterable<readonly Item[]>;
  /** The envelope; only after the last batch. @throws {MalformedError} when the page did not come whole. */
  head(): ListHead;
}

/** An open watch. */
export interface WatchStream {
  /** The format that the frames' items are in. */
  readonly codec: Codec;
  /**
   * Frames as they come, ending where the API server ends them; to be consumed
   * once. Each arrival of bytes gives a batch, also one that completes no
   * frame: it is a sign of life.
   *
   * @throws {UnreachableError} when it breaks off. @throws {MalformedError} when it is no watch.
   */
  readonly batches: AsyncIterable<readonly WatchFrame[]>;
}

/** Where a watch begins, and in whose form its items are wanted. */
export interface WatchStart {
  readonly resourceVersion: string;
  /** Of the list that the watch goes on from. */
  readonly shape: Shape;
}

/** Asks the API server with one principal's credential. */
export interface ScopeSource {
  /** Whether the principal's credential is at hand (a token is only known once its client has spoken). */
  hasCredential(principal: string): boolean;
  /** @throws {UpstreamRefusedError} {UnsaidError} {UnreachableError} */
  list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<ListPage>;
  /** @throws {UpstreamRefusedError} {UnsaidError} {UnreachableError} */
  watch(identity: ScopeIdentity, start: WatchStart, timeoutSeconds: number, signal: AbortSignal): Promise<WatchStream>;
}

/** Word of the link. */
export interface LinkView {
  /** False only after the link was found dead; true while starting. */
  isOnline(): boolean;
  /** How long a caller who can be answered from a copy waits for the API server: less while there is doubt about the link. */
  readonly patienceMs: number;
  /**
   * Something waits without an answer: have a look now.
   *
   * @param unlessHeardForMs nothing is done if anything was heard within this time. Default 0.
   */
  suspect(unlessHeardForMs?: number): void;
  /** Calls back at every change; the returned function ends that. */
  onChange(listener: (isOnline: boolean) => void): () => void;
}
