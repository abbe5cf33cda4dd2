/**
 * What can keep a scope from being listed or followed.
 */

import { EdgeError } from "../base/errors.ts";
import type { SourceAnswer } from "../uplink/scope-source.ts";

/** The API server answered, but not with a list or a watch: its own words are passed on. */
export class UpstreamRefusedError extends EdgeError {
  override readonly name = "UpstreamRefusedError";
  readonly code = "UPSTREAM_REFUSED";

  constructor(
    readonly status: number,
    readonly contentType: string,
    readonly body: string,
    readonly retryAfterSeconds: number | undefined,
  ) {
    super(`API server answered ${status}`);
  }

  static async from(answer: SourceAnswer): Promise<UpstreamRefusedError> {
    const retryAfter = Number(answer.header("retry-after"));
    const body = await answer.text(64 * 1024).catch(() => "");
    return new UpstreamRefusedError(
      answer.status,
      answer.header("content-type") ?? "application/json",
      body,
      retryAfter > 0 ? retryAfter : undefined,
    );
  }
}

/** More items or bytes than a scope may hold: it is passed through, never half kept. */
export class ScopeTooLargeError extends EdgeError {
  override readonly name = "ScopeTooLargeError";
  readonly code = "SCOPE_TOO_LARGE";
}

/** Following ended because nobody needs it. */
export class StoppedError extends EdgeError {
  override readonly name = "StoppedError";
  readonly code = "STOPPED";
}

/** Following ended because the API server's history went back. */
export class RolledBackError extends EdgeError {
  override readonly name = "RolledBackError";
  readonly code = "ROLLED_BACK";
}
