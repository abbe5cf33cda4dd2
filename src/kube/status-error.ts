/**
 * A refusal in Kubernetes' own words.
 *
 * Thrown wherever a request cannot be served as asked; one function in the
 * proxy turns it into a v1 Status in the format the client negotiated.
 */

import { EdgeError } from "../base/errors.ts";
import type { StatusFields } from "./codec.ts";

/** Becomes a Status answer with this code, reason and message. */
export class StatusError extends EdgeError {
  override readonly name = "StatusError";
  readonly code = "STATUS";

  constructor(
    readonly status: StatusFields,
    options?: ErrorOptions,
  ) {
    super(status.message, options);
  }
}

/** 503: the API server cannot be reached and nothing observed answers the request. */
export function unavailable(message: string, options?: ErrorOptions): StatusError {
  return new StatusError({ code: 503, reason: "ServiceUnavailable", message }, options);
}

/** 410 as the API server says it: the client must list again. */
export function expired(message: string): StatusError {
  return new StatusError({ code: 410, reason: "Expired", message });
}

/** 400: the request cannot be understood. */
export function badRequest(message: string): StatusError {
  return new StatusError({ code: 400, reason: "BadRequest", message });
}

/** 504 with the cause that tells reflectors to ask again without a resourceVersion. */
export function resourceVersionTooLarge(asked: string, held: string): StatusError {
  return new StatusError({
    code: 504,
    reason: "Timeout",
    message: `Timeout: Too large resource version: ${asked}, current: ${held}`,
    causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
    retryAfterSeconds: 1,
  });
}
