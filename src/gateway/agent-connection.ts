/**
 * One agent's connection: head, greeting, session.
 *
 *   head -> greeting (challenged?) -> admitting -> welcomed -> closed
 *                                             `-> refused  -> closed
 *
 * A session is heard from every few seconds, since its agent asks for a sign of
 * life when all is quiet; one that says nothing for so long is gone.
 */

import { randomBytes } from "node:crypto";
import type { Place } from "../kube/place.ts";
import { Outbox } from "../http1/outbox.ts";
import { readRequestHead, type RequestHead } from "../http1/request-head.ts";
import { isProven, readAgentWord, SUBPROTOCOL, TUNNEL_PATH, type GatewayWord } from "../mux/greeting.ts";
import { acceptOf, WebSocketChannel } from "../mux/websocket.ts";
import { MuxSession } from "../mux/yamux.ts";
import { identityOf, type Identity } from "./identity.ts";

/** What an admission says. */
export type Admission = { readonly place: Place | undefined } | { readonly refused: string; readonly message: string };

/** What connections share. */
export interface AgentParts {
  /** The CAs by which the API server knows clients, as they are now. */
  readonly caPem: () => string;
  /** The names by which agents dial this gateway; a proof for another counts for nothing. */
  readonly names: readonly string[];
  readonly nowMs: () => number;
  /** By the wall, for certificates. */
  readonly wallMs: () => number;
  readonly limits: { readonly maxStreams: number; readonly maxHeldBytes: number };
  /** A node has proven who it is: shall it be welcomed? Called once; `tunnel` is usable when it is. */
  readonly admit: (nodeName: string, tunnel: AgentTunnel) => Promise<Admission>;
  /** It was welcomed and is gone. */
  readonly onGone: (nodeName: string, tunnel: AgentTunnel) => void;
  readonly onRefused: (reason: string, nodeName: string | undefined) => void;
}

/** A tunnel, as the rest of the gateway sees it. */
export interface AgentTunnel {
  readonly session: MuxSession;
  /** When the certificate that opened it ends. */
  readonly notAfterMs: number;
  /** Says why, and ends it. */
  close(reason: string): void;
}

interface Under {
  write(bytes: Uint8Array): number;
  end(): unknown;
  terminate(): unknown;
}

const MAX_HEAD_BYTES = 8 * 1024;
/** Until the greeting is over, the API server's part of it included. */
const GREETING_MS = 30_000;
/** A challenge is good for so long. */
const CHALLENGE_MS = 10_000;
/** Agents ask for a sign of life after nine quiet seconds. */
const SILENCE_MS = 20_000;
/** What was written has not left for so long. */
const WRITE_STALL_MS = 30_000;
/** What is sent to a refused agent has left by then. */
const PARTING_MS = 2_000;
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);

/** A connection. */
export class AgentConnection {
  #state: "head" | "greeting" | "admitting" | "welcomed" | "parting" | "closed" = "head";
  #head: Buffer = EMPTY;
  #shown: Uint8Array | undefined;
  #channel: WebSocketChannel | undefined;
  #tunnel: AgentTunnel | undefined;
  #nodeName: string | undefined;
  #nonce: string | undefined;
  readonly #sinceMs: number;
  #partingMs = 0;
  #heardMs: number;
  #writtenMs: number;
  readonly #outbox: Outbox;

  constructor(
    private readonly socket: Under,
    private readonly parts: AgentParts,
    private readonly events: { readonly onWelcome: () => void; readonly onClosed: () => void },
  ) {
    this.#sinceMs = this.#heardMs = this.#writtenMs = parts.nowMs();
    this.#outbox = new Outbox(socket, () => this.#emptied());
  }

  /** TLS showed a certificate that a trusted CA signed, DER. */
  showed(certificate: Uint8Array | undefined): void {
    this.#shown = certificate;
  }

