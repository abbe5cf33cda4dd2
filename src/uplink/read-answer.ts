/**
 * The one place where the formats of lists and watches are read.
 *
 *   bytes of an answer -> a page of items | a stream of frames | a refusal
 *
 * What comes out knows its codec, so that it can be written again; nobody
 * behind this parses a list or a watch. Whose word an answer is, its beginning
 * tells (kube/whose-word.ts): a Status is a refusal, what fits is an answer,
 * and what something in the way answered is no more than a lost link.
 */

import { passedThrough } from "../base/memory.ts";
import { inSlices, Slices } from "../base/turns.ts";
import { MalformedError, type Codec, type Item, type ListHead, type Shape, type WatchFrame } from "../kube/codec.ts";
import { codecFor } from "../kube/representation.ts";
import { collectionPath } from "../kube/resource-path.ts";
import { askedForm, TELLING_BYTES, whoseWord, type Word } from "../kube/whose-word.ts";
import {
  ForeignAnswerError,
  UnreachableError,
  UnsaidError,
  UpstreamRefusedError,
  type ListPage,
  type WatchStream,
} from "./scope-source.ts";

/** A Status is a few hundred bytes; what is longer is cut. */
const MAX_REFUSAL_BYTES = 64 * 1024;

/** An answer's head, and its body as it comes. */
export interface WireAnswer {
  readonly status: number;
  /** Whose word it is, where that was judged already. */
  readonly word?: "answer" | "refusal" | "unsaid";
  /** Lower-case names. */
  header(name: string): string | undefined;
  /** Decoded (never compressed) chunks; throws UnreachableError when cut short. May be consumed once. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** The collection that was asked for. */
export interface AskedCollection {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
}

/**
 * The answer to a list.
 *
 * @throws {UpstreamRefusedError} {UnsaidError} as the API server answered something else.
 * @throws {ForeignAnswerError} when it is none of the API server's. @throws {UnreachableError} when it broke off.
 */
export async function readList(answer: WireAnswer, asked: AskedCollection): Promise<ListPage> {
  const { codec, chunks } = await accepted(answer, asked, "list");
  const reader = codec.listReader();
  return { codec, batches: listBatches(reader, chunks), head: () => readable("list", () => reader.end()) };
}

/**
 * The answer to a watch.
 *
 * @param shape of the list that it goes on from.
 * @throws {UpstreamRefusedError} {UnsaidError} as the API server answered something else.
 * @throws {ForeignAnswerError} when it is none of the API server's. @throws {UnreachableError} when it broke off.
 */
export async function readWatch(answer: WireAnswer, asked: AskedCollection, shape: Shape): Promise<WatchStream> {
  const { codec, chunks } = await accepted(answer, asked, "watch");
  return { codec, batches: watchBatches(codec.watchReader(shape), chunks) };
}

/** The answer's format and its whole body, if it is an answer. */
async function accepted(
  answer: WireAnswer,
  collection: AskedCollection,
  verb: "list" | "watch",
): Promise<{ readonly codec: Codec; readonly chunks: AsyncIterable<Uint8Array> }> {
  const { word, chunks } =
    answer.word === undefined ? await judged(answer, collection, verb) : { word: answer.word, chunks: answer.chunks };
  // A success that is neither a list nor a watch came short: passed on, half of it would look whole.
  if (word === "unsaid" && answer.status < 400) {
    void chunks[Symbol.asyncIterator]().return?.();
    throw new UnreachableError(`Cannot ${verb} ${collection.resource}: the API server's answer came short`);
  }
  if (word === "refusal" || word === "unsaid") throw await said(answer, word, chunks);
  const codec = codecFor(answer.header("content-type") ?? "");
  if (word === "answer" && codec !== undefined) return { codec, chunks };
  void chunks[Symbol.asyncIterator]().return?.();
  throw new ForeignAnswerError(
    `Cannot ${verb} ${collection.resource}: something else answered for the API server (${answer.status})`,
  );
}

/** Reads as much as tells whose word it is. */
async function judged(
  answer: WireAnswer,
  { group, version, resource }: AskedCollection,
  verb: "list" | "watch",
): Promise<{ readonly word: Word; readonly chunks: AsyncIterable<Uint8Array> }> {
  const path = collectionPath({ group, version, resource, namespace: "" });
  const asked = askedForm("GET", verb === "watch" ? `${path}?watch=true` : path);
  const header = (name: string) => answer.header(name);
  const iterator = answer.chunks[Symbol.asyncIterator]();
  const seen: Uint8Array[] = [];
  let size = 0;
  // Judged again when as much has come once more: bytes that trickle in must not cost their square.
  for (let [judgeAt, isWhole] = [0, false]; ;) {
    if (isWhole || size >= Math.min(judgeAt, TELLING_BYTES)) {
      judgeAt = 2 * size + 1;
      const word = whoseWord(asked, { status: answer.status, header, start: Buffer.concat(seen), isWhole });
      if (word !== undefined) return { word, chunks: rest(seen, isWhole ? undefined : iterator) };
    }
    const { done, value } = await iterator.next();
    if (done === true) isWhole = true;
    else {
      seen.push(value);
      size += value.length;
    }
  }
}

async function* rest(
  seen: readonly Uint8Array[],
  iterator: AsyncIterator<Uint8Array> | undefined,
): AsyncGenerator<Uint8Array, void> {
  yield* seen;
  if (iterator !== undefined) yield* { [Symbol.asyncIterator]: () => iterator };
}

/** What the API server said instead. */
async function said(
  answer: WireAnswer,
  word: "refusal" | "unsaid",
  chunks: AsyncIterable<Uint8Array>,
): Promise<UpstreamRefusedError | UnsaidError> {
  const retryAfter = Number(answer.header("retry-after"));
  const Said = word === "refusal" ? UpstreamRefusedError : UnsaidError;
  return new Said(
    answer.status,
    answer.header("content-type") ?? "application/json",
    await textOf(chunks).catch(() => ""),
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
  const slices = new Slices();
  for await (const chunk of chunks) {
    passedThrough(chunk.length);
    for (const piece of inSlices(chunk)) {
      yield readable("list", () => reader.push(piece));
      await slices.spend(piece.length);
    }
  }
}

async function* watchBatches(
  reader: { push(chunk: Uint8Array): WatchFrame[] },
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly WatchFrame[], void> {
  for await (const chunk of chunks) {
    passedThrough(chunk.length);
    yield readable("watch", () => reader.push(chunk));
  }
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
