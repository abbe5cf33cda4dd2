/**
 * The programs that make images, and what is missing of them on this machine.
 */

import { existsSync, readFileSync } from "node:fs";
import type { Architecture } from "./debian.ts";

/** Each with its Debian package. */
const TOOLS: Readonly<Record<string, string>> = {
  mmdebstrap: "mmdebstrap",
  mke2fs: "e2fsprogs",
  tune2fs: "e2fsprogs",
  mformat: "mtools",
  mcopy: "mtools",
  sfdisk: "fdisk",
  tar: "tar",
};

/** Debian's packages of all of them. */
export const IMAGE_PACKAGES: readonly string[] = [...new Set(Object.values(TOOLS))];

/** Why no image of that architecture can be made here, in words for a skipped test's name. */
export function whyNotMakeable(arch: Architecture): string | undefined {
  if (process.getuid?.() !== 0) return "needs root: an image's files belong to its users";
  for (const [tool, name] of Object.entries(TOOLS))
    if (toolPath(tool) === undefined) return `${tool} is not installed (package ${name})`;
  const own = process.arch === "x64" ? "amd64" : process.arch;
  if (arch === own) return undefined;
  if (toolPath("arch-test") === undefined) return "arch-test is not installed (package arch-test)";
  return runsForeign(arch) ? undefined : `nothing of ${arch} runs here (packages qemu-user-static, binfmt-support)`;
}

function runsForeign(arch: Architecture): boolean {
  const entry = `/proc/sys/fs/binfmt_misc/qemu-${arch === "arm64" ? "aarch64" : "x86_64"}`;
  return existsSync(entry) && readFileSync(entry, "utf8").startsWith("enabled");
}

/** Also where only root's path leads. */
export function toolPath(tool: string): string | undefined {
  return Bun.which(tool, { PATH: [process.env["PATH"], "/usr/sbin", "/sbin"].join(":") }) ?? undefined;
}

/** Runs one to its end. @throws {Error} with its words. */
export function runTool(command: readonly string[], input = ""): void {
  const [name = "", ...args] = command;
  const done = Bun.spawnSync([toolPath(name) ?? name, ...args], {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
    // mtools would ask about the size of the disk.
    env: { ...process.env, MTOOLS_SKIP_CHECK: "1" },
  });
  if (!done.success)
    throw new Error(`Cannot run ${name} ${args.slice(0, 4).join(" ")}: ${done.stderr.toString().slice(-2_000).trim()}`);
}
