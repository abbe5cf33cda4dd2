/**
 * What runs on a lab node, as containerd and the kernel tell it: not as kubelet
 * or any API object claims.
 */
import { readFileSync } from "node:fs";
import { type Output, runProcess } from "./processes.ts";

const TICKS_PER_SECOND = 100;

/** One running container; sandboxes are left out. */
export interface Container {
  readonly id: string;
  readonly namespace: string;
  readonly pod: string;
  readonly name: string;
  /** Of its first process, as the machine counts. */
  readonly pid: number;
  /** Milliseconds since the epoch, good to a hundredth of a second. */
  readonly startedAtMs: number;
}

interface Labels {
  readonly kind: string;
  readonly namespace: string;
  readonly pod: string;
  readonly name: string;
}

/** The containers of one containerd. */
export class Containers {
  /** Labels never change, and asking for them costs a process each. */
  private readonly labels = new Map<string, Labels>();
  private execCount = 0;

  constructor(private readonly socket: string) {}

  /** The running ones, by namespace, pod and name. */
  async running(): Promise<Container[]> {
    const tasks = parseTasks((await this.ctr(["tasks", "ls"])).stdout).filter((task) => task.status === "RUNNING");
    const found = await Promise.all(tasks.map(async ({ id, pid }) => await this.describe(id, pid)));
    return found
      .filter((container) => container !== undefined)
      .toSorted((a, b) => `${a.namespace}/${a.pod}/${a.name}`.localeCompare(`${b.namespace}/${b.pod}/${b.name}`));
  }

  /** Runs a command inside a running container. */
  async exec(container: Container, command: readonly string[], timeoutMs = 20_000): Promise<Output> {
    this.execCount += 1;
    const id = `lab-${process.pid}-${this.execCount}`;
    return await this.ctr(["tasks", "exec", "--exec-id", id, container.id, ...command], timeoutMs);
  }

  /** Removes the records of containers and sandboxes, which must not run. */
  async forgetAll(): Promise<void> {
    const { stdout } = await this.ctr(["containers", "ls", "-q"]);
    for (const id of stdout.split("\n").filter((line) => line !== "")) await this.ctr(["containers", "rm", id]);
  }

  /** Kills and removes whatever runs. */
  async removeTasks(): Promise<void> {
    const { stdout } = await this.ctr(["tasks", "ls", "-q"]);
    for (const id of stdout.split("\n").filter((line) => line !== "")) await this.ctr(["tasks", "rm", "-f", id]);
  }

  /** Runs containerd's own client. */
  async ctr(args: readonly string[], timeoutMs = 30_000): Promise<Output> {
    return await runProcess(["ctr", "-a", this.socket, "-n", "k8s.io", ...args], { timeoutMs });
  }

  private async describe(id: string, pid: number): Promise<Container | undefined> {
    const labels = this.labels.get(id) ?? (await this.readLabels(id));
    const startedAtMs = startTimeMs(pid);
    if (labels === undefined || labels.kind !== "container" || startedAtMs === undefined) return undefined;
    const { namespace, pod, name } = labels;
    return { id, namespace, pod, name, pid, startedAtMs };
  }

  private async readLabels(id: string): Promise<Labels | undefined> {
    const info = await this.ctr(["containers", "info", id]);
    // It may have gone since it was listed.
    if (info.exitCode !== 0) return undefined;
    const { Labels: all } = JSON.parse(info.stdout) as { readonly Labels: Readonly<Record<string, string>> };
    const labels = {
      kind: all["io.cri-containerd.kind"] ?? "",
      namespace: all["io.kubernetes.pod.namespace"] ?? "",
      pod: all["io.kubernetes.pod.name"] ?? "",
      name: all["io.kubernetes.container.name"] ?? "",
    };
    this.labels.set(id, labels);
    return labels;
  }
}

function parseTasks(table: string): { readonly id: string; readonly pid: number; readonly status: string }[] {
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((words) => words.length === 3)
    .map(([id = "", pid = "", status = ""]) => ({ id, pid: Number(pid), status }));
}

/** By field 22 of /proc/PID/stat, in ticks since boot. */
function startTimeMs(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
    const upSeconds = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);
    return Date.now() - (upSeconds - ticks / TICKS_PER_SECOND) * 1000;
  } catch {
    return undefined;
  }
}
