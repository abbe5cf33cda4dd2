/**
 * A real node at the edge: containerd, runc, a stock kubelet, and where a test
 * wants them kube-proxy and CoreDNS as programs of the node.
 *
 * Pods share the node's network, so that no plugin is needed, or hang on a
 * bridge of the edge's namespace with an address each.
 */
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { programPath } from "./build.ts";
import { clearCgroup, makeCgroup } from "./cgroup.ts";
import { Containers } from "./containers.ts";
import {
  bridgeConfig,
  containerdConfig,
  corefile,
  kubeletConfig,
  kubeProxyConfig,
  type PodNetwork,
} from "./node-config.ts";
import { IMAGE, makeImage } from "./node-image.ts";
import { type LabProcess, record, runProcess, until } from "./processes.ts";
import { killShims, unmountBelow } from "./remains.ts";
import { findProgram } from "./requirements.ts";
import type { WrongClock } from "./wrong-clock.ts";
import { CLOUD_NODE_NAME, NODE_NAME, type World } from "./world.ts";

/** Where a node stands: beyond the WAN, or beside the API server with a link that nobody cuts. */
export type Place = "edge" | "cloud";

/** What may stand beside containerd, each at most once. */
type Part = "kubelet" | "kube-proxy" | "coredns";

export class LabNode implements AsyncDisposable {
  readonly containers: Containers;
  readonly directory: string;
  private readonly cgroup: string;
  private readonly parts = new Map<Part, LabProcess>();
  private containerd: LabProcess | undefined;

  private constructor(
    private readonly world: World,
    readonly place: Place,
    private readonly podNetwork: PodNetwork,
    private readonly asksForServing: boolean,
    private readonly moreAddresses: readonly string[],
  ) {
    this.directory = join(world.directory, place === "edge" ? "node" : "cloud-node");
    // Distinct beyond their beginning, since each clears what is below its own.
    this.cgroup = this.namespace;
    this.containers = new Containers(this.socket);
  }

