/**
 * Adopts, reverts or joins a machine in a folder, in a process of its own that
 * can be killed at a step: bun adopt-process.ts adopt|revert|join JSON
 */

import { adopt, isAdopted, revert } from "../../src/machine/adopt.ts";
import type { Machine } from "../../src/machine/machine.ts";
import { join } from "../../src/machine/join.ts";
import type { JoinOptions } from "../../src/machine/join-options.ts";
import { preflight, preflightBare } from "../../src/machine/preflight.ts";

const [, , command, text = "{}"] = process.argv;
const options = JSON.parse(text) as {
  root: string;
  stateDir: string;
  server: string;
  control: string;
  killAt?: string;
  join?: JoinOptions;
};
let nowMs = 0;
const machine: Machine = {
  root: options.root,
  async systemctl(...args) {
    return (await fetch(`${options.control}/systemctl`, { method: "POST", body: args.join(" ") })).ok;
  },
  async containers() {
    return (await fetch(`${options.control}/containers`)).json().catch(() => undefined) as Promise<
      string[] | undefined
    >;
  },
  async stopContainer() {},
  nowMs: () => nowMs,
  async wait(ms) {
    nowMs += ms;
  },
  onStep(step) {
    if (step === options.killAt) process.kill(process.pid, "SIGKILL");
  },
};

async function run(): Promise<unknown> {
  if (command === "revert") return { reverted: await revert(machine, options.stateDir) };
  if (command === "join") {
    const { unit } = preflightBare(machine, true);
    return { node: await join(options.join!, { machine, hostName: "raspberrypi", unit: unit!, ...options }) };
  }
  if (isAdopted(machine, options.stateDir)) return { already: true };
  const { objections, unit } = await preflight(machine, true);
  if (objections.length > 0) return { objections };
  return { node: (await adopt(machine, options, unit!)).node.name };
}

console.log(JSON.stringify(await run().catch((error: Error) => ({ error: error.message }))));
