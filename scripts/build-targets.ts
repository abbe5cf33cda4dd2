/**
 * The executables: one row per target, then a check that each starts.
 *
 *   bun scripts/build-targets.ts            all targets, with .sha256 files
 *   bun scripts/build-targets.ts --native   this machine's only, skipped when nothing changed
 *
 * Built from one commit by one Bun they are the same bytes every time: the
 * build date is the commit's, and all are built under one base name, because
 * the name is part of the file. From a changed tree the commit ends in -dirty.
 *
 * Invariant: what stands in dist/ under its final name has said who it is. A
 * file is built and tried in a folder of its own, so that two builds at once
 * do not mix, and moved by rename, so that a running one is not disturbed.
 */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Glob } from "bun";
import { ensureDependencies, projectRoot } from "./setup.ts";

/** One executable. */
export interface TargetRow {
  readonly name: string;
  readonly bunTarget: string;
  readonly arch: "x64" | "arm64";
  /** Why it is built. */
  readonly reason: string;
  /** How to start it on a foreign machine: the emulator, and where it finds the foreign libc. */
  readonly emulator?: { readonly command: string; readonly prefix: string };
}

/** What is built. The glibc builds ask for less than the musl ones, which need libstdc++ on the machine. */
export const TARGETS: readonly TargetRow[] = [
  {
    name: "holdfast-linux-x64",
    bunTarget: "bun-linux-x64",
    arch: "x64",
    reason: "gateways and servers on amd64; runs from Nehalem on, glibc 2.17 on",
    emulator: { command: "qemu-x86_64", prefix: "/usr/x86_64-linux-gnu" },
  },
  {
    name: "holdfast-linux-arm64",
    bunTarget: "bun-linux-arm64",
    arch: "arm64",
    reason: "Raspberry Pi 3 to 5 and their like, 64-bit userland, glibc 2.17 on",
    emulator: { command: "qemu-aarch64", prefix: "/usr/aarch64-linux-gnu" },
  },
];

/** How each is compiled; tests compile their probes the same way. */
export const COMPILE_FLAGS: readonly string[] = [
  "--compile",
  "--minify",
  // A third off the start, for 0.2 MB; top-level await needs the format.
  "--bytecode",
  "--format=esm",
  // What is imported when it is asked for is read when it is asked for: 4 MB less in `run`, and a start in a fifth of the time.
  "--splitting",
  "--sourcemap",
  // Small heaps; request heads as large as API servers may send.
  "--compile-exec-argv=--smol --max-http-header-size=131072",
  // Whoever can write into the working directory must not run code in this program.
  "--no-compile-autoload-bunfig",
  "--no-compile-autoload-dotenv",
];

/** What an executable says of itself; `version -o json` prints these fields among others. */
export interface Identity {
  readonly version: string;
  readonly commit: string;
}

const dist = join(projectRoot, "dist");

/**
 * Starts an executable and compares what it says with what was built.
 *
 * The exit code proves nothing: a stripped file is a bare runtime, which prints
 * its own help and exits 0.
 *
 * @param command the executable, behind its emulator if it needs one.
 * @throws if it does not call itself holdfast of that version and commit.
 */
export function checkIdentity(command: readonly string[], expected: Identity): void {
  const path = command.at(-1)!;
  const { stdout, stderr } = Bun.spawnSync([...command, "version", "-o", "json"], {
    env: { PATH: process.env["PATH"] ?? "" },
    stdout: "pipe",
    stderr: "pipe",
    timeout: 120_000,
  });
  let said: Partial<Identity> & { readonly program?: string };
  try {
    said = JSON.parse(stdout.toString()) as typeof said;
  } catch {
    const answer = `${stdout.toString()}${stderr.toString()}`.trim().slice(0, 200);
    throw new Error(`Cannot trust "${path}": "version" answered no JSON (was it stripped?): ${answer}`);
  }
  const isRight = said.program === "holdfast" && said.version === expected.version && said.commit === expected.commit;
  if (!isRight) throw new Error(`Cannot trust "${path}": it calls itself ${JSON.stringify(said)}`);
}