  /**
   * Starts the node and waits until it has registered.
   *
   * @param options.kubeconfig kubelet's; default the node's own, straight to the API server.
   * @param options.podNetwork default "host".
   * @param options.place default "edge".
   * @param options.asksForServing kubelet asks the cluster for its serving
   *   certificate, and answers nobody until one is approved; default false.
   * @param options.moreAddresses that it has beside the network's own, of another family.
   */
  static async start(
    world: World,
    options: {
      readonly kubeconfig?: string;
      readonly podNetwork?: PodNetwork;
      readonly place?: Place;
      readonly asksForServing?: boolean;
      readonly moreAddresses?: readonly string[];
    } = {},
  ): Promise<LabNode> {
    const { place = "edge", podNetwork = "host", asksForServing = false, moreAddresses = [] } = options;
    const node = new LabNode(world, place, podNetwork, asksForServing, moreAddresses);
    try {
      for (const folder of ["cni", "manifests", "leases"]) mkdirSync(node.path(folder), { recursive: true });
      record(`cgroup ${node.cgroup}`);
      makeCgroup(node.cgroup);
      node.writePodNetwork();
      await node.startContainerd();
      await node.importImage(makeImage(node.path("image")));
      node.startKubelet(options.kubeconfig ?? world.nodeKubeconfig);
      await until(
        "the node has registered",
        async () => (await world.inCloud(["get", "node", node.name, "-o", "name"])).trim() !== "",
        60_000,
      );
      return node;
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where static pods are put. */
  get manifests(): string {
    return this.path("manifests");
  }

  /**
   * Starts kubelet; the flags of `node.start` otherwise.
   *
   * @param clock is its clock, where given.
   */
  startKubelet(kubeconfig: string, clock?: WrongClock): void {
    const config = this.write(
      "kubelet.json",
      JSON.stringify(
        kubeletConfig({
          pki: this.world.pki,
          serving: this.asksForServing ? undefined : this.place === "edge" ? "node-serving" : "cloud-node-serving",
          cgroup: this.cgroup,
          socket: this.socket,
          manifests: this.manifests,
        }),
      ),
    );
    const flags = [
      `--config=${config}`,
      `--kubeconfig=${kubeconfig}`,
      `--hostname-override=${this.name}`,
      `--node-ip=${[this.address, ...this.moreAddresses].join(",")}`,
      `--root-dir=${this.path("kubelet")}`,
      `--cert-dir=${this.path("pki")}`,
      "--v=2",
    ];
    if (clock === undefined) this.startPart("kubelet", flags);
    else this.startPart("kubelet", flags, "kubelet-clock", clock.goEnv);
  }

  /** Ends kubelet; what it started runs on. */
  async stopKubelet(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await this.stopPart("kubelet", signal);
  }

  /** Starts kube-proxy in nftables mode. */
  startKubeProxy(kubeconfig: string): void {
    const config = this.write("kube-proxy.json", JSON.stringify(kubeProxyConfig(kubeconfig, this.name)));
    this.startPart("kube-proxy", [`--config=${config}`]);
  }

  /** Starts CoreDNS on port 53 of the node's address. */
  startCoreDns(kubeconfig: string): void {
    const config = this.write("Corefile", corefile(this.address, kubeconfig));
    this.startPart("coredns", ["-conf", config]);
  }

  /** What one of the parts has logged so far. */
  log(part: Part): string {
    return this.parts.get(part)?.log ?? "";
  }

  /**
   * What a power cut and a boot leave of the node: its disk, and a fresh containerd.
   *
   * Gone are every process, tmpfs volumes, network namespaces, packet filter
   * rules and the bridge; pods get other addresses than before. Kubelet and its
   * companions are for the caller to start.
   *
   * @param options.forgetContainers also the records of dead containers, as
   *   kubelet's garbage collection removes them sooner or later.
   */
  async reboot(options: { readonly forgetContainers?: boolean } = {}): Promise<void> {
    for (const part of [...this.parts.keys()]) await this.stopPart(part, "SIGKILL");
    await this.containerd?.stop("SIGKILL");
    killShims(this.directory);
    clearCgroup(this.cgroup);
    unmountBelow(this.directory);
    rmSync(this.path("run"), { recursive: true, force: true });
    await this.clearNetwork();
    makeCgroup(this.cgroup);
    await this.startContainerd();
    if (options.forgetContainers !== true) return;
    await this.containers.forgetAll();
    // Its CRI part reads the records at the start only.
    await this.containerd?.stop();
    await this.startContainerd();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const part of [...this.parts.keys()]) await this.stopPart(part, "SIGKILL");
    if (this.containerd?.isRunning === true) await this.containers.removeTasks();
    await this.containerd?.stop("SIGTERM", 5_000);
    killShims(this.directory);
    clearCgroup(this.cgroup);
    unmountBelow(this.directory);
  }

  /** Of its Node object. */
  get name(): string {
    return this.place === "edge" ? NODE_NAME : CLOUD_NODE_NAME;
  }

  private get namespace(): string {
    return this.world.network[this.place];
  }

  private get address(): string {
    return this.place === "edge" ? this.world.network.edgeAddress : this.world.network.cloudAddress;
  }

  private get socket(): string {
    return this.path("containerd.sock");
  }

  private path(name: string): string {
    return join(this.directory, name);
  }

  private write(name: string, text: string): string {
    writeFileSync(this.path(name), text);
    return this.path(name);
  }

  private startPart(
    part: Part,
    flags: readonly string[],
    program: string = part,
    env: Readonly<Record<string, string>> = {},
  ): void {
    const command = [programPath(program), ...flags];
    this.parts.set(part, this.world.startOnNode(this.partName(part), command, this.namespace, env));
  }

  /** Names its log. */
  private partName(part: string): string {
    return this.place === "edge" ? part : `cloud-${part}`;
  }

  private async stopPart(part: Part, signal: NodeJS.Signals): Promise<void> {
    await this.parts.get(part)?.stop(signal);
    this.parts.delete(part);
  }

  private writePodNetwork(): void {
    if (this.podNetwork === "bridge")
      this.write(
        "cni/10-lab.conflist",
        JSON.stringify(bridgeConfig(this.path("leases"), this.place === "edge" ? "10.244.1.0/24" : "10.244.2.0/24")),
      );
  }

  private async startContainerd(): Promise<void> {
    const plugin = findProgram("host-local");
    const pluginsFolder = plugin === undefined ? undefined : dirname(plugin);
    const text = containerdConfig({
      root: this.path("containerd"),
      state: this.path("run"),
      socket: this.socket,
      cniFolder: this.path("cni"),
      pauseImage: IMAGE,
      pluginsFolder,
    });
    const config = this.write("containerd.toml", text);
    const earlier = this.containerd?.log.length ?? 0;
    const containerd = this.world.startOnNode(
      this.partName("containerd"),
      ["containerd", "-c", config],
      this.namespace,
    );
    this.containerd = containerd;
    // Its CRI part answers later than the rest, and a kubelet that meets it too early ends.
    await until("containerd answers kubelet", async () => {
      const isReady = containerd.log.slice(earlier).includes("Start streaming server");
      return isReady && (await this.containers.ctr(["version"])).exitCode === 0;
    });
  }

  /** Brings an image archive onto the node. */
  async importImage(archive: string): Promise<void> {
    const imported = await this.containers.ctr(["images", "import", archive], 120_000);
    if (imported.exitCode !== 0) throw new Error(`Cannot import ${archive}: ${imported.stderr}`);
  }

  /** Rules and bridge are the kernel's; leases are files, whose counter alone survives: no pod gets its old address. */
  private async clearNetwork(): Promise<void> {
    if (this.podNetwork === "host") return;
    for (const command of [
      ["nft", "flush", "ruleset"],
      ["ip", "link", "del", "cni0"],
    ])
      await runProcess(this.world.network.within(this.namespace, command));
    const leases = this.path("leases/lab");
    for (const name of existsSync(leases) ? readdirSync(leases) : [])
      if (/^\d+\./.test(name)) rmSync(join(leases, name));
  }
}
