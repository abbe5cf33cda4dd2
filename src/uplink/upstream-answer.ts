/**
 * An answer from upstream, let in only when it is the API server's.
 *
 * As much of the body is read as tells whose word it is (`kube/whose-word.ts`):
 * for a watch, a log or an exec nothing beyond the head, for an object its
 * first bytes, for a small answer all of it. What answers in the API server's
 * place never gets further than here, whoever asked: a client, a scope, or we
 * ourselves for our own node.
 */

import type { PlainAnswer } from "../http1/response-head.ts";
import { TELLING_BYTES, whoseWord, type AskedForm, type Word } from "../kube/whose-word.ts";
import { ForeignAnswerError, UnreachableError } from "./scope-source.ts";

/** Header lines of an answer. */
export interface UpstreamHeaders {
  /** Values of a name that is there twice are joined by commas; null for none. */
  get(name: string): string | null;
  /** Names as they came. */
  toJSON(): Record<string, string | string[]>;
}

/** A body as it comes. */
export interface UpstreamBody extends AsyncIterable<Uint8Array> {
  getReader(): {
    read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>;
    cancel(): Promise<void>;
  };
  /** Wants no more of it. */
  cancel(): void | Promise<void>;
}

/** An answer that nobody has judged yet: the runtime's `Response`, or the pool's own. */
export interface UpstreamResponse {
  readonly status: number;
  readonly headers: UpstreamHeaders;
  /** null where the answer cannot have one. */
  readonly body: UpstreamBody | null;
  /** All of the body, where it is here already. */
  readonly whole?: Uint8Array | undefined;
  /** The answer as it came, where it may be passed on like that. */
  readonly plain?: PlainAnswer | undefined;
  /** As it was judged and taken, in the turn in which it came. */
  readonly taken?: UpstreamAnswer | undefined;
  bytes(): Promise<Uint8Array>;
}

/** An answer of the API server, and whose word it is. */
export interface UpstreamAnswer {
  readonly status: number;
  readonly headers: UpstreamHeaders;
  /** Only a refusal takes anything back, only an answer is kept. */
  readonly word: Exclude<Word, "foreign">;
  /** As it came, not decoded; null for none. May be read once, this or `bytes` or `text`. */
  readonly body: UpstreamBody | null;
  /** All of the body, where it is here already. */
  readonly whole?: Uint8Array | undefined;
  /** The answer as it came, where it may be passed on like that; whoever changes anything leaves it out. */
  readonly plain?: PlainAnswer | undefined;
  bytes(): Promise<Uint8Array>;
  text(): Promise<string>;
}

/** Up to here an answer is read whole before it is judged; it costs no more than reading it later. */
const SMALL_BYTES = 64 * 1024;
/** Deflate unfolds a thousandfold at most, so what is looked at stays below two megabytes. */
const ZIPPED_BYTES = 2_048;

/**
 * Judges an answer.
 *
 * @throws {ForeignAnswerError} when it is not the API server's.
 * @throws {UnreachableError} when it breaks off before it has told.
 */
export function admitted(
  response: UpstreamResponse,
  asked: AskedForm,
  isHead: boolean,
): UpstreamAnswer | Promise<UpstreamAnswer> {
  if (response.taken !== undefined) return response.taken;
  const body = isHead ? null : response.body;
  const whole = body === null ? undefined : response.whole;
  if (whole !== undefined) return judgedWhole(response, asked, whole);
  const atOnce = whoseWord(asked, { ...headOf(response), start: NOTHING, isWhole: body === null });
  if (atOnce !== undefined) return new Answer(known(atOnce, response), response, body);
  return admittedLater(response, asked);
}

/** The API server's answer to the question asked, if it is here whole and is one; undefined for anything else, a refusal too. */
export function admittedAtOnce(response: UpstreamResponse, asked: AskedForm): UpstreamAnswer | undefined {
  const { whole } = response;
  if (whole === undefined) return undefined;
  const start = uncoded(whole, response.headers);
  const word = whoseWord(asked, { ...headOf(response), start, isWhole: true });
  return word === "answer" ? new WholeAnswer(word, response, whole) : undefined;
}

function headOf({ status, headers }: UpstreamResponse): { status: number; header(name: string): string | null } {
  return { status, header: (name: string) => headers.get(name) };
}

function judgedWhole(response: UpstreamResponse, asked: AskedForm, bytes: Uint8Array): UpstreamAnswer {
  const start = uncoded(bytes, response.headers);
  const word = whoseWord(asked, { ...headOf(response), start, isWhole: true });
  return new WholeAnswer(known(word, response), response, bytes);
}

