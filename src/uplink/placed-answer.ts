/**
 * An answer with a node in it, as that node's clients read it.
 *
 *   small, whole          changed at once; untouched (compressed, too) where nothing is to be changed
 *   JSON, longer          object by object as it goes by
 *   protobuf list         held until it is whole: a change in an item changes the lengths around it
 *   watch                 event by event
 *
 * What goes by is unfolded first and goes on uncompressed: its reader sits on
 * this machine.
 */

import { gunzipSync } from "node:zlib";
import { JsonPieces } from "../kube/json-pieces.ts";
import { restoredJson, type Lens } from "../kube/placed-json.ts";
import { restoredEvent, restoredProtobuf } from "../kube/placed-protobuf.ts";
import { ProtobufFrames } from "../kube/protobuf-frames.ts";
import { mediaType, PROTOBUF_TYPE } from "../kube/representation.ts";
import { MAX_UNFOLDED_BYTES, unfolded } from "./unfold.ts";
import type { UpstreamAnswer, UpstreamBody, UpstreamHeaders } from "./upstream-answer.ts";

/** What was asked for. */
export type AskedShape = "object" | "list" | "watch";

/** What looks at nodes, and hears of what could not be restored. */
export interface Restorer extends Lens {
  /** @param why for people: what stands there now and why. */
  failed(why: string): void;
}

/** Read whole before it is judged whose word it is, see `upstream-answer.ts`. */
const SMALL_BYTES = 64 * 1024;
/** A list of nodes in protobuf that is longer goes on as it is. */
const MAX_HELD_BYTES = 16 * 1024 * 1024;

/** The answer, restored. @param restorer knows the node, and that there is one. */
export async function restoredAnswer(
  answer: UpstreamAnswer,
  shape: AskedShape,
  restorer: Restorer,
): Promise<UpstreamAnswer> {
  if (answer.status >= 300) return answer;
  const encoding = answer.headers.get("content-encoding") ?? "identity";
  const type = mediaType(answer.headers.get("content-type") ?? "");
  const isKnown = type === "application/json" || type === PROTOBUF_TYPE;
  if (!isKnown || (encoding !== "identity" && encoding !== "gzip")) {
    restorer.failed(`an answer of type ${type.slice(0, 64)}, encoded as ${encoding.slice(0, 32)}, cannot be changed`);
    return answer;
  }
  const isProtobuf = type === PROTOBUF_TYPE;
  const length = Number(answer.headers.get("content-length") ?? Number.POSITIVE_INFINITY);
  if (shape !== "watch" && length <= SMALL_BYTES) {
    const sent = await answer.bytes();
    const plain = encoding === "gzip" ? gunzipSync(sent, { maxOutputLength: MAX_HELD_BYTES }) : sent;
    const after = changedWhole(plain, isProtobuf, shape, restorer);
    return after === plain ? answer : new Restored(answer, without(answer.headers, after.length), after);
  }
  const { body } = answer;
  if (body === null) return answer;
  const reader = body.getReader();
  const sent = chunksOf(reader);
  const chunks = encoding === "gzip" ? unfolded(sent, shape === "watch" ? 0 : MAX_UNFOLDED_BYTES) : sent;
  const after = streamOf(restoredChunks(chunks, isProtobuf, shape, restorer), reader);
  return new Restored(answer, without(answer.headers), after);
}

function changedWhole(bytes: Uint8Array, isProtobuf: boolean, shape: AskedShape, restorer: Restorer): Uint8Array {
  if (isProtobuf) return changed(bytes, restorer, restoredProtobuf);
  if (shape === "object") return changed(bytes, restorer, restoredJson);
  if (!names(bytes, restorer)) return bytes;
  const pieces = piecesOf("list", restorer);
  const out = Buffer.concat([...pieces.push(bytes), ...pieces.end()]);
  return out.equals(bytes) ? bytes : out;
}

