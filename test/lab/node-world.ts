/**
 * A working edge: a whole control plane, Holdfast, and a node whose kubelet,
 * kube-proxy and CoreDNS know no other API server, with its workload ready.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AuditedRequest } from "./audit.ts";
import type { Container } from "./containers.ts";
import { LabNode } from "./node.ts";
import { until } from "./processes.ts";
import { holdfastPath, LONG_VARIABLE } from "./requirements.ts";
import { clusterDns, CONTAINERS, NAMESPACE, staticPod, workload } from "./workload.ts";
import type { WrongClock } from "./wrong-clock.ts";
import { type Holdfast, NODE_NAME, startWorld, type World, type WorldOptions } from "./world.ts";

/** A pod as the cloud sees it. */
export interface CloudPod {
  readonly name: string;
  readonly uid: string;
  readonly phase: string;
  readonly isReady: boolean;
  /** When Ready last changed, or undefined where it was never reported. */
  readonly readySince: string | undefined;
  readonly isBeingDeleted: boolean;
}

interface Kubeconfigs {
  readonly kubelet: string;
  readonly kubeProxy: string;
  readonly coreDns: string;
}

export class NodeWorld implements AsyncDisposable {
  private constructor(
    readonly world: World,
    readonly node: LabNode,
    private readonly kubeconfigs: Kubeconfigs,
    private current: Holdfast,
  ) {}

