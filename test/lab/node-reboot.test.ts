/**
 * The machine loses power while the link is cut, and comes back without it:
 * the case that Holdfast is for. Steps of one story, in order.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Container } from "./containers.ts";
import { identities, measured, NodeWorld, seconds } from "./node-world.ts";
import { type LabProcess, until } from "./processes.ts";
import { ReadyWatch } from "./ready-watch.ts";
import { titled, whyWithoutPodNetwork } from "./requirements.ts";
import { CONTAINERS, GREETING, NAMESPACE, SECRET_TEXT } from "./workload.ts";

const TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/** The very list that kubelet follows. */
const KUBELETS_PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge1";

describe.skipIf(whyWithoutPodNetwork !== undefined)(
  titled("a reboot while the link is cut", whyWithoutPodNetwork),
  () => {
    let edge: NodeWorld;
    let rebooted: readonly Container[] = [];
    let mark = 0;
    let cutMs = 0;
    let ready: ReadyWatch | undefined;
    beforeAll(async () => {
      edge = await NodeWorld.start();
    }, 240_000);
    afterAll(async () => {
      await ready?.[Symbol.asyncDispose]();
      await edge?.[Symbol.asyncDispose]();
    });

    test("a pod's own client lists and watches through Holdfast while the link stands", async () => {
      const kubeconfig = await clientKubeconfig(edge);
      const listed = await edge.world.kubectl(["get", "pods", "-n", NAMESPACE, "-o", "name"], { kubeconfig });
      expect(listed.stdout).toContain("pod/lone");
      const watching = edge.world.startKubectl(["get", "pods", "-n", NAMESPACE, "-w", "-o", "name"], kubeconfig);
      await until("the watch shows the pods", heard(watching, "pod/lone"));
      await watching.stop();
    });

    test("a Service is reached by its DNS name from a pod while the link stands", async () => {
      expect(await answersOfWeb(edge)).toHaveLength(2);
    });

    test("a Job that ends while the link is cut has ended", async () => {
      mark = edge.world.audit.mark();
      ready = ReadyWatch.start(edge.world);
      cutMs = performance.now();
      edge.world.cut();
      edge.finishLaterJob();
      const kubeconfig = edge.kubeletKubeconfig;
      await until("its pod has succeeded, as the node's own clients see it", async () => {
        const pods = await edge.world.kubectl(["get", "--raw", KUBELETS_PODS], { kubeconfig });
        return (JSON.parse(pods.stdout) as PodList).items.some(
          (pod) => pod.metadata.name.startsWith("later") && pod.status.phase === "Succeeded",
        );
      });
    });

    test(`${CONTAINERS} of ${CONTAINERS} containers come back, and no Job runs again`, async () => {
      const before = (await edge.allRunning()).map(({ pod }) => pod);
      await edge.holdfast.stop("SIGKILL");
      await edge.node.reboot({ forgetContainers: true });
      expect(await edge.node.containers.running()).toEqual([]);
      await edge.startHoldfast();
      const startedMs = Date.now();
      edge.startKubelet();
      edge.startNetworkParts();

      rebooted = await edge.allRunning();

      measured("reboot while cut, kubelet's start to the last container", seconds(lastStartMs(rebooted) - startedMs));
      expect(rebooted.map(({ pod }) => pod)).toEqual(before);
      expect([edge.runsOf("once"), edge.runsOf("later")]).toEqual([1, 1]);
    });

    test("a container that crashes is started again, with its configuration, Secret and token", async () => {
      const crashed = await edge.containerOf("configured");
      process.kill(crashed.pid, "SIGKILL");
      const killedMs = Date.now();

      const again = await until("another container of the pod runs", async () =>
        (await edge.node.containers.running()).find(({ pod, id }) => pod === crashed.pod && id !== crashed.id),
      );

      measured("crash while cut, to the container's restart", seconds(again.startedAtMs - killedMs));
      const within = async (command: string) =>
        (await edge.node.containers.exec(again, ["sh", "-c", command])).stdout.trim();
      expect(await within("echo $GREETING")).toBe(GREETING);
      expect(await within("cat /secret/password")).toBe(SECRET_TEXT);
      expect(await within("cat /settings/GREETING")).toBe(GREETING);
      const [, claims = ""] = (await within("cat /token/token")).split(".");
      expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({ aud: ["vault"] });
      rebooted = await edge.allRunning();
    });

    test("a Service is reached by its DNS name from a pod, at the pods' new addresses", async () => {
      const startedMs = performance.now();
      const answered = await answersOfWeb(edge);
      measured(
        "reboot while cut, until a Service's name reached both replicas",
        seconds(performance.now() - startedMs),
      );
      expect(answered).toEqual(rebooted.map(({ pod }) => pod).filter((pod) => pod.startsWith("web-")));
    });

    test("a pod's own client lists and watches through Holdfast while the link is cut", async () => {
      const kubeconfig = await clientKubeconfig(edge);
      const listed = await edge.world.kubectl(["get", "pods", "-n", NAMESPACE, "-o", "name"], { kubeconfig });
      expect(listed.stdout).toContain("pod/lone");
      const watching = edge.world.startKubectl(["get", "pods", "-n", NAMESPACE, "-w", "-o", "name"], kubeconfig);
      await until("the watch shows the pods", heard(watching, "pod/lone"));
      await watching.stop();
    });

    test("the link returns: nothing is listed, nothing restarted, and the cloud learns the truth", async () => {
      const uids = (await edge.cloudPods()).map((pod) => pod.uid).toSorted();
      const healedMs = Date.now();
      edge.world.heal();
      measured(
        "link back after the reboot, until kubelet's lease is renewed",
        seconds(await edge.heardInCloud(healedMs)),
      );
      await edge.allReadyInCloud();
      await until("the cloud knows that the Job has ended", async () =>
        (await edge.cloudPods()).some((pod) => pod.name.startsWith("later") && pod.phase === "Succeeded"),
      );
      measured("link back after the reboot, until the cloud agrees", seconds(Date.now() - healedMs));
      await Bun.sleep(3_000);

      expect(identities(await edge.node.containers.running())).toEqual(identities(rebooted));
      expect((await edge.cloudPods()).map((pod) => pod.uid).toSorted()).toEqual(uids);
      const downMs = performance.now() - cutMs;
      for (const [pod, unreadyMs] of Object.entries(
        ready?.unreadyMs(rebooted.map((container) => container.pod)) ?? {},
      )) {
        measured(`reboot while cut for ${seconds(downMs)}: ${pod} not Ready in the cloud`, seconds(unreadyMs));
        expect(unreadyMs, pod).toBeLessThan(downMs);
      }
      expect([edge.runsOf("once"), edge.runsOf("later")]).toEqual([1, 1]);
      expect(await answersOfWeb(edge)).toHaveLength(2);
      // Slices were edited while cut: theirs is the one copy that is fetched anew.
      const lists = edge.fullReadsSince(mark).filter((request) => request.resource !== "endpointslices");
      expect(lists.map((request) => `${request.userAgent} ${request.uri}`)).toEqual([]);
    });

    test("for comparison: a reboot online, without Holdfast", async () => {
      await edge.holdfast.stop();
      await edge.node.reboot({ forgetContainers: true });
      const startedMs = Date.now();
      edge.node.startKubelet(edge.world.nodeKubeconfig);
      const direct = await edge.allRunning();
      measured(
        "reboot online without Holdfast, kubelet's start to the last container",
        seconds(lastStartMs(direct) - startedMs),
      );
    });
  },
);

