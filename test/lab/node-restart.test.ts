/**
 * Kubelet or Holdfast ends while the link is cut, and starts again. The machine
 * stays up, so nobody may notice: not the containers, not the cloud.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { identities, measured, NodeWorld, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { ReadyWatch } from "./ready-watch.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { idlePod, NAMESPACE } from "./workload.ts";

const STAYING = ["web-", "agent-", "db-0", "configured", "client", "lone"];
/** A kubelet that has started reports once before its probes ran, and again with the next status: 10 s at most. */
const KUBELETS_OWN_MS = 12_000;
/** How long a container is watched for a restart that must not come. */
const QUIET_MS = 3_000;

interface Case {
  readonly title: string;
  readonly happens: (edge: NodeWorld) => Promise<void>;
  readonly restartsKubelet: boolean;
}

const CASES: readonly Case[] = [
  {
    title: "kubelet restarted",
    happens: async (edge) => await edge.restartKubelet(),
    restartsKubelet: true,
  },
  {
    title: "Holdfast restarted",
    happens: async (edge) => await edge.restartHoldfast(),
    restartsKubelet: false,
  },
  {
    title: "kubelet and Holdfast killed, kubelet back first",
    happens: async (edge) => {
      await edge.node.stopKubelet("SIGKILL");
      await edge.holdfast.stop("SIGKILL");
      edge.startKubelet();
      await edge.startHoldfast();
    },
    restartsKubelet: true,
  },
];

describe.skipIf(whyWithoutPodNetwork !== undefined)(
  titled("restarts while the link is cut", whyWithoutPodNetwork),
  () => {
    let edge: NodeWorld;
    beforeAll(async () => {
      const startedMs = performance.now();
      edge = await NodeWorld.start();
      measured("a whole edge, from nothing to ready", seconds(performance.now() - startedMs));
    }, 240_000);
    afterAll(async () => await edge?.[Symbol.asyncDispose]());

    test.each(CASES)("$title: the same containers run on, and the cloud sees no change", async (scenario) => {
      const before = await calm(edge);
      await using ready = ReadyWatch.start(edge.world);

      edge.world.cut();
      const logFrom = edge.node.log("kubelet").length;
      const [restartedMs, restartedAt] = [performance.now(), Date.now()];
      await scenario.happens(edge);
      if (scenario.restartsKubelet) {
        await edge.kubeletKnows(logFrom, before.staying);
        measured(`${scenario.title}: until kubelet knew its pods`, seconds(performance.now() - restartedMs));
        await edge.kubeletSaysReady(restartedAt);
      }
      await Bun.sleep(QUIET_MS);
      expect(identities(await edge.node.containers.running())).toEqual(before.identities);

      await expectSilentReturn(edge, before, ready, scenario.title);
    });

    test("Holdfast killed in the middle of churn, kubelet restarted while cut: nothing is lost or restarted", async () => {
      const before = await calm(edge);
      await using ready = ReadyWatch.start(edge.world);
      const churn = startChurn(edge);
      await until("churn reaches the node", () => churn.count() > 5);

      await edge.holdfast.stop("SIGKILL");
      await edge.startHoldfast();
      await until("churn goes on", () => churn.count() > 12);
      await edge.holdfast.stop("SIGKILL");
      await churn.stop();
      await edge.startHoldfast();
      await until("churn is over", async () => !(await edge.cloudPods()).some((pod) => pod.name.startsWith("churn-")));
      await edge.allRunning(Object.keys(before.identities).length);
      edge.world.cut();
      const logFrom = edge.node.log("kubelet").length;
      await edge.restartKubelet("SIGKILL");
      await edge.kubeletKnows(logFrom, before.staying);
      await Bun.sleep(QUIET_MS);

      expect(identities(await edge.node.containers.running())).toEqual(before.identities);
      await expectSilentReturn(edge, before, ready, "Holdfast killed in churn");
    });

    test("after etcd's compaction, a return costs one list for each scope at most", async () => {
      const before = await calm(edge);
      edge.world.cut();
      for (let round = 0; round < 20; round += 1)
        await edge.world.inCloud(["annotate", "--overwrite", "pod", "lone", "-n", NAMESPACE, `round=${round}`]);
      await edge.world.restartApiServer();
      await edge.world.compact();

      const healedMs = Date.now();
      edge.world.heal();
      await edge.heardInCloud(healedMs);
      await edge.allReadyInCloud();
      await Bun.sleep(QUIET_MS);

      const lists = edge
        .fullReadsSince(before.mark)
        .map(
          (request) =>
            `${request.user} ${request.uri.replace(/[?&](limit|resourceVersion|timeoutSeconds|resourceVersionMatch|continue)=[^&]*/g, "")}`,
        );
      measured("lists after compaction", `${lists.length}`);
      expect(lists).not.toBeEmpty();
      expect(lists.filter((list, index) => lists.indexOf(list) !== index)).toEqual([]);
      expect(identities(await edge.node.containers.running())).toEqual(before.identities);
    });
  },
);

interface Before {
  readonly identities: Record<string, string>;
  /** Pods that kubelet is told of by the API, with their whole names. */
  readonly staying: readonly string[];
  /** All that the cloud holds for ready. */
  readonly ready: readonly string[];
  readonly mark: number;
}

/** The state to compare with, once the cloud agrees that all is well. */
async function calm(edge: NodeWorld): Promise<Before> {
  const pods = await edge.allReadyInCloud();
  return {
    identities: identities(await edge.node.containers.running()),
    ready: pods.map((pod) => pod.name),
    staying: pods.map((pod) => pod.name).filter((name) => STAYING.some((prefix) => name.startsWith(prefix))),
    mark: edge.world.audit.mark(),
  };
}

/** The link comes back: no list, no container touched, and no pod leaves Ready longer than kubelet takes. */
async function expectSilentReturn(edge: NodeWorld, before: Before, ready: ReadyWatch, title: string): Promise<void> {
  const healedMs = Date.now();
  edge.world.heal();
  measured("link back until kubelet's lease is renewed", seconds(await edge.heardInCloud(healedMs)));
  await Bun.sleep(QUIET_MS);
  await edge.allReadyInCloud();
  for (const [pod, unreadyMs] of Object.entries(ready.unreadyMs(before.ready))) {
    measured(`${title}: ${pod} not Ready in the cloud`, seconds(unreadyMs));
    expect(unreadyMs, pod).toBeLessThan(KUBELETS_OWN_MS);
  }
  expect(identities(await edge.node.containers.running())).toEqual(before.identities);
  expect(edge.fullReadsSince(before.mark).map((request) => `${request.userAgent} ${request.uri}`)).toEqual([]);
}

/** Pods come and go in the cloud as fast as it takes them. */
function startChurn(edge: NodeWorld): { count: () => number; stop: () => Promise<void> } {
  let count = 0;
  let isStopped = false;
  const ended = (async () => {
    while (!isStopped) {
      const name = `churn-${count}`;
      await edge.world.apply(idlePod(name));
      await edge.world.inCloud(["label", "pod", name, "-n", NAMESPACE, "round=two"]);
      await edge.world.inCloud(["delete", "pod", name, "-n", NAMESPACE, "--wait=false"]);
      count += 1;
    }
  })();
  return {
    count: () => count,
    stop: async () => {
      isStopped = true;
      await ended;
    },
  };
}
