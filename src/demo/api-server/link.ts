/**
 * A wire between a client and a server that can be cut, silenced and slowed.
 *
 * A raw TCP relay: it knows no TLS and no HTTP. Three states:
 *
 *   up       bytes pass, after `latencyMs`, at no more than `bytesPerSecond`
 *   dropped  a black hole: connections are accepted and stay open, nothing
 *            moves. Bytes are held back, not thrown away, because TCP would
 *            retransmit them; after heal() they arrive.
 *   cut      every connection is reset and new ones are refused
 *
 * The port survives a cut, so a healed server is found where it was.
 */

import { connect, createServer, type Server, type Socket } from "node:net";

/** Where a link leads and how good the wire is; the wire is perfect by default. */
export interface LinkOptions {
  readonly to: { readonly host?: string; readonly port: number };
  /** Where to listen; 127.0.0.1 and a free port by default. */
  readonly host?: string;
  readonly port?: number;
  /** One-way delay. */
  readonly latencyMs?: number;
  /** Each way; 0 (the default) is unlimited. */
  readonly bytesPerSecond?: number;
}

/** A running relay. */
export interface Link extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly state: "up" | "dropped" | "cut";
  /** May be changed at any time; counts for bytes that arrive from then on. */
  latencyMs: number;
  bytesPerSecond: number;
  /** Bytes from clients to the server, and back, since the start. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** Connections open now, and accepted since the start. */
  readonly connections: number;
  readonly accepted: number;
  /** Resets every connection and refuses new ones; resolves when the port is closed. */
  cut(): Promise<void>;
  /** A black hole from now on; connections stay open. */
  drop(): void;
  /** The wire is up again; what a drop held back is delivered. Resolves when the port listens. */
  heal(): Promise<void>;
  /** Resets the present connections, once; the link stays in its state. */
  reset(): void;
}

/** Starts a relay. @throws if the port is taken. */
export async function startLink(options: LinkOptions): Promise<Link> {
  const link = new Relay(options);
  await link.listen();
  return link;
}

class Relay implements Link {
  readonly host: string;
  port: number;
  state: "up" | "dropped" | "cut" = "up";
  latencyMs: number;
  bytesPerSecond: number;
  bytesUp = 0;
  bytesDown = 0;
  accepted = 0;
  readonly #to: { host: string; port: number };
  readonly #sockets = new Set<Socket>();
  readonly #flows = new Set<Flow>();
  #server: Server | undefined;

  constructor({ to, host = "127.0.0.1", port = 0, latencyMs = 0, bytesPerSecond = 0 }: LinkOptions) {
    this.#to = { host: to.host ?? "127.0.0.1", port: to.port };
    this.host = host;
    this.port = port;
    this.latencyMs = latencyMs;
    this.bytesPerSecond = bytesPerSecond;
  }

  get connections(): number {
    return this.#sockets.size / 2;
  }

  async listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => this.#accept(near));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.port, this.host, resolve);
    });
    this.port = (server.address() as { port: number }).port;
    this.#server = server;
  }

  async cut(): Promise<void> {
    this.state = "cut";
    const server = this.#server;
    this.#server = undefined;
    const closed = server && new Promise<void>((resolve) => server.close(() => resolve()));
    this.reset();
    await closed;
  }

  drop(): void {
    this.state = "dropped";
    for (const flow of this.#flows) flow.pause();
  }

  async heal(): Promise<void> {
    if (!this.#server) await this.listen();
    this.state = "up";
    for (const flow of this.#flows) flow.resume();
  }

  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cut();
  }

  #accept(near: Socket): void {
    this.accepted++;
    const far = connect({ ...this.#to, allowHalfOpen: true, noDelay: true });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
    const flows = [
      new Flow(near, far, this, (bytes) => (this.bytesUp += bytes)),
      new Flow(far, near, this, (bytes) => (this.bytesDown += bytes)),
    ];
    for (const flow of flows) {
      this.#flows.add(flow);
      if (this.state === "dropped") flow.pause();
    }
    near.on("close", () => flows.forEach((flow) => this.#flows.delete(flow)));
  }
}

/**
 * One direction of one connection, in order. Reading stops while anything is
 * in hand, so that TCP holds the rest back; a chunk that arrives all the same
 * waits its turn.
 */
class Flow {
  readonly #queue: (Buffer | undefined)[] = [];
  #isPaused = false;
  #isBusy = false;

  constructor(
    readonly from: Socket,
    readonly to: Socket,
    readonly wire: { readonly latencyMs: number; readonly bytesPerSecond: number },
    readonly count: (bytes: number) => void,
  ) {
    from.on("data", (chunk: Buffer) => this.#take(chunk));
    from.on("end", () => this.#take(undefined));
  }

  pause(): void {
    this.#isPaused = true;
    this.from.pause();
  }

  resume(): void {
    this.#isPaused = false;
    void this.#drain();
  }

  #take(chunk: Buffer | undefined): void {
    this.#queue.push(chunk);
    void this.#drain();
  }

  async #drain(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    while (this.#queue.length > 0 && !this.#isPaused) {
      this.from.pause();
      if (this.wire.latencyMs > 0) await wait(this.wire.latencyMs);
      if (this.#isPaused) break;
      await this.#pass(this.#queue.shift());
    }
    this.#isBusy = false;
    if (!this.#isPaused && !this.from.destroyed) this.from.resume();
  }

  async #pass(chunk: Buffer | undefined): Promise<void> {
    if (this.to.destroyed) return;
    if (chunk === undefined) return void this.to.end();
    this.count(chunk.length);
    if (!this.to.write(chunk))
      await new Promise<void>((resolve) => this.to.once("drain", resolve).once("close", resolve));
    if (this.wire.bytesPerSecond > 0) await wait((chunk.length / this.wire.bytesPerSecond) * 1000);
  }
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
