/**
 * The disk: partitions filled as files and laid into one sparse file at their
 * offsets, so that no loop device and no mount is needed.
 */

import { mkdirSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Architecture, ImageRecipe } from "./debian.ts";
import { INIT } from "./rootfs.ts";
import { runTool } from "./tools.ts";

/** Of a partition. Sectors of 512 bytes; every size a whole number of MiB. */
interface Part {
  readonly name: string;
  readonly type: string;
  readonly sizeMiB: number;
}

const LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
/** Two kernels and two initrds. */
const ESP: Part = { name: "esp", type: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", sizeMiB: 192 };
const SLOTS: readonly Part[] = ["root-a", "root-b"].map((name) => ({ name, type: LINUX, sizeMiB: 1_280 }));
const DATA: Part = { name: "data", type: LINUX, sizeMiB: 2_048 };
const PARTS = [ESP, ...SLOTS, DATA];

/** Each partition's first MiB; the table itself has the first one. */
export const PART_OFFSETS_MIB: Readonly<Record<string, number>> = Object.fromEntries(
  PARTS.map(({ name }, index) => [name, 1 + PARTS.slice(0, index).reduce((sum, { sizeMiB }) => sum + sizeMiB, 0)]),
);

const CONSOLE: Readonly<Record<Architecture, string>> = { amd64: "ttyS0", arm64: "ttyAMA0" };
const LOADER: Readonly<Record<Architecture, { readonly from: string; readonly as: string }>> = {
  amd64: { from: "systemd-bootx64.efi", as: "BOOTX64.EFI" },
  arm64: { from: "systemd-bootaa64.efi", as: "BOOTAA64.EFI" },
};

/** Makes it from a staged root; the root's /var becomes the data partition's. */
export function makeDisk(stage: string, recipe: ImageRecipe): void {
  const root = join(stage, "root");
  const data = join(stage, "data");
  mkdirSync(data);
  renameSync(join(root, "var"), join(data, "var"));
  mkdirSync(join(root, "var"));
  const esp = makeEsp(stage, root, recipe);
  const output = `${recipe.output}.part`;
  rmSync(output, { force: true });
  writeFileSync(output, "");
  truncateSync(output, (1 + PARTS.reduce((sum, { sizeMiB }) => sum + sizeMiB, 0) + 1) * 2 ** 20);
  runTool(["sfdisk", "--quiet", output], tableText());
  lay(esp, output, ESP);
  for (const slot of SLOTS) {
    const image = join(stage, `${slot.name}.ext4`);
    makeExt4(image, slot, root);
    lay(image, output, slot);
    rmSync(image);
  }
  const image = join(stage, "data.ext4");
  makeExt4(image, DATA, data);
  lay(image, output, DATA);
  renameSync(output, recipe.output);
}

function tableText(): string {
  const rows = PARTS.map(
    ({ name, type, sizeMiB }) => `start=${PART_OFFSETS_MIB[name]}MiB, size=${sizeMiB}MiB, type=${type}, name="${name}"`,
  );
  return ["label: gpt", ...rows, ""].join("\n");
}

function makeExt4(path: string, { name, sizeMiB }: Part, from: string): void {
  writeFileSync(path, "");
  truncateSync(path, sizeMiB * 2 ** 20);
  runTool(["mke2fs", "-q", "-t", "ext4", "-L", name, "-E", "root_owner=0:0", "-d", from, path]);
}

/** FAT, label HOLDFAST: the loader, an entry and a folder for each slot. */
function makeEsp(stage: string, root: string, { arch, append }: ImageRecipe): string {
  const path = join(stage, "esp.fat");
  writeFileSync(path, "");
  truncateSync(path, ESP.sizeMiB * 2 ** 20);
  runTool(["mformat", "-i", path, "-F", "-v", "HOLDFAST", "::"]);
  const boot = join(root, "boot");
  const named = (start: string) =>
    join(
      boot,
      readdirSync(boot).find((name) => name.startsWith(start))!,
    );
  const file = (target: string, text: string) => {
    const source = join(stage, "esp-file");
    writeFileSync(source, text);
    runTool(["mcopy", "-i", path, source, `::${target}`]);
  };
  const folders = ["EFI", "EFI/BOOT", "loader", "loader/entries", "slot-a", "slot-b"];
  for (const folder of folders) runTool(["mmd", "-i", path, `::${folder}`]);
  const { from, as } = LOADER[arch];
  runTool(["mcopy", "-i", path, join(root, "usr/lib/systemd/boot/efi", from), `::EFI/BOOT/${as}`]);
  file("loader/loader.conf", "default slot-a.conf\ntimeout 0\n");
  for (const slot of ["a", "b"]) {
    runTool(["mcopy", "-i", path, named("vmlinuz"), `::slot-${slot}/vmlinuz`]);
    runTool(["mcopy", "-i", path, named("initrd.img"), `::slot-${slot}/initrd.img`]);
    file(
      `loader/entries/slot-${slot}.conf`,
      [
        `title Slot ${slot}`,
        `linux /slot-${slot}/vmlinuz`,
        `initrd /slot-${slot}/initrd.img`,
        `options root=PARTLABEL=root-${slot} ro init=${INIT} console=${CONSOLE[arch]} quiet panic=10 ${append ?? ""}`.trimEnd(),
        "",
      ].join("\n"),
    );
  }
  return path;
}

/** Lays a partition's file into the disk; holes stay holes. */
function lay(from: string, disk: string, { name }: Part): void {
  runTool([
    "dd",
    `if=${from}`,
    `of=${disk}`,
    "bs=1M",
    `seek=${PART_OFFSETS_MIB[name]}`,
    "conv=notrunc,sparse",
    "status=none",
  ]);
}
