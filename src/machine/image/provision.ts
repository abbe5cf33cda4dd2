/**
 * Putting Holdfast into a root file system that somebody else boots later:
 * executable, units, configuration, first boot. No network, and no code of the
 * target is run, so a foreign architecture is as good as our own.
 *
 * Units are enabled by the symbolic links that `systemctl enable` would make.
 * A second run changes nothing and says so.
 */

import { existsSync, readFileSync, statSync, utimesSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { needsOf, sectionOf, type Needs } from "../../base/elf.ts";
import { EdgeError } from "../../base/errors.ts";
import type { Profile } from "../../base/reexec.ts";
import { fileOf } from "../../config/config-file.ts";
import { CONFIG_FILE, DEFAULT_BINARY, INSTALLED_LIST, UNIT_DIR } from "../places.ts";
import { unitFiles, type SystemFile } from "../units.ts";
import { firstBootUnits } from "./first-boot-units.ts";
import { identitiesIn } from "./identity.ts";
import type { RootTree } from "./root-tree.ts";

/** The root was not provisioned. */
export class ProvisionError extends EdgeError {
  override readonly name = "ProvisionError";
  readonly code = "PROVISION";
}

/** What goes into an image. */
export interface Provisions {
  /** The configuration, a file of the builder's. */
  readonly config: string;
  /** The executable for the target, a file of the builder's. */
  readonly binary: string;
  readonly profile: Profile;
  /** The image's date: a device without a battery clock starts no earlier. */
  readonly nowMs: number;
}

/** Holds our program inside an executable of the runtime's. */
const PROGRAM_SECTION = ".bun";
/** systemd starts no earlier than this file's date. */
const CLOCK_EPOCH = "/usr/lib/clock-epoch";
/** A configuration may name secrets' places; the folder is ours. */
const CONFIG_MODE = 0o600;
const CONFIG_FOLDER_MODE = 0o700;
/** So many are named to a person; the rest is counted. */
const MAX_NAMED = 6;

/** Checks all, then writes. @throws {ProvisionError} {ConfigError} before the first change. */
export async function provision(tree: RootTree, provisions: Provisions): Promise<void> {
  refuseIdentity(tree);
  const kubeconfig = kubeconfigOf(provisions.config);
  const { loader } = executableFor(tree, provisions.binary);
  if (!tree.has(loader))
    throw new ProvisionError(
      `Cannot provision root "${tree.directory}": ${loader} is missing in it; a 64-bit userland with glibc 2.17 or later is needed`,
    );
  const units = [
    ...unitFiles({ profile: provisions.profile, binary: DEFAULT_BINARY }),
    ...firstBootUnits(DEFAULT_BINARY),
    untilJoined(kubeconfig),
  ];
  await tree.copy(provisions.binary, DEFAULT_BINARY, 0o755);
  tree.write(CONFIG_FILE, readFileSync(provisions.config), CONFIG_MODE, CONFIG_FOLDER_MODE);
  for (const { path, text, mode } of units) tree.write(path, text, mode);
  for (const unit of units) enable(tree, unit);
  tree.write(
    INSTALLED_LIST,
    [DEFAULT_BINARY, ...units.map(({ path }) => path)].map((path) => `${path}\n`).join(""),
    0o644,
  );
  setEpoch(tree, provisions.nowMs);
}

function refuseIdentity(tree: RootTree): void {
  const live = identitiesIn(tree).filter(({ isLive }) => isLive);
  if (live.length === 0) return;
  const named = live.slice(0, MAX_NAMED).map(({ path, what }) => `${path} (${what})`);
  const more = live.length > MAX_NAMED ? ` and ${live.length - MAX_NAMED} more` : "";
  throw new ProvisionError(
    `Cannot provision root "${tree.directory}": it is some machine already, and every device made from it would be the same one: ${named.join(", ")}${more}; wipe that with: holdfast image seal --root ${tree.directory}`,
  );
}

/**
 * The kubeconfig that the configuration names, as the device will read it. Whether it exists is for the device to see.
 *
 * @throws {ConfigError} naming the line.
 */
function kubeconfigOf(path: string): string {
  if (fileOf(path, {}).kubeconfig === undefined)
    throw new ProvisionError(
      `Cannot use configuration "${path}": kubeconfig is missing; a device that joins by holdfast-join.yaml has kubeconfig: /etc/kubernetes/kubelet.conf`,
    );
  const { kubeconfig } = Bun.YAML.parse(readFileSync(path, "utf8")) as { kubeconfig: string };
  return resolve(dirname(CONFIG_FILE), kubeconfig);
}

/** The executable, looked at as a file: ours whole, and of the target's architecture. */
function executableFor(tree: RootTree, path: string): { readonly loader: string } {
  const refused = (why: string) => new ProvisionError(`Cannot use executable "${path}": ${why}`);
  if (!existsSync(path) || !statSync(path).isFile()) throw refused("there is no such file");
  const bytes = readFileSync(path);
  const head = headOf(bytes, path);
  if (head?.loader === undefined)
    throw refused("it is no program for amd64 or arm64; expected dist/holdfast-linux-x64 or dist/holdfast-linux-arm64");
  if (!isWhole(bytes)) throw refused("our program is not in it any more; it was stripped or packed, which destroys it");
  const target = targetMachine(tree);
  if (target !== undefined && target !== head.machine)
    throw refused(
      `it is for ${head.machine} and root "${tree.directory}" is ${target}; give the other one with --binary dist/holdfast-linux-${target === "amd64" ? "x64" : "arm64"}`,
    );
  return { loader: head.loader };
}

/** Read off the programs that every system has. */
function targetMachine(tree: RootTree): Needs["machine"] | undefined {
  for (const path of ["/usr/bin/env", "/bin/sh", "/usr/lib/systemd/systemd"]) {
    const bytes = tree.read(path);
    if (bytes === undefined) continue;
    try {
      return needsOf(bytes, path).machine;
    } catch {
      // A script, or a 32-bit system: the loader's absence says that.
    }
  }
  return undefined;
}

function headOf(bytes: Uint8Array, path: string): Needs | undefined {
  try {
    return needsOf(bytes, path);
  } catch {
    return undefined;
  }
}

/**
 * The runtime finds our program by an address that the compiler wrote into it,
 * in a gap between sections. `strip` keeps the section and clears the gap: what
 * is left is a bare runtime, which answers everything with exit code 0.
 */
function isWhole(bytes: Buffer): boolean {
  const section = sectionOf(bytes, PROGRAM_SECTION);
  if (section === undefined) return false;
  const address = Buffer.alloc(8);
  address.writeBigUInt64LE(section.address);
  return bytes.subarray(0, section.offset).includes(address);
}

/** The daemon's unit waits until there is something to go by. A card is copied, and then two boards have one identity. */
function untilJoined(kubeconfig: string): SystemFile {
  return {
    path: `${UNIT_DIR}/holdfast.service.d/10-image.conf`,
    text: `# Made by "holdfast image provision": nothing to run by before this device has joined.
[Unit]
ConditionPathExists=${kubeconfig}

[Service]
Environment=HOLDFAST_CLAIM_NODE=true
`,
    mode: 0o644,
  };
}

/** As `systemctl --root=... enable`. */
function enable(tree: RootTree, { path, text }: SystemFile): void {
  for (const [, targets = ""] of text.matchAll(/^WantedBy=(.*)$/gm))
    for (const target of targets.split(" "))
      if (target !== "") tree.link(`${UNIT_DIR}/${target}.wants/${basename(path)}`, path);
}

/** Never set back: a second run of an older date keeps the later one. */
function setEpoch(tree: RootTree, nowMs: number): void {
  tree.write(CLOCK_EPOCH, "", 0o644);
  const place = tree.place(CLOCK_EPOCH);
  if (statSync(place).mtimeMs < nowMs) utimesSync(place, nowMs / 1_000, nowMs / 1_000);
}
