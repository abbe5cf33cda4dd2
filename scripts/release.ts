/**
 * `bun run release`: one folder with all that a machine or a person needs.
 *
 *   holdfast-linux-ARCH.xz       both executables
 *   install.sh                   with the public key inside
 *   units/PROFILE/...            as the installer writes them, for images
 *   completion/, man/            from the table of commands
 *   sbom.cdx.json                what the executables are made of
 *   SHA256SUMS                   of every file above, and of each executable unpacked
 *   SHA256SUMS.minisig           the signature that vouches for all of it
 *
 *   bun run release --signing-key FILE [--output-dir DIR]
 *   bun run release --unsigned         to try it; its installer asks for HOLDFAST_SKIP_SIGNATURE=1
 *   bun run release --new-key FILE     makes a key: FILE, and FILE.pub
 *
 * From one commit it is the same bytes every time, so that a second builder
 * can vouch for it: nothing in it knows the time or the machine.
 */

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { COMMANDS } from "../src/cli/commands.ts";
import { completionScript, SHELL_NAMES } from "../src/cli/completion.ts";
import { DEFAULT_BINARY } from "../src/machine/places.ts";
import { unitFiles } from "../src/machine/units.ts";
import { commitTime, TARGETS, version } from "./build-targets.ts";
import { manPages } from "../src/cli/man-pages.ts";
import {
  newSigningKey,
  publicKeyFile,
  publicKeyLine,
  readSecretKey,
  secretKeyFile,
  signatureFile,
  type SigningKey,
} from "./release/minisign.ts";
import { sbomText } from "./release/sbom.ts";
import { ensureDependencies, projectRoot } from "./setup.ts";

/** What a patient uplink may be asked for, in bytes. */
export const MAX_DOWNLOAD_BYTES = 42_000_000;

/** What a release is made from. */
export interface ReleaseOptions {
  /** Holds the executables under their names in TARGETS. */
  readonly binaries: string;
  /** Replaced as a whole. */
  readonly outputDir: string;
  /** Undefined: nobody vouches for it. */
  readonly key: SigningKey | undefined;
  readonly version: string;
  /** ISO 8601, of the commit. */
  readonly builtAt: string;
}

/** Makes the folder. @throws {Error} when something is missing, or an executable too large to be sent. */
export async function makeRelease(options: ReleaseOptions): Promise<void> {
  const { outputDir, key, builtAt } = options;
  const work = `${outputDir}.new`;
  rmSync(work, { recursive: true, force: true });
  const put = (path: string, content: string | Uint8Array, mode = 0o644) => {
    const to = join(work, path);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, content);
    // Whatever the mask of whoever builds.
    chmodSync(to, mode);
  };
  const unpacked = await Promise.all(TARGETS.map(({ name }) => packed(options, name, put)));
  putTexts(options, put);
  const sums = [...unpacked, ...filesIn(work).map((path) => `${digestOf(readFileSync(join(work, path)))}  ${path}`)];
  const manifest = `${sums.sort((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1)).join("\n")}\n`;
  put("SHA256SUMS", manifest);
  if (key !== undefined) {
    const trusted = `holdfast ${options.version} of ${builtAt}`;
    put("SHA256SUMS.minisig", signatureFile(Buffer.from(manifest), key, trusted));
    put("holdfast.pub", publicKeyFile(key));
  }
  rmSync(outputDir, { recursive: true, force: true });
  renameSync(work, outputDir);
}

type Put = (path: string, content: string | Uint8Array, mode?: number) => void;

