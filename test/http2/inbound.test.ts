import { describe, expect, test } from "bun:test";
import {
  CODE,
  ConnectionError,
  FLAG,
  FRAME,
  frameHead,
  headersFrames,
  MAX_PAYLOAD,
  numbersFrame,
  SETTING,
  settingsFrame,
} from "../../src/http2/frames.ts";
import { HeaderEncoder } from "../../src/http2/header-encoder.ts";
import { Inbound, MAX_HEAD_BYTES, type InboundTaker } from "../../src/http2/inbound.ts";
import { grown, Windows } from "../../src/http2/windows.ts";

function reader() {
  const told: unknown[] = [];
  const taker: InboundTaker = {
    data: (stream, bytes, frameBytes, isEnd) => told.push(["data", stream, bytes.toString(), frameBytes, isEnd]),
    fields: (stream, fields, isEnd) => told.push(["fields", stream, fields, isEnd]),
    reset: (stream, code) => told.push(["reset", stream, code]),
    setting: (id, value) => told.push(["setting", id, value]),
    settingsEnd: () => told.push(["settings"]),
    ping: (payload) => told.push(["ping", payload.toString("hex")]),
    goAway: (last) => told.push(["goaway", last]),
    windowUpdate: (stream, bytes) => told.push(["window", stream, bytes]),
  };
  return { told, inbound: new Inbound(taker) };
}

const frame = (type: number, flags: number, stream: number, payload: Buffer | string = "") => {
  const bytes = Buffer.from(payload as string);
  return Buffer.concat([frameHead(type, flags, stream, bytes.length), bytes]);
};
const SETTINGS = frame(FRAME.settings, 0, 0);
const block = (value = "200") => new HeaderEncoder().write([[":status", value]]);

test("the same is told however the bytes are cut", () => {
  const long = new HeaderEncoder().write([
    [":status", "200"],
    ["x-long", "y".repeat(40_000)],
  ]);
  const all = Buffer.concat([
    settingsFrame([[SETTING.maxConcurrentStreams, 7]]),
    ...headersFrames(1, long, false),
    frame(FRAME.data, 0, 1, "hello"),
    frame(FRAME.data, FLAG.padded | FLAG.endStream, 1, Buffer.from("\x02hi\0\0", "latin1")),
    frame(FRAME.ping, 0, 0, "12345678"),
    frame(99, 0xff, 5, "what is not known is left alone"),
    numbersFrame(FRAME.windowUpdate, 1, 9),
    numbersFrame(FRAME.reset, 1, 8),
    numbersFrame(FRAME.goAway, 0, 3, 0),
  ]);
  const whole = reader();
  whole.inbound.push(all);
  expect(whole.told).toHaveLength(9);
  expect(whole.told[3]).toEqual(["data", 1, "hello", 5, false]);
  expect(whole.told[4]).toEqual(["data", 1, "hi", 5, true]);
  for (const size of [1, 2, 8, 9, 10, 1_000, MAX_PAYLOAD]) {
    const cut = reader();
    for (let at = 0; at < all.length; at += size) cut.inbound.push(all.subarray(at, at + size));
    expect(cut.told).toEqual(whole.told);
  }
});

