/**
 * What the cloud decided while the link was cut happens at its return: that,
 * soon, and nothing else.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { identities, measured, NodeWorld, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { CONTAINERS, idlePod, NAMESPACE } from "./workload.ts";

/** From the moment the link stands, retries and kubelet's work included. */
const SOON_MS = 10_000;

describe.skipIf(whyWithoutPodNetwork !== undefined)(
  titled("decisions of the cloud while the link is cut", whyWithoutPodNetwork),
  () => {
    let edge: NodeWorld;
    beforeAll(async () => {
      edge = await NodeWorld.start();
      await edge.world.apply(idlePod("twin"));
      await edge.allReadyInCloud(CONTAINERS + 1);
    }, 240_000);
    afterAll(async () => await edge?.[Symbol.asyncDispose]());

    test("a delete, a recreation under the same name, a scale-up and a changed ConfigMap: exactly these", async () => {
      const before = identities(await edge.node.containers.running());
      const { world } = edge;
      const inShop = async (...args: string[]) => await world.inCloud([...args, "-n", NAMESPACE]);
      world.cut();
      await inShop("delete", "pod", "lone", "--wait=false");
      await inShop("delete", "pod", "twin", "--force", "--grace-period=0");
      await world.apply(idlePod("twin"));
      await inShop("scale", "deployment", "web", "--replicas=3");
      await inShop("patch", "configmap", "settings", "-p", '{"data":{"GREETING":"goodbye"}}');
      expect(identities(await edge.node.containers.running())).toEqual(before);

      const healedMs = performance.now();
      world.heal();
      const after = await until(
        "all of it has happened",
        async () => {
          const running = identities(await edge.node.containers.running());
          const added = Object.keys(running).filter((name) => before[name] === undefined);
          const isDone = running["lone/app"] === undefined && running["twin/app"] !== undefined && added.length === 1;
          return isDone && running["twin/app"] !== before["twin/app"] ? running : undefined;
        },
        60_000,
      );
      const tookMs = performance.now() - healedMs;
      measured("link back until the cloud's decisions have happened", seconds(tookMs));
      expect(tookMs).toBeLessThan(SOON_MS);
      await until("the cloud agrees", async () => {
        const pods = await edge.cloudPods();
        return (
          !pods.some((pod) => pod.name === "lone") &&
          pods.filter((pod) => pod.name.startsWith("web-") && pod.isReady).length === 3
        );
      });

      const untouched = Object.entries(before).filter(([name]) => !["lone/app", "twin/app"].includes(name));
      expect(Object.entries(after).filter(([name]) => before[name] !== undefined && name !== "twin/app")).toEqual(
        untouched,
      );
      expect(identities(await edge.node.containers.running())).toEqual(after);
    });

    test("the changed ConfigMap is in its volume", async () => {
      const startedMs = performance.now();
      // Kubelet looks at a volume once a minute, and whenever its pod changes.
      await edge.world.inCloud(["annotate", "pod", "configured", "-n", NAMESPACE, "look=again"]);
      const configured = await edge.containerOf("configured");
      await until(
        "the volume holds the new text",
        async () => (await edge.node.containers.exec(configured, ["cat", "/settings/GREETING"])).stdout === "goodbye",
      );
      measured("a changed ConfigMap to its volume, after the return", seconds(performance.now() - startedMs));
    });
  },
);
