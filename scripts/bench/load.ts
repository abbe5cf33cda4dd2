/**
 * A load client that costs little: HTTP/1.1 over one kept TLS connection each.
 */

import * as tls from "node:tls";

/** Where requests go and with what. */
export interface Target {
  readonly host: string;
  readonly port: number;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Default true. */
  readonly rejectUnauthorized?: boolean;
}

/** One kept connection; one request at a time. */
export class Connection {
  #socket: tls.TLSSocket;
  #parts: Buffer[] = [];
  #size = 0;
  #need = -1;
  #isChunked = false;
  #status = 0;
  #done: PromiseWithResolvers<{ status: number; bytes: number }> | undefined;

  private constructor(
    socket: tls.TLSSocket,
    private readonly target: Target,
  ) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    const fail = () => this.#done?.reject(new Error("connection lost"));
    socket.on("error", fail);
    socket.on("close", fail);
  }

  /** Opens a connection. */
  static async open(target: Target): Promise<Connection> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = tls.connect({ ...target, ALPNProtocols: ["http/1.1"] }, resolve);
    socket.once("error", reject);
    await promise;
    return new Connection(socket, target);
  }

  /** A GET; resolves when its last byte is here. */
  get(path: string): Promise<{ status: number; bytes: number }> {
    return this.#send(`GET ${path} HTTP/1.1\r\nHost: ${this.target.host}\r\nAccept: application/json\r\n\r\n`);
  }

  /** A POST of JSON. */
  post(path: string, body: string): Promise<{ status: number; bytes: number }> {
    return this.#write("POST", path, body);
  }

  /** A PUT of JSON. */
  put(path: string, body: string): Promise<{ status: number; bytes: number }> {
    return this.#write("PUT", path, body);
  }

  #write(method: string, path: string, body: string): Promise<{ status: number; bytes: number }> {
    const length = `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}`;
    return this.#send(`${method} ${path} HTTP/1.1\r\nHost: ${this.target.host}\r\n${length}\r\n\r\n${body}`);
  }

  #send(text: string): Promise<{ status: number; bytes: number }> {
    this.#done = Promise.withResolvers();
    this.#parts = [];
    this.#size = 0;
    this.#need = -1;
    this.#socket.write(text);
    return this.#done.promise;
  }

  /** Closes it. */
  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    if (this.#need < 0) {
      this.#parts.push(chunk);
      const head = Buffer.concat(this.#parts);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const text = head.subarray(0, end).toString("latin1");
      this.#status = Number(text.slice(9, 12));
      this.#isChunked = /transfer-encoding: *chunked/i.test(text);
      this.#need = this.#isChunked ? Number.MAX_SAFE_INTEGER : Number(/content-length: *(\d+)/i.exec(text)?.[1] ?? "0");
      chunk = head.subarray(end + 4);
      this.#parts = [];
    }
    this.#size += chunk.length;
    // The last chunk of a chunked body stands alone at the end of what arrives.
    const isDone = this.#isChunked
      ? chunk.length >= 5 && chunk.subarray(-5).equals(LAST_CHUNK)
      : this.#size >= this.#need;
    if (!isDone) return;
    const { resolve } = this.#done!;
    this.#done = undefined;
    resolve({ status: this.#status, bytes: this.#size });
  }
}

/**
 * Opens a watch on a connection of its own, whose bytes are read and thrown away; `fetch` would open 256 at most.
 *
 * @returns ends it.
 * @throws if the answer is not 200.
 */
export async function openStream(target: Target, path: string): Promise<() => void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = tls.connect({ ...target, ALPNProtocols: ["http/1.1"] }, () =>
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${target.host}\r\nAccept: application/json\r\n\r\n`),
  );
  socket.once("data", (start: Buffer) => {
    const status = start.toString("latin1", 9, 12);
    if (status === "200") resolve();
    else reject(new Error(`watch ${path} answered ${status}`));
  });
  socket.on("data", () => {});
  socket.on("error", reject);
  await promise;
  return () => void socket.destroy();
}

const LAST_CHUNK = Buffer.from("0\r\n\r\n");

/** What a run of requests took. */
export interface Timing {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly perSecond: number;
}

/**
 * Sends requests from several connections at once.
 *
 * @throws if any answer is not 200.
 */
export async function run(target: Target, path: string, requests: number, concurrency: number): Promise<Timing> {
  const connections = await Promise.all(Array.from({ length: concurrency }, () => Connection.open(target)));
  const times: number[] = [];
  let left = requests;
  const startedMs = performance.now();
  await Promise.all(
    connections.map(async (connection) => {
      while (left-- > 0) {
        const at = performance.now();
        const { status } = await connection.get(path);
        if (status !== 200) throw new Error(`GET ${path} answered ${status}`);
        times.push(performance.now() - at);
      }
    }),
  );
  const tookMs = performance.now() - startedMs;
  for (const connection of connections) connection.close();
  return { ...percentiles(times), perSecond: times.length / (tookMs / 1_000) };
}

/** The median and the 99th percentile of times in ms. */
export function percentiles(times: number[]): { p50Ms: number; p99Ms: number } {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}