async function admittedLater(response: UpstreamResponse, asked: AskedForm): Promise<UpstreamAnswer> {
  const { headers } = response;
  const head = headOf(response);
  const length = Number(headers.get("content-length") ?? Number.POSITIVE_INFINITY);
  if (length <= SMALL_BYTES) {
    const bytes = await response.bytes();
    if (bytes.length !== length) throw new UnreachableError("The API server's answer broke off");
    return judgedWhole(response, asked, bytes);
  }
  const reader = response.body!.getReader();
  let seen: Uint8Array = NOTHING;
  let judgeAt = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (value !== undefined) seen = seen.length === 0 ? value : Buffer.concat([seen, value]);
    const isWhole = done || seen.length >= TELLING_BYTES;
    // Judged again when as much has come once more: bytes that trickle in must not cost their square.
    if (!isWhole && seen.length < judgeAt) continue;
    judgeAt = 2 * seen.length;
    const word = whoseWord(asked, { ...head, start: uncoded(seen, headers), isWhole });
    if (word === undefined) continue;
    if (word === "foreign") void reader.cancel().catch(() => {});
    return new Answer(known(word, response), response, rest(seen, reader, done));
  }
}

const NOTHING = new Uint8Array(0);

function known(word: Word | undefined, { status, headers, body }: UpstreamResponse): Exclude<Word, "foreign"> {
  if (word !== undefined && word !== "foreign") return word;
  if (body !== null) void Promise.resolve(body.cancel()).catch(() => {});
  const type = (headers.get("content-type") ?? "").split(";", 1)[0]!.slice(0, 64);
  throw new ForeignAnswerError(
    `Something else answers for the API server (${status}${type === "" ? "" : `, ${type}`}): a proxy, a firewall or a login page in the way`,
  );
}

/** What a body's first bytes say when they are not compressed; of an encoding that nobody asked for, nothing. */
function uncoded(bytes: Uint8Array, headers: UpstreamHeaders): Uint8Array {
  const encoding = headers.get("content-encoding");
  if (encoding === null || encoding === "identity" || bytes.length === 0) return bytes;
  if (encoding !== "gzip") return NOTHING;
  // Loaded on demand: few answers are long enough to be compressed.
  const { constants, gunzipSync } = require("node:zlib") as typeof import("node:zlib");
  try {
    return gunzipSync(bytes.subarray(0, ZIPPED_BYTES), { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return NOTHING;
  }
}

/** What was looked at, and then what follows. */
function rest(
  seen: Uint8Array,
  reader: ReturnType<UpstreamBody["getReader"]>,
  isDone: boolean,
): ReadableStream<Uint8Array> {
  let first: Uint8Array | undefined = seen;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (first !== undefined && first.length > 0) {
          controller.enqueue(first);
          first = undefined;
          if (isDone) controller.close();
          return;
        }
        const { done, value } = isDone ? { done: true, value: undefined } : await reader.read();
        if (done) controller.close();
        else controller.enqueue(value!);
      },
      cancel: () => reader.cancel(),
    },
    { highWaterMark: 0 },
  );
}

async function bytesOf(body: UpstreamBody | null): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of body ?? []) parts.push(part);
  return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
}

/** One whose body is still to come. */
class Answer implements UpstreamAnswer {
  constructor(
    readonly word: UpstreamAnswer["word"],
    private readonly response: UpstreamResponse,
    readonly body: UpstreamBody | null,
  ) {}

  get status(): number {
    return this.response.status;
  }

  get headers(): UpstreamHeaders {
    return this.response.headers;
  }

  bytes(): Promise<Uint8Array> {
    return this.body === this.response.body ? this.response.bytes() : bytesOf(this.body);
  }

  async text(): Promise<string> {
    return Buffer.from(await this.bytes()).toString("utf8");
  }
}

/** One that is here. */
class WholeAnswer implements UpstreamAnswer {
  constructor(
    readonly word: UpstreamAnswer["word"],
    private readonly response: UpstreamResponse,
    readonly whole: Uint8Array,
  ) {}

  get status(): number {
    return this.response.status;
  }

  get headers(): UpstreamHeaders {
    return this.response.headers;
  }

  get plain(): PlainAnswer | undefined {
    return this.response.plain;
  }

  get body(): UpstreamBody {
    return new Response(this.whole as Uint8Array<ArrayBuffer>).body as unknown as UpstreamBody;
  }

  bytes(): Promise<Uint8Array> {
    return Promise.resolve(this.whole);
  }

  text(): Promise<string> {
    return Promise.resolve(Buffer.from(this.whole).toString("utf8"));
  }
}
