/**
 * The one place where the formats of lists and watches are read.
 *
 *   bytes of an answer -> a page of items | a stream of frames | a refusal
 *
 * What comes out knows its codec, so that it can be written again; nobody
 * behind this parses a list or a watch.
 */

import { MalformedError, type Item, type ListHead, type Shape, type WatchFrame } from "../kube/codec.ts";
import { codecFor } from "../kube/representation.ts";
import { ForeignAnswerError, UpstreamRefusedError, type ListPage, type WatchStream } from "./scope-source.ts";

/** A Status is a few hundred bytes; what is longer is cut. */
const MAX_REFUSAL_BYTES = 64 * 1024;

/** An answer's head, and its body as it comes. */
export interface WireAnswer {
  readonly status: number;
  /** Lower-case names. */
  header(name: string): string | undefined;
  /** Decoded (never compressed) chunks; throws UnreachableError when cut short. May be consumed once. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/**
 * The answer to a list.
 *
 * @throws {UpstreamRefusedError} when it refuses. @throws {ForeignAnswerError} when it is none of the API server's.
 */
export async function readList(answer: WireAnswer): Promise<ListPage> {
  const codec = await codecOf(answer, "list");
  const reader = codec.listReader();
  return { codec, batches: listBatches(reader, answer.chunks), head: () => readable("list", () => reader.end()) };
}

/**
 * The answer to a watch.
 *
 * @param shape of the list that it goes on from.
 * @throws {UpstreamRefusedError} when it refuses. @throws {ForeignAnswerError} when it is none of the API server's.
 */
export async function readWatch(answer: WireAnswer, shape: Shape): Promise<WatchStream> {
  const codec = await codecOf(answer, "watch");
  return { codec, batches: watchBatches(codec.watchReader(shape), answer.chunks) };
}

async function codecOf(answer: WireAnswer, what: "list" | "watch") {
  if (answer.status !== 200) throw await refusalOf(answer);
  const contentType = answer.header("content-type") ?? "";
  const codec = codecFor(contentType);
  if (codec === undefined)
    throw new ForeignAnswerError(
      `Cannot ${what}: the answer is "${contentType.slice(0, 100)}", which was not asked for`,
    );
  return codec;
}

async function refusalOf(answer: WireAnswer): Promise<UpstreamRefusedError> {
  const retryAfter = Number(answer.header("retry-after"));
  return new UpstreamRefusedError(
    answer.status,
    answer.header("content-type") ?? "application/json",
    await textOf(answer.chunks).catch(() => ""),
    retryAfter > 0 ? retryAfter : undefined,
  );
}

async function textOf(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    parts.push(chunk);
    size += chunk.length;
    if (size >= MAX_REFUSAL_BYTES) break;
  }
  return Buffer.concat(parts).toString("utf8");
}

async function* listBatches(
  reader: { push(chunk: Uint8Array): Item[]; end(): ListHead },
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly Item[], void> {
  for await (const chunk of chunks) yield readable("list", () => reader.push(chunk));
}

async function* watchBatches(
  reader: { push(chunk: Uint8Array): WatchFrame[] },
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly WatchFrame[], void> {
  for await (const chunk of chunks) yield readable("watch", () => reader.push(chunk));
}

/** A reader that trips over its own input must not look like a fault of ours. */
function readable<T>(what: "list" | "watch", read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof SyntaxError)) throw error;
    throw new MalformedError(`Cannot read a ${what}: its bytes are none`, { cause: error });
  }
}
