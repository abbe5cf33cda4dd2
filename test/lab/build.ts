/**
 * The lab's programs: a real cluster, built from Go modules.
 *
 * Kubernetes and etcd publish their source as Go modules, so one toolchain and
 * the module proxy give the same programs on every machine and architecture,
 * checked against go.sum, with no image to pull. About nine minutes cold on two
 * cores, and hundreds of megabytes; therefore a program is built again only when
 * its key changes (module sums, toolchain, flags, sources), and a second
 * run takes well under a second.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { clockOverlay } from "./clock-overlay.ts";

/** Minor releases that may stand in for the lab's own kubelet or API server, and the patch release of each (`releases/MINOR/go.mod`). */
const RELEASES: Readonly<Record<string, string>> = { "1.34": "v1.34.4", "1.35": "v1.35.4", "1.36": "v1.36.3" };

/** Set by `run.ts --kubelet MINOR` and `--kube-apiserver MINOR`: a key of RELEASES. */
export const RELEASE_VARIABLES: Readonly<Record<string, string>> = {
  kubelet: "HOLDFAST_LAB_KUBELET",
  "kube-apiserver": "HOLDFAST_LAB_KUBE_APISERVER",
};

const KUBERNETES_VERSION = "v1.37.2";

/** What go.mod of every module asks for. */
const GO_VERSION = { major: 1, minor: 26 };

interface Program {
  readonly name: string;
  /** Folder of the Go module, as seen from this one. */
  readonly module: string;
  readonly target: string;
  /** Kubernetes' own programs: the release to stamp into them. */
  readonly version?: string;
  /** Its wall clock can be set while it runs; every package is compiled anew. Default false. */
  readonly hasOwnClock?: boolean;
  /** For a device of this architecture, as Go calls it; every package is compiled anew. Default this machine's. */
  readonly architecture?: "arm64";
  /** Takes minutes to build, and is built with --long alone. Default false. */
  readonly isLong?: boolean;
}

const PROGRAMS: readonly Program[] = [
  { name: "etcd", module: "cluster", target: "./etcd" },
  ...["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "kube-proxy", "kubeadm"].map(
    kubernetes,
  ),
  { ...kubernetes("kubelet"), name: "kubelet-clock", hasOwnClock: true, isLong: true },
  { ...kubernetes("kubelet"), name: "kubelet-arm64", architecture: "arm64", isLong: true },
  { name: "controller", module: "controller", target: ".", isLong: true },
  { name: "k9s", module: "k9s", target: "github.com/derailed/k9s", isLong: true },
  { name: "coredns", module: "coredns", target: "." },
  { name: "metrics-server", module: "metrics-server", target: "." },
  { name: "informers", module: "informers", target: "." },
  { name: "strategic-merge-oracle", module: "../kube/strategic-merge-oracle", target: "." },
  { name: "slow-link", module: "slow-link", target: "." },
  { name: "yamux-peer", module: "../mux/yamux-peer", target: "." },
];

function kubernetes(name: string): Program {
  return { name, module: "cluster", target: `k8s.io/kubernetes/cmd/${name}`, version: KUBERNETES_VERSION };
}

/** Where the programs lie: HOLDFAST_LAB_BIN, else .cache/lab-bin of the repository. */
export const programsDir = resolve(process.env["HOLDFAST_LAB_BIN"] ?? join(import.meta.dir, "../../.cache/lab-bin"));

/** The path of one built program; of the older release where one was asked for. */
export function programPath(name: string): string {
  const release = releaseOf(name);
  return join(programsDir, release === undefined ? name : `${name}-${release}`);
}

/** The minor release that was asked for of a program; undefined for the lab's own. @throws {Error} when it is none of RELEASES. */
function releaseOf(name: string): string | undefined {
  const release = process.env[RELEASE_VARIABLES[name] ?? ""];
  if (release === undefined) return undefined;
  if (Object.hasOwn(RELEASES, release)) return release;
  throw new Error(`Cannot use ${name} "${release}": known releases are ${Object.keys(RELEASES).join(", ")}`);
}

/** What is to be built: the older programs in place of the lab's own where they were asked for. */
function programs(): Program[] {
  return PROGRAMS.map((program) => {
    const release = releaseOf(program.name);
    return release === undefined ? program : { ...program, module: `releases/${release}`, version: RELEASES[release]! };
  });
}

/**
 * Why nothing can be built on this machine, in words for a skipped test's name.
 *
 * @returns undefined when Go is there and new enough, or may fetch a toolchain that is.
 */
