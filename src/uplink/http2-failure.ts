/**
 * Why a request over HTTP/2 has no answer, and whether it may be sent again.
 */

/** What the failure says about the request. */
export type FailureKind =
  /** The API server has said that it did nothing with it: it may be sent again, whatever it is. */
  | "not-processed"
  /** The connection is gone: it may have been processed. */
  | "connection"
  /** The API server, or we, ended this one stream. */
  | "stream";

/** A request that failed, or an answer that broke off. */
export class Http2Failure extends Error {
  override readonly name = "Http2Failure";
  /** For who looks at nothing else; the system's own where there is one. */
  readonly code: string;

  constructor(
    readonly kind: FailureKind,
    message: string,
    options?: { readonly cause: unknown },
  ) {
    super(message, options);
    const given = (options?.cause as { code?: unknown } | undefined)?.code;
    this.code = typeof given === "string" ? given : CODES[kind];
  }
}

const CODES: Readonly<Record<FailureKind, string>> = {
  "not-processed": "HTTP2_NOT_PROCESSED",
  connection: "ECONNRESET",
  stream: "HTTP2_STREAM_ENDED",
};

/** The server speaks HTTP/1.1 alone; nothing was sent. */
export class Http2UnsupportedError extends Error {
  override readonly name = "Http2UnsupportedError";
  readonly code = "HTTP2_UNSUPPORTED";
}
