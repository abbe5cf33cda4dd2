/**
 * Who is let in: the certificate decides, or a challenge signed with its key,
 * and the node must be one that the API server knows.
 */
import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { writeFileSync } from "node:fs";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import { prove, SUBPROTOCOL, TUNNEL_PATH } from "../../src/mux/greeting.ts";
import { WebSocketChannel } from "../../src/mux/websocket.ts";
import { ask, GATEWAY_NAME, TunnelWorld, until } from "./world.ts";

const UPGRADE = `GET ${TUNNEL_PATH} HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`;

/** Speaks to a gateway by hand. */
async function byHand(socket: Socket, request = UPGRADE) {
  const texts: Record<string, any>[] = [];
  let head = "";
  let isClosed = false;
  const channel = new WebSocketChannel(
    true,
    {
      write: (bytes) => socket.write(bytes),
      waitingBytes: 0,
      end: () => void socket.end(),
      terminate: () => void socket.destroy(),
    },
    { onData() {}, onText: (text) => void texts.push(JSON.parse(text)), onClosing() {} },
  );
  socket.on("data", (bytes: Buffer) => {
    if (head.includes("\r\n\r\n")) return channel.received(bytes);
    head += bytes.toString("latin1");
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) return;
    const early = Buffer.from(head.slice(end + 4), "latin1");
    head = head.slice(0, end + 4);
    if (early.length > 0 && head.startsWith("HTTP/1.1 101 ")) channel.received(early);
  });
  socket.on("error", () => {});
  socket.on("close", () => (isClosed = true));
  await new Promise<void>((resolve) => {
    if (socket instanceof TLSSocket ? socket.authorized : !socket.connecting) resolve();
    else socket.once(socket instanceof TLSSocket ? "secureConnect" : "connect", () => resolve());
  });
  socket.write(request);
  return {
    channel,
    socket,
    head: () => head,
    isClosed: () => isClosed,
    heard: async (kind: string) => await until(`it says ${kind}`, () => texts.find((text) => text["kind"] === kind)),
  };
}

type Pair = { readonly cert: string; readonly key: string };

async function start(nodes?: readonly string[]) {
  const world = await TunnelWorld.start(nodes);
  const gateway = await world.startGateway();
  const secure = async (pair?: Pair) =>
    await byHand(
      connectTls({
        host: gateway.host,
        port: gateway.daemon.port,
        ca: world.api.cluster.ca,
        servername: GATEWAY_NAME,
        ...pair,
      }),
    );
  const plain = async (request?: string) =>
    await byHand(connectTcp({ host: gateway.host, port: gateway.daemon.plainPort }), request);
  return {
    world,
    gateway,
    secure,
    plain,
    cluster: world.api.cluster,
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  };
}

const NODES = ["system:nodes"];
const inWords = ({ cert, key }: Pair) => ({ certPem: cert, keyPem: key });

describe("by TLS", () => {
  test("a node's certificate is welcomed as the node of its CN", async () => {
    await using t = await start();
    const agent = await t.secure(t.cluster.clientCertificate("system:node:edge-1", NODES));
    expect((await agent.heard("welcome"))["place"].port).toBeGreaterThan(1024);
    expect(t.gateway.log.of("tunnel open")[0]).toMatchObject({ node: "edge-1" });
  });

  test.each([
    ["NotANode", "an administrator's", "kubernetes-admin", ["system:masters"]],
    ["NotANode", "a node's name without the group", "system:node:edge-1", []],
    ["NotANode", "the group without a node's name", "edge-1", NODES],
    ["NotANode", "a node that is something else too", "system:node:edge-1", ["system:nodes", "system:masters"]],
    ["UnknownNode", "a node that the API server does not have", "system:node:edge-9", NODES],
  ])("%s: %s certificate is refused", async (reason, _, name, groups) => {
    await using t = await start();
    const agent = await t.secure(t.cluster.clientCertificate(name, groups));
    expect((await agent.heard("refused"))["reason"]).toBe(reason);
    await until("the connection ends", () => agent.isClosed());
  });

  test("one of another CA, one that has ended, and a serving certificate of the same node count as none", async () => {
    await using t = await start();
    const { mintCluster } = await import("../../src/demo/api-server/mint.ts");
    const foreign = mintCluster("other").clientCertificate("system:node:edge-1", NODES);
    const ended = t.cluster.clientCertificate("system:node:edge-1", NODES, { notAfterMs: Date.now() - 1_000 });
    for (const [pair, reason] of [
      [foreign, "NotTrusted"],
      [ended, "NotValidNow"],
    ] as const) {
      const agent = await t.secure(pair);
      // TLS believed nothing, so it is asked to prove itself; its certificate does not become better by that.
      const { nonce } = await agent.heard("challenge");
      agent.channel.sendText(JSON.stringify(prove(GATEWAY_NAME, nonce, inWords(pair))));
      expect((await agent.heard("refused"))["reason"]).toBe(reason);
    }
    const serving = t.cluster.servingCertificate(["edge-1"]);
    const agent = await t.plain();
    const { nonce } = await agent.heard("challenge");
    agent.channel.sendText(JSON.stringify(prove(GATEWAY_NAME, nonce, inWords(serving))));
    expect((await agent.heard("refused"))["reason"]).toBe("NotTrusted");
  });
});

