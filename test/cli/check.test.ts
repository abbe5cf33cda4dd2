import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { startEdge } from "../support/edge.ts";
import { holdfast } from "./holdfast.ts";

test("check on a machine with nothing set up names what comes next, and exits 1", async () => {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-check-"));
  const { code, stdout, stderr } = await holdfast("check", "--state-dir", dir);
  expect([code, stderr]).toEqual([1, ""]);
  expect(stdout).toContain("  FAILED   configuration: Cannot run without a kubeconfig");
  expect(stdout).toContain(`  FAILED   daemon: no daemon answers on ${dir}/admin.sock`);
  expect(stdout).toMatch(/^\d+ checks: \d+ failed, \d+ warnings?, \d+ skipped$/m);
});

test("check -o json is a document with every check's id, level, cause and next step; groups may be chosen", async () => {
  await using apiServer = await startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
  });
  await using edge = await startEdge({ apiServer, node: "edge1" });
  // On a busy machine a status does not wait for the look at coverage.
  const path = join(edge.stateDir, "admin.sock");
  expect((await fetch("http://holdfast/v1/coverage", { unix: path } as RequestInit)).status).toBe(200);
  const { code, stdout } = await holdfast("check", "cache", "sandbox", "-o", "json", "--state-dir", edge.stateDir);
  const document = JSON.parse(stdout);
  expect(document).toMatchObject({ apiVersion: "holdfast.dev/v1alpha1", kind: "Check", exitCode: code });
  expect(new Date(document.at).toISOString()).toBe(document.at);
  for (const check of document.checks) {
    expect(Object.keys(check)).toEqual(["id", "level", "cause", "next"]);
    expect(check.id).toMatch(/^(cache|sandbox)\/\S+$/);
  }
  // Kubelet has not come yet.
  expect(document.checks.find(({ id }: { id: string }) => id === "cache/coverage")).toMatchObject({ level: "failed" });
  expect(code).toBe(1);
});

test("netcheck says which layer is broken, by exit code too", async () => {
  await using apiServer = await startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "edge1" } }],
  });
  const path = join(mkdtempSync(join(tmpdir(), "holdfast-check-")), "kubeconfig");
  writeFileSync(path, apiServer.kubeconfig({ user: "system:node:edge1", groups: ["system:nodes"] }));
  const well = await holdfast("netcheck", "--kubeconfig", path);
  expect(well.stdout).toMatch(/^ {2}ok {7}api: node edge1 is known$/m);
  expect(well.code).toBe(0);
  await apiServer.cut();
  const cut = await holdfast("netcheck", "--kubeconfig", path);
  expect(cut.stdout).toMatch(/^ {2}FAILED {3}tcp: 127\.0\.0\.1 port \d+: refused/m);
  expect(cut.code).toBe(1);
  expect(await holdfast("check", "hosts")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("Unknown group 'hosts'"),
  });
});
