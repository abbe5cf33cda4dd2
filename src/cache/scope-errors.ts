/**
 * What can keep a scope from being listed or followed.
 */

import { EdgeError } from "../base/errors.ts";

/** More items or bytes than a scope may hold: it is passed through, never half kept. */
export class ScopeTooLargeError extends EdgeError {
  override readonly name = "ScopeTooLargeError";
  readonly code = "SCOPE_TOO_LARGE";
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