describe("the connection ends", () => {
  const many = (one: Buffer, count: number) => Buffer.concat(Array.from({ length: count }, () => one));
  test.each([
    { name: "when it does not begin with settings", bytes: frame(FRAME.ping, 0, 0, "12345678"), code: CODE.protocol },
    { name: "when it begins with an acknowledgement", bytes: frame(FRAME.settings, FLAG.ack, 0), code: CODE.protocol },
    {
      name: "for a frame too large",
      bytes: Buffer.concat([SETTINGS, frameHead(FRAME.data, 0, 1, MAX_PAYLOAD + 1)]),
      code: CODE.frameSize,
    },
    {
      name: "for a stream of the server's",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.headers, FLAG.endHeaders, 2, block())]),
      code: CODE.protocol,
    },
    {
      name: "for a push",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.pushPromise, FLAG.endHeaders, 1, "\0\0\0\x02")]),
      code: CODE.protocol,
    },
    {
      name: "for a continuation of nothing",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.continuation, FLAG.endHeaders, 1, block())]),
      code: CODE.protocol,
    },
    {
      name: "for a head that is interrupted",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.headers, 0, 1, block()), frame(FRAME.data, 0, 1, "x")]),
      code: CODE.protocol,
    },
    {
      name: "for a head continued by another stream",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.headers, 0, 1, block()), frame(FRAME.continuation, 0, 3)]),
      code: CODE.protocol,
    },
    {
      name: "for a head in endless pieces",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.headers, 0, 1), many(frame(FRAME.continuation, 0, 1), 100)]),
      code: CODE.calm,
    },
    {
      name: "for a head too long",
      bytes: Buffer.concat([
        SETTINGS,
        frame(FRAME.headers, 0, 1),
        many(frame(FRAME.continuation, 0, 1, Buffer.alloc(MAX_PAYLOAD)), MAX_HEAD_BYTES / MAX_PAYLOAD + 1),
      ]),
      code: CODE.calm,
    },
    {
      name: "for more padding than payload",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.data, FLAG.padded, 1, "\x09hi")]),
      code: CODE.protocol,
    },
    {
      name: "for padding that is not there",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.data, FLAG.padded, 1)]),
      code: CODE.protocol,
    },
    { name: "for settings of a stream", bytes: frame(FRAME.settings, 0, 1), code: CODE.protocol },
    { name: "for settings of a wrong size", bytes: frame(FRAME.settings, 0, 0, "12345"), code: CODE.frameSize },
    {
      name: "for an acknowledgement that says something",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.settings, FLAG.ack, 0, "123456")]),
      code: CODE.frameSize,
    },
    {
      name: "for a window that cannot be",
      bytes: settingsFrame([[SETTING.initialWindowSize, 2 ** 31]]),
      code: CODE.flowControl,
    },
    {
      name: "for a frame size that cannot be",
      bytes: settingsFrame([[SETTING.maxFrameSize, 16_383]]),
      code: CODE.protocol,
    },
    { name: "for a server that wants pushes", bytes: settingsFrame([[SETTING.enablePush, 1]]), code: CODE.protocol },
    {
      name: "for a ping of a wrong size",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.ping, 0, 0, "1234567")]),
      code: CODE.frameSize,
    },
    {
      name: "for a ping of a stream",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.ping, 0, 1, "12345678")]),
      code: CODE.protocol,
    },
    {
      name: "for a farewell too short",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.goAway, 0, 0, "1234")]),
      code: CODE.frameSize,
    },
    {
      name: "for a reset of a wrong size",
      bytes: Buffer.concat([SETTINGS, frame(FRAME.reset, 0, 1, "12345")]),
      code: CODE.frameSize,
    },
    {
      name: "for a flood of pings",
      bytes: Buffer.concat([SETTINGS, many(frame(FRAME.ping, 0, 0, "12345678"), 5_000)]),
      code: CODE.calm,
    },
    { name: "for a flood of settings", bytes: many(SETTINGS, 5_000), code: CODE.calm },
    {
      name: "for a flood of empty data",
      bytes: Buffer.concat([SETTINGS, many(frame(FRAME.data, 0, 1), 5_000)]),
      code: CODE.calm,
    },
    {
      name: "for a flood of resets",
      bytes: Buffer.concat([SETTINGS, many(numbersFrame(FRAME.reset, 1, 8), 5_000)]),
      code: CODE.calm,
    },
  ])("$name", ({ bytes, code }) => {
    let thrown: unknown;
    try {
      reader().inbound.push(bytes);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(ConnectionError);
    expect((thrown as ConnectionError).http2Code).toBe(code);
  });
});

test("frames that bring nothing are counted anew when time has passed", () => {
  const { inbound } = reader();
  inbound.push(SETTINGS);
  for (let i = 0; i < 10; i++) {
    for (let j = 0; j < 3_000; j++) inbound.push(frame(FRAME.ping, 0, 0, "12345678"));
    inbound.tick();
  }
});

describe("windows", () => {
  test("are opened again when half of them has come", () => {
    const windows = new Windows(100_000);
    expect(windows.open()).toBe(100_000 - 65_535);
    expect(windows.received(49_999)).toBe(0);
    expect(windows.received(1)).toBe(50_000);
    expect(windows.received(100_000)).toBe(100_000);
  });

  test("are not to be overrun, overgrown or opened by nothing", () => {
    const windows = new Windows(100_000);
    expect(() => windows.received(65_536)).toThrow(ConnectionError);
    expect(() => windows.growOut(0)).toThrow(ConnectionError);
    expect(() => windows.growOut(2 ** 31 - 65_535)).toThrow(ConnectionError);
    expect(() => grown(1, 2 ** 31 - 1)).toThrow(ConnectionError);
  });
});
