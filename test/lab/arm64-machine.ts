/**
 * An arm64 machine for the executable alone: a Debian kernel, and a file system
 * in memory with the executable, its C library and busybox. Nothing of it is on
 * a disk, so any kernel will do that can be had, one with pages of 16 KB among
 * them, and any processor that the emulator knows.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { imageCache } from "../../scripts/images/debian.ts";
import { runTool } from "../../scripts/images/tools.ts";
import { runProcess } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";

/** Debian's packages of arm64, which the device's image is made of too. */
export const rootfsTar: string = join(imageCache, "debian-bookworm-arm64.tar");
/** A kernel with pages of 16 KB, where somebody has put one: the file vmlinuz of Debian's package linux-image-...-arm64-16k (bookworm-backports). */
export const kernelOf16K: string = join(imageCache, "vmlinuz-arm64-16k");

const FILES = [
  "./usr/bin/busybox",
  ...["ld-linux-aarch64.so.1", "aarch64-linux-gnu/ld-linux-aarch64.so.1"].map((name) => `./usr/lib/${name}`),
  ...[
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
  ].flatMap((name) => [`./usr/lib/aarch64-linux-gnu/${name}`]),
];
const WORDS = "sh mount mkdir cat echo poweroff getconf uname sleep ip ls cp rm grep env nproc free date tar".split(
  " ",
);

/** What runs in it. */
export interface MachineRun {
  /** As the emulator calls it. */
  readonly cpu: string;
  /** Default: the one of Debian's cloud kernel in `rootfsTar`. */
  readonly kernel?: string;
  /** Shell; its output comes back. */
  readonly script: string;
  /** Folders of this machine, by where they are to be. */
  readonly folders?: Readonly<Record<string, string>>;
  readonly memoryMiB?: number;
  readonly timeoutMs?: number;
}

/** Boots it, runs the script and ends it. @returns what it said, and the script's exit code; undefined where it did not come to its end. */
export async function runInArm64(
  directory: string,
  { cpu, kernel, script, folders = {}, memoryMiB = 1_024, timeoutMs = 300_000 }: MachineRun,
): Promise<{ readonly code: number | undefined; readonly said: string }> {
  const root = join(directory, "machine");
  mkdirSync(root, { recursive: true });
  if (!existsSync(join(root, "usr/bin/busybox"))) {
    runTool(["tar", "-C", root, "-xf", rootfsTar, ...FILES, "--wildcards", "./boot/vmlinuz-*"]);
    for (const folder of ["dev", "proc", "sys", "tmp", "usr/local/bin", "root"])
      mkdirSync(join(root, folder), { recursive: true });
    symlinkSync("usr/bin", join(root, "bin"));
    symlinkSync("usr/lib", join(root, "lib"));
    for (const word of WORDS) symlinkSync("busybox", join(root, "usr/bin", word));
    copyFileSync(holdfastPath.replace(/x64$/, "arm64"), join(root, "usr/local/bin/holdfast"));
  }
  for (const [to, from] of Object.entries(folders)) {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    cpSync(from, join(root, to), { recursive: true, dereference: false, verbatimSymlinks: true });
  }
  writeFileSync(join(root, "init"), `${INIT}{ ${script}\n} 2>&1\necho "machine-ended:$?:"\nsync\npoweroff -f\n`);
  chmodSync(join(root, "init"), 0o755);
  const boot = join(root, "boot");
  const vmlinuz =
    kernel ??
    join(
      boot,
      readdirSync(boot).find((name) => name.startsWith("vmlinuz"))!,
    );
  const initrd = join(directory, "initrd.cpio");
  const packed = await runProcess([
    "sh",
    "-c",
    `cd "${root}" && find . -path ./boot -prune -o -print0 | cpio -0 -o -H newc --quiet > "${initrd}"`,
  ]);
  if (packed.exitCode !== 0) throw new Error(`Cannot pack the machine: ${packed.stderr}`);
  const { stdout } = await runProcess(
    [
      ...["qemu-system-aarch64", "-machine", "virt", "-cpu", cpu, "-accel", "tcg,thread=multi", "-smp", "2"],
      ...["-m", String(memoryMiB), "-nographic", "-no-reboot", "-nic", "none", "-kernel", vmlinuz, "-initrd", initrd],
      ...["-append", "console=ttyAMA0 quiet panic=-1 rdinit=/init"],
    ],
    { timeoutMs },
  );
  const text = stdout.replaceAll("\r", "");
  const end = /machine-ended:(\d+):/.exec(text);
  return { code: end === null ? undefined : Number(end[1]), said: text.slice(0, end?.index).trim() };
}

const INIT = `#!/bin/sh
export PATH=/usr/local/bin:/usr/bin HOME=/root NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
ip link set lo up
`;
