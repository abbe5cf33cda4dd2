/**
 * Long work in slices, one slice of all of it in a turn of the event loop.
 *
 * Everything here runs on one thread, and a list of megabytes that is read,
 * cut up and stored costs it tens of milliseconds; ten at once cost ten times
 * that before the next small request is looked at. So whoever works on many
 * bytes stops after a slice and takes its turn: between two slices, whosever
 * they are, sockets are served.
 *
 * Slices are counted in bytes and not in time: what is small never waits, and
 * does the same on every machine.
 */

/** Of a list in JSON so much is read and stored in about three milliseconds. */
export const SLICE_BYTES = 64 * 1024;

const waiting: (() => void)[] = [];

function pump(): void {
  waiting.shift()?.();
  if (waiting.length > 0) setImmediate(pump);
}

/** Resolves in a turn of its own, after those who waited before. */
export function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (waiting.push(resolve) === 1) setImmediate(pump);
  return promise;
}

/** The slices of one piece of work. */
export class Slices {
  #bytes = 0;

  /** Notes work of this size that is done. @returns what to wait for before more, once a slice is full. */
  spend(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes;
    if (this.#bytes < SLICE_BYTES) return undefined;
    this.#bytes = 0;
    return nextTurn();
  }
}

/** Bytes in pieces no longer than a slice; views. */
export function* inSlices(bytes: Uint8Array): Generator<Uint8Array, void> {
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) yield bytes.subarray(at, at + SLICE_BYTES);
}
