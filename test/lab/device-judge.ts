/**
 * The judge of a power cut: what must be so of the data partition that it leaves.
 *
 *   promise  what is looked at
 *   P1, P3   the ConfigMap that goes on changing: a value that the API server gave, under the name it gave it,
 *            no older than what was durable, no newer than what was written; every row's sum
 *   P4       no copy of a caller that had none
 *   P5       the journal of the adoption, first boot, kubelet's pair, the identity: whole, and what they were
 *
 * It reads the partition's file by e2fsprogs, as a device's own start does, and
 * asks the executable about the copies. So it needs no machine: a running one
 * can be judged at any moment by what its disk would hold if the power went now.
 */
import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PART_OFFSETS_MIB } from "../../scripts/images/disk.ts";
import { runTool, toolPath } from "../../scripts/images/tools.ts";
import { protobufToJson } from "../../src/kube/protobuf-to-json.ts";
import { DeviceDisk, type Blocks } from "./device-disk.ts";
import { runProcess } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";

const MIB = 2 ** 20;
/** The last partition; a MiB behind it is the table's copy. */
const DATA_MIB = PART_OFFSETS_MIB["data"]!;

/** What a device's remains are held against. */
export interface Expected {
  /** `identityIn` of the device as it was. */
  readonly identity: string;
  /** The API server's name for each value of the ConfigMap. */
  readonly versions: ReadonlyMap<number, string>;
  /** No older: this value was on the disk. */
  readonly floor: number;
  /** Callers of whom there was a copy or an answer. */
  readonly callers: ReadonlySet<string>;
  /** "namespace/name" of the ConfigMap. */
  readonly configMap: string;
}

/** A file system that a start would not get by with; or the folder of its files. */
export type Remains = { readonly folder: string } | { readonly damage: string };

/** The data partition of a disk, once; copies of it are cheap. */
export function dataPartition(image: string, path: string, sizeBytes: number): void {
  const count = Math.floor(sizeBytes / MIB) - DATA_MIB - 1;
  const dd = [`if=${image}`, `of=${path}`, "bs=1M", `skip=${DATA_MIB}`, `count=${count}`, "conv=sparse", "status=none"];
  runTool(["dd", ...dd]);
}

/**
 * What a partition holds with these blocks over it, after the check that a device's start makes.
 *
 * @param from where on the disk it begins, bytes. Default the data partition of a device's image.
 * @param folders that are wanted of it.
 */
export async function remainsOf(
  partition: string,
  blocks: Blocks,
  into: string,
  from = DATA_MIB * MIB,
  folders: readonly string[] = ["/var/lib/holdfast", "/var/lib/kubelet/pki", "/etc/upper"],
): Promise<Remains> {
  const path = `${into}.ext4`;
  rmSync(into, { recursive: true, force: true });
  mkdirSync(into, { recursive: true });
  runTool(["cp", "--sparse=always", "--reflink=auto", partition, path]);
  try {
    DeviceDisk.lay(blocks, path, from, Number.MAX_SAFE_INTEGER);
    const checked = await runProcess([toolPath("e2fsck")!, "-p", path]);
    if (checked.exitCode >= 4) return { damage: `the file system is damaged: ${checked.stdout.trim().slice(-300)}` };
    for (const folder of folders) await runProcess([toolPath("debugfs")!, "-R", `rdump ${folder} ${into}`, path]);
  } finally {
    rmSync(path, { force: true });
  }
  return { folder: into };
}

