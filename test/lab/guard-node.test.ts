/**
 * A stock kubelet behind Holdfast, cut for longer than the control plane's
 * patience, under each line of the guard: policies with no guard anywhere, both,
 * the webhook alone, and guards that are down. The guards run as users run them:
 * the rendered Deployment, from the built image, on a real node of the cloud.
 *
 * With --long every cut lasts ten minutes.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildImage } from "../../scripts/build-image.ts";
import { HollowNodes } from "./hollow-nodes.ts";
import { LabNode } from "./node.ts";
import { identities, isLong, measured, NodeWorld, seconds } from "./node-world.ts";
import { runProcess, until } from "./processes.ts";
import { holdfastPath, titled, whyWithoutPodNetwork } from "./requirements.ts";
import { NAMESPACE } from "./workload.ts";
import { CLOUD_NODE_NAME, LOOPBACK_URL, NODE_NAME } from "./world.ts";

/** Kubelet renews its lease every 10 s. */
const GRACE_SECONDS = 30;
const CUT_MS = isLong ? 600_000 : 0;
const TOLERATION = "2";
const GUARDS = "holdfast-system";
const why = whyWithoutPodNetwork ?? (Bun.which("dpkg-query") === null ? "dpkg-query is not installed" : undefined);

interface Line {
  readonly title: string;
  /** The node's Ready becomes Unknown, and it is tainted: what is held is held by the webhook. */
  readonly isTainted: boolean;
  readonly prepare: () => Promise<void>;
}

