/**
 * Putting a node that kubeadm joined behind Holdfast, and taking it back.
 *
 *   written down -> files of ours -> daemon up -> node compared both ways
 *     -> kubelet's drop-in -> kubelet restarted -> node judged -> adopted
 *
 * Each turn stands in the journal before it is taken, with every file as it
 * was; each step may be taken twice. Killed anywhere, kubelet runs its old way
 * or ours, and the next `adopt` goes on, the next `revert` takes back. What
 * goes wrong from the first file on takes itself back. kubeadm's files are
 * read and never written.
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { EdgeError } from "../base/errors.ts";
import { reasonOf } from "../uplink/upstream.ts";
import { captured, put, putBack, readJournal, removeFolders, writeJournal, type Journal } from "./journal.ts";
import { directDropIn, kubeletDropIn, kubeletKubeconfig, type KubeletUnit } from "./kubelet-files.ts";
import { placeOf, type Machine } from "./machine.ts";
import { isKnownByWay, lookByWay, lostPods, type NodeView } from "./node-way.ts";
import { BYPASS_DROP_IN, CONFIG_FILE, DIRECT_DROP_IN, KUBELET_DROP_IN, KUBELET_KUBECONFIG } from "./places.ts";

/** The node was not adopted, and everything is as before. */
export class AdoptError extends EdgeError {
  override readonly name = "AdoptError";
  readonly code = "ADOPT";
}

/** Not everything could be taken back yet. */
export class RevertError extends EdgeError {
  override readonly name = "RevertError";
  readonly code = "REVERT";
}

/** Where the daemon is. */
export interface AdoptOptions {
  readonly stateDir: string;
  /** https://127.0.0.1:10268 */
  readonly server: string;
  /** Nobody has seen the node yet: kubelet has never run. There is nothing to compare, and nothing that could be lost. */
  readonly isNew?: boolean;
}

const UNITS = ["holdfast.service", "holdfast-bypass.timer"];
const FILES = [CONFIG_FILE, KUBELET_KUBECONFIG, DIRECT_DROP_IN, KUBELET_DROP_IN];
/** How long the daemon may take to show the node. */
const DAEMON_MS = 60_000;
/** How long kubelet may take to renew its lease through us. */
const JUDGED_MS = 90_000;
const LOOK_EVERY_MS = 1_000;

/** Whether the node is adopted, by the journal and by kubelet's own drop-in. */
export function isAdopted(machine: Machine, stateDir: string): boolean {
  return readJournal(stateDir)?.phase === "adopted" && existsSync(placeOf(machine, KUBELET_DROP_IN));
}

/**
 * Adopts the node, or goes on where a former run was killed.
 *
 * @throws {AdoptError} when everything is back as before.
 * @throws {RevertError} when it could not be taken back whole.
 */
export async function adopt(machine: Machine, options: AdoptOptions, unit: KubeletUnit): Promise<NodeView> {
  const former = readJournal(options.stateDir);
  if (former?.phase === "reverting") await revert(machine, options.stateDir);
  const isGoingOn = former?.phase === "adopting" || former?.phase === "adopted";
  machine.onStep("journal");
  const journal = writeJournal(
    options.stateDir,
    isGoingOn
      ? { ...former, phase: "adopting" }
      : { version: 1, phase: "adopting", ...captured(machine, FILES), enabled: await enabledUnits(machine) },
  );
  try {
    const node = await takeSteps(machine, options, unit);
    machine.onStep("adopted");
    writeJournal(options.stateDir, { ...journal, phase: "adopted" });
    return node;
  } catch (error) {
    await revert(machine, options.stateDir);
    throw new AdoptError(`Cannot adopt this node: ${reasonOf(error)}; everything is as before`, { cause: error });
  }
}

async function takeSteps(machine: Machine, options: AdoptOptions, unit: KubeletUnit): Promise<NodeView> {
  const direct = placeOf(machine, unit.kubeconfig!);
  machine.onStep("files");
  // A configuration that is there is its owner's.
  if (!existsSync(placeOf(machine, CONFIG_FILE))) put(machine, CONFIG_FILE, configuration(direct), 0o600);
  const ca = `${options.stateDir}/pki/local-ca.crt`;
  put(machine, KUBELET_KUBECONFIG, kubeletKubeconfig(readFileSync(direct, "utf8"), options.server, ca), 0o600);
  put(machine, DIRECT_DROP_IN, directDropIn(unit.args!), 0o644);
  machine.onStep("daemon");
  await systemctl(machine, "daemon-reload");
  for (const name of UNITS) await systemctl(machine, "enable", "--now", name);
  machine.onStep("compare");
  const before = options.isNew === true ? undefined : await lookByWay(direct);
  const containers = await machine.containers();
  await until(machine, DAEMON_MS, () => compared(machine, before));
  machine.onStep("drop-in");
  endBypass(machine);
  put(machine, KUBELET_DROP_IN, kubeletDropIn(), 0o644);
  machine.onStep("kubelet");
  await systemctl(machine, "daemon-reload");
  await systemctl(machine, "restart", "kubelet");
  machine.onStep("judge");
  if (before !== undefined) {
    await until(machine, JUDGED_MS, async () => judged(machine, before, containers));
    return before;
  }
  let node: NodeView | undefined;
  await until(machine, JUDGED_MS, async () => {
    node = await lookByWay(placeOf(machine, KUBELET_KUBECONFIG));
    const { uid } = await lookByWay(direct);
    if (node.uid !== uid) return `node ${node.name} is another one through Holdfast than directly`;
    return node.renewTime === "" ? "kubelet has not made its lease" : undefined;
  });
  return node!;
}