  /** Bytes came. */
  received(bytes: Buffer): void {
    this.#heardMs = this.parts.nowMs();
    try {
      if (this.#channel !== undefined) this.#channel.received(bytes);
      else if (this.#state === "head") this.#readHead(Buffer.concat([this.#head, bytes]));
    } catch {
      // No WebSocket, or no yamux: nothing that comes after can be understood.
      this.terminate();
    }
  }

  /** The socket takes bytes again. */
  drained(): void {
    this.#writtenMs = this.parts.nowMs();
    this.#outbox.drain();
  }

  /** Ends it at once. */
  terminate(): void {
    if (this.#state === "closed") return;
    this.socket.terminate();
    this.closed();
  }

  /** It is gone. */
  closed(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#outbox.close();
    this.#head = EMPTY;
    const tunnel = this.#tunnel;
    tunnel?.session.over();
    if (tunnel !== undefined) this.parts.onGone(this.#nodeName!, tunnel);
    this.events.onClosed();
  }

  /** Looks at the deadlines. */
  tick(nowMs: number): void {
    // It dials again with the certificate it has now.
    if (this.#state === "welcomed" && this.#tunnel!.notAfterMs < this.parts.wallMs())
      this.#tunnel!.close("CertificateEnded");
    const age = nowMs - this.#sinceMs;
    const isOver =
      this.#state === "parting"
        ? nowMs - this.#partingMs > PARTING_MS
        : this.#state === "welcomed"
          ? nowMs - this.#heardMs > SILENCE_MS || (!this.#outbox.isEmpty && nowMs - this.#writtenMs > WRITE_STALL_MS)
          : age > (this.#state === "greeting" ? CHALLENGE_MS : GREETING_MS);
    if (isOver) this.terminate();
  }

  // ---- head ----

  #readHead(all: Buffer): void {
    const end = all.indexOf(HEAD_END);
    if (end < 0 && all.length <= MAX_HEAD_BYTES) return void (this.#head = all);
    if (end < 0 || end > MAX_HEAD_BYTES) return this.#answer(431, "head too long");
    this.#head = EMPTY;
    let head: RequestHead;
    try {
      head = readRequestHead(all.toString("latin1", 0, end + 2));
    } catch {
      return this.#answer(400, "malformed request");
    }
    const key = head.block.byName.get("sec-websocket-key") ?? "";
    if (head.method !== "GET" || head.target.split("?")[0] !== TUNNEL_PATH) return this.#answer(404, "not found");
    const isOurs =
      head.block.isUpgrade &&
      head.block.byName.get("upgrade")?.toLowerCase() === "websocket" &&
      head.block.byName.get("sec-websocket-version") === "13" &&
      (head.block.byName.get("sec-websocket-protocol") ?? "").split(/, */).includes(SUBPROTOCOL) &&
      Buffer.from(key, "base64").length === 16;
    if (!isOurs) return this.#answer(426, `expected a WebSocket of ${SUBPROTOCOL}`);
    this.#upgrade(key);
    const early = all.subarray(end + 4);
    if (early.length > 0) this.#channel?.received(early);
  }

  #answer(status: number, message: string): void {
    const more = status === 426 ? "Upgrade: websocket\r\n" : "";
    this.#outbox.write(
      Buffer.from(
        `HTTP/1.1 ${status} Refused\r\n${more}Content-Type: text/plain\r\nConnection: close\r\nContent-Length: ${message.length}\r\n\r\n${message}`,
        "latin1",
      ),
    );
    this.#part();
    this.socket.end();
  }

  #part(): void {
    this.#state = "parting";
    this.#partingMs = this.parts.nowMs();
  }

  #upgrade(key: string): void {
    this.#outbox.write(
      Buffer.from(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(key)}\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
        "latin1",
      ),
    );
    const outbox = this.#outbox;
    const sink = {
      write: (bytes: Uint8Array) => this.#write(bytes),
      get waitingBytes() {
        return outbox.waitingBytes;
      },
      end: () => void this.socket.end(),
      terminate: () => this.terminate(),
    };
    this.#channel = new WebSocketChannel(false, sink, {
      onData: (bytes) => this.#data(bytes),
      onText: (text) => this.#heard(text),
      onClosing: () => {
        this.#tunnel?.session.over();
        this.#part();
      },
    });
    this.#greet();
  }

  #write(bytes: Uint8Array): boolean {
    if (this.#outbox.isEmpty) this.#writtenMs = this.parts.nowMs();
    return this.#outbox.write(bytes);
  }

  #emptied(): void {
    this.#tunnel?.session.drained();
  }

  // ---- greeting ----

  #greet(): void {
    this.#state = "greeting";
    if (this.#shown !== undefined) return this.#identified(this.#identityOf(this.#shown));
    this.#nonce = randomBytes(32).toString("base64");
    this.#say({ kind: "challenge", gateway: this.parts.names[0] ?? "", nonce: this.#nonce });
  }

  #identityOf(certificate: string | Uint8Array): Identity {
    return identityOf(certificate, this.parts.caPem(), this.parts.wallMs());
  }

  #heard(text: string): void {
    const nonce = this.#nonce;
    const word = readAgentWord(text);
    // Once: whatever comes now, the nonce is used up.
    this.#nonce = undefined;
    if (this.#state !== "greeting" || nonce === undefined || word === undefined) return this.terminate();
    if (!this.parts.names.includes(word.gateway))
      return this.#refuse(
        "WrongGateway",
        `the proof is for a gateway of another name; this one is ${this.parts.names.join(" or ")}`,
      );
    const identity = this.#identityOf(word.certificate);
    if ("refused" in identity) return this.#identified(identity);
    if (!isProven(word, nonce, identity.certificate.publicKey))
      return this.#refuse("NotProven", "the challenge is not signed by the certificate's key");
    this.#identified(identity);
  }

  #identified(identity: Identity): void {
    if ("refused" in identity) return this.#refuse(identity.refused, identity.message);
    this.#state = "admitting";
    this.#nodeName = identity.nodeName;
    const channel = this.#channel!;
    const session = new MuxSession({
      isClient: true,
      carrier: {
        send: (head, body) => channel.send(head, body),
        get waitingBytes() {
          return channel.waitingBytes;
        },
        fail: () => this.terminate(),
      },
      nowMs: this.parts.nowMs,
      ...this.parts.limits,
    });
    const tunnel: AgentTunnel = {
      session,
      notAfterMs: identity.notAfterMs,
      close: (reason) => {
        if (this.#state === "closed") return;
        this.#part();
        channel.close(reason);
      },
    };
    void this.#admit(identity.nodeName, tunnel);
  }

  async #admit(nodeName: string, tunnel: AgentTunnel): Promise<void> {
    const admission = await this.parts.admit(nodeName, tunnel);
    if (this.#state !== "admitting") {
      // Gone meanwhile: whoever admitted it has to forget it.
      if (!("refused" in admission)) this.parts.onGone(nodeName, tunnel);
      return;
    }
    if ("refused" in admission) return this.#refuse(admission.refused, admission.message);
    this.#state = "welcomed";
    this.#tunnel = tunnel;
    this.#say({ kind: "welcome", place: admission.place });
    this.events.onWelcome();
  }

  #refuse(reason: string, message: string): void {
    this.parts.onRefused(reason, this.#nodeName);
    this.#say({ kind: "refused", reason, message });
    this.#part();
    this.#channel?.close(reason);
  }

  #say(word: GatewayWord): void {
    this.#channel?.sendText(JSON.stringify(word));
  }

  #data(bytes: Uint8Array): void {
    // Nobody's bytes count before the welcome.
    if (this.#tunnel === undefined) return this.terminate();
    this.#tunnel.session.received(bytes);
  }
}
