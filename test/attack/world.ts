/**
 * What every attacker meets: the compiled binary on a node with two pods, a
 * Secret and a ConfigMap, and the stand-in behind it, whose tokens, accounts
 * and rights can end.
 */

import { expect } from "bun:test";
import { existsSync } from "node:fs";
import * as net from "node:net";
import * as tls from "node:tls";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { startBinary, type BinaryOptions, type RunningBinary } from "../support/binary.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap, linkOf } from "../support/edge.ts";

/** The node. */
export const NODE = "edge-1";
/** What kubelet lists. */
export const PODS = `/api/v1/pods?fieldSelector=spec.nodeName%3D${NODE}`;
/** A collection that the pods may read. */
export const MAPS = "/api/v1/namespaces/shop/configmaps";
/** One that they may not, unless a test lets them. */
export const SECRETS = "/api/v1/namespaces/shop/secrets";
/** What lies in the Secret. */
export const SECRET_TEXT = "c2VjcmV0LW1hcmtlci03ZjNh";

const pod = (name: string) => ({
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name, namespace: "shop" },
  spec: { nodeName: NODE, serviceAccountName: "web", containers: [{ name: "app", image: "app" }] },
});

/** A node under attack. */
export interface World extends AsyncDisposable {
  readonly api: ApiServer;
  readonly holdfast: RunningBinary;
  /** On the node's own certificate. */
  readonly kubelet: Client;
  /** A token of the pods' account, bound to one of them. */
  podToken(name?: string): string;
  cut(): Promise<void>;
  heal(): Promise<void>;
  /** What waits to be written is on disk. */
  settle(): Promise<void>;
  /** The sum of a metric over its labels. */
  metric(name: string): Promise<number>;
}

/** Starts it; the pods' account may do what `mayPods` says. */
export async function startWorld(
  options: Omit<BinaryOptions, "apiServer"> & {
    readonly mayPods?: (of: {
      readonly verb: string;
      readonly resource: string;
      readonly namespace: string;
    }) => boolean;
  } = {},
): Promise<World> {
  const { mayPods = ({ resource, namespace }) => resource === "configmaps" && namespace === "shop" } = options;
  const api = await startApiServer({
    objects: [
      { kind: "Node", apiVersion: "v1", metadata: { name: NODE } },
      pod("web-0"),
      pod("web-1"),
      configMap("a"),
      { kind: "Secret", apiVersion: "v1", metadata: { name: "password", namespace: "shop" }, data: { p: SECRET_TEXT } },
    ],
    tokens: { person: { name: "person", groups: [] } },
  });
  api.authorize = (user, of) =>
    !user.name.startsWith("system:serviceaccount:") ||
    of.resource === "" ||
    of.resource.startsWith("selfsubject") ||
    mayPods(of);
  const holdfast = await startBinary({ ...options, apiServer: api });
  const kubelet = holdfast.client;
  expect((await kubelet.get(PODS)).status).toBe(200);
  return {
    ...{ api, holdfast, kubelet },
    podToken(name = "web-0") {
      const { uid = "" } = (api.object("Pod", "shop", name)?.["metadata"] ?? {}) as { uid?: string };
      return api.serviceAccountToken("shop", "web", 3_600, { pod: { name, uid } });
    },
    ...linkOf(api, kubelet),
    async settle() {
      await eventually(() => existsSync(holdfast.socket));
      const settled = await fetch("http://holdfast/v1/flush", { method: "POST", unix: holdfast.socket } as RequestInit);
      expect(settled.ok).toBe(true);
    },
    async metric(name) {
      const text = await (await fetch(`${holdfast.healthUrl}/metrics`)).text();
      return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)$`, "gm"))].reduce(
        (sum, [, n]) => sum + Number(n),
        0,
      );
    },
    async [Symbol.asyncDispose]() {
      await holdfast[Symbol.asyncDispose]();
      await api[Symbol.asyncDispose]();
    },
  };
}

/** Sends bytes over TLS as they are; what came back, and whether the other side closed, once it is quiet or closed. */
export async function sent(
  { holdfast }: World,
  text: string | Uint8Array,
  isEnough: (received: string) => boolean = (received) => received.includes("\r\n\r\n"),
): Promise<{ readonly received: string; readonly isClosed: boolean }> {
  const socket = tls.connect({ host: "127.0.0.1", port: holdfast.port, ca: holdfast.ca, servername: "localhost" });
  let received = "";
  let isClosed = false;
  socket.on("data", (bytes) => (received += bytes.toString("latin1")));
  socket.on("error", () => (isClosed = true)).on("close", () => (isClosed = true));
  socket.write(text);
  await eventually(() => isClosed || isEnough(received));
  socket.destroy();
  return { received, isClosed };
}

/** Accepts on a free port and counts who comes. */
export async function startTrap(): Promise<{ readonly port: number; readonly visits: () => number } & Disposable> {
  let visits = 0;
  const server = net.createServer((socket) => {
    visits++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  return { port, visits: () => visits, [Symbol.dispose]: () => void server.close() };
}
