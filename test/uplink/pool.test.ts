import { afterEach, describe, expect, test } from "bun:test";
import * as net from "node:net";
import * as tls from "node:tls";
import { systemClock } from "../../src/base/clock.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { Pool } from "../../src/uplink/pool.ts";
import type { PoolRequest } from "../../src/uplink/pool-request.ts";
import type { RawAnswer } from "../../src/uplink/raw-answer.ts";
import { eventually } from "../support/client.ts";

const cluster = mintCluster();
const serving = cluster.servingCertificate(["127.0.0.1", "api.example"]);
const pair = cluster.clientCertificate("system:node:a", ["system:nodes"]);

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

interface Script {
  /** What a connection's nth request (from 0) is answered with, raw; "" for nothing. `close` ends the connection behind it. */
  readonly answer: (request: string, nth: number, connection: number) => { text: string; close?: boolean };
}

/** An API server that says byte for byte what it is told to. */
async function scripted({ answer }: Script, keyPair = serving) {
  const requests: string[] = [];
  let connections = 0;
  const sockets = new Set<tls.TLSSocket>();
  const options = {
    cert: keyPair.cert,
    key: keyPair.key,
    ca: cluster.ca,
    requestCert: true,
    rejectUnauthorized: false,
  };
  const server = tls.createServer(options, (socket) => {
    const connection = connections++;
    sockets.add(socket);
    socket.on("error", () => {});
    let nth = 0;
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      for (;;) {
        const end = text.indexOf("\r\n\r\n");
        if (end < 0) return;
        const length = Number(/content-length: (\d+)/i.exec(text.slice(0, end))?.[1] ?? 0);
        if (text.length < end + 4 + length) return;
        const request = text.slice(0, end + 4 + length);
        text = text.slice(end + 4 + length);
        requests.push(request);
        const { text: said, close } = answer(request, nth++, connection);
        if (said !== "") socket.write(Buffer.from(said, "latin1"));
        if (close === true) socket.end();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `https://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    url,
    requests,
    sockets,
    get connections() {
      return connections;
    },
  };
}

function poolTo(server: string, material: Partial<tls.ConnectionOptions & { serverName: string }> = {}): Pool {
  const pool = new Pool({
    server,
    tls: { ca: cluster.ca, ...(material as object) },
    clock: systemClock,
  });
  cleanups.push(() => pool.leaveBehind());
  return pool;
}

function get(target = "/a", more: Partial<PoolRequest> = {}): PoolRequest {
  return { method: "GET", target, headers: [], signal: new AbortController().signal, ...more };
}

async function textOf(answer: RawAnswer): Promise<string> {
  return Buffer.from(await answer.bytes()).toString("latin1");
}

const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

describe("an answer", () => {
  test.each<[string, string, boolean, string, boolean]>([
    ["of a known length", OK, false, "ok", true],
    [
      "in chunks",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
      false,
      "ok",
      true,
    ],
    ["until the connection's end", "HTTP/1.1 200 OK\r\n\r\nok", true, "ok", false],
    ["of HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, "ok", false],
    ["that says close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false, "ok", false],
    ["without a body", "HTTP/1.1 204 No Content\r\n\r\n", false, "", true],
    ["behind an interim one", `HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${OK}`, false, "ok", true],
    ["with more than it said", `${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`, false, "ok", false],
  ])("%s is read whole", async (_, text, close, body, isKept) => {
    const apiServer = await scripted({ answer: () => ({ text, close }) });
    const pool = poolTo(apiServer.url);
    for (let round = 0; round < 2; round++) expect(await textOf(await pool.request(get()))).toBe(body);
    expect(apiServer.connections).toBe(isKept ? 1 : 2);
  });

  test.each([
    ["that is no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"],
    ["with two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"],
    ["with length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["in another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
    ["with an endless head", `HTTP/1.1 200 OK\r\nA: ${"a".repeat(200_000)}`],
    ["that changes the protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
  ])("%s is none", async (_, text) => {
    const apiServer = await scripted({ answer: () => ({ text }) });
    await expect(poolTo(apiServer.url).request(get())).rejects.toThrow();
  });

  test.each([
    ["of a known length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
    ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ["in chunks that cannot be read", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfXX"],
  ])("%s that breaks off fails its reader", async (_, text) => {
    const apiServer = await scripted({ answer: () => ({ text, close: true }) });
    const answer = await poolTo(apiServer.url).request(get());
    await expect(textOf(answer)).rejects.toThrow();
  });

  test("keeps its header lines as they came", async () => {
    const text =
      "HTTP/1.1 200 OK\r\nWarning: 299 - a\r\nWarning: 299 - b\r\nX-Odd-Case: 1\r\nContent-Length: 0\r\n\r\n";
    const apiServer = await scripted({ answer: () => ({ text }) });
    const { headers } = await poolTo(apiServer.url).request(get());
    expect(headers.toJSON()).toEqual({
      Warning: ["299 - a", "299 - b"],
      "X-Odd-Case": "1",
      "Content-Length": "0",
    });
    expect(headers.get("warning")).toBe("299 - a, 299 - b");
  });
});

describe("an answer that comes whole", () => {
  const body = (nth: number) => String.fromCharCode(97 + nth).repeat(4_096);
  const served = () =>
    scripted({ answer: (_, nth) => ({ text: `HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n${body(nth)}` }) });

  test("is shown in its turn", async () => {
    const pool = poolTo((await served()).url);
    const taken: string[] = [];
    await pool.request(get("/a", { atOnce: (answer) => void taken.push(Buffer.from(answer.whole!).toString()) }));
    expect(taken).toEqual([body(0)]);
  });

  test("is its reader's own: what comes next does not write over it", async () => {
    const apiServer = await served();
    const pool = poolTo(apiServer.url);
    const answers: RawAnswer[] = [];
    for (let nth = 0; nth < 4; nth++) answers.push(await pool.request(get("/a", { atOnce: () => {} })));
    expect(apiServer.connections).toBe(1);
    expect(await Promise.all(answers.map(textOf))).toEqual([body(0), body(1), body(2), body(3)]);
  });
});

describe("a kept connection that proves dead", () => {
  const dying: Script = {
    answer: (_request, nth) => (nth === 0 ? { text: OK } : { text: "", close: true }),
  };

  test("a read is sent once more, on a new one", async () => {
    const apiServer = await scripted(dying);
    const pool = poolTo(apiServer.url);
    for (let round = 0; round < 3; round++) expect(await textOf(await pool.request(get()))).toBe("ok");
    expect(apiServer.connections).toBe(3);
  });

  test.each(["POST", "PUT", "PATCH", "DELETE"])("a %s is not", async (method) => {
    const apiServer = await scripted(dying);
    const pool = poolTo(apiServer.url);
    await textOf(await pool.request(get()));
    const body = Buffer.from("{}");
    await expect(pool.request(get("/a", { method, body }))).rejects.toThrow();
    expect(apiServer.requests.filter((request) => request.startsWith(method))).toHaveLength(1);
  });

  test("a read that has had a byte of its answer is not", async () => {
    const apiServer = await scripted({
      answer: (_request, nth) => (nth === 0 ? { text: OK } : { text: "HTTP/1.1 2", close: true }),
    });
    const pool = poolTo(apiServer.url);
    await textOf(await pool.request(get()));
    await expect(pool.request(get("/b"))).rejects.toThrow();
    expect(apiServer.requests.filter((request) => request.startsWith("GET /b"))).toHaveLength(1);
  });

  test("what comes unasked ends it", async () => {
    const apiServer = await scripted({ answer: () => ({ text: OK }) });
    const pool = poolTo(apiServer.url);
    await textOf(await pool.request(get()));
    const [socket] = apiServer.sockets;
    const closed = new Promise((resolve) => socket!.once("close", resolve));
    socket!.write(OK.replace("ok", "no"));
    await closed;
    expect(await textOf(await pool.request(get()))).toBe("ok");
    expect(apiServer.connections).toBe(2);
  });
});

describe("what goes out", () => {
  test("is the request as it was handed in", async () => {
    const apiServer = await scripted({ answer: () => ({ text: OK }) });
    const headers = [
      ["Impersonate-Group", "a"],
      ["Impersonate-Group", "b"],
    ] as const;
    const request = get('/x/../"%zz?a=%2F', { method: "DELETE", headers, body: Buffer.from("{}") });
    await textOf(await poolTo(apiServer.url).request(request));
    const { host } = new URL(apiServer.url);
    expect(apiServer.requests).toEqual([
      `DELETE /x/../"%zz?a=%2F HTTP/1.1\r\nHost: ${host}\r\nImpersonate-Group: a\r\nImpersonate-Group: b\r\nContent-Length: 2\r\n\r\n{}`,
    ]);
  });

  test("a body without a known length goes in chunks, no faster than it is taken", async () => {
    let made = 0;
    const server = tls.createServer({ cert: serving.cert, key: serving.key });
    const taken: tls.TLSSocket[] = [];
    server.on("secureConnection", (socket) => {
      socket.pause();
      taken.push(socket);
      socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanups.push(() => {
      for (const socket of taken) socket.destroy();
      server.close();
    });
    const pool = poolTo(`https://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    const total = 64;
    async function* body() {
      for (; made < total; made++) yield new Uint8Array(1024 * 1024);
    }
    const answering = pool.request(get("/a", { method: "POST", body: body() }));
    let last = -1;
    await eventually(() => last === (last = made) && last > 0);
    expect(made).toBeLessThan(total / 2);
    let received = 0;
    taken[0]!.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (chunk.toString("latin1").endsWith("0\r\n\r\n")) taken[0]!.write(OK);
    });
    taken[0]!.resume();
    expect(await textOf(await answering)).toBe("ok");
    expect(received).toBeGreaterThan(total * 1024 * 1024);
  }, 30_000);

  test("a long answer comes no faster than it is read", async () => {
    let written = 0;
    const server = tls.createServer({ cert: serving.cert, key: serving.key }, (socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        const total = 64 * 1024 * 1024;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
        const piece = new Uint8Array(256 * 1024);
        const send = () => {
          while (written < total) {
            written += piece.length;
            if (!socket.write(piece)) return;
          }
        };
        socket.on("drain", send);
        send();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    cleanups.push(() => server.close());
    const pool = poolTo(`https://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    const answer = await pool.request(get());
    let last = -1;
    await eventually(() => last === (last = written) && last > 0);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    expect((await answer.bytes()).length).toBe(64 * 1024 * 1024);
  }, 30_000);
});

describe("the other end must be the API server", () => {
  test("one of another CA is not asked", async () => {
    const other = mintCluster();
    const apiServer = await scripted({ answer: () => ({ text: OK }) }, other.servingCertificate(["127.0.0.1"]));
    await expect(poolTo(apiServer.url, pair).request(get())).rejects.toThrow();
    expect(apiServer.requests).toEqual([]);
  });

  test("one of another name is not asked, and one by its configured name is", async () => {
    const named = cluster.servingCertificate(["api.example"]);
    const apiServer = await scripted({ answer: () => ({ text: OK }) }, named);
    await expect(poolTo(apiServer.url).request(get())).rejects.toThrow();
    expect(apiServer.requests).toEqual([]);
    const pool = poolTo(apiServer.url, { serverName: "api.example" });
    expect(await textOf(await pool.request(get()))).toBe("ok");
  });

  test("our certificate goes along", async () => {
    const apiServer = await scripted({ answer: () => ({ text: OK }) });
    await textOf(await poolTo(apiServer.url, pair).request(get()));
    expect([...apiServer.sockets][0]!.getPeerCertificate().subject.CN).toBe("system:node:a");
  });
});

describe("a signal that aborts", () => {
  test.each(["before", "while waiting for the head", "while reading the body"])("%s ends the request", async (when) => {
    const begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    const apiServer = await scripted({ answer: () => ({ text: when.endsWith("body") ? begun : "" }) });
    const controller = new AbortController();
    if (when === "before") controller.abort(new Error("enough"));
    const answering = poolTo(apiServer.url).request(get("/a", { signal: controller.signal }));
    if (when.endsWith("body")) {
      const answer = await answering;
      const reading = textOf(answer);
      controller.abort(new Error("enough"));
      await expect(reading).rejects.toThrow("enough");
    } else {
      if (when !== "before") await eventually(() => apiServer.requests.length === 1);
      controller.abort(new Error("enough"));
      await expect(answering).rejects.toThrow("enough");
    }
    await eventually(() => [...apiServer.sockets].every((socket) => socket.destroyed || socket.closed));
  });

  test("an answer that nobody wants any more closes its connection", async () => {
    const apiServer = await scripted({ answer: () => ({ text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" }) });
    const answer = await poolTo(apiServer.url).request(get());
    answer.cancel();
    await eventually(() => [...apiServer.sockets].every((socket) => socket.destroyed || socket.closed));
  });
});

test("connections are left behind when told so: the next request opens a new one", async () => {
  const apiServer = await scripted({ answer: () => ({ text: OK }) });
  const pool = poolTo(apiServer.url);
  await textOf(await pool.request(get()));
  pool.leaveBehind();
  await textOf(await pool.request(get()));
  expect(apiServer.connections).toBe(2);
});

test("a port where nobody listens fails at once, with the system's code", async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const { port } = taken.address() as net.AddressInfo;
  await new Promise<void>((resolve) => taken.close(() => resolve()));
  const failing = poolTo(`https://127.0.0.1:${port}`).request(get());
  await expect(failing).rejects.toMatchObject({ code: "ECONNREFUSED" });
});
