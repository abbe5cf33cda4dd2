/**
 * Two devices from one card, against the stand-in: the first is the node, the
 * second is kept out, and both know.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "bun:test";
import { askStatus } from "../../src/cli/ask-status.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { HOLDER_ANNOTATION, REFUSED_ANNOTATION } from "../../src/kube/node-holder.ts";
import { eventually } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const MACHINE_ID = "0123456789abcdef0123456789abcdef";
const [FIRST, SECOND] = [`${MACHINE_ID}/serial AAA1`, `${MACHINE_ID}/serial BBB2`];
const NODE = "/api/v1/nodes/gw-1";
const LIST = "/api/v1/nodes?fieldSelector=metadata.name%3Dgw-1";
const STATUS = { "Content-Type": "application/strategic-merge-patch+json" };
const folder = mkdtempSync(join(tmpdir(), "holdfast-holder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A root file system of a board; of a copied card all but the serial number is the same. */
function board(serial: string): string {
  const root = join(folder, serial);
  for (const path of ["etc", "sys/class/dmi/id"]) mkdirSync(join(root, path), { recursive: true });
  writeFileSync(join(root, "etc/machine-id"), `${MACHINE_ID}\n`);
  writeFileSync(join(root, "sys/class/dmi/id/board_serial"), `${serial}\n`);
  return root;
}

const aCluster = () =>
  startApiServer({
    objects: [{ apiVersion: "v1", kind: "Node", metadata: { name: "gw-1" }, status: { conditions: [] } }],
  });

function device(apiServer: ApiServer, serial: string, more: { stateDir?: string; clock?: ShiftedClock } = {}) {
  const env = { HOLDFAST_CLAIM_NODE: "true" };
  return startEdge({ apiServer, node: "gw-1", machineRoot: board(serial), env, ...more });
}

const annotations = (apiServer: ApiServer) =>
  ((apiServer.object("Node", "", "gw-1") as any).metadata.annotations ?? {}) as Record<string, string>;

async function copied(edge: Edge): Promise<string> {
  const answer = await askStatus(join(edge.stateDir, "admin.sock"));
  if (!answer.isFine) return "";
  const found = answer.report.conditions.find(({ type }) => type === "IdentityCopied");
  return found === undefined ? "" : `${found.reason}: ${found.message}`;
}

const isKeptOut = (edge: Edge) =>
  eventually(
    () => edge.client.get(NODE),
    ({ status }) => status === 403,
  );

const isSaidBy = (apiServer: ApiServer, device: string) =>
  eventually(
    () => annotations(apiServer)[REFUSED_ANNOTATION],
    (refused) => refused === device,
  );

test("the second device of one identity is kept out and named on both; the first goes on undisturbed", async () => {
  await using apiServer = await aCluster();
  await using first = await device(apiServer, "AAA1");
  expect((await first.client.get(LIST)).status).toBe(200);
  await eventually(
    () => annotations(apiServer)[HOLDER_ANNOTATION],
    (holder) => holder === FIRST,
  );

  await using second = await device(apiServer, "BBB2");
  const refused = await isKeptOut(second);
  expect(refused.body.toString()).toContain(`This device (${SECOND}) is kept out: node gw-1 is the device ${FIRST}`);
  await isSaidBy(apiServer, SECOND);
  expect(annotations(apiServer)).toEqual({ [HOLDER_ANNOTATION]: FIRST, [REFUSED_ANNOTATION]: SECOND });

  // Nothing that its kubelet says goes up, and nothing comes down.
  const since = apiServer.requests.length;
  const patch = JSON.stringify({ status: { conditions: [{ type: "Ready", status: "False" }] } });
  expect((await second.client.request("PATCH", `${NODE}/status`, { headers: STATUS, body: patch })).status).toBe(403);
  expect((await second.client.get("/api/v1/pods")).status).toBe(403);
  expect(apiServer.count({ verb: "patch" }, since)).toBe(0);
  expect(await copied(second)).toStartWith(`HeldByAnother: Node gw-1 is the device ${FIRST}; this one, ${SECOND}`);

  const ready = JSON.stringify({ status: { conditions: [{ type: "Ready", status: "True" }] } });
  expect((await first.client.request("PATCH", `${NODE}/status`, { headers: STATUS, body: ready })).status).toBe(200);
  await eventually(
    () => copied(first),
    (words) => words.startsWith(`Copied: The device ${SECOND} has a copy of this node's identity`),
  );
}, 30_000);

