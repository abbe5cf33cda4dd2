/**
 * A whole machine at the edge, as an administrator finds it: root, /etc, units,
 * `systemctl` and `reboot`, in namespaces of its own (mounts, processes, host
 * name) and in the edge's network.
 *
 * Its disk is a folder laid over the real one's (`machine/boot.sh`), so that
 * kubeadm and the README's own lines run as they are and the real machine stays
 * untouched. A power cut is the end of its first process: all others die with it.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { programPath } from "./build.ts";
import { clearCgroup, makeCgroup } from "./cgroup.ts";
import { bridgeConfig, containerdConfig } from "./node-config.ts";
import { IMAGE, makeImage } from "./node-image.ts";
import { type LabProcess, type Output, record, runProcess, until } from "./processes.ts";
import { unmountBelow } from "./remains.ts";
import { findProgram, holdfastPath } from "./requirements.ts";
import { NODE_NAME, type World } from "./world.ts";

const SCRIPTS = join(import.meta.dir, "machine");
const LOGS = "var/lib/lab-log";
/** Nothing of the lab's own environment reaches the machine. */
const ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"];

/** A container as containerd tells it. */
export interface MachineContainer {
  readonly id: string;
  readonly pod: string;
  readonly createdAtMs: number;
}

export class Machine implements AsyncDisposable {
  private power: LabProcess | undefined;

  private constructor(
    private readonly world: World,
    private readonly disk: string,
  ) {}

