/**
 * A relay in front of the API server that writes down what a client asks:
 * a program of its own, started at the edge by `record-kubelet.ts`.
 *
 * It takes the client's requests over TLS, sends each as it came with a client
 * certificate of its own, and hands the answer back as it comes. One line of
 * JSON per request goes to the log when its answer's head is there: the request
 * whole, of the answer the status alone. HTTP/1.1 both ways: what is asked is
 * the same, and a watch is a connection.
 */
import { appendFileSync, readFileSync } from "node:fs";
import * as https from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";

/** Its one argument, as JSON; certificates and keys are paths. */
export interface RelayOptions {
  readonly port: number;
  readonly serving: { readonly cert: string; readonly key: string };
  readonly upstream: { readonly host: string; readonly port: number; readonly ca: string };
  readonly client: { readonly cert: string; readonly key: string };
  readonly log: string;
}

/** One request as it came. */
export interface RelayedRequest {
  readonly method: string;
  readonly target: string;
  /** Those that decide about the answer, in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Base64. */
  readonly body: string;
  /** The API server's answer. */
  readonly status: number;
}

const RECORDED_HEADERS = ["accept", "accept-encoding", "content-type", "user-agent"];
const HOP_BY_HOP = new Set(["connection", "keep-alive", "transfer-encoding", "host", "content-length"]);

/** Starts the relay; it runs until its process ends. */
function serve(options: RelayOptions): void {
  const read = (path: string) => readFileSync(path, "utf8");
  const { upstream } = options;
  const agent = new https.Agent({
    keepAlive: true,
    ca: read(upstream.ca),
    cert: read(options.client.cert),
    key: read(options.client.key),
  });
  const relay = async (request: IncomingMessage, response: ServerResponse) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const { host, port } = upstream;
    const sent = https.request({
      host,
      port,
      agent,
      method: request.method,
      path: request.url,
      headers: { ...withoutHopByHop(request.headers), host: `${host}:${port}`, "content-length": body.length },
    });
    sent.on("response", (answer: IncomingMessage) => {
      writeDown(options.log, request, body, answer.statusCode ?? 0);
      response.writeHead(answer.statusCode ?? 502, withoutHopByHop(answer.headers));
      response.flushHeaders();
      answer.on("data", (part: Buffer) => response.write(part));
      answer.on("end", () => response.end());
      answer.on("error", () => response.destroy());
    });
    sent.on("error", () => response.destroy());
    response.on("close", () => sent.destroy());
    sent.end(body);
  };
  const server = https.createServer(
    { cert: read(options.serving.cert), key: read(options.serving.key) },
    (request, response) => void relay(request, response).catch(() => response.destroy()),
  );
  // A connection that the client may still be writing to is not ours to end.
  server.keepAliveTimeout = 600_000;
  server.listen(options.port, "127.0.0.1", () => console.log("ready"));
}

function withoutHopByHop(headers: IncomingMessage["headers"]): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined || HOP_BY_HOP.has(name) ? [] : [[name, value] as const],
    ),
  );
}

function writeDown(log: string, request: IncomingMessage, body: Buffer, status: number): void {
  const headers = Object.fromEntries(
    RECORDED_HEADERS.flatMap((name) => {
      const value = request.headers[name];
      return value === undefined ? [] : [[name, String(value)] as const];
    }),
  );
  const line: RelayedRequest = {
    method: request.method ?? "",
    target: request.url ?? "",
    headers,
    body: body.toString("base64"),
    status,
  };
  appendFileSync(log, `${JSON.stringify(line)}\n`);
}

if (import.meta.main) serve(JSON.parse(process.argv[2] ?? "{}") as RelayOptions);
