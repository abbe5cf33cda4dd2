/**
 * A cgroup of the lab's own, under which kubelet puts every pod.
 *
 * Whatever runs in a container is found and ended by it, even when the
 * programs that started it are gone. Version 2 has one tree; version 1, and the
 * hybrid of both, has one for each controller, and kubelet wants its root in all.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = "/sys/fs/cgroup";
const V2_CONTROLLERS = "+cpuset +cpu +io +memory +pids";

/** Makes the cgroup in every hierarchy. */
export function makeCgroup(name: string): void {
  if (existsSync(join(ROOT, "cgroup.controllers"))) {
    writeFileSync(join(ROOT, "cgroup.subtree_control"), V2_CONTROLLERS);
    mkdirSync(join(ROOT, name), { recursive: true });
    return writeFileSync(join(ROOT, name, "cgroup.subtree_control"), V2_CONTROLLERS);
  }
  for (const hierarchy of hierarchies()) mkdirSync(join(hierarchy, name), { recursive: true });
  // A new v1 cpuset is empty, and nothing can run in it.
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    const from = join(ROOT, "cpuset", file);
    if (existsSync(from)) writeFileSync(join(ROOT, "cpuset", name, file), readFileSync(from, "utf8"));
  }
}

/** The files that take a process into it, one for each hierarchy. */
export function cgroupLists(name: string): string[] {
  return hierarchies().map((hierarchy) => join(hierarchy, name, "cgroup.procs"));
}

/** Kills all that runs below it and removes it. */
export function clearCgroup(name: string): void {
  const roots = hierarchies()
    .map((hierarchy) => join(hierarchy, name))
    .filter((path) => existsSync(path));
  for (const root of roots) {
    for (const path of below(root)) for (const pid of processesIn(path)) kill(pid);
  }
  // Its files vanish with it; a cgroup whose processes are still ending is busy for a moment.
  for (let attempt = 0; attempt < 50 && roots.some((root) => existsSync(root)); attempt += 1) {
    for (const root of roots.filter((path) => existsSync(path))) for (const path of below(root)) removeIfEmpty(path);
    Bun.sleepSync(100);
  }
}

function hierarchies(): string[] {
  if (existsSync(join(ROOT, "cgroup.controllers"))) return [ROOT];
  return readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(ROOT, entry.name));
}

/** The folder and all below it, deepest first. */
function below(path: string): string[] {
  const children = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...children.flatMap((entry) => below(join(path, entry.name))), path];
}

function processesIn(path: string): number[] {
  const file = join(path, "cgroup.procs");
  return existsSync(file)
    ? readFileSync(file, "utf8")
        .split("\n")
        .filter((line) => line !== "")
        .map(Number)
    : [];
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Busy; the next attempt finds it.
  }
}
