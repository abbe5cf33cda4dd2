/**
 * A client as plain as they come: node:https, no cleverness that could hide a fault.
 */

import * as https from "node:https";
import type { IncomingHttpHeaders } from "node:http";

/** What a client proves itself with, and whom it trusts. */
export interface ClientOptions {
  readonly url: string;
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
}

/** A whole answer. */
export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  json<T = any>(): T;
}

/** One event of a JSON watch. */
export interface JsonEvent {
  readonly type: string;
  readonly object: any;
}

/** An open watch: events as they come. */
export interface OpenWatch {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Everything received so far. */
  readonly events: JsonEvent[];
  /** Resolves when `isThere` holds; rejects after `timeoutMs` with what was received. */
  until(isThere: (events: readonly JsonEvent[]) => boolean, timeoutMs?: number): Promise<void>;
  readonly ended: Promise<"clean" | "broken">;
  readonly isOpen: boolean;
  close(): void;
}

/** Requests over one keep-alive agent. */
export class Client {
  #agent: https.Agent;

  constructor(readonly options: ClientOptions) {
    this.#agent = this.#newAgent();
  }

  /** Drops kept connections; the next request opens a new one. */
  close(): void {
    this.#agent.destroy();
    this.#agent = this.#newAgent();
  }

  #newAgent(): https.Agent {
    const { ca, cert, key } = this.options;
    return new https.Agent({ keepAlive: true, ca, ...(cert === undefined ? {} : { cert, key }) });
  }

  request(
    method: string,
    target: string,
    init: { headers?: Record<string, string>; body?: string | Uint8Array; agent?: false } = {},
  ): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const outgoing = https.request(this.#requestOptions(method, target, init.headers, init.agent), (incoming) => {
      const parts: Buffer[] = [];
      incoming.on("data", (part: Buffer) => parts.push(part));
      incoming.on("error", reject);
      incoming.on("aborted", () => reject(new Error("answer broken off")));
      incoming.on("end", () => {
        if (!incoming.complete) return reject(new Error("answer broken off"));
        const body = Buffer.concat(parts);
        resolve({
          status: incoming.statusCode!,
          headers: incoming.headers,
          body,
          json: () => JSON.parse(body.toString("utf8")),
        });
      });
    });
    outgoing.on("error", reject);
    outgoing.end(init.body);
    return promise;
  }

  get(target: string, headers?: Record<string, string>): Promise<Reply> {
    return this.request("GET", target, headers === undefined ? {} : { headers });
  }

  /** Opens a JSON watch and resolves with its head. */
  watch(target: string, headers: Record<string, string> = {}): Promise<OpenWatch> {
    const { promise, resolve, reject } = Promise.withResolvers<OpenWatch>();
    const outgoing = https.request(this.#requestOptions("GET", target, headers, false), (incoming) => {
      const events: JsonEvent[] = [];
      const waiting = new Set<() => void>();
      const ended = Promise.withResolvers<"clean" | "broken">();
      let isOpen = true;
      let text = "";
      incoming.setEncoding("utf8");
      incoming.on("data", (part: string) => {
        text += part;
        for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
          const line = text.slice(0, end);
          text = text.slice(end + 1);
          if (line.trim() !== "") events.push(JSON.parse(line));
        }
        for (const check of waiting) check();
      });
      const end = (how: "clean" | "broken") => {
        isOpen = false;
        ended.resolve(how);
        for (const check of waiting) check();
      };
      incoming.on("end", () => end(incoming.complete ? "clean" : "broken"));
      incoming.on("error", () => end("broken"));
      incoming.on("aborted", () => end("broken"));
      resolve({
        status: incoming.statusCode!,
        headers: incoming.headers,
        events,
        ended: ended.promise,
        get isOpen() {
          return isOpen;
        },
        close: () => outgoing.destroy(),
        async until(isThere, timeoutMs = 15_000) {
          const done = Promise.withResolvers<void>();
          const check = () => isThere(events) && done.resolve();
          waiting.add(check);
          const timer = setTimeout(
            () =>
              done.reject(
                new Error(
                  `not within ${timeoutMs} ms; received: ${events.map(({ type, object }) => `${type} ${object?.metadata?.name ?? ""}@${object?.metadata?.resourceVersion ?? ""}`).join(", ")}`,
                ),
              ),
            timeoutMs,
          );
          check();
          try {
            await done.promise;
          } finally {
            clearTimeout(timer);
            waiting.delete(check);
          }
        },
      });
    });
    outgoing.on("error", reject);
    outgoing.end();
    return promise;
  }

  #requestOptions(
    method: string,
    target: string,
    headers: Record<string, string> = {},
    agent?: false,
  ): https.RequestOptions {
    const { url, ca, cert, key, token } = this.options;
    const { hostname, port } = new URL(url);
    return {
      method,
      host: hostname.replace(/^\[|\]$/g, ""),
      port: Number(port),
      path: target,
      ca,
      ...(cert === undefined ? {} : { cert, key }),
      agent: agent === false ? new https.Agent({ ca, ...(cert === undefined ? {} : { cert, key }) }) : this.#agent,
      headers: {
        Accept: "application/json",
        ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
        ...headers,
      },
    };
  }
}

/** Waits until a condition holds; never a fixed time. */
export async function eventually<T>(
  ask: () => T | Promise<T>,
  isTrue: (value: T) => boolean = Boolean,
  timeoutMs = 15_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await ask();
    if (isTrue(value)) return value;
    if (performance.now() > deadline)
      throw new Error(`not within ${timeoutMs} ms; last: ${JSON.stringify(value)?.slice(0, 500)}`);
    await Bun.sleep(20);
  }
}
