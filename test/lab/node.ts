/**
 * A real node at the edge: containerd, runc and a stock kubelet.
 *
 * Pods share the node's network, so no network plugin is needed, and their one
 * image is a static busybox that never leaves the machine.
 */
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { programPath } from "./build.ts";
import { clearCgroup, makeCgroup } from "./cgroup.ts";
import { type LabProcess, type Output, record, runProcess, until } from "./processes.ts";
import { NODE_NAME, type World } from "./world.ts";

export const IMAGE = "docker.io/local/app:1";
const SHELL_WORDS = ["sh", "sleep", "cat", "echo", "seq", "date", "ls"];

export class LabNode implements AsyncDisposable {
  private constructor(
    private readonly world: World,
    private readonly directory: string,
    private readonly cgroup: string,
    private readonly parts: LabProcess[] = [],
  ) {}

  /**
   * Starts the node and waits until it has registered.
   *
   * @param kubeconfig kubelet's; default the node's own, straight to the API server.
   */
  static async start(world: World, kubeconfig = world.nodeKubeconfig): Promise<LabNode> {
    const node = new LabNode(world, join(world.directory, "node"), world.network.edge.replace("-edge", ""));
    try {
      mkdirSync(node.directory, { recursive: true });
      record(`cgroup ${node.cgroup}`);
      makeCgroup(node.cgroup);
      await node.startContainerd();
      await node.importImage();
      node.startKubelet(kubeconfig);
      await until(
        "the node has registered",
        async () => (await world.inCloud(["get", "node", NODE_NAME, "-o", "name"])).trim() !== "",
        60_000,
      );
      return node;
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const [containerd, ...others] = this.parts;
    for (const part of others) await part.stop("SIGKILL");
    const tasks = await this.ctr(["tasks", "ls", "-q"]);
    for (const task of tasks.stdout.split("\n").filter((line) => line !== ""))
      await this.ctr(["tasks", "rm", "-f", task]);
    await containerd?.stop("SIGTERM", 5_000);
    clearCgroup(this.cgroup);
    // Root filesystems, tmpfs volumes and network namespaces stay mounted when their users are killed.
    const mounts = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .map((line) => line.split(" ")[4] ?? "");
    for (const mount of mounts.filter((path) => path.startsWith(`${this.directory}/`)).toReversed())
      Bun.spawnSync(["umount", "-l", mount]);
  }

  private get socket(): string {
    return join(this.directory, "containerd.sock");
  }

  private async startContainerd(): Promise<void> {
    const config = `version = 2
root = "${this.directory}/containerd"
state = "${this.directory}/run"
[grpc]
  address = "${this.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE every sandbox would fail.
  restrict_oom_score_adj = true
  sandbox_image = "${IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${this.directory}/cni"
`;
    writeFileSync(join(this.directory, "containerd.toml"), config);
    this.parts.push(
      this.world.startOnNode("containerd", ["containerd", "-c", join(this.directory, "containerd.toml")]),
    );
    await until("containerd answers", async () => (await this.ctr(["version"])).exitCode === 0);
  }

  private async importImage(): Promise<void> {
    const archive = makeImage(join(this.directory, "image"));
    const imported = await this.ctr(["images", "import", archive]);
    if (imported.exitCode !== 0) throw new Error(`Cannot import the lab's image: ${imported.stderr}`);
  }

  private startKubelet(kubeconfig: string): void {
    const { pki } = this.world;
    const config = {
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      failCgroupV1: false,
      cgroupDriver: "cgroupfs",
      cgroupRoot: `/${this.cgroup}`,
      enforceNodeAllocatable: [],
      failSwapOn: false,
      containerRuntimeEndpoint: `unix://${this.socket}`,
      authentication: { x509: { clientCAFile: pki.ca }, anonymous: { enabled: false }, webhook: { enabled: true } },
      authorization: { mode: "Webhook" },
      tlsCertFile: pki.certificate("node-serving"),
      tlsPrivateKeyFile: pki.key("node-serving"),
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
    };
    const path = join(this.directory, "kubelet.json");
    writeFileSync(path, JSON.stringify(config));
    const flags = [
      `--config=${path}`,
      `--kubeconfig=${kubeconfig}`,
      `--hostname-override=${NODE_NAME}`,
      `--node-ip=${this.world.network.edgeAddress}`,
    ];
    const folders = [`--root-dir=${this.directory}/kubelet`, `--cert-dir=${this.directory}/pki`];
    this.parts.push(this.world.startOnNode("kubelet", [programPath("kubelet"), ...flags, ...folders]));
  }

  private async ctr(args: readonly string[]): Promise<Output> {
    return await runProcess(["ctr", "-a", this.socket, "-n", "k8s.io", ...args], { timeoutMs: 30_000 });
  }
}

/** An image archive of one layer that holds a static busybox and its names. */
function makeImage(directory: string): string {
  const bin = join(directory, "root/bin");
  for (const folder of [
    bin,
    join(directory, "root/tmp"),
    join(directory, "root/etc"),
    join(directory, "root/proc"),
    join(directory, "root/sys"),
    join(directory, "root/dev"),
  ]) {
    mkdirSync(folder, { recursive: true });
  }
  copyFileSync(Bun.which("busybox") ?? "/bin/busybox", join(bin, "busybox"));
  for (const word of SHELL_WORDS) symlinkSync("/bin/busybox", join(bin, word));
  tar(join(directory, "layer.tar"), join(directory, "root"), ["."]);
  const digest = createHash("sha256")
    .update(readFileSync(join(directory, "layer.tar")))
    .digest("hex");
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const config = {
    architecture,
    os: "linux",
    config: { Cmd: ["/bin/sleep", "100000000"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
  };
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  writeFileSync(
    join(directory, "manifest.json"),
    JSON.stringify([{ Config: "config.json", RepoTags: [IMAGE], Layers: ["layer.tar"] }]),
  );
  tar(join(directory, "image.tar"), directory, ["config.json", "layer.tar", "manifest.json"]);
  return join(directory, "image.tar");
}

function tar(archive: string, from: string, names: readonly string[]): void {
  const done = Bun.spawnSync(["tar", "-cf", archive, "-C", from, ...names], { stderr: "pipe" });
  if (!done.success) throw new Error(`Cannot make ${archive}: ${done.stderr.toString()}`);
}
