/**
 * A small machine for the executable alone: a Debian kernel, and a file system
 * in memory with the executable, its C library and busybox. Nothing of it is on
 * a disk, so any kernel will do that can be had, one with pages of 16 KB among
 * them, and any processor that the emulator knows; it is up in seconds.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { imageCache, type Architecture } from "../../scripts/images/debian.ts";
import { runTool } from "../../scripts/images/tools.ts";
import { runProcess } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";

/** A kernel with pages of 16 KB, where somebody has put one: vmlinuz of Debian's package linux-image-...-arm64-16k (bookworm-backports). */
export const kernelOf16K: string = join(imageCache, "vmlinuz-arm64-16k");

/** Debian's packages, which the device's image is made of too. */
export function rootfsTar(arch: Architecture): string {
  return join(imageCache, `debian-bookworm-${arch}.tar`);
}

/** The executable of that architecture. */
export function binaryFor(arch: Architecture): string {
  return arch === "arm64" ? holdfastPath.replace(/x64$/, "arm64") : holdfastPath;
}

/** Why no such machine can be had here. */
export function whyNoRamMachine(arch: Architecture): string | undefined {
  for (const tool of [EMULATOR[arch][0]!, "cpio"]) if (Bun.which(tool) === null) return `${tool} is not installed`;
  const missing = [rootfsTar(arch), binaryFor(arch)].find((path) => !existsSync(path));
  return missing === undefined ? undefined : `${missing} is not made`;
}

const EMULATOR: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ["qemu-system-x86_64", "-machine", "q35"],
  arm64: ["qemu-system-aarch64", "-machine", "virt"],
};
const CONSOLE: Readonly<Record<Architecture, string>> = { amd64: "ttyS0 no_timer_check", arm64: "ttyAMA0" };
const LIBRARIES: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ["x86_64-linux-gnu", "ld-linux-x86-64.so.2"],
  arm64: ["aarch64-linux-gnu", "ld-linux-aarch64.so.1"],
};
const WORDS = "sh mount umount mkdir cat echo poweroff uname sleep ip ls cp rm grep env date insmod sync".split(" ");

/** What is in it. */
export interface RamMachine {
  readonly arch: Architecture;
  /** Shell, run once as the first process. */
  readonly script: string;
  /** Files and folders of this machine, by where they are to be. */
  readonly files?: Readonly<Record<string, string>>;
  /** Drivers that the kernel has as modules; what they stand on comes along. */
  readonly drivers?: readonly string[];
}

/** How it is started. */
export interface RamStart {
  readonly kernel: string;
  readonly initrd: string;
  readonly arch: Architecture;
  /** As the emulator calls it. */
  readonly cpu: string;
  readonly memoryMiB?: number;
  /** More words for the emulator: disks, cables. Default: none of either. */
  readonly more?: readonly string[];
}

