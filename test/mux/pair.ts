/**
 * Two ends of a session, over WebSocket frames and a line of limited capacity
 * that can be held still: what waits there is what a full socket holds.
 */
import { WebSocketChannel } from "../../src/mux/websocket.ts";
import { MuxSession, type SessionParts } from "../../src/mux/yamux.ts";
import type { MuxStream, StreamEvents } from "../../src/mux/stream.ts";

/** Bytes a line takes before it says that it is full. */
const CAPACITY = 64 * 1024;

/** One direction: bytes wait until they are carried. */
class Line {
  waiting: Uint8Array[] = [];
  waitingBytes = 0;
  carried = 0;
  isEnded = false;
  isHeld = false;
  deliver: (bytes: Uint8Array) => void = () => {};
  onEmpty: () => void = () => {};

  write(bytes: Uint8Array): boolean {
    this.waiting.push(bytes);
    this.waitingBytes += bytes.length;
    return this.waitingBytes < CAPACITY;
  }

  /** @returns whether anything moved. */
  carry(): boolean {
    if (this.isHeld || this.waiting.length === 0) return false;
    const bytes = this.waiting;
    this.waiting = [];
    this.waitingBytes = 0;
    for (const one of bytes) {
      this.carried += one.length;
      // In odd pieces, as sockets do.
      for (let at = 0; at < one.length; at += 10_007) this.deliver(one.subarray(at, at + 10_007));
    }
    this.onEmpty();
    return true;
  }
}

export interface End {
  readonly session: MuxSession;
  readonly channel: WebSocketChannel;
  /** What this end sends. */
  readonly line: Line;
  /** Streams the other end opened. */
  readonly accepted: Recorder[];
  readonly texts: string[];
  failed: unknown;
}

/** Keeps what comes on a stream. */
export class Recorder implements StreamEvents {
  stream: MuxStream | undefined;
  chunks: Buffer[] = [];
  /** Bytes that came and were not consumed: for one that reads slowly. */
  unread = 0;
  happened: string[] = [];
  /** @param reads false: consumes nothing until told. */
  constructor(public reads = true) {}

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
  onData(bytes: Uint8Array): void {
    this.chunks.push(Buffer.from(bytes));
    if (this.reads) this.stream?.consumed(bytes.length);
    else this.unread += bytes.length;
  }
  readAll(): void {
    this.reads = true;
    const { unread } = this;
    this.unread = 0;
    if (unread > 0) this.stream?.consumed(unread);
  }
  onEnd(): void {
    this.happened.push("end");
  }
  onWritable(): void {
    this.happened.push("writable");
  }
  onBroken(): void {
    this.happened.push("broken");
  }
  onDone(): void {
    this.happened.push("done");
  }
}

/** A gateway, which opens, and an agent, which accepts. */
export function muxPair(
  options: {
    readonly maxStreams?: number;
    readonly maxHeldBytes?: number;
    readonly readsAtAgent?: () => boolean;
    readonly nowMs?: () => number;
  } = {},
) {
  const lines = [new Line(), new Line()] as const;
  const end = (index: 0 | 1, accepts: boolean): End => {
    const line = lines[index];
    const accepted: Recorder[] = [];
    const texts: string[] = [];
    const channel = new WebSocketChannel(
      index === 1,
      {
        write: (bytes) => line.write(bytes),
        get waitingBytes() {
          return line.waitingBytes;
        },
        end: () => (line.isEnded = true),
        terminate: () => (line.isEnded = true),
      },
      {
        onData: (bytes) => session.received(bytes),
        onText: (text) => void texts.push(text),
        onClosing: () => session.over(),
      },
    );
    const parts: SessionParts = {
      isClient: index === 0,
      carrier: {
        send: (head, body) => channel.send(head, body),
        get waitingBytes() {
          return channel.waitingBytes;
        },
        fail: (error) => void (whole.failed = error),
      },
      nowMs: options.nowMs ?? (() => performance.now()),
      maxStreams: options.maxStreams ?? 256,
      maxHeldBytes: options.maxHeldBytes ?? 16 * 1024 * 1024,
      ...(accepts
        ? {
            accept(stream: MuxStream) {
              const recorder = new Recorder(options.readsAtAgent?.() ?? true);
              recorder.stream = stream;
              accepted.push(recorder);
              return recorder;
            },
          }
        : {}),
    };
    const session = new MuxSession(parts);
    const whole: End = { session, channel, line, accepted, texts, failed: undefined };
    return whole;
  };
  const gateway = end(0, false);
  const agent = end(1, true);
  for (const [from, to] of [
    [gateway, agent],
    [agent, gateway],
  ] as const) {
    from.line.deliver = (bytes) => {
      try {
        to.channel.received(bytes);
      } catch (error) {
        to.failed = error;
      }
    };
    from.line.onEmpty = () => from.session.drained();
  }
  return {
    gateway,
    agent,
    /** Opens a stream from the gateway. */
    open(reads = true) {
      const recorder = new Recorder(reads);
      recorder.stream = gateway.session.open(recorder);
      return recorder;
    },
    /** Carries until nothing moves. */
    settle() {
      let rounds = 0;
      while ([gateway.line.carry(), agent.line.carry()].includes(true))
        if (++rounds > 100_000) throw new Error("it never settles");
    },
  };
}