export function whyNotBuildable(): string | undefined {
  if (Bun.which("go") === null) return "Go is not installed";
  const [version = "", toolchain = ""] = go(["env", "GOVERSION", "GOTOOLCHAIN"]).split("\n");
  const [, major, minor] = /^go(\d+)\.(\d+)/.exec(version) ?? [];
  const isNewEnough =
    Number(major) > GO_VERSION.major || (Number(major) === GO_VERSION.major && Number(minor) >= GO_VERSION.minor);
  // Since 1.21 an older Go fetches what go.mod asks for, unless told to stay local.
  const mayFetch = !toolchain.startsWith("local") && Number(minor) >= 21;
  return isNewEnough || mayFetch ? undefined : `${version} is older than go${GO_VERSION.major}.${GO_VERSION.minor}`;
}

/**
 * Builds what is missing or out of date.
 *
 * @param isLong also those that take minutes each; else they are left as they are.
 * @param names these and no others, whatever asks for them; empty for all.
 * @throws {Error} with the compiler's words, when a build fails.
 */
export function buildPrograms(isLong = false, names: readonly string[] = []): void {
  mkdirSync(programsDir, { recursive: true });
  for (const program of programs()) {
    if (names.length > 0 ? !names.includes(program.name) : program.isLong === true && !isLong) continue;
    const key = buildKey(program);
    if (isCurrent(program, key)) continue;
    console.log(`lab: building ${program.name}${program.version === undefined ? "" : ` ${program.version}`}`);
    const overlay = program.hasOwnClock === true ? ["-overlay", clockOverlay(programsDir, go(["env", "GOROOT"]))] : [];
    const built = ["-o", programPath(program.name), program.target];
    go(["build", ...buildFlags(program), ...overlay, ...built], folderOf(program), targetOf(program));
    writeFileSync(keyPath(program), key);
  }
}

/** Whether a program is there as its sources are now. */
export function isBuilt(name: string): boolean {
  const program = programs().find((program) => program.name === name);
  return program !== undefined && isCurrent(program, buildKey(program));
}

function isCurrent(program: Program, key: string): boolean {
  const isThere = existsSync(programPath(program.name)) && existsSync(keyPath(program));
  return isThere && readFileSync(keyPath(program), "utf8") === key;
}

function keyPath({ name }: Program): string {
  return `${programPath(name)}.key`;
}

function folderOf({ module }: Program): string {
  return join(import.meta.dir, module);
}

function buildFlags(program: Program): string[] {
  return ["-trimpath", "-buildvcs=false", "-ldflags", linkerFlags(program)];
}

/**
 * The version, stamped into both packages that tell it: without the first the API
 * server takes itself for v0.0.0 and turns features off, without the second every
 * User-Agent says so.
 */
function linkerFlags({ version }: Program): string {
  if (version === undefined) return "-s -w";
  const [major, minor] = version.slice(1).split(".");
  const stamps = {
    gitVersion: version,
    gitMajor: major,
    gitMinor: minor,
    gitTreeState: "clean",
    buildDate: "2026-01-01T00:00:00Z",
  };
  const packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
  const settings = packages.flatMap((path) =>
    Object.entries(stamps).map(([name, value]) => `-X ${path}.${name}=${value}`),
  );
  return ["-s", "-w", ...settings].join(" ");
}

function buildKey(program: Program): string {
  const directory = folderOf(program);
  const hash = createHash("sha256").update(
    [go(["env", "GOVERSION", "GOARCH"], directory, targetOf(program)), ...buildFlags(program)].join("\0"),
  );
  if (program.hasOwnClock === true) hash.update(readFileSync(join(import.meta.dir, "clock-overlay.ts")));
  for (const path of readdirSync(directory, { recursive: true, encoding: "utf8" }).sort()) {
    const full = join(directory, path);
    if (statSync(full).isFile()) hash.update(`\0${path}\0`).update(readFileSync(full));
  }
  return hash.digest("hex");
}

/** No C for another architecture: its compiler would be one more package, and kubelet needs none. */
function targetOf({ architecture }: Program): Record<string, string> {
  return architecture === undefined ? {} : { GOARCH: architecture, CGO_ENABLED: "0" };
}

function go(args: readonly string[], directory = import.meta.dir, env: Record<string, string> = {}): string {
  const done = Bun.spawnSync([Bun.which("go") ?? "go", ...args], {
    cwd: directory,
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  if (!done.success) throw new Error(`Cannot run go ${args[0]} in ${directory}: ${done.stderr.toString().trim()}`);
  return done.stdout.toString().trim();
}

if (import.meta.main) {
  const missing = whyNotBuildable();
  if (missing !== undefined) throw new Error(`Cannot build the lab's programs: ${missing}`);
  buildPrograms(false, process.argv.slice(2));
  console.log(`lab: programs are in ${programsDir}`);
}