  /** Starts all of it and waits until every container is ready and known to be so in the cloud. */
  static async start(options: WorldOptions = {}): Promise<NodeWorld> {
    const world = await startWorld({ controllerManager: true, scheduler: true, ...options });
    let node: LabNode | undefined;
    try {
      const holdfast = await world.startHoldfast();
      const kubeconfigs = await writeKubeconfigs(world, holdfast.stateDir);
      node = await LabNode.start(world, { kubeconfig: kubeconfigs.kubelet, podNetwork: "bridge" });
      const whole = new NodeWorld(world, node, kubeconfigs, holdfast);
      await whole.startWorkload();
      return whole;
    } catch (error) {
      await node?.[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  get holdfast(): Holdfast {
    return this.current;
  }

  /** Kubelet's own, through Holdfast. */
  get kubeletKubeconfig(): string {
    return this.kubeconfigs.kubelet;
  }

  /**
   * Runs a command of the binary beside its daemon.
   *
   * @returns its stdout, whatever its exit code.
   * @throws {Error} with its stderr when it has said nothing else.
   */
  async askHoldfast(args: readonly string[]): Promise<string> {
    const env = {
      HOLDFAST_STATE_DIR: this.holdfast.stateDir,
      HOLDFAST_ADMIN_SOCKET: join(this.world.directory, "admin.sock"),
    };
    const { stdout, stderr } = await this.world.runAtEdge([holdfastPath, ...args], env, 30_000);
    if (stdout === "") throw new Error(stderr);
    return stdout;
  }

  /** The folder that the Jobs write to. */
  get flags(): string {
    return join(this.node.directory, "flags");
  }

  /** How often a Job's container has begun. */
  runsOf(job: string): number {
    const path = join(this.flags, job);
    return existsSync(path) ? readFileSync(path, "utf8").split("\n").length - 1 : 0;
  }

  /** Lets the Job `later` end. */
  finishLaterJob(): void {
    writeFileSync(join(this.flags, "finish"), "");
  }

  /** Ends Holdfast and starts it again on the same state. */
  async restartHoldfast(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await this.current.stop(signal);
    await this.startHoldfast();
  }

  /** Starts Holdfast on the state it had. @param clock is its clock, where given. */
  async startHoldfast(clock?: WrongClock): Promise<void> {
    const { stateDir } = this.current;
    this.current = await this.world.startHoldfast({ stateDir, ...(clock === undefined ? {} : { env: clock.env }) });
  }

  async restartKubelet(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await this.node.stopKubelet(signal);
    this.startKubelet();
  }

  /** @param clock is its clock, where given. */
  startKubelet(clock?: WrongClock): void {
    this.node.startKubelet(this.kubeconfigs.kubelet, clock);
  }

  /** kube-proxy and CoreDNS. */
  startNetworkParts(): void {
    this.node.startKubeProxy(this.kubeconfigs.kubeProxy);
    this.node.startCoreDns(this.kubeconfigs.coreDns);
  }

  /** The running container of a pod whose name begins so. */
  async containerOf(podPrefix: string): Promise<Container> {
    return await until(`a container of ${podPrefix} runs`, async () =>
      (await this.node.containers.running()).find((container) => container.pod.startsWith(podPrefix)),
    );
  }

  /** Kills a container's process. @returns what kubelet has started instead, and how long after, in milliseconds. */
  async crash(podPrefix: string): Promise<{ readonly again: Container; readonly tookMs: number }> {
    const crashed = await this.containerOf(podPrefix);
    const killedMs = Date.now();
    process.kill(crashed.pid, "SIGKILL");
    const again = await until(
      "another container of the pod runs",
      async () =>
        (await this.node.containers.running()).find(({ pod, id }) => pod === crashed.pod && id !== crashed.id),
      60_000,
    );
    return { again, tookMs: again.startedAtMs - killedMs };
  }

  /**
   * Waits until the workload's containers run, no more and no fewer.
   *
   * @returns them.
   */
  async allRunning(count = CONTAINERS, timeoutMs = 90_000): Promise<Container[]> {
    let seen: Container[] = [];
    try {
      return await until(
        `${count} containers run`,
        async () => {
          seen = await this.node.containers.running();
          return seen.length === count ? seen : undefined;
        },
        timeoutMs,
      );
    } catch (error) {
      throw new Error(`Only these run: ${seen.map((container) => container.pod).join(", ")}`, { cause: error });
    }
  }

  /** The pods of the workload as the cloud sees them, whatever the link does. */
  async cloudPods(): Promise<CloudPod[]> {
    const { items } = JSON.parse(await this.world.inCloud(["get", "pods", "-n", NAMESPACE, "-o", "json"])) as {
      readonly items: readonly RawPod[];
    };
    return items.map((item) => {
      const ready = item.status.conditions?.find((condition) => condition.type === "Ready");
      return {
        name: item.metadata.name,
        uid: item.metadata.uid,
        phase: item.status.phase,
        isReady: ready?.status === "True",
        readySince: ready?.lastTransitionTime,
        isBeingDeleted: item.metadata.deletionTimestamp !== undefined,
      };
    });
  }

  /** Waits until the cloud has heard that every pod but the Jobs' is ready, and the node too. */
  async allReadyInCloud(count = CONTAINERS, timeoutMs = 90_000): Promise<CloudPod[]> {
    return await until(
      `${count} pods and the node are ready in the cloud`,
      async () => {
        const node = await this.world.inCloud(["get", "node", NODE_NAME, "-o", READY_PATH]);
        const ready = (await this.cloudPods()).filter((pod) => pod.isReady);
        return node === "True" && ready.filter((pod) => !pod.name.startsWith("later")).length === count
          ? ready
          : undefined;
      },
      timeoutMs,
    );
  }

  /**
   * Waits until the cloud has heard from kubelet after this moment: the link
   * stands, and Holdfast forwards writes again.
   *
   * @returns how long that took, in milliseconds.
   */
  async heardInCloud(sinceMs: number, timeoutMs = 60_000): Promise<number> {
    const lease = ["get", "lease", NODE_NAME, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
    await until(
      "kubelet's lease is renewed in the cloud",
      async () => Date.parse(await this.world.inCloud(lease)) > sinceMs,
      timeoutMs,
    );
    return Date.now() - sinceMs;
  }

  /** Waits until the kubelet that runs now has been told of these pods by Holdfast. */
  async kubeletKnows(logFrom: number, pods: readonly string[], timeoutMs = 60_000): Promise<void> {
    await until(
      `kubelet has been told of ${pods.join(", ")}`,
      () => {
        const added = this.node
          .log("kubelet")
          .slice(logFrom)
          .split("\n")
          .filter((line) => line.includes('"SyncLoop ADD" source="api"'));
        return pods.every((pod) => added.some((line) => line.includes(`/${pod}"`)));
      },
      timeoutMs,
    );
  }

  /** Waits until kubelet has reported its node after this moment, and found it ready; whatever the link does. */
  async kubeletSaysReady(sinceMs: number, timeoutMs = 60_000): Promise<void> {
    await until(
      "kubelet's own word of its node is that it is ready",
      async () => {
        // Raw: nobody has asked for discovery in the node's name before the cut.
        const { stdout } = await this.world.kubectl(["get", "--raw", `/api/v1/nodes/${NODE_NAME}`], {
          kubeconfig: this.kubeconfigs.kubelet,
        });
        const { conditions } = (JSON.parse(stdout) as RawNode).status;
        const ready = conditions.find((condition) => condition.type === "Ready");
        // Kubernetes' times have whole seconds.
        return ready?.status === "True" && Date.parse(ready.lastHeartbeatTime) > sinceMs - 1_000;
      },
      timeoutMs,
    );
  }

  /** Lists, streaming ones included, that reached the API server after the mark. */
  fullReadsSince(mark: number): AuditedRequest[] {
    return this.world.audit.since(mark).filter((request) => request.verb === "list" || request.isStreamingList);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]();
    await this.world[Symbol.asyncDispose]();
  }

  private async startWorkload(): Promise<void> {
    mkdirSync(this.flags, { recursive: true });
    await this.world.createNamespace(NAMESPACE);
    await this.world.apply(...clusterDns(this.world.network.edgeAddress), ...workload(this.flags));
    writeFileSync(join(this.node.manifests, "manifest.json"), JSON.stringify(staticPod()));
    this.startNetworkParts();
    await this.allReadyInCloud();
    await until("the Job that ends at once has ended", async () =>
      (await this.cloudPods()).some((pod) => pod.name.startsWith("once") && pod.phase === "Succeeded"),
    );
    await until("the Job that ends later runs", () => this.runsOf("later") === 1);
  }
}

const READY_PATH = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}';

interface RawPod {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly status: {
    readonly phase: string;
    readonly conditions?: readonly { type: string; status: string; lastTransitionTime: string }[];
  };
}

interface RawNode {
  readonly status: {
    readonly conditions: readonly { type: string; status: string; lastHeartbeatTime: string }[];
  };
}

/** The ids of containers by what runs in them, for comparing. */
export function identities(containers: readonly Container[]): Record<string, string> {
  return Object.fromEntries(containers.map(({ pod, name, id, pid }) => [`${pod}/${name}`, `${id} ${pid}`]));
}

/** The long variants run: minutes instead of seconds of each bad link. */
export const isLong = process.env[LONG_VARIABLE] !== undefined;

/** Prints one measured figure; CI's log is where they are read. */
export function measured(what: string, value: string): void {
  console.log(`measured: ${what}: ${value}`);
}

/** Seconds, as `measured` prints them. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

async function writeKubeconfigs(world: World, stateDir: string): Promise<Kubeconfigs> {
  const through = (credential: Parameters<World["proxyKubeconfig"]>[1]) => world.proxyKubeconfig(stateDir, credential);
  return {
    kubelet: through(world.certificateOf("node")),
    kubeProxy: through({ token: await world.tokenFor("kube-proxy", ["get", "list", "watch", "create", "patch"]) }),
    coreDns: through({ token: await world.tokenFor("coredns", ["get", "list", "watch"]) }),
  };
}