  /** Boots a machine with containerd, the programs of kubeadm's packages and their units; nothing has joined. */
  static async start(world: World): Promise<Machine> {
    const machine = new Machine(world, join(world.directory, "machine"));
    try {
      machine.install();
      record(`cgroup ${machine.cgroup}`);
      await machine.switchOn();
      await until("containerd answers", async () => (await machine.run("ctr version")).exitCode === 0);
      const image = makeImage(join(world.directory, "machine-image"));
      await machine.mustRun(`ctr -n k8s.io images import ${image}`);
      return machine;
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** For kubelet's `cgroupRoot`. */
  get cgroup(): string {
    return this.world.network.edge;
  }

  /** Runs shell lines as root. */
  async run(script: string, timeoutMs = 60_000): Promise<Output> {
    return await runProcess(this.entered(["bash", "-c", script]), { timeoutMs });
  }

  /** Runs shell lines as root. @returns their stdout. @throws {Error} with their stderr when the last one fails. */
  async mustRun(script: string, timeoutMs = 60_000): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(script, timeoutMs);
    if (exitCode !== 0) throw new Error(`Cannot run ${script}: exit code ${exitCode}\n${stdout}\n${stderr}`);
    return stdout;
  }

  /** Starts shell lines that end with the machine: a script with `reboot` in it. */
  startScript(script: string): LabProcess {
    return this.world.startOnNode("machine-script", this.entered(["bash", "-ec", script]));
  }

  /** Whether `reboot` was called since the last start. */
  get isRebootAsked(): boolean {
    return existsSync(join(this.disk, LOGS, "reboot-asked"));
  }

  /** The running containers, by pod. */
  async running(): Promise<MachineContainer[]> {
    const ids = (await this.mustRun("crictl ps -q")).split("\n").filter((id) => id !== "");
    const found = await Promise.all(
      ids.map(async (id) => {
        const { Labels, CreatedAt } = JSON.parse(await this.mustRun(`ctr -n k8s.io containers info ${id}`)) as {
          readonly Labels: Readonly<Record<string, string>>;
          readonly CreatedAt: string;
        };
        return { id, pod: Labels["io.kubernetes.pod.name"] ?? "", createdAtMs: Date.parse(CreatedAt) };
      }),
    );
    return found.toSorted((a, b) => a.pod.localeCompare(b.pod));
  }

  /** Power off and on: no process is told, and the network's devices and rules are new. */
  async powerCycle(): Promise<void> {
    await this.switchOff();
    for (const command of [
      ["nft", "flush", "ruleset"],
      ["ip", "link", "del", "cni0"],
    ])
      await runProcess(this.world.network.within(this.world.network.edge, command));
    await this.switchOn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.switchOff();
    unmountBelow(this.disk);
  }

  private async switchOn(): Promise<void> {
    for (const name of ["booted", join(LOGS, "reboot-asked")]) rmSync(join(this.disk, name), { force: true });
    makeCgroup(this.cgroup);
    const namespaces = ["--mount", "--pid", "--uts", "--propagation", "private"];
    // The child is the machine's first process; it goes when its parent does.
    const unshare = ["unshare", ...namespaces, "--fork", "--kill-child", "env", "-i", ...ENVIRONMENT];
    this.power = this.world.startOnNode("machine", [...unshare, "sh", join(SCRIPTS, "boot.sh"), this.disk, NODE_NAME]);
    await until("the machine has booted", () => existsSync(join(this.disk, "booted")));
  }

  private async switchOff(): Promise<void> {
    await this.power?.stop("SIGKILL");
    clearCgroup(this.cgroup);
  }

  /** Its first process, as the real machine counts. */
  private get pid(): string {
    const parent = this.power?.pid;
    return readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim();
  }

  private entered(command: readonly string[]): string[] {
    return [
      "nsenter",
      "--target",
      this.pid,
      "--mount",
      "--pid",
      "--uts",
      "--net",
      "env",
      "-i",
      ...ENVIRONMENT,
      ...command,
    ];
  }

  private install(): void {
    const programs = join(this.disk, "usr/local/bin");
    mkdirSync(programs, { recursive: true });
    for (const name of ["kubeadm", "kubelet"]) symlinkSync(programPath(name), join(programs, name));
    copyFileSync(holdfastPath, join(programs, "holdfast"));
    for (const name of ["systemctl", "reboot", "crictl"]) {
      copyFileSync(join(SCRIPTS, `${name}.sh`), join(programs, name));
      chmodSync(join(programs, name), 0o755);
    }
    const plugin = findProgram("host-local");
    const containerd = containerdConfig({
      root: "/var/lib/containerd",
      state: "/run/containerd",
      socket: "/run/containerd/containerd.sock",
      cniFolder: "/etc/cni/net.d",
      pauseImage: IMAGE,
      pluginsFolder: plugin === undefined ? undefined : dirname(plugin),
    });
    const files = {
      "etc/hosts": `127.0.0.1 localhost\n127.0.1.1 ${NODE_NAME}\n`,
      "etc/containerd/config.toml": containerd,
      "etc/cni/net.d/10-lab.conflist": JSON.stringify(bridgeConfig("/var/lib/cni/networks", "10.244.1.0/24")),
      "units/containerd.service": unit({
        Unit: ["Before=kubelet.service"],
        // In place of Type=notify: whoever comes after it finds it ready.
        Service: [
          `ExecStart=${Bun.which("containerd")}`,
          "ExecStartPost=sh -c 'until ctr version; do sleep 0.1; done'",
          "Restart=always",
          "RestartSec=5",
        ],
      }),
      "units/kubelet.service": unit({
        Service: ["ExecStart=/usr/local/bin/kubelet", "Restart=always", "RestartSec=10"],
      }),
      "units/kubelet.service.d/10-kubeadm.conf": kubeadmDropIn(),
    };
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(this.disk, path)), { recursive: true });
      writeFileSync(join(this.disk, path), text);
    }
    // Kubelet's package has it, and a worker without it none.
    mkdirSync(join(this.disk, "etc/kubernetes/manifests"), { recursive: true });
    const wanted = join(this.disk, "units/multi-user.target.wants");
    mkdirSync(wanted);
    for (const name of ["containerd", "kubelet"])
      symlinkSync(`/etc/systemd/system/${name}.service`, join(wanted, `${name}.service`));
  }
}

function unit(sections: Readonly<Record<string, readonly string[]>>): string {
  const all = { ...sections, Install: ["WantedBy=multi-user.target"] };
  return Object.entries(all)
    .map(([name, lines]) => `[${name}]\n${lines.join("\n")}\n`)
    .join("\n");
}

/** What kubeadm expects of kubelet's unit: these files in these places, and its flags in KUBELET_KUBEADM_ARGS. */
function kubeadmDropIn(): string {
  const kubeconfigs =
    "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf";
  return [
    "[Service]",
    `Environment="KUBELET_KUBECONFIG_ARGS=${kubeconfigs}"`,
    'Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"',
    "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env",
    "ExecStart=",
    "ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS",
    "",
  ].join("\n");
}
