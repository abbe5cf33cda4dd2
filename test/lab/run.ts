/**
 * `bun run test:lab`: sets the lab up, runs its tests, clears up.
 *
 * Needs root, iproute2, openssl and Go; where one of them is missing every test
 * is reported as skipped, by name and with the reason, and the run succeeds.
 * What is there but fails to build is a failure.
 *
 * With --long, links stay bad for minutes; without it, as in CI, for seconds.
 * --long also builds a kubelet whose clock can be set (kubelet-clock), k9s and a
 * controller, and fetches third parties' clients, which takes ten minutes and
 * more: their tests are skipped, by name, where nobody has done so.
 * With --kubelet 1.34 (or 1.35, 1.36) nodes run that release's kubelet, with
 * --kube-apiserver 1.34 the cloud that release's API server; about a minute
 * each to build when its modules are at hand.
 *
 * Other arguments are handed to `bun test`; a path among them replaces ./test/lab.
 * HOLDFAST_LAB_BIN: where the cluster's programs are kept. HOLDFAST_LAB_BINARY:
 * the Holdfast to test, instead of a fresh build. HOLDFAST_LAB_KEEP: leave the
 * worlds' folders (logs, keys, databases) for reading.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureDependencies, run } from "../../scripts/setup.ts";
import { imageCache } from "../../scripts/images/debian.ts";
import { cachedRootfs } from "../../scripts/images/rootfs.ts";
import { whyNotMakeable } from "../../scripts/images/tools.ts";
import { buildPrograms, RELEASE_VARIABLES } from "./build.ts";
import { fetchClients } from "./clients/clients.ts";
import { whyNoEmulator } from "./device-vm.ts";
import { clearLeftovers, LAB_DIR_VARIABLE } from "./processes.ts";
import {
  CLOCK_PROGRAMS,
  DEVICE_PROGRAMS,
  findProgram,
  LONG_VARIABLE,
  MACHINE_PROGRAMS,
  NODE_PROGRAMS,
  oldKubectl,
  POD_NETWORK_PROGRAMS,
  STATE_VARIABLE,
  whyNotRunnable,
} from "./requirements.ts";

const LONG = "--long";
const ROOT = join(import.meta.dir, "../..");

const args = process.argv.slice(2).filter((arg) => arg !== LONG);
for (const [program, variable] of Object.entries(RELEASE_VARIABLES)) {
  const at = args.indexOf(`--${program}`);
  if (at >= 0) process.env[variable] = args.splice(at, 2)[1] ?? "";
}
process.exitCode = await main(args, process.argv.includes(LONG));

async function main(args: readonly string[], isLong: boolean): Promise<number> {
  const missing = whyNotRunnable();
  if (missing === undefined) setUp(isLong);
  else console.log(`lab: every test is skipped: ${missing}`);
  const directory = mkdtempSync(join(tmpdir(), "holdfast-lab-"));
  try {
    return await runTests(args, {
      [STATE_VARIABLE]: missing ?? "ready",
      [LAB_DIR_VARIABLE]: directory,
      ...(isLong ? { [LONG_VARIABLE]: "1" } : {}),
    });
  } finally {
    clearLeftovers(directory);
    if (process.env["HOLDFAST_LAB_KEEP"] === undefined) rmSync(directory, { recursive: true, force: true });
    else console.log(`lab: kept ${directory}`);
  }
}

/** Everything that tests stand on: packages, the cluster's programs, the binary under test. */
function setUp(isLong: boolean): void {
  ensureDependencies();
  buildPrograms(isLong);
  if (isLong) fetchClients();
  if (process.env["CI"] !== undefined) {
    installNodePackages();
    unpackOldKubectl();
    makeDeviceRoot();
  }
  if (process.env["HOLDFAST_LAB_BINARY"] !== undefined) return;
  run([process.execPath, "scripts/build-targets.ts", "--native"]);
}

/** On a machine that lives for this run only; without them the node's tests are skipped. */
function installNodePackages(): void {
  const programs = {
    ...NODE_PROGRAMS,
    ...POD_NETWORK_PROGRAMS,
    ...CLOCK_PROGRAMS,
    ...MACHINE_PROGRAMS,
    ...DEVICE_PROGRAMS,
  };
  const missing = Object.entries(programs).filter(([program]) => findProgram(program) === undefined);
  if (missing.length === 0 || Bun.which("apt-get") === null) return;
  const packages = [...new Set(missing.map(([, name]) => name))];
  for (const args of [["update"], ["install", "-y", "--no-install-recommends", ...packages]]) {
    Bun.spawnSync(["apt-get", ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      stdio: ["ignore", "ignore", "inherit"],
    });
  }
}

/** Debian's packages for the device's disk: minutes, once, before the tests' clock starts. Without it the device's tests are skipped by name. */
function makeDeviceRoot(): void {
  if (whyNoEmulator("amd64") !== undefined || whyNotMakeable("amd64") !== undefined) return;
  try {
    mkdirSync(imageCache, { recursive: true });
    cachedRootfs(imageCache, "amd64");
  } catch (error) {
    console.log(`lab: no device will be tried: ${(error as Error).message}`);
  }
}

/** Beside the lab's programs and not installed: other tests look for a kubectl of today. */
function unpackOldKubectl(): void {
  if (existsSync(oldKubectl) || Bun.which("apt-get") === null) return;
  const folder = mkdtempSync(join(tmpdir(), "kubernetes-client-"));
  const unpack =
    'apt-get download -q kubernetes-client && dpkg-deb -x kubernetes-client_*.deb . && cp usr/bin/kubectl "$0"';
  const command = ["timeout", "120", "sh", "-c", `apt-get update -q && ${unpack}`, oldKubectl];
  Bun.spawnSync(command, { cwd: folder, stdio: ["ignore", "ignore", "ignore"] });
  rmSync(folder, { recursive: true, force: true });
}

async function runTests(args: readonly string[], env: Record<string, string>): Promise<number> {
  const report = join(ROOT, ".cache/junit/lab.xml");
  mkdirSync(join(ROOT, ".cache/junit"), { recursive: true });
  const paths = args.some((arg) => !arg.startsWith("-") && existsSync(join(ROOT, arg))) ? [] : ["./test/lab"];
  const options = ["--timeout=300000", "--reporter=junit", `--reporter-outfile=${report}`];
  const tests = Bun.spawn([process.execPath, "test", ...options, ...paths, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit"],
  });
  // Ctrl-C reaches the tests by the terminal; stay, so that what they leave is cleared.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => tests.kill(signal));
  return await tests.exited;
}