function main(args: readonly string[]): void {
  const { values } = parseArgs({ args: [...args], options: { native: { type: "boolean" } }, strict: true });
  ensureDependencies();
  const rows = values.native === true ? TARGETS.filter(({ arch }) => arch === process.arch) : TARGETS;
  if (rows.length === 0) throw new Error(`Cannot build for this machine: no target for "${process.arch}"`);
  mkdirSync(dist, { recursive: true });
  const stamp = sourceStamp();
  for (const row of rows) {
    const stampPath = join(dist, `.${row.name}.stamp`);
    const isBuilt = ["", ".sha256"].every((suffix) => existsSync(join(dist, row.name + suffix)));
    const isFresh = isBuilt && existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp;
    if (values.native === true && isFresh) continue;
    console.log(`${row.name}: ${build(row)}`);
    writeFileSync(stampPath, stamp);
  }
}

/** Builds, tries and moves one executable. @returns what to tell the reader. */
function build(row: TargetRow): string {
  const expected = { version: version(), commit: commit() };
  const folder = mkdtempSync(join(dist, ".build-"));
  try {
    const built = join(folder, "holdfast");
    compile(row, expected, built);
    const how = tryOut(row, expected, built);
    const bytes = readFileSync(built);
    const digest = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    renameSync(built, join(dist, row.name));
    writeFileSync(join(dist, `${row.name}.sha256`), `${digest}  ${row.name}\n`);
    return `${expected.version} (${expected.commit}), ${(bytes.length / 1e6).toFixed(1)} MB, ${how}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function compile({ name, bunTarget }: TargetRow, { version: ours, commit: at }: Identity, outfile: string): void {
  const defines = { HOLDFAST_VERSION: ours, HOLDFAST_COMMIT: at, HOLDFAST_BUILT_AT: commitTime() };
  const defineFlags = Object.entries(defines).flatMap(([key, value]) => [
    "--define",
    `${key}=${JSON.stringify(value)}`,
  ]);
  const flags = [...COMPILE_FLAGS, ...defineFlags, `--target=${bunTarget}`, "--outfile", outfile];
  const result = Bun.spawnSync([process.execPath, "build", ...flags, "src/main.ts"], {
    cwd: projectRoot,
    stdout: "pipe",
    stderr: "pipe",
  });
  if (result.exitCode === 0 && existsSync(outfile)) return;
  throw new Error(`Cannot build "${name}":\n${result.stdout.toString()}${result.stderr.toString()}`);
}

function tryOut({ arch, emulator }: TargetRow, expected: Identity, path: string): string {
  if (arch === process.arch) {
    checkIdentity([path], expected);
    return "starts";
  }
  if (emulator === undefined || Bun.which(emulator.command) === null)
    return `not started: no ${emulator?.command} here`;
  if (!existsSync(emulator.prefix)) return `not started: no ${arch} libc in ${emulator.prefix}`;
  checkIdentity([emulator.command, "-L", emulator.prefix, path], expected);
  return `starts under ${emulator.command}`;
}

/** As package.json says. */
export function version(): string {
  return (JSON.parse(readFileSync(join(projectRoot, "package.json"), "utf8")) as { version: string }).version;
}

function commit(): string {
  const head = git(["rev-parse", "--short=12", "HEAD"]);
  if (head === undefined) return "unknown";
  const isChanged = git(["status", "--porcelain", "--", "src", "package.json", "bun.lock"]) !== "";
  return isChanged ? `${head}-dirty` : head;
}

/** When the commit was made, ISO 8601; "unknown" without git. */
export function commitTime(): string {
  const seconds = git(["log", "-1", "--format=%ct"]);
  return seconds === undefined ? "unknown" : new Date(Number(seconds) * 1_000).toISOString();
}

function git(args: readonly string[]): string | undefined {
  try {
    const result = Bun.spawnSync(["git", ...args], { cwd: projectRoot, stdout: "pipe", stderr: "ignore" });
    return result.exitCode === 0 ? result.stdout.toString().trim() : undefined;
  } catch {
    return undefined; // no git here: a source archive builds too
  }
}

/** Changes whenever the sources, the flags, the packages, the runtime or the commit do. */
function sourceStamp(): string {
  const paths = [...new Glob("src/**/*").scanSync(projectRoot), "package.json", "bun.lock", "scripts/build-targets.ts"];
  const hasher = new Bun.CryptoHasher("sha256").update(`${Bun.version} ${commit()}`);
  for (const path of paths.sort()) hasher.update(`\0${path}\0`).update(readFileSync(join(projectRoot, path)));
  return hasher.digest("hex");
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error((error as Error).message);
    process.exit(1);
  }
}
