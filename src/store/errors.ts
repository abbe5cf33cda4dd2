/**
 * What can happen to kept rows that a reader must be told.
 */

import { EdgeError } from "../base/errors.ts";

/**
 * A scope's rows are not what was written, or are gone. It has lost its listed
 * state and will be listed again; an answer that is under way must break off.
 */
export class ScopeDamagedError extends EdgeError {
  override readonly name = "ScopeDamagedError";
  readonly code = "SCOPE_DAMAGED";
}
