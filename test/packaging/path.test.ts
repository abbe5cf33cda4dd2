/**
 * What clients do on the way through the compiled binary, byte for byte: each
 * as a raw TLS connection, so that no library hides a fault.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import * as tls from "node:tls";
import { memoryOf } from "../../scripts/bench/process.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { demoWorld } from "../../src/demo/api-server/seed.ts";
import { Client, eventually } from "../support/client.ts";

const root = join(import.meta.dir, "..", "..");
const binary = process.env["HOLDFAST_BINARY"] ?? join(root, "dist", `holdfast-linux-${process.arch}`);
const home = mkdtempSync(join(tmpdir(), "holdfast-path-"));
const NODE = "/api/v1/nodes/path-node";
const MAPS = "/api/v1/namespaces/shop/configmaps";
const POD = "/api/v1/namespaces/shop/pods/web-0";
/** A list of some megabytes. */
const SLICES = "/apis/discovery.k8s.io/v1/endpointslices";

let apiServer: ApiServer;
let child: ReturnType<typeof Bun.spawn>;
let port = 0;
let trust: { readonly ca: string; readonly cert: string; readonly key: string };
let client: Client;

beforeAll(async () => {
  const meta = (name: string) => ({ apiVersion: "v1", metadata: { name, namespace: "shop" } });
  apiServer = await startApiServer({
    objects: [
      ...demoWorld(2_000),
      { kind: "Node", apiVersion: "v1", metadata: { name: "path-node" } },
      { kind: "Namespace", apiVersion: "v1", metadata: { name: "shop" } },
      { kind: "Pod", ...meta("web-0"), spec: { containers: [{ name: "app", image: "app" }], nodeName: "path-node" } },
    ] as never,
  });
  const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
  writeFileSync(join(home, "kubeconfig"), apiServer.kubeconfig({ user: "admin", keyPair: pair }));
  const files = ["--kubeconfig", join(home, "kubeconfig"), "--state-dir", join(home, "state")];
  child = Bun.spawn([binary, "run", ...files, "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"], {
    cwd: home,
    stderr: "pipe",
    stdout: "ignore",
  });
  for await (const line of createInterface({ input: Readable.fromWeb(child.stderr as never) })) {
    port = Number(/"message":"serving","ports":"(\d+)"/.exec(line)?.[1] ?? 0);
    if (port > 0) break;
  }
  trust = { ca: readFileSync(join(home, "state", "pki", "local-ca.crt"), "utf8"), ...pair };
  client = new Client({ url: `https://127.0.0.1:${port}`, ...trust });
});

