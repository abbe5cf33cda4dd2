/**
 * What must hold before a node is adopted: named checks, each with what to do.
 *
 * The ones that say what kind of machine this is come first; after one of
 * those nothing else is worth saying.
 */

import { existsSync, readFileSync } from "node:fs";
import { reasonOf } from "../uplink/upstream.ts";
import type { KubeletUnit } from "./kubelet-files.ts";
import { kubeletKubeconfig, readKubeletUnit } from "./kubelet-files.ts";
import { placeOf, type Machine } from "./machine.ts";
import { lookByWay, type NodeView } from "./node-way.ts";
import { BYPASS_PATH, KUBELET_DROP_IN, UNIT_DIR } from "./places.ts";

/** A check that did not hold. */
export interface Objection {
  readonly id: string;
  readonly problem: string;
  readonly next: string;
  /** Whether --ignore=ID passes it. */
  readonly mayIgnore: boolean;
}

/** What the checks have found out on their way. */
export interface Found {
  readonly objections: readonly Objection[];
  readonly unit: KubeletUnit | undefined;
  readonly node: NodeView | undefined;
}

/** The ids that --ignore takes. */
export const MAY_IGNORE: readonly string[] = ["node-ready", "bypass"];

/** Kubernetes distributions that start kubelet themselves: where they show, and what works there. */
const OTHERS = [
  {
    name: "k3s",
    marks: ["/var/lib/rancher/k3s", "/etc/rancher/k3s"],
    words:
      "its agent writes kubelet's kubeconfig anew at each start, and waits at boot for its server before it starts kubelet: a reboot while cut cannot be helped by what stands in front of kubelet",
  },
  {
    name: "RKE2",
    marks: ["/var/lib/rancher/rke2", "/etc/rancher/rke2"],
    words:
      "its agent writes kubelet's kubeconfig anew at each start, and waits at boot for its server before it starts kubelet: a reboot while cut cannot be helped by what stands in front of kubelet",
  },
  {
    name: "k0s",
    marks: ["/var/lib/k0s"],
    words:
      "its worker waits at boot for a ConfigMap from the control plane before it starts kubelet: a reboot while cut cannot be helped by what stands in front of kubelet",
  },
  {
    name: "MicroK8s",
    marks: ["/var/snap/microk8s"],
    words: "its snap holds kubelet's arguments, and a refresh of the snap may put them back at any time",
  },
] as const;

/** Runs them all. */
export async function preflight(machine: Machine, isRoot: boolean): Promise<Found> {
  const kind = isRoot
    ? wrongKind(machine)
    : objection("root", "only root may change kubelet's unit", "Run it with sudo");
  if (kind !== undefined) return { objections: [kind], unit: undefined, node: undefined };
  const unit = readKubeletUnit(machine);
  const objections = [...unitObjections(machine, unit), ...ownFiles(machine)];
  if (objections.some(({ mayIgnore }) => !mayIgnore)) return { objections, unit, node: undefined };
  const node = await lookByWay(placeOf(machine, unit.kubeconfig!)).catch((error: unknown) => {
    objections.push(
      objection(
        "api-server",
        `the API server does not answer directly (${reasonOf(error)})`,
        "Adopt while the link is there: nothing can be compared without it",
      ),
    );
    return undefined;
  });
  if (node?.isReady === false)
    objections.push(
      objection("node-ready", `node ${node.name} is not Ready`, "Mend that first: see journalctl -u kubelet", true),
    );
  return { objections, unit, node };
}

function wrongKind(machine: Machine): Objection | undefined {
  const has = (path: string) => existsSync(placeOf(machine, path));
  if (has("/var/lib/kubelet/config.yaml") && has("/etc/kubernetes/kubelet.conf")) return undefined;
  const other = OTHERS.find(({ marks }) => marks.some(has));
  if (other === undefined)
    return objection(
      "distribution",
      "no node that kubeadm joined: /var/lib/kubelet/config.yaml or /etc/kubernetes/kubelet.conf is missing",
      "Join the node first: kubeadm join",
    );
  return objection(
    "distribution",
    `this is ${other.name}: ${other.words}`,
    "holdfast run serves other clients here, by a kubeconfig of their own; kubelet stays as it is, and nothing was changed",
  );
}

function unitObjections(machine: Machine, unit: KubeletUnit): Objection[] {
  const { args, kubeconfig, goesByVariable, later } = unit;
  if (args === undefined || kubeconfig === undefined || /["\\\n]/.test(args) || !goesByVariable)
    return [
      objection(
        "kubelet-args",
        "kubelet's unit does not take its kubeconfig from KUBELET_KUBECONFIG_ARGS, as kubeadm's packages have it",
        "See: systemctl cat kubelet",
      ),
    ];
  if (later !== undefined)
    return [
      objection(
        "drop-in-order",
        `${later} sorts behind ${KUBELET_DROP_IN} and would win over it`,
        "Rename it so that it sorts before",
      ),
    ];
  try {
    kubeletKubeconfig(readFileSync(placeOf(machine, kubeconfig), "utf8"), "", "");
  } catch (error) {
    return [objection("kubelet-config", `${kubeconfig}: ${(error as Error).message}`, "See: kubeadm certs --help")];
  }
  return [];
}

/** What the installer brings. */
function ownFiles(machine: Machine): Objection[] {
  const next = "Run install.sh again, or: holdfast units --output-dir /";
  const lacks = (path: string) => !existsSync(placeOf(machine, path));
  const unit = `${UNIT_DIR}/holdfast.service`;
  const bypass = [BYPASS_PATH, `${UNIT_DIR}/holdfast-bypass.timer`].find(lacks);
  return [
    ...(lacks(unit) ? [objection("units", `${unit} is missing`, next)] : []),
    ...(bypass === undefined
      ? []
      : [
          objection(
            "bypass",
            `${bypass} is missing: nothing would help a kubelet behind a Holdfast that cannot start`,
            next,
            true,
          ),
        ]),
  ];
}

function objection(id: string, problem: string, next: string, mayIgnore = false): Objection {
  return { id, problem, next, mayIgnore };
}