/** One executable, compressed. @returns the line of what it unpacks to. */
async function packed({ binaries }: ReleaseOptions, name: string, put: Put): Promise<string> {
  const path = join(binaries, name);
  if (!existsSync(path)) throw new Error(`Cannot release: ${path} is missing; build it: bun run build`);
  // One thread: with several the bytes depend on how many there are.
  // Jumps of x86 read alike once their targets are made absolute: a fortieth less.
  const filters = name.endsWith("x64") ? ["--x86", "--lzma2=preset=9e"] : ["-9e"];
  const child = Bun.spawn(["xz", ...filters, "--threads=1", "--check=sha256", "--stdout", path], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [bytes, complaint] = await Promise.all([new Response(child.stdout).bytes(), new Response(child.stderr).text()]);
  if ((await child.exited) !== 0) throw new Error(`Cannot compress ${path}: ${complaint}`);
  if (bytes.length > MAX_DOWNLOAD_BYTES)
    console.warn(`release: ${name}.xz has ${bytes.length} bytes, more than the ${MAX_DOWNLOAD_BYTES} that are wanted`);
  put(`${name}.xz`, bytes);
  return `${digestOf(readFileSync(path))}  ${name}`;
}

function putTexts({ key, version: ours, builtAt }: ReleaseOptions, put: Put): void {
  const installer = readFileSync(join(projectRoot, "install.sh"), "utf8");
  const line = "\nHOLDFAST_PUBLIC_KEY=${HOLDFAST_PUBLIC_KEY:-}";
  if (!installer.includes(line)) throw new Error("Cannot release: install.sh has no place for the public key");
  put(
    "install.sh",
    key === undefined ? installer : installer.replace(line, `${line.slice(0, -1)}${publicKeyLine(key)}}`),
    0o755,
  );
  for (const profile of ["small", "default"] as const)
    for (const { path, text, mode } of unitFiles({ profile, binary: DEFAULT_BINARY }))
      put(`units/${profile}${path}`, text, mode);
  for (const shell of SHELL_NAMES)
    put(`completion/${shell === "zsh" ? "_holdfast" : `holdfast.${shell}`}`, `${completionScript(shell, COMMANDS)}\n`);
  for (const [name, text] of manPages(COMMANDS, ours, builtAt.slice(0, 10))) put(`man/${name}`, text);
  put("sbom.cdx.json", sbomText(projectRoot, ours, builtAt));
  put("VERSION", `${ours}\n`);
  put("LICENSE", readFileSync(join(projectRoot, "LICENSE")));
}

function filesIn(folder: string): string[] {
  return (readdirSync(folder, { recursive: true }) as string[])
    .filter((path) => statSync(join(folder, path)).isFile())
    .map((path) => relative(folder, join(folder, path)));
}

function digestOf(content: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(content).digest("hex");
}

async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      "output-dir": { type: "string" },
      "signing-key": { type: "string" },
      unsigned: { type: "boolean" },
      "new-key": { type: "string" },
    },
    strict: true,
  });
  const newKey = values["new-key"];
  if (newKey !== undefined) return makeKey(newKey);
  const keyPath = values["signing-key"];
  if ((keyPath === undefined) === (values.unsigned !== true))
    throw new Error("Say who vouches for it: --signing-key FILE (made by --new-key FILE), or --unsigned");
  const key = keyPath === undefined ? undefined : readSecretKey(readFileSync(keyPath, "utf8"));
  ensureDependencies();
  const build = Bun.spawnSync([process.execPath, join(projectRoot, "scripts", "build-targets.ts")], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (build.exitCode !== 0) throw new Error("Cannot release: the build failed");
  const dist = join(projectRoot, "dist");
  const outputDir = values["output-dir"] ?? join(dist, `holdfast-${version()}`);
  await makeRelease({ binaries: dist, outputDir, key, version: version(), builtAt: commitTime() });
  for (const path of filesIn(outputDir).filter((name) => !/^(units|man|completion)/.test(name)))
    console.log(`${path}  ${statSync(join(outputDir, path)).size} bytes`);
  console.log(`${outputDir}: ${key === undefined ? "signed by nobody" : `signed, public key ${publicKeyLine(key)}`}`);
}

function makeKey(path: string): void {
  const key = newSigningKey();
  writeFileSync(path, secretKeyFile(key), { mode: 0o600, flag: "wx" });
  writeFileSync(`${path}.pub`, publicKeyFile(key));
  console.log(`${path}: keep it off every machine but the one that releases; ${path}.pub is for everybody`);
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    console.error((error as Error).message);
    process.exit(1);
  }
}
