/**
 * What an API server says to a request for an upgrade, read off the socket.
 *
 *   HTTP/1.1 101  ->  the head as it came, and the first bytes of the new protocol
 *   anything else ->  the whole answer, bounded; the connection is for nothing else (CVE-2018-1002105)
 */

import type { Duplex } from "node:stream";
import { ChunkedReader } from "../http1/chunked.ts";

/** The API server's answer. */
export type UpgradeAnswer =
  | { readonly isJoined: true; readonly head: Uint8Array; readonly early: Uint8Array }
  | {
      readonly isJoined: false;
      readonly status: number;
      readonly header: (name: string) => string | undefined;
      readonly body: Uint8Array;
    };

const MAX_HEAD_BYTES = 65_536;
/** A Status is far smaller; of a page that something else shows, this much tells. */
const MAX_BODY_BYTES = 65_536;

/**
 * Reads it. The socket is paused afterwards, with nobody listening to its bytes.
 *
 * @throws {Error} when the connection ends, or the signal aborts, before the answer was read; {RangeError} on a head without bound or sense.
 */
export async function readUpgradeAnswer(socket: Duplex, signal: AbortSignal): Promise<UpgradeAnswer> {
  const reader = new Reader(socket, signal);
  try {
    const { head, rest } = await reader.head();
    const [first = "", ...lines] = head.toString("latin1").trimEnd().split("\r\n");
    const [, code] = /^HTTP\/1\.1 ([1-5][0-9]{2})(?: |$)/.exec(first) ?? [];
    if (code === undefined) throw new RangeError("it does not answer in HTTP/1.1");
    if (code === "101") return { isJoined: true, head, early: rest };
    const header = headerOf(lines);
    return { isJoined: false, status: Number(code), header, body: await reader.body(rest, header) };
  } finally {
    reader.letGo();
  }
}

function headerOf(lines: readonly string[]): (name: string) => string | undefined {
  const byName = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    if (colon > 0 && !byName.has(name)) byName.set(name, line.slice(colon + 1).trim());
  }
  return (name) => byName.get(name);
}

/** Takes a socket's bytes as they come, until it is let go. */
class Reader {
  #bytes: Buffer = Buffer.alloc(0);
  #ended: Error | undefined;
  #wake = () => {};

  constructor(
    private readonly socket: Duplex,
    private readonly signal: AbortSignal,
  ) {
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onEnd);
    signal.addEventListener("abort", this.#onAbort, { once: true });
    if (signal.aborted) this.#onAbort();
  }

  async head(): Promise<{ readonly head: Buffer; readonly rest: Buffer }> {
    for (;;) {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end >= 0) return { head: this.#bytes.subarray(0, end + 4), rest: this.#bytes.subarray(end + 4) };
      if (this.#bytes.length > MAX_HEAD_BYTES) throw new RangeError("its answer's head has no end");
      await this.#more();
    }
  }

  /** As much of the body as is kept; ends with it, at the bound, or where the connection ends. */
  async body(rest: Buffer, header: (name: string) => string | undefined): Promise<Uint8Array> {
    this.#bytes = rest;
    const parts: Uint8Array[] = [];
    const chunked = header("transfer-encoding")?.toLowerCase() === "chunked" ? new ChunkedReader() : undefined;
    const length = Number(header("content-length") ?? Number.NaN);
    let size = 0;
    const keep = (bytes: Uint8Array) => {
      parts.push(Uint8Array.from(bytes));
      size += bytes.length;
    };
    for (;;) {
      const bytes = this.#bytes;
      this.#bytes = Buffer.alloc(0);
      if (chunked === undefined) keep(bytes);
      else chunked.push(bytes, keep);
      const isWhole = chunked === undefined ? size >= length : chunked.isDone;
      if (isWhole || size >= MAX_BODY_BYTES || this.#ended !== undefined) break;
      await this.#more();
    }
    if (this.signal.aborted) throw this.#ended;
    const end = Number.isNaN(length) ? MAX_BODY_BYTES : Math.min(length, MAX_BODY_BYTES);
    return Buffer.concat(parts).subarray(0, end);
  }

  letGo(): void {
    this.socket.pause();
    this.socket.off("data", this.#onData);
    this.socket.off("end", this.#onEnd);
    this.socket.off("close", this.#onEnd);
    this.signal.removeEventListener("abort", this.#onAbort);
  }

  /** Waits for bytes or the end. @throws {Error} when it has ended before. */
  async #more(): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  readonly #onData = (bytes: Buffer) => {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    this.#wake();
  };

  readonly #onEnd = () => {
    this.#ended ??= new Error("the connection was closed before an answer");
    this.#wake();
  };

  readonly #onAbort = () => {
    this.#ended ??= this.signal.reason instanceof Error ? this.signal.reason : new Error("given up");
    this.#wake();
  };
}
