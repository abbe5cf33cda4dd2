/**
 * A device: an emulated machine with its own firmware, kernel and disk, on a
 * cable of the lab's edge. Its power goes by SIGKILL of the emulator.
 *
 *   edge's namespace:  bridge br0 = cable to the cloud + tap0 = the device
 *
 * The console is a log; commands go to a shell on a second, virtual console
 * (`device-image.ts` puts it there), because nobody logs into a device.
 */
import { existsSync, rmSync, copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Architecture } from "../../scripts/images/debian.ts";
import { PART_OFFSETS_MIB } from "../../scripts/images/disk.ts";
import { runTool } from "../../scripts/images/tools.ts";
import type { DeviceDisk, PowerLoss } from "./device-disk.ts";
import { type LabProcess, until } from "./processes.ts";
import type { World } from "./world.ts";

const FIRMWARE: Readonly<Record<Architecture, { readonly code: string; readonly variables: string }>> = {
  amd64: { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
  arm64: { code: "/usr/share/AAVMF/AAVMF_CODE.fd", variables: "/usr/share/AAVMF/AAVMF_VARS.fd" },
};

/** An emulator, and the words that make a machine of it. No hardware virtualisation: the machines this runs on have none that works. */
const EMULATORS: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ["qemu-system-x86_64", "-machine", "q35"],
  arm64: ["qemu-system-aarch64", "-machine", "virt"],
};
const CPUS: Readonly<Record<Architecture, string>> = { amd64: "max", arm64: "cortex-a72" };

/** The device's place on the cable. */
export function deviceAddress(world: World): string {
  return world.network.edgeAddress.replace(/\d+$/, "50");
}

/** What is missing to run a device of this architecture. */
export function whyNoEmulator(arch: Architecture): string | undefined {
  const [emulator = ""] = EMULATORS[arch];
  if (Bun.which(emulator) === null) return `${emulator} is not installed`;
  return existsSync(FIRMWARE[arch].code) ? undefined : `${FIRMWARE[arch].code} is not installed`;
}

/** What `DeviceVm.boot` may be told. */
export interface BootOptions {
  readonly arch: Architecture;
  readonly disk: DeviceDisk;
  /** What the battery clock shows: "utc", or a moment for a device without one. Default "utc". */
  readonly clock?: string;
  /** Started at once, past firmware and loader, which take half of a boot's time where they are emulated. Default: by the firmware. */
  readonly kernel?: BootKernel;
  /** The processor's model, as the emulator calls it. */
  readonly cpu?: string;
}

/** A slot's kernel, as its loader would start it. */
export interface BootKernel {
  readonly kernel: string;
  readonly initrd: string;
  /** Its command line. */
  readonly options: string;
}

/** Takes the kernel of a slot out of an image, with the words that the loader would give it. */
export function kernelOf(image: string, slot: "a" | "b", into: string): BootKernel {
  const files = ["vmlinuz", "initrd.img"].map((name) => join(into, `slot-${slot}-${name}`)) as [string, string];
  const esp = ["-i", `${image}@@${PART_OFFSETS_MIB["esp"]}M`];
  for (const [index, name] of ["vmlinuz", "initrd.img"].entries())
    runTool(["mcopy", "-n", "-o", ...esp, `::slot-${slot}/${name}`, files[index]!]);
  const entry = join(into, `slot-${slot}.conf`);
  runTool(["mcopy", "-n", "-o", ...esp, `::loader/entries/slot-${slot}.conf`, entry]);
  const options = /^options (.*)$/m.exec(readFileSync(entry, "utf8"))?.[1];
  if (options === undefined) throw new Error(`Cannot boot slot ${slot} of "${image}": its entry has no options`);
  return { kernel: files[0], initrd: files[1], options };
}

/** Lays the device's cable. Once for a world. */
export function connectDevice(world: World): void {
  const { edge, edgeAddress, cloudAddress } = world.network;
  const ip = (...args: string[]) => {
    const done = Bun.spawnSync(["ip", "-n", edge, ...args], { stderr: "pipe" });
    if (!done.success)
      throw new Error(`Cannot lay the device's cable, ip ${args.join(" ")}: ${done.stderr.toString()}`);
  };
  ip("link", "add", "br0", "type", "bridge");
  ip("tuntap", "add", "dev", "tap0", "mode", "tap");
  for (const port of ["edge0", "tap0"]) ip("link", "set", port, "master", "br0");
  ip("addr", "flush", "dev", "edge0");
  ip("addr", "add", `${edgeAddress}/24`, "dev", "br0");
  for (const device of ["br0", "tap0"]) ip("link", "set", device, "up");
  ip("route", "replace", "default", "via", cloudAddress);
}

