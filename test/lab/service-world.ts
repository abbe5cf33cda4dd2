/**
 * A cluster as people have one, and a machine behind NAT that joined it:
 *
 *   cloud: API server that verifies kubelets, kube-proxy, a node with gateways,
 *          guard and metrics-server as pods      <==NAT==   edge: a machine with systemd, adopted
 *
 * Each node that dials out has a ClusterIP (mode `service`), and what is asked
 * of it by port 10250 arrives by the tunnel.
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildImage } from "../../scripts/build-image.ts";
import { programPath } from "./build.ts";
import { joinArguments, startKubeadmWorld } from "./kubeadm-cluster.ts";
import { Machine } from "./machine.ts";
import { metricsServer, METRICS_IMAGE } from "./metrics-server.ts";
import { LabNode } from "./node.ts";
import { makeProgramImage } from "./node-image.ts";
import { type Output, runProcess, until } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";
import { behindNat, GATEWAY_NAMESPACE, readmeLines, runLine } from "./tunnel-world.ts";
import { LOOPBACK_URL, NODE_NAME, type World } from "./world.ts";

const SERVING_DROP_IN = "etc/systemd/system/kubelet.service.d/zz-holdfast.serving.conf";
const DEPLOYMENT = "deployment/holdfast-gateway";

export class ServiceWorld implements AsyncDisposable {
  private constructor(
    readonly world: World,
    readonly cloudNode: LabNode,
    readonly machine: Machine,
  ) {}

  /** All of it, with the tunnel open, and kubelet's certificate on its way. */
  static async start(): Promise<ServiceWorld> {
    const world = await startKubeadmWorld({
      controllerManagerArguments: [
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
      ],
    });
    let cloudNode: LabNode | undefined;
    let machine: Machine | undefined;
    try {
      cloudNode = await startCloudNode(world);
      await startInCluster(world);
      machine = await Machine.start(world);
      const whole = new ServiceWorld(world, cloudNode, machine);
      await whole.join();
      return whole;
    } catch (error) {
      await machine?.[Symbol.asyncDispose]();
      await cloudNode?.[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** kubectl beside the API server, whatever it answers. */
  async kubectl(args: readonly string[], timeoutMs = 30_000): Promise<Output> {
    const flags = [`--kubeconfig=${this.world.cloudKubeconfig}`, `--cache-dir=${this.world.directory}/kubectl-service`];
    const command = [programPath("kubectl"), args[0]!, ...flags, ...args.slice(1)];
    return await runProcess(this.world.network.within(this.world.network.cloud, command), { timeoutMs });
  }

  /** Runs kubectl until it succeeds. @returns its stdout, and how long that took, in milliseconds. */
  async eventually(claim: string, args: readonly string[], timeoutMs = 60_000) {
    const startedMs = performance.now();
    const stdout = await until(
      claim,
      async () => {
        const { exitCode, stdout, stderr } = await this.kubectl(args);
        if (exitCode !== 0) throw new Error(stderr);
        return stdout;
      },
      timeoutMs,
    );
    return { stdout, tookMs: performance.now() - startedMs };
  }

  /** Where the API server dials the node. */
  async shownAt(): Promise<string> {
    return (
      await this.world.inCloud([
        ...["get", "node", NODE_NAME, "-o"],
        'jsonpath={.status.addresses[?(@.type=="InternalIP")].address} {.status.daemonEndpoints.kubeletEndpoint.Port}',
      ])
    ).trim();
  }

  /** The pod of the gateway that holds the node's tunnel. */
  async holder(): Promise<string> {
    const slices = `jsonpath={.items[0].endpoints[0].addresses[0]}`;
    const label = "app.kubernetes.io/component=tunnel-place";
    const address = await this.world.inCloud([
      ...["get", "endpointslices", "-n", GATEWAY_NAMESPACE, "-l", label, "-o"],
      slices,
    ]);
    const pods = `jsonpath={.items[?(@.status.podIP=="${address}")].metadata.name}`;
    return await this.world.inCloud(["get", "pods", "-n", GATEWAY_NAMESPACE, "-o", pods]);
  }

  /** Waits until kubelet serves by the certificate that names its place. @returns how long that took, in milliseconds. */
  async led(): Promise<number> {
    const startedMs = performance.now();
    const has = (path: string) => existsSync(join(this.machine.disk, path));
    await until("the guard has approved it", () => has("var/lib/holdfast/pki/kubelet-serving.pem"), 60_000);
    // The minute's look, now.
    await this.machine.mustRun("systemctl start holdfast-bypass.service");
    await until("kubelet is led to it", () => has(SERVING_DROP_IN), 5_000);
    return performance.now() - startedMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine[Symbol.asyncDispose]();
    await this.cloudNode[Symbol.asyncDispose]();
    await this.world[Symbol.asyncDispose]();
  }

  /** kubeadm, the installer, adopt; then the README's third and fourth line, as they stand there. */
  private async join(): Promise<void> {
    const { machine, world } = this;
    behindNat(world);
    await machine.mustRun(`kubeadm join ${joinArguments(world)} --ignore-preflight-errors=all`, 180_000);
    // What has no node of its own stays in the cloud.
    await until("the machine's node is there", async () => await world.inCloud(["cordon", NODE_NAME]), 60_000);
    await machine.mustRun("cd /root/holdfast && HOLDFAST_ARTIFACT_DIR=dist sh install.sh", 60_000);
    await machine.mustRun("holdfast adopt", 120_000);
    const port = await world.inCloud([
      ...["get", "service", "holdfast-gateway", "-n", GATEWAY_NAMESPACE, "-o"],
      "jsonpath={.spec.ports[0].nodePort}",
    ]);
    const [, , tunnel = "", restart = ""] = readmeLines();
    const gateway = `wss://${world.network.cloudAddress}:${port}`;
    await machine.mustRun("echo 'certificates: {kubeletServing: true}' >> /etc/holdfast/config.yaml");
    await machine.mustRun(tunnel.replace("wss://gateway.example", gateway));
    await machine.mustRun(restart);
    await until("the node is shown at its place", async () => (await this.shownAt()).startsWith("10.96."), 60_000);
  }
}

/** A node of the cloud with all images that its pods want, and the API server's way to ClusterIPs. */
async function startCloudNode(world: World): Promise<LabNode> {
  const kubeconfig = world.kubeconfig(LOOPBACK_URL, world.certificateOf("cloud-node"));
  const node = await LabNode.start(world, { place: "cloud", podNetwork: "bridge", kubeconfig });
  try {
    // Before kube-proxy's rules are asked the kernel wants a way to go; elsewhere the default route is that.
    Bun.spawnSync(["ip", "-n", world.network.cloud, "route", "add", "10.96.0.0/12", "dev", "cloud0"]);
    const token = await world.tokenFor("kube-proxy", ["get", "list", "watch", "create", "patch"]);
    node.startKubeProxy(world.kubeconfig(LOOPBACK_URL, { token }));
    const binaries = join(world.directory, "image");
    mkdirSync(binaries);
    copyFileSync(holdfastPath, join(binaries, `holdfast-linux-${process.arch}`));
    const image = buildImage({ binaries, only: process.arch === "x64" ? "amd64" : "arm64" });
    writeFileSync(join(binaries, "image.tar"), image.bytes);
    await node.importImage(join(binaries, "image.tar"));
    await node.importImage(
      makeProgramImage(join(binaries, "metrics-server"), METRICS_IMAGE, {
        programs: { "/metrics-server": programPath("metrics-server") },
        entrypoint: "/metrics-server",
      }),
    );
    return node;
  } catch (error) {
    await node[Symbol.asyncDispose]();
    throw error;
  }
}

/** The guard, by its manifests; the gateways, by the README's first two lines; metrics-server. */
async function startInCluster(world: World): Promise<void> {
  const guard = await runProcess([holdfastPath, "manifests", "--approve-csrs"]);
  await world.inCloud(["apply", "-f", "-"], guard.stdout);
  await world.inCloud(["scale", "deployment/holdfast-guard", "-n", GATEWAY_NAMESPACE, "--replicas=1"]);
  const { cloudAddress } = world.network;
  const serving = world.pki.serving("gateway", [cloudAddress]);
  const [manifests = "", secret = ""] = readmeLines();
  await runLine(world, manifests, { "gateway.example": cloudAddress });
  await runLine(world, secret, { "gateway.crt": serving.certificate, "gateway.key": serving.key });
  await world.apply(...metricsServer());
  for (const name of [DEPLOYMENT, "deployment/holdfast-guard"])
    await world.inCloud(["rollout", "status", name, "-n", GATEWAY_NAMESPACE, "--timeout=120s"]);
}