afterAll(async () => {
  client.close();
  child.kill("SIGTERM");
  await child.exited;
  await apiServer[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

/** A raw connection: what has come, and whether the other end is gone. */
async function connect() {
  const socket = tls.connect({ host: "127.0.0.1", port, servername: "localhost", ...trust });
  const parts: Buffer[] = [];
  let isClosed = false;
  socket.on("data", (part: Buffer) => parts.push(part));
  socket.on("error", () => {});
  socket.on("close", () => (isClosed = true));
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("close", () => reject(new Error("closed before it was secure")));
  });
  return {
    socket,
    send: (text: string) => socket.write(Buffer.from(text, "latin1")),
    get text() {
      return Buffer.concat(parts).toString("latin1");
    },
    get isClosed() {
      return isClosed;
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

const HOST = "Host: localhost\r\n";
const body = (name: string) => JSON.stringify({ kind: "ConfigMap", apiVersion: "v1", metadata: { name } });

describe("the binary", () => {
  test("joins exec's two ends: what is sent comes back, from behind the head on", async () => {
    using raw = await connect();
    raw.send(
      `POST ${POD}/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\nearly `,
    );
    await eventually(() => raw.text.includes("early "));
    expect(raw.text).toStartWith("HTTP/1.1 101 Switching Protocols\r\n");
    raw.send("late");
    await eventually(() => raw.text.endsWith("early late"));
  });

  test("passes a log on as it grows, and lets go of it with its reader", async () => {
    using raw = await connect();
    raw.send(`GET ${POD}/log?follow=true HTTP/1.1\r\n${HOST}\r\n`);
    await eventually(() => raw.text.includes("follow 1"));
    expect(raw.text).toContain("Transfer-Encoding: chunked");
    expect(raw.text).not.toContain("\r\n0\r\n\r\n");
    raw.socket.destroy();
    // Its connection to the API server has gone with it: another is answered on one of its own.
    expect((await client.get(NODE)).status).toBe(200);
  });

  test("says 100 Continue before a body that is waited for", async () => {
    using raw = await connect();
    const sent = body("continued");
    raw.send(
      `POST ${MAPS} HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ${sent.length}\r\n\r\n`,
    );
    await eventually(() => raw.text === "HTTP/1.1 100 Continue\r\n\r\n");
    raw.send(sent);
    await eventually(() => raw.text.includes("HTTP/1.1 201 Created"));
    expect((await client.get(`${MAPS}/continued`)).status).toBe(200);
  });

  test("puts a body together that comes in chunks, and reads the request behind it", async () => {
    using raw = await connect();
    const sent = body("chunked");
    const chunks = [sent.slice(0, 7), sent.slice(7, 40), sent.slice(40)];
    raw.send(
      `POST ${MAPS} HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n` +
        chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join("") +
        `0\r\n\r\nGET ${MAPS}/chunked HTTP/1.1\r\n${HOST}\r\n`,
    );
    await eventually(() => /HTTP\/1\.1 201 Created[^]*HTTP\/1\.1 200 OK/.test(raw.text));
  });

  test.each([
    ["ends the connection behind an answer", "", true],
    ["keeps it for who asks for that", "Connection: keep-alive\r\n", false],
  ])("of HTTP/1.0 %s", async (_, header, isClosed) => {
    using raw = await connect();
    raw.send(`GET ${NODE} HTTP/1.0\r\n${header}\r\n`);
    await eventually(() => raw.text.includes('"path-node"') && raw.isClosed === isClosed);
    expect(raw.text).toMatch(isClosed ? /\r\nConnection: close\r\n/ : /\r\nConnection: keep-alive\r\n/);
    expect(raw.text).not.toContain("Transfer-Encoding");
  });

  test("gives HEAD the head of an answer, and the next request its own", async () => {
    using raw = await connect();
    raw.send(`HEAD ${NODE} HTTP/1.1\r\n${HOST}\r\nGET /version HTTP/1.1\r\n${HOST}\r\n`);
    await eventually(() => raw.text.includes('"gitVersion"'));
    expect(raw.text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
    expect(raw.text).not.toContain('"path-node"');
  });

  test("tells three hundred watches of one caller the same change", async () => {
    const open = (i: number) =>
      client.watch(`${MAPS}?watch=true&fieldSelector=metadata.name!%3Dnone-${i}&resourceVersion=0`);
    const watches: Awaited<ReturnType<typeof open>>[] = [];
    // Ten handshakes at a time: a loaded machine has no time for three hundred in one deadline.
    while (watches.length < 300)
      watches.push(...(await Promise.all(Array.from({ length: 10 }, (_, i) => open(watches.length + i)))));
    const made = await client.request("POST", MAPS, {
      headers: { "Content-Type": "application/json" },
      body: body("told"),
    });
    expect(made.status).toBe(201);
    const isTold = ({ object }: { readonly object: any }) => object.metadata.name === "told";
    await Promise.all(watches.map((watch) => watch.until((events) => events.some(isTold), 30_000)));
    expect(watches.filter(({ isOpen }) => !isOpen)).toEqual([]);
    for (const watch of watches) watch.close();
  }, 60_000);

  test("keeps nothing of a long list for twenty who do not read it, and answers others meanwhile", async () => {
    const before = memoryOf(child.pid).anonymousMb;
    const idle = await Promise.all(Array.from({ length: 20 }, connect));
    for (const raw of idle) {
      raw.socket.pause();
      raw.send(`GET ${SLICES} HTTP/1.1\r\n${HOST}Accept: application/json\r\n\r\n`);
    }
    const list = await client.get(SLICES);
    expect(list.status).toBe(200);
    expect((await client.get(NODE)).status).toBe(200);
    // Each list alone is megabytes: were they kept, there would be twenty of them.
    expect(list.body.length).toBeGreaterThan(2e6);
    expect(memoryOf(child.pid).anonymousMb - before).toBeLessThan((20 * list.body.length) / 1e6);
    for (const raw of idle) raw.socket.resume();
    await eventually(() => idle.every(({ text }) => text.endsWith("\r\n0\r\n\r\n") || isWhole(text)), Boolean, 60_000);
    for (const raw of idle) raw.socket.destroy();
  }, 120_000);

  test("has nothing left of five hundred requests whose clients went away", async () => {
    const descriptors = () => readdirSync(`/proc/${child.pid}/fd`).length;
    await client.get(NODE);
    const before = descriptors();
    for (let round = 0; round < 25; round++) {
      const leaving = await Promise.all(Array.from({ length: 20 }, connect));
      for (const [i, raw] of leaving.entries())
        raw.send(`GET ${i % 2 === 0 ? SLICES : `${MAPS}?watch=true`} HTTP/1.1\r\n${HOST}\r\n`);
      for (const raw of leaving) raw.socket.destroy();
    }
    expect((await client.get(NODE)).status).toBe(200);
    await eventually(() => descriptors() < before + 80, Boolean, 30_000);
  }, 60_000);
});

/** Whether an answer with its length has come to its end. */
function isWhole(text: string): boolean {
  const at = text.indexOf("\r\n\r\n");
  const length = Number(/\r\nContent-Length: (\d+)/i.exec(text.slice(0, at))?.[1] ?? Number.NaN);
  return at >= 0 && text.length >= at + 4 + length;
}
