/**
 * WebSocket frames: read in any pieces, strictly, and masked as they must be.
 */
import { describe, expect, test } from "bun:test";
import { acceptOf, applyMask, FrameError, WebSocketChannel } from "../../src/mux/websocket.ts";

function channel(isClient: boolean) {
  const written: Buffer[] = [];
  const heard: string[] = [];
  const data: Buffer[] = [];
  let isEnded = false;
  const made = new WebSocketChannel(
    isClient,
    {
      write: (bytes) => written.push(Buffer.from(bytes)) > 0,
      waitingBytes: 0,
      end: () => (isEnded = true),
      terminate: () => (isEnded = true),
    },
    {
      onData: (bytes) => void data.push(Buffer.from(bytes)),
      onText: (text) => void heard.push(`text ${text}`),
      onClosing: (reason) => void heard.push(`closing ${reason}`),
    },
  );
  return { made, written, heard, data: () => Buffer.concat(data), isEnded: () => isEnded };
}

test("the accept of RFC 6455's own example", () => {
  expect(acceptOf("dGhlIHNhbXBsZSBub25jZQ==")).toBe("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
});

test("masking is its own inverse wherever the bytes lie and whatever came before", () => {
  const key = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
  for (let offset = 0; offset < 5; offset++)
    for (let at = 0; at < 5; at++)
      for (const length of [0, 1, 3, 4, 5, 17]) {
        const whole = new Uint8Array(64).subarray(offset, offset + length);
        applyMask(whole, key, at);
        expect([...whole]).toEqual(Array.from({ length }, (_, i) => key[(at + i) & 3]!));
      }
});

test.each([0, 1, 125, 126, 65_535, 65_536, 300_000])("%d bytes go from client to server in any pieces", (size) => {
  const client = channel(true);
  const server = channel(false);
  const bytes = Buffer.alloc(size, "holdfast");
  client.made.send(bytes.subarray(0, size >> 1), bytes.subarray(size >> 1));
  const frame = Buffer.concat(client.written);
  expect(frame[1]! & 0x80).toBe(0x80);
  for (const step of [1, 7, frame.length]) {
    if (step === 1 && size > 70_000) continue;
    const before = server.data().length;
    for (let at = 0; at < frame.length; at += step) server.made.received(Buffer.from(frame.subarray(at, at + step)));
    expect(server.data().subarray(before).equals(bytes)).toBe(true);
  }
});

test("fragments are one stream, with a ping between them answered at once", () => {
  const client = channel(true);
  const frames = [
    [0x02, 1, 97],
    [0x89, 1, 33],
    [0x00, 1, 98],
    [0x80, 1, 99],
  ];
  for (const frame of frames) client.made.received(Buffer.from(frame));
  expect(client.data().toString()).toBe("abc");
  const pong = client.written[0]!;
  expect([pong[0], pong[1], pong[6]! ^ pong[2]!]).toEqual([0x8a, 0x81, 33]);
});

test("a close is heard, answered and the end", () => {
  const server = channel(false);
  const client = channel(true);
  server.made.close("draining");
  client.made.received(server.written[0]!);
  expect(client.heard).toEqual(["closing draining"]);
  expect([client.isEnded(), server.isEnded()]).toEqual([true, true]);
  expect(client.made.send(Buffer.from("late"))).toBe(false);
});

describe("refused at a client", () => {
  test.each([
    ["a masked frame", [0x82, 0x81, 0, 0, 0, 0, 1]],
    ["a reserved bit, as of compression", [0xc2, 0x01, 1]],
    ["an opcode nobody knows", [0x83, 0x00]],
    ["a continuation of nothing", [0x80, 0x01, 1]],
    ["a text in fragments", [0x01, 0x01, 97]],
    ["a ping of 126 bytes", [0x89, 126, 0, 126]],
    ["a text of a gigabyte", [0x81, 127, 0, 0, 0, 0, 0x40, 0, 0, 0]],
  ])("%s", (_, bytes) => {
    expect(() => channel(true).made.received(Buffer.from(bytes))).toThrow(FrameError);
  });

  test("a message within a message", () => {
    const { made } = channel(true);
    made.received(Buffer.from([0x02, 1, 97]));
    expect(() => made.received(Buffer.from([0x82, 1, 97]))).toThrow(FrameError);
  });
});

test("a server refuses what is not masked", () => {
  expect(() => channel(false).made.received(Buffer.from([0x82, 1, 97]))).toThrow(FrameError);
});
