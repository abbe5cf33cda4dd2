import { afterEach, describe, expect, test } from "bun:test";
import * as http2 from "node:http2";
import { Cancel } from "../../src/base/cancel.ts";
import type { Clock } from "../../src/base/clock.ts";
import { systemClock } from "../../src/base/clock.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { CODE, FLAG, FRAME, numbersFrame, SETTING, settingsFrame } from "../../src/http2/frames.ts";
import { HeaderEncoder } from "../../src/http2/header-encoder.ts";
import { Http2Failure, Http2UnsupportedError } from "../../src/uplink/http2-failure.ts";
import { Http2Pool } from "../../src/uplink/http2-pool.ts";
import type { PoolRequest } from "../../src/uplink/pool-request.ts";
import type { RawAnswer } from "../../src/uplink/raw-answer.ts";
import { eventually } from "../support/client.ts";
import { startFramedServer, type FramedScript } from "../support/framed-server.ts";

const cluster = mintCluster();
const serving = cluster.servingCertificate(["127.0.0.1"]);
const pair = cluster.clientCertificate("system:node:a", ["system:nodes"]);
const tls = { ca: cluster.ca, ...pair };

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

function poolTo(server: string, clock: Clock = systemClock, material = tls) {
  const pool = new Http2Pool({ server, tls: material, clock });
  cleanups.push(() => pool.leaveBehind());
  return pool;
}

async function framed(script: FramedScript) {
  const server = await startFramedServer(cluster, script);
  cleanups.push(() => server.stop());
  return server;
}

const get = (target = "/", more: Partial<PoolRequest> = {}): PoolRequest => ({
  ...{ method: "GET", target, headers: [], signal: new Cancel() },
  ...more,
});
const textOf = async (answer: RawAnswer) => Buffer.from(await answer.bytes()).toString("latin1");
const failureOf = async (asked: Promise<unknown>) =>
  (await asked.then(
    () => undefined,
    (error: unknown) => error,
  )) as Http2Failure;
const echo: FramedScript = {
  onWhole: (connection, { id, body, fields }) => connection.answer(id, `${fields.get(":path")} ${body.length}`),
};

/** A clock that goes as far as it is told. */
function steppedClock() {
  let nowMs = 0;
  let tasks: { atMs: number; task: () => void }[] = [];
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => nowMs,
    after(ms: number, task: () => void) {
      const entry = { atMs: nowMs + ms, task };
      tasks.push(entry);
      return () => void (tasks = tasks.filter((one) => one !== entry));
    },
  };
  return {
    clock,
    pass(ms: number) {
      for (const endMs = nowMs + ms; nowMs < endMs;) {
        nowMs += 1_000;
        const due = tasks.filter(({ atMs }) => atMs <= nowMs);
        tasks = tasks.filter(({ atMs }) => atMs > nowMs);
        for (const { task } of due) task();
      }
    },
  };
}

