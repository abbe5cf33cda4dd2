/**
 * One request over HTTP/2, from its fields to its answer's last byte.
 *
 * The window of a stream is what may wait here unread: it is opened again only
 * as the reader takes bytes, so a slow reader stops its own answer and nobody
 * else's.
 */

import type { HeaderField } from "../http2/header-table.ts";
import { CODE, ConnectionError } from "../http2/frames.ts";
import { answerHead, checkTrailers, MalformedAnswerError, statusOf } from "./http2-head.ts";
import { Http2Failure } from "./http2-failure.ts";
import type { Http2Upload } from "./http2-upload.ts";
import { RawAnswer, type AnswerFlow } from "./raw-answer.ts";

/** What may wait unread of one answer. */
export const STREAM_WINDOW: number = 256 * 1024;
/** Heads that are not the answer yet (100, 103). */
const MAX_INTERIM = 16;

/** What a stream needs of its connection. */
export interface StreamWay {
  /** The reader took bytes: so much more may come. */
  credit(stream: Http2Stream, bytes: number): void;
  /** Bytes wait for the reader, or do not any more. */
  held(bytes: number): void;
  /** The reader wants no more. */
  cancel(stream: Http2Stream): void;
}

/** A request's stream. */
export class Http2Stream implements AnswerFlow {
  /** The answer's head. */
  readonly answered: PromiseWithResolvers<RawAnswer> = Promise.withResolvers<RawAnswer>();
  /** Sends the body, while there is one to send. */
  upload: Http2Upload | undefined;
  /** Takes back the listener on the request's signal. */
  stopListening: (() => void) | undefined;
  #answer: RawAnswer | undefined;
  #interim = 0;
  #lengthLeft = -1;
  #window = STREAM_WINDOW;
  #unread = 0;
  #taken = 0;
  #isClosed = false;

  constructor(
    readonly id: number,
    private readonly isHeadRequest: boolean,
    private readonly way: StreamWay,
  ) {}

  /** Bytes of the answer that nobody has read yet. */
  get unreadBytes(): number {
    return this.#unread;
  }

  /** Fields came. @throws {MalformedAnswerError} @throws {ConnectionError} */
  fields(fields: readonly HeaderField[], isEnd: boolean): void {
    if (this.#answer !== undefined) {
      if (!isEnd) throw new MalformedAnswerError("a second head");
      checkTrailers(fields);
      return;
    }
    const status = statusOf(fields);
    if (status < 200) {
      if (isEnd || ++this.#interim > MAX_INTERIM) throw new MalformedAnswerError("heads, and no answer");
      return;
    }
    const { head, length } = answerHead(fields, status, this.isHeadRequest || isEnd);
    this.#lengthLeft = head.frame.kind === "none" ? -1 : length;
    if (isEnd && !this.isHeadRequest && status !== 304 && length > 0)
      throw new MalformedAnswerError("a body shorter than its length");
    this.#answer = new RawAnswer(head, this);
    this.answered.resolve(this.#answer);
  }

  /**
   * Bytes of the body came.
   *
   * @param frameBytes as the window counts them, with their padding.
   * @throws {MalformedAnswerError} @throws {ConnectionError}
   */
  data(bytes: Buffer, frameBytes: number): void {
    this.#window -= frameBytes;
    if (this.#window < 0) throw new ConnectionError(CODE.flowControl, "more than a stream's window");
    if (this.#answer === undefined) throw new MalformedAnswerError("a body before its head");
    if (this.#answer.body === null && bytes.length > 0) throw new MalformedAnswerError("a body where none can be");
    if (this.#lengthLeft >= 0 && (this.#lengthLeft -= bytes.length) < 0)
      throw new MalformedAnswerError("a body longer than its length");
    this.#unread += bytes.length;
    this.way.held(bytes.length);
    if (frameBytes > bytes.length) this.#give(frameBytes - bytes.length);
    this.#answer.push(bytes);
  }

  /** That was all. @throws {MalformedAnswerError} */
  ended(): void {
    if (this.#answer === undefined) throw new MalformedAnswerError("no head");
    if (this.#lengthLeft > 0) throw new MalformedAnswerError("a body shorter than its length");
    const answer = this.#answer;
    this.close();
    answer.end();
  }

  /** It comes to nothing, or breaks off. */
  fail(error: Error): void {
    if (this.#isClosed) return;
    this.close();
    this.answered.reject(error);
    this.#answer?.fail(error);
  }

  /** Nothing comes any more. */
  close(): void {
    this.#isClosed = true;
    this.stopListening?.();
    this.upload?.stop();
    this.way.held(-this.#unread);
    this.#unread = 0;
  }

  // ---- the answer's calls ----

  pause(): void {}

  resume(): void {}

  cancel(): void {
    if (this.#isClosed) return;
    this.close();
    this.way.cancel(this);
  }

  taken(bytes: number): void {
    if (this.#isClosed) return;
    this.#unread -= bytes;
    this.way.held(-bytes);
    this.#give(bytes);
  }

  /** In few updates: each costs a frame. */
  #give(bytes: number): void {
    this.#taken += bytes;
    if (this.#taken < STREAM_WINDOW / 2) return;
    this.#window += this.#taken;
    this.way.credit(this, this.#taken);
    this.#taken = 0;
  }
}

/** The end of a stream whose answer was none. */
export function malformed(error: MalformedAnswerError): Http2Failure {
  return new Http2Failure("stream", `the API server's answer is malformed: ${error.message}`, { cause: error });
}
