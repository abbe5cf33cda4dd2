/**
 * One connection to a gateway, from the first packet to the last.
 *
 *   dial (through an HTTP proxy where one is named) -> upgrade -> greeting -> session
 *
 * A quiet link costs little: after nine seconds without a byte from the gateway
 * it is asked for a sign of life, and after nine more without one it is gone:
 * 18 s at most, and some 200 bytes of TLS, TCP and IP each time, 1.4 kB a
 * minute.
 */

import { randomBytes } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import { readResponseHead } from "../http1/response-head.ts";
import type { Place } from "../kube/place.ts";
import { prove, readGatewayWord, SUBPROTOCOL, TUNNEL_PATH } from "../mux/greeting.ts";
import type { MuxStream, StreamEvents } from "../mux/stream.ts";
import { acceptOf, WebSocketChannel } from "../mux/websocket.ts";
import { MuxSession } from "../mux/yamux.ts";
import { dial } from "../uplink/dial.ts";

/** A gateway cannot be reached, or does not want us. */
export class TunnelError extends EdgeError {
  override readonly name = "TunnelError";
  readonly code = "TUNNEL";

  /** @param reason one word: what a gateway said in a refusal, or "Unreachable", "NotAGateway", "Silent". */
  constructor(
    readonly reason: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What a link needs. */
export interface GatewayLinkOptions {
  /** HOST:PORT's URL, as the configuration names it: https://HOST:PORT. */
  readonly gateway: string;
  /** Whom the gateway's certificate must come from, PEM. */
  readonly caPem: string;
  readonly pair: { readonly certPem: string; readonly keyPem: string };
  readonly proxy: string | undefined;
  readonly clock: Clock;
  readonly limits: { readonly maxStreams: number; readonly maxHeldBytes: number };
  /** The gateway opens a stream; undefined refuses it. */
  readonly accept: (stream: MuxStream) => StreamEvents | undefined;
  /** The gateway is about to end: streams go on, new ones want another link. */
  readonly onGoAway: () => void;
  /** It is over, once it was welcomed. */
  readonly onGone: (reason: string) => void;
  /** Gives up, and ends it later. */
  readonly signal: AbortSignal;
}

/** A link that a gateway has welcomed. */
export interface GatewayLink {
  /** Where the API server dials us; undefined: nowhere yet. */
  readonly place: Place | undefined;
  readonly streamCount: number;
  /** The round trip of the last sign of life, ms; undefined before the first. */
  readonly roundTripMs: number | undefined;
  close(reason: string): void;
}

const GREETING_MS = 30_000;
const QUIET_MS = 9_000;
const ANSWER_MS = 9_000;
const MAX_HEAD_BYTES = 8 * 1024;

/** @throws {TunnelError} */
export async function openGatewayLink(options: GatewayLinkOptions): Promise<GatewayLink> {
  const { gateway, caPem, pair, proxy, signal } = options;
  const host = new URL(gateway).hostname.replace(/^\[|\]$/g, "");
  let socket: TLSSocket;
  try {
    socket = await dial({ server: gateway, tls: { ca: caPem, cert: pair.certPem, key: pair.keyPem }, proxy });
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new TunnelError("Unreachable", `Cannot reach the gateway ${gateway}: ${why}`, { cause });
  }
  const link = new Link(socket, host, options);
  const end = () => link.close("AgentEnds");
  signal.addEventListener("abort", end, { once: true });
  link.onOver = () => signal.removeEventListener("abort", end);
  if (signal.aborted) end();
  await link.welcomed;
  return link;
}

class Link implements GatewayLink {
  readonly #welcome = Promise.withResolvers<void>();
  readonly #key = randomBytes(16).toString("base64");
  readonly #channel: WebSocketChannel;
  readonly #session: MuxSession;
  #state: "head" | "greeting" | "welcomed" | "over" = "head";
  #head: Buffer = Buffer.alloc(0);
  #cancel = () => {};
  #askedMs: number | undefined;
  #heardMs: number;
  place: Place | undefined;
  roundTripMs: number | undefined;
  onOver = () => {};

  constructor(
    private readonly socket: TLSSocket,
    private readonly host: string,
    private readonly options: GatewayLinkOptions,
  ) {
    const { clock, limits, accept, onGoAway } = options;
    this.#heardMs = clock.monotonicMs();
    this.#channel = new WebSocketChannel(true, sinkOf(socket), {
      onData: (bytes) => this.#data(bytes),
      onText: (text) => this.#said(text),
      onClosing: (reason) => this.#over(reason || "Closed"),
    });
    const channel = this.#channel;
    this.#session = new MuxSession({
      isClient: false,
      carrier: {
        send: (head, body) => channel.send(head, body),
        get waitingBytes() {
          return channel.waitingBytes;
        },
        fail: () => this.#over("NotAGateway"),
      },
      nowMs: () => clock.monotonicMs(),
      accept,
      onGoAway,
      ...limits,
    });
    socket.setNoDelay(true);
    socket.on("data", (bytes: Buffer) => this.#received(bytes));
    socket.on("drain", () => this.#session.drained());
    socket.on("error", () => this.#over("ConnectionLost"));
    socket.on("close", () => this.#over("ConnectionLost"));
    this.#cancel = clock.after(GREETING_MS, () => this.#over("Silent"));
    socket.write(
      `GET ${TUNNEL_PATH} HTTP/1.1\r\nHost: ${new URL(options.gateway).host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${this.#key}\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
    );
  }

  /** Resolves with the welcome. */
  get welcomed(): Promise<void> {
    return this.#welcome.promise;
  }

  get streamCount(): number {
    return this.#session.streamCount;
  }

  close(reason: string): void {
    if (this.#state === "over") return;
    if (this.#state !== "head") this.#channel.close(reason);
    this.#over(reason);
  }

  // ---- reading ----

  #received(bytes: Buffer): void {
    this.#heardMs = this.options.clock.monotonicMs();
    if (this.#askedMs !== undefined) this.roundTripMs = Math.round(this.#heardMs - this.#askedMs);
    this.#askedMs = undefined;
    try {
      if (this.#state === "head") this.#readHead(Buffer.concat([this.#head, bytes]));
      else if (this.#state !== "over") this.#channel.received(bytes);
    } catch {
      this.#over("NotAGateway");
    }
  }

  #readHead(all: Buffer): void {
    const end = all.indexOf("\r\n\r\n");
    this.#head = all;
    if (end < 0 && all.length <= MAX_HEAD_BYTES) return;
    const head = readResponseHead(all.toString("latin1", 0, Math.max(0, end) + 2), false);
    const value = (name: string) => head.fields.find(([field]) => field.toLowerCase() === name)?.[1];
    const isOurs =
      head.status === 101 &&
      value("sec-websocket-accept") === acceptOf(this.#key) &&
      value("sec-websocket-protocol") === SUBPROTOCOL;
    if (!isOurs) return this.#over(head.status === 101 ? "NotAGateway" : `Status${head.status}`);
    this.#state = "greeting";
    this.#head = Buffer.alloc(0);
    const early = all.subarray(end + 4);
    if (early.length > 0) this.#channel.received(early);
  }

  #said(text: string): void {
    const word = readGatewayWord(text);
    if (this.#state !== "greeting" || word === undefined) return this.#over("NotAGateway");
    if (word.kind === "refused") return this.#over(word.reason, word.message);
    if (word.kind === "challenge")
      // Signed for the name we dialled: a proof for it is worth nothing to whoever passes the challenge on.
      return this.#channel.sendText(JSON.stringify(prove(this.host, word.nonce, this.options.pair)));
    this.place = word.place;
    this.#state = "welcomed";
    this.#cancel();
    this.#listen(QUIET_MS);
    this.#welcome.resolve();
  }

  #data(bytes: Uint8Array): void {
    if (this.#state !== "welcomed") return this.#over("NotAGateway");
    this.#session.received(bytes);
  }

  // ---- life ----

  #listen(delayMs: number): void {
    const { clock } = this.options;
    this.#cancel = clock.after(delayMs, () => {
      const nowMs = clock.monotonicMs();
      const quietMs = nowMs - this.#heardMs;
      if (this.#askedMs !== undefined && nowMs - this.#askedMs >= ANSWER_MS) return this.#over("Silent");
      if (this.#askedMs === undefined && quietMs >= QUIET_MS) {
        this.#askedMs = nowMs;
        this.#channel.ping();
        return this.#listen(ANSWER_MS);
      }
      this.#listen(this.#askedMs === undefined ? QUIET_MS - quietMs : ANSWER_MS - (nowMs - this.#askedMs));
    });
  }

  #over(reason: string, message?: string): void {
    if (this.#state === "over") return;
    const wasWelcomed = this.#state === "welcomed";
    this.#state = "over";
    this.#cancel();
    this.#session.over();
    // What was said last leaves; should it not, nothing waits for it.
    this.socket.end();
    this.options.clock.after(1_000, () => this.socket.destroy());
    this.onOver();
    if (wasWelcomed) return this.options.onGone(reason);
    const { gateway } = this.options;
    const text = message === undefined ? "" : `: ${message}`;
    this.#welcome.reject(new TunnelError(reason, `The gateway ${gateway} did not take us in (${reason})${text}`));
  }
}

function sinkOf(socket: TLSSocket) {
  return {
    write: (bytes: Uint8Array) => socket.write(bytes),
    get waitingBytes() {
      return socket.writableLength;
    },
    end: () => void socket.end(),
    terminate: () => void socket.destroy(),
  };
}
