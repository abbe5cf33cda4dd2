/**
 * A stock kubelet behind Holdfast, cut for longer than the control plane's patience: policies alone keep its pods.
 *
 * With --long the cut lasts ten minutes.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { HollowNodes } from "./hollow-nodes.ts";
import { identities, isLong, measured, NodeWorld, seconds } from "./node-world.ts";
import { runProcess, until } from "./processes.ts";
import { holdfastPath, titled, whyWithoutPodNetwork } from "./requirements.ts";
import { NAMESPACE } from "./workload.ts";
import { NODE_NAME } from "./world.ts";

/** Kubelet renews its lease every 10 s. */
const GRACE_SECONDS = 30;
const CUT_MS = isLong ? 600_000 : 0;
const TOLERATION = "2";

describe.skipIf(whyWithoutPodNetwork !== undefined)(
  titled("a stock kubelet, cut beyond the control plane's patience", whyWithoutPodNetwork),
  () => {
    let edge: NodeWorld;
    let hollow: HollowNodes;
    beforeAll(async () => {
      edge = await NodeWorld.start({
        apiServerArguments: [
          `--default-unreachable-toleration-seconds=${TOLERATION}`,
          `--default-not-ready-toleration-seconds=${TOLERATION}`,
        ],
        controllerManagerArguments: [`--node-monitor-grace-period=${GRACE_SECONDS}s`, "--node-monitor-period=1s"],
      });
      const { world } = edge;
      const { stdout } = await runProcess([holdfastPath, "manifests", "--policies-only"]);
      await world.inCloud(["apply", "-f", "-"], stdout);
      await world.inCloud(["label", "node", NODE_NAME, "node-restriction.kubernetes.io/holdfast=hold"]);
      // The yardstick: a node that nobody holds, with one pod.
      hollow = HollowNodes.start(world);
      await hollow.add(["plain"]);
      await world.createNamespace("yard");
      await world.apply({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "stick", namespace: "yard" },
        spec: { nodeName: "plain", containers: [{ name: "app", image: "none" }] },
      });
      await until("the yardstick runs", async () => (await stick()).includes("Running"));
    }, 290_000);
    afterAll(async () => await edge?.[Symbol.asyncDispose]());

    const stick = async () =>
      await edge.world.inCloud([
        "get",
        "pod",
        "stick",
        "-n",
        "yard",
        "-o",
        "jsonpath={.status.phase} {.metadata.deletionTimestamp}",
      ]);
    /** Those of the real node: the DaemonSet has a pod on the yardstick too. */
    const pods = async () => {
      const own = new Set((await edge.node.containers.running()).map(({ pod }) => pod));
      return (await edge.cloudPods())
        .filter(({ name, phase }) => phase === "Running" && own.has(name))
        .map(({ name, uid, isReady, isBeingDeleted }) => ({ name, uid, isReady, isBeingDeleted }))
        .toSorted((x, y) => x.name.localeCompare(y.name));
    };
    const ready = async () =>
      await edge.world.inCloud([
        "get",
        "endpointslices",
        "-n",
        NAMESPACE,
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].endpoints[*].conditions.ready}",
      ]);

    test(
      "nothing is evicted, marked or withdrawn; the same containers run before, during and after",
      async () => {
        const [containers, before, endpoints] = [
          identities(await edge.node.containers.running()),
          await pods(),
          await ready(),
        ];
        const cutMs = performance.now();
        edge.world.cut();
        await hollow.silence("plain");
        await until("the yardstick is evicted", async () => (await stick()).trim().includes(" "), 120_000);
        await Bun.sleep(Math.max(0, CUT_MS - (performance.now() - cutMs)));
        measured("a stock kubelet's cut under the policies alone", seconds(performance.now() - cutMs));
        expect(await pods()).toEqual(before);
        expect(await ready()).toBe(endpoints);
        expect(identities(await edge.node.containers.running())).toEqual(containers);

        edge.world.heal();
        await until(
          "the node is heard again",
          async () => {
            const renewed = await edge.world.inCloud([
              "get",
              "lease",
              NODE_NAME,
              "-n",
              "kube-node-lease",
              "-o",
              "jsonpath={.spec.renewTime}",
            ]);
            return Date.now() - Date.parse(renewed) < 10_000;
          },
          60_000,
        );
        expect(await pods()).toEqual(before);
        expect(identities(await edge.node.containers.running())).toEqual(containers);
      },
      240_000 + CUT_MS,
    );

    test("kubelet's own final delete goes through after the return", async () => {
      edge.world.cut();
      await edge.world.inCloud(["delete", "pod", "lone", "-n", NAMESPACE, "--wait=false"]);
      edge.world.heal();
      await until(
        "it is gone in the cloud",
        async () => !(await edge.cloudPods()).some(({ name }) => name === "lone"),
        60_000,
      );
    }, 90_000);
  },
);