describe("with Node's server", () => {
  async function nodeServer(
    options: http2.SecureServerOptions,
    onStream: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void,
  ) {
    const server = http2.createSecureServer({
      ...serving,
      ca: cluster.ca,
      requestCert: true,
      rejectUnauthorized: true,
      ...options,
    });
    const sessions = new Set<http2.ServerHttp2Session>();
    server.on("session", (session) => void sessions.add(session));
    server.on("stream", onStream);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanups.push(() => {
      for (const session of sessions) session.destroy();
      server.close();
    });
    return { url: `https://127.0.0.1:${(server.address() as { port: number }).port}`, sessions };
  }

  test("a read, a write and what is sent with them", async () => {
    const seen: http2.IncomingHttpHeaders[] = [];
    const { url, sessions } = await nodeServer({}, (stream, headers) => {
      seen.push(headers);
      const parts: Buffer[] = [];
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("end", () => {
        stream.respond({ ":status": 201, "x-was": headers[":method"] }, { endStream: false });
        stream.end(Buffer.concat(parts));
      });
    });
    const pool = poolTo(url);
    const headers = [
      ["Host", "elsewhere"],
      ["Connection", "close"],
      ["Impersonate-Group", "a"],
      ["Impersonate-Group", "b"],
    ] as const;
    const answer = await pool.request(get("/a%2Fb?x=//../..", { headers, authorization: "Bearer t" }));
    expect([answer.status, answer.headers.get("x-was"), await textOf(answer)]).toEqual([201, "GET", ""]);
    expect(seen[0]).toMatchObject({
      ":path": "/a%2Fb?x=//../..",
      ":authority": new URL(url).host,
      authorization: "Bearer t",
    });
    expect(seen[0]!["impersonate-group"]).toBe("a, b");
    expect(seen[0]!["connection"]).toBeUndefined();
    const body = Buffer.alloc(300_000, "x");
    expect(await textOf(await pool.request(get("/", { method: "PUT", body })))).toBe(body.toString());
    expect(seen[1]!["content-length"]).toBe("300000");
    expect(sessions.size).toBe(1);
  });

  test("a body whose length nobody knows, and a long answer read slowly", async () => {
    const { url } = await nodeServer({}, (stream) => {
      stream.respond({ ":status": 200 }, { endStream: false });
      stream.pipe(stream);
    });
    const parts = Array.from({ length: 40 }, (_, i) => Buffer.alloc(50_000, i));
    async function* body() {
      yield* parts;
    }
    const answer = await poolTo(url).request(get("/", { method: "POST", body: body() }));
    const got: Uint8Array[] = [];
    for await (const part of answer) {
      got.push(part);
      if (got.length % 10 === 0) await Bun.sleep(1);
    }
    expect(Buffer.concat(got).equals(Buffer.concat(parts))).toBe(true);
  });

  test("trailers are passed over, and what was announced comes first", async () => {
    const { url } = await nodeServer({}, (stream) => {
      stream.additionalHeaders({ ":status": 103, link: "</a>" });
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "1" }));
      stream.end("body");
    });
    const answer = await poolTo(url).request(get());
    expect([answer.status, await textOf(answer)]).toEqual([200, "body"]);
  });

  test("three hundred at once, of which a connection takes as many as it says", async () => {
    const held: http2.ServerHttp2Stream[] = [];
    const { url, sessions } = await nodeServer({ settings: { maxConcurrentStreams: 100 } }, (stream) => {
      stream.respond({ ":status": 200 });
      held.push(stream);
    });
    const pool = poolTo(url);
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => pool.request(get(`/${i}`))));
    expect([answers.length, sessions.size]).toEqual([300, 3]);
    for (const stream of held) stream.end("bye");
    expect(await Promise.all(answers.map(textOf))).toEqual(Array.from({ length: 300 }, () => "bye"));
  });

  test("a server without the client's trust is told nothing, and one that wants another certificate ends it", async () => {
    const { url } = await nodeServer({}, (stream) => stream.respond({ ":status": 200 }, { endStream: true }));
    const stranger = mintCluster();
    await expect(poolTo(url, systemClock, { ...tls, ca: stranger.ca }).request(get())).rejects.toThrow();
    const other = stranger.clientCertificate("system:node:a", []);
    await expect(poolTo(url, systemClock, { ca: cluster.ca, ...other }).request(get())).rejects.toThrow();
  });
});

test("a server that speaks HTTP/1.1 alone is told by its own error, before anything was sent", async () => {
  const { url } = await framed({ alpn: ["http/1.1"] });
  expect(await failureOf(poolTo(url).request(get("/", { method: "POST", body: Buffer.from("x") })))).toBeInstanceOf(
    Http2UnsupportedError,
  );
});

