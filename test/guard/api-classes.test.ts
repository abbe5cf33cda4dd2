/**
 * The package's API classes over our own HTTP, against a served API server with TLS.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadKubeconfig } from "../../src/config/kubeconfig.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { ApiError, type ClusterApi } from "../../src/cluster/api.ts";
import { clusterApi } from "../../src/guard/api-classes.ts";
import type { KubernetesTarget } from "../../src/cluster/kubernetes.ts";

const MERGE = "application/merge-patch+json";
const STRATEGIC = "application/strategic-merge-patch+json";

let apiServer: ApiServer;
let folder: string;
let target: KubernetesTarget;
let api: ClusterApi;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-test-classes-"));
  apiServer = await startApiServer();
  const path = join(folder, "config");
  writeFileSync(path, apiServer.kubeconfig({ user: "admin", groups: ["system:masters"] }));
  const { server, caPem, credential } = loadKubeconfig(path);
  target = { server, caPem, credential };
  api = clusterApi({ target, userAgent: "test" });
  apiServer.put({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "edge", labels: { kept: "as it is" } },
    spec: { taints: [{ key: "kept", effect: "NoSchedule" }] },
    status: { conditions: [{ type: "Ready", status: "True", lastTransitionTime: "2026-01-01T00:00:00Z" }] },
  });
});
afterAll(async () => {
  await apiServer.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function errorOf(act: Promise<unknown>): Promise<ApiError> {
  const error = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ApiError);
  return error as ApiError;
}

describe("the API classes over our own HTTP", () => {
  test("read an object as JSON, times as texts; one that is not there is undefined", async () => {
    expect(await api.readNode("edge")).toMatchObject({
      metadata: { name: "edge", labels: { kept: "as it is" } },
      status: { conditions: [{ type: "Ready", lastTransitionTime: "2026-01-01T00:00:00.000Z" }] },
    });
    expect(await api.readNode("none")).toBeUndefined();
  });

  test("go by client certificate and by token, read anew each time; as nobody they are refused", async () => {
    let token = "first";
    apiServer.addToken("second", { name: "system:serviceaccount:holdfast-system:guard", groups: ["system:masters"] });
    const byToken = clusterApi({
      target: { ...target, credential: { kind: "token", read: () => token } },
      userAgent: "test",
    });
    expect((await errorOf(byToken.readNode("edge"))).status).toBe(401);
    token = "second";
    expect(await byToken.readNode("edge")).toBeDefined();
    const nobody = clusterApi({ target: { ...target, credential: undefined }, userAgent: "test" });
    expect((await errorOf(nobody.readNode("edge"))).status).toBe(401);
  });

  test("patch by the type that is asked for", async () => {
    await api.patchNode("edge", MERGE, { metadata: { labels: { mine: "yes" } } });
    const condition = { type: "holdfast.dev/Reachable", status: "True", lastHeartbeatTime: null };
    await api.patchNodeStatus("edge", STRATEGIC, { status: { conditions: [condition] } });
    const node = apiServer.object("Node", "", "edge") as {
      metadata: { labels: object };
      status: { conditions: { type: string }[] };
    };
    expect(node.metadata.labels).toEqual({ kept: "as it is", mine: "yes" });
    expect(node.status.conditions.map(({ type }) => type).toSorted()).toEqual(["Ready", "holdfast.dev/Reachable"]);
    const stale = await errorOf(api.patchNode("edge", MERGE, { metadata: { resourceVersion: "1" }, spec: {} }));
    expect([stale.status, stale.isConflict]).toEqual([409, true]);
  });

  test("write a lease to the microsecond, and in its place only a newer one", async () => {
    const renewTime = "2026-01-01T00:00:00.123000Z";
    const spec = { holderIdentity: "a", renewTime, leaseDurationSeconds: 15 };
    await api.createLease("default", { metadata: { name: "guard", namespace: "default" }, spec });
    const lease = (await api.readLease("default", "guard")) as { metadata: { resourceVersion: string }; spec: object };
    expect(lease.spec).toMatchObject(spec);
    await api.replaceLease("default", "guard", { ...lease, spec: { ...spec, holderIdentity: "b" } });
    expect((await errorOf(api.replaceLease("default", "guard", { ...lease, spec }))).isConflict).toBe(true);
    expect(await api.readLease("default", "guard")).toMatchObject({ spec: { holderIdentity: "b" } });
  });

  test("keep a Secret's bytes, and name none of them in an error", async () => {
    const secret = {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "tls", namespace: "default" },
      type: "kubernetes.io/tls",
      data: { "tls.key": btoa("very secret") },
    };
    await api.createSecret("default", secret);
    expect(await api.readSecret("default", "tls")).toMatchObject({ data: secret.data, type: secret.type });
    const error = await errorOf(api.createSecret("default", secret));
    expect([error.status, error.reason]).toEqual([409, "AlreadyExists"]);
    expect(`${error.message} ${JSON.stringify(error)}`).not.toContain(secret.data["tls.key"]);
  });

  test("tell an Event, and read it again by its field", async () => {
    const at = "2026-01-01T00:00:00Z";
    const involvedObject = { kind: "Node", name: "edge" };
    await api.createEvent("default", {
      metadata: { name: "edge.1", namespace: "default" },
      involvedObject,
      reason: "HoldfastSilent",
      lastTimestamp: at,
      eventTime: "2026-01-01T00:00:00.000000Z",
    });
    const found = await api.readEvents("default", "involvedObject.kind=Node,involvedObject.name=edge");
    expect(found).toMatchObject([{ reason: "HoldfastSilent", involvedObject }]);
  });

  test("say whether nobody answers", async () => {
    const gone = clusterApi({ target: { ...target, server: "https://127.0.0.1:1" }, userAgent: "test" });
    expect((await errorOf(gone.readNode("edge"))).status).toBe(0);
  });
});
