/**
 * What a lab test needs of the machine, decided once by `run.ts` and read by
 * every test file, so that a machine without it reports each test as skipped,
 * by name and with the reason, and never as passed or failed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { isBuilt, programsDir, whyNotBuildable } from "./build.ts";

/** Set by `run.ts`: "ready", or the reason why the lab cannot run here. */
export const STATE_VARIABLE = "HOLDFAST_LAB";

/** Set by `run.ts --long`: bad links then last for minutes. */
export const LONG_VARIABLE = "HOLDFAST_LAB_LONG";

/** Why the lab's tests are skipped; undefined when they run. */
export const whySkipped: string | undefined = readState();

/** The title of a suite, with the reason when it is skipped. */
export function titled(title: string, reason: string | undefined = whySkipped): string {
  return reason === undefined ? title : `${title} [skipped: ${reason}]`;
}

/** Looks at the machine. Network namespaces are tried, not guessed: root in a container often may not. */
export function whyNotRunnable(): string | undefined {
  if (process.platform !== "linux") return "needs Linux";
  if (process.getuid?.() !== 0) return "needs root, for network namespaces";
  for (const program of ["ip", "openssl"]) {
    if (Bun.which(program) === null) return `${program} is not installed`;
  }
  const probe = `hf-probe-${process.pid}`;
  if (!Bun.spawnSync(["ip", "netns", "add", probe]).success) return "may not make network namespaces";
  const mayEnter = Bun.spawnSync(["ip", "netns", "exec", probe, "true"]).success;
  Bun.spawnSync(["ip", "netns", "del", probe]);
  return mayEnter ? whyNotBuildable() : "may not enter network namespaces";
}

/** The compiled binary under test: HOLDFAST_LAB_BINARY, else the one in dist/ for this machine. */
export const holdfastPath =
  process.env["HOLDFAST_LAB_BINARY"] ?? new URL(`../../dist/holdfast-linux-${process.arch}`, import.meta.url).pathname;

/** Why the tests that go through Holdfast are skipped. */
export const whyWithoutHoldfast: string | undefined =
  whySkipped ?? (existsSync(holdfastPath) ? undefined : `${holdfastPath} is not built`);

/** What a real node takes beside the lab's own programs, with the Debian package of each. */
export const NODE_PROGRAMS: Readonly<Record<string, string>> = {
  containerd: "containerd",
  ctr: "containerd",
  runc: "runc",
  busybox: "busybox-static",
  nsenter: "util-linux",
  tar: "tar",
};

/** kubectl as Debian still ships it, unpacked beside the lab's programs: of 2021, and in use. */
export const oldKubectl: string = join(programsDir, "kubectl-1.20");

/** Why the tests with that one are skipped. */
export const whyWithoutOldKubectl: string | undefined =
  whyWithoutHoldfast ??
  (existsSync(oldKubectl) ? undefined : `${oldKubectl} is not there: unpacked from Debian's kubernetes-client`);

/** What pods with addresses of their own take beside that. */
export const POD_NETWORK_PROGRAMS: Readonly<Record<string, string>> = {
  "host-local": "containernetworking-plugins",
  portmap: "containernetworking-plugins",
  iptables: "iptables",
  nft: "nftables",
};

/** What a device's image and its emulator take; the firmware is no program and comes with its own package. */
export const DEVICE_PROGRAMS: Readonly<Record<string, string>> = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-io": "qemu-utils",
  "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
  mmdebstrap: "mmdebstrap",
  mformat: "mtools",
  cpio: "cpio",
  sfdisk: "fdisk",
};

/** What lends one process a clock of its own. */
export const CLOCK_PROGRAMS: Readonly<Record<string, string>> = { faketime: "faketime" };

/** The library that does it, for LD_PRELOAD; undefined where it is not installed. */
export const fakeClockLibrary: string | undefined = [
  ...new Bun.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1").scanSync({ cwd: "/", absolute: true }),
][0];

/** Where Debian puts CNI plugins, and where everybody else does. */
export const CNI_FOLDERS = ["/usr/lib/cni", "/opt/cni/bin"];

/** Finds a program of either table; CNI plugins lie outside the path. */
export function findProgram(program: string): string | undefined {
  // Firmware, by its path: a file that nobody executes.
  if (program.startsWith("/")) return existsSync(program) ? program : undefined;
  return Bun.which(program, { PATH: [process.env["PATH"], ...CNI_FOLDERS].join(":") }) ?? undefined;
}

/** Why the tests with a real kubelet are skipped. */
export const whyWithoutNode: string | undefined = whyWithoutHoldfast ?? firstMissing(NODE_PROGRAMS);

/** Why the tests with a real kubelet, pod addresses, Services and DNS are skipped. */
export const whyWithoutPodNetwork: string | undefined = whyWithoutNode ?? firstMissing(POD_NETWORK_PROGRAMS);

/** Why the tests with a wrong clock are skipped. */
export const whyWithoutClock: string | undefined =
  whyWithoutHoldfast ?? (fakeClockLibrary === undefined ? "libfaketime is not installed" : undefined);

/** Why the tests with a kubelet whose clock is wrong are skipped: building it takes minutes. */
export const whyWithoutNodeClock: string | undefined =
  whyWithoutPodNetwork ??
  whyWithoutClock ??
  (isBuilt("kubelet-clock") ? undefined : "kubelet-clock is not built; --long builds it");

/** What a machine with systemd as its first process takes beside that. */
export const MACHINE_PROGRAMS: Readonly<Record<string, string>> = {
  "systemd-nspawn": "systemd-container",
  "host-local": "containernetworking-plugins",
};

/** Why the tests with a whole machine are skipped. */
export const whyWithoutMachine: string | undefined =
  whyWithoutPodNetwork ??
  firstMissing(MACHINE_PROGRAMS) ??
  (existsSync("/usr/lib/systemd/systemd") ? undefined : "systemd is not installed") ??
  (existsSync("/sys/fs/cgroup/cgroup.controllers") ? "not tried where cgroups are of version 2 alone" : undefined);

function firstMissing(programs: Readonly<Record<string, string>>): string | undefined {
  const missing = Object.keys(programs).find((program) => findProgram(program) === undefined);
  return missing === undefined ? undefined : `${missing} is not installed`;
}

function readState(): string | undefined {
  const state = process.env[STATE_VARIABLE];
  if (state === undefined) return "started without `bun run test:lab`";
  return state === "ready" ? undefined : state;
}
