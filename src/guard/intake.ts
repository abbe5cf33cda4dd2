/**
 * Whose body is read, and for how long.
 *
 * Whoever can reach the port can open connections and send slowly, so what is
 * being read is bounded in bytes and in time. When there is no room the one
 * that has been reading longest gives way: the API server's reviews arrive
 * whole within milliseconds, so the oldest is never one of them.
 *
 * Invariant: bytes are reserved by the announced length before any is awaited;
 * a body without one is refused.
 */

import type { Clock } from "../base/clock.ts";
import { ReviewError } from "./admission-review.ts";

/** Limits; the defaults are the webhook's. */
export interface IntakeLimits {
  /** One body. Default 8 MiB: an update carries the object twice, and etcd takes 1.5 MiB. */
  readonly bodyBytes?: number;
  /** All bodies being read. Default 48 MiB. */
  readonly totalBytes?: number;
  /** Default 2 s, as long as the API server waits. */
  readonly readMs?: number;
}

/** The largest body, unless told otherwise. */
export const MAX_BODY_BYTES = 8 * 1024 * 1024;
const MAX_TOTAL_BYTES = 48 * 1024 * 1024;
const MAX_READING = 4_096;
const READ_MS = 2_000;
/** Younger ones may be honest: then the newcomer waits for nobody and is turned away. */
const SHED_AFTER_MS = 250;

interface Reader {
  readonly sinceMs: number;
  readonly sizeBytes: number;
  readonly giveUp: (error: ReviewError) => void;
}

/** All bodies that are being read. */
export class Intake {
  /** In order of arrival. */
  readonly #readers = new Set<Reader>();
  #bytes = 0;

  constructor(
    private readonly clock: Clock,
    private readonly limits: IntakeLimits = {},
  ) {}

  /**
   * Reads a JSON body.
   *
   * @throws {ReviewError} 408, 411, 413, 415, 503, or 400 when it is no JSON.
   */
  async read(request: Request): Promise<unknown> {
    const sizeBytes = this.#announced(request);
    this.#makeRoom(sizeBytes);
    const { promise, reject } = Promise.withResolvers<never>();
    const reader = { sinceMs: this.clock.monotonicMs(), sizeBytes, giveUp: reject };
    this.#readers.add(reader);
    this.#bytes += sizeBytes;
    const { readMs = READ_MS } = this.limits;
    const cancel = this.clock.after(readMs, () =>
      reject(new ReviewError(`Cannot read the body: not here after ${readMs} ms`, 408)),
    );
    try {
      return await Promise.race([request.json().catch(notJson), promise]);
    } finally {
      cancel();
      this.#readers.delete(reader);
      this.#bytes -= sizeBytes;
    }
  }

  #announced({ headers }: Request): number {
    const { bodyBytes = MAX_BODY_BYTES } = this.limits;
    const type = headers.get("Content-Type") ?? "";
    if (!/^application\/json\b/i.test(type))
      throw new ReviewError(`Cannot read the body, Content-Type: expected application/json`, 415);
    const length = headers.get("Content-Length");
    if (length === null) throw new ReviewError("Cannot read the body, Content-Length: expected the body's size", 411);
    const sizeBytes = Number(length);
    if (!(sizeBytes <= bodyBytes))
      throw new ReviewError(`Cannot read the body: ${length} bytes, expected at most ${bodyBytes}`, 413);
    return sizeBytes;
  }

  #makeRoom(sizeBytes: number): void {
    const { totalBytes = MAX_TOTAL_BYTES } = this.limits;
    let free = totalBytes - this.#bytes;
    let count = this.#readers.size;
    const isRoom = () => free >= sizeBytes && count < MAX_READING;
    if (isRoom()) return;
    const shed: Reader[] = [];
    for (const reader of this.#readers) {
      if (isRoom() || this.clock.monotonicMs() - reader.sinceMs < SHED_AFTER_MS) break;
      free += reader.sizeBytes;
      count--;
      shed.push(reader);
    }
    if (!isRoom()) throw new ReviewError("Cannot take another review now: too many are being read", 503);
    for (const { giveUp } of shed)
      giveUp(new ReviewError("Cannot read the body: it came too slowly and others were waiting", 408));
  }
}

function notJson(): never {
  throw new ReviewError("Cannot read the body: expected JSON, an AdmissionReview", 400);
}
