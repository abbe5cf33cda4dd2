/**
 * Whether this machine can carry a node through a cut: processor, memory, disk, clock.
 */

import { existsSync, readFileSync, statfsSync } from "node:fs";
import { formatSize } from "../../base/units.ts";
import { diskWear } from "../disk-wear.ts";
import { placeOf, type Machine } from "../machine.ts";
import { failed, ok, skipped, warning, type Checked } from "./checked.ts";

/** Where it is looked, and by which time. */
export interface HostGround {
  readonly machine: Pick<Machine, "root">;
  readonly stateDir: string;
  readonly nowMs: number;
}

/** AT_PAGESZ in /proc/self/auxv: pairs of 64-bit words. */
const AT_PAGESZ = 6n;
const MIN_MEMORY_BYTES = 900e6;
const MIN_FREE_BYTES = { warning: 512e6, failed: 64e6 } as const;
const MIN_FREE_FILES = 1_000;
/** No clock that is right shows less: this program is younger. */
const OLDEST_NOW_MS = Date.UTC(2026, 0, 1);

/** Looks at the machine. */
export function hostChecks(ground: HostGround): Checked[] {
  return [architecture(), pageSize(), memory(ground), memoryCgroup(ground), disk(ground), wear(ground), clock(ground)];
}

function architecture(): Checked {
  const { arch } = process;
  return arch === "x64" || arch === "arm64"
    ? ok("host/architecture", arch)
    : failed("host/architecture", `there is no executable for ${arch}`, "Use a 64-bit system on x86 or ARM");
}

function pageSize(): Checked {
  const id = "host/page-size";
  const size = pageBytes();
  if (size === undefined) return skipped(id, "the kernel does not say");
  const words = `${size / 1_024} KiB`;
  return size <= 16_384
    ? ok(id, words)
    : failed(id, `${words}: the runtime knows 4 and 16 KiB`, "Boot a kernel with pages of 4 or 16 KiB");
}

function pageBytes(): number | undefined {
  try {
    const auxv = readFileSync("/proc/self/auxv");
    for (let at = 0; at + 16 <= auxv.length; at += 16)
      if (auxv.readBigUInt64LE(at) === AT_PAGESZ) return Number(auxv.readBigUInt64LE(at + 8));
  } catch {
    // No /proc: nobody can tell.
  }
  return undefined;
}

function memory({ machine }: HostGround): Checked {
  const id = "host/memory";
  const [, kilobytes] = /^MemTotal:\s+(\d+) kB/m.exec(read(machine, "/proc/meminfo")) ?? [];
  if (kilobytes === undefined) return skipped(id, "the kernel does not say");
  const bytes = Number(kilobytes) * 1_024;
  return bytes >= MIN_MEMORY_BYTES
    ? ok(id, formatSize(bytes))
    : warning(
        id,
        `${formatSize(bytes)}: kubelet and Holdfast want 1 GB`,
        "Set HOLDFAST_PROFILE=small in /etc/holdfast/environment",
      );
}

/** Raspberry Pi OS starts without it: limits do not count then, and kubelet refuses. */
function memoryCgroup({ machine }: HostGround): Checked {
  const id = "host/memory-cgroup";
  const controllers = read(machine, "/sys/fs/cgroup/cgroup.controllers");
  const isV1 = /^memory\s+\d+\s+\d+\s+1$/m.test(read(machine, "/proc/cgroups"));
  return /\bmemory\b/.test(controllers) || isV1
    ? ok(id, "the kernel counts memory by group")
    : failed(
        id,
        "the kernel counts no memory by group: no limit of a pod or of ours holds",
        "Add cgroup_enable=memory to /boot/firmware/cmdline.txt, and reboot",
      );
}

function disk({ machine, stateDir }: HostGround): Checked {
  const id = "host/disk";
  const folder = placeOf(machine, stateDir);
  if (!existsSync(folder)) return skipped(id, `${stateDir} is not there yet`);
  const { bavail, bsize, ffree, files } = statfsSync(folder);
  const free = bavail * bsize;
  const next = "See: df -h, df -i; free space: crictl rmi --prune, journalctl --vacuum-size=50M";
  if (free < MIN_FREE_BYTES.failed) return failed(id, `${formatSize(free)} free below ${stateDir}`, next);
  if (free < MIN_FREE_BYTES.warning) return warning(id, `${formatSize(free)} free below ${stateDir}`, next);
  // File systems without a table of files say 0 of 0.
  if (files > 0 && ffree < MIN_FREE_FILES) return warning(id, `room for ${ffree} more files below ${stateDir}`, next);
  return ok(id, `${formatSize(free)} free`);
}

function wear({ machine, stateDir }: HostGround): Checked {
  const id = "host/disk-wear";
  const { device, usedPercent, isSpareLow } = diskWear(machine, stateDir);
  if (device === "" || usedPercent === undefined)
    return skipped(id, device === "" ? "no disk of its own" : `${device} does not say how worn it is`);
  const words = `${device} has used up to ${usedPercent} % of its life`;
  return usedPercent < 90 && !isSpareLow
    ? ok(id, words)
    : warning(id, `${words}${isSpareLow ? ", and most of its spare blocks" : ""}`, "Replace it while it still reads");
}

function clock({ machine, nowMs }: HostGround): Checked {
  const id = "host/clock";
  const iso = new Date(nowMs).toISOString().slice(0, 10);
  const hasRtc = existsSync(placeOf(machine, "/sys/class/rtc/rtc0"));
  const rtc = hasRtc
    ? "there is a battery clock"
    : "no battery clock: a boot while cut starts in the past, which Holdfast bears";
  if (nowMs < OLDEST_NOW_MS)
    return failed(
      id,
      `it shows ${iso}; ${rtc}`,
      "See: timedatectl; then restart kubelet some day, it counts from the wrong year",
    );
  const isSet = ["/run/systemd/timesync/synchronized", "/run/chrony", "/run/ntpd.pid"].some((path) =>
    existsSync(placeOf(machine, path)),
  );
  return isSet
    ? ok(id, `set by the network; ${rtc}`)
    : warning(id, `nobody says that the network has set it; ${rtc}`, "See: timedatectl; try: timedatectl set-ntp true");
}

function read(machine: Pick<Machine, "root">, path: string): string {
  const place = placeOf(machine, path);
  return existsSync(place) ? readFileSync(place, "utf8") : "";
}
