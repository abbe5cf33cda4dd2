/**
 * Where a device's boot partition is, mounted or not.
 *
 * Mounted ones are taken as they are. A FAT partition with the label HOLDFAST
 * that nobody has mounted (a stick, a card's last partition) is mounted for the
 * moment of a look, so that it can be pulled and written meanwhile.
 */

import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { BOOT_FOLDERS } from "./drop-in.ts";

/** A folder that may hold a drop-in. */
export interface BootFolder {
  readonly path: string;
  /** Mounts it for writing where it is mounted read-only. */
  makeWritable(): void;
  /** Writes over what deleted files left in a FAT's free space: a file that was saved anew leaves its former text there. */
  scrub(): void;
  /** Ends the use of it. */
  release(): void;
}

const LABELLED = "/dev/disk/by-label/HOLDFAST";
const MOUNT_POINT = "/run/holdfast-boot";
const MSDOS_MAGIC = 0x4d44;
/** No boot partition of today is larger; what lies behind stays. */
const MAX_SCRUB_BYTES = 512 * 2 ** 20;
const SCRUB_FILE = ".holdfast-scrub";
const CHUNK = Buffer.alloc(2 ** 20);

/** Those of this machine, now. */
export function bootFolders(): BootFolder[] {
  const mounts = mountsOf(readFileSync("/proc/self/mounts", "utf8"));
  const folders = BOOT_FOLDERS.filter(isFolder).map((path) => bootFolder(path, () => undefined));
  const labelled = labelledPartition(mounts);
  return labelled === undefined || folders.some(({ path }) => path === labelled.path)
    ? folders
    : [...folders, labelled];
}

/** Device by mount point, as the kernel says. */
export function mountsOf(text: string): ReadonlyMap<string, string> {
  const unescaped = (word: string) =>
    word.replaceAll(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return new Map(
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.split(" "))
      .map(([device = "", place = ""]) => [unescaped(place), unescaped(device)] as const),
  );
}

function isFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory();
}

function bootFolder(path: string, release: () => void): BootFolder {
  let isRemounted = false;
  return {
    path,
    release: () => {
      if (isRemounted) run(["mount", "-o", "remount,ro", path]);
      release();
    },
    makeWritable: () => {
      // What is written the moment the power goes is what gets lost: read-only before means read-only after.
      isRemounted = isReadOnly(path) && run(["mount", "-o", "remount,rw", path]);
    },
    scrub: () => scrub(path),
  };
}

function labelledPartition(mounts: ReadonlyMap<string, string>): BootFolder | undefined {
  if (!existsSync(LABELLED)) return undefined;
  const device = realpathSync(LABELLED);
  for (const [place, from] of mounts)
    if (existsSync(from) && realpathSync(from) === device) return bootFolder(place, () => undefined);
  mkdirSync(MOUNT_POINT, { recursive: true, mode: 0o700 });
  if (!run(["mount", "-t", "vfat", "-o", "umask=0077,flush", device, MOUNT_POINT])) return undefined;
  return bootFolder(MOUNT_POINT, () => void run(["umount", MOUNT_POINT]));
}

function isReadOnly(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EROFS";
  }
}

function run(command: string[]): boolean {
  return Bun.spawnSync(command, { stdout: "ignore", stderr: "ignore", timeout: 30_000 }).success;
}

/** Fills the free space once. On other file systems nothing: /boot may be a folder of the root's. */
function scrub(folder: string): void {
  if (statfsSync(folder).type !== MSDOS_MAGIC) return;
  const path = join(folder, SCRUB_FILE);
  rmSync(path, { force: true });
  const file = openSync(path, "wx", 0o600);
  try {
    for (let written = 0; written < MAX_SCRUB_BYTES;) written += writeSync(file, CHUNK);
    fsyncSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    fsyncSync(file);
  } finally {
    closeSync(file);
    rmSync(path, { force: true });
  }
}
