/**
 * The tunnel whole: from a port of the gateway to kubelet's own, both ends real.
 */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { ask, TunnelWorld, until } from "./world.ts";

test("what is said at a node's place is heard by its kubelet, and the answer comes back", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  const { place, log } = await world.startAgent([gateway.url]);
  expect((await ask(await place(), "who are you")).toString()).toBe("who are you");
  await until(
    "both ends have told of the stream",
    () => log.of("tunnel stream").length === 1 && gateway.log.of("stream").length === 1,
  );
  expect(log.of("tunnel stream")[0]).toMatchObject({ stream: 1, toKubelet: 11, fromKubelet: 11, end: "ended" });
  expect(gateway.log.of("stream")[0]).toMatchObject({
    node: "edge-1",
    stream: 1,
    toNode: 11,
    fromNode: 11,
    end: "ended",
  });
});

test("twenty megabytes go through whole, on eight connections at once", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  const { place } = await world.startAgent([gateway.url]);
  const at = await place();
  const sent = randomBytes(20 * 1024 * 1024);
  const parts = Array.from({ length: 8 }, (_, i) => sent.subarray(i * 2_621_440, (i + 1) * 2_621_440));
  const back = await Promise.all(parts.map((part) => ask(at, part)));
  expect(Buffer.concat(back).equals(sent)).toBe(true);
});

test("a node keeps its port at every replica and after every restart", async () => {
  await using world = await TunnelWorld.start(["edge-1", "edge-2"]);
  const first = await world.startGateway();
  const agent = await world.startAgent([first.url]);
  const other = await world.startAgent([first.url], { node: "edge-2" });
  const [place, elsewhere] = [await agent.place(), await other.place()];
  expect(place.port).not.toBe(elsewhere.port);
  const ports = world.api.object("ConfigMap", "holdfast-system", "holdfast-gateway-ports") as any;
  expect(ports.data).toEqual({ [place.port]: "edge-1", [elsewhere.port]: "edge-2" });
  // For the approver of kubelets' serving certificates.
  expect(ports.metadata.annotations["holdfast.dev/tunnel-addresses"]).toBe(first.host);
  agent.stop();
  await first.stop();
  const second = await world.startGateway();
  const again = await world.startAgent([second.url]);
  expect((await again.place()).port).toBe(place.port);
});

test("a reader that stops reading holds up no other stream and nobody's memory, and gets the rest when it reads on", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  const whole = 64 * 1024 * 1024;
  let given = 0;
  const { place } = await world.startAgent([gateway.url], {
    kubelet(socket) {
      const chunk = Buffer.alloc(64 * 1024);
      const give = () => {
        while (given < whole) {
          given += chunk.length;
          if (!socket.write(chunk)) return void socket.once("drain", give);
        }
        socket.end();
      };
      socket.on("error", () => {});
      socket.once("data", (words: Buffer) => (words.toString() === "much" ? give() : void socket.end(words)));
    },
  });
  const at = await place();
  const slow = connect(at);
  let taken = 0;
  let hasEnded = false;
  slow.once("connect", () => slow.write("much"));
  slow.on("data", (chunk: Buffer) => {
    taken += chunk.length;
    slow.pause();
  });
  slow.on("end", () => (hasEnded = true));
  await until("the slow one has begun", () => taken > 0);
  for (let i = 0; i < 50; i++) expect((await ask(at, `quick ${i}`)).toString()).toBe(`quick ${i}`);
  // What two sockets of the kernel and a window hold; the rest has stayed with kubelet.
  expect(given).toBeLessThan(whole / 2);
  slow.removeAllListeners("data");
  slow.on("data", (chunk: Buffer) => (taken += chunk.length));
  slow.resume();
  await until("all of it has come", () => hasEnded);
  expect(taken).toBe(whole);
});

test("a hundred readers that leave in the middle, and a thousand that come and go, leave nothing", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  const open = new Set<unknown>();
  const { agent, place } = await world.startAgent([gateway.url], {
    kubelet(socket) {
      open.add(socket);
      const timer = setInterval(() => socket.write("line\n"), 5);
      socket.on("error", () => {});
      socket.on("end", () => socket.end());
      socket.on("close", () => {
        clearInterval(timer);
        open.delete(socket);
      });
    },
  });
  const at = await place();
  await Promise.all(
    Array.from({ length: 100 }, async () => {
      const reader = connect(at);
      await new Promise((resolve) => reader.once("data", resolve));
      reader.destroy();
    }),
  );
  await until("kubelet has none of them left", () => open.size === 0);
  for (let round = 0; round < 10; round++)
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const reader = connect(at);
        await new Promise((resolve) => reader.once("data", resolve));
        reader.end();
        await new Promise((resolve) => reader.once("close", resolve));
      }),
    );
  await until("kubelet has none of them left", () => open.size === 0);
  await until("the agent has none left", () => agent.state.streams === 0);
  const metrics = await (await fetch(`http://${gateway.host}:${gateway.daemon.healthPort}/metrics`)).text();
  expect(metrics).toContain("holdfast_gateway_streams 0\n");
  expect(metrics).toContain("holdfast_gateway_agents 1\n");
});