describe("by challenge, behind a balancer that ends TLS", () => {
  test("whoever signs with the node's key is welcomed", async () => {
    await using t = await start();
    const agent = await t.plain();
    const { nonce, gateway } = await agent.heard("challenge");
    expect(gateway).toBe(GATEWAY_NAME);
    agent.channel.sendText(
      JSON.stringify(prove(GATEWAY_NAME, nonce, inWords(t.cluster.clientCertificate("system:node:edge-1", NODES)))),
    );
    await agent.heard("welcome");
  });

  test("a node's certificate without its key, and a signature of another node's key, are refused", async () => {
    await using t = await start(["edge-1", "edge-2"]);
    const mine = inWords(t.cluster.clientCertificate("system:node:edge-2", NODES));
    const theirs = inWords(t.cluster.clientCertificate("system:node:edge-1", NODES));
    const agent = await t.plain();
    const { nonce } = await agent.heard("challenge");
    agent.channel.sendText(JSON.stringify({ ...prove(GATEWAY_NAME, nonce, mine), certificate: theirs.certPem }));
    expect((await agent.heard("refused"))["reason"]).toBe("NotProven");
    expect(t.gateway.log.of("tunnel open")).toEqual([]);
  });

  test("a proof is good for its own connection, and once", async () => {
    await using t = await start();
    const pair = inWords(t.cluster.clientCertificate("system:node:edge-1", NODES));
    const first = await t.plain();
    const { nonce } = await first.heard("challenge");
    const proof = JSON.stringify(prove(GATEWAY_NAME, nonce, pair));
    const replayer = await t.plain();
    await replayer.heard("challenge");
    replayer.channel.sendText(proof);
    expect((await replayer.heard("refused"))["reason"]).toBe("NotProven");
    // A second try on the same connection finds the nonce used up.
    const twice = await t.plain();
    const { nonce: own } = await twice.heard("challenge");
    twice.channel.sendText(proof);
    twice.channel.sendText(JSON.stringify(prove(GATEWAY_NAME, own, pair)));
    await twice.heard("refused");
    await until("the connection ends", () => twice.isClosed());
    first.channel.sendText(proof);
    await first.heard("welcome");
    expect(t.gateway.log.of("tunnel open").length).toBe(1);
  });

  test("a proof for another gateway, which somebody in between has passed on, is refused", async () => {
    await using t = await start();
    const agent = await t.plain();
    const { nonce } = await agent.heard("challenge");
    const pair = inWords(t.cluster.clientCertificate("system:node:edge-1", NODES));
    agent.channel.sendText(JSON.stringify(prove("evil.example", nonce, pair)));
    expect((await agent.heard("refused"))["reason"]).toBe("WrongGateway");
    // Nor does it help to say the right name over a signature for the wrong one.
    const other = await t.plain();
    const challenge = await other.heard("challenge");
    other.channel.sendText(
      JSON.stringify({ ...prove("evil.example", challenge["nonce"], pair), gateway: GATEWAY_NAME }),
    );
    expect((await other.heard("refused"))["reason"]).toBe("NotProven");
  });

  test("bytes before the welcome end the connection", async () => {
    await using t = await start();
    const agent = await t.plain();
    await agent.heard("challenge");
    agent.channel.send(Buffer.from([0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]));
    await until("the connection ends", () => agent.isClosed());
  });

  test("an agent's own challenge is signed for the name it dialled", async () => {
    await using t = await start();
    // A balancer that ends TLS: here a TLS server in front of the plain listener.
    const { createServer } = await import("node:tls");
    const serving = t.cluster.servingCertificate([GATEWAY_NAME]);
    const balancer = createServer({ cert: serving.cert, key: serving.key }, (client) => {
      const up = connectTcp({ host: t.gateway.host, port: t.gateway.daemon.plainPort });
      client.pipe(up).pipe(client);
      client.on("error", () => up.destroy());
      up.on("error", () => client.destroy());
    });
    await new Promise<void>((resolve) => balancer.listen(0, "127.0.0.1", resolve));
    const { port } = balancer.address() as { port: number };
    const { place, stop } = await t.world.startAgent([`https://${GATEWAY_NAME}:${port}`]);
    expect((await place()).host).toBe(t.gateway.host);
    stop();
    balancer.close();
  });
});