/** By the firmware, or by a kernel. */
function startOf({ arch, kernel }: BootOptions, variables: string): string[] {
  if (kernel !== undefined) return ["-kernel", kernel.kernel, "-initrd", kernel.initrd, "-append", kernel.options];
  copyFileSync(FIRMWARE[arch].variables, variables);
  return [
    ...["-drive", `if=pflash,format=raw,readonly=on,file=${FIRMWARE[arch].code}`],
    ...["-drive", `if=pflash,format=raw,file=${variables}`],
  ];
}

export class DeviceVm implements AsyncDisposable {
  private constructor(
    private readonly options: BootOptions,
    private readonly emulator: LabProcess,
    private readonly shellPath: string,
    readonly bootedMs: number,
  ) {}

  private static count = 0;

  /** Gives it power. It has begun to boot when this returns. */
  static boot(world: World, options: BootOptions): DeviceVm {
    const { arch, disk, clock = "utc", cpu = CPUS[arch] } = options;
    DeviceVm.count += 1;
    const place = (name: string) => join(world.directory, `device-${DeviceVm.count}-${name}`);
    disk.listen(place("disk"));
    const command = [
      ...EMULATORS[arch],
      ...["-cpu", cpu],
      ...["-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-display", "none", "-no-reboot"],
      ...["-rtc", `base=${clock}`],
      ...startOf(options, place("variables")),
      ...[
        "-drive",
        `if=none,id=disk,format=raw,cache=writeback,file.driver=nbd,file.server.type=unix,file.server.path=${place("disk")}`,
      ],
      ...["-device", "virtio-blk-pci,drive=disk"],
      ...["-netdev", "tap,id=cable,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=cable"],
      ...["-chardev", `socket,id=shell,path=${place("shell")},server=on,wait=off`],
      ...["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=shell"],
      ...["-serial", `file:${place("console")}`, "-monitor", "none"],
    ];
    const emulator = world.startOnNode(`device-${DeviceVm.count}-emulator`, command);
    return new DeviceVm(options, emulator, place("shell"), performance.now());
  }

  /** Everything the device has shown on its console. */
  async console(): Promise<string> {
    return await Bun.file(this.shellPath.replace(/shell$/, "console")).text();
  }

  /** Waits until the console shows this. */
  async shows(words: string, timeoutMs = 180_000): Promise<void> {
    await until(
      `the device's console shows "${words}"; it is ${this.shellPath.replace(/shell$/, "console")}`,
      async () => {
        if (!this.emulator.isRunning) throw new Error(`the emulator has ended: ${this.emulator.log.slice(-1_000)}`);
        return (await this.console()).includes(words);
      },
      timeoutMs,
    );
  }

  /** Runs a command line in the device. @throws {Error} when it does not end in time. */
  async run(line: string, timeoutMs = 60_000): Promise<{ readonly code: number; readonly output: string }> {
    const mark = `mark-${Math.random().toString(36).slice(2)}`;
    // Said in two pieces, so that an echo of the line is not taken for its end.
    const script = `{ ${line}\n} 2>&1; echo "${mark.slice(0, 5)}""${mark.slice(5)}:$?:"\n`;
    let text = "";
    const done = Promise.withResolvers<{ code: number; output: string }>();
    const socket = await Bun.connect({
      unix: this.shellPath,
      socket: {
        data: (_, bytes) => {
          text += bytes.toString().replaceAll("\r", "");
          const end = new RegExp(`${mark}:(\\d+):`).exec(text);
          if (end !== null) done.resolve({ code: Number(end[1]), output: text.slice(0, end.index).trim() });
        },
        close: () => done.reject(new Error("the device is gone")),
        error: (_, error) => done.reject(error),
      },
    });
    const timer = setTimeout(
      () => done.reject(new Error(`the device's shell does not answer; it said: ${text.slice(-500)}`)),
      timeoutMs,
    );
    try {
      socket.write(script);
      return await done.promise;
    } finally {
      clearTimeout(timer);
      socket.end();
    }
  }

  /** The output of a command that must succeed. */
  async mustRun(line: string, timeoutMs = 60_000): Promise<string> {
    const { code, output } = await this.run(line, timeoutMs);
    if (code !== 0) throw new Error(`Cannot run ${line} in the device: ${code}, ${output}`);
    return output;
  }

  /** Waits until the shell answers. */
  async isUp(timeoutMs = 240_000): Promise<void> {
    await until("the device's shell answers", async () => (await this.run("true", 5_000)).code === 0, timeoutMs);
  }

  /** The plug is pulled. @returns how many blocks were in the disk's cache. */
  async cutPower(kind: PowerLoss, draw: () => number): Promise<number> {
    await this.emulator.stop("SIGKILL");
    return this.options.disk.losePower(kind, draw);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.emulator.stop("SIGKILL");
    rmSync(this.shellPath, { force: true });
  }
}
