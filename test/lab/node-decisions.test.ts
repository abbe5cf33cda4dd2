/**
 * More of what the cloud may decide while the link is cut: an image, a Secret,
 * a cordon, a taint, and that there is no such node any more.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { IMAGE, NEXT_IMAGE } from "./node-image.ts";
import { identities, measured, NodeWorld, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { NAMESPACE, SECRET_TEXT } from "./workload.ts";
import { NODE_NAME } from "./world.ts";

/** From the moment the link stands, retries and kubelet's work included. */
const SOON_MS = 10_000;
/** Containers by what runs in them. */
type Identities = Readonly<Record<string, string>>;

describe.skipIf(whyWithoutPodNetwork !== undefined)(
  titled("more decisions of the cloud while the link is cut", whyWithoutPodNetwork),
  () => {
    let edge: NodeWorld;
    beforeAll(async () => {
      edge = await NodeWorld.start();
    }, 240_000);
    afterAll(async () => await edge?.[Symbol.asyncDispose]());

    const running = async (): Promise<Identities> => identities(await edge.node.containers.running());
    const nodeField = async (path: string) =>
      await edge.world.inCloud(["get", "node", NODE_NAME, "-o", `jsonpath={${path}}`]);

    test("an image, a Secret and a cordon: one container is replaced, and nothing else", async () => {
      const { world, node } = edge;
      const before = await running();
      const tagged = await node.containers.ctr(["images", "tag", IMAGE, NEXT_IMAGE]);
      expect(tagged.stderr).toBe("");
      world.cut();
      await world.inCloud(["set", "image", "pod/lone", `app=${NEXT_IMAGE}`, "-n", NAMESPACE]);
      await world.inCloud([
        "patch",
        "secret",
        "password",
        "-n",
        NAMESPACE,
        "-p",
        '{"stringData":{"password":"turned"}}',
      ]);
      await world.inCloud(["cordon", NODE_NAME]);
      const configured = await edge.containerOf("configured");
      expect((await node.containers.exec(configured, ["cat", "/secret/password"])).stdout).toBe(SECRET_TEXT);

      const logFrom = node.log("kubelet").length;
      const healedMs = performance.now();
      world.heal();
      await until("kubelet has been told of the changed image", () =>
        node.log("kubelet").slice(logFrom).includes(`"SyncLoop UPDATE" source="api" pods=["${NAMESPACE}/lone"]`),
      );
      measured("link back until kubelet has been told of a change", seconds(performance.now() - healedMs));
      const after = await until("the changed image runs", async () => {
        const now = await running();
        return now["lone/app"] !== undefined && now["lone/app"] !== before["lone/app"] ? now : undefined;
      });
      const tookMs = performance.now() - healedMs;
      measured("link back until the changed image runs", seconds(tookMs));
      expect(tookMs).toBeLessThan(SOON_MS);
      expect(without(after, "lone/app")).toEqual(without(before, "lone/app"));
      await world.inCloud(["annotate", "pod", "configured", "-n", NAMESPACE, "look=again"]);
      await until(
        "the volume holds the new Secret",
        async () => (await node.containers.exec(configured, ["cat", "/secret/password"])).stdout === "turned",
      );
      await edge.allReadyInCloud();
      expect(await nodeField(".spec.unschedulable")).toBe("true");
      await world.inCloud(["uncordon", NODE_NAME]);
      expect(await running()).toEqual(after);
    });

    test("a NoExecute taint: what does not tolerate it goes, what does stays", async () => {
      const { world } = edge;
      const before = await running();
      world.cut();
      await world.inCloud(["taint", "node", NODE_NAME, "flood=yes:NoExecute"]);
      await until("the control plane has decided about the pods", async () =>
        (await edge.cloudPods()).some(({ name, isBeingDeleted }) => name === "lone" && isBeingDeleted),
      );
      expect(await running()).toEqual(before);

      const healedMs = performance.now();
      world.heal();
      const stays = Object.fromEntries(
        Object.entries(before).filter(([name]) => name.startsWith("agent-") || name.startsWith("manifest-")),
      );
      await until("the others have gone", async () => Bun.deepEquals(await running(), stays));
      measured("link back until a taint's pods have gone", seconds(performance.now() - healedMs));
      expect(performance.now() - healedMs).toBeLessThan(SOON_MS);
      await until("the cloud knows that they have gone", async () =>
        (await edge.cloudPods()).every(({ name, isBeingDeleted }) => name !== "lone" && !isBeingDeleted),
      );
      await world.inCloud(["taint", "node", NODE_NAME, "flood-"]);
      await until(
        "web is back",
        async () =>
          (await edge.cloudPods()).filter(({ name, isReady }) => name.startsWith("web-") && isReady).length === 2,
      );
    });

    test("no such node any more: kubelet registers anew, and the pods that the cloud still knows run on", async () => {
      const { world } = edge;
      const before = await running();
      const uid = await nodeField(".metadata.uid");
      world.cut();
      await world.inCloud(["delete", "node", NODE_NAME]);
      // Kubelet registers at its start and never again: what it is told now is all it will ask.
      const logFrom = edge.node.log("kubelet").length;
      await edge.restartKubelet();
      await until("kubelet was told that its node exists", () =>
        edge.node.log("kubelet").slice(logFrom).includes("Node was previously registered"),
      );
      world.heal();
      const healedMs = performance.now();
      await until(
        "the node is registered anew",
        async () => {
          const { items } = JSON.parse(await world.inCloud(["get", "nodes", "-o", "json"])) as {
            readonly items: readonly { readonly metadata: { readonly uid: string } }[];
          };
          return items.length === 1 && items[0]!.metadata.uid !== uid;
        },
        60_000,
      );
      measured("link back until a deleted node is registered anew", seconds(performance.now() - healedMs));
      await until("the node is ready", async () => (await nodeField(READY)) === "True");
      const now = await running();
      const kept = Object.keys(before).filter((name) => now[name] === before[name]);
      expect(kept.toSorted()).toEqual(Object.keys(before).toSorted());
      // What is served is the new node, and no copy of the old one.
      const served = await world.kubectl(["get", "node", NODE_NAME, "-o", "jsonpath={.metadata.uid}"], {
        kubeconfig: edge.kubeletKubeconfig,
      });
      expect(served.stdout).toBe(await nodeField(".metadata.uid"));
    });
  },
);

const READY = '.status.conditions[?(@.type=="Ready")].status';

function without(of: Identities, name: string): Identities {
  return Object.fromEntries(Object.entries(of).filter(([key]) => key !== name));
}
