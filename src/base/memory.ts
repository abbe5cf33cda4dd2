/**
 * Giving memory back after much has passed through.
 *
 * A list of ten megabytes leaves ten megabytes of small garbage behind, and
 * the collector, which sees a small heap, takes its time while the next lists
 * add theirs. One collection for every few megabytes served keeps the peak
 * near what is really held; on a heap this small it takes a few milliseconds.
 */

const COLLECT_AFTER_BYTES = 12 * 1024 * 1024;

let passedBytes = 0;

/**
 * Notes bytes that were made, sent and are no longer needed.
 *
 * @param bytes since the last call of this kind.
 */
export function passedThrough(bytes: number): void {
  passedBytes += bytes;
  if (passedBytes < COLLECT_AFTER_BYTES) return;
  passedBytes = 0;
  Bun.gc(true);
}
