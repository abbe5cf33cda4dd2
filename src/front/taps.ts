/**
 * What is learned from answers on their way down.
 *
 * A forwarded list seeds its scope, a forwarded object or discovery document
 * is recorded, and a refusal takes back what its caller could once read. The
 * client's bytes are never touched.
 */

import type { Gunzip } from "node:zlib";
import { passedThrough } from "../base/memory.ts";
import type { ListAdoption } from "../cache/list-adoption.ts";
import type { Scope } from "../cache/scope.ts";
import type { Word } from "../kube/whose-word.ts";
import type { StoredResponse } from "../store/contract.ts";
import type { UpstreamHeaders } from "../uplink/upstream-answer.ts";
import type { AnswerTap } from "./forward.ts";
import { decodeBody } from "./serve.ts";

/** Told of refusals. The caller hears of its own when this has resolved. */
export type OnRefused = (status: RefusedStatus) => Promise<void> | void;

/** The refusals that take something back; 404 where what is listed is not served any more. */
export type RefusedStatus = 401 | 403 | 404;

/** Told of the resourceVersion at which a list that claims to be recent stands. */
export type OnResourceVersion = (resourceVersion: string) => void;

/** metadata.resourceVersion at the start of a list or a Table, in the order in which Go's encoder writes metadata. */
const CURRENT_VERSION = /"metadata":\{(?:"[a-zA-Z]+":"[^"\\]*",)*"resourceVersion":"(\d+)"/;

/** So far into a list its resourceVersion is looked for. */
const START_BYTES = 1_024;

/** Looks for the resourceVersion in a list's first bytes, in whatever pieces they come. */
class ListStart {
  #text = "";
  #isOver = false;

  constructor(private readonly tell: OnResourceVersion) {}

  push(bytes: Uint8Array): void {
    if (this.#isOver) return;
    const most = Math.min(bytes.length, START_BYTES - this.#text.length);
    this.#text += Buffer.from(bytes.buffer, bytes.byteOffset, most).toString("latin1");
    const [, resourceVersion] = CURRENT_VERSION.exec(this.#text) ?? [];
    this.#isOver = resourceVersion !== undefined || this.#text.length >= START_BYTES;
    if (resourceVersion !== undefined) this.tell(resourceVersion);
  }
}

/** Seeds a scope from a forwarded list. */
export class ListTap implements AnswerTap {
  readonly takesWhole = false;
  #gunzip: Gunzip | undefined;
  #unfolded: (() => void) | undefined;
  #status = 0;
  #start: ListStart | undefined;
  #isPlain = true;
  #refusal: Promise<void> | void = undefined;

  constructor(
    private readonly scope: Scope | undefined,
    private readonly adoption: ListAdoption | undefined,
    private readonly onRefused: OnRefused,
    onResourceVersion: OnResourceVersion | undefined,
  ) {
    if (onResourceVersion !== undefined) this.#start = new ListStart(onResourceVersion);
  }

  head(status: number, headers: UpstreamHeaders, word: Word): boolean {
    this.#status = status;
    if (word === "refusal" && (status === 401 || status === 403 || status === 404)) {
      this.#refusal = this.onRefused(status);
      return true;
    }
    if (status !== 200 || word !== "answer") return false;
    const encoding = headers.get("content-encoding");
    this.#isPlain = encoding === null;
    if (encoding !== null && encoding !== "gzip") return true;
    if (this.adoption?.begin(headers.get("content-type") ?? "") === true && encoding === "gzip") {
      const { adoption } = this;
      // Loaded on demand: few lists are long enough to be compressed.
      this.#gunzip = (require("node:zlib") as typeof import("node:zlib")).createGunzip();
      this.#gunzip.on("data", (bytes: Uint8Array) => {
        passedThrough(bytes.length);
        this.#start?.push(bytes);
        adoption.push(bytes);
        if (!adoption.isReading) this.#stopUnfolding();
      });
      this.#gunzip.on("error", () => adoption.abort());
    }
    return true;
  }

  chunk(bytes: Uint8Array): void {
    if (this.#status !== 200) return;
    if (this.#isPlain) this.#start?.push(bytes);
    if (this.#gunzip !== undefined) this.#gunzip.write(bytes);
    else this.adoption?.push(bytes);
  }

  async end(): Promise<void> {
    await this.#refusal;
    if (this.#status !== 200) return;
    if (this.#gunzip !== undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#unfolded = resolve;
      this.#gunzip.once("end", resolve);
      this.#gunzip.once("error", () => resolve());
      this.#gunzip.end();
      await promise;
    }
    this.adoption?.end();
    // Paged or pretty-printed, it could not be adopted: the scope lists for itself, behind the client's back.
    if (this.scope?.isFollowing === false && !this.scope.adopting.isTaken) this.scope.ensureFresh().catch(() => {});
  }

  abort(): void {
    this.#stopUnfolding();
    this.adoption?.abort();
  }

  /** What is too large to be kept is not unfolded to its end. */
  #stopUnfolding(): void {
    this.#gunzip?.destroy();
    this.#gunzip = undefined;
    this.#unfolded?.();
  }
}

const MAX_RECORDED_BYTES = 8 * 1024 * 1024;
const RECORDED_HEADERS = ["content-type", "etag", "vary", "cache-control", "last-modified"];

/** How an answer is recorded. */
export interface RecordOptions {
  /** Keeps the answer. */
  readonly keep: (answer: Pick<StoredResponse, "headers" | "body">) => void;
  /** The very answer that was kept last: that it was given again has been noted. */
  readonly isSame: (answer: Pick<StoredResponse, "headers" | "body">, encoding: string | null) => boolean;
  /** A scope answers this object already: nothing needs recording. */
  readonly isKept: () => boolean;
  readonly onRefused: OnRefused;
  /** Called at 200. */
  readonly onAllowed: () => void;
  /** Called at 404: the recording is withdrawn. */
  readonly onGone: () => void;
  /** Runs something when the present turn is over. */
  readonly later: (task: () => void) => void;
}

/** Records a whole answer. */
export class RecordTap implements AnswerTap {
  readonly takesWhole = true;
  #parts: Uint8Array[] = [];
  #size = 0;
  #headers: Record<string, string> = {};
  #encoding: string | null = null;
  #isGivenUp = false;
  #refusal: Promise<void> | void = undefined;

  constructor(private readonly options: RecordOptions) {}

  head(status: number, headers: UpstreamHeaders, word: Word): boolean {
    if (word === "refusal" && (status === 401 || status === 403)) {
      this.#refusal = this.options.onRefused(status);
      this.#isGivenUp = true;
      return true;
    }
    if (word === "refusal" && status === 404) this.options.onGone();
    if (status !== 200 || word !== "answer") return false;
    this.options.onAllowed();
    this.#encoding = headers.get("content-encoding");
    for (const name of RECORDED_HEADERS) {
      const value = headers.get(name);
      if (value !== null) this.#headers[name] = value;
    }
    return true;
  }

  chunk(bytes: Uint8Array): void {
    this.#size += bytes.length;
    if (this.#size > MAX_RECORDED_BYTES) this.abort();
    if (!this.#isGivenUp) this.#parts.push(bytes);
  }

  end(): Promise<void> | void {
    if (this.#isGivenUp) return this.#refusal;
    const parts = this.#parts;
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    if (this.options.isSame(this.#answer(bytes), this.#encoding)) return;
    // After the client has its answer: recording must not cost it a millisecond.
    this.options.later(() => this.#record(bytes));
  }

  whole(bytes: Uint8Array): void {
    if (this.options.isSame(this.#answer(bytes), this.#encoding)) return;
    this.options.later(() => this.#record(bytes));
  }

  #answer(body: Uint8Array): Pick<StoredResponse, "headers" | "body"> {
    return { headers: this.#headers, body };
  }

  abort(): void {
    this.#isGivenUp = true;
    this.#parts = [];
  }

  #record(bytes: Uint8Array): void {
    if (this.options.isKept()) return;
    const body = decodeBody(bytes, this.#encoding);
    if (body === undefined || body.length > MAX_RECORDED_BYTES) return;
    this.options.keep({ headers: this.#headers, body });
  }
}
