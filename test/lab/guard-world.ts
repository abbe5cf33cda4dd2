/**
 * A control plane whose controllers are quick to judge, hollow nodes, and the
 * guard's manifests applied as a user would.
 *
 * Every node has a Deployment of its own that can run nowhere else, and all of
 * their pods stand behind the Service `web`: what happens to a node's pod is
 * then that node's story alone.
 */
import { HollowNodes } from "./hollow-nodes.ts";
import { type LabProcess, runProcess, until } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";
import { LOOPBACK_URL, startWorld, type World, type WorldOptions } from "./world.ts";

/** The namespace of the pods. */
export const SHOP = "shop";
/** The controllers' patience, far below a real cluster's: the default is 50 s, and 300 s for a pod. */
export const GRACE_SECONDS = 12;
const TOLERATION_SECONDS = 2;
const GUARD_NAMESPACE = "holdfast-system";
const WEBHOOK_PORT = 10_443;
const HEALTH_PORT = 10_480;

/** A pod, as far as the tests look at it. */
export interface ShopPod {
  readonly name: string;
  readonly uid: string;
  readonly nodeName: string;
  readonly isDeleting: boolean;
  readonly isReady: boolean;
  readonly containerId: string;
  readonly restarts: number;
  readonly disruption: string | undefined;
}

/** A node, as far as the tests look at it. */
export interface ShopNode {
  readonly ready: string;
  readonly evictingTaints: readonly string[];
  readonly taints: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly conditions: readonly { readonly type: string; readonly status: string; readonly reason?: string }[];
}

interface RawPod {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason?: string }[];
    readonly containerStatuses?: readonly { readonly containerID?: string; readonly restartCount: number }[];
  };
}

/** Whoever lets all controllers share one user has to give that user what they need. */
const ALL_CONTROLLERS_ROLES = {
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name: "lab-controllers" },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "system:kube-controller-manager" }],
};

/** How the world is to be. */
export interface GuardWorldOptions {
  /** Default true. False: all controllers share one user. */
  readonly hasControllerAccounts?: boolean;
  /** Arguments of `holdfast manifests`; undefined applies none. */
  readonly manifests?: readonly string[];
  readonly world?: WorldOptions;
}

export class GuardWorld implements AsyncDisposable {
  private readonly guards: LabProcess[] = [];

  private constructor(
    readonly world: World,
    readonly hollow: HollowNodes,
  ) {}

