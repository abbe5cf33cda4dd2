/**
 * Keeps a kubelet that renews its certificate itself able to show it once it
 * has ended in a cut.
 *
 * client-go's certificate manager shows none then, and a kubelet that starts
 * would be nobody to us. Without `rotateCertificates` kubelet shows what its
 * kubeconfig names, ended or not:
 *
 *   ended         /run/holdfast/kubelet-ended.env, which kubelet's drop-in reads,
 *                 says its variable with --rotate-certificates=false
 *   a new pair    the file is gone, and kubelet renews again
 *
 * It counts at kubelet's next start; bypass.sh, which looks every minute, sees
 * to that. Nothing is written while the bypass leads kubelet past us.
 */

import { existsSync, rmSync } from "node:fs";
import * as v from "valibot";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { kubeletArgs } from "../machine/kubelet-files.ts";
import { placeOf, textAt } from "../machine/machine.ts";
import { BYPASS_DROP_IN, KUBELET_ENDED_FILE, KUBELET_KUBECONFIG } from "../machine/places.ts";
import { datesOf } from "../node/own-node.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";

const LOOK_MS = 30_000;

const kubeconfigSchema = v.object({
  users: v.tupleWithRest([v.object({ user: v.object({ "client-certificate": v.string() }) })], v.unknown()),
});

/** Builds it; idle on a machine whose kubelet was not adopted. */
export function kubeletEndedPart({
  clock,
  log,
  machineRoot: root = "/",
  renewals,
}: Pick<Ground, "clock" | "log" | "machineRoot" | "renewals">): Part {
  const machine = { root };
  let cancel: (() => void) | undefined;

  function look(): void {
    const wanted = hasEnded()
      ? `KUBELET_KUBECONFIG_ARGS=${kubeletArgs(machine)} --rotate-certificates=false\n`
      : undefined;
    if (wanted === textAt(machine, KUBELET_ENDED_FILE)) return;
    const path = placeOf(machine, KUBELET_ENDED_FILE);
    try {
      if (wanted === undefined) rmSync(path, { force: true });
      else writeFileAtomically(path, wanted, 0o644);
      log.info("kubelet's certificate", { hasEnded: wanted !== undefined, file: KUBELET_ENDED_FILE });
    } catch (error) {
      log.warn("how kubelet is to start cannot be said", {
        file: KUBELET_ENDED_FILE,
        reason: (error as Error).message,
      });
    }
  }

  function hasEnded(): boolean {
    if (existsSync(placeOf(machine, BYPASS_DROP_IN))) return false;
    const read = v.safeParse(kubeconfigSchema, jsonOf(textAt(machine, KUBELET_KUBECONFIG)));
    if (!read.success) return false;
    const pem = textAt(machine, read.output.users[0].user["client-certificate"]);
    try {
      return pem !== undefined && datesOf(pem).notAfterMs <= renewals.nowMs();
    } catch {
      return false;
    }
  }

  const start = (): void => {
    look();
    cancel = clock.after(LOOK_MS, start);
  };
  return { name: "kubelet's certificate", start, stop: () => cancel?.() };
}

function jsonOf(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
