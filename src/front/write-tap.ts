/**
 * What is learned from the answer to a write: a refusal, success, and the
 * object as it stands now.
 */

import type { Word } from "../kube/whose-word.ts";
import type { UpstreamHeaders } from "../uplink/upstream-answer.ts";
import type { AnswerTap } from "./forward.ts";
import { MAX_WRITTEN_BYTES } from "../cache/own-writes.ts";
import type { RequestInfo } from "./request-info.ts";
import { decodeBody } from "./serve.ts";

/** These answer with the object itself; `scale`, `eviction`, `binding` and `token` with something else. */
const WHOLE_OBJECT: ReadonlySet<string> = new Set([
  "",
  "status",
  "finalize",
  "approval",
  "ephemeralcontainers",
  "resize",
]);
/** They are written every few seconds and are of no use while cut. */
const NOT_KEPT: ReadonlySet<string> = new Set(["leases", "events"]);
const WRITES: ReadonlySet<string> = new Set(["create", "update", "patch", "delete"]);

/** Whether the answer to this request leaves an object that its caller may read again. */
export function leavesObject({ verb, resource, subresource, query }: RequestInfo): boolean {
  return (
    WRITES.has(verb) &&
    resource !== "" &&
    WHOLE_OBJECT.has(subresource) &&
    !NOT_KEPT.has(resource) &&
    !query.has("dryRun")
  );
}

/** Who hears what. */
export interface WriteTapOptions {
  /** Runs something when the present turn is over. */
  readonly later: (task: () => void) => void;
  readonly onStatus: (status: number, word: Word) => void;
  /** Told of the whole answer to a write that went through; absent when nothing is kept of it. */
  readonly onWritten?: (contentType: string, body: Uint8Array) => void;
}

/** Sees the answer to a write go by. */
export class WriteTap implements AnswerTap {
  #parts: Uint8Array[] = [];
  #size = 0;
  #contentType = "";
  #encoding: string | null = null;

  constructor(private readonly options: WriteTapOptions) {}

  /** Where nothing is kept of it. */
  get takesWhole(): boolean {
    return this.options.onWritten === undefined;
  }

  head(status: number, headers: UpstreamHeaders, word: Word): boolean {
    this.options.onStatus(status, word);
    this.#contentType = headers.get("content-type") ?? "";
    this.#encoding = headers.get("content-encoding");
    return this.options.onWritten !== undefined && word === "answer" && status >= 200 && status < 300;
  }

  chunk(bytes: Uint8Array): void {
    this.#size += bytes.length;
    if (this.#size <= MAX_WRITTEN_BYTES) this.#parts.push(bytes);
    else this.#parts = [];
  }

  end(): void {
    if (this.#parts.length === 0) return;
    const bytes = Buffer.concat(this.#parts);
    // After the client has its answer.
    this.options.later(() => {
      const body = decodeBody(bytes, this.#encoding);
      if (body !== undefined) this.options.onWritten?.(this.#contentType, body);
    });
  }

  abort(): void {
    this.#parts = [];
  }
}
