/**
 * How worn the disk below a folder is, where the disk says so.
 *
 * eMMC tells its estimated life in tenths (JEDEC 5.1, EXT_CSD 268 and 269:
 * 0x01 is up to 10 % used, 0x0a up to 100 %, 0x0b beyond) and how many of its
 * spare blocks are left (0x01 normal, 0x02 80 % used, 0x03 90 %). SD cards and
 * most others tell nothing, which is said and not guessed.
 */

import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { placeOf, type Machine } from "./machine.ts";

/** What a disk says of itself. */
export interface DiskWear {
  /** As the kernel names it: mmcblk0, nvme0n1, sda; "" where it is no disk of its own (a RAM disk, an overlay). */
  readonly device: string;
  /** At most so much of its life is used, in per cent; undefined where it does not say. */
  readonly usedPercent: number | undefined;
  readonly isSpareLow: boolean;
}

/** The disk below a folder. */
export function diskWear(machine: Pick<Machine, "root">, folder: string): DiskWear {
  const unknown = { device: "", usedPercent: undefined, isSpareLow: false };
  const number = deviceNumber(placeOf(machine, folder));
  if (number === undefined) return unknown;
  try {
    const link = realpathSync(placeOf(machine, `/sys/dev/block/${number}`));
    const disk = existsSync(join(link, "partition")) ? dirname(link) : link;
    const [slc = 0, mlc = 0] = numbersIn(join(disk, "device", "life_time"));
    const [spare = 0] = numbersIn(join(disk, "device", "pre_eol_info"));
    const tenths = Math.max(slc, mlc);
    return { device: basename(disk), usedPercent: tenths === 0 ? undefined : tenths * 10, isSpareLow: spare >= 2 };
  } catch {
    return unknown;
  }
}

/** "179:2", by Linux' 64-bit device numbers; undefined where the folder is not there. */
function deviceNumber(folder: string): string | undefined {
  const dev = statSync(folder, { throwIfNoEntry: false })?.dev;
  if (dev === undefined) return undefined;
  const number = BigInt(dev);
  const major = ((number >> 32n) & 0xfffff000n) | ((number >> 8n) & 0xfffn);
  const minor = ((number >> 12n) & 0xffffff00n) | (number & 0xffn);
  return `${major}:${minor}`;
}

/** "0x01 0x02" as [1, 2]; [] where there is no such file. */
function numbersIn(path: string): number[] {
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8").trim().split(/\s+/).map(Number).filter(Number.isFinite);
}