/** Packs it. @returns the kernel of its packages, and what is to be loaded beside it. */
export async function packRamMachine(
  directory: string,
  { arch, script, files = {}, drivers = [] }: RamMachine,
): Promise<Pick<RamStart, "arch" | "kernel" | "initrd">> {
  const root = join(directory, "machine");
  const [triplet = "", loader = ""] = LIBRARIES[arch];
  mkdirSync(root, { recursive: true });
  const libraries = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1"];
  const wanted = ["./usr/bin/busybox", ...[loader, ...libraries].map((name) => `./usr/lib/${triplet}/${name}`)];
  runTool(["tar", "-C", root, "-xf", rootfsTar(arch), ...wanted]);
  runTool(["tar", "-C", directory, "-xf", rootfsTar(arch), "--wildcards", "./boot/vmlinuz-*", "./usr/lib/modules/*"]);
  for (const folder of ["dev", "proc", "sys", "tmp", "usr/local/bin", "root"])
    mkdirSync(join(root, folder), { recursive: true });
  for (const [to, at] of [
    ["usr/bin", "bin"],
    ["usr/lib", "lib"],
    ["usr/lib", "lib64"],
    [`${triplet}/${loader}`, `usr/lib/${loader}`],
    ...WORDS.map((word) => ["busybox", `usr/bin/${word}`]),
  ] as const)
    symlinkSync(to!, join(root, at!));
  copyFileSync(binaryFor(arch), join(root, "usr/local/bin/holdfast"));
  for (const [to, from] of Object.entries(files)) {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    cpSync(from, join(root, to), { recursive: true, verbatimSymlinks: true });
  }
  const load = driversOf(directory, drivers).map((path, index) => {
    copyFileSync(path, join(root, `driver-${index}.ko`));
    return `insmod /driver-${index}.ko\n`;
  });
  writeFileSync(join(root, "init"), `${INIT}${load.join("")}${script}\n`);
  chmodSync(join(root, "init"), 0o755);
  const boot = join(directory, "boot");
  const kernel = join(
    boot,
    readdirSync(boot).find((name) => name.startsWith("vmlinuz"))!,
  );
  const initrd = join(directory, "initrd.cpio");
  const packed = await runProcess([
    ...["sh", "-c"],
    `cd "${root}" && find . -print0 | cpio -0 -o -H newc --quiet > "${initrd}"`,
  ]);
  if (packed.exitCode !== 0) throw new Error(`Cannot pack the machine: ${packed.stderr}`);
  return { arch, kernel, initrd };
}

/** The words that start it; its console is the emulator's output. */
export function ramCommand({
  arch,
  kernel,
  initrd,
  cpu,
  memoryMiB = 1_024,
  more = ["-nic", "none"],
}: RamStart): string[] {
  return [
    ...EMULATOR[arch],
    ...["-cpu", cpu, "-accel", "tcg,thread=multi", "-smp", "2", "-m", String(memoryMiB), "-nographic", "-no-reboot"],
    ...["-kernel", kernel, "-initrd", initrd, "-append", `console=${CONSOLE[arch]} quiet panic=-1 rdinit=/init`],
    ...more,
  ];
}

/** Runs a script in one to its end. @returns what it said, and its exit code; undefined where it did not come to its end. */
export async function runInRam(
  directory: string,
  machine: RamMachine,
  start: Pick<RamStart, "cpu" | "memoryMiB"> & { readonly kernel?: string; readonly timeoutMs?: number },
): Promise<{ readonly code: number | undefined; readonly said: string }> {
  const script = `{ ${machine.script}\n} 2>&1\necho "machine-ended:$?:"\npoweroff -f\n`;
  const packed = await packRamMachine(directory, { ...machine, script });
  const { stdout } = await runProcess(ramCommand({ ...packed, ...start, kernel: start.kernel ?? packed.kernel }), {
    timeoutMs: start.timeoutMs ?? 300_000,
  });
  const text = stdout.replaceAll("\r", "");
  const end = /machine-ended:(\d+):/.exec(text);
  return { code: end === null ? undefined : Number(end[1]), said: text.slice(0, end?.index).trim() };
}

/** Paths of the modules, those first on which the others stand. */
function driversOf(directory: string, names: readonly string[]): string[] {
  const modules = join(directory, "usr/lib/modules");
  const folder = join(modules, readdirSync(modules)[0]!);
  const lines = readFileSync(join(folder, "modules.dep"), "utf8").trim().split("\n");
  const needs = new Map(lines.map((line) => line.split(":") as [string, string]));
  const order: string[] = [];
  const add = (path: string) => {
    // Each line names all that a module stands on, the last one first.
    for (const need of (needs.get(path) ?? "").split(" ").reverse()) if (need !== "") add(need);
    if (!order.includes(path)) order.push(path);
  };
  for (const name of names) {
    const path = [...needs.keys()].find((path) => path.endsWith(`/${name}.ko`));
    // Built in.
    if (path !== undefined) add(path);
  }
  return order.map((path) => join(folder, path));
}

const INIT = `#!/bin/sh
export PATH=/usr/local/bin:/usr/bin HOME=/root NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
ip link set lo up
`;
