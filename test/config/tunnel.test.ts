/**
 * `tunnel:` in the configuration: where it leads, and who may say so.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig } from "../../src/config/config.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";

const cluster = mintCluster();
let directory: string;
const written = (name: string, text: string) => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "tunnel-config-"));
  written(
    "node",
    cluster.kubeconfig({ server: "https://10.0.0.1:6443", user: "system:node:edge-1", groups: ["system:nodes"] }),
  );
  written("person", cluster.kubeconfig({ server: "https://10.0.0.1:6443", user: "admin", groups: ["system:masters"] }));
  written("ca.crt", cluster.ca);
});
afterAll(() => rmSync(directory, { recursive: true }));

function tunnelOf(tunnel: unknown, env: Record<string, string> = {}, who = "node") {
  const file = {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "HoldfastConfiguration",
    ...(tunnel === undefined ? {} : { tunnel }),
  };
  const config = written(`${crypto.randomUUID()}.yaml`, JSON.stringify(file));
  return loadConfig({ config, kubeconfig: join(directory, who), stateDir: directory }, env).config.tunnel;
}

test("there is none where nothing is said", () => expect(tunnelOf(undefined)).toBeUndefined());

test("gateways by wss:// or by name, port 443, each once; the cluster's CA vouches for them", () => {
  const tunnel = tunnelOf({
    gateways: ["wss://gw.example", "gw2.example:8443", "wss://gw.example:443", "wss://[fd00::1]"],
  });
  expect(tunnel?.gateways).toEqual(["https://gw.example:443", "https://gw2.example:8443", "https://[fd00::1]:443"]);
  expect(tunnel?.caPem().trim()).toBe(cluster.ca.trim());
});

test("a CA file of its own vouches for them instead, and is followed", () => {
  const other = mintCluster("other").ca;
  const caFile = written("other.crt", other);
  expect(
    tunnelOf({ gateways: ["wss://gw.example"], caFile })
      ?.caPem()
      .trim(),
  ).toBe(other.trim());
});

test("off on the node wins over the environment; the environment over the file", () => {
  const env = { HOLDFAST_TUNNEL_GATEWAYS: "wss://env.example" };
  expect(tunnelOf("off", env)).toBeUndefined();
  expect(tunnelOf({ gateways: ["wss://gw.example"] }, { HOLDFAST_TUNNEL: "off" })).toBeUndefined();
  expect(tunnelOf({ gateways: ["wss://gw.example"] }, env)?.gateways).toEqual(["https://env.example:443"]);
});

test.each([
  ["a path", { gateways: ["wss://gw.example/tunnel"] }, /tunnel.gateways: expected wss/],
  ["plain WebSocket", { gateways: ["ws://gw.example"] }, /tunnel.gateways: expected wss/],
  ["a password", { gateways: ["wss://me:secret@gw.example"] }, /tunnel.gateways: expected wss/],
  ["no gateway", { gateways: [] }, /tunnel/],
  ["a field nobody knows", { gateways: ["wss://gw.example"], port: 1 }, /tunnel/],
  ["another word", "on", /tunnel/],
])("%s is refused by its field", (_, tunnel, words) => {
  expect(() => tunnelOf(tunnel)).toThrow(words);
  expect(() => tunnelOf(tunnel)).not.toThrow(/secret/);
});

test("without a node's certificate nobody would let it in: refused at the start", () => {
  expect(() => tunnelOf({ gateways: ["wss://gw.example"] }, {}, "person")).toThrow(/no client certificate of a node/);
});
