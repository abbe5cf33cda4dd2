import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import * as https from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";
import { systemClock, type Clock } from "../../src/base/clock.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import type { Exchange } from "../../src/front/exchange.ts";
import { listen, type Listener } from "../../src/front/listen.ts";
import type { UpgradedStream } from "../../src/front/upgraded-stream.ts";
import type { PlainAnswer } from "../../src/http1/response-head.ts";
import { eventually } from "../support/client.ts";

const cluster = mintCluster();
const serving = cluster.servingCertificate(["localhost", "127.0.0.1"]);
const pair = cluster.clientCertificate("system:node:a", ["system:nodes"]);
const HEAD = "Host: localhost\r\n";

/** A clock whose time only a test moves, for deadlines; timers run when it is moved. */
class HandClock implements Clock {
  #ms = 0;
  #timers = new Set<{ readonly atMs: number; readonly run: () => void }>();

  nowMs(): number {
    return Date.now();
  }

  monotonicMs(): number {
    return this.#ms;
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { atMs: this.#ms + delayMs, run };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  move(ms: number): void {
    for (const untilMs = this.#ms + ms; this.#ms < untilMs;) {
      this.#ms = Math.min(untilMs, this.#ms + 1_000);
      for (const timer of [...this.#timers]) {
        if (timer.atMs > this.#ms) continue;
        this.#timers.delete(timer);
        timer.run();
      }
    }
  }
}

/** What a request became: its method, target and body, answered in JSON. */
async function echo({ method, target, body, response }: Exchange): Promise<void> {
  const parts: Uint8Array[] = [];
  try {
    for await (const part of body) parts.push(part);
  } catch {
    return response.destroy();
  }
  const text = JSON.stringify({ method, target, body: Buffer.concat(parts).toString("latin1") });
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(text);
}

interface Served extends AsyncDisposable {
  readonly listener: Listener;
  readonly clock: HandClock;
}

async function serve(
  onRequest: (exchange: Exchange) => void,
  onUpgrade: (exchange: Exchange, stream: UpgradedStream, early: Uint8Array) => void = () => {},
): Promise<Served> {
  const clock = new HandClock();
  const listener = await listen({
    host: "127.0.0.1",
    port: 0,
    certPem: serving.cert,
    keyPem: serving.key,
    clientCaPem: cluster.ca,
    clock,
    onRequest,
    onUpgrade,
  });
  return { listener, clock, [Symbol.asyncDispose]: async () => listener.stop() };
}

/** A raw TLS connection: what was received, and whether it was closed. */
async function connect(port: number, options: tls.ConnectionOptions = {}) {
  const socket = tls.connect({ host: "127.0.0.1", port, ca: cluster.ca, servername: "localhost", ...options });
  const parts: Buffer[] = [];
  let isClosed = false;
  socket.on("data", (part: Buffer) => parts.push(part));
  socket.on("error", () => {});
  socket.on("close", () => (isClosed = true));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("secureConnect", resolve);
  socket.once("close", () => reject(new Error("closed before it was secure")));
  await promise;
  return {
    socket,
    send: (text: string | Uint8Array) => socket.write(typeof text === "string" ? Buffer.from(text, "latin1") : text),
    get text() {
      return Buffer.concat(parts).toString("latin1");
    },
    get statuses() {
      return [...this.text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
    },
    get isClosed() {
      return isClosed;
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

describe("requests on one connection", () => {
  let served: Served;
  beforeAll(async () => {
    served = await serve((exchange) => void echo(exchange));
  });
  afterAll(() => served[Symbol.asyncDispose]());

  test.each<[string, string, (string | RegExp)[], boolean]>([
    ["a GET", `GET /a HTTP/1.1\r\n${HEAD}\r\n`, ['"target":"/a"'], false],
    ["close", `GET /a HTTP/1.1\r\n${HEAD}Connection: close\r\n\r\n`, ["Connection: close"], true],
    ["HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", ["Connection: close", "Content-Length: "], true],
    ["HTTP/1.0 that stays", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ["Connection: keep-alive"], false],
    ["an empty line before", `\r\nGET /a HTTP/1.1\r\n${HEAD}\r\n`, ['"target":"/a"'], false],
    [
      "three at once",
      `GET /a HTTP/1.1\r\n${HEAD}\r\n`.repeat(2) + `GET /b HTTP/1.1\r\n${HEAD}\r\n`,
      [/"\/a"[^]*"\/a"[^]*"\/b"/],
      false,
    ],
    [
      "a body, then another request",
      `POST /p HTTP/1.1\r\n${HEAD}Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n${HEAD}\r\n`,
      ['"body":"abc"', '"target":"/b"'],
      false,
    ],
    [
      "chunks, then another request",
      `POST /p HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\nGET /b HTTP/1.1\r\n${HEAD}\r\n`,
      ['"body":"abcde"', '"target":"/b"'],
      false,
    ],
    ["a GET with a body", `GET /a HTTP/1.1\r\n${HEAD}Content-Length: 3\r\n\r\nabc`, ['"body":"abc"'], false],
    [
      "a body that is waited for",
      `POST /p HTTP/1.1\r\n${HEAD}Content-Length: 0\r\nExpect: 100-continue\r\n\r\n`,
      ['"body":""'],
      false,
    ],
  ])("%s", async (_, sent, expected, isClosed) => {
    using client = await connect(served.listener.port);
    client.send(sent);
    for (const one of expected) {
      await eventually(() => (typeof one === "string" ? client.text.includes(one) : one.test(client.text)));
    }
    if (isClosed) await eventually(() => client.isClosed);
    else {
      client.send(`GET /last HTTP/1.1\r\n${HEAD}\r\n`);
      await eventually(() => client.text.includes('"/last"'));
    }
  });

  test("are read byte by byte", async () => {
    using client = await connect(served.listener.port);
    const sent = `POST /p HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`;
    for (const byte of Buffer.from(sent)) client.send(Uint8Array.of(byte));
    await eventually(() => client.text.includes('"body":"abc"'));
  });

  test("100 Continue is said when the body is wanted, and before the answer", async () => {
    using client = await connect(served.listener.port);
    client.send(`POST /p HTTP/1.1\r\n${HEAD}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n`);
    await eventually(() => client.text.startsWith("HTTP/1.1 100 Continue\r\n\r\n"));
    client.send("abc");
    await eventually(() => client.text.includes('"body":"abc"'));
    expect(client.statuses).toEqual([100, 200]);
  });

  test("HEAD gets a head alone", async () => {
    using client = await connect(served.listener.port);
    client.send(`HEAD /a HTTP/1.1\r\n${HEAD}\r\nGET /b HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => client.text.includes('"/b"'));
    expect(client.text).not.toContain('"/a"');
  });

  test.each([
    ["a head that is malformed", "GET / HTTP/1.1\r\nFoo : a\r\n\r\n", 400],
    ["bare line feeds", "GET / HTTP/1.1\nHost: localhost\n\n", 400],
    ["a host that is not ours", "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 421],
    ["HTTP/2 in HTTP/1's way", `GET /api HTTP/2.0\r\n${HEAD}\r\n`, 505],
    ["a stranger's long head", `GET / HTTP/1.1\r\n${HEAD}A: ${"a".repeat(40_000)}\r\n\r\n`, 431],
  ])("%s is answered, and ends the connection", async (_, sent, status) => {
    using client = await connect(served.listener.port);
    client.send(`${sent}GET /next HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => client.isClosed);
    expect(client.statuses).toEqual([status]);
  });

  test("a client of the cluster may send a longer head", async () => {
    using client = await connect(served.listener.port, { cert: pair.cert, key: pair.key });
    client.send(`GET /a HTTP/1.1\r\n${HEAD}A: ${"a".repeat(100_000)}\r\n\r\n`);
    await eventually(() => client.text.includes('"/a"'));
  });

  test("a body whose chunks cannot be read gets no answer, and nothing behind it is one", async () => {
    using client = await connect(served.listener.port);
    client.send(
      `POST /p HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\nabcXXGET /b HTTP/1.1\r\n${HEAD}\r\n`,
    );
    await eventually(() => client.isClosed);
    expect(client.text).toBe("");
  });
});

/** An answer of an API server that came whole. */
function plainAnswer(): PlainAnswer {
  const head = "HTTP/1.1 200 OK\r\nAudit-ID: 1\r\nDate: Mon, 30 Nov 2026 03:00:00 GMT\r\nContent-Length: 2\r\n";
  return { status: 200, bytes: Buffer.from(`${head}\r\nok`), headEnd: head.length };
}

describe("an answer that is passed on as it came", () => {
  const { bytes, headEnd } = plainAnswer();
  const head = Buffer.from(bytes).toString("latin1", 0, headEnd);

  test.each<[string, string, string, boolean]>([
    ["stays so for HTTP/1.1", `GET /a HTTP/1.1\r\n${HEAD}\r\n`, `${head}\r\nok`, false],
    [
      "says close to who wants to close",
      `GET /a HTTP/1.1\r\n${HEAD}Connection: close\r\n\r\n`,
      `${head}Connection: close\r\n\r\nok`,
      true,
    ],
    ["says close to HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", `${head}Connection: close\r\n\r\nok`, true],
    [
      "says keep-alive to HTTP/1.0 that stays",
      "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
      `${head}Connection: keep-alive\r\n\r\nok`,
      false,
    ],
  ])("%s", async (_, sent, expected, isClosed) => {
    await using served = await serve(({ response }) => response.pass(plainAnswer()));
    using client = await connect(served.listener.port);
    client.send(sent);
    await eventually(() => client.text.length >= expected.length);
    expect(client.text).toBe(expected);
    if (isClosed) await eventually(() => client.isClosed);
    else {
      client.send(sent);
      await eventually(() => client.text === expected + expected);
    }
  });

  test("is one answer: a head cannot be set behind it", async () => {
    const failure = Promise.withResolvers<unknown>();
    await using served = await serve(({ response }) => {
      response.pass(plainAnswer());
      try {
        response.writeHead(500);
      } catch (error) {
        failure.resolve(error);
      }
    });
    using client = await connect(served.listener.port);
    client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
    expect(String(await failure.promise)).toContain("twice");
  });
});

describe("TLS", () => {
  test("says HTTP/1.1 to who would rather speak HTTP/2, and refuses who speaks nothing else", async () => {
    await using served = await serve((exchange) => void echo(exchange));
    using both = await connect(served.listener.port, { ALPNProtocols: ["h2", "http/1.1"] });
    expect(both.socket.alpnProtocol).toBe("http/1.1");
    await expect(connect(served.listener.port, { ALPNProtocols: ["h2"] })).rejects.toThrow();
    await expect(connect(served.listener.port, { maxVersion: "TLSv1.1", minVersion: "TLSv1" })).rejects.toThrow();
  });

  test("shows a trusted certificate, and a stranger's as what it is", async () => {
    const seen: unknown[] = [];
    await using served = await serve((exchange) => {
      const { authorized, authorizationError } = exchange.socket;
      seen.push({ authorized, authorizationError, CN: exchange.socket.getPeerCertificate()?.subject?.CN });
      void echo(exchange);
    });
    const rogue = mintCluster().clientCertificate("system:node:a", ["system:nodes"]);
    for (const options of [{ cert: pair.cert, key: pair.key }, { cert: rogue.cert, key: rogue.key }, {}]) {
      using client = await connect(served.listener.port, options);
      client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
      await eventually(() => client.text.includes('"/a"'));
    }
    expect(seen).toEqual([
      { authorized: true, authorizationError: undefined, CN: "system:node:a" },
      { authorized: false, authorizationError: "UNABLE_TO_VERIFY_LEAF_SIGNATURE", CN: "system:node:a" },
      { authorized: false, authorizationError: "UNABLE_TO_GET_ISSUER_CERT", CN: undefined },
    ]);
  });

  test("a renewed certificate meets new connections; an open one lives on", async () => {
    await using served = await serve((exchange) => void echo(exchange));
    using before = await connect(served.listener.port);
    const other = mintCluster();
    const renewed = other.servingCertificate(["localhost"]);
    served.listener.renew({ certPem: renewed.cert, keyPem: renewed.key, clientCaPem: cluster.ca });
    using after = await connect(served.listener.port, { ca: other.ca });
    for (const client of [before, after]) {
      client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
      await eventually(() => client.text.includes('"/a"'));
    }
  });
});

test("when another CA counts for clients, who has only the old one is let go, and nobody else", async () => {
  await using served = await serve((exchange) => void echo(exchange));
  const other = mintCluster();
  const theirs = other.clientCertificate("system:node:b", ["system:nodes"]);
  using old = await connect(served.listener.port, { cert: pair.cert, key: pair.key });
  using stranger = await connect(served.listener.port);
  const isTheirs = (raw: Uint8Array) => new X509Certificate(raw).verify(new X509Certificate(other.ca).publicKey);
  served.listener.renew({ certPem: serving.cert, keyPem: serving.key, clientCaPem: other.ca }, isTheirs);
  await eventually(() => old.isClosed);
  expect(stranger.isClosed).toBe(false);
  let authorized: boolean | undefined;
  await using again = await serve((exchange) => {
    ({ authorized } = exchange.socket);
    void echo(exchange);
  });
  again.listener.renew({ certPem: serving.cert, keyPem: serving.key, clientCaPem: other.ca }, isTheirs);
  using renewed = await connect(again.listener.port, { cert: theirs.cert, key: theirs.key });
  renewed.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => renewed.text.includes('"/a"'));
  expect(authorized).toBe(true);
});

test("through fifty renewals under connections without a pause nobody is turned away, and each is met with the pair of then", async () => {
  await using served = await serve((exchange) => void echo(exchange));
  const pairs = Array.from({ length: 4 }, () => cluster.servingCertificate(["localhost"]));
  const errors: string[] = [];
  let asked = 0;
  let isOver = false;
  const ask = async () => {
    while (!isOver) {
      try {
        using client = await connect(served.listener.port, { cert: pair.cert, key: pair.key });
        client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
        await eventually(() => client.text.includes('"/a"'));
        asked++;
      } catch (error) {
        errors.push(String(error));
      }
    }
  };
  const asking = Array.from({ length: 8 }, ask);
  for (let renewals = 0; renewals < 50; renewals++) {
    const { cert, key } = pairs[renewals % pairs.length]!;
    served.listener.renew({ certPem: cert, keyPem: key, clientCaPem: cluster.ca });
    const before = asked;
    await eventually(() => asked > before + 4);
  }
  isOver = true;
  await Promise.all(asking);
  expect(errors).toEqual([]);
  expect(await servedCertificate(served.listener.port)).toBe(serialOf(pairs[49 % pairs.length]!.cert));
});

test("what cannot be served is said, and the former pair stands", async () => {
  await using served = await serve((exchange) => void echo(exchange));
  const other = cluster.servingCertificate(["localhost"]);
  for (const [certPem, keyPem] of [
    [other.cert, serving.key],
    ["nothing", other.key],
  ] as const)
    expect(() => served.listener.renew({ certPem, keyPem, clientCaPem: cluster.ca })).toThrow();
  expect(await servedCertificate(served.listener.port)).toBe(serialOf(serving.cert));
});

test.each([
  ["TLSv1.2", 0],
  ["TLSv1.2", 1],
  ["TLSv1.3", 0],
  ["TLSv1.3", 1],
] as const)(
  "a session of %s from before its CA went, after %p earlier renewals, makes nobody known",
  async (version, renewals) => {
    const seen: (boolean | undefined)[] = [];
    await using served = await serve((exchange) => {
      seen.push(exchange.socket.authorized);
      void echo(exchange);
    });
    const files = { certPem: serving.cert, keyPem: serving.key };
    for (let count = 0; count < renewals; count++) served.listener.renew({ ...files, clientCaPem: cluster.ca });
    const options = { cert: pair.cert, key: pair.key, minVersion: version, maxVersion: version } as const;
    let session: Buffer | undefined;
    const first = await askedWith(served.listener.port, options, (one) => (session = one));
    expect([first, session === undefined]).toEqual([false, false]);
    expect(await askedWith(served.listener.port, { ...options, session: session! })).toBe(true);
    served.listener.renew({ ...files, clientCaPem: mintCluster().ca }, () => false);
    expect(await askedWith(served.listener.port, { ...options, session: session! })).toBe(false);
    expect(seen).toEqual([true, true, false]);
  },
);

test("a connection that came before its CA went, and shows its certificate after, is let go", async () => {
  await using served = await serve((exchange) => void echo(exchange));
  const { promise: arrived, resolve } = Promise.withResolvers<void>();
  const socket = net.connect(served.listener.port, "127.0.0.1", resolve);
  await arrived;
  // Another one is through: the first has been accepted.
  using other = await connect(served.listener.port);
  other.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => other.text.includes('"/a"'));
  served.listener.renew({ certPem: serving.cert, keyPem: serving.key, clientCaPem: mintCluster().ca }, () => false);
  const late = tls.connect({ socket, ca: cluster.ca, servername: "localhost", cert: pair.cert, key: pair.key });
  late.on("error", () => {});
  let isClosed = false;
  late.on("close", () => (isClosed = true));
  await eventually(() => isClosed);
});

test("after a renewal a client that would rather speak HTTP/2 still falls back", async () => {
  await using served = await serve((exchange) => void echo(exchange));
  served.listener.renew({ certPem: serving.cert, keyPem: serving.key, clientCaPem: cluster.ca });
  using client = await connect(served.listener.port, { ALPNProtocols: ["h2", "http/1.1"] });
  client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => client.text.includes('"/a"'));
});

const serialOf = (certPem: string) => new X509Certificate(certPem).serialNumber;

/** The serial number of what a listener serves. */
async function servedCertificate(port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = tls.connect({ host: "127.0.0.1", port, ca: cluster.ca, servername: "localhost" }, () => {
    resolve(socket.getPeerCertificate().serialNumber);
    socket.destroy();
  });
  socket.on("error", reject);
  return await promise;
}

/** Asks once. @returns whether an earlier session was gone on with. */
async function askedWith(
  port: number,
  options: tls.ConnectionOptions,
  onSession: (session: Buffer) => void = () => {},
): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = tls.connect({ host: "127.0.0.1", port, ca: cluster.ca, servername: "localhost", ...options });
  socket.on("session", onSession);
  socket.on("error", reject);
  socket.on("secureConnect", () => socket.write(`GET /a HTTP/1.1\r\n${HEAD}\r\n`));
  socket.on("data", () => resolve(socket.isSessionReused()));
  const isReused = await promise;
  await Bun.sleep(20);
  socket.destroy();
  return isReused;
}

describe("a client that takes its time", () => {
  test.each<[string, string, number]>([
    ["never ends its head", `GET / HTTP/1.1\r\n${HEAD}`, 35_000],
    ["asks nothing", "", 105_000],
    ["stops in its body", `POST /p HTTP/1.1\r\n${HEAD}Content-Length: 9\r\n\r\nabc`, 65_000],
  ])("and %s is let go", async (_, sent, afterMs) => {
    let bodies = 0;
    await using served = await serve((exchange) => {
      bodies++;
      void echo(exchange);
    });
    using client = await connect(served.listener.port);
    client.send(sent);
    if (sent.startsWith("POST")) await eventually(() => bodies === 1);
    // A request of another connection is through: what was sent before it has been read.
    using other = await connect(served.listener.port);
    other.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => other.text.includes('"/a"'));
    served.clock.move(afterMs / 2);
    expect(client.isClosed).toBe(false);
    served.clock.move(afterMs / 2 + 3_000);
    await eventually(() => client.isClosed);
  });

  test("and does not shake hands is let go", async () => {
    await using served = await serve(() => {});
    const { connect: connectTcp } = await import("node:net");
    const socket = connectTcp(served.listener.port, "127.0.0.1");
    let isClosed = false;
    socket.on("close", () => (isClosed = true)).on("error", () => {});
    using marker = await connect(served.listener.port);
    expect(marker.isClosed).toBe(false);
    served.clock.move(13_000);
    await eventually(() => isClosed);
  });

  test("and reads nothing of a long answer holds it up, and nobody else", async () => {
    let written = 0;
    let isHeld = false;
    await using served = await serve(async (exchange) => {
      if (exchange.target !== "/long") return echo(exchange);
      const { response } = exchange;
      response.writeHead(200);
      const piece = new Uint8Array(64 * 1024);
      while (written < 64 * 1024 * 1024 && response.write(piece)) written += piece.length;
      isHeld = response.writableNeedDrain;
      response.once("drain", () => response.end());
    });
    using slow = await connect(served.listener.port);
    slow.socket.pause();
    slow.send(`GET /long HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => isHeld);
    expect(written).toBeLessThan(16 * 1024 * 1024);
    using other = await connect(served.listener.port);
    other.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => other.text.includes('"/a"'));
    slow.socket.resume();
    await eventually(() => slow.text.endsWith("0\r\n\r\n"));
    served.clock.move(1_000);
  });

  test("sends no more of a body than is read", async () => {
    let release = () => {};
    let taken = 0;
    await using served = await serve(async (exchange) => {
      await new Promise<void>((resolve) => (release = resolve));
      for await (const part of exchange.body) taken += part.length;
      exchange.response.writeHead(200);
      exchange.response.end();
    });
    using client = await connect(served.listener.port);
    const size = 64 * 1024 * 1024;
    client.send(`POST /p HTTP/1.1\r\n${HEAD}Content-Length: ${size}\r\n\r\n`);
    const piece = new Uint8Array(1024 * 1024);
    let sent = 0;
    const send = () => {
      while (sent < size) {
        sent += piece.length;
        if (!client.socket.write(piece)) return;
      }
    };
    client.socket.on("drain", send);
    send();
    let last = -1;
    await eventually(() => last === (last = client.socket.bytesWritten) && last > 0);
    expect(client.socket.writableLength).toBeGreaterThan(0);
    expect(sent).toBeLessThan(size / 2);
    release();
    await eventually(() => taken === size, Boolean, 20_000);
  });

  test("and pipelines without reading gets no further than the first unread answers", async () => {
    let served1 = 0;
    await using served = await serve((exchange) => {
      served1++;
      exchange.response.writeHead(200);
      exchange.response.end(new Uint8Array(256 * 1024));
    });
    using client = await connect(served.listener.port);
    client.socket.pause();
    const many = `GET /a HTTP/1.1\r\n${HEAD}\r\n`.repeat(500);
    client.send(many);
    let last = -1;
    await eventually(() => last === (last = served1) && last > 0);
    expect(served1).toBeLessThan(100);
    client.socket.resume();
    await eventually(() => served1 === 500, Boolean, 20_000);
  });
});

test("a request whose client goes away is aborted", async () => {
  let aborted = 0;
  let begun = 0;
  await using served = await serve((exchange) => {
    begun++;
    exchange.signal.addEventListener("abort", () => aborted++);
    exchange.response.writeHead(200);
    exchange.response.flushHeaders();
  });
  const client = await connect(served.listener.port);
  client.send(`GET /watch HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => client.text.includes("Transfer-Encoding: chunked") && begun === 1);
  client.socket.destroy();
  await eventually(() => aborted === 1);
});

test("an answer that is broken off is no whole answer", async () => {
  await using served = await serve((exchange) => {
    exchange.response.writeHead(200);
    exchange.response.write(Buffer.from("half"));
    exchange.response.destroy();
  });
  using client = await connect(served.listener.port);
  client.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => client.isClosed);
  expect(client.text).not.toContain("0\r\n\r\n");
});

test("an answer before its request's end reaches the client, and ends the connection", async () => {
  await using served = await serve(({ response }) => {
    response.writeHead(413, { "Content-Type": "text/plain" });
    response.end("too large");
  });
  using client = await connect(served.listener.port);
  client.send(`POST /p HTTP/1.1\r\n${HEAD}Content-Length: 100000\r\n\r\nabc`);
  await eventually(() => client.text.includes("too large"));
  expect(client.text).toContain("Connection: close");
  served.clock.move(5_000);
  await eventually(() => client.isClosed);
});

test("an upgrade gets the connection, with what was sent behind its head", async () => {
  let early = "";
  await using served = await serve(
    () => {},
    (_, stream, first) => {
      early = Buffer.from(first).toString();
      stream.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
      stream.on("data", (part: Buffer) => stream.write(part));
      stream.on("end", () => stream.end());
    },
  );
  using client = await connect(served.listener.port);
  client.send(`POST /exec HTTP/1.1\r\n${HEAD}Connection: Upgrade\r\nUpgrade: x\r\n\r\nearly`);
  await eventually(() => client.text.includes("101 Switching"));
  expect(early).toBe("early");
  const size = 8 * 1024 * 1024;
  const before = client.text.length;
  client.send(new Uint8Array(size));
  await eventually(() => client.text.length - before === size, Boolean, 20_000);
});

test("when all places are taken a stranger's oldest idle connection gives way, and never one at work", async () => {
  const waiting: Exchange[] = [];
  await using served = await serve((exchange) => {
    if (exchange.target === "/wait") waiting.push(exchange);
    else void echo(exchange);
  });
  const { port } = served.listener;
  using atWork = await connect(port);
  atWork.send(`GET /wait HTTP/1.1\r\n${HEAD}\r\n`);
  await eventually(() => waiting.length === 1);
  const idle = await Promise.all(Array.from({ length: 50 }, () => connect(port)));
  const agent = new https.Agent({ keepAlive: true, ca: cluster.ca });
  try {
    // Many more than there are places; each takes the oldest idle one's.
    for (let round = 0; round < 20; round++) {
      served.clock.move(10);
      const more = await Promise.all(Array.from({ length: 100 }, () => connect(port)));
      for (const one of more) idle.push(one);
    }
    await eventually(() => idle[0]!.isClosed);
    using node = await connect(port, { cert: pair.cert, key: pair.key });
    node.send(`GET /a HTTP/1.1\r\n${HEAD}\r\n`);
    await eventually(() => node.text.includes('"/a"'));
    expect(atWork.isClosed).toBe(false);
    waiting[0]!.response.writeHead(200);
    waiting[0]!.response.end("done");
    await eventually(() => atWork.text.includes("done"));
  } finally {
    agent.destroy();
    for (const one of idle) one.socket.destroy();
  }
}, 60_000);

test("a clock that runs lets a real client keep its connection", async () => {
  const listener = await listen({
    host: "127.0.0.1",
    port: 0,
    certPem: serving.cert,
    keyPem: serving.key,
    clientCaPem: cluster.ca,
    clock: systemClock,
    onRequest: (exchange) => void echo(exchange),
    onUpgrade: () => {},
  });
  try {
    const url = `https://127.0.0.1:${listener.port}/a`;
    const options = { tls: { ca: cluster.ca } };
    const answers = await Promise.all(
      Array.from({ length: 20 }, async () => (await fetch(url.replace("127.0.0.1", "localhost"), options)).json()),
    );
    expect(answers).toHaveLength(20);
  } finally {
    listener.stop();
  }
});