/** What is still missing before kubelet may come through us. */
async function compared(machine: Machine, before: NodeView | undefined): Promise<string | undefined> {
  const kubeconfig = placeOf(machine, KUBELET_KUBECONFIG);
  if (before === undefined) {
    await isKnownByWay(kubeconfig);
    return undefined;
  }
  const through = await lookByWay(kubeconfig);
  return through.uid === before.uid && through.spec === before.spec
    ? undefined
    : `node ${before.name} is shown otherwise through Holdfast than directly`;
}

/** What is still missing; undefined when the node is as it was, by way of us. */
async function judged(
  machine: Machine,
  before: NodeView,
  containers: readonly string[] | undefined,
): Promise<string | undefined> {
  const now = await lookByWay(placeOf(machine, KUBELET_KUBECONFIG));
  if (now.renewTime === before.renewTime) return "kubelet has not renewed its lease";
  if (!now.isReady && before.isReady) return `node ${now.name} is not Ready`;
  const lost = lostPods(before, now);
  if (lost !== undefined) return lost;
  const present = containers === undefined ? undefined : await machine.containers();
  const gone = present === undefined ? undefined : containers?.find((id) => !present.includes(id));
  return gone === undefined ? undefined : `container ${gone} does not run any more`;
}

/**
 * Takes everything back, byte for byte; needs no link. Nothing to do is no fault.
 *
 * @returns whether there was something.
 * @throws {RevertError} the next run goes on.
 */
export async function revert(machine: Machine, stateDir: string): Promise<boolean> {
  const journal = readJournal(stateDir) ?? withoutJournal(machine);
  if (journal === undefined || journal.phase === "reverted") return false;
  const has = (path: string) => existsSync(placeOf(machine, path));
  const mayRunOurWay = journal.phase === "reverting" || has(KUBELET_DROP_IN) || has(BYPASS_DROP_IN);
  machine.onStep("reverting");
  writeJournal(stateDir, { ...journal, phase: "reverting" });
  const dropIn = journal.files.find(({ path }) => path === KUBELET_DROP_IN);
  machine.onStep("drop-in back");
  if (dropIn !== undefined) putBack(machine, dropIn);
  endBypass(machine);
  if (mayRunOurWay) {
    machine.onStep("kubelet back");
    await tell(machine, "daemon-reload");
    await tell(machine, "restart", "kubelet");
  }
  machine.onStep("daemon back");
  // The timer first: it must not see a daemon that is down on purpose.
  for (const name of UNITS.toReversed())
    if (!journal.enabled.includes(name)) await tell(machine, "disable", "--now", name);
  machine.onStep("files back");
  for (const file of journal.files) if (file !== dropIn) putBack(machine, file);
  removeFolders(machine, journal);
  machine.onStep("reverted");
  writeJournal(stateDir, { ...journal, phase: "reverted" });
  return true;
}

/** The state folder is gone, and kubelet still comes through us: our own files are known by their names. */
function withoutJournal(machine: Machine): Journal | undefined {
  if (!existsSync(placeOf(machine, KUBELET_DROP_IN))) return undefined;
  const files = FILES.filter((path) => path !== CONFIG_FILE).map((path) => ({ path, before: null }));
  return { version: 1, phase: "adopted", files, folders: [], enabled: UNITS };
}

function endBypass(machine: Machine): void {
  rmSync(placeOf(machine, BYPASS_DROP_IN), { force: true });
  rmSync(placeOf(machine, "/run/holdfast-bypass"), { recursive: true, force: true });
}

async function enabledUnits(machine: Machine): Promise<string[]> {
  const enabled: string[] = [];
  for (const name of UNITS) if (await machine.systemctl("is-enabled", "--quiet", name)) enabled.push(name);
  return enabled;
}

async function systemctl(machine: Machine, ...args: readonly string[]): Promise<void> {
  if (!(await machine.systemctl(...args))) throw new Error(`systemctl ${args.join(" ")} failed`);
}

async function tell(machine: Machine, ...args: readonly string[]): Promise<void> {
  if (await machine.systemctl(...args)) return;
  throw new RevertError(
    `Cannot take everything back yet: systemctl ${args.join(" ")} failed; mend that and run holdfast revert again`,
  );
}

/** Looks until nothing is missing. @throws {Error} with the last word of what was. */
async function until(machine: Machine, patienceMs: number, missing: () => Promise<string | undefined>): Promise<void> {
  const deadline = machine.nowMs() + patienceMs;
  for (;;) {
    const word = await missing().catch((error: unknown) => reasonOf(error));
    if (word === undefined) return;
    if (machine.nowMs() >= deadline) throw new Error(`${word}, ${patienceMs / 1_000} s long`);
    await machine.wait(LOOK_EVERY_MS);
  }
}

function configuration(kubeconfig: string): string {
  return `# Made by "holdfast adopt".
apiVersion: holdfast.dev/v1alpha1
kind: HoldfastConfiguration
kubeconfig: ${kubeconfig}
`;
}
