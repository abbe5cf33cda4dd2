/**
 * What a client is told that gets no answer: what it asked, why there is none,
 * and what it can do.
 */

import { type StatusError, unavailable } from "../kube/status-error.ts";
import { ForeignAnswerError } from "../uplink/scope-source.ts";

/** What a person reads when there is no answer. */
export interface RefusalWords {
  /** What cannot be done: `get pods "web-0"`. */
  readonly asked: string;
  /** A question that changes nothing, though it is a POST. */
  readonly isQuestion?: boolean;
  /** Of a read: what is kept instead. Default: that no copy is. */
  readonly instead?: () => string;
}

/**
 * 503 for a request that the API server did not answer.
 *
 * @param cause of the failure, where there is one; a foreign answer says so itself.
 * @param mayHaveGoneUp of a write: it was sent, and what became of it is not known.
 */
export function unreached(
  isRead: boolean,
  words: RefusalWords | undefined,
  cause: unknown,
  mayHaveGoneUp: boolean,
): StatusError {
  const why = cause instanceof ForeignAnswerError ? cause.message : "the API server cannot be reached";
  const asked = words?.asked ?? (isRead ? "read" : "write");
  if (isRead) {
    const instead = words?.instead?.() ?? "no copy of this is kept for this caller";
    return unavailable(`Cannot ${asked}: ${why}; ${instead}`, { cause });
  }
  if (words?.isQuestion === true)
    return unavailable(`Cannot ${asked}: ${why}, and no decision of it on this is remembered`, { cause });
  return unavailable(
    `Cannot ${asked}: ${why}, and nothing is queued${outcome(mayHaveGoneUp)}; try again when the link is back`,
    { cause },
  );
}

/** 503 for a write behind which the API server's storage does not answer. @param mayHaveGoneUp as above. */
export function unstored({ asked }: RefusalWords, mayHaveGoneUp: boolean): StatusError {
  const why = "the API server's storage does not answer, and nothing is queued";
  return unavailable(`Cannot ${asked}: ${why}${outcome(mayHaveGoneUp)}; try again when it does`);
}

function outcome(mayHaveGoneUp: boolean): string {
  return mayHaveGoneUp ? "; whether it was carried out is not known" : "";
}
