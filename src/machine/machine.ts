/**
 * What adopting touches of a machine, so that a test can hand in another one.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A machine: its files below a root, its programs, its time. */
export interface Machine {
  /** "/" */
  readonly root: string;
  /** Runs systemctl. @returns whether it was content. */
  systemctl(...args: readonly string[]): Promise<boolean>;
  /** The ids of running containers, of all or of this name, as the container runtime says; undefined where nobody can tell. */
  containers(name?: string): Promise<readonly string[] | undefined>;
  /** Ends a container; kubelet starts another in its place. */
  stopContainer(id: string): Promise<void>;
  nowMs(): number;
  wait(ms: number): Promise<void>;
  /** Hears each step before it is taken. */
  onStep(step: string): void;
}

/** A path of the machine. */
export function placeOf({ root }: Pick<Machine, "root">, path: string): string {
  return root === "/" ? path : join(root, path);
}

/** What stands in a file of it; undefined where it is not there or cannot be read. */
export function textAt(machine: Pick<Machine, "root">, path: string): string | undefined {
  try {
    return readFileSync(placeOf(machine, path), "utf8");
  } catch {
    return undefined;
  }
}

/** The machine that this runs on. */
export function thisMachine(onStep: (step: string) => void): Machine {
  return {
    root: "/",
    async systemctl(...args) {
      const child = Bun.spawn(["systemctl", ...args], { stdout: "ignore", stderr: "ignore" });
      return (await child.exited) === 0;
    },
    async containers(name) {
      const crictl = Bun.which("crictl");
      if (crictl === null) return undefined;
      const named = name === undefined ? [] : ["--name", `^${name}$`];
      const child = Bun.spawn([crictl, "ps", "-q", ...named], { stdout: "pipe", stderr: "ignore", timeout: 10_000 });
      const text = await new Response(child.stdout).text();
      return (await child.exited) === 0 ? text.split("\n").filter((id) => id !== "") : undefined;
    },
    async stopContainer(id) {
      const child = Bun.spawn(["crictl", "stop", id], { stdout: "ignore", stderr: "ignore", timeout: 60_000 });
      await child.exited;
    },
    nowMs: () => performance.now(),
    wait: (ms) => Bun.sleep(ms),
    onStep,
  };
}
