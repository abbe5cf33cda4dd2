/**
 * A whole machine at the edge, as an administrator finds it: systemd as its
 * first process, root, an /etc and a /var of its own, kubeadm's packages, and
 * the edge's network.
 *
 *   disk/etc disk/var disk/root disk/local (its /usr/local)     its own, and all that stays over a reboot
 *   /usr, /programs                                             this machine's, read only
 *
 * A power cut is the end of its first process: all others die with it.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createHash, randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { programPath } from "./build.ts";
import { cgroupLists, clearCgroup, makeCgroup } from "./cgroup.ts";
import { bridgeConfig, containerdConfig } from "./node-config.ts";
import { IMAGE, makeImage, makeProgramImage } from "./node-image.ts";
import { type LabProcess, type Output, record, runProcess, until } from "./processes.ts";
import { unmountBelow } from "./remains.ts";
import { findProgram, holdfastPath } from "./requirements.ts";
import { NODE_NAME, type World } from "./world.ts";

const SCRIPTS = join(import.meta.dir, "machine");
const REPOSITORY = join(import.meta.dir, "../..");
/** Nothing of the lab's own environment reaches the machine. */
const ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C"];
/** What kubeadm's add-ons run, by the names that `prepareCluster` gives them. */
export const ADD_ON_REPOSITORY = "docker.io/local";

/** A container as containerd tells it. */
export interface MachineContainer {
  readonly id: string;
  readonly pod: string;
  readonly podUid: string;
  readonly createdAtMs: number;
}

export class Machine implements AsyncDisposable {
  private power: LabProcess | undefined;

  private constructor(
    private readonly world: World,
    readonly disk: string,
  ) {}