describe("what is no agent", () => {
  test.each([
    ["another path", UPGRADE.replace(TUNNEL_PATH, "/etc/passwd"), 404],
    ["another method", UPGRADE.replace("GET", "POST"), 404],
    ["no upgrade", "GET /tunnel HTTP/1.1\r\nHost: gateway\r\n\r\n", 426],
    ["another subprotocol", UPGRADE.replace(SUBPROTOCOL, "chat"), 426],
    ["no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 400],
    ["a head without an end", `GET /tunnel HTTP/1.1\r\nX: ${"x".repeat(9_000)}`, 431],
  ])("%s is answered with %d", async (_, request, status) => {
    await using t = await start();
    const agent = await t.plain(request as string);
    await until("it is answered", () => agent.head().startsWith(`HTTP/1.1 ${status} `));
    await until("the connection ends", () => agent.isClosed());
  });
});

describe("a node that may no longer", () => {
  test("deleted: its tunnel ends with the next word of the watch", async () => {
    await using t = await start();
    const { agent } = await t.world.startAgent([t.gateway.url]);
    await until("it is open", () => agent.current());
    t.world.api.remove("Node", "", "edge-1");
    await until("it has ended", () => t.gateway.log.of("tunnel gone").length === 1);
    await until("it is not let in again", () =>
      t.gateway.log.of("agent refused").some(({ reason }) => reason === "UnknownNode"),
    );
  });

  test("without the label that is asked for it is refused, and with it let in", async () => {
    await using world = await TunnelWorld.start(["edge-1"]);
    const gateway = await world.startGateway({ nodeSelector: "node-restriction.kubernetes.io/tunnel=true" });
    const { agent, log } = await world.startAgent([gateway.url]);
    await until("it is refused", () => log.of("no tunnel").some(({ reason }) => reason === "UnknownNode"));
    const { metadata } = world.api.object("Node", "", "edge-1") as any;
    const labels = { "node-restriction.kubernetes.io/tunnel": "true" };
    world.api.put({ apiVersion: "v1", kind: "Node", metadata: { ...metadata, labels } });
    await until("it is let in", () => agent.current());
  });

  test("a certificate that ends takes its tunnel with it; the agent comes back with the new one", async () => {
    await using t = await start();
    const short = t.cluster.clientCertificate("system:node:edge-1", NODES, { notAfterMs: Date.now() + 2_000 });
    const long = t.cluster.clientCertificate("system:node:edge-1", NODES);
    let pair = short;
    const { agent } = await t.world.startAgent([t.gateway.url], { pair: () => inWords(pair) });
    await until("it is open", () => agent.current());
    pair = long;
    await until("it was ended", () => t.gateway.log.of("tunnel gone").length === 1);
    await until("it is back", () => agent.state.state === "open");
  });
});

test("a renewed serving certificate meets new connections within seconds, and open tunnels go on", async () => {
  await using t = await start();
  const { place } = await t.world.startAgent([t.gateway.url]);
  const at = await place();
  const renewed = t.cluster.servingCertificate([GATEWAY_NAME]);
  writeFileSync(t.gateway.files.key, renewed.key);
  // Half of it is no pair: the former one stands, and is told.
  await until("that is told", () => t.gateway.log.of("serving certificate not renewed").length === 1);
  writeFileSync(t.gateway.files.cert, renewed.cert);
  const { serialNumber } = new X509Certificate(renewed.cert);
  await until("the new certificate is served", async () => {
    const { host, daemon } = t.gateway;
    const socket = connectTls({ host, port: daemon.port, ca: t.cluster.ca, servername: GATEWAY_NAME });
    const shown = await new Promise<string | undefined>((resolve) => {
      socket.once("secureConnect", () => resolve(socket.getPeerCertificate().serialNumber));
      socket.once("error", () => resolve(undefined));
    });
    socket.destroy();
    return shown === serialNumber;
  });
  expect((await ask(at, "still here")).toString()).toBe("still here");
  expect(t.gateway.log.of("tunnel gone")).toEqual([]);
});

test("an address that is not on the list may not dial", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway({ allowFrom: ["10.0.0.0/8"] });
  const { place } = await world.startAgent([gateway.url]);
  const socket = connectTcp(await place());
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("close", resolve));
  expect(gateway.log.of("connection refused").length).toBe(1);
});