describe("when something dies", () => {
  test("kubelet does not answer: the connection ends, the tunnel stands", async () => {
    await using world = await TunnelWorld.start();
    const gateway = await world.startGateway();
    const { place, server, log, agent } = await world.startAgent([gateway.url]);
    const at = await place();
    server.close();
    await expect(ask(at, "anybody?")).rejects.toThrow();
    await until("it is told of", () => log.of("tunnel stream").some(({ end }) => end === "unreachable"));
    expect(agent.state.state).toBe("open");
  });

  test("a gateway: its streams break, and within three seconds the next one has the node", async () => {
    await using world = await TunnelWorld.start();
    const [first, second] = [await world.startGateway(), await world.startGateway()];
    const { agent, place } = await world.startAgent([first.url, second.url], { random: () => 0 });
    const at = await place();
    expect(at.host).toBe(first.host);
    const stream = connect(at);
    await new Promise((resolve) => stream.write("hello", resolve));
    const broken = new Promise((resolve) => stream.once("close", resolve));
    stream.on("error", () => {});
    stream.resume();
    const startedMs = performance.now();
    void first.stop();
    const next = await until("the other gateway has it", () => {
      const now = agent.current();
      return now?.addresses[0]!.address === second.host ? now : undefined;
    });
    expect((await ask({ host: second.host, port: next.port }, "again")).toString()).toBe("again");
    expect(performance.now() - startedMs).toBeLessThan(3_000);
    await broken;
  });

  test("the agent: the place refuses at once, and answers when it is back", async () => {
    await using world = await TunnelWorld.start();
    const gateway = await world.startGateway();
    const first = await world.startAgent([gateway.url]);
    const at = await first.place();
    first.stop();
    await until("the gateway knows", () => gateway.log.of("tunnel gone").length === 1);
    await expect(ask(at, "anybody?")).rejects.toThrow();
    const second = await world.startAgent([gateway.url]);
    expect(await second.place()).toEqual(at);
    expect((await ask(at, "here")).toString()).toBe("here");
  });

  test("a second tunnel of a node takes the place of the first", async () => {
    await using world = await TunnelWorld.start();
    const gateway = await world.startGateway();
    const first = await world.startAgent([gateway.url], { kubelet: (socket) => void socket.end("first") });
    const at = await first.place();
    const second = await world.startAgent([gateway.url], { kubelet: (socket) => void socket.end("second") });
    await second.place();
    first.stop();
    expect((await ask(at, "")).toString()).toBe("second");
  });
});

test("a place of all replicas: what comes to one that does not hold the node is handed over", async () => {
  await using world = await TunnelWorld.start();
  const shared = { isShared: true, mode: { kind: "port", address: "127.0.7.99" } } as const;
  const [first, second] = [await world.startGateway(shared), await world.startGateway(shared)];
  const { place, agent } = await world.startAgent([first.url]);
  const { host, port } = await place();
  expect(host).toBe("127.0.7.99");
  const sent = randomBytes(3 * 1024 * 1024);
  const at = { host: second.host, port };
  const back = await until("the other replica has heard of it", () => ask(at, sent).catch(() => undefined));
  expect(back.equals(sent)).toBe(true);
  expect(second.log.of("handed over")[0]).toMatchObject({ node: "edge-1" });
  // Nobody holds it: refused, and not passed round between the two.
  agent.stop();
  await until("the holder knows", () => first.log.of("tunnel gone").length === 1);
  await expect(ask(at, "anybody?")).rejects.toThrow();
  await until("nothing is left open", async () => {
    const metrics = await (await fetch(`http://${second.host}:${second.daemon.healthPort}/metrics`)).text();
    return metrics.includes("holdfast_gateway_streams 0\n");
  });
});

test("mode service: the place is the Service's ClusterIP and kubelet's own port, the slice leads to the holder", async () => {
  await using world = await TunnelWorld.start();
  const { placeNameOf } = await import("../../src/kube/tunnel-names.ts");
  const name = placeNameOf("edge-1");
  // The stand-in hands out no ClusterIPs.
  world.api.put({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "holdfast-system" },
    spec: { clusterIP: "10.96.7.7", clusterIPs: ["10.96.7.7"] },
  });
  const gateway = await world.startGateway({ mode: { kind: "service" } });
  const { place } = await world.startAgent([gateway.url]);
  expect(await place()).toEqual({ host: "10.96.7.7", port: 10_250 });
  const service = world.api.object("Service", "holdfast-system", name) as any;
  const slice = world.api.object("EndpointSlice", "holdfast-system", name) as any;
  const node = world.api.object("Node", "", "edge-1") as any;
  expect(slice.metadata.labels["kubernetes.io/service-name"]).toBe(name);
  expect(slice.endpoints).toEqual([{ addresses: [gateway.host], conditions: { ready: true } }]);
  expect(service.spec.ports[0]).toMatchObject({ port: 10_250, targetPort: slice.ports[0].port });
  expect(slice.metadata.ownerReferences).toEqual([
    { apiVersion: "v1", kind: "Node", name: "edge-1", uid: node.metadata.uid },
  ]);
  expect((await ask({ host: gateway.host, port: slice.ports[0].port }, "hello")).toString()).toBe("hello");
});
