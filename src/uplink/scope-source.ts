/**
 * What a scope needs of the world: an API server to ask, and word of the link.
 *
 * The daemon hands in the proxy's upstream; the simulation hands in a model.
 */

import { EdgeError } from "../base/errors.ts";
import type { ScopeIdentity } from "../store/contract.ts";

/** The API server gave no answer: refused, reset, timed out, or cut short. */
export class UnreachableError extends EdgeError {
  override readonly name = "UnreachableError";
  readonly code = "UNREACHABLE";
}

/** Something answered in the API server's place (an ingress, a firewall, a login page): as good as no answer. */
export class ForeignAnswerError extends UnreachableError {}

/** An answer's head, and its body as it comes. */
export interface SourceAnswer {
  readonly status: number;
  /** Lower-case names. */
  header(name: string): string | undefined;
  /** Decoded (never compressed) chunks; throws UnreachableError when cut short. May be consumed once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** The whole body, at most `limit` bytes of it. */
  text(limit?: number): Promise<string>;
}

/** Asks the API server with one principal's credential. */
export interface ScopeSource {
  /** Whether the principal's credential is at hand (a token is only known once its client has spoken). */
  hasCredential(principal: string): boolean;
  /** @throws {UnreachableError} */
  list(
    identity: ScopeIdentity,
    page: { readonly limit: number; readonly continueToken: string },
    signal: AbortSignal,
  ): Promise<SourceAnswer>;
  /** @throws {UnreachableError} */
  watch(
    identity: ScopeIdentity,
    resourceVersion: string,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<SourceAnswer>;
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
