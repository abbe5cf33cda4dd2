/**
 * Streams over one connection: whole, apart from each other, and bounded.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { MuxError } from "../../src/mux/yamux.ts";
import { muxPair } from "./pair.ts";

const WINDOW = 256 * 1024;

test("a stream carries bytes both ways, and each end is told of the other's last", () => {
  const { gateway, agent, open, settle } = muxPair();
  const asked = open();
  asked.stream!.write(Buffer.from("GET"));
  settle();
  const [answered] = agent.accepted;
  expect(answered!.bytes.toString()).toBe("GET");
  answered!.stream!.write(Buffer.from("200"));
  answered!.stream!.end();
  settle();
  expect([asked.bytes.toString(), asked.happened]).toEqual(["200", ["end"]]);
  // Half closed: the other way goes on.
  asked.stream!.write(Buffer.from(" more"));
  asked.stream!.end();
  settle();
  expect([answered!.bytes.toString(), answered!.happened]).toEqual(["GET more", ["end", "done"]]);
  expect([gateway.session.streamCount, agent.session.streamCount]).toEqual([0, 0]);
});

test("five megabytes arrive whole in both directions at once, on twenty streams", () => {
  const { agent, open, settle } = muxPair();
  const sent = Array.from({ length: 20 }, () => randomBytes(256 * 1024 + 1));
  const opened = sent.map(() => open());
  settle();
  opened.forEach(({ stream }, at) => {
    stream!.write(sent[at]!);
    stream!.end();
    agent.accepted[at]!.stream!.write(sent[at]!);
    agent.accepted[at]!.stream!.end();
  });
  settle();
  sent.forEach((bytes, at) => {
    expect(agent.accepted[at]!.bytes.equals(bytes)).toBe(true);
    expect(opened[at]!.bytes.equals(bytes)).toBe(true);
  });
});

describe("a reader that reads nothing", () => {
  test("stops its own sender at the window, and no other stream", () => {
    const { agent, gateway, open, settle } = muxPair();
    const slow = open(false);
    const quick = open();
    settle();
    const [toSlow, toQuick] = agent.accepted.map(({ stream }) => stream!);
    const takes = toSlow!.write(randomBytes(1024 * 1024));
    toQuick!.write(randomBytes(1024 * 1024));
    settle();
    expect(takes).toBe(false);
    expect([slow.bytes.length, quick.bytes.length]).toEqual([WINDOW, 1024 * 1024]);
    expect(gateway.session.heldBytes).toBe(WINDOW);
    slow.readAll();
    settle();
    expect(slow.bytes.length).toBe(1024 * 1024);
    expect(gateway.session.heldBytes).toBe(0);
    expect(agent.session.heldBytes).toBe(0);
  });

  test("is broken off when all of them together hold too much; the rest lives", () => {
    const { agent, open, settle, gateway } = muxPair({ maxHeldBytes: 3 * WINDOW + 1024 });
    const slow = Array.from({ length: 4 }, () => open(false));
    const quick = open();
    settle();
    for (const { stream } of agent.accepted.slice(0, 4)) {
      stream!.write(randomBytes(WINDOW));
      settle();
    }
    expect(slow.filter(({ happened }) => happened.includes("broken")).length).toBe(1);
    expect(gateway.session.heldBytes).toBeLessThanOrEqual(3 * WINDOW + 1024);
    agent.accepted[4]!.stream!.write(Buffer.from("still here"));
    settle();
    expect(quick.bytes.toString()).toBe("still here");
    expect(agent.session.streamCount).toBe(4);
  });
});

test("while the connection is full streams take turns", () => {
  const { agent, open, settle } = muxPair();
  const [long, short] = [open(), open()];
  settle();
  agent.line.isHeld = true;
  agent.accepted[0]!.stream!.write(randomBytes(200 * 1024));
  agent.accepted[1]!.stream!.write(Buffer.from("x".repeat(100)));
  agent.line.isHeld = false;
  agent.line.carry();
  agent.line.carry();
  // The second was asked later and is small: it does not wait for all of the first.
  expect(short!.bytes.length).toBe(100);
  expect(long!.bytes.length).toBeLessThan(200 * 1024);
  settle();
  expect(long!.bytes.length).toBe(200 * 1024);
});

test("a window used up within a second is doubled, one used up slowly is not", () => {
  let nowMs = 0;
  const { agent, open, settle } = muxPair({ nowMs: () => nowMs });
  const reader = open(false);
  settle();
  const { stream } = agent.accepted[0]!;
  const inFlight = () => {
    const before = reader.bytes.length;
    stream!.write(randomBytes(2 * 1024 * 1024));
    settle();
    return reader.bytes.length - before;
  };
  expect(inFlight()).toBe(WINDOW);
  nowMs = 5_000;
  reader.stream!.consumed(reader.unread);
  reader.unread = 0;
  const slowly = reader.bytes.length;
  settle();
  expect(reader.bytes.length - slowly).toBe(WINDOW);
  nowMs = 5_100;
  reader.stream!.consumed(reader.unread);
  reader.unread = 0;
  const quickly = reader.bytes.length;
  settle();
  expect(reader.bytes.length - quickly).toBe(2 * WINDOW);
});

describe("what is refused", () => {
  test("a stream that an agent opens: a gateway takes none", () => {
    const { agent, gateway, settle } = muxPair();
    const happened: string[] = [];
    const stream = agent.session.open({
      onData() {},
      onEnd() {},
      onWritable() {},
      onDone() {},
      onBroken: () => void happened.push("broken"),
    });
    stream!.write(Buffer.from("let me in"));
    settle();
    expect(happened).toEqual(["broken"]);
    expect([gateway.session.streamCount, agent.session.streamCount, gateway.failed]).toEqual([0, 0, undefined]);
  });

  test("streams beyond the cap, at the opener and, should it not care, at the other end", () => {
    const { open, settle, agent } = muxPair({ maxStreams: 3 });
    const opened = Array.from({ length: 4 }, () => open());
    expect(opened.map(({ stream }) => stream !== undefined)).toEqual([true, true, true, false]);
    settle();
    expect(agent.session.streamCount).toBe(3);
  });

  test.each([
    ["another version", [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]],
    ["a type nobody knows", [0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]],
    ["a stream of the other end's numbers", [0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]],
    ["stream nought", [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]],
    ["more data than was granted", [0, 0, 0, 1, 0, 0, 0, 1, 0, 5, 0, 0]],
  ])("%s ends the session", (_, bytes) => {
    const { agent } = muxPair();
    expect(() => agent.session.received(Buffer.from(bytes))).toThrow(MuxError);
  });

  test("one number twice", () => {
    const { agent } = muxPair();
    const syn = Buffer.from([0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
    agent.session.received(syn);
    expect(() => agent.session.received(syn)).toThrow(MuxError);
  });

  test("pings by the thousand from one who does not read what we answer", () => {
    const { agent } = muxPair();
    const ping = Buffer.from([0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]);
    for (let i = 0; i < 60_000 && agent.failed === undefined; i++) agent.session.received(ping);
    expect(agent.failed).toBeInstanceOf(MuxError);
  });
});

test("a broken stream is told of once, and what comes for it later is dropped", () => {
  const { agent, gateway, open, settle } = muxPair();
  const reader = open();
  settle();
  agent.accepted[0]!.stream!.write(randomBytes(100_000));
  reader.stream!.reset();
  settle();
  expect(agent.accepted[0]!.happened).toEqual(["broken"]);
  expect([gateway.session.streamCount, agent.session.streamCount]).toEqual([0, 0]);
  expect([gateway.session.heldBytes, agent.session.heldBytes]).toEqual([0, 0]);
});

test("a session that is over breaks every stream, and opens none", () => {
  const { agent, open, settle } = muxPair();
  const opened = [open(), open()];
  settle();
  agent.session.over();
  expect(agent.accepted.map(({ happened }) => happened)).toEqual([["broken"], ["broken"]]);
  expect(agent.session.heldBytes).toBe(0);
  expect(opened.length).toBe(2);
});

test("who goes away takes no new streams; those that are open go on", () => {
  const { gateway, agent, open, settle } = muxPair();
  const asked = open();
  settle();
  agent.session.goAway();
  settle();
  expect(open().stream).toBeUndefined();
  expect(gateway.session.isClosed).toBe(true);
  agent.accepted[0]!.stream!.write(Buffer.from("still"));
  settle();
  expect(asked.bytes.toString()).toBe("still");
});

test("a thousand streams opened and ended leave nothing", () => {
  const { gateway, agent, open, settle } = muxPair();
  for (let i = 0; i < 1_000; i++) {
    const asked = open();
    settle();
    const answered = agent.accepted.at(-1)!;
    answered.stream!.write(Buffer.from("line\n"));
    // A third each: ended well, broken off by the reader, broken off by the sender.
    if (i % 3 === 0) for (const { stream } of [answered, asked]) stream!.end();
    else if (i % 3 === 1) asked.stream!.reset();
    else answered.stream!.reset();
    settle();
  }
  for (const { session } of [gateway, agent]) expect([session.streamCount, session.heldBytes]).toEqual([0, 0]);
});
