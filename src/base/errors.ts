/**
 * The one family of errors that the world causes.
 *
 * Misuse by a caller is a TypeError or RangeError; a miss that we expect is
 * `undefined`. Everything the network, the disk or a stranger does to us is an
 * EdgeError with a stable code, so that a log, a metric and a Status agree.
 */

/** What the world did to us; `code` is stable and may be matched by programs. */
export abstract class EdgeError extends Error {
  abstract override readonly name: string;
  abstract readonly code: string;
}
