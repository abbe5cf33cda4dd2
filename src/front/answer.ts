/**
 * Reply, or refuse with a Kubernetes Status.
 *
 * The one place that turns errors into answers. A 503 carries no Retry-After:
 * client-go would hold its caller for up to ten retries, and an offline node
 * wants to be told at once.
 */

import type { Ending } from "../base/cancel.ts";
import { Slices } from "../base/turns.ts";
import { MalformedError, type StatusFields } from "../kube/codec.ts";
import { PROTOBUF_TYPE } from "../kube/representation.ts";
import { statusBody } from "../kube/status.ts";
import { StatusError } from "../kube/status-error.ts";
import { UnreachableError, UnsaidError, UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { Exchange } from "./exchange.ts";

/** Answers with a Status in the format the client negotiated. Does nothing if the head is already out, except to break the body off. */
export function answerStatus(exchange: Exchange, status: StatusFields): void {
  const { response } = exchange;
  if (response.headersSent) return breakOff(exchange);
  const format = exchange.accepted[0]?.format ?? "json";
  const body = statusBody(status, format);
  const headers: Record<string, string | number> = {
    "Content-Type": format === "protobuf" ? PROTOBUF_TYPE : "application/json",
    "Content-Length": body.length,
    "Cache-Control": "no-cache, private",
  };
  if (status.code === 429 && status.retryAfterSeconds !== undefined) headers["Retry-After"] = status.retryAfterSeconds;
  if (status.code === 401) headers["WWW-Authenticate"] = "Bearer";
  response.writeHead(status.code, headers);
  response.end(exchange.method === "HEAD" ? undefined : body);
}

/** Answers with whatever an error means to a client. */
export function answerError(exchange: Exchange, error: unknown): void {
  if (error instanceof UpstreamRefusedError || error instanceof UnsaidError) return answerRefusal(exchange, error);
  answerStatus(exchange, statusOf(error));
}

/** The Status that an error becomes. */
export function statusOf(error: unknown): StatusFields {
  if (error instanceof StatusError) return error.status;
  if (error instanceof UnreachableError) return { code: 503, reason: "ServiceUnavailable", message: error.message };
  if (error instanceof MalformedError) return { code: 503, reason: "ServiceUnavailable", message: error.message };
  return {
    code: 500,
    reason: "InternalError",
    message: "Internal error occurred: the request could not be served; see Holdfast's log",
  };
}

/** Passes on what the API server said instead of a list or a watch. */
function answerRefusal(exchange: Exchange, refusal: UpstreamRefusedError | UnsaidError): void {
  const { response } = exchange;
  if (response.headersSent) return breakOff(exchange);
  const headers: Record<string, string | number> = {
    "Content-Type": refusal.contentType,
    "Content-Length": Buffer.byteLength(refusal.body),
    "Cache-Control": "no-cache, private",
  };
  if (refusal.retryAfterSeconds !== undefined) headers["Retry-After"] = refusal.retryAfterSeconds;
  response.writeHead(refusal.status, headers);
  response.end(refusal.body);
}

/**
 * Ends an answer so that the client sees it is not whole: a reset, never a
 * clean end. On HTTP/2 only destroying with an error resets the stream; this
 * runtime's `stream.close(code)` ends it as if the body were complete.
 */
export function breakOff({ response }: Exchange): void {
  if (!response.writableEnded) response.destroy(new Error("answer broken off"));
}

/**
 * Writes pieces at the client's pace.
 *
 * @returns false if the client went away before the end.
 */
export async function writePieces(
  { response, signal }: Exchange,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<boolean> {
  const slices = new Slices();
  for await (const piece of pieces) {
    if (signal.aborted) return false;
    if (!response.write(piece)) await drained(response, signal);
    // A client that reads as fast as we write would keep all others waiting for the whole of a long list.
    await slices.spend(piece.length);
  }
  return !signal.aborted;
}

/** Resolves when the client takes more, or is gone. */
export async function drained(response: Exchange["response"], signal: Ending): Promise<void> {
  if (signal.aborted || !response.writableNeedDrain) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  response.once("drain", done);
  signal.addEventListener("abort", done, { once: true });
  await promise;
  response.off("drain", done);
  signal.removeEventListener("abort", done);
}
