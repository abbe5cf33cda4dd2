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
import { fileOf } from "../config/config-file.ts";
import { findObject, type ApiWay } from "./api-ask.ts";
import { captured, put, putBack, readJournal, removeFolders, writeJournal, type Journal } from "./journal.ts";
import { directDropIn, kubeletDropIn, kubeletKubeconfig, type KubeletUnit } from "./kubelet-files.ts";
import { placeOf, type Machine } from "./machine.ts";
import { isKnownByWay, lookByWay, lostPods, wayOf, type NodeView } from "./node-way.ts";
import { leadAddOns, podServer, podWayOf, podWaySettings, type PodWay } from "./pod-way.ts";
import {
  BYPASS_DROP_IN,
  CONFIG_FILE,
  DIRECT_DROP_IN,
  KUBELET_DROP_IN,
  KUBELET_KUBECONFIG,
  KUBELET_SERVING_DROP_IN,
  POD_WAY_FILE,
} from "./places.ts";
import { until, wordsOf } from "./until.ts";

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
  /** Pods go on their own way: kubelet alone comes through us. */
  readonly withoutPods?: boolean;
}

/** What came of it. */
export interface Adopted {
  readonly node: NodeView;
  /** The add-ons that were started anew to come through us. */
  readonly led: readonly string[];
  /** Why they were not, though pods come this way. */
  readonly notLed?: string;
}

const UNITS = ["holdfast-pods.service", "holdfast.service", "holdfast-bypass.timer"];
const FILES = [CONFIG_FILE, KUBELET_KUBECONFIG, POD_WAY_FILE, DIRECT_DROP_IN, KUBELET_DROP_IN];
/** How long the daemon may take to show the node. */
const DAEMON_MS = 60_000;
/** How long kubelet may take to renew its lease through us. */
const JUDGED_MS = 90_000;
/** How long the pods' address may take to lead to us. */
const PODS_MS = 15_000;

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
export async function adopt(machine: Machine, options: AdoptOptions, unit: KubeletUnit): Promise<Adopted> {
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
    return { node, ...(await ledBy(machine, options, node)) };
  } catch (error) {
    await revert(machine, options.stateDir);
    throw new AdoptError(`Cannot adopt this node: ${wordsOf(error)}; everything is as before`, { cause: error });
  }
}

async function takeSteps(machine: Machine, options: AdoptOptions, unit: KubeletUnit): Promise<NodeView> {
  const direct = placeOf(machine, unit.kubeconfig!);
  machine.onStep("files");
  await putFiles(machine, options, { direct, args: unit.args! });
  machine.onStep("daemon");
  await systemctl(machine, "daemon-reload");
  for (const name of UNITS) await systemctl(machine, "enable", "--now", name);
  machine.onStep("compare");
  const before = options.isNew === true ? undefined : await lookByWay(direct);
  const containers = await machine.containers();
  await until(machine, DAEMON_MS, () => compared(machine, before));
  await podsReach(machine, options);
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

async function putFiles(
  machine: Machine,
  { server, stateDir, withoutPods }: AdoptOptions,
  { direct, args }: { readonly direct: string; readonly args: string },
): Promise<void> {
  const { way } = wayOf(direct);
  const found = withoutPods === true ? undefined : await podWayOf(way);
  // A configuration that is there is its owner's.
  if (!existsSync(placeOf(machine, CONFIG_FILE))) put(machine, CONFIG_FILE, configuration(direct, found), 0o600);
  const pods = podWay(machine);
  if (pods !== undefined && found !== undefined && pods.serviceAddress !== found.serviceAddress)
    throw new AdoptError(
      `podAccess.serviceAddress in ${CONFIG_FILE} is ${pods.serviceAddress}, and the cluster's Service default/kubernetes has ${found.serviceAddress}: correct it, or take podAccess away`,
    );
  if (pods !== undefined) put(machine, POD_WAY_FILE, podWaySettings(pods, way.server), 0o644);
  const ca = localCa(stateDir);
  put(machine, KUBELET_KUBECONFIG, kubeletKubeconfig(readFileSync(direct, "utf8"), server, ca), 0o600);
  put(machine, DIRECT_DROP_IN, directDropIn(args), 0o644);
}

/** The pods' way, as the configuration has it. */
function podWay(machine: Machine): PodWay | undefined {
  return fileOf(placeOf(machine, CONFIG_FILE), {}).podAccess;
}

const localCa = (stateDir: string) => `${stateDir}/pki/local-ca.crt`;

/** Nobody is sent on a way that leads nowhere. */
async function podsReach(machine: Machine, { stateDir }: AdoptOptions): Promise<void> {
  const pods = podWay(machine);
  if (pods === undefined) return;
  const { own, way } = wayOf(placeOf(machine, KUBELET_KUBECONFIG));
  const asPods: ApiWay = { ...way, server: podServer(pods), ca: readFileSync(localCa(stateDir), "utf8") };
  try {
    await until(machine, PODS_MS, async () => {
      await findObject(asPods, `/api/v1/nodes/${encodeURIComponent(own.name)}`);
      return undefined;
    });
  } catch (error) {
    throw new AdoptError(
      `pods would not reach Holdfast at ${asPods.server} (${(error as Error).message}); see: systemctl status holdfast-pods; without them: --ignore=pod-access`,
    );
  }
}

/** The add-ons; the node is adopted, whatever becomes of them. */
async function ledBy(machine: Machine, { stateDir }: AdoptOptions, node: NodeView): Promise<Omit<Adopted, "node">> {
  const pods = podWay(machine);
  if (pods === undefined) return { led: [] };
  machine.onStep("add-ons");
  const { way: through } = wayOf(placeOf(machine, KUBELET_KUBECONFIG));
  const caPem = readFileSync(localCa(stateDir), "utf8");
  try {
    return { led: await leadAddOns(machine, pods, { through, nodeName: node.name, caPem }) };
  } catch (error) {
    return { led: [], notLed: (error as Error).message };
  }
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
  rmSync(placeOf(machine, KUBELET_SERVING_DROP_IN), { force: true });
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

function configuration(kubeconfig: string, pods: PodWay | undefined): string {
  return `# Made by "holdfast adopt".
apiVersion: holdfast.dev/v1alpha1
kind: HoldfastConfiguration
kubeconfig: ${kubeconfig}
${
  pods === undefined
    ? ""
    : `podAccess: {serviceAddress: ${JSON.stringify(pods.serviceAddress)}, listen: ${JSON.stringify(pods.listen)}}
`
}`;
}
