/**
 * A plain HTTP/1.1 client for any API server: no Kubernetes knowledge beyond
 * splitting a watch stream into frames.
 */

import { Agent, request, type RequestOptions } from "node:https";
import type { IncomingHttpHeaders } from "node:http";
import { gunzipSync } from "node:zlib";

/** Where a server is and with what to enter. */
export interface Target {
  readonly url: string;
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
}

/** What a call may add. `body` is sent as JSON unless it is bytes or text. */
export interface Call {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
}

/** A whole answer; `bytes` are decoded if they were gzipped, `rawBytes` are as on the wire. */
export class Reply {
  constructor(
    readonly status: number,
    readonly headers: IncomingHttpHeaders,
    readonly rawBytes: Buffer,
  ) {}

  get bytes(): Buffer {
    return this.headers["content-encoding"] === "gzip" ? gunzipSync(this.rawBytes) : this.rawBytes;
  }
  get text(): string {
    return this.bytes.toString("utf8");
  }
  get json(): any {
    return JSON.parse(this.text);
  }
}

/** One JSON watch event. */
export interface Event {
  readonly type: string;
  readonly object: any;
}

/** A watch stream being read. */
export interface OpenWatch extends Disposable {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** The next event. @throws when the stream ends first. */
  next(): Promise<Event>;
  /** Events up to the first that satisfies `isLast`, which is included. */
  until(isLast: (event: Event) => boolean): Promise<Event[]>;
  /** Everything until the stream ends. */
  rest(): Promise<Event[]>;
}

/** Calls one server; keeps connections open until closed. */
export class Client implements Disposable {
  readonly #agent: Agent;

  constructor(readonly target: Target) {
    const { ca, cert, key } = target;
    this.#agent = new Agent({ keepAlive: true, ca, ...(cert ? { cert } : {}), ...(key ? { key } : {}) });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Reply> {
    return this.call(path, { headers });
  }

  async call(path: string, call: Call = {}): Promise<Reply> {
    const response = await this.#open(path, call);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    return new Reply(response.statusCode ?? 0, response.headers, Buffer.concat(chunks));
  }

  /** Opens a JSON watch that was asked for uncompressed. */
  async watch(path: string, headers: Record<string, string> = {}): Promise<OpenWatch> {
    const response = await this.#open(path, { headers });
    const events: Event[] = [];
    const waiting: (() => void)[] = [];
    let text = "";
    let isOver = false;
    const wake = () => waiting.splice(0).forEach((resolve) => resolve());
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        if (end > 0) events.push(JSON.parse(text.slice(0, end)) as Event);
        text = text.slice(end + 1);
      }
      wake();
    });
    response.on("close", () => ((isOver = true), wake()));
    response.on("end", () => ((isOver = true), wake()));
    response.on("error", () => ((isOver = true), wake()));
    const next = async (): Promise<Event> => {
      for (;;) {
        const event = events.shift();
        if (event) return event;
        if (isOver) throw new Error(`watch ended${text ? ` within ${text}` : ""}`);
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
    };
    const until = async (isLast: (event: Event) => boolean) => {
      const seen: Event[] = [];
      for (;;) {
        seen.push(await next());
        if (isLast(seen.at(-1)!)) return seen;
      }
    };
    const rest = async () => {
      while (!isOver) await new Promise<void>((resolve) => waiting.push(resolve));
      return events.splice(0);
    };
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      next,
      until,
      rest,
      [Symbol.dispose]: () => void response.destroy(),
    };
  }

  async #open(
    path: string,
    { method = "GET", headers = {}, body }: Call,
  ): Promise<import("node:http").IncomingMessage> {
    const { url, token } = this.target;
    const isRaw = typeof body === "string" || body instanceof Uint8Array;
    const bytes =
      body === undefined ? undefined : isRaw ? Buffer.from(body as Uint8Array) : Buffer.from(JSON.stringify(body));
    const all: Record<string, string> = {
      accept: "application/json",
      "user-agent": "contract",
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(bytes ? { "content-type": "application/json", "content-length": String(bytes.length) } : {}),
      ...headers,
    };
    const options: RequestOptions = { method, headers: all, agent: this.#agent };
    return await new Promise((resolve, reject) => {
      const sent = request(new URL(path, url), options, resolve);
      sent.on("error", reject);
      sent.end(bytes);
    });
  }
}

/** Whether `isTrue` comes to hold; asks again until it does or the test's own deadline ends it. */
export async function eventually<T>(ask: () => Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    await Bun.sleep(20);
  }
}