describe("a connection that takes no more", () => {
  test("ends what it has begun, and the rest goes to another, writes too", async () => {
    const { url, connections } = await framed({
      onWhole(connection, { id, fields }) {
        if (connection.number > 0) return connection.answer(id, `again ${fields.get(":path")}`);
        if (id !== 5) return;
        connection.goAway(1);
        connection.answer(1, "first");
      },
    });
    const pool = poolTo(url);
    const asked = [get("/1"), get("/2", { method: "PUT", body: Buffer.from("b") }), get("/3")].map((one) =>
      pool.request(one).then(textOf),
    );
    expect(await Promise.all(asked)).toEqual(["first", "again /2", "again /3"]);
    expect(connections).toHaveLength(2);
    await eventually(() => connections[0]!.socket.destroyed);
  });

  test("a body that came in pieces is not sent again", async () => {
    const { url, connections } = await framed({ onRequest: (connection) => connection.goAway(0) });
    async function* body() {
      yield Buffer.from("a");
    }
    const failure = await failureOf(poolTo(url).request(get("/", { method: "POST", body: body() })));
    expect(failure.kind).toBe("not-processed");
    expect(connections).toHaveLength(1);
  });

  test("what is refused is sent again, but not for ever", async () => {
    const { url, connections } = await framed({
      onRequest: (connection, { id, fields }) =>
        fields.get(":path") === "/once" && id > 1
          ? connection.answer(id)
          : connection.send(numbersFrame(FRAME.reset, id, CODE.refused)),
    });
    const pool = poolTo(url);
    expect(await textOf(await pool.request(get("/once", { method: "DELETE" })))).toBe("ok");
    expect((await failureOf(pool.request(get("/never")))).kind).toBe("not-processed");
    expect(connections.flatMap(({ requests }) => requests)).toHaveLength(6);
  });
});

describe("a kept connection that proves dead", () => {
  const dying: FramedScript = {
    onWhole(connection, { id }) {
      if (connection.number > 0 || id === 1) connection.answer(id);
      else connection.socket.destroy();
    },
  };

  test("a read goes again, once, on a new one", async () => {
    const { url, connections } = await framed(dying);
    const pool = poolTo(url);
    await textOf(await pool.request(get()));
    expect(await textOf(await pool.request(get("/read")))).toBe("ok");
    expect(connections.map(({ requests }) => requests.length)).toEqual([2, 1]);
  });

  test("a write fails, and has gone up once", async () => {
    const { url, connections } = await framed(dying);
    const pool = poolTo(url);
    await textOf(await pool.request(get()));
    const failure = await failureOf(pool.request(get("/write", { method: "PUT", body: Buffer.from("x") })));
    expect([failure.kind, failure.code]).toEqual(["connection", "ECONNRESET"]);
    expect(connections).toHaveLength(1);
  });

  test("a read on a new one is not repeated", async () => {
    const { url, connections } = await framed({ onWhole: (connection) => connection.socket.destroy() });
    expect((await failureOf(poolTo(url).request(get()))).kind).toBe("connection");
    expect(connections).toHaveLength(1);
  });
});

describe("silence", () => {
  test("is asked after half a minute, and answered silence goes on", async () => {
    const { clock, pass } = steppedClock();
    const { url, connections } = await framed({
      onWhole: (connection, { id }) => connection.head(id, [[":status", "200"]]),
    });
    const answer = await poolTo(url, clock).request(get("/?watch=true"));
    pass(29_000);
    expect(connections[0]!.others.filter(({ type }) => type === FRAME.ping)).toHaveLength(0);
    pass(10_000);
    await eventually(() => connections[0]!.others.some(({ type }) => type === FRAME.ping));
    connections[0]!.frame(FRAME.ping, FLAG.ack, 0, "\0\0\0\0\0\0\0\0");
    connections[0]!.data(1, "event");
    expect((await answer.getReader().read()).value?.toString()).toBe("event");
    pass(20_000);
    connections[0]!.data(1, "another");
    expect((await answer.getReader().read()).value?.toString()).toBe("another");
  });

  test("that a ping does not end is a dead connection, within a minute", async () => {
    const { clock, pass } = steppedClock();
    const { url } = await framed({ onWhole: (connection, { id }) => connection.head(id, [[":status", "200"]]) });
    const pool = poolTo(url, clock);
    const reading = (await pool.request(get("/?watch=true"))).getReader().read();
    pass(60_000);
    const failure = await failureOf(reading);
    expect([failure.kind, failure.code]).toEqual(["connection", "ETIMEDOUT"]);
  });

  test("of a server that never begins ends after ten seconds", async () => {
    const { clock, pass } = steppedClock();
    const { url, connections } = await framed({ isMute: true });
    const asked = failureOf(poolTo(url, clock).request(get()));
    await eventually(() => connections[0]?.requests.length === 1);
    pass(20_000);
    expect((await asked).code).toBe("ETIMEDOUT");
  });

  test("without a request ends the connection", async () => {
    const { clock, pass } = steppedClock();
    const { url, connections } = await framed(echo);
    await textOf(await poolTo(url, clock).request(get()));
    pass(40_000);
    await eventually(() => connections[0]!.socket.destroyed);
    expect(connections[0]!.others.at(-1)?.type).toBe(FRAME.goAway);
  });
});

