import { expect, test } from "bun:test";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import * as tls from "node:tls";
import { systemClock } from "../../src/base/clock.ts";
import type { Caller } from "../../src/callers/identify.ts";
import { createAuthority, issueServingCertificate } from "../../src/certificates/authority.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import type { Exchange } from "../../src/front/exchange.ts";
import { tunnelUpgrade } from "../../src/front/upgrade.ts";
import { ForeignAnswerError } from "../../src/uplink/scope-source.ts";
import { Upstream } from "../../src/uplink/upstream.ts";
import { eventually } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";

const POD = {
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name: "web-0", namespace: "shop" },
  spec: { containers: [{ name: "app" }] },
};
const HEAD =
  "POST /api/v1/namespaces/shop/pods/web-0/portforward HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/** A client on the kubeconfig's own subject, byte by byte. */
async function raw(edge: Edge, apiServer: ApiServer) {
  const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
  const socket = tls.connect({
    host: "127.0.0.1",
    port: Number(new URL(edge.url).port),
    ca: readFileSync(join(edge.stateDir, "pki", "local-ca.crt")),
    ...pair,
    ALPNProtocols: ["http/1.1"],
  });
  const state = { text: "", isClosed: false };
  socket.on("data", (chunk: Buffer) => (state.text += chunk.toString("latin1")));
  socket.on("close", () => (state.isClosed = true));
  socket.on("error", () => {});
  return { socket, state };
}

test("a refused upgrade is answered with the refusal and closes both sides; a request behind its head reaches nobody", async () => {
  await using apiServer = await startApiServer({
    objects: [POD],
    authorize: (_user, { subresource }) => subresource !== "portforward",
  });
  await using edge = await startEdge({ apiServer });
  const { socket, state } = await raw(edge, apiServer);
  socket.write(`${HEAD}GET /api/v1/namespaces/shop/secrets HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  await eventually(() => state.isClosed);
  const [head, body] = state.text.split("\r\n\r\n");
  expect(head).toStartWith("HTTP/1.1 403 ");
  expect(head!.toLowerCase()).toContain("connection: close");
  expect(JSON.parse(body!)).toMatchObject({ kind: "Status", code: 403 });
  expect(apiServer.count({ resource: "secrets" })).toBe(0);
  expect(apiServer.count({ resource: "pods" })).toBe(1);
});

test.each([
  ["a login page", "200 OK", "text/html", "<html>"],
  ["a redirect", "302 Found", "text/html", ""],
  ["a firewall's page", "403 Forbidden", "text/html", "<html>"],
])("%s in the API server's place joins nothing and is as good as no answer", async (_, status, type, page) => {
  const authority = createAuthority({ commonName: "cluster", nowMs: Date.now() });
  const pair = issueServingCertificate(authority, {
    commonName: "api",
    ipAddresses: ["127.0.0.1"],
    nowMs: Date.now(),
  });
  const closed = Promise.withResolvers<void>();
  let received = "";
  const server = tls.createServer({ cert: pair.certPem, key: pair.keyPem }, (socket) => {
    socket.on("close", () => closed.resolve());
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => (received += chunk.toString("latin1")));
    socket.once("data", () =>
      socket.write(`HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: ${page.length}\r\n\r\n${page}`),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const nothing = () => {};
  const upstream = new Upstream({
    servers: [url],
    clock: systemClock,
    caPem: () => authority.certPem,
    proxyFor: () => undefined,
    onAnswer: nothing,
    onFailure: nothing,
    onWaiting: nothing,
  });
  const parts = { upstream, link: { onChange: () => nothing }, proxyFor: () => undefined, onFailure: nothing };
  const exchange = { method: "GET", target: "/api/v1/pods?watch=true", headers: [["Upgrade", "websocket"]] };
  const client = new PassThrough();
  const joined = tunnelUpgrade(
    parts,
    exchange as unknown as Exchange,
    { credential: { id: "t", authorization: "Bearer t" } } as Caller,
    client,
    Buffer.from("GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\n\r\n"),
  );
  await expect(joined).rejects.toBeInstanceOf(ForeignAnswerError);
  await closed.promise;
  expect(client.readableLength).toBe(0);
  expect(received.match(/HTTP\/1\.1/g)).toHaveLength(1);
  server.close();
});

test("an upgraded connection has keepalive towards both sides, and ends on both when the link is lost", async () => {
  await using apiServer = await startApiServer({ objects: [POD] });
  await using edge = await startEdge({ apiServer });
  const { socket, state } = await raw(edge, apiServer);
  socket.write(HEAD);
  await eventually(() => state.text.includes("101 Switching"));
  const local = Number(new URL(edge.url).port);
  await eventually(() => hasKeepalive(({ localPort }) => localPort === local));
  await eventually(() => hasKeepalive(({ remotePort }) => remotePort === apiServer.port));
  apiServer.blackHole();
  // Somebody asks, so that the silence is noticed.
  void edge.client.get("/api/v1/namespaces/shop/configmaps").catch(() => {});
  await eventually(() => state.isClosed, Boolean, 20_000);
});

/** Whether a connection of these ports has its keepalive timer running: `tr` 02 in /proc/net/tcp. */
function hasKeepalive(
  isMeant: (ports: { readonly localPort: number; readonly remotePort: number }) => boolean,
): boolean {
  return readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .some(([, local = "", remote = "", state, , timer = ""]) => {
      const port = (text: string) => Number.parseInt(text.split(":")[1] ?? "", 16);
      return state === "01" && timer.startsWith("02") && isMeant({ localPort: port(local), remotePort: port(remote) });
    });
}
