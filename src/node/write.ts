/**
 * One write on its way up: what was sent, how it is answered when nobody can
 * be asked, and what is learned from the API server's own answer.
 */

import { MalformedError } from "../kube/codec.ts";
import { parseExact } from "../kube/exact-json.ts";
import { openEnvelope } from "../kube/protobuf-wire.ts";
import { mediaType, PROTOBUF_TYPE } from "../kube/representation.ts";
import type { Word } from "../kube/whose-word.ts";
import { badRequest, StatusError } from "../kube/status-error.ts";
import type { Caller } from "../callers/identify.ts";
import type { Exchange } from "../front/exchange.ts";
import type { AnswerTap, Fallback } from "../front/forward.ts";
import type { RequestInfo } from "../front/request-info.ts";

/** A write with its body. */
export interface Write {
  readonly exchange: Exchange;
  readonly info: RequestInfo;
  readonly caller: Caller;
  readonly body: Uint8Array;
  /** The media type alone. */
  readonly contentType: string;
}

/** A body with its type. */
export interface Answer {
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** How one kind of write is answered while cut, and what its answer teaches while online. */
export interface WriteRow {
  /** Replaces the caller's Accept on the way up. */
  readonly accept?: string;
  readonly fallback?: Fallback;
  /** The API server answered 200 or 201 with this. */
  readonly learn?: (answer: Answer) => void;
  /** The head of the API server's answer or refusal. */
  readonly heard?: (status: number, headers: Headers) => void;
}

const MAX_LEARNED_BYTES = 64 * 1024;

/** Passes an answer on and reads it when it came whole with 200 or 201. */
export class LearningTap implements AnswerTap {
  readonly takesWhole = false;
  #parts: Uint8Array[] | undefined;
  #size = 0;
  #contentType = "";
  #isPassingListening = false;

  constructor(
    private readonly passing: AnswerTap,
    private readonly row: Pick<WriteRow, "learn" | "heard">,
  ) {}

  head(status: number, headers: Headers, word: Word): boolean {
    this.#isPassingListening = this.passing.head(status, headers, word);
    if (word !== "unsaid") this.row.heard?.(status, headers);
    const isPlain = word === "answer" && headers.get("content-encoding") === null;
    if (this.row.learn !== undefined && (status === 200 || status === 201) && isPlain) this.#parts = [];
    this.#contentType = mediaType(headers.get("content-type") ?? "");
    return this.#isPassingListening || this.#parts !== undefined;
  }

  chunk(bytes: Uint8Array): void {
    if (this.#isPassingListening) this.passing.chunk(bytes);
    if (this.#parts === undefined) return;
    this.#size += bytes.length;
    if (this.#size > MAX_LEARNED_BYTES) this.#parts = undefined;
    else this.#parts.push(bytes);
  }

  async end(): Promise<void> {
    if (this.#isPassingListening) await this.passing.end();
    if (this.#parts !== undefined)
      this.row.learn?.({ contentType: this.#contentType, body: new Uint8Array(Buffer.concat(this.#parts)) });
  }

  abort(): void {
    if (this.#isPassingListening) this.passing.abort();
  }
}

/** Answers a whole body. */
export function answerWith(exchange: Exchange, status: number, { contentType, body }: Answer): void {
  exchange.response.writeHead(status, {
    "Content-Type": contentType,
    "Content-Length": body.length,
    "Cache-Control": "no-cache, private",
  });
  exchange.response.end(body);
}

/** Whether the asker reads this format. */
export function isAccepted(exchange: Exchange, contentType: string): boolean {
  const format = contentType === "application/json" ? "json" : "protobuf";
  return exchange.accepted.some((representation) => representation.format === format);
}

/** What is taken for its own answer must at least be an object: the API server would refuse the rest. @throws {StatusError} 400 */
export function requireObject(what: string, { contentType, body }: Answer): void {
  try {
    if (contentType === PROTOBUF_TYPE) return void openEnvelope(body, 0, body.length);
    const object = parseExact(body);
    if (typeof object === "object" && object !== null && !Array.isArray(object)) return;
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
  }
  throw badRequest(`Cannot take the ${what}: the body is not an object in ${contentType || "JSON"}`);
}

/** 409 as a POST of what is there already gets it. */
export function alreadyExists(resource: string, name: string): StatusError {
  return new StatusError({ code: 409, reason: "AlreadyExists", message: `${resource} "${name}" already exists` });
}