async function* restoredChunks(
  chunks: AsyncIterable<Uint8Array>,
  isProtobuf: boolean,
  shape: AskedShape,
  restorer: Restorer,
): AsyncGenerator<Uint8Array, void> {
  if (isProtobuf && shape !== "watch") return yield* heldChunks(chunks, restorer);
  const pieces = isProtobuf
    ? new ProtobufFrames((event) => changed(event, restorer, restoredEvent), tooLarge(restorer))
    : piecesOf(shape, restorer);
  for await (const chunk of chunks) yield* pieces.push(chunk);
  yield* pieces.end();
}

/** Whole, or as it is from where it has become too long. */
async function* heldChunks(chunks: AsyncIterable<Uint8Array>, restorer: Restorer): AsyncGenerator<Uint8Array, void> {
  let held: Uint8Array[] = [];
  let size = 0;
  let isGivenUp = false;
  for await (const chunk of chunks) {
    if (isGivenUp) {
      yield chunk;
      continue;
    }
    held.push(chunk);
    size += chunk.length;
    if (size <= MAX_HELD_BYTES) continue;
    isGivenUp = true;
    tooLarge(restorer)();
    yield* held;
    held = [];
  }
  if (!isGivenUp && size > 0) yield changed(Buffer.concat(held), restorer, restoredProtobuf);
}

function piecesOf(shape: AskedShape, restorer: Restorer): JsonPieces {
  return new JsonPieces(
    shape === "list" ? 3 : 1,
    (piece) => changed(piece, restorer, restoredJson),
    tooLarge(restorer),
  );
}

function tooLarge(restorer: Restorer): () => void {
  return () => restorer.failed("a list of nodes in protobuf, or one object, is larger than 16 MiB");
}

/** What does not say the node's name does not hold it. */
function changed(
  bytes: Uint8Array,
  restorer: Restorer,
  change: (bytes: Uint8Array, lens: Lens) => Uint8Array,
): Uint8Array {
  if (!names(bytes, restorer)) return bytes;
  try {
    return change(bytes, restorer);
  } catch (error) {
    restorer.failed(error instanceof Error ? error.message : "it cannot be read");
    return bytes;
  }
}

function names(bytes: Uint8Array, { name }: Restorer): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(name);
}

type Reader = ReturnType<UpstreamBody["getReader"]>;

async function* chunksOf(reader: Reader): AsyncGenerator<Uint8Array, void> {
  for (;;) {
    const { done, value } = await reader.read();
    if (done || value === undefined) return;
    yield value;
  }
}

/** At its reader's pace; whoever wants no more ends the connection at once. */
function streamOf(chunks: AsyncGenerator<Uint8Array, void>, source: Reader): UpstreamBody {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done === true) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await source.cancel();
        await chunks.return();
      },
    },
    { highWaterMark: 0 },
  ) as unknown as UpstreamBody;
}

/** The headers of a body that is another one now. */
function without(headers: UpstreamHeaders, length?: number): UpstreamHeaders {
  const dropped = new Set(["content-length", "content-encoding", "transfer-encoding"]);
  const kept = Object.fromEntries(
    Object.entries(headers.toJSON()).filter(([name]) => !dropped.has(name.toLowerCase())),
  );
  if (length !== undefined) kept["Content-Length"] = String(length);
  return {
    get: (name) => {
      const lower = name.toLowerCase();
      if (lower === "content-length") return length === undefined ? null : String(length);
      return dropped.has(lower) ? null : headers.get(name);
    },
    toJSON: () => kept,
  };
}

/** The answer with another body. */
class Restored implements UpstreamAnswer {
  readonly status: number;
  readonly word: UpstreamAnswer["word"];

  constructor(
    { status, word }: UpstreamAnswer,
    readonly headers: UpstreamHeaders,
    private readonly content: Uint8Array | UpstreamBody,
  ) {
    this.status = status;
    this.word = word;
  }

  get body(): UpstreamBody {
    if (!(this.content instanceof Uint8Array)) return this.content;
    return new Response(this.content as Uint8Array<ArrayBuffer>).body as unknown as UpstreamBody;
  }

  async bytes(): Promise<Uint8Array> {
    if (this.content instanceof Uint8Array) return this.content;
    const parts: Uint8Array[] = [];
    for await (const part of this.content) parts.push(part);
    return Buffer.concat(parts);
  }

  async text(): Promise<string> {
    return Buffer.from(await this.bytes()).toString("utf8");
  }
}
