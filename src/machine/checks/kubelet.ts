/**
 * Whether kubelet goes through Holdfast, and whether what leads it there is as it was made.
 */

import { existsSync, readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { profileOf } from "../../base/reexec.ts";
import { isAdopted } from "../adopt.ts";
import { kubeletDropIn, kubeletKubeconfig, readKubeletUnit } from "../kubelet-files.ts";
import { placeOf, type Machine } from "../machine.ts";
import { BYPASS_DROP_IN, DEFAULT_BINARY, KUBELET_DROP_IN, KUBELET_KUBECONFIG, UNIT_DIR } from "../places.ts";
import { wrongKind } from "../preflight.ts";
import { unitFiles } from "../units.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

/** Where it is looked. */
export interface KubeletGround {
  readonly machine: Machine;
  readonly stateDir: string;
  /** Where adopting leads kubelet: https://127.0.0.1:10268 */
  readonly server: string;
}

/** Looks at kubelet's unit and ours. */
export function kubeletChecks(ground: KubeletGround): Checked[] {
  const { machine, stateDir } = ground;
  const other = wrongKind(machine);
  if (other !== undefined) return [warning("kubelet/distribution", other.problem, other.next), units(machine)];
  const kind = ok("kubelet/distribution", "a node that kubeadm joined: it survives a reboot while cut");
  if (!isAdopted(machine, stateDir))
    return [kind, units(machine), warning("kubelet/adopted", "kubelet does not go through Holdfast", "holdfast adopt")];
  return [kind, units(machine), ok("kubelet/adopted", "kubelet goes through Holdfast"), drift(ground), bypass(machine)];
}

/** A unit that was edited in place loses that at the next upgrade; one of an older executable lacks what this one needs. */
function units(machine: Machine): Checked {
  const id = "kubelet/units";
  const unit = text(machine, `${UNIT_DIR}/holdfast.service`);
  if (unit === undefined)
    return warning(
      id,
      `${UNIT_DIR}/holdfast.service is missing`,
      "Run install.sh again, or: holdfast units --output-dir /",
    );
  const [, asked] = /^Environment=HOLDFAST_PROFILE=(\w+)$/m.exec(unit) ?? [];
  const [, binary = DEFAULT_BINARY] = /^ExecStart=(\S+) run$/m.exec(unit) ?? [];
  const profile = asked === "small" || asked === "default" ? asked : profileOf(undefined, totalmem());
  const other = unitFiles({ profile, binary }).find((file) => text(machine, file.path) !== file.text);
  return other === undefined
    ? ok(id, "as this executable makes them")
    : warning(
        id,
        `${other.path} is not as this executable makes it`,
        "Run install.sh again; changes belong into a drop-in: systemctl edit holdfast",
      );
}

function drift({ machine, server, stateDir }: KubeletGround): Checked {
  const id = "kubelet/drop-in";
  const next = "holdfast revert, then: holdfast adopt";
  if (text(machine, KUBELET_DROP_IN) !== kubeletDropIn())
    return warning(id, `${KUBELET_DROP_IN} is not as adopt made it`, next);
  const direct = readKubeletUnit(machine).kubeconfig;
  const own = direct === undefined ? undefined : text(machine, direct);
  if (own === undefined)
    return failed(
      id,
      "kubelet's own kubeconfig is gone: nothing leads back",
      "kubeadm join, or kubeadm init phase kubeconfig kubelet",
    );
  try {
    return text(machine, KUBELET_KUBECONFIG) === kubeletKubeconfig(own, server, `${stateDir}/pki/local-ca.crt`)
      ? ok(id, "as adopt made them")
      : warning(id, `${KUBELET_KUBECONFIG} is not as adopt would make it now`, next);
  } catch (error) {
    return warning(id, (error as Error).message, next);
  }
}

function bypass(machine: Machine): Checked {
  const id = "kubelet/bypass";
  if (text(machine, BYPASS_DROP_IN) !== undefined)
    return failed(
      id,
      "kubelet goes its direct way, past Holdfast: it was down for two minutes",
      "See: journalctl -u holdfast -n 50",
    );
  const timer = `${UNIT_DIR}/timers.target.wants/holdfast-bypass.timer`;
  return existsSync(placeOf(machine, timer))
    ? ok(id, "looked at every minute, not needed")
    : skipped(id, "its timer is not enabled: nothing would help kubelet if Holdfast could not start");
}

function text(machine: Machine, path: string): string | undefined {
  const place = placeOf(machine, path);
  return existsSync(place) ? readFileSync(place, "utf8") : undefined;
}
