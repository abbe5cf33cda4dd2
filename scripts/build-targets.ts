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
import { clientClasses } from "./client-classes.ts";
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

/** What is compiled into what. */
export interface Compilation {
  /** Its base name becomes part of the file. */
  readonly outfile: string;
  readonly entry: string;
  readonly bunTarget: string;
  /** Text constants by their name in the source. */
  readonly defines?: Readonly<Record<string, string>>;
}

/** Compiles one executable; tests compile their probes the same way. @throws with the bundler's words. */
export async function compile({ outfile, entry, bunTarget, defines = {} }: Compilation): Promise<void> {
  const target = bunTarget as Bun.Build.CompileTarget;
  const { success, logs } = await Bun.build({
    entrypoints: [entry],
    minify: true,
    // A third off the start, for 0.2 MB; top-level await needs the format.
    bytecode: true,
    format: "esm",
    // What is imported when it is asked for is read when it is asked for: 4 MB less in `run`, and a start in a fifth of the time.
    splitting: true,
    // An unforeseen error's log line names the place in our source.
    sourcemap: "inline",
    plugins: [clientClasses],
    define: Object.fromEntries(Object.entries(defines).map(([name, text]) => [name, JSON.stringify(text)])),
    throw: false,
    compile: {
      target,
      outfile,
      // Small heaps; request heads as large as API servers may send.
      execArgv: ["--smol", "--max-http-header-size=131072"],
      // Whoever can write into the working directory must not run code in this program.
      autoloadBunfig: false,
      autoloadDotenv: false,
    },
  });
  if (!success || !existsSync(outfile)) throw new Error(`Cannot build "${outfile}":\n${logs.join("\n")}`);
}

/** What an executable says of itself; `version -o json` prints these fields among others. */
export interface Identity {
  readonly version: string;
  readonly commit: string;
}

const dist = join(projectRoot, "dist");
/** What decides how it is built. */
const OWN = ["scripts/build-targets.ts", "scripts/client-classes.ts"];

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

async function main(args: readonly string[]): Promise<void> {
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
    console.log(`${row.name}: ${await build(row)}`);
    writeFileSync(stampPath, stamp);
  }
}

/** Builds, tries and moves one executable. @returns what to tell the reader. */
async function build(row: TargetRow): Promise<string> {
  const expected = { version: version(), commit: commit() };
  const folder = mkdtempSync(join(dist, ".build-"));
  try {
    const built = join(folder, "holdfast");
    await compile({
      entry: join(projectRoot, "src/main.ts"),
      outfile: built,
      bunTarget: row.bunTarget,
      defines: {
        HOLDFAST_VERSION: expected.version,
        HOLDFAST_COMMIT: expected.commit,
        HOLDFAST_BUILT_AT: commitTime(),
      },
    });
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
  const paths = [...new Glob("src/**/*").scanSync(projectRoot), "package.json", "bun.lock", ...OWN];
  const hasher = new Bun.CryptoHasher("sha256").update(`${Bun.version} ${commit()}`);
  for (const path of paths.sort()) hasher.update(`\0${path}\0`).update(readFileSync(join(projectRoot, path)));
  return hasher.digest("hex");
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    console.error((error as Error).message);
    process.exit(1);
  }
}