describe("windows", () => {
  test("a reader that does not read stops its own answer at a quarter of a megabyte, and nobody else's", async () => {
    const chunk = Buffer.alloc(16_384);
    const { url, connections } = await framed({
      onWhole(connection, { id, fields }) {
        if (fields.get(":path") !== "/slow") return connection.answer(id);
        connection.head(id, [[":status", "200"]]);
        for (let i = 0; i < 16; i++) connection.data(id, chunk);
      },
    });
    const pool = poolTo(url);
    const slow = await pool.request(get("/slow"));
    expect(await textOf(await pool.request(get("/quick")))).toBe("ok");
    const updates = () =>
      connections[0]!.others.filter(({ type, stream }) => type === FRAME.windowUpdate && stream === 1);
    expect(updates()).toHaveLength(0);
    const reader = slow.getReader();
    for (let i = 0; i < 8; i++) await reader.read();
    await eventually(() => updates().length === 1);
    expect(updates()[0]!.payload.readUInt32BE(0)).toBe(8 * 16_384);
  });

  test("one who sends more than a stream's window loses the connection", async () => {
    const { url, connections } = await framed({
      onWhole(connection, { id }) {
        connection.head(id, [[":status", "200"]]);
        for (let i = 0; i < 17; i++) connection.data(id, Buffer.alloc(16_384));
      },
    });
    await poolTo(url).request(get());
    await eventually(() =>
      connections[0]!.others.some(
        ({ type, payload }) => type === FRAME.goAway && payload.readUInt32BE(4) === CODE.flowControl,
      ),
    );
  });

  test("what waits unread in many answers has a bound, and the one that holds most breaks off", async () => {
    const { url } = await framed({
      onWhole(connection, { id, fields }) {
        connection.head(id, [[":status", "200"]]);
        const frames = fields.get(":path") === "/most" ? 16 : 14;
        for (let i = 0; i < frames; i++) connection.data(id, Buffer.alloc(16_384));
      },
    });
    const pool = poolTo(url);
    const most = await pool.request(get("/most"));
    const others = await Promise.all(Array.from({ length: 37 }, (_, i) => pool.request(get(`/${i}`))));
    await expect(most.bytes()).rejects.toThrow("not read");
    expect(others).toHaveLength(37);
  });

  test("a body waits for both windows, also when a setting makes them smaller", async () => {
    const { url, connections } = await framed({
      settings: [[SETTING.initialWindowSize, 10]],
      onWhole: (connection, { id, body }) => connection.answer(id, String(body.length)),
    });
    const pool = poolTo(url);
    await pool.request(get()).then(textOf);
    const asked = pool.request(get("/", { method: "PUT", body: Buffer.alloc(1_000, "x") }));
    const write = () => connections[0]!.requests[1];
    await eventually(() => write()?.body.length === 10);
    const [connection] = connections;
    connection!.send(settingsFrame([[SETTING.initialWindowSize, 0]]), numbersFrame(FRAME.windowUpdate, 3, 15));
    await eventually(() => write()?.body.length === 15);
    connection!.send(numbersFrame(FRAME.windowUpdate, 3, 2_000));
    expect(await textOf(await asked)).toBe("1000");
  });
});

