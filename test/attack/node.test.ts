/**
 * A compromised node: its certificate opens no other node's Holdfast, and what
 * it may say while cut is about itself.
 */

import { describe, expect, test } from "bun:test";
import { isBuilt } from "../support/binary.ts";
import { MAPS, NODE, PODS, SECRET_TEXT, SECRETS, startWorld, type World } from "./world.ts";

const json = { "Content-Type": "application/json" };
const merge = { "Content-Type": "application/strategic-merge-patch+json" };

function other(world: World) {
  return world.holdfast.clientWith(world.api.cluster.clientCertificate("system:node:edge-2", ["system:nodes"]));
}

describe.skipIf(!isBuilt)("a compromised node (needs dist/)", () => {
  test("gets nothing of another node's copies, and no request of it goes up with that node's credential", async () => {
    await using world = await startWorld();
    expect((await world.kubelet.get(SECRETS)).status).toBe(200);
    const thief = other(world);
    const seen = world.api.requests.length;
    for (const path of [SECRETS, PODS, MAPS]) expect((await thief.get(path)).status).toBe(403);
    await world.cut();
    for (const path of [SECRETS, PODS, MAPS]) expect((await thief.get(path)).status).toBe(403);
    const asked = world.api.requests
      .slice(seen)
      .filter(({ resource, verb }) => resource === "secrets" && verb !== "watch");
    expect(asked).toEqual([]);
  });

  test("may call itself what it likes: whom it impersonates the API server judges, and no copy answers", async () => {
    await using world = await startWorld();
    expect((await world.kubelet.get(SECRETS)).body.toString()).toContain(SECRET_TEXT);
    const as = { "Impersonate-User": "admin" };
    await world.kubelet.get(SECRETS, as);
    expect(world.api.requests.filter(({ headers }) => headers["impersonate-user"] === "admin")).toHaveLength(1);
    await world.cut();
    expect((await world.kubelet.get(SECRETS, as)).status).toBe(503);
  });

  test("writes while cut about itself alone: no other node, no other's pod, no lease, no certificate, no token of others", async () => {
    await using world = await startWorld();
    world.api.put({ kind: "Node", apiVersion: "v1", metadata: { name: "edge-2" } });
    world.api.put({
      kind: "Pod",
      apiVersion: "v1",
      metadata: { name: "elsewhere", namespace: "shop" },
      spec: { nodeName: "edge-2", serviceAccountName: "web", containers: [{ name: "app", image: "app" }] },
    });
    expect((await world.kubelet.get(`/api/v1/nodes/${NODE}`)).status).toBe(200);
    await world.cut();
    const status = JSON.stringify({ status: { phase: "Failed" } });
    const lease = JSON.stringify({ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "x" } });
    const review = JSON.stringify({
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: { audiences: [], boundObjectRef: { kind: "Pod", name: "elsewhere", uid: "u" } },
    });
    const leases = "/apis/coordination.k8s.io/v1/namespaces";
    for (const [method, path, headers, body] of [
      ["PATCH", "/api/v1/nodes/edge-2/status", merge, status],
      ["PATCH", "/api/v1/namespaces/shop/pods/elsewhere/status", merge, status],
      ["PUT", `${leases}/kube-node-lease/leases/edge-2`, json, lease],
      ["PUT", `${leases}/kube-system/leases/kube-scheduler`, json, lease],
      ["DELETE", "/api/v1/namespaces/shop/pods/web-0", json, ""],
      ["POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", json, "{}"],
      ["POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", json, review],
      ["PATCH", `/api/v1/nodes/${NODE}`, merge, JSON.stringify({ metadata: { labels: { a: "b" } } })],
    ] as const)
      expect([path, (await world.kubelet.request(method, path, { headers, body })).status]).toEqual([path, 503]);
    const own = await world.kubelet.request("PATCH", "/api/v1/namespaces/shop/pods/web-0/status", {
      headers: merge,
      body: JSON.stringify({ status: { message: "own" } }),
    });
    expect(own.status).toBe(200);
  });
});
