/**
 * One request and its answer, over HTTP/1.1 or HTTP/2 alike, with the faults
 * that were ordered for it.
 */

import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";
import type { ServerResponse } from "node:http";
import { badRequest, Failure, statusObject } from "./failure.ts";
import type { ForeignAnswer } from "./faults.ts";
import { mediaRanges, PROTOBUF_TYPE } from "./negotiate.ts";
import { goJson, protobufStatus } from "./render.ts";
import type { RequestInfo, User } from "./request.ts";
import { isObject, type Json, type JsonObject } from "./schema.ts";

/** As kube-apiserver: smaller answers are never compressed. */
const GZIP_THRESHOLD_BYTES = 128 * 1024;
const MAX_BODY_BYTES = 3 * 1024 * 1024;

/** How an answer's body is to be spoilt. */
export type BodyFault = "stall" | "truncate";

/** One request and its answer. */
export class Exchange {
  user: User = { name: "system:anonymous", groups: ["system:unauthenticated"] };
  bodyFault: BodyFault | undefined;
  readonly query: URLSearchParams;
  status = 0;
  bytesSent = 0;

  constructor(
    readonly request: IncomingMessage | Http2ServerRequest,
    readonly response: ServerResponse | Http2ServerResponse,
    readonly info: RequestInfo,
  ) {
    this.query = new URL(request.url ?? "/", "https://api.invalid").searchParams;
  }

  get method(): string {
    return this.request.method ?? "GET";
  }

  header(name: string): string {
    const value = this.request.headers[name];
    return Array.isArray(value) ? value.join(", ") : (value ?? "");
  }

  acceptsGzip(): boolean {
    return this.header("accept-encoding")
      .split(",")
      .some((coding) => coding.split(";")[0]!.trim() === "gzip");
  }

  /** The whole body. @throws {Failure} 413 beyond 3 MiB. */
  async body(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of this.request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_BODY_BYTES)
        throw new Failure(
          statusObject(413, "RequestEntityTooLarge", `Request entity too large: limit is ${MAX_BODY_BYTES}`),
        );
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** The body as a JSON object. @throws {Failure} 400. */
  async jsonBody(): Promise<JsonObject> {
    const value = parseJson(await this.body());
    if (!isObject(value)) throw badRequest("the object provided is unrecognized (must be of type Object)");
    return value;
  }

  /** Sends a whole answer, compressed when it is large and the client agrees. */
  send(code: number, contentType: string, body: Uint8Array, headers: Record<string, string> = {}): void {
    const isZipped = body.length > GZIP_THRESHOLD_BYTES && this.acceptsGzip();
    const bytes = isZipped ? gzipSync(body, { level: 1 }) : body;
    const encoding: Record<string, string> = isZipped ? { "content-encoding": "gzip", vary: "Accept-Encoding" } : {};
    // Go's server knows the length only of what fits its 2 KiB buffer
    const length: Record<string, string> = bytes.length <= 2048 ? { "content-length": String(bytes.length) } : {};
    this.head(code, { "content-type": contentType, ...encoding, ...length, ...headers });
    if (this.method === "HEAD") return this.end();
    if (this.bodyFault) return this.#spoil(bytes, this.bodyFault);
    if (bytes.length > 0) this.write(bytes);
    this.end();
  }

  /** Sends JSON, for answers that are no stored objects. */
  sendJson(code: number, value: Json, headers: Record<string, string> = {}): void {
    this.send(
      code,
      "application/json",
      Buffer.from(this.#isPretty() ? JSON.stringify(value, null, 2) : `${goJson(value)}\n`),
      headers,
    );
  }

  sendText(code: number, text: string): void {
    this.send(code, "text/plain; charset=utf-8", Buffer.from(text), { "x-content-type-options": "nosniff" });
  }

  /** Sends a v1 Status as JSON, or as protobuf to who wants nothing else first. */
  sendStatus(code: number, status: JsonObject, headers: Record<string, string> = {}): void {
    const wantsProtobuf = mediaRanges(this.header("accept"))[0]?.type === PROTOBUF_TYPE;
    if (wantsProtobuf) this.send(code, PROTOBUF_TYPE, protobufStatus(status), headers);
    else this.sendJson(code, status, headers);
  }

  /** Answers as something else would. */
  sendForeign({ status, body = "", headers = {} }: ForeignAnswer): void {
    this.status = status;
    const response = this.response as ServerResponse;
    response.writeHead(status, { "content-type": "text/html", "content-length": Buffer.byteLength(body), ...headers });
    response.end(this.method === "HEAD" ? undefined : body);
  }

  head(code: number, headers: Record<string, string>): void {
    this.status = code;
    (this.response as ServerResponse).writeHead(code, {
      "audit-id": randomUUID(),
      "cache-control": "no-cache, private",
      date: new Date().toUTCString(),
      ...headers,
    });
    (this.response as ServerResponse).flushHeaders?.();
  }

  write(bytes: Uint8Array): void {
    this.bytesSent += bytes.length;
    (this.response as ServerResponse).write(bytes);
  }

  end(): void {
    (this.response as ServerResponse).end();
  }

  /** Ends the answer as a broken connection does. */
  destroy(): void {
    const { response } = this;
    if ("stream" in response && response.stream)
      response.stream.destroy(new Error("cut")); // close(2) would end the body cleanly first
    else (response as ServerResponse).socket?.destroy();
  }

  #spoil(bytes: Uint8Array, fault: BodyFault): void {
    const half = bytes.subarray(0, Math.floor(bytes.length / 2));
    this.bytesSent += half.length;
    (this.response as ServerResponse).write(half, () => fault === "truncate" && this.destroy());
  }

  #isPretty(): boolean {
    const asked = this.query.get("pretty");
    return asked === null ? this.header("user-agent").startsWith("curl") : asked !== "false" && asked !== "0";
  }
}

/** JSON from bytes. @throws {Failure} 400 with the parser's words. */
export function parseJson(bytes: Uint8Array): Json {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8")) as Json;
  } catch (error) {
    throw badRequest(`couldn't get version/kind; json parse error: ${(error as Error).message}`);
  }
}