describe("one request that is given up", () => {
  test("before its head, and after it: the server is told, the others go on", async () => {
    const { url, connections } = await framed({
      onWhole(connection, { id, fields }) {
        if (fields.get(":path") === "/watch") connection.head(id, [[":status", "200"]]);
        else if (fields.get(":path") !== "/never") connection.answer(id);
      },
    });
    const pool = poolTo(url);
    const [first, second] = [new Cancel(), new Cancel()];
    const never = failureOf(pool.request(get("/never", { signal: first })));
    const watch = await pool.request(get("/watch", { signal: second }));
    const reading = failureOf(watch.getReader().read());
    first.cancel(new Error("enough"));
    second.cancel(new Error("enough"));
    expect([(await never).message, (await reading).message]).toEqual(["enough", "enough"]);
    const resets = () => connections[0]!.others.filter(({ type }) => type === FRAME.reset);
    await eventually(() => resets().length === 2);
    expect(resets().map(({ payload }) => payload.readUInt32BE(0))).toEqual([CODE.cancel, CODE.cancel]);
    expect(await textOf(await pool.request(get()))).toBe("ok");
    expect(connections).toHaveLength(1);
  });

  test("while the connection is being opened: it need not wait for it", async () => {
    const { url } = await framed({ isMute: true });
    const signal = new Cancel();
    const asked = failureOf(poolTo(url.replace(/:\d+$/, ":1")).request(get("/", { signal })));
    signal.cancel(new Error("enough"));
    expect(await asked).toBeInstanceOf(Error);
  });

  test("by its reader, or by the server's early answer", async () => {
    const { url, connections } = await framed({
      onRequest: (connection, { id, fields }) =>
        fields.get(":method") === "POST"
          ? connection.answer(id, "too large", "413")
          : connection.head(id, [[":status", "200"]]),
    });
    const pool = poolTo(url);
    (await pool.request(get())).cancel();
    let isStopped = false;
    async function* endless() {
      try {
        for (;;) yield Buffer.alloc(1_000);
      } finally {
        isStopped = true;
      }
    }
    const early = await pool.request(get("/", { method: "POST", body: endless() }));
    expect([early.status, await textOf(early)]).toEqual([413, "too large"]);
    await eventually(() => isStopped && connections[0]!.others.filter(({ type }) => type === FRAME.reset).length === 2);
  });

  test("by the server, which says so", async () => {
    const { url } = await framed({
      onWhole(connection, { id }) {
        connection.head(id, [[":status", "200"]]);
        connection.data(id, "half");
        connection.send(numbersFrame(FRAME.reset, id, CODE.internal));
      },
    });
    await expect((await poolTo(url).request(get())).bytes()).rejects.toThrow("HTTP/2 code 2");
  });
});

describe("an answer that is none ends its own stream alone", () => {
  test.each([
    { name: "no status", fields: [["content-type", "a"]] },
    { name: "a status that is none", fields: [[":status", "20"]] },
    { name: "a switch of protocols", fields: [[":status", "101"]] },
    {
      name: "two statuses",
      fields: [
        [":status", "200"],
        [":status", "200"],
      ],
    },
    {
      name: "a name in capitals",
      fields: [
        [":status", "200"],
        ["X-A", "b"],
      ],
    },
    {
      name: "a name with a line's end",
      fields: [
        [":status", "200"],
        ["x\r\na", "b"],
      ],
    },
    {
      name: "a value with a line's end",
      fields: [
        [":status", "200"],
        ["x", "b\r\nset-cookie: c"],
      ],
    },
    {
      name: "a value with spaces around",
      fields: [
        [":status", "200"],
        ["x", " b"],
      ],
    },
    {
      name: "a header of HTTP/1.1's frames",
      fields: [
        [":status", "200"],
        ["transfer-encoding", "chunked"],
      ],
    },
    {
      name: "two lengths",
      fields: [
        [":status", "200"],
        ["content-length", "1"],
        ["content-length", "1"],
      ],
    },
    {
      name: "a length shorter than the body",
      fields: [
        [":status", "200"],
        ["content-length", "1"],
      ],
    },
    {
      name: "a length longer than the body",
      fields: [
        [":status", "200"],
        ["content-length", "9"],
      ],
    },
    { name: "a body where none can be", fields: [[":status", "304"]] },
  ] as { name: string; fields: [string, string][] }[])("$name", async ({ fields }) => {
    const { url, connections } = await framed({
      onWhole(connection, { id, fields: asked }) {
        if (asked.get(":path") === "/well") return connection.answer(id);
        connection.head(id, fields);
        connection.data(id, "four", true);
      },
    });
    const pool = poolTo(url);
    const [failure, well] = await Promise.all([
      failureOf(pool.request(get("/ill")).then((answer) => answer.bytes())),
      pool.request(get("/well")).then(textOf),
    ]);
    expect([failure.kind, well, connections.length]).toEqual(["stream", "ok", 1]);
    expect(failure.message).toStartWith("the API server's answer is malformed");
  });
});

