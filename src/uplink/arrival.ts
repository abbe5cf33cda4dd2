/**
 * What became of a request that has no answer.
 */

import { Http2Failure } from "./http2-failure.ts";
import { ForeignAnswerError } from "./scope-source.ts";

/** An error that says whether its request had been sent. */
interface Sent {
  wasSent?: boolean;
}

/** The request of which this is the end had been sent. @returns the same error. */
export function sentInVain(error: Error): Error {
  if (Object.isExtensible(error)) (error as Sent).wasSent = true;
  return error;
}

/** Whether a request that failed so may have been carried out: it was sent, and only its answer is missing. */
export function mayHaveArrived(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof ForeignAnswerError) return false;
    if (at instanceof Http2Failure) return at.kind !== "not-processed";
    if ((at as Sent).wasSent === true) return true;
  }
  return false;
}

/** Nobody answers any more. */
export function timedOut(message: string): Error {
  return Object.assign(new Error(message), { code: "ETIMEDOUT" });
}
