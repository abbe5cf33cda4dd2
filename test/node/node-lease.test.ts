import { expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { startEdge } from "../support/edge.ts";

const NODE = "edge1";
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const LEASE = `${LEASES}/${NODE}`;
const JSON_BODY = { "Content-Type": "application/json" };

interface Lease {
  readonly metadata: { readonly resourceVersion: string };
  readonly spec: { readonly holderIdentity: string; readonly renewTime: string };
}

/** A node whose lease exists, and a kubelet that renews it on top of what it was last answered. */
async function startNode(limits?: string) {
  const namespace = { kind: "Namespace", apiVersion: "v1", metadata: { name: "kube-node-lease" } };
  const apiServer = await startApiServer({ objects: [namespace] as never });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const kubeconfig = apiServer.kubeconfig({ user: `system:node:${NODE}`, groups: ["system:nodes"], keyPair });
  const edge = await startEdge({ apiServer, kubeconfig, ...(limits === undefined ? {} : { limits }) });
  const client = edge.clientWith(keyPair);
  const first = {
    kind: "Lease",
    apiVersion: "coordination.k8s.io/v1",
    metadata: { name: NODE, namespace: "kube-node-lease" },
    spec: { holderIdentity: NODE, leaseDurationSeconds: 40, renewTime: "2026-01-01T00:00:00.000000Z" },
  };
  const created = await client.request("POST", LEASES, { headers: JSON_BODY, body: JSON.stringify(first) });
  expect(created.status).toBe(201);
  let held = created.json() as Lease;
  let seconds = 0;
  return {
    apiServer,
    client,
    /** PUTs that the API server has seen. */
    puts: () => apiServer.requests.filter(({ method }) => method === "PUT").length,
    async renew(change: Partial<Lease["spec"]> = {}): Promise<number> {
      const renewTime = `2026-01-01T00:00:${String(++seconds % 60).padStart(2, "0")}.000000Z`;
      const body = JSON.stringify({ ...held, spec: { ...held.spec, renewTime, ...change } });
      const put = await client.request("PUT", LEASE, { headers: JSON_BODY, body });
      if (put.status === 200) held = put.json() as Lease;
      return put.status;
    },
    get held() {
      return held;
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

test("every renewal goes up when nothing else is asked for", async () => {
  await using node = await startNode();
  for (let n = 1; n <= 3; n++) {
    expect(await node.renew()).toBe(200);
    expect(node.puts()).toBe(n);
  }
});

test("with leaseInterval a renewal that comes early is answered with itself, and goes up when its time has come", async () => {
  await using node = await startNode("{leaseInterval: 500ms}");
  expect(await node.renew()).toBe(200);
  const { resourceVersion } = node.held.metadata;
  expect(await node.renew()).toBe(200);
  expect(node.puts()).toBe(1);
  expect(node.held.metadata.resourceVersion).toBe(resourceVersion);
  expect(node.held.spec.renewTime).toEndWith("02.000000Z");
  await eventually(
    async () => {
      expect(await node.renew()).toBe(200);
      return node.puts();
    },
    (puts) => puts === 2,
  );
  expect(node.held.metadata.resourceVersion).not.toBe(resourceVersion);
});

test("what changes more than renewTime goes up at once, leaseInterval or not", async () => {
  await using node = await startNode("{leaseInterval: 30s}");
  expect(await node.renew()).toBe(200);
  expect(await node.renew({ holderIdentity: "another" })).toBe(200);
  expect(node.puts()).toBe(2);
});

test("after a renewal that failed the next one goes up, leaseInterval or not", async () => {
  await using node = await startNode("{leaseInterval: 30s}");
  expect(await node.renew()).toBe(200);
  node.apiServer.nextStatus({ code: 500 }, { verb: "update" });
  expect(await node.renew({ holderIdentity: "another" })).toBe(500);
  expect(await node.renew()).toBe(200);
  expect(node.puts()).toBe(3);
});
