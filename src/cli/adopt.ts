/**
 * `holdfast adopt` and `holdfast revert`: a node that kubeadm joined goes behind Holdfast, and back.
 */

import { existsSync } from "node:fs";
import { adopt, isAdopted, revert, type Adopted } from "../machine/adopt.ts";
import { thisMachine } from "../machine/machine.ts";
import { CONFIG_FILE } from "../machine/places.ts";
import { MAY_IGNORE, POD_ACCESS, preflight, type Objection } from "../machine/preflight.ts";
import { ConfigError } from "../config/config-error.ts";
import { fileOf } from "../config/config-file.ts";
import { loadPlaces } from "../config/places.ts";
import { ADOPT_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { complain, print, short } from "./terminal.ts";

const DEFAULT_LISTEN = "127.0.0.1:10268";
/** A step in words; the ones that say nothing to a person are left out. */
const STEPS: Readonly<Record<string, string>> = {
  discover: "asking for the cluster, and holding it against the pin",
  certificate: "asking for this node's certificate",
  daemon: "starting Holdfast",
  compare: "reading this node directly and through Holdfast",
  kubelet: "restarting kubelet, containers go on",
  "add-ons": "waiting for kube-proxy and CoreDNS to come through Holdfast",
  judge: "waiting for kubelet's lease, the node and its pods",
  "kubelet back": "kubelet goes back its own way",
};

/** This one, its steps said in words. */
export const machine = () =>
  thisMachine((step) => (STEPS[step] === undefined ? undefined : print(`${STEPS[step]} ...`)));

/** Adopts this node. @returns 0 adopted, 1 not (all is as before), 5 a check stood in the way. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, ADOPT_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  return adoptThisNode(ignoredOf(values.ignore));
}

/** The checks that --ignore names. @throws {UsageError} */
export function ignoredOf(ids: readonly string[] = []): readonly string[] {
  const unknown = ids.find((id) => !MAY_IGNORE.includes(id));
  if (unknown !== undefined)
    throw new UsageError(`--ignore: '${unknown}' cannot be ignored; expected ${MAY_IGNORE.join(" or ")}`);
  return ids;
}

/** Adopts it. @param mayBeNew kubelet may not have run yet. @returns as `command`. */
export async function adoptThisNode(ignored: readonly string[], mayBeNew = false): Promise<number> {
  const places = placesOf();
  const node = machine();
  if (process.getuid?.() === 0 && isAdopted(node, places.stateDir)) {
    print("This node is adopted already. See: holdfast status");
    return 0;
  }
  const { objections, unit, isNew } = await preflight(node, process.getuid?.() === 0, mayBeNew);
  if (complained("adopt", objections, ignored) || unit === undefined) return 5;
  const adopted = await adopt(node, { ...places, isNew, withoutPods: ignored.includes(POD_ACCESS) }, unit);
  saidOfPods(adopted);
  print(`Node ${short(adopted.node.name)} is behind Holdfast. See: holdfast status; the way back: holdfast revert`);
  return 0;
}

function saidOfPods({ led, notLed }: Adopted): void {
  if (led.length > 0) print(`Started anew once, to come through Holdfast: ${led.join(", ")}`);
  if (notLed === undefined) return;
  complain(`kube-proxy and CoreDNS come through Holdfast from their next start on: ${short(notLed, 300)}`);
  complain("Until then Services and names do not survive a reboot while cut; see: crictl ps");
}

/** Says what stands in the way. @returns whether anything does. */
export function complained(
  command: "adopt" | "join",
  objections: readonly Objection[],
  ignored: readonly string[],
): boolean {
  const standing = objections.filter(({ id, mayIgnore }) => !mayIgnore || !ignored.includes(id));
  for (const { id, problem, next, mayIgnore } of standing) {
    complain(`holdfast ${command}: [${id}] ${short(problem, 600)}`);
    complain(mayIgnore ? `${next}; or --ignore=${id}` : next);
  }
  return standing.length > 0;
}

/** Takes this node back. @returns 0, also when there was nothing to take back. */
export async function takeBack(args: readonly string[]): Promise<number> {
  const { positionals } = readFlags(args, {});
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  if (process.getuid?.() !== 0) {
    complain("holdfast revert: only root may change kubelet's unit");
    complain("Run it with sudo");
    return 1;
  }
  const wasThere = await revert(machine(), placesOf().stateDir);
  print(
    wasThere
      ? "Kubelet goes its own way again; every file is as it was before"
      : "This node is not adopted: nothing to take back",
  );
  return 0;
}

/** Where the unit's daemon keeps its state and listens. */
export function placesOf(): { readonly stateDir: string; readonly server: string } {
  if (!existsSync(CONFIG_FILE)) return { stateDir: loadPlaces({}, {}).stateDir, server: `https://${DEFAULT_LISTEN}` };
  try {
    const { stateDir } = loadPlaces({ config: CONFIG_FILE }, {});
    const [listen = DEFAULT_LISTEN] = [fileOf(CONFIG_FILE, {}).listen ?? []].flat();
    return { stateDir, server: `https://${listen.split(",")[0]!.trim()}` };
  } catch (error) {
    if (error instanceof ConfigError) throw new UsageError(error.message);
    throw error;
  }
}
