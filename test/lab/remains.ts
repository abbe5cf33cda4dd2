/**
 * What a node's programs leave behind when they are killed: mounts, and shims
 * that outlive their containerd. Both are known by the folder they belong to.
 */
import { readdirSync, readFileSync } from "node:fs";

/** Unmounts all below a folder: root filesystems, tmpfs volumes, network namespaces. */
export function unmountBelow(directory: string): void {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  for (const mount of mounts.filter((path) => path.startsWith(`${directory}/`)).toReversed())
    Bun.spawnSync(["umount", "-l", mount]);
}

/** Kills the shims whose containerd listens below a folder. */
export function killShims(directory: string): void {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const [program = "", ...args] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      const isOurs = args.some((arg) => arg.startsWith(`${directory}/`));
      if (program.includes("containerd-shim") && isOurs) process.kill(Number(pid), "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
}
