import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { linkOf, startEdge } from "../support/edge.ts";
import { holdfast } from "./holdfast.ts";

test("health --ota is well only when the node's own object comes back through the daemon, while cut too", async () => {
  await using apiServer = await startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
  });
  const keyPair = apiServer.cluster.clientCertificate("system:node:edge1", ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ keyPair });
  await using edge = await startEdge({ apiServer, node: "edge1", kubeconfig });
  const dir = mkdtempSync(join(tmpdir(), "holdfast-health-"));
  writeFileSync(join(dir, "kubeconfig"), kubeconfig);
  const config = join(dir, "config.yaml");
  const { port } = new URL(edge.url);
  const health = new URL(edge.healthUrl).port;
  writeFileSync(
    config,
    `apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\nkubeconfig: kubeconfig\nstateDir: ${edge.stateDir}\nlisten: 127.0.0.1:${port}\nhealthListen: 127.0.0.1:${health}\n`,
  );
  const ask = (...args: readonly string[]) => holdfast("health", "--config", config, ...args);
  expect(await ask("--ota", "--wait", "10s")).toMatchObject({
    code: 0,
    stdout: "well: the node was read through Holdfast\n",
  });
  expect(apiServer.count({ verb: "get", resource: "nodes" })).toBeGreaterThan(0);
  await linkOf(apiServer, edge.client).cut();
  expect((await ask("--ota")).code).toBe(0);
  await linkOf(apiServer, edge.client).heal();
  apiServer.remove("Node", "", "edge1");
  expect(await ask("--ota")).toMatchObject({ code: 1, stderr: expect.stringContaining("node edge1 was answered 404") });
  expect((await ask()).stdout).toBe("ready\n");
  await edge.stop();
  expect(await ask("--ota")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("no daemon answers on 127.0.0.1"),
  });
}, 20_000);