describe.skipIf(why !== undefined)(titled("a stock kubelet, cut beyond the control plane's patience", why), () => {
  let edge: NodeWorld;
  let hollow: HollowNodes;
  let cloudNode: LabNode | undefined;
  beforeAll(async () => {
    edge = await NodeWorld.start({
      apiServerArguments: [
        `--default-unreachable-toleration-seconds=${TOLERATION}`,
        `--default-not-ready-toleration-seconds=${TOLERATION}`,
        // The webhook's Service is resolved to its endpoints, as by the proxy beside a real API server.
        "--enable-aggregator-routing=true",
      ],
      controllerManagerArguments: [`--node-monitor-grace-period=${GRACE_SECONDS}s`, "--node-monitor-period=1s"],
    });
    const { world } = edge;
    await applyManifests("--policies-only");
    await world.inCloud(["label", "node", NODE_NAME, "node-restriction.kubernetes.io/holdfast=hold"]);
    // The yardstick: a node that nobody holds, with one pod.
    hollow = HollowNodes.start(world);
    await hollow.add(["plain"]);
    // Only the yardstick, which names its node, runs there.
    await world.inCloud(["cordon", "plain"]);
    await world.createNamespace("yard");
  }, 290_000);
  afterAll(async () => {
    await cloudNode?.[Symbol.asyncDispose]();
    await edge?.[Symbol.asyncDispose]();
  });

  const inCloud = async (...args: string[]) => await edge.world.inCloud(args);

  async function applyManifests(...args: string[]): Promise<void> {
    const { stdout } = await runProcess([holdfastPath, "manifests", ...args]);
    await edge.world.inCloud(["apply", "-f", "-"], stdout);
    const patch = JSON.stringify({ data: { silentAfter: "20s" } });
    await inCloud("patch", "configmap", "holdfast-guard", "-n", GUARDS, "--type=merge", "-p", patch);
  }

  /** A node of the cloud that has the image, and on it what the manifests say. */
  async function startGuards(): Promise<void> {
    const { world } = edge;
    cloudNode = await LabNode.start(world, {
      place: "cloud",
      podNetwork: "bridge",
      kubeconfig: world.kubeconfig(LOOPBACK_URL, world.certificateOf("cloud-node")),
    });
    const token = await world.tokenFor("kube-proxy", ["get", "list", "watch", "create", "patch"]);
    cloudNode.startKubeProxy(world.kubeconfig(LOOPBACK_URL, { token }));
    const binaries = join(world.directory, "image");
    mkdirSync(binaries);
    copyFileSync(holdfastPath, join(binaries, `holdfast-linux-${process.arch}`));
    const image = buildImage({ binaries, only: process.arch === "x64" ? "amd64" : "arm64" });
    writeFileSync(join(binaries, "image.tar"), image.bytes);
    await cloudNode.importImage(join(binaries, "image.tar"));
    await applyManifests();
    await inCloud("rollout", "status", "deployment/holdfast-guard", "-n", GUARDS, "--timeout=120s");
    const on = await inCloud("get", "pods", "-n", GUARDS, "-o", "jsonpath={.items[*].spec.nodeName}");
    expect(on).toBe(`${CLOUD_NODE_NAME} ${CLOUD_NODE_NAME}`);
    await until("the API server knows their CA", async () =>
      (
        await inCloud(
          "get",
          "validatingwebhookconfiguration",
          "holdfast-guard",
          "-o",
          "jsonpath={.webhooks[*].clientConfig.caBundle}",
        )
      ).includes("LS0t"),
    );
  }

  /** Sum of all guards' series that hold this text. */
  async function counted(text: string): Promise<number> {
    const addresses = await inCloud("get", "pods", "-n", GUARDS, "-o", "jsonpath={.items[*].status.podIP}");
    let sum = 0;
    for (const address of addresses.split(" ").filter((one) => one !== ""))
      for (const line of (await edge.world.fetchInCloud(`http://${address}:10444/metrics`)).split("\n"))
        if (line.includes(text)) sum += Number(line.split(" ").at(-1));
    return sum;
  }

  const stick = async () =>
    await inCloud("get", "pod", "stick", "-n", "yard", "-o", "jsonpath={.status.phase} {.metadata.deletionTimestamp}");
  async function plantStick(): Promise<void> {
    await inCloud("delete", "pod", "stick", "-n", "yard", "--ignore-not-found", "--grace-period=0", "--force");
    await until("the yardstick's node is well", async () => {
      return (await evictingTaints("plain")) === "";
    });
    await edge.world.apply({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "stick", namespace: "yard" },
      spec: { nodeName: "plain", containers: [{ name: "app", image: "none" }] },
    });
    await until("the yardstick runs", async () => (await stick()).includes("Running"));
  }

  /** Those of the real node: the DaemonSet has pods elsewhere too. */
  const pods = async () => {
    const own = new Set((await edge.node.containers.running()).map(({ pod }) => pod));
    return (await edge.cloudPods())
      .filter(({ name, phase }) => phase === "Running" && own.has(name))
      .map(({ name, uid, isReady, isBeingDeleted }) => ({ name, uid, isReady, isBeingDeleted }))
      .toSorted((x, y) => x.name.localeCompare(y.name));
  };
  const ready = async () =>
    await inCloud(
      ...["get", "endpointslices", "-n", NAMESPACE, "-l", "kubernetes.io/service-name=web"],
      ...["-o", "jsonpath={.items[*].endpoints[*].conditions.ready}"],
    );
  const taints = async () => await inCloud("get", "node", NODE_NAME, "-o", "jsonpath={.spec.taints[*].key}");
  const evictingTaints = async (node: string) =>
    await inCloud("get", "node", node, "-o", 'jsonpath={.spec.taints[?(@.effect=="NoExecute")].key}');

  const LINES: readonly Line[] = [
    { title: "policies alone, no guard anywhere", isTainted: false, prepare: async () => {} },
    {
      title: "policies and webhook, guards as real pods",
      isTainted: false,
      prepare: startGuards,
    },
    {
      title: "the webhook alone",
      isTainted: true,
      prepare: async () => {
        for (const name of ["holdfast-node-ready", "holdfast-node-taints", "holdfast-node-deletion"])
          await inCloud("delete", "validatingadmissionpolicybinding", name);
      },
    },
    {
      title: "policies, and guards that are down",
      isTainted: false,
      prepare: async () => {
        await applyManifests();
        await inCloud("scale", "deployment/holdfast-guard", "-n", GUARDS, "--replicas=0");
        await until(
          "no guard is left",
          async () => (await inCloud("get", "pods", "-n", GUARDS, "-o", "name")) === "",
          90_000,
        );
      },
    },
  ];

  for (const { title, isTainted, prepare } of LINES)
    test(
      `${title}: nothing is evicted, marked or withdrawn; the same containers run before, during and after`,
      async () => {
        await prepare();
        await plantStick();
        const [containers, before, endpoints] = [
          identities(await edge.node.containers.running()),
          await pods(),
          await ready(),
        ];
        const cutMs = performance.now();
        edge.world.cut();
        await hollow.silence("plain");
        await until("the yardstick's node is given up", async () => (await evictingTaints("plain")) !== "", 120_000);
        // Also while the guards are down: nobody holds it.
        await until("the yardstick is evicted", async () => (await stick()).trim().includes(" "), 30_000);
        if (isTainted) {
          await until("the node is tainted", async () => (await evictingTaints(NODE_NAME)) !== "", 60_000);
          await until("the webhook has refused", async () => (await counted('verdict="denied"')) > 0, 60_000);
        }
        await Bun.sleep(Math.max(0, CUT_MS - (performance.now() - cutMs)));
        measured(`a stock kubelet's cut, ${title}`, seconds(performance.now() - cutMs));
        expect(await pods()).toEqual(before);
        expect(await ready()).toBe(endpoints);
        expect((await evictingTaints(NODE_NAME)) !== "").toBe(isTainted);
        expect(identities(await edge.node.containers.running())).toEqual(containers);

        const backMs = Date.now();
        await hollow.hear("plain");
        edge.world.heal();
        await edge.heardInCloud(backMs);
        await until("no taint is left", async () => (await taints()) === "", 60_000);
        const marked = `jsonpath={.items[*].status.conditions[?(@.type=="DisruptionTarget")].status}`;
        await until(
          "no pod is marked",
          async () => !(await inCloud("get", "pods", "-n", NAMESPACE, "-o", marked)).includes("True"),
          60_000,
        );
        expect(await pods()).toEqual(before);
        expect(identities(await edge.node.containers.running())).toEqual(containers);
      },
      360_000 + CUT_MS,
    );

  test("kubelet's own final delete goes through after the return", async () => {
    edge.world.cut();
    await inCloud("delete", "pod", "lone", "-n", NAMESPACE, "--wait=false");
    edge.world.heal();
    await until(
      "it is gone in the cloud",
      async () => !(await edge.cloudPods()).some(({ name }) => name === "lone"),
      60_000,
    );
  }, 90_000);
});
