/**
 * Sealing: an image, or a machine whose card is about to be copied, forgets who it was.
 */

import { join } from "node:path";
import { EdgeError } from "../../base/errors.ts";
import type { Machine } from "../machine.ts";
import { BOOT_FOLDERS, shred, tracesIn } from "./drop-in.ts";
import { identitiesIn, wipe, type Identity } from "./identity.ts";
import type { RootTree } from "./root-tree.ts";

/** The machine is at work; nothing was wiped. */
export class SealError extends EdgeError {
  override readonly name = "SealError";
  readonly code = "SEAL";
}

/** Programs that would write a new identity behind the one that was wiped. */
const AT_WORK = ["kubelet.service", "holdfast.service", "holdfast-first-boot.service"];

/** @throws {SealError} when this is the machine that we run on and something of it is at work. */
export async function refuseAtWork(machine: Pick<Machine, "systemctl">): Promise<void> {
  for (const unit of AT_WORK)
    if (await machine.systemctl("is-active", "--quiet", unit))
      throw new SealError(
        `Cannot seal this machine: ${unit} runs; stop it first: systemctl stop ${AT_WORK.join(" ").replaceAll(".service", "")}`,
      );
}

/** Wipes everything that is one machine's alone. @returns what was wiped; nothing the second time. */
export function seal(tree: RootTree): Identity[] {
  const found = identitiesIn(tree);
  for (const identity of found) wipe(tree, identity);
  for (const folder of BOOT_FOLDERS)
    for (const trace of tracesIn(tree.place(folder))) {
      shred(trace);
      found.push({ path: join(folder, trace.slice(trace.lastIndexOf("/") + 1)), what: "a join file", isLive: true });
    }
  return found;
}
