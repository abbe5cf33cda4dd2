/**
 * What can keep a scope from being listed or followed.
 */

import { EdgeError } from "../base/errors.ts";

/** Not to be answered from here: the request is the API server's. */
export abstract class PassThroughError extends EdgeError {}

/** More items or bytes than a scope may hold: it is passed through, never half kept. */
export class ScopeTooLargeError extends PassThroughError {
  override readonly name = "ScopeTooLargeError";
  readonly code = "SCOPE_TOO_LARGE";
}

/** A watch at a moment that is not known here, while the API server may know it: it is to be asked. */
export class AskUpstreamError extends PassThroughError {
  override readonly name = "AskUpstreamError";
  readonly code = "ASK_UPSTREAM";
}

/** Following ended because nobody needs it. */
export class StoppedError extends EdgeError {
  override readonly name = "StoppedError";
  readonly code = "STOPPED";
}

/** Following ended because the API server's history went back. */
export class RolledBackError extends EdgeError {
  override readonly name = "RolledBackError";
  readonly code = "ROLLED_BACK";
}
