import { expect, test } from "bun:test";
import { connect, type TLSSocket } from "node:tls";
import { inflateRawSync, constants, gunzipSync } from "node:zlib";
import { startApiServer, type ApiServer } from "../../../src/demo/api-server/api-server.ts";
import { gzipMember } from "../../../src/demo/api-server/gzip-member.ts";
import { demoWorld } from "../../../src/demo/api-server/seed.ts";
import { Client } from "../../contract/client.ts";

const EXEC = "/api/v1/namespaces/shop/pods/web-0/exec?command=cat&stdin=true&stdout=true";

async function upgraded(
  api: ApiServer,
  headers: Record<string, string>,
): Promise<{ socket: TLSSocket; read: (until: (bytes: Buffer) => boolean) => Promise<Buffer> }> {
  const socket = connect({
    port: api.port,
    host: api.host,
    ca: api.cluster.ca,
    servername: "localhost",
    ...api.cluster.clientCertificate("admin"),
  });
  let bytes = Buffer.alloc(0);
  let wake = () => {};
  socket.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    wake();
  });
  const lines = Object.entries({ host: "localhost", connection: "Upgrade", ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.write(`GET ${EXEC} HTTP/1.1\r\n${lines.join("")}\r\n`);
  const read = async (until: (all: Buffer) => boolean) => {
    while (!until(bytes)) await new Promise<void>((resolve) => (wake = resolve));
    const read = bytes;
    bytes = Buffer.alloc(0);
    return read;
  };
  return { socket, read };
}

test("exec over SPDY echoes every byte after the 101", async () => {
  await using api = await startApiServer({ objects: demoWorld() });
  const { socket, read } = await upgraded(api, {
    upgrade: "SPDY/3.1",
    "x-stream-protocol-version": "v4.channel.k8s.io",
  });
  const head = (await read((bytes) => bytes.includes("\r\n\r\n"))).toString();
  expect(head).toStartWith("HTTP/1.1 101 Switching Protocols\r\n");
  expect(head).toContain("X-Stream-Protocol-Version: v4.channel.k8s.io");
  const payload = Buffer.from(Array.from({ length: 100_000 }, (_, at) => at % 251));
  socket.write(payload);
  expect((await read((bytes) => bytes.length >= payload.length)).equals(payload)).toBe(true);
  socket.destroy();
});

test("exec over WebSocket returns stdin on stdout and ends with a Success Status", async () => {
  await using api = await startApiServer({ objects: demoWorld() });
  const { socket, read } = await upgraded(api, {
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "sec-websocket-protocol": "v5.channel.k8s.io",
  });
  expect((await read((bytes) => bytes.includes("\r\n\r\n"))).toString()).toContain(
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
  );
  const frame = (...payload: number[]) => Buffer.from([0x82, 0x80 | payload.length, 0, 0, 0, 0, ...payload]);
  socket.write(frame(0, 104, 105));
  expect([...(await read((bytes) => bytes.length >= 5))]).toEqual([0x82, 3, 1, 104, 105]);
  socket.write(frame(255, 0));
  expect((await read((bytes) => bytes.includes("Success"))).toString()).toContain('{"metadata":{},"status":"Success"}');
  socket.destroy();
});

test("an upgrade without a credential is refused with 401", async () => {
  await using api = await startApiServer({ objects: demoWorld() });
  using nobody = new Client({ url: api.url, ca: api.cluster.ca });
  expect((await nobody.get(EXEC, { connection: "Upgrade", upgrade: "SPDY/3.1" })).status).toBe(401);
});

test("logs are text, with follow they go on", async () => {
  await using api = await startApiServer({ objects: demoWorld(), logs: () => ["one", "two", "three"] });
  using client = new Client({ url: api.url, ca: api.cluster.ca, ...api.cluster.clientCertificate("admin") });
  const path = "/api/v1/namespaces/shop/pods/web-0/log";
  expect((await client.get(path)).text).toBe("one\ntwo\nthree\n");
  expect((await client.get(`${path}?tailLines=1`)).text).toBe("three\n");
});

test("a gzip member gives up its data before it ends", () => {
  const plain = Buffer.from("an event\n".repeat(500));
  const member = gzipMember(plain);
  expect(gunzipSync(member).equals(plain)).toBe(true);
  const withoutEnd = member.subarray(10, member.length - 10);
  expect(inflateRawSync(withoutEnd, { finishFlush: constants.Z_SYNC_FLUSH }).equals(plain)).toBe(true);
});