test("a second device that looks again and again writes nothing more, and starts anew as what it is", async () => {
  await using apiServer = await aCluster();
  await using first = await device(apiServer, "AAA1");
  await eventually(
    () => annotations(apiServer)[HOLDER_ANNOTATION],
    (holder) => holder === FIRST,
  );
  const clock = new ShiftedClock();
  await using second = await device(apiServer, "BBB2", { clock });
  await isKeptOut(second);
  await isSaidBy(apiServer, SECOND);
  const version = apiServer.resourceVersion;
  const since = apiServer.requests.length;
  for (let look = 1; look <= 5; look += 1) {
    await eventually(
      () => (clock.forward(31_000), apiServer.count({ verb: "get", path: NODE }, since)),
      (count) => count >= look,
    );
  }
  expect(apiServer.resourceVersion).toBe(version);

  await apiServer.cut();
  await second.restart();
  // Without the link too: the copies are another device's.
  expect((await second.client.get(NODE)).status).toBe(403);
  await apiServer.heal();
  expect((await first.client.get(NODE)).status).toBe(200);
}, 30_000);

test("given free by a person, the node is the next device's, and the former one is kept out", async () => {
  await using apiServer = await aCluster();
  const clock = new ShiftedClock();
  await using first = await device(apiServer, "AAA1", { clock });
  expect((await first.client.get(LIST)).status).toBe(200);
  await eventually(
    () => annotations(apiServer)[HOLDER_ANNOTATION],
    (holder) => holder === FIRST,
  );
  const later = new ShiftedClock();
  await using second = await device(apiServer, "BBB2", { clock: later });
  await isKeptOut(second);
  apiServer.edit("Node", "", "gw-1", (node: any) => {
    delete node.metadata.annotations[HOLDER_ANNOTATION];
    return node;
  });
  later.forward(31_000);
  await eventually(
    () => annotations(apiServer)[HOLDER_ANNOTATION],
    (holder) => holder === SECOND,
  );
  await eventually(
    () => second.client.get(NODE),
    ({ status }) => status === 200,
  );
  // By the copy that its kubelet follows.
  await first.client.watch(`${LIST}&watch=true`);
  await eventually(
    () => (clock.forward(31_000), first.client.get(NODE)),
    ({ status }) => status === 403,
  );
}, 30_000);

test("a node that registers later is claimed when its copy is there", async () => {
  await using apiServer = await startApiServer();
  const clock = new ShiftedClock();
  await using edge = await device(apiServer, "AAA1", { clock });
  expect((await edge.client.get(NODE)).status).toBe(404);
  await edge.client.watch(`${LIST}&watch=true`);
  apiServer.put({ apiVersion: "v1", kind: "Node", metadata: { name: "gw-1" }, status: { conditions: [] } });
  await eventually(
    () => (clock.forward(31_000), annotations(apiServer)[HOLDER_ANNOTATION]),
    (holder) => holder === FIRST,
  );
}, 30_000);

test("two that come at once: one of them is the node, the other kept out", async () => {
  await using apiServer = await aCluster();
  const devices = await Promise.all([device(apiServer, "AAA1"), device(apiServer, "BBB2")]);
  await using first = devices[0];
  await using second = devices[1];
  const words = await eventually(
    () => Promise.all([first, second].map((edge) => copied(edge))),
    (words) => words.some((one) => one.startsWith("HeldByAnother")),
  );
  expect(words.filter((one) => one.startsWith("HeldByAnother"))).toHaveLength(1);
}, 30_000);

test("a node that does not claim is written nothing, whatever its board", async () => {
  await using apiServer = await aCluster();
  await using edge = await startEdge({ apiServer, node: "gw-1", machineRoot: board("CCC3") });
  expect((await edge.client.get(NODE)).status).toBe(200);
  expect(annotations(apiServer)).toEqual({});
});
