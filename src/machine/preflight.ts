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
import { isKnownByWay, lookByWay, type NodeView } from "./node-way.ts";
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
  /** The machine has joined, and the API server knows no such node: kubelet has not run yet. */
  readonly isNew: boolean;
}

/** Ignored, pods go on their own way. */
export const POD_ACCESS = "pod-access";
/** The ids that --ignore takes. */
export const MAY_IGNORE: readonly string[] = ["node-ready", "bypass", POD_ACCESS];

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

/** Runs them all. @param mayBeNew a node that nobody has seen yet is none that is gone. */
export async function preflight(machine: Machine, isRoot: boolean, mayBeNew = false): Promise<Found> {
  const kind = isRoot ? wrongKind(machine) : NOT_ROOT;
  const nothing = { unit: undefined, node: undefined, isNew: false };
  if (kind !== undefined) return { ...nothing, objections: [kind] };
  const unit = readKubeletUnit(machine);
  const objections = [...unitObjections(machine, unit), ...ownFiles(machine)];
  if (objections.some(({ mayIgnore }) => !mayIgnore)) return { ...nothing, objections, unit };
  const direct = placeOf(machine, unit.kubeconfig!);
  const isNew = (await isKnownByWay(direct).catch(() => true)) === false;
  if (isNew && mayBeNew) return { ...nothing, objections, unit, isNew };
  const node = await lookByWay(direct).catch((error: unknown) => {
    if (isNew) {
      objections.push(objection("node-missing", "the API server knows no such node", "See: journalctl -u kubelet"));
      return undefined;
    }
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
  return { objections, unit, node, isNew: false };
}

/** Runs those that a machine must pass which is no node yet. */
export function preflightBare(machine: Machine, isRoot: boolean): Found {
  const kind = isRoot ? otherDistribution(machine) : NOT_ROOT;
  if (kind !== undefined) return { objections: [kind], unit: undefined, node: undefined, isNew: true };
  const unit = readKubeletUnit(machine);
  return { objections: [...unitShape(unit), ...ownFiles(machine)], unit, node: undefined, isNew: true };
}

const NOT_ROOT = objection("root", "only root may change kubelet's unit", "Run it with sudo");

/** What stands against a node that kubeadm joined; undefined where it is one. */
export function wrongKind(machine: Machine): Objection | undefined {
  const has = (path: string) => existsSync(placeOf(machine, path));
  if (has("/var/lib/kubelet/config.yaml") && has("/etc/kubernetes/kubelet.conf")) return undefined;
  return (
    otherDistribution(machine) ??
    objection(
      "distribution",
      "no node that kubeadm joined: /var/lib/kubelet/config.yaml or /etc/kubernetes/kubelet.conf is missing",
      "Join the node first: holdfast join, or kubeadm join",
    )
  );
}

function otherDistribution(machine: Machine): Objection | undefined {
  const other = OTHERS.find(({ marks }) => marks.some((path) => existsSync(placeOf(machine, path))));
  if (other === undefined) return undefined;
  return objection(
    "distribution",
    `this is ${other.name}: ${other.words}`,
    "holdfast run serves other clients here, by a kubeconfig of their own; kubelet stays as it is, and nothing was changed",
  );
}

function unitShape({ args, kubeconfig, goesByVariable, later }: KubeletUnit): Objection[] {
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
  return [];
}

function unitObjections(machine: Machine, unit: KubeletUnit): Objection[] {
  const shape = unitShape(unit);
  if (shape.length > 0) return shape;
  try {
    kubeletKubeconfig(readFileSync(placeOf(machine, unit.kubeconfig!), "utf8"), "", "");
  } catch (error) {
    return [
      objection("kubelet-config", `${unit.kubeconfig}: ${(error as Error).message}`, "See: kubeadm certs --help"),
    ];
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
