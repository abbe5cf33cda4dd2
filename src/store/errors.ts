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

/** The copy was dropped: a permission was revoked, or room was needed. Nothing was written; whoever still needs it opens another. */
export class CopyDroppedError extends EdgeError {
  override readonly name = "CopyDroppedError";
  readonly code = "COPY_DROPPED";

  constructor(resource: string) {
    super(`Cannot use the copy of ${resource}: it was dropped`);
  }
}

/** A reader stood still for so long that what it was reading has changed: its answer breaks off, the copy is as good as ever. */
export class SnapshotGoneError extends EdgeError {
  override readonly name = "SnapshotGoneError";
  readonly code = "SNAPSHOT_GONE";

  constructor(resource: string) {
    super(`Cannot read a list of ${resource} to its end: it changed while its reader stood still`);
  }
}
