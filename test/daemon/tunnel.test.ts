/**
 * The tunnel as the daemon has it: in its report and its conditions, opened to
 * kubelet alone, and ended by a word on the node.
 */
import { expect, test } from "bun:test";
import { createServer } from "node:net";
import { join } from "node:path";
import { askStatus } from "../../src/cli/ask-status.ts";
import { tunnelLine } from "../../src/cli/status.ts";
import { ask, TunnelWorld, until } from "../gateway/world.ts";
import { startConnectProxy } from "../support/connect-proxy.ts";
import { startEdge, type Edge } from "../support/edge.ts";

async function reportOf(edge: Edge) {
  const answer = await askStatus(join(edge.stateDir, "admin.sock"));
  if (!answer.isFine) throw new Error(answer.problem);
  return answer.report;
}

/** A node whose kubelet says by its status where it is; the gateways and the rest of its configuration are given. */
async function startNode(world: TunnelWorld, config: string, env: Record<string, string> = {}) {
  const kubelet = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket));
  await new Promise<void>((resolve) => kubelet.listen(0, "127.0.0.1", resolve));
  const { port } = kubelet.address() as { port: number };
  const { metadata } = world.api.object("Node", "", "edge-1") as { metadata: { name: string; uid: string } };
  world.api.put({
    apiVersion: "v1",
    kind: "Node",
    metadata,
    status: {
      addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
    },
  });
  const edge = await startEdge({ apiServer: world.api, node: "edge-1", config, env });
  // As kubelet does: from then on the node's own copy says where kubelet is.
  await edge.client.get("/api/v1/nodes?fieldSelector=metadata.name%3Dedge-1");
  return {
    edge,
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      kubelet.close();
    },
  };
}

test("run with a tunnel: kubelet is reached at the place, and status says where that is", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  await using node = await startNode(world, `tunnel: {gateways: ["${gateway.url.replace("https", "wss")}"]}\n`);
  const tunnel = await until("the report has an open tunnel", async () => {
    const report = await reportOf(node.edge);
    return report.tunnel?.state === "open" ? report.tunnel : undefined;
  });
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(tunnel.place ?? "") ?? [];
  expect(host).toBe(gateway.host);
  expect((await ask({ host, port: Number(port) }, "hello")).toString()).toBe("hello");
  expect(tunnelLine({ tunnel, nowMs: tunnel.sinceMs + 60_000 })).toStartWith(`Tunnel: open for 1m to ${gateway.url}`);
  const metrics = await (await fetch(`${node.edge.healthUrl}/metrics`)).text();
  expect(metrics).toContain("holdfast_tunnel_open 1\n");
  await until("the stream is counted", async () =>
    (await (await fetch(`${node.edge.healthUrl}/metrics`)).text()).includes(
      'holdfast_tunnel_streams_total{end="ended"} 1\n',
    ),
  );
});

test("the node is shown at its place at the API server, and as kubelet wrote it to its own clients", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  await using node = await startNode(world, `tunnel: {gateways: ["${gateway.url.replace("https", "wss")}"]}\n`);
  const stored = () => (world.api.object("Node", "", "edge-1") as any).status;
  await until("the API server has the place", () => stored().addresses[0].address === gateway.host);
  const reply = await node.edge.client.get("/api/v1/nodes/edge-1");
  const { status } = JSON.parse(reply.body.toString());
  expect(status.addresses).toEqual([{ type: "InternalIP", address: "127.0.0.1" }]);
  await gateway.stop();
  await until("the true address is back", () => stored().addresses[0].address === "127.0.0.1", 30_000);
}, 60_000);

test("a gateway that refuses is a condition with its reason and the next step, and the line says so", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway({ nodeSelector: "may=tunnel" });
  await using node = await startNode(world, `tunnel: {gateways: ["${gateway.url.replace("https", "wss")}"]}\n`);
  const report = await until(
    "the condition stands",
    async () => {
      const now = await reportOf(node.edge);
      return now.conditions.some(({ type }) => type === "TunnelDown") ? now : undefined;
    },
    20_000,
  );
  expect(report.conditions.find(({ type }) => type === "TunnelDown")).toMatchObject({
    reason: "UnknownNode",
    next: expect.stringContaining("tunnel: off"),
  });
  expect(tunnelLine(report)).toMatch(/^Tunnel: DOWN for .*UnknownNode/);
}, 30_000);

test("tunnel: off: nothing is dialled, and nothing is said of a tunnel", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  await using node = await startNode(world, "tunnel: off\n", { HOLDFAST_TUNNEL_GATEWAYS: gateway.url });
  const report = await reportOf(node.edge);
  expect([report.tunnel, tunnelLine(report)]).toEqual([undefined, ""]);
  expect(gateway.log.of("tunnel open")).toEqual([]);
});

test("where only an HTTP proxy leads out, the tunnel goes through it by CONNECT", async () => {
  await using world = await TunnelWorld.start();
  const gateway = await world.startGateway();
  await using proxy = await startConnectProxy();
  const { place } = await world.startAgent([gateway.url], { proxyFor: () => proxy.url });
  expect((await ask(await place(), "through")).toString()).toBe("through");
  expect(proxy.targets).toEqual([`${gateway.host}:${gateway.daemon.port}`]);
});