  static async start(options: GuardWorldOptions = {}): Promise<GuardWorld> {
    const world = await startWorld({
      controllerManager: true,
      scheduler: true,
      ...options.world,
      apiServerArguments: [
        `--default-unreachable-toleration-seconds=${TOLERATION_SECONDS}`,
        `--default-not-ready-toleration-seconds=${TOLERATION_SECONDS}`,
        // The webhook's Service is resolved to its endpoints: nobody routes a ClusterIP in the cloud here.
        "--enable-aggregator-routing=true",
        ...(options.world?.apiServerArguments ?? []),
      ],
      controllerManagerArguments: [
        `--node-monitor-grace-period=${GRACE_SECONDS}s`,
        "--node-monitor-period=1s",
        `--use-service-account-credentials=${options.hasControllerAccounts ?? true}`,
        ...(options.world?.controllerManagerArguments ?? []),
      ],
    });
    const guarded = new GuardWorld(world, HollowNodes.start(world));
    try {
      if (options.hasControllerAccounts === false) await world.apply(ALL_CONTROLLERS_ROLES);
      await world.createNamespace(SHOP);
      await world.apply({
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: "web", namespace: SHOP },
        spec: { selector: { app: "web" }, ports: [{ port: 80 }] },
      });
      if (options.manifests !== undefined) await guarded.applyManifests(...options.manifests);
      return guarded;
    } catch (error) {
      await guarded[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** `holdfast manifests ARGS | kubectl apply -f -`, and waits until the API server judges by them. */
  async applyManifests(...args: readonly string[]): Promise<void> {
    const { stdout, stderr, exitCode } = await runProcess([holdfastPath, "manifests", ...args]);
    if (exitCode !== 0) throw new Error(`Cannot render the manifests: ${stderr}`);
    await this.world.inCloud(["apply", "-f", "-"], stdout);
    // It reads them by watches of its own, in the order they were made: the policy on parameters is the last of the list.
    const patch = JSON.stringify({ data: { bound: "not a duration" } });
    const probe = ["patch", "configmap", "holdfast-guard", "-n", GUARD_NAMESPACE, "--type=merge", "-p", patch];
    await until("the policies are in force", async () =>
      (await this.refusal([...probe, "--dry-run=server"])).includes("expected a duration"),
    );
  }

  /**
   * Runs guards as processes of the cloud, with the Deployment's own service account, behind its Service.
   *
   * The Deployment itself is set to none: hollow nodes would claim to run it.
   */
  async startGuards(count: number, args: readonly string[] = []): Promise<LabProcess[]> {
    const { world } = this;
    await world.inCloud(["scale", "deployment/holdfast-guard", "-n", GUARD_NAMESPACE, "--replicas=0"]);
    const token = (
      await world.inCloud(["create", "token", "holdfast-guard", "-n", GUARD_NAMESPACE, "--duration=24h"])
    ).trim();
    const kubeconfig = world.kubeconfig(LOOPBACK_URL, { token });
    const address = world.network.cloudAddress;
    const started = Array.from({ length: count }, (_, index) => {
      const listen = [
        `--listen=${address}:${WEBHOOK_PORT + index}`,
        `--health-listen=127.0.0.1:${HEALTH_PORT + index}`,
      ];
      return world.startCloudProgram("guard", [
        holdfastPath,
        "guard",
        `--kubeconfig=${kubeconfig}`,
        ...listen,
        ...args,
      ]);
    });
    this.guards.push(...started);
    await world.apply(...started.map((_, index) => guardEndpoint(address, index)));
    for (const [index, { logPath }] of started.entries())
      await until(
        `guard ${index} is ready; its log is ${logPath}`,
        async () => await this.guardAnswer(index, "/readyz"),
      );
    await until("the API server knows them", async () => {
      const [{ clientConfig }] = JSON.parse(
        await world.inCloud(["get", "validatingwebhookconfiguration", "holdfast-guard", "-o", "json"]),
      ).webhooks;
      return clientConfig.caBundle !== undefined && clientConfig.caBundle !== "";
    });
    return started;
  }

  /** What a guard's health listener answers; undefined while it does not. */
  async guardAnswer(index: number, path: string): Promise<string | undefined> {
    try {
      return await this.world.fetchInCloud(`http://127.0.0.1:${HEALTH_PORT + index}${path}`);
    } catch {
      return undefined;
    }
  }

  /** What all guards have logged. */
  guardLogs(): string {
    return this.guards.map(({ log }) => log).join("\n");
  }

  /** Sum of a counter's series over all guards, those whose labels hold all these texts. */
  async counted(name: string, ...labels: readonly string[]): Promise<number> {
    let sum = 0;
    for (let index = 0; ; index++) {
      const text = await this.guardAnswer(index, "/metrics");
      if (text === undefined) return sum;
      for (const line of text.split("\n"))
        if (line.startsWith(name) && labels.every((label) => line.includes(label)))
          sum += Number(line.split(" ").at(-1));
    }
  }

  /** Takes the policies on nodes away: the webhook is then the only line. */
  async dropPolicies(): Promise<void> {
    for (const name of ["holdfast-node-ready", "holdfast-node-taints", "holdfast-node-deletion"])
      await this.world.inCloud(["delete", "validatingadmissionpolicybinding", name]);
  }

  /** `holdfast guard explain`. */
  async explain(subject: string): Promise<string> {
    const command = [holdfastPath, "guard", "explain", subject, `--kubeconfig=${this.world.cloudKubeconfig}`];
    const output = await runProcess(this.world.network.within(this.world.network.cloud, command));
    return output.stdout + output.stderr;
  }

  /** Reasons of the Events about an object. */
  async eventReasons(kind: string, name: string, namespace = "default"): Promise<string[]> {
    const selector = `involvedObject.kind=${kind},involvedObject.name=${name}`;
    const args = [
      "get",
      "events",
      "-n",
      namespace,
      `--field-selector=${selector}`,
      "-o",
      "jsonpath={.items[*].reason}",
    ];
    return (await this.world.inCloud(args)).split(" ").filter((reason) => reason.startsWith("Holdfast"));
  }

  /** Hollow nodes, each with a ready pod of its own. */
  async addNodes(names: readonly string[], labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.hollow.add(names, labels);
    await this.world.apply(...names.map((name) => deploymentOn(name)));
    await until(
      `the pods of ${names.join(", ")} are ready`,
      async () => {
        const pods = await this.pods();
        return names.every((name) => pods.some((pod) => pod.nodeName === name && pod.isReady));
      },
      120_000,
    );
    await until("they are in the Service", async () => {
      const ready = await this.readyEndpoints();
      return names.every((name) => ready.has(name));
    });
  }

  /** Changes keys of the guard's ConfigMap. */
  async setParameters(data: Readonly<Record<string, string>>): Promise<void> {
    const patch = JSON.stringify({ data });
    await this.world.inCloud([
      "patch",
      "configmap",
      "holdfast-guard",
      "-n",
      "holdfast-system",
      "--type=merge",
      "-p",
      patch,
    ]);
  }

  async pods(namespace: string = SHOP): Promise<ShopPod[]> {
    const { items } = JSON.parse(await this.world.inCloud(["get", "pods", "-n", namespace, "-o", "json"]));
    return (items as RawPod[]).map(({ metadata, spec, status }) => {
      const condition = (type: string) => status.conditions?.find((one) => one.type === type && one.status === "True");
      const [container] = status.containerStatuses ?? [];
      return {
        name: metadata.name,
        uid: metadata.uid,
        nodeName: spec.nodeName ?? "",
        isDeleting: metadata.deletionTimestamp !== undefined,
        isReady: condition("Ready") !== undefined,
        containerId: container?.containerID ?? "",
        restarts: container?.restartCount ?? 0,
        disruption: condition("DisruptionTarget")?.reason,
      };
    });
  }

  /** The pod that a node was given; several while one of them is on its way out. */
  async podsOn(node: string): Promise<ShopPod[]> {
    return (await this.pods()).filter((pod) => pod.nodeName === node);
  }

  async node(name: string): Promise<ShopNode> {
    const { metadata, spec, status } = JSON.parse(await this.world.inCloud(["get", "node", name, "-o", "json"]));
    const taints = (spec.taints ?? []) as { readonly key: string; readonly effect: string }[];
    const conditions = (status.conditions ?? []) as ShopNode["conditions"];
    return {
      ready: conditions.find(({ type }) => type === "Ready")?.status ?? "",
      evictingTaints: taints
        .filter(({ key, effect }) => effect === "NoExecute" && key.startsWith("node.kubernetes.io/"))
        .map(({ key }) => key),
      taints: taints.map(({ key, effect }) => `${key}:${effect}`),
      labels: metadata.labels ?? {},
      conditions,
    };
  }

  /** Names of the nodes that have a ready endpoint in the Service `web`. */
  async readyEndpoints(): Promise<Set<string>> {
    const selector = "kubernetes.io/service-name=web";
    const { items } = JSON.parse(
      await this.world.inCloud(["get", "endpointslices", "-n", SHOP, "-l", selector, "-o", "json"]),
    );
    return new Set(
      (items as { endpoints?: { nodeName?: string; conditions?: { ready?: boolean } }[] }[])
        .flatMap(({ endpoints }) => endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready === true)
        .map(({ nodeName }) => nodeName ?? ""),
    );
  }

  /** Waits until the control plane has given up a node's pod: the yardstick for those it must not give up. */
  async evicted(node: string, uid?: string): Promise<void> {
    await until(
      `the pod of ${node} is evicted`,
      async () => {
        const pods = await this.podsOn(node);
        const its = uid === undefined ? pods : pods.filter((pod) => pod.uid === uid);
        return its.every((pod) => pod.isDeleting);
      },
      120_000,
    );
  }

  /** kubectl in the cloud that may fail. @returns its stderr; empty when it succeeded. */
  async refusal(args: readonly string[], input?: string): Promise<string> {
    try {
      await this.world.inCloud(args, input);
      return "";
    } catch (error) {
      return String(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
  }
}

function guardEndpoint(address: string, index: number): object {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `holdfast-guard-lab-${index}`,
      namespace: GUARD_NAMESPACE,
      labels: { "kubernetes.io/service-name": "holdfast-guard", "endpointslice.kubernetes.io/managed-by": "lab" },
    },
    addressType: "IPv4",
    ports: [{ name: "webhook", port: WEBHOOK_PORT + index, protocol: "TCP" }],
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
  };
}

/** What must be the same before and after. */
export function unchanged(pods: readonly ShopPod[]): object[] {
  return pods
    .map(({ name, uid, containerId, restarts, isReady, isDeleting }) => ({
      name,
      uid,
      containerId,
      restarts,
      isReady,
      isDeleting,
    }))
    .toSorted((a, b) => a.name.localeCompare(b.name));
}

/** A Deployment whose only pod can run on this node and nowhere else. */
export function deploymentOn(node: string, more: object = {}): object {
  const labels = { app: "web", node };
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: node, namespace: SHOP },
    spec: {
      replicas: 1,
      strategy: { rollingUpdate: { maxUnavailable: 1 } },
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          nodeSelector: { "kubernetes.io/hostname": node },
          terminationGracePeriodSeconds: 1,
          containers: [{ name: "app", image: "none" }],
        },
      },
      ...more,
    },
  };
}
