/**
 * What every script needs first: the dependencies, as the lock file has them.
 *
 * A fresh clone on a machine with only Node and npm runs `npx -y bun@VERSION
 * run X`; the runtime that runs this file installs what is missing, and
 * installs again when the lock file has changed since.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The project's folder. */
export const projectRoot: string = join(import.meta.dir, "..");

/** Installs the dependencies if they are not there, or not those of the lock file. */
export function ensureDependencies(): void {
  const lock = Bun.hash(readFileSync(join(projectRoot, "bun.lock"))).toString(16);
  const stamp = join(projectRoot, "node_modules", ".installed");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  run([process.execPath, "install", "--frozen-lockfile"]);
  writeFileSync(stamp, lock);
}

/** Runs a command in the project's folder; a failure ends this process with its code. */
export function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): void {
  const { exitCode } = Bun.spawnSync([...command], {
    cwd: projectRoot,
    stdio: ["inherit", "inherit", "inherit"],
    env: { ...process.env, ...env },
  });
  if (exitCode !== 0) process.exit(exitCode === null ? 1 : exitCode);
}