  /** Boots a machine with containerd, the programs of kubeadm's packages and their units; nothing has joined. */
  static async start(world: World): Promise<Machine> {
    const machine = new Machine(world, join(world.directory, "machine"));
    try {
      machine.install();
      record(`cgroup ${machine.cgroup}`);
      await machine.switchOn();
      for (const image of machine.images()) {
        await machine.mustRun(`ctr -n k8s.io images import - < ${image}`);
        rmSync(join(machine.disk, image));
      }
      return machine;
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
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

  /** What a unit has logged, its last lines. */
  async journal(unit: string, lines = 60): Promise<string> {
    return (await this.run(`journalctl -u ${unit} -n ${lines} --no-pager -o cat`)).stdout;
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
        const [pod = "", podUid = ""] = ["name", "uid"].map((what) => Labels[`io.kubernetes.pod.${what}`]);
        return { id, pod, podUid, createdAtMs: Date.parse(CreatedAt) };
      }),
    );
    return found.toSorted((a, b) => a.pod.localeCompare(b.pod));
  }

  /** Runs a command in the container of a pod whose name begins so. @returns its stdout. */
  async exec(podPrefix: string, command: string): Promise<string> {
    const found = (await this.running()).find(({ pod }) => pod.startsWith(podPrefix));
    if (found === undefined) throw new Error(`No container of ${podPrefix} runs`);
    const id = randomBytes(4).toString("hex");
    return this.mustRun(`ctr -n k8s.io tasks exec --exec-id ${id} ${found.id} ${command}`);
  }

  /** Files by their path, with mode and content: what nobody but their owner may have changed. */
  tree(...paths: readonly string[]): Record<string, string> {
    const seen: Record<string, string> = {};
    const look = (path: string) => {
      const place = join(this.disk, path);
      for (const entry of readdirSync(place, { withFileTypes: true })) {
        if (entry.isDirectory()) look(join(path, entry.name));
        else if (entry.isFile())
          seen[join(path, entry.name)] = createHash("sha256")
            .update(readFileSync(join(place, entry.name)))
            .digest("hex");
      }
    };
    for (const path of paths) look(path);
    return seen;
  }

  /** Power off and on: no process is told, and the network's devices and rules are new. */
  async powerCycle(): Promise<void> {
    await this.switchOff();
    for (const command of [
      ["nft", "flush", "ruleset"],
      ["ip", "link", "del", "cni0"],
      ["ip", "addr", "flush", "dev", "lo"],
      ["ip", "addr", "add", "127.0.0.1/8", "dev", "lo"],
    ])
      await runProcess(this.world.network.within(this.world.network.edge, command));
    await this.switchOn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.switchOff();
    unmountBelow(this.disk);
  }

  private get cgroup(): string {
    return this.world.network.edge;
  }

  private async switchOn(): Promise<void> {
    makeCgroup(this.cgroup);
    const boot = ["sh", join(SCRIPTS, "boot.sh"), this.disk, NODE_NAME, cgroupLists(this.cgroup).join(" ")];
    this.power = this.world.startOnNode("machine", [
      ...["unshare", "--mount", "--propagation", "private", "env", "-i", ...ENVIRONMENT],
      ...boot,
      dirname(programPath("kubelet")),
    ]);
    await until(
      "the machine's systemd runs",
      async () => {
        if (this.power?.isRunning !== true) throw new Error(`the machine went off: ${this.power?.log.slice(-2_000)}`);
        const { stdout } = await this.run("systemctl is-active containerd");
        return stdout.trim() === "active";
      },
      60_000,
    );
  }

  private async switchOff(): Promise<void> {
    const init = this.init();
    if (init !== undefined) process.kill(init, "SIGKILL");
    await this.power?.stop("SIGKILL");
    clearCgroup(this.cgroup);
  }

  /** Its first process, as the real machine counts. */
  private init(): number | undefined {
    const parent = this.power?.pid;
    if (parent === undefined || !existsSync(`/proc/${parent}`)) return undefined;
    const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "utf8").trim().split(" ");
    const found = children.find((pid) => pid !== "" && readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "systemd");
    return found === undefined ? undefined : Number(found);
  }

  private entered(command: readonly string[]): string[] {
    const init = this.init();
    if (init === undefined) throw new Error("The machine is off");
    const into = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net"];
    return ["nsenter", "--target", `${init}`, ...into, "env", "-i", ...ENVIRONMENT, ...command];
  }

  /** Archives in the machine's /root, each used once. */
  private images(): string[] {
    const scratch = (name: string) => join(this.world.directory, "images", name);
    const iptables = [
      "iptables",
      "iptables-save",
      "iptables-restore",
      "ip6tables",
      "ip6tables-save",
      "ip6tables-restore",
    ];
    const archives = {
      app: makeImage(scratch("app")),
      "kube-proxy": makeProgramImage(scratch("kube-proxy"), `${ADD_ON_REPOSITORY}/kube-proxy:v1.37.2`, {
        programs: {
          "/usr/local/bin/kube-proxy": programPath("kube-proxy"),
          ...Object.fromEntries(["nft", ...iptables].map((name) => [`/usr/sbin/${name}`, findProgram(name)!])),
        },
        folders: [...new Bun.Glob("/usr/lib/*/xtables").scanSync({ cwd: "/", absolute: true, onlyFiles: false })],
        entrypoint: "/usr/local/bin/kube-proxy",
      }),
      coredns: makeProgramImage(scratch("coredns"), `${ADD_ON_REPOSITORY}/coredns:lab`, {
        programs: { "/coredns": programPath("coredns") },
        entrypoint: "/coredns",
      }),
    };
    return Object.entries(archives).map(([name, archive]) => {
      copyFileSync(archive, join(this.disk, "root", `${name}.tar`));
      rmSync(scratch(name), { recursive: true });
      return `/root/${name}.tar`;
    });
  }

  private install(): void {
    const { disk } = this;
    for (const folder of "usr tmp run proc sys dev mnt opt root srv home var/lib var/log/journal etc local/bin local/sbin local/lib more-usr/lib/modules".split(
      " ",
    ))
      mkdirSync(join(disk, folder), { recursive: true });
    for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(disk, name));
    for (const name of "alternatives passwd group nsswitch.conf ld.so.cache ssl".split(" "))
      if (existsSync(join("/etc", name)))
        cpSync(join("/etc", name), join(disk, "etc", name), { recursive: true, verbatimSymlinks: true });
    copyFileSync("/usr/lib/os-release", join(disk, "etc/os-release"));
    for (const name of ["kubeadm", "kubelet"]) symlinkSync(`/programs/${name}`, join(disk, "local/bin", name));
    copyFileSync(join(SCRIPTS, "crictl.sh"), join(disk, "local/bin/crictl"));
    chmodSync(join(disk, "local/bin/crictl"), 0o755);
    for (const [path, text] of Object.entries(this.files())) {
      mkdirSync(dirname(join(disk, path)), { recursive: true });
      writeFileSync(join(disk, path), text);
    }
    // Kubelet's package has it, and a worker without it none.
    mkdirSync(join(disk, "etc/kubernetes/manifests"), { recursive: true });
    const wanted = join(disk, "etc/systemd/system/multi-user.target.wants");
    mkdirSync(wanted, { recursive: true });
    for (const name of ["lab-cgroups", "containerd", "kubelet"])
      symlinkSync(`/etc/systemd/system/${name}.service`, join(wanted, `${name}.service`));
    // As a person has it who copied this folder onto the node and built.
    const folder = join(disk, "root/holdfast");
    mkdirSync(join(folder, "dist"), { recursive: true });
    copyFileSync(join(REPOSITORY, "install.sh"), join(folder, "install.sh"));
    const name = `holdfast-linux-${process.arch}`;
    copyFileSync(holdfastPath, join(folder, "dist", name));
    const sum = createHash("sha256").update(readFileSync(holdfastPath)).digest("hex");
    writeFileSync(join(folder, "dist", `${name}.sha256`), `${sum}  ${name}\n`);
  }

  private files(): Record<string, string> {
    const plugin = findProgram("host-local");
    return {
      // A first boot would enable every unit that this machine's packages have.
      "etc/machine-id": `${randomBytes(16).toString("hex")}\n`,
      "etc/hosts": `127.0.0.1 localhost\n127.0.1.1 ${NODE_NAME}\n`,
      "etc/hostname": `${NODE_NAME}\n`,
      "etc/resolv.conf": `nameserver ${this.world.network.cloudAddress}\n`,
      "etc/containerd/config.toml": containerdConfig({
        root: "/var/lib/containerd",
        state: "/run/containerd",
        socket: "/run/containerd/containerd.sock",
        cniFolder: "/etc/cni/net.d",
        pauseImage: IMAGE,
        pluginsFolder: plugin === undefined ? undefined : dirname(plugin),
      }),
      "etc/cni/net.d/10-lab.conflist": JSON.stringify(bridgeConfig("/var/lib/cni/networks", "10.244.1.0/24")),
      // nspawn hands the cgroups in for reading; a machine's kubelet makes its own there.
      "etc/systemd/system/lab-cgroups.service": unit({
        Unit: ["DefaultDependencies=no", "Before=containerd.service kubelet.service"],
        Service: [
          "Type=oneshot",
          "RemainAfterExit=yes",
          "ExecStart=/bin/sh -c 'for place in /sys/fs/cgroup/*/; do mount -o remount,bind,rw $$place; done'",
        ],
      }),
      "etc/systemd/system/containerd.service": unit({
        Service: [
          "Type=notify",
          `ExecStart=${Bun.which("containerd")}`,
          "Delegate=yes",
          "KillMode=process",
          "Restart=always",
        ],
      }),
      "etc/systemd/system/kubelet.service": unit({
        Unit: ["After=containerd.service", "StartLimitIntervalSec=0"],
        Service: ["ExecStart=/usr/local/bin/kubelet", "Restart=always", "RestartSec=10"],
      }),
      "etc/systemd/system/kubelet.service.d/10-kubeadm.conf": kubeadmDropIn(),
    };
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