interface PodList {
  readonly items: readonly { metadata: { name: string }; status: { phase: string } }[];
}

function lastStartMs(containers: readonly Container[]): number {
  return Math.max(...containers.map((container) => container.startedAtMs));
}

/** Asks the Service from a pod until both replicas have answered; their names, in order. */
async function answersOfWeb(edge: NodeWorld): Promise<string[]> {
  const from = await edge.containerOf("configured");
  // Not wget: the static one of Debian dies of a lookup in /etc/services.
  const ask = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 web.${NAMESPACE}.svc.cluster.local 80`;
  const answered = new Set<string>();
  await until("both replicas have answered", async () => {
    const got = await edge.node.containers.exec(from, ["sh", "-c", ask]);
    if (got.exitCode !== 0) throw new Error(got.stderr);
    return answered.add(got.stdout.trim().split("\n").at(-1) ?? "").size === 2;
  });
  return [...answered].toSorted();
}

/** A kubeconfig with the token that kubelet has mounted into the pod `client`. */
async function clientKubeconfig(edge: NodeWorld): Promise<string> {
  const token = await edge.node.containers.exec(await edge.containerOf("client"), ["cat", TOKEN_PATH]);
  return edge.world.proxyKubeconfig(edge.holdfast.stateDir, { token: token.stdout.trim() });
}

/** The function returned tells whether a text has come. */
function heard(from: LabProcess, text: string): () => boolean {
  const all = from.hear();
  return () => all().includes(text);
}
