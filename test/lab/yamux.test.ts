/**
 * Our yamux and HashiCorp's own, over a TCP connection.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { MuxSession } from "../../src/mux/yamux.ts";
import type { MuxStream, StreamEvents } from "../../src/mux/stream.ts";
import { Outbox } from "../../src/http1/outbox.ts";
import { Recorder } from "../mux/pair.ts";
import { programPath } from "./build.ts";
import { until } from "./processes.ts";
import { titled, whySkipped } from "./requirements.ts";

/** HashiCorp's end as a process, ours over a connection to it. */
async function startPeer(args: readonly string[], isClient: boolean, accept?: (stream: MuxStream) => StreamEvents) {
  const process = Bun.spawn([programPath("yamux-peer"), ...args], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  let said = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of process.stdout) said += decoder.decode(chunk, { stream: true });
  })();
  const port = Number(await until("the peer says its port", () => /^(\d+)\n/.exec(said)?.[1]));
  let goneAway = false;
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      binaryType: "buffer",
      data: (_, bytes) => session.received(bytes),
      drain: () => outbox.drain(),
      close: () => session.over(),
    },
  });
  const outbox: Outbox = new Outbox(socket, () => session.drained());
  const session: MuxSession = new MuxSession({
    isClient,
    carrier: {
      send: (head, body = Buffer.alloc(0)) => outbox.write(Buffer.concat([head, body])),
      get waitingBytes() {
        return outbox.waitingBytes;
      },
      fail(error) {
        throw error;
      },
    },
    nowMs: () => performance.now(),
    maxStreams: 256,
    maxHeldBytes: 64 * 1024 * 1024,
    onGoAway: () => (goneAway = true),
    ...(accept === undefined ? {} : { accept }),
  });
  return {
    session,
    said: () => said,
    hasGoneAway: () => goneAway,
    async [Symbol.asyncDispose]() {
      socket.terminate();
      process.kill();
      await process.exited;
    },
  };
}

/** Sends back what comes. */
class Echo extends Recorder {
  override onData(bytes: Uint8Array): void {
    // Nothing is granted before it has gone back.
    if (this.stream!.write(bytes)) this.stream!.consumed(bytes.length);
    else this.unread += bytes.length;
  }
  override onWritable(): void {
    this.readAll();
  }
  override onEnd(): void {
    this.stream!.end();
  }
}

describe.skipIf(whySkipped !== undefined)(titled("yamux as HashiCorp speaks it", whySkipped), () => {
  test("opens 40 streams to us, sends a megabyte on each and gets it back", async () => {
    await using peer = await startPeer(["send", "40", "1000003"], false, (stream) => {
      const echo = new Echo(true);
      echo.stream = stream;
      return echo;
    });
    await until("it has compared all of them", () => /same|differs|failed/.test(peer.said()), 30_000);
    expect(peer.said()).toContain("same 0");
    await until("it says that it goes away", () => peer.hasGoneAway());
    expect([peer.session.streamCount, peer.session.heldBytes]).toEqual([0, 0]);
  });

  test("takes 40 streams of ours, a megabyte on each, and sends it back", async () => {
    await using peer = await startPeer(["echo"], true);
    const sent = randomBytes(1_000_003);
    const streams = Array.from({ length: 40 }, () => {
      const recorder = new Recorder();
      recorder.stream = peer.session.open(recorder);
      recorder.stream!.write(sent);
      recorder.stream!.end();
      return recorder;
    });
    await until("all have come back", () => streams.every(({ happened }) => happened.includes("done")), 30_000);
    for (const { bytes } of streams) expect(bytes.equals(sent)).toBe(true);
    expect([peer.session.streamCount, peer.session.heldBytes]).toEqual([0, 0]);
  });
});
