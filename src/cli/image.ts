/**
 * `holdfast image`: for those who build devices. `first-boot` is what the
 * device's own unit calls.
 */

import { totalmem } from "node:os";
import { profileOf, ProfileError } from "../base/reexec.ts";
import { bootFolders } from "../machine/image/boot-folders.ts";
import { firstBoot } from "../machine/image/first-boot.ts";
import { joinDevice } from "../machine/join-device.ts";
import { thisMachine } from "../machine/machine.ts";
import { provision } from "../machine/image/provision.ts";
import { RootTree } from "../machine/image/root-tree.ts";
import { refuseAtWork, seal } from "../machine/image/seal.ts";
import { placesOf } from "./adopt.ts";
import { IMAGE_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { print, short } from "./terminal.ts";
import { counted } from "./words.ts";

/** A line on a console. */
const MAX_LINE = 900;

/** Seals or provisions a root file system, or joins this device. @returns 0 when it is done. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, IMAGE_FLAGS);
  const [action, ...more] = positionals;
  if (more.length > 0) throw new UsageError(`Unexpected argument '${more[0]}'`);
  if (action === "seal") return await sealRoot(values.root);
  if (action === "provision") return await provisionRoot(values);
  if (action === "first-boot") return await joinThisDevice();
  throw new UsageError(`Expected seal or provision, got ${action === undefined ? "nothing" : `'${action}'`}`);
}

async function sealRoot(root = "/"): Promise<number> {
  const tree = new RootTree(root);
  if (root === "/") await refuseAtWork(thisMachine(() => undefined));
  const wiped = seal(tree);
  for (const { path, what } of wiped) print(`wiped ${short(path)}: ${what}`);
  print(
    wiped.length === 0
      ? `${root} was sealed already: nothing of one machine alone is in it`
      : `${root} is sealed: ${counted(wiped.length, "thing")} wiped`,
  );
  return 0;
}

async function provisionRoot(values: {
  readonly root?: string | undefined;
  readonly config?: string | undefined;
  readonly binary?: string | undefined;
  readonly profile?: string | undefined;
}): Promise<number> {
  const { root, config, binary = process.execPath } = values;
  if (root === undefined) throw new UsageError("--root: the folder that is the image's / is missing");
  if (root === "/")
    throw new UsageError("--root: '/' is this machine; for that there are install.sh and holdfast adopt");
  if (config === undefined) throw new UsageError("--config: the configuration for the image is missing");
  let changes = 0;
  const tree = new RootTree(root, (word, path) => {
    changes += 1;
    print(`${word} ${short(path)}`);
  });
  await provision(tree, { config, binary, profile: chosenProfile(values.profile), nowMs: Date.now() });
  print(
    changes === 0
      ? `${root} was provisioned already: nothing changed`
      : `${root} is provisioned: ${counted(changes, "change")}`,
  );
  return 0;
}

/** The device's own unit calls this. */
async function joinThisDevice(): Promise<number> {
  const places = placesOf();
  const machine = thisMachine(() => undefined);
  await firstBoot({
    stateDir: places.stateDir,
    folders: bootFolders,
    join: (text, path) => joinDevice(machine, text, { ...places, path }),
    say: (line) => print(`holdfast: ${short(line, MAX_LINE)}`),
    nowMs: () => performance.now(),
    wait: (ms) => Bun.sleep(ms),
  });
  return 0;
}

/** The device's memory is not the builder's: without a word it is a small one. */
function chosenProfile(asked = "small") {
  try {
    return profileOf(asked, totalmem());
  } catch (error) {
    if (!(error instanceof ProfileError)) throw error;
    throw new UsageError(`--profile: expected small or default, got '${asked}'`);
  }
}
