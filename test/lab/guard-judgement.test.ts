/**
 * The manifests before the real API server, and two judges of one question: the
 * policies' CEL and the guard's own code must agree on every case.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { termsOf } from "../../src/guard/terms.ts";
import { readParameters } from "../../src/guard/parameters.ts";
import { runProcess, until } from "./processes.ts";
import { holdfastPath, titled, whyWithoutHoldfast } from "./requirements.ts";
import { startWorld, type World } from "./world.ts";

const LABEL = "node-restriction.kubernetes.io/holdfast";
const NODE_CONTROLLER = "system:serviceaccount:kube-system:node-controller";
const HOUR_MS = 3_600_000;
const NOW_MS = Date.parse("2026-11-24T12:00:00Z");

interface Case {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly data?: Readonly<Record<string, string>>;
  /** By its heartbeat. */
  readonly silentMs: number;
  readonly user?: string;
}

const HOLD = { [LABEL]: "hold" };
const YURT = "node.beta.openyurt.io/autonomy";
const YURT_DURATION = "node.openyurt.io/autonomy-duration";

const CASES: readonly Case[] = [
  { silentMs: HOUR_MS },
  { labels: HOLD, silentMs: HOUR_MS },
  { labels: { [LABEL]: "true" }, silentMs: HOUR_MS },
  { labels: { [LABEL]: "witness" }, silentMs: HOUR_MS },
  { labels: { ...HOLD, [`${LABEL}-released`]: "bound" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "30m" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "2h" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "0s" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "58m", statusReportInterval: "1m" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "59m30s", statusReportInterval: "1m" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "2h", "bound.judged": "30m" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "30m", "bound.judged": "0" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "30m", "bound.other": "0" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { bound: "0.5h10m" }, silentMs: HOUR_MS },
  { annotations: { [YURT]: "true" }, silentMs: HOUR_MS },
  { annotations: { [YURT]: "false" }, silentMs: HOUR_MS },
  { annotations: { [YURT]: "true" }, data: { bound: "30m" }, silentMs: HOUR_MS },
  { annotations: { [YURT]: "true" }, data: { openYurtAnnotations: "false" }, silentMs: HOUR_MS },
  { annotations: { [YURT_DURATION]: "30m" }, silentMs: HOUR_MS },
  { annotations: { [YURT_DURATION]: "2h" }, silentMs: HOUR_MS },
  { annotations: { [YURT_DURATION]: "0" }, data: { bound: "30m" }, silentMs: HOUR_MS },
  { annotations: { [YURT_DURATION]: "half an hour" }, data: { bound: "30m" }, silentMs: HOUR_MS },
  { annotations: { [YURT_DURATION]: "2h" }, data: { "bound.judged": "30m" }, silentMs: HOUR_MS },
  { labels: HOLD, annotations: { [YURT_DURATION]: "30m" }, silentMs: HOUR_MS },
  { labels: HOLD, data: { controllers: "a, some:one ,b" }, silentMs: HOUR_MS, user: "some:one" },
  { labels: HOLD, silentMs: HOUR_MS, user: "some:one" },
  { labels: HOLD, silentMs: HOUR_MS, user: "system:kube-controller-manager" },
];

/** What the guard's own code says: refused or not. */
function isRefused({ labels, annotations, data, silentMs, user = NODE_CONTROLLER }: Case): boolean {
  const parameters = readParameters(data);
  const judged = [NODE_CONTROLLER, "system:kube-controller-manager", ...parameters.controllers];
  const terms = termsOf({ name: "judged", labels, annotations }, parameters);
  if (!judged.includes(user) || terms === undefined || terms.released !== undefined) return false;
  return terms.boundMs === undefined || silentMs <= terms.boundMs + parameters.statusReportIntervalMs;
}

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("manifests and judgement", whyWithoutHoldfast), () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld({ controllerManager: true });
  }, 120_000);
  afterAll(async () => await world?.[Symbol.asyncDispose]());

  const rendered = async (...args: string[]) => {
    const { stdout, stderr, exitCode } = await runProcess([holdfastPath, "manifests", ...args]);
    if (exitCode !== 0) throw new Error(stderr);
    return stdout;
  };

  test("the API server takes every form of the manifests, strictly", async () => {
    // A dry run knows no namespace that was not there before.
    await world.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: "holdfast-system" } });
    for (const args of [[], ["--policies-only"], ["--approve-csrs", "--replicas=3", "--controllers=a:b"]]) {
      const yaml = await rendered(...args);
      const answer = await world.inCloud(
        ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-"],
        yaml,
      );
      expect(answer.split("\n").filter((line) => line.includes("serverside-applied")).length).toBe(
        yaml.split("\n").filter((line) => line.startsWith("kind: ")).length,
      );
    }
  }, 60_000);

  test("its type checker finds nothing in the policies", async () => {
    await world.inCloud(["apply", "-f", "-"], await rendered());
    const { items } = await until(
      "all policies are checked",
      async () => {
        const list = JSON.parse(await world.inCloud(["get", "validatingadmissionpolicies", "-o", "json"]));
        const isDone = list.items.every(
          (item: { metadata: { generation: number }; status?: { observedGeneration?: number } }) =>
            item.status?.observedGeneration === item.metadata.generation,
        );
        return isDone ? list : undefined;
      },
      60_000,
    );
    expect(items.length).toBeGreaterThan(4);
    for (const { metadata, status } of items)
      expect({ name: metadata.name, warnings: status.typeChecking?.expressionWarnings ?? [] }).toEqual({
        name: metadata.name,
        warnings: [],
      });
  }, 90_000);

  test("CEL and code agree on every case", async () => {
    const [seen, now] = [NOW_MS, NOW_MS];
    const disagreements: object[] = [];
    for (const one of CASES) {
      const ready = (status: string, heartbeatMs: number, transitionMs: number) => ({
        conditions: [
          {
            type: "Ready",
            status,
            reason: "r",
            message: "",
            lastHeartbeatTime: time(heartbeatMs),
            lastTransitionTime: time(transitionMs),
          },
        ],
      });
      await world.inCloud(["delete", "node", "judged", "--ignore-not-found"]);
      await world.apply({
        apiVersion: "v1",
        kind: "Node",
        metadata: { name: "judged", labels: one.labels ?? {}, annotations: one.annotations ?? {} },
      });
      await world.inCloud([
        "patch",
        "node",
        "judged",
        "--subresource=status",
        "--type=merge",
        "-p",
        JSON.stringify({ status: ready("True", seen - one.silentMs, seen - one.silentMs) }),
      ]);
      await setParameters(world, one.data ?? {});
      const { status, body } = await until(
        "the API server judges by these parameters",
        async () => {
          const ask = async () =>
            await world.requestInCloud({
              method: "PATCH",
              path: "/api/v1/nodes/judged/status?dryRun=All",
              body: { status: ready("Unknown", seen - one.silentMs, now) },
              user: one.user ?? NODE_CONTROLLER,
              // Authorization is another question.
              groups: one.user === undefined ? [] : ["system:masters"],
            });
          // It follows the ConfigMap by a watch: what it says must be what it goes on saying.
          const answers = [await ask(), await ask()];
          return answers.every(({ status: code }) => (code === 403) === isRefused(one)) ? answers[1] : undefined;
        },
        5_000,
      ).catch(() => ({ status: 0, body: "" }));
      if (status === 0 || ![200, 403].includes(status)) disagreements.push({ ...one, expected: isRefused(one), body });
      if (status === 403) expect(body).toContain("Holdfast holds node judged");
    }
    expect(disagreements).toEqual([]);
    expect(CASES.map(isRefused).filter(Boolean).length).toBeGreaterThan(8);
  }, 240_000);

  test("the guard's own account may write its own fields, and no other", async () => {
    const user = "system:serviceaccount:holdfast-system:holdfast-guard";
    const write = async (path: string, body: object, contentType = "application/merge-patch+json") =>
      (await world.requestInCloud({ method: "PATCH", path: `${path}?dryRun=All`, body, contentType, user })).status;
    const node = "/api/v1/nodes/judged";
    const taint = (key: string, effect: string) => ({ spec: { taints: [{ key, effect }] } });
    expect(await write(node, { metadata: { labels: { [`${LABEL}-released`]: "bound" } } })).toBe(200);
    expect(await write(node, taint("holdfast.dev/unreachable", "NoSchedule"))).toBe(200);
    expect(await write(node, { metadata: { annotations: { "holdfast.dev/listen-for": "x" } } })).toBe(200);
    for (const forbidden of [
      { metadata: { labels: { [LABEL]: null } } },
      { metadata: { labels: { "node-role.kubernetes.io/control-plane": "" } } },
      { metadata: { annotations: { [YURT]: "true" } } },
      taint("node.kubernetes.io/unreachable", "NoExecute"),
      { spec: { unschedulable: true } },
    ])
      expect({ forbidden, status: await write(node, forbidden) }).toEqual({ forbidden, status: 403 });
    const condition = (type: string) => ({ status: { conditions: [{ type, status: "False", reason: "r" }] } });
    const strategic = "application/strategic-merge-patch+json";
    expect(await write(`${node}/status`, condition("holdfast.dev/Reachable"), strategic)).toBe(200);
    expect(await write(`${node}/status`, condition("Ready"), strategic)).toBe(403);
    expect(await write("/api/v1/namespaces/default/pods/none", { metadata: { labels: { a: "b" } } })).toBe(403);
  }, 60_000);
});

async function setParameters(world: World, data: Readonly<Record<string, string>>): Promise<void> {
  const metadata = { name: "holdfast-guard", namespace: "holdfast-system" };
  await world.inCloud(["replace", "-f", "-"], JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata, data }));
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
