/**
 * A device image from Debian, bootable by UEFI firmware, made without a loop
 * device and without running anything of the target.
 *
 *   bun scripts/images/debian.ts --arch amd64|arm64 --kubelet FILE --config FILE [--binary FILE]
 *                                [--add DIR] [--append WORDS] [--output FILE]
 *
 *   esp      FAT, label HOLDFAST: systemd-boot, kernel and initrd of each slot, and the place
 *            of holdfast-join.yaml
 *   root-a, root-b   ext4, mounted read-only: the system, its kubelet, Holdfast's executable and units
 *   data     ext4: /var, and what differs from the slot in /etc
 *
 * An update writes the slot that does not run, and its folder on the ESP, and
 * turns `default` in loader.conf; the way back is to turn it again. Data belongs
 * to both. The root file system comes from mmdebstrap once and is kept in
 * .cache/images; a foreign architecture takes qemu-user for that step alone.
 *
 * --add lays a folder over the root, for what a builder has beside this: images
 * of containers, a CNI configuration, keys of their own.
 */

import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { provision } from "../../src/machine/image/provision.ts";
import { RootTree } from "../../src/machine/image/root-tree.ts";
import { seal } from "../../src/machine/image/seal.ts";
import { projectRoot } from "../setup.ts";
import { makeDisk } from "./disk.ts";
import { cachedRootfs, completeRoot, unpack } from "./rootfs.ts";
import { runTool, whyNotMakeable } from "./tools.ts";

/** Debian's word for an architecture. */
export type Architecture = "amd64" | "arm64";

/** What an image is made of. */
export interface ImageRecipe {
  readonly arch: Architecture;
  readonly kubelet: string;
  readonly config: string;
  readonly binary: string;
  /** A folder laid over the root; undefined for none. */
  readonly add?: string | undefined;
  /** More words for the kernel. */
  readonly append?: string | undefined;
  readonly output: string;
}

/** Where root file systems are kept; HOLDFAST_IMAGE_CACHE names another place. */
export const imageCache = resolve(process.env["HOLDFAST_IMAGE_CACHE"] ?? join(projectRoot, ".cache/images"));

/** Makes the image. @returns how long each step took, in words. */
export async function makeImage(recipe: ImageRecipe): Promise<string[]> {
  const missing = whyNotMakeable(recipe.arch);
  if (missing !== undefined) throw new Error(`Cannot make an image for ${recipe.arch}: ${missing}`);
  mkdirSync(imageCache, { recursive: true });
  const stage = `${recipe.output}.stage`;
  rmSync(stage, { recursive: true, force: true });
  const took: string[] = [];
  const timed = async (name: string, step: () => Promise<void> | void): Promise<void> => {
    const startedMs = performance.now();
    await step();
    took.push(`${name} ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`);
  };
  try {
    await timed("root file system", () => unpack(cachedRootfs(imageCache, recipe.arch), join(stage, "root")));
    await timed("Holdfast and kubelet", async () => await fill(join(stage, "root"), recipe));
    await timed("disk", () => makeDisk(stage, recipe));
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
  return took;
}

async function fill(root: string, { arch, kubelet, config, binary, add }: ImageRecipe): Promise<void> {
  completeRoot(root, kubelet);
  if (add !== undefined) runTool(["cp", "-a", `${resolve(add)}/.`, root]);
  const tree = new RootTree(root);
  seal(tree);
  await provision(tree, { config, binary, profile: arch === "arm64" ? "small" : "default", nowMs: Date.now() });
}

async function main(args: readonly string[]): Promise<void> {
  const text = { type: "string" } as const;
  const options = { arch: text, kubelet: text, config: text, binary: text, add: text, append: text, output: text };
  const { values } = parseArgs({ args: [...args], options, strict: true });
  const { arch, kubelet, config } = values;
  if (arch !== "amd64" && arch !== "arm64") throw new Error("--arch: expected amd64 or arm64");
  if (kubelet === undefined || config === undefined) throw new Error("--kubelet and --config are needed");
  const binary = values.binary ?? join(projectRoot, `dist/holdfast-linux-${arch === "amd64" ? "x64" : "arm64"}`);
  for (const path of [kubelet, config, binary]) if (!existsSync(path)) throw new Error(`Cannot read "${path}"`);
  const output = resolve(values.output ?? join(imageCache, `holdfast-debian-${arch}.img`));
  const took = await makeImage({ arch, kubelet, config, binary, output, add: values.add, append: values.append });
  console.log(`${output}: ${took.join(", ")}`);
}

if (import.meta.main) await main(process.argv.slice(2));