describe("a hostile server", () => {
  const block = new HeaderEncoder().write([[":status", "200"]]);
  test.each([
    { name: "answers nobody's request", attack: (c) => c.answer(99) },
    {
      name: "pushes",
      attack: (c) => c.frame(FRAME.pushPromise, FLAG.endHeaders, 1, `\0\0\0\x02${block.toString("latin1")}`),
    },
    {
      name: "sends a head without end",
      attack: (c) =>
        c.frame(FRAME.headers, 0, 1, block) ?? Array.from({ length: 40 }, () => c.frame(FRAME.continuation, 0, 1)),
    },
    { name: "spoils the table", attack: (c) => c.frame(FRAME.headers, FLAG.endHeaders, 1, "\xff\xff\xff\xff\xff\xff") },
    {
      name: "floods with pings",
      attack: (c) => Array.from({ length: 9_000 }, () => c.frame(FRAME.ping, 0, 0, "12345678")),
    },
    {
      name: "opens the window beyond its bound",
      attack: (c) => c.send(numbersFrame(FRAME.windowUpdate, 0, 0x7fff_ffff)),
    },
    { name: "opens the window by nothing", attack: (c) => c.send(numbersFrame(FRAME.windowUpdate, 0, 0)) },
    { name: "speaks another protocol", attack: (c) => c.send(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")) },
    {
      name: "sends a head that unfolds a thousandfold",
      attack(c) {
        c.head(1, [
          [":status", "100"],
          ["x", "y".repeat(500)],
        ]);
        c.frame(FRAME.headers, FLAG.endHeaders, 1, `\x88${"\xbe".repeat(2_000)}`);
      },
    },
  ] as { name: string; attack: (connection: Parameters<NonNullable<FramedScript["onWhole"]>>[0]) => unknown }[])(
    "$name: it loses the connection, and the next request has a new one",
    async ({ attack }) => {
      let isHostile = true;
      const { url, connections } = await framed({
        onWhole(connection, { id }) {
          if (!isHostile) return connection.answer(id);
          isHostile = false;
          attack(connection);
        },
      });
      const pool = poolTo(url);
      expect((await failureOf(pool.request(get("/", { method: "PUT" })))).kind).toBe("connection");
      await eventually(() => connections[0]!.socket.destroyed);
      expect(await textOf(await pool.request(get()))).toBe("ok");
      expect(connections).toHaveLength(2);
    },
  );

  test("that allows no stream at all costs no more connections than the bound", async () => {
    const { url, connections } = await framed({
      settings: [[SETTING.maxConcurrentStreams, 0]],
      onRequest: (connection, { id }) => connection.send(numbersFrame(FRAME.reset, id, CODE.refused)),
    });
    const pool = poolTo(url);
    for (let i = 0; i < 30; i++) await failureOf(pool.request(get()));
    expect(connections.length).toBeLessThanOrEqual(64);
    expect((await failureOf(pool.request(get()))).message).toContain("too many");
  });
});

test("left behind, a pool ends what is under way and nothing else", async () => {
  const { url, connections } = await framed({
    onWhole: (connection, { id, fields }) =>
      fields.get(":path") === "/watch" ? connection.head(id, [[":status", "200"]]) : connection.answer(id),
  });
  const pool = poolTo(url);
  const watch = await pool.request(get("/watch"));
  const reading = textOf(watch);
  pool.leaveBehind();
  connections[0]!.data(1, "still", true);
  expect(await reading).toBe("still");
  await eventually(() => connections[0]!.socket.destroyed);
});
