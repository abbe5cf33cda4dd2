/**
 * What makes a file system one machine and no other, and how it is wiped.
 *
 * Two devices from one image with any of it left are one machine twice: they
 * would speak with one certificate and answer with one key. What was only seen
 * or logged on the way is wiped too, and is no reason to refuse an image.
 *
 * Not wiped: images in containerd's store, which builders put there.
 */

import * as v from "valibot";
import { DEFAULT_STATE_DIR } from "../../config/places.ts";
import {
  CONFIG_FILE,
  DIRECT_DROP_IN,
  KUBELET_DROP_IN,
  KUBELET_KUBECONFIG,
  POD_WAY_FILE,
  SEAL_KEY_NAME,
} from "../places.ts";
import type { RootTree } from "./root-tree.ts";

/** One thing that is this machine's alone. */
export interface Identity {
  /** The target's path. */
  readonly path: string;
  /** In words, for a person: "an SSH host key". */
  readonly what: string;
  /** Whether two machines must never share it; else it is a trace, wiped and not refused. */
  readonly isLive: boolean;
}

/** Where systemd's id stands; empty means: made at the next boot, without the questions of a first boot. */
const MACHINE_ID = "/etc/machine-id";

/** Whole paths, and folders whose content goes. */
const PLACES: readonly (Identity & { readonly isFolder?: true })[] = [
  { path: "/etc/kubernetes/kubelet.conf", what: "kubelet's kubeconfig", isLive: true },
  { path: "/etc/kubernetes/bootstrap-kubelet.conf", what: "a bootstrap token", isLive: true },
  { path: "/var/lib/kubelet/config.yaml", what: "kubelet's configuration of a cluster", isLive: true },
  { path: "/var/lib/kubelet/instance-config.yaml", what: "kubelet's configuration of this machine", isLive: true },
  { path: "/var/lib/kubelet/kubeadm-flags.env", what: "kubelet's name and labels", isLive: true },
  { path: "/etc/kubernetes/pki/ca.crt", what: "the CA of a cluster that was joined", isLive: true },
  { path: "/var/lib/kubelet/pki", what: "kubelet's keys", isLive: true, isFolder: true },
  { path: KUBELET_KUBECONFIG, what: "kubelet's way through Holdfast", isLive: true },
  { path: KUBELET_DROP_IN, what: "kubelet's way through Holdfast", isLive: true },
  { path: DIRECT_DROP_IN, what: "kubelet's way past Holdfast", isLive: false },
  { path: POD_WAY_FILE, what: "the pods' way through Holdfast", isLive: false },
  { path: `/etc/credstore/${SEAL_KEY_NAME}`, what: "the key that seals what Holdfast keeps", isLive: true },
  { path: `/etc/credstore.encrypted/${SEAL_KEY_NAME}`, what: "the key that seals what Holdfast keeps", isLive: true },
  { path: "/var/lib/systemd/credential.secret", what: "systemd's key for credentials", isLive: true },
  { path: "/var/lib/NetworkManager/secret_key", what: "NetworkManager's key", isLive: true },
  { path: "/var/lib/kubelet/pods", what: "volumes of pods", isLive: false, isFolder: true },
  { path: "/var/lib/systemd/random-seed", what: "a seed of random numbers", isLive: false },
  { path: "/var/lib/systemd/timesync", what: "the last known time", isLive: false, isFolder: true },
  { path: "/var/log/journal", what: "the journal", isLive: false, isFolder: true },
  { path: "/var/lib/dhcp", what: "DHCP leases", isLive: false, isFolder: true },
];

/** Everything of that kind in a tree, in the order in which it is named to a person. */
export function identitiesIn(tree: RootTree): Identity[] {
  const found: Identity[] = [];
  for (const folder of stateFolders(tree))
    for (const name of tree.list(folder))
      if (name !== "lost+found") found.push({ path: `${folder}/${name}`, what: "Holdfast's state", isLive: true });
  for (const { path, what, isLive, isFolder } of PLACES) {
    if (isFolder === true) for (const name of tree.list(path)) found.push({ path: `${path}/${name}`, what, isLive });
    else if (tree.kind(path) !== undefined) found.push({ path, what, isLive });
  }
  for (const name of tree.list("/etc/ssh"))
    if (/^ssh_host_.*_key(\.pub)?$/.test(name))
      found.push({ path: `/etc/ssh/${name}`, what: "an SSH host key", isLive: true });
  if (/^[0-9a-f]{32}$/.test(machineIdOf(tree)))
    found.push({ path: MACHINE_ID, what: "systemd's machine id", isLive: true });
  // A link leads to the other one.
  if (tree.kind("/var/lib/dbus/machine-id") === "file")
    found.push({ path: "/var/lib/dbus/machine-id", what: "D-Bus's machine id", isLive: true });
  return found;
}

/** Wipes one of them. */
export function wipe(tree: RootTree, { path }: Identity): void {
  if (path === MACHINE_ID) tree.write(path, "", 0o444);
  else tree.remove(path);
}

function machineIdOf(tree: RootTree): string {
  return tree.read(MACHINE_ID)?.toString("latin1").trim() ?? "";
}

const configSchema = v.looseObject({ stateDir: v.pipe(v.string(), v.regex(/^\/[^/]/)) });

/** The usual state folder, and the one that the tree's configuration names. */
function stateFolders(tree: RootTree): string[] {
  const usual = DEFAULT_STATE_DIR;
  const text = tree.read(CONFIG_FILE)?.toString("utf8");
  if (text === undefined) return [usual];
  try {
    const named = v.safeParse(configSchema, Bun.YAML.parse(text));
    return named.success && named.output.stateDir !== usual ? [usual, named.output.stateDir] : [usual];
  } catch {
    // Damaged: `provision` and the daemon say so.
    return [usual];
  }
}
