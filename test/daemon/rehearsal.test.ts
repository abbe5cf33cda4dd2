import { expect, test } from "bun:test";
import { join } from "node:path";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { holdfast } from "../cli/holdfast.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const MAIN = join(import.meta.dir, "..", "..", "src", "main.ts");
const SETTINGS = "/api/v1/namespaces/shop/configmaps/settings";

/** Rehearses as a process of its own, once it has said that the link is cut. */
async function rehearsal(edge: Edge, ...args: readonly string[]) {
  const child = Bun.spawn([process.execPath, MAIN, "rehearse", "--state-dir", edge.stateDir, ...args], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const reader = child.stderr.getReader();
  const { value } = await reader.read();
  expect(Buffer.from(value ?? []).toString()).toStartWith("# the link is cut for");
  await cut(edge, true);
  return child;
}

const cut = (edge: Edge, wanted: boolean) =>
  eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => (status === 503) === wanted,
  );

const lists = (apiServer: ApiServer) => apiServer.count({ verb: "list", resource: "configmaps" });

test("everything is as in a real cut: copies answer, watches stay, the API server hears nothing, and what was 503 is told", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("settings")] });
  await using edge = await startEdge({ apiServer });
  const { client } = edge;
  const target = "/api/v1/namespaces/shop/configmaps";
  const { metadata } = (await client.get(target)).json();
  const watch = await client.watch(`${target}?watch=true&resourceVersion=${metadata.resourceVersion}`);
  const child = await rehearsal(edge, "--for", "3s");
  const heard = apiServer.requests.length;
  expect((await client.get(SETTINGS)).status).toBe(200);
  for (const _ of [1, 2]) expect((await client.get("/api/v1/namespaces/shop/secrets/unread")).status).toBe(503);
  expect((await client.request("DELETE", SETTINGS)).status).toBe(503);
  apiServer.put(configMap("settings", { changed: "meanwhile" }));
  expect(apiServer.requests.length).toBe(heard);
  expect(watch.events).toEqual([]);
  const listed = lists(apiServer);
  const [stdout, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
  expect(stdout).toMatch(
    /^Cut for 3s \(its time was up\): [1-9]\d* answers? from copies, 1 write refused\nAnswered 503:\n/,
  );
  expect(stdout).toMatch(/^get +secrets +certificate +2$/m);
  expect(stdout).toMatch(/^delete +configmaps +certificate +1$/m);
  expect(code).toBe(3);
  await watch.until((events) => events.some(({ object }) => object.data?.changed === "meanwhile"));
  expect(lists(apiServer)).toBe(listed);
  watch.close();
}, 20_000);

test("Ctrl-C ends it at once and still tells how it went; a killed one just ends", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("settings")] });
  await using edge = await startEdge({ apiServer });
  const first = await rehearsal(edge, "--for", "1h", "-o", "json");
  expect((await holdfast("rehearse", "--for", "5s", "--state-dir", edge.stateDir)).stderr).toContain(
    "another rehearsal is under way",
  );
  first.kill("SIGINT");
  const report = JSON.parse(await new Response(first.stdout).text());
  expect(report).toMatchObject({ kind: "Rehearsal", endedBy: "person" });
  await cut(edge, false);
  const second = await rehearsal(edge, "--for", "1h");
  second.kill("SIGKILL");
  await second.exited;
  await cut(edge, false);
  expect(edge.log.join("\n")).toContain('"endedBy":"disconnect"');
}, 20_000);

test("it is refused where pods would be lost, or the control plane would evict them, unless forced", async () => {
  const node = (labels: Record<string, string>) => ({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "edge1", labels },
  });
  await using apiServer = await startApiServer({ objects: [node({})] });
  await using edge = await startEdge({ apiServer, node: "edge1" });
  const ask = (...args: readonly string[]) => holdfast("rehearse", "--state-dir", edge.stateDir, ...args);
  expect(await ask("--for", "5s")).toMatchObject({ code: 1, stderr: expect.stringContaining("no pod comes back") });
  for (const target of ["/api/v1/pods?fieldSelector=spec.nodeName%3Dedge1", "/api/v1/nodes", "/api/v1/services"])
    expect((await edge.client.get(target, { Accept: "application/json" })).status).toBe(200);
  const follow = await edge.client.watch("/api/v1/nodes?watch=true", { Accept: "application/json" });
  // What was looked at some seconds ago still holds.
  await eventually(
    () => ask("--for", "30s"),
    ({ stderr }) => stderr.includes("is not held by the guard"),
    10_000,
  );
  const forced = await rehearsal(edge, "--for", "1h", "--force");
  forced.kill("SIGINT");
  expect(await forced.exited).toBe(3);
  await cut(edge, false);
  apiServer.put(node({ "node-restriction.kubernetes.io/holdfast": "hold" }));
  await follow.until((events) =>
    events.some(({ object }) => object.metadata.labels?.["node-restriction.kubernetes.io/holdfast"] === "hold"),
  );
  const held = await rehearsal(edge, "--for", "30s");
  held.kill("SIGINT");
  expect(await held.exited).toBe(3);
  follow.close();
}, 40_000);

test.each([
  [[], 2, "Say how long"],
  [["--for", "soon"], 2, "Say how long"],
  [["--for", "2h"], 1, "from 1s to 1h"],
])("rehearse %p ends with %d and says so", async (args, code, words) => {
  await using apiServer = await startApiServer();
  await using edge = await startEdge({ apiServer });
  const outcome = await holdfast("rehearse", "--state-dir", edge.stateDir, ...args);
  expect(outcome).toMatchObject({ code, stderr: expect.stringContaining(words) });
});
