/**
 * `holdfast guard explain` as a person runs it: against the cluster that kubectl would ask.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { holdfastWith } from "./holdfast.ts";

const LABEL = "node-restriction.kubernetes.io/holdfast";

let apiServer: ApiServer;
let folder: string;
let kubeconfig: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-test-guard-cli-"));
  apiServer = await startApiServer();
  apiServer.put({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "gw-1", labels: { [LABEL]: "hold" } },
    spec: {},
    status: { conditions: [{ type: "Ready", status: "True" }] },
  });
  kubeconfig = join(folder, "config");
  writeFileSync(kubeconfig, apiServer.kubeconfig({ user: "admin", groups: ["system:masters"] }));
});
afterAll(async () => {
  await apiServer.stop();
  rmSync(folder, { recursive: true, force: true });
});

const explained = (env: Record<string, string>, ...more: string[]) =>
  holdfastWith(env, "guard", "explain", "gw-1", "-o", "json", ...more);

describe("guard explain", () => {
  test("asks the cluster of --kubeconfig", async () => {
    const { code, stdout, stderr } = await explained({}, "--kubeconfig", kubeconfig);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toMatchObject({ node: "gw-1", verdict: "held" });
  });

  test("follows KUBECONFIG, whose first file may be missing", async () => {
    const { code, stdout } = await explained({ KUBECONFIG: `${join(folder, "missing")}:${kubeconfig}` });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ verdict: "held" });
  });

  test("follows ~/.kube/config", async () => {
    mkdirSync(join(folder, ".kube"), { recursive: true });
    writeFileSync(join(folder, ".kube", "config"), apiServer.kubeconfig({ user: "admin", groups: ["system:masters"] }));
    expect((await explained({ HOME: folder })).code).toBe(0);
  });

  test("names what is missing, and without any says what to name", async () => {
    const missing = join(folder, "missing");
    const named = await explained({ KUBECONFIG: missing });
    expect([named.code, named.stderr]).toEqual([1, expect.stringContaining(missing)]);
    const none = await explained({ HOME: "/nonexistent" });
    expect([none.code, none.stderr]).toEqual([2, expect.stringContaining("KUBECONFIG=FILE")]);
  });
});
