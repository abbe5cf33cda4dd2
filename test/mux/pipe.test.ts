/** A pipe whose connection's other end is gone before its last words are read. */
import { describe, expect, test } from "bun:test";
import { Pipe, pipeHandlers, type PipeStream } from "../../src/mux/pipe.ts";
import { isHeldHere } from "../../src/tunnel/local-end.ts";
import { isSealedPing } from "../../src/tunnel/sealed-ping.ts";

/** Writes what the two kernels take, says how much that is, and ends when told: its socket is nobody's then. */
const WRITER = `
  const server = require("node:net").createServer((socket) => {
    socket.on("error", () => {});
    socket.write(Buffer.alloc(3_000_000));
    setTimeout(() => {
      const waiting = socket._handle ? socket.writableLength : 0;
      process.stdout.write(String(3_000_000 - waiting) + "\\n");
    }, 300);
  });
  server.listen(0, "127.0.0.1", () => process.stdout.write(server.address().port + "\\n"));
  process.stdin.once("data", () => process.exit());
`;

class SlowStream implements PipeStream {
  readonly id = 1;
  got = 0;
  consumedBytes = 0;
  hasEnded = false;
  isReset = false;
  isFull = true;
  write(bytes: Uint8Array): boolean {
    this.got += bytes.length;
    return !this.isFull;
  }
  end(): void {
    this.hasEnded = true;
  }
  reset(): void {
    this.isReset = true;
  }
  resetAfterwards(): void {
    this.isReset = true;
  }
  consumed(count: number): void {
    this.consumedBytes += count;
  }
}

describe("A pipe to a process that has written its last and closed, while the stream is slow", () => {
  test.each(["a ping comes", "nothing comes"])("%s: all it wrote arrives", async (title) => {
    const writer = Bun.spawn(["node", "-e", WRITER], { stdin: "pipe", stdout: "pipe" });
    const lines = reading(writer.stdout);
    const port = Number(await lines());
    const stream = new SlowStream();
    const pipe = new Pipe({
      nowMs: () => performance.now(),
      onClosed: () => {},
      isLeft: (socket) => isHeldHere(socket.localPort, socket.remotePort) === false,
    }).joinStream(stream);
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      allowHalfOpen: true,
      data: pipe,
      socket: pipeHandlers((opened) => pipe.joinSocket(opened)),
    });
    const written = Number(await lines());
    expect(written).toBeGreaterThan(1_000_000);
    expect(stream.got).toBeLessThan(written);
    expect(isHeldHere(socket.localPort, port)).toBe(true);
    // What comes while it is held reaches it, though the stream is full.
    pipe.onData(new Uint8Array(7));
    expect(stream.consumedBytes).toBe(7);

    await writer.stdin.write("end\n");
    await writer.stdin.flush();
    await writer.exited;
    expect(isHeldHere(socket.localPort, port)).toBe(false);
    if (title === "a ping comes") {
      pipe.onData(new Uint8Array(24));
      await Bun.sleep(50);
    }
    stream.isFull = false;
    pipe.onWritable();
    for (let i = 0; i < 100 && !stream.hasEnded && !stream.isReset; i++) await Bun.sleep(20);
    expect({ got: stream.got, isReset: stream.isReset }).toEqual({ got: written, isReset: false });
    pipe.breakOff("broken");
  });
});

