/**
 * The executables: one row per target, then a check that each starts.
 *
 *   bun scripts/build-targets.ts            all targets, with .sha256 files
 *   bun scripts/build-targets.ts --native   this machine's only, skipped when nothing changed
 *
 * Built from one commit by one Bun they are the same bytes every time: the
 * build date is the commit's, and all are built under one base name, because
 * the name is part of the file.
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { ensureDependencies, projectRoot } from "./setup.ts";

interface TargetRow {
  readonly name: string;
  readonly bunTarget: string;
  readonly arch: "x64" | "arm64";
  /** Why it is built. */
  readonly reason: string;
  /** How to start it on a foreign machine. */
  readonly emulator?: readonly string[];
}

const TARGETS: readonly TargetRow[] = [
  { name: "holdfast-linux-x64", bunTarget: "bun-linux-x64", arch: "x64", reason: "gateways and servers on amd64; runs from Nehalem on, glibc 2.17 on" },
  { name: "holdfast-linux-arm64", bunTarget: "bun-linux-arm64", arch: "arm64", reason: "Raspberry Pi 3 to 5 and their like, 64-bit userland, glibc 2.17 on", emulator: ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"] },
];

const FLAGS = [
  "--compile", "--minify", "--bytecode", "--format=esm", "--sourcemap",
  // Small heaps; request heads as large as API servers may send.
  "--compile-exec-argv=--smol --max-http-header-size=131072",
  // Whoever can write into the working directory must not run code in this program.
  "--no-compile-autoload-bunfig", "--no-compile-autoload-dotenv",
];
const dist = join(projectRoot, "dist");

async function main(): Promise<void> {
  ensureDependencies();
  const isNativeOnly = process.argv.includes("--native");
  const rows = isNativeOnly ? TARGETS.filter(({ arch }) => arch === process.arch) : TARGETS;
  if (rows.length === 0) throw new Error(`Cannot build for this machine: no target for ${process.arch}`);
  mkdirSync(dist, { recursive: true });
  const stamp = sourceStamp();
  for (const row of rows) {
    const stampPath = join(dist, `.${row.name}.stamp`);
    const isFresh = existsSync(join(dist, row.name)) && existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp;
    if (isNativeOnly && isFresh) continue;
    build(row);
    console.log(`${row.name}: ${check(row)}`);
    writeFileSync(stampPath, stamp);
  }
}

function build({ name, bunTarget }: TargetRow): void {
  const folder = join(dist, `.${name}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const built = join(folder, "holdfast");
  const defines = { HOLDFAST_VERSION: version(), HOLDFAST_COMMIT: commit(), HOLDFAST_BUILT_AT: commitTime() };
  const args = Object.entries(defines).flatMap(([key, value]) => ["--define", `${key}=${JSON.stringify(value)}`]);
  const result = Bun.spawnSync([process.execPath, "build", ...FLAGS, ...args, `--target=${bunTarget}`, "src/main.ts", "--outfile", built], { cwd: projectRoot, stderr: "pipe", stdout: "pipe" });
  if (result.exitCode !== 0 || !existsSync(built)) throw new Error(`Cannot build ${name}:\n${result.stdout.toString()}${result.stderr.toString()}`);
  renameSync(built, join(dist, name));
  rmSync(folder, { recursive: true, force: true });
  const digest = new Bun.CryptoHasher("sha256").update(readFileSync(join(dist, name))).digest("hex");
  writeFileSync(join(dist, `${name}.sha256`), `${digest}  ${name}\n`);
}

/** Starts the file and compares what it says of itself; a stripped one would be a bare runtime that exits 0. */
function check({ name, arch, emulator }: TargetRow): string {
  const isForeign = arch !== process.arch;
  if (isForeign && (emulator === undefined || Bun.which(emulator[0]!) === null || !existsSync(emulator[2] ?? "/"))) return `built, not started: ${emulator?.[0] ?? "an emulator"} or its libraries are missing here`;
  const result = Bun.spawnSync([...(isForeign ? emulator! : []), join(dist, name), "version", "-o", "json"], { stdout: "pipe", stderr: "pipe", timeout: 120_000 });
  let said: { program?: string; version?: string; commit?: string };
  try {
    said = JSON.parse(result.stdout.toString()) as typeof said;
  } catch {
    throw new Error(`Cannot trust ${name}: "version" answered no JSON (${result.stdout.toString().slice(0, 80)}${result.stderr.toString().slice(0, 200)})`);
  }
  if (said.program !== "holdfast" || said.version !== version() || said.commit !== commit()) throw new Error(`Cannot trust ${name}: it calls itself ${JSON.stringify(said)}`);
  return `${said.version} (${said.commit}) starts${isForeign ? ` under ${emulator![0]}` : ""}`;
}

function version(): string {
  return (JSON.parse(readFileSync(join(projectRoot, "package.json"), "utf8")) as { version: string }).version;
}

function commit(): string {
  return git(["rev-parse", "--short=12", "HEAD"]) ?? "unknown";
}

function commitTime(): string {
  const seconds = git(["log", "-1", "--format=%ct"]);
  return seconds === undefined ? "unknown" : new Date(Number(seconds) * 1_000).toISOString();
}

function git(args: readonly string[]): string | undefined {
  const result = Bun.spawnSync(["git", ...args], { cwd: projectRoot, stdout: "pipe", stderr: "ignore" });
  return result.exitCode === 0 ? result.stdout.toString().trim() : undefined;
}

/** Changes whenever the sources, the flags or the commit do. */
function sourceStamp(): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const path of [...new Glob("src/**/*.ts").scanSync(projectRoot), "package.json", "bun.lock", "scripts/build-targets.ts"].sort()) hasher.update(path).update(readFileSync(join(projectRoot, path)));
  return hasher.update(`${Bun.version} ${commit()}`).digest("hex");
}

await main();
