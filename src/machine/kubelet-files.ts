/**
 * Kubelet's unit as kubeadm's packages lay it out, and our files beside it.
 *
 * kubeadm hands kubelet its kubeconfig in a variable of a drop-in. Ours sorts
 * behind it and says the variable anew, so that no file of kubeadm's changes.
 * `--bootstrap-kubeconfig` is left out on our way: with an expired certificate
 * it would send a kubelet that is cut off into a bootstrap that cannot end.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { EdgeError } from "../base/errors.ts";
import { placeOf, textAt, type Machine } from "./machine.ts";
import {
  KUBELET_DROP_IN,
  KUBELET_ENDED_FILE,
  KUBELET_KUBECONFIG,
  KUBELET_SERVING_DROP_IN,
  UNIT_DIR,
} from "./places.ts";

/** Kubelet's kubeconfig is not one that can be led elsewhere. */
export class KubeletFilesError extends EdgeError {
  override readonly name = "KubeletFilesError";
  readonly code = "KUBELET_FILES";
}

const VARIABLE = "KUBELET_KUBECONFIG_ARGS";
const OUR_ARGS = `--kubeconfig=${KUBELET_KUBECONFIG}`;
/** In systemd's order: of two of one name the first folder's counts. */
const UNIT_DIRS = [
  UNIT_DIR,
  "/run/systemd/system",
  "/usr/local/lib/systemd/system",
  "/usr/lib/systemd/system",
  "/lib/systemd/system",
];

/** How kubelet is started. */
export interface KubeletUnit {
  /** The variable's value without us; undefined where no file says it. */
  readonly args: string | undefined;
  /** The kubeconfig it names. */
  readonly kubeconfig: string | undefined;
  /** Whether the last ExecStart goes by the variable. */
  readonly goesByVariable: boolean;
  /** A file that sorts behind ours and says the variable too. */
  readonly later: string | undefined;
}

/** Reads kubelet's unit and drop-ins, as systemd would, without ours. */
export function readKubeletUnit(machine: Machine): KubeletUnit {
  let args: string | undefined;
  let execStart = "";
  let later: string | undefined;
  const own = basename(KUBELET_DROP_IN);
  for (const path of kubeletUnitFiles(machine)) {
    if (/^zzz?-holdfast/.test(basename(path))) continue;
    const text = readFileSync(placeOf(machine, path), "utf8");
    for (const [, start] of text.matchAll(/^ExecStart=(.+)$/gm)) execStart = start!;
    const said = [...text.matchAll(new RegExp(`^Environment="?${VARIABLE}=([^"\n]*)"?$`, "gm"))].at(-1)?.[1];
    if (said === undefined) continue;
    args = said;
    if (path.includes(".d/") && basename(path) > own) later = path;
  }
  const [, kubeconfig] = /(?:^| )--kubeconfig[= ](\S+)/.exec(args ?? "") ?? [];
  return { args, kubeconfig, later, goesByVariable: execStart.includes(`$${VARIABLE}`) };
}

/** The unit, then its drop-ins in the order of their names. */
function kubeletUnitFiles(machine: Machine): string[] {
  const unit = UNIT_DIRS.map((folder) => `${folder}/kubelet.service`).find((path) =>
    existsSync(placeOf(machine, path)),
  );
  const dropIns = new Map<string, string>();
  for (const folder of UNIT_DIRS.map((one) => `${one}/kubelet.service.d`)) {
    if (!existsSync(placeOf(machine, folder))) continue;
    for (const name of readdirSync(placeOf(machine, folder)))
      if (name.endsWith(".conf") && !dropIns.has(name)) dropIns.set(name, join(folder, name));
  }
  const sorted = [...dropIns].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path);
  return unit === undefined ? sorted : [unit, ...sorted];
}

/** Puts kubelet on our way. */
export function kubeletDropIn(): string {
  return `# Made by "holdfast adopt"; "holdfast revert" takes it away.
[Unit]
Wants=holdfast.service
After=holdfast.service

[Service]
Environment="${VARIABLE}=${OUR_ARGS}"
# Once kubelet's certificate has ended in a cut it has to be told to show it all the same.
EnvironmentFile=-${KUBELET_ENDED_FILE}
`;
}

/** The variable on our way: as the drop-in for kubelet's serving certificate says it where there is one, else as ours does. */
export function kubeletArgs(machine: Pick<Machine, "root">): string {
  const serving = textAt(machine, KUBELET_SERVING_DROP_IN) ?? "";
  return new RegExp(`^Environment="?${VARIABLE}=([^"\n]*)"?$`, "m").exec(serving)?.[1] ?? OUR_ARGS;
}

/** The variable as it was: what bypass.sh puts behind ours. */
export function directDropIn(args: string): string {
  return `# Made by "holdfast adopt", for bypass.sh.
[Service]
Environment="${VARIABLE}=${args}"
`;
}

interface Named {
  name?: string;
}
interface Document {
  "current-context"?: string;
  contexts?: (Named & { context?: { cluster?: string; user?: string } })[];
  clusters?: (Named & { cluster?: Record<string, unknown> })[];
  users?: (Named & { user?: Record<string, unknown> })[];
}

/**
 * Kubelet's kubeconfig, led to us: its own certificate files, our address and CA.
 *
 * @throws {KubeletFilesError} when it holds its certificate itself: kubelet's renewals would not be followed.
 */
export function kubeletKubeconfig(own: string, server: string, caPath: string): string {
  const document = Bun.YAML.parse(own) as Document;
  const context = document.contexts?.find(({ name }) => name === document["current-context"])?.context;
  const user = document.users?.find(({ name }) => name === context?.user)?.user;
  const pair = { certificate: user?.["client-certificate"], key: user?.["client-key"] };
  if (typeof pair.certificate !== "string" || typeof pair.key !== "string")
    throw new KubeletFilesError(
      "Cannot lead kubelet's kubeconfig elsewhere: it names no files client-certificate and client-key, which kubelet renews",
    );
  const content = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "holdfast", cluster: { server, "certificate-authority": caPath } }],
    users: [{ name: "kubelet", user: { "client-certificate": pair.certificate, "client-key": pair.key } }],
    contexts: [{ name: "holdfast", context: { cluster: "holdfast", user: "kubelet" } }],
    "current-context": "holdfast",
  };
  return `${JSON.stringify(content, undefined, 2)}\n`;
}
