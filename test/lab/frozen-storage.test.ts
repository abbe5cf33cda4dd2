/**
 * A standing link is not a working control plane: etcd is stopped behind a
 * living API server. What a cut node may be answered, this node is answered; it
 * starts anew in the middle of it; and when etcd goes on, so does everybody.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { measured, NodeWorld, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { CONTAINERS, NAMESPACE } from "./workload.ts";

/** A person waits as long, and kubelet's own requests a good deal longer. */
const ANSWERED_MS = 5_000;
/** The API server's own, for a write that storage does not answer: no loop of kubelet's may have waited for it. */
const REQUEST_TIMEOUT_MS = 30_000;
const LABELLED = 'jsonpath={.metadata.name}:{.metadata.labels.after}{"\\n"}';

describe.skipIf(whyWithoutPodNetwork !== undefined)(titled("frozen storage", whyWithoutPodNetwork), () => {
  let edge: NodeWorld;
  beforeAll(async () => {
    edge = await NodeWorld.start();
  }, 240_000);
  afterAll(async () => await edge?.[Symbol.asyncDispose]());

  test("the node starts anew while etcd is stopped, and every watch goes on after it", async () => {
    const { world, node, holdfast } = edge;
    const token = await world.tokenFor("person", ["*"]);
    const person = world.proxyKubeconfig(holdfast.stateDir, { token });
    const ask = (line: string) => world.kubectl(line.split(" "), { kubeconfig: person });
    for (const line of [`get pods -n ${NAMESPACE}`, "get nodes", "get pods -A -o json"])
      expect((await ask(line)).stderr).toBe("");
    const follow = (resource: string) => {
      const process = world.startKubectl(["get", resource, "-A", "--watch", "-o", LABELLED], person);
      return { process, told: process.hear() };
    };
    const [pods, deployments] = [follow("pods"), follow("deployments")];
    await until(
      "the watches have told of all",
      () => pods.told().includes("lone:") && deployments.told().includes("web:"),
    );
    await edge.allReadyInCloud();
    // A list that went up is ahead of the copy until an event or a bookmark comes, and so long nothing is laid over what its watch has seen.
    await world.inCloud(["label", "pod/lone", "-n", NAMESPACE, "after=list"]);
    await until("the pods' watch stands where the copy does", () => pods.told().includes("lone:list"));
    const mark = world.audit.mark();

    const frozenMs = performance.now();
    {
      using _frozen = world.freezeStorage();
      await node.stopKubelet("SIGKILL");
      await node.reboot();
      edge.startKubelet();
      edge.startNetworkParts();
      await edge.allRunning();
      measured("frozen etcd: reboot to all containers", seconds(performance.now() - frozenMs));
      expect(performance.now() - frozenMs).toBeLessThan(REQUEST_TIMEOUT_MS);
      const asked = await ask(`get pods -n ${NAMESPACE}`);
      expect(asked.exitCode).toBe(0);
      expect(asked.tookMs).toBeLessThan(ANSWERED_MS);
      await until("kubelet's word of its pods is shown here", async () => {
        const { items } = JSON.parse((await ask("get pods -A -o json")).stdout) as {
          readonly items: readonly { readonly status: { readonly containerStatuses?: readonly { state: object }[] } }[];
        };
        return items.filter(({ status }) => status.containerStatuses?.every(({ state }) => "running" in state)).length;
      });
      expect(await edge.askHoldfast(["status"])).toContain("its storage has not");
    }

    const backMs = performance.now();
    measured("frozen etcd: thaw to kubelet's lease", seconds(await edge.heardInCloud(Date.now())));
    await edge.allReadyInCloud(CONTAINERS);
    measured("frozen etcd: thaw to all ready in the cloud", seconds(performance.now() - backMs));
    for (const what of ["pod/lone", "deployment/web"])
      await world.inCloud(["label", what, "-n", NAMESPACE, "--overwrite", "after=thaw"]);
    await until("a watch of what nobody wrote meanwhile goes on", () => deployments.told().includes("web:thaw"));
    // Over the pods lay what kubelet said of them: as after a cut, their watch ends with 410.
    await until("the pods' watch has ended", () => !pods.process.isRunning);
    // kubectl prints the ERROR event's Status by the same template, and ends.
    expect(pods.told()).toEndWith("\n:\n");
    // The person's lists went up, and a copy answered; nobody else lists.
    const lists = edge.fullReadsSince(mark).filter(({ userAgent }) => !userAgent.startsWith("kubectl/"));
    expect(lists.map(({ userAgent, uri }) => `${userAgent} ${uri}`)).toEqual([]);
    await deployments.process.stop();
  }, 300_000);
});
