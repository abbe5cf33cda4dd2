/**
 * What a header block cannot be.
 */

/** A header block that cannot be read: the connection ends with it, for its table is not known any more. */
export class HpackError extends Error {
  override readonly name = "HpackError";
}
