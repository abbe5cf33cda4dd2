/**
 * Where a process spends its CPU while it is asked: by perf, where that is
 * installed and allowed. The compiled executable carries no symbols, so its
 * own machine code (TLS, the interpreter, collections) is one figure; the
 * kernel's and what the just-in-time compiler made are told apart.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { note } from "./report.ts";

/** Kernel functions by what they are for; the first that matches counts. */
const KERNEL: readonly (readonly [string, RegExp])[] = [
  ["copying bytes", /copy|memcpy|memset|clear_page|rep_movs/],
  [
    "TCP, IP, sockets",
    /tcp|sk_|skb|sock|inet|ip_|__ip|net|dev_|loopback|nf_|nft|ipt|xfrm|csum|eth_|qdisc|fib|dst_|neigh|napi|softirq/,
  ],
  [
    "waking and scheduling",
    /sched|wake|schedule|rq|switch|futex|enqueue|dequeue|pick_|update_|cpu_|idle|rcu|timer|hrtimer|ktime|clock|cputime|cgroup|psi/,
  ],
  ["waiting for events", /epoll|poll|eventfd|signal/],
  ["memory", /page|fault|mm_|vma|slab|kmem|kfree|kmalloc|alloc|free|madvise|zap|lru|memcg|charge/],
];

/**
 * Prints shares of the CPU of these processes, each while it is asked.
 *
 * @param folder for perf's files.
 */
export async function profileRows(
  processes: readonly { readonly name: string; readonly pid: number; ask(): Promise<unknown> }[],
  folder: string,
): Promise<void> {
  if (Bun.which("perf") === null) return note("perf is not installed: no profile");
  mkdirSync(folder, { recursive: true });
  for (const { name, pid, ask } of processes) {
    const file = join(folder, `${name}.perf`);
    const perf = Bun.spawn(["perf", "record", "-q", "-e", "cpu-clock", "-F", "5000", "-p", String(pid), "-o", file], {
      stdout: "ignore",
      stderr: "ignore",
    });
    await Bun.sleep(500);
    await ask();
    perf.kill("SIGINT");
    await perf.exited;
    const report = Bun.spawnSync(["perf", "report", "-q", "--stdio", "-i", file, "--sort", "dso,sym", "-t", ";"], {
      stderr: "ignore",
    });
    const shares = sharesOf(report.stdout.toString());
    if (shares.length === 0) return note("perf counts nothing on this machine: no profile");
    note(`${name}'s CPU: ${shares.map(([what, percent]) => `${what} ${percent.toFixed(0)} %`).join(", ")}`);
  }
}

function sharesOf(report: string): (readonly [string, number])[] {
  const shares = new Map<string, number>();
  for (const line of report.split("\n")) {
    const [percent, dso = "", symbol = ""] = line.split(";").map((part) => part.trim());
    const value = Number.parseFloat(percent ?? "");
    if (Number.isNaN(value)) continue;
    const what = whatOf(dso, symbol);
    shares.set(what, (shares.get(what) ?? 0) + value);
  }
  return [...shares].sort(([, a], [, b]) => b - a).filter(([, value]) => value >= 0.5);
}

function whatOf(dso: string, symbol: string): string {
  if (dso.startsWith("[kernel")) {
    const [what = "other"] = KERNEL.find(([, pattern]) => pattern.test(symbol)) ?? [];
    return `kernel: ${what}`;
  }
  if (/^\[?(JIT|anon|unknown)|^\/\/anon|perf-\d+\.map/.test(dso)) return "compiled just in time";
  if (dso.startsWith("libc")) return "libc";
  if (dso.startsWith("[vdso")) return "the clock";
  return "its own machine code";
}