/** What makes the device the one it is, of its remains; undefined where some of it is missing. */
export function identityIn(folder: string): string | undefined {
  const files = ["upper/machine-id", "holdfast/pki/local-ca.crt", "holdfast/pki/local-ca.key"];
  const hash = createHash("sha256");
  for (const file of files) {
    const path = join(folder, file);
    if (!existsSync(path)) return undefined;
    hash.update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

/** The ConfigMap as the copies have it; undefined where it is not kept. */
export async function valueIn(
  folder: string,
  configMap: string,
): Promise<{ readonly value: number; readonly resourceVersion: string } | undefined> {
  const command = [holdfastPath, "cache", "get", "configmaps", configMap, "-o", "raw", ...placesIn(folder)];
  const got = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const bytes = new Uint8Array(await got.stdout.bytes());
  if ((await got.exited) !== 0) return undefined;
  // As kubelet asked for it.
  const isJson = bytes[0] === "{".charCodeAt(0);
  const { data, metadata } = (isJson
    ? JSON.parse(Buffer.from(bytes).toString())
    : protobufToJson(bytes)) as unknown as {
    data: { value: string };
    metadata: { resourceVersion: string };
  };
  return { value: Number(data.value), resourceVersion: metadata.resourceVersion };
}

/** Everybody of whom something is kept. */
export async function callersIn(folder: string): Promise<Set<string>> {
  const listed = await cache(folder, "ls", "-o", "json");
  if (listed.exitCode !== 0) return new Set([`nobody: ${listed.stderr.trim()}`]);
  const { scopes, answers } = JSON.parse(listed.stdout) as {
    scopes: { principal: string }[];
    answers: { key: { principal: string } }[];
  };
  return new Set([...scopes.map(({ principal }) => principal), ...answers.map(({ key }) => key.principal)]);
}

/** @returns what is not as it must be, in words; nothing when all is well. */
export async function violationsOf(remains: Remains, expected: Expected): Promise<string[]> {
  if ("damage" in remains) return [remains.damage];
  const { folder } = remains;
  return [...filesAmiss(folder, expected), ...(await copiesAmiss(folder, expected))];
}

function filesAmiss(folder: string, { identity }: Expected): string[] {
  const found: string[] = [];
  if (identityIn(folder) !== identity)
    found.push("P5: the device is another, or nobody: its ids and keys have changed");
  if (!existsSync(join(folder, "holdfast/first-boot.done"))) found.push("P5: first boot is not done any more");
  try {
    const { phase } = JSON.parse(readFileSync(join(folder, "holdfast/adopt.json"), "utf8")) as { phase: string };
    if (phase !== "adopted") found.push(`P5: the journal says ${phase}`);
  } catch (error) {
    found.push(`P5: the journal cannot be read: ${(error as Error).message}`);
  }
  try {
    const pair = readFileSync(join(folder, "pki/kubelet-client-current.pem"), "utf8");
    if (!new X509Certificate(pair).checkPrivateKey(createPrivateKey(pair)))
      found.push("P5: kubelet's certificate and key do not fit together");
  } catch (error) {
    found.push(`P5: kubelet's pair cannot be read: ${(error as Error).message}`);
  }
  return found;
}

/** What is not as it must be of the copies in `FOLDER/holdfast`. */
export async function copiesAmiss(folder: string, expected: Omit<Expected, "identity">): Promise<string[]> {
  const { configMap, versions, floor, callers } = expected;
  const found: string[] = [];
  const verified = await cache(folder, "verify");
  if (verified.exitCode !== 0) found.push(`P3: ${`${verified.stdout}${verified.stderr}`.trim()}`);
  const kept = await valueIn(folder, configMap).catch((error: unknown) => String(error));
  if (kept === undefined) found.push(`P3: ${configMap} is not kept any more`);
  else if (typeof kept === "string") found.push(`P3: ${configMap} cannot be read: ${kept}`);
  else if (versions.get(kept.value) !== kept.resourceVersion)
    found.push(`P1: nobody ever said ${configMap} = ${kept.value} at ${kept.resourceVersion}`);
  else if (kept.value < floor) found.push(`P3: ${configMap} = ${kept.value} is older than what was durable, ${floor}`);
  for (const caller of await callersIn(folder))
    if (!callers.has(caller)) found.push(`P4: there is a copy of ${caller}, who had none`);
  return found;
}

async function cache(folder: string, ...args: string[]) {
  return await runProcess([holdfastPath, "cache", ...args, ...placesIn(folder)]);
}

/** Far from a daemon of this machine: nobody is to be asked to commit anything. */
function placesIn(folder: string): string[] {
  return ["--state-dir", join(folder, "holdfast"), "--admin-socket", join(folder, "no-daemon.sock")];
}
