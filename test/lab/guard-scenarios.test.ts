/**
 * The guard through what happens to whole clusters: a zone of fifty nodes that
 * goes dark, an etcd that is set back, controllers that fail over, a cordon.
 *
 * With --long the cut lasts ten minutes.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { GuardWorld, unchanged } from "./guard-world.ts";
import { isLong, measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";

const LABELS = { "node-restriction.kubernetes.io/holdfast": "hold", "topology.kubernetes.io/zone": "dark" };
const REACHABLE = "holdfast.dev/Reachable";
const DARK = Array.from({ length: 50 }, (_, index) => `dark-${index + 1}`);
const CUT_MS = isLong ? 600_000 : 20_000;

describe.skipIf(whyWithoutHoldfast !== undefined)(titled("a whole cluster's troubles", whyWithoutHoldfast), () => {
  let guarded: GuardWorld;
  beforeAll(async () => {
    const leases = { "lease-duration": "6s", "renew-deadline": "4s", "retry-period": "1s" };
    guarded = await GuardWorld.start({
      manifests: [],
      world: {
        controllerManagerArguments: [
          "--leader-elect=true",
          ...Object.entries(leases).map(([name, value]) => `--leader-elect-${name}=${value}`),
        ],
      },
    });
    guarded.world.startStandbyControllerManager();
    await guarded.startGuards(2);
    await guarded.setParameters({ silentAfter: "10s" });
    await guarded.addNodes(DARK, LABELS);
    await guarded.addNodes(["plain", "well-1", "well-2", "well-3"], { "topology.kubernetes.io/zone": "bright" });
  }, 290_000);
  afterAll(async () => await guarded?.[Symbol.asyncDispose]());

  const darkPods = async () => (await guarded.pods()).filter(({ nodeName }) => nodeName.startsWith("dark-"));
  const countReachable = async (status: string) => {
    const path = `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="${REACHABLE}")].status} {end}`;
    const said = await guarded.world.inCloud(["get", "nodes", "-o", path]);
    return said.split(" ").filter((one) => one.startsWith("dark-") && one.endsWith(`=${status}`)).length;
  };

  test(
    "fifty nodes of one zone go dark: nothing is evicted, and it is told",
    async () => {
      await until("all are heard", async () => (await countReachable("True")) === DARK.length, 60_000);
      const before = await darkPods();
      const cutMs = performance.now();
      await guarded.hollow.silence(...DARK, "plain");
      await until("all are told to be silent", async () => (await countReachable("False")) === DARK.length, 90_000);
      measured("fifty nodes cut to fifty conditions told, silentAfter 10 s", seconds(performance.now() - cutMs));
      await guarded.evicted("plain");
      await Bun.sleep(Math.max(0, CUT_MS - (performance.now() - cutMs)));
      measured("the cut lasted", seconds(performance.now() - cutMs));
      expect(unchanged(await darkPods())).toEqual(unchanged(before));
      const ready = await guarded.readyEndpoints();
      expect(DARK.filter((name) => !ready.has(name))).toEqual([]);
    },
    180_000 + CUT_MS,
  );

  test("a cordon and an uncordon by a person go through; nothing else changes", async () => {
    const before = await darkPods();
    await guarded.world.inCloud(["cordon", "dark-1"]);
    await guarded.world.inCloud(["uncordon", "dark-1"]);
    expect(unchanged(await darkPods())).toEqual(unchanged(before));
  }, 30_000);

  test("the controllers fail over: the new leader knows nothing of the nodes, and evicts nothing held", async () => {
    const before = await darkPods();
    const leader = async () =>
      await guarded.world.inCloud(
        "get lease kube-controller-manager -n kube-system -o jsonpath={.spec.holderIdentity}".split(" "),
      );
    const first = await leader();
    await guarded.world.failOverControllers();
    await until("the standby leads", async () => (await leader()) !== first, 60_000);
    // The yardstick: what nobody holds is given up by the new leader.
    await guarded.hollow.silence("well-1");
    await guarded.evicted("well-1");
    expect(unchanged(await darkPods())).toEqual(unchanged(before));
    const ready = await guarded.readyEndpoints();
    expect(DARK.filter((name) => !ready.has(name))).toEqual([]);
    await guarded.hollow.hear("well-1");
  }, 240_000);

  test("etcd is set back: the guard reads everything anew, and nothing is evicted", async () => {
    const before = await darkPods();
    const backup = await guarded.world.backUpEtcd();
    // The node's label is history a moment later: a guard that did not notice would still hold it for free.
    await guarded.world.inCloud(["label", "node", "dark-50", "node-restriction.kubernetes.io/holdfast-"]);
    for (let index = 0; index < 20; index++)
      await guarded.world.inCloud(["annotate", "node", "dark-49", `a=${index}`, "--overwrite"]);
    await guarded.world.restoreEtcd(backup);
    await until(
      "the guards have noticed",
      async () => {
        const text = await guarded.guardAnswer(0, "/metrics");
        return text?.includes('holdfast_guard_nodes{state="held-silent"} 50') === true;
      },
      120_000,
    );
    await guarded.addNodes(["late"]);
    await guarded.hollow.silence("late");
    await guarded.evicted("late");
    expect(unchanged(await darkPods())).toEqual(unchanged(before));
  }, 280_000);

  test("the zone returns: no pod was touched", async () => {
    const before = await darkPods();
    const backMs = performance.now();
    await guarded.hollow.hear(...DARK);
    await until("all are told to be heard", async () => (await countReachable("True")) === DARK.length, 90_000);
    measured("fifty nodes back to fifty conditions told", seconds(performance.now() - backMs));
    expect(unchanged(await darkPods())).toEqual(unchanged(before));
    // The policies alone were enough: no eviction was even begun.
    expect((await darkPods()).filter(({ disruption }) => disruption !== undefined)).toEqual([]);
  }, 120_000);
});
