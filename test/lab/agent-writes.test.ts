/**
 * What a CNI plugin writes while cut, before a real API server: its validation,
 * its RBAC, its tokens bound to pods, its managed fields.
 *
 * Two accounts with the rules of their projects' own manifests: one may update
 * pods and their status and not patch (Multus), one may patch the status
 * (Calico). Both write by kubectl; what their plugins send byte for byte is
 * test/node/agent-writes.test.ts's.
 */
import { describe, expect, test } from "bun:test";
import { until } from "./processes.ts";
import { titled, whyWithoutHoldfast } from "./requirements.ts";
import { type Holdfast, NODE_NAME, startWorld, type World } from "./world.ts";

const NAMESPACE = "shop";
const MULTUS = "k8s.v1.cni.cncf.io/network-status";
const CALICO = "cni.projectcalico.org/podIP";
const SYSTEM = "kube-system";

const pod = (name: string, namespace: string, account: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace },
  spec: {
    nodeName: NODE_NAME,
    serviceAccountName: account,
    automountServiceAccountToken: false,
    containers: [{ name: "app", image: "app" }],
  },
});

/** An account, its rules, and the pod of its DaemonSet on this node. */
const agent = (name: string, verbs: readonly string[], resources: readonly string[]) => [
  { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace: SYSTEM } },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata: { name },
    rules: [
      { apiGroups: [""], resources: ["pods", "pods/status"], verbs: ["get", "list", "watch"] },
      { apiGroups: [""], resources, verbs },
    ],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
    subjects: [{ kind: "ServiceAccount", name, namespace: SYSTEM }],
  },
  pod(`${name}-x`, SYSTEM, name),
];

describe.skipIf(whyWithoutHoldfast !== undefined)(
  titled("node agents that write while cut", whyWithoutHoldfast),
  () => {
    test("their annotations are answered, outlive a power cut, and go up once by the right that they have", async () => {
      await using desk = await Desk.start();
      const { world } = desk;
      await desk.patch("online");
      await desk.put("online");

      world.cut();
      await until("Holdfast answers the patch", async () => (await desk.patch("cut")).exitCode === 0);
      expect(await desk.put("cut")).toMatchObject({ exitCode: 0 });
      expect(await desk.annotations()).toMatchObject({ [CALICO]: "cut", [MULTUS]: "cut" });
      await desk.powerCut();
      expect(await desk.annotations()).toMatchObject({ [CALICO]: "cut", [MULTUS]: "cut" });
      expect(await desk.patch("booted")).toMatchObject({ exitCode: 0 });
      expect(await desk.put("booted")).toMatchObject({ exitCode: 0 });
      // Neither has ever been allowed the other's verb, and nobody anything else.
      const wrong = [
        "patch",
        "pod",
        "web-0",
        "-n",
        NAMESPACE,
        "--subresource=status",
        "-p",
        '{"status":{"phase":"Failed"}}',
      ];
      expect((await world.kubectl(wrong, { kubeconfig: desk.calico })).stderr).toContain("ServiceUnavailable");
      expect((await world.kubectl(wrong, { kubeconfig: desk.multus })).stderr).toContain("ServiceUnavailable");

      world.heal();
      await until("both have gone up", async () => {
        const { annotations } = (await desk.stored()).metadata;
        return annotations?.[CALICO] === "booted" && annotations[MULTUS] === "booted";
      });
      const { metadata } = await desk.stored();
      const ours = metadata.managedFields.filter(({ manager }: { manager: string }) => manager === "holdfast");
      expect(ours).toEqual([expect.objectContaining({ operation: "Update", subresource: "status" })]);
      world.cut();
      await until("the cut is noticed", async () => (await desk.patch("booted")).exitCode === 0);
      world.heal();
      await until(
        "the link is back",
        async () => (await world.kubectl(["get", "--raw=/healthz"], { kubeconfig: desk.node })).stdout === "ok",
      );
      expect((await desk.stored()).metadata.resourceVersion).toBe(metadata.resourceVersion);
    }, 180_000);
  },
);

/** The world with a node's reader and both agents behind Holdfast. */
class Desk implements AsyncDisposable {
  private constructor(
    readonly world: World,
    private holdfast: Holdfast,
    readonly node: string,
    readonly calico: string,
    readonly multus: string,
  ) {}

  static async start(): Promise<Desk> {
    const world = await startWorld();
    try {
      await world.createNamespace(NAMESPACE);
      await world.apply(
        { apiVersion: "v1", kind: "Node", metadata: { name: NODE_NAME } },
        pod("web-0", NAMESPACE, "default"),
        ...agent("calico-node", ["patch"], ["pods/status"]),
        ...agent("multus", ["update"], ["pods", "pods/status"]),
      );
      const holdfast = await world.startHoldfast();
      const by = async (name: string) => {
        const uid = await world.inCloud(["get", "pod", `${name}-x`, "-n", SYSTEM, "-o", "jsonpath={.metadata.uid}"]);
        const bound = ["--bound-object-kind=Pod", `--bound-object-name=${name}-x`, `--bound-object-uid=${uid.trim()}`];
        const token = await world.inCloud(["create", "token", name, "-n", SYSTEM, "--duration=24h", ...bound]);
        return world.proxyKubeconfig(holdfast.stateDir, { token: token.trim() });
      };
      const node = world.proxyKubeconfig(holdfast.stateDir, world.certificateOf("node"));
      const desk = new Desk(world, holdfast, node, await by("calico-node"), await by("multus"));
      const list = ["get", "pods", "-A", `--field-selector=spec.nodeName=${NODE_NAME}`, "-o", "json"];
      expect((await world.kubectl(list, { kubeconfig: node })).stderr).toBe("");
      return desk;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** As Calico: a strategic merge patch of the status, with an annotation. */
  patch(value: string) {
    const body = JSON.stringify({ metadata: { annotations: { [CALICO]: value } } });
    const args = ["patch", "pod", "web-0", "-n", NAMESPACE, "--subresource=status", "--type=strategic", "-p", body];
    return this.world.kubectl(args, { kubeconfig: this.calico });
  }

  /** As Multus: the pod as it reads, with an annotation more, as a whole. */
  async put(value: string) {
    const read = await this.world.kubectl(["get", "pod", "web-0", "-n", NAMESPACE, "-o", "json"], {
      kubeconfig: this.multus,
    });
    expect([read.exitCode, read.stderr]).toEqual([0, expect.any(String)]);
    const object = JSON.parse(read.stdout);
    const annotations = { ...object.metadata.annotations, [MULTUS]: value };
    const input = JSON.stringify({ ...object, metadata: { ...object.metadata, annotations } });
    return await this.world.kubectl(["replace", "--subresource=status", "-f", "-"], { kubeconfig: this.multus, input });
  }

  /** As the node itself reads them. */
  async annotations(): Promise<unknown> {
    const list = ["get", "pods", "-A", `--field-selector=spec.nodeName=${NODE_NAME}`, "-o", "json"];
    const { stdout } = await this.world.kubectl(list, { kubeconfig: this.node });
    return JSON.parse(stdout).items.find(({ metadata }: any) => metadata.name === "web-0").metadata.annotations;
  }

  async stored(): Promise<any> {
    const args = ["get", "pod", "web-0", "-n", NAMESPACE, "-o", "json", "--show-managed-fields"];
    return JSON.parse(await this.world.inCloud(args));
  }

  async powerCut(): Promise<void> {
    await this.holdfast.stop("SIGKILL");
    this.holdfast = await this.world.startHoldfast({ stateDir: this.holdfast.stateDir });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.holdfast.stop();
    await this.world[Symbol.asyncDispose]();
  }
}