describe("Pings to a connection that has much to say", () => {
  const PING = new Uint8Array([1]);
  const KEY = new Uint8Array([2]);

  async function world(): Promise<
    { pipe: Pipe; stream: SlowStream; heard: number[]; clock: { ms: number } } & AsyncDisposable
  > {
    const heard: number[] = [];
    const clock = { ms: 0 };
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void socket.write("much"), data: (_socket, bytes) => void heard.push(...bytes) },
    });
    const stream = new SlowStream();
    const pipe = new Pipe({
      nowMs: () => clock.ms,
      onClosed: () => {},
      isPing: (bytes) => bytes.every((one) => one === 1),
    }).joinStream(stream);
    await Bun.connect({
      hostname: "127.0.0.1",
      port: listener.port,
      allowHalfOpen: true,
      data: pipe,
      socket: pipeHandlers((opened) => pipe.joinSocket(opened)),
    });
    await seen(() => stream.got === 4);
    const dispose = (): Promise<void> => {
      pipe.breakOff("broken");
      listener.stop(true);
      return Promise.resolve();
    };
    return { pipe, stream, heard, clock, [Symbol.asyncDispose]: dispose };
  }

  test("wait until it is through, and are granted when they have left", async () => {
    await using here = await world();
    here.pipe.onData(PING);
    here.pipe.onData(PING);
    await Bun.sleep(600);
    expect({ heard: here.heard, consumed: here.stream.consumedBytes }).toEqual({ heard: [], consumed: 0 });
    here.stream.isFull = false;
    here.pipe.onWritable();
    here.clock.ms += 1_001;
    await seen(() => here.heard.length === 2);
    expect(here.stream.consumedBytes).toBe(2);
  });

  test("go before what comes after them: a key that is pressed waits for nothing", async () => {
    await using here = await world();
    here.pipe.onData(PING);
    here.pipe.onData(KEY);
    await seen(() => here.heard.length === 2);
    expect(here.heard).toEqual([1, 2]);
  });

  test("wait for twenty seconds and no longer", async () => {
    await using here = await world();
    here.pipe.onData(PING);
    here.clock.ms += 20_001;
    await seen(() => here.heard.length === 1);
  });

  test("are bounded", async () => {
    await using here = await world();
    for (let i = 0; i < 5_000; i++) here.pipe.onData(PING);
    await seen(() => here.heard.length > 4_000);
  });

  test("go at once where nothing is in their way", async () => {
    await using here = await world();
    here.stream.isFull = false;
    here.pipe.onWritable();
    here.clock.ms += 1_001;
    here.pipe.onData(PING);
    await seen(() => here.heard.length === 1);
  });
});

describe("isSealedPing", () => {
  const record = (text: number, type = 0x17): number[] => [
    type,
    3,
    3,
    0,
    text + 17,
    ...Array<number>(text + 17).fill(9),
  ];

  test.each<[string, number[], boolean]>([
    ["a ping", [2, 2, 4, 4].flatMap((text) => record(text)), true],
    ["two of them", [2, 2, 4, 4, 2, 2, 4, 4].flatMap((text) => record(text)), true],
    ["a message of one byte", [4, 4, 1].flatMap((text) => record(text)), false],
    ["RST_STREAM", [2, 2, 4, 4, 4].flatMap((text) => record(text)), false],
    ["a ping and a key that is pressed", [2, 2, 4, 4, 4, 4, 1].flatMap((text) => record(text)), false],
    ["a ping whose last record is not whole", [2, 2, 4, 4].flatMap((text) => record(text)).slice(0, -1), false],
    ["an empty WebSocket frame", record(6), false],
    ["alerts", [2, 2, 4, 4].flatMap((text) => record(text, 0x15)), false],
    ["nothing", [], false],
    ["no TLS", [...new TextEncoder().encode("GET / HTTP/1.1")], false],
  ])("%s", (_title, bytes, expected) => {
    expect(isSealedPing(new Uint8Array(bytes))).toBe(expected);
  });
});

describe("isHeldHere", () => {
  const HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
  const line = (local: string, remote: string, inode: number): string =>
    `   0: ${local} ${remote} 04 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0 20 4 0 10 -1\n`;
  const near = line("0100007F:A9D6", "0100007F:280A", 5);

  test.each<[string, string, string, boolean | undefined]>([
    ["its owner holds it", near + line("0100007F:280A", "0100007F:A9D6", 77), "", true],
    ["its owner has closed it", near + line("0100007F:280A", "0100007F:A9D6", 0), "", false],
    ["it is gone altogether", near, "", false],
    [
      "it stands in the table of IPv6, as kubelet's does",
      near,
      line("0000000000000000FFFF00000100007F:280A", "0000000000000000FFFF00000100007F:A9D6", 77),
      true,
    ],
    ["neither end is this machine's", line("0100007F:0016", "0100007F:A9D6", 3), "", undefined],
  ])("%s", (_title, ipv4, ipv6, expected) => {
    const read = (path: string): string => HEAD + (path.endsWith("6") ? ipv6 : ipv4);
    expect(isHeldHere(0xa9d6, 0x280a, read)).toBe(expected);
  });

  test("no tables", () => {
    const read = (): string => {
      throw new Error("ENOENT");
    };
    expect(isHeldHere(1, 2, read)).toBeUndefined();
  });
});

async function seen(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 250 && !condition(); i++) await Bun.sleep(20);
  expect(condition()).toBe(true);
}

function reading(stream: ReadableStream<Uint8Array>): () => Promise<string> {
  const reader = stream.getReader();
  let text = "";
  return async () => {
    while (!text.includes("\n")) text += new TextDecoder().decode((await reader.read()).value);
    const [line = "", ...rest] = text.split("\n");
    text = rest.join("\n");
    return line;
  };
}
