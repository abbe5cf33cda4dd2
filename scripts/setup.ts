/**
 * What every script needs first: the dependencies, as the lock file has them.
 *
 * A fresh clone on a machine with only Node and npm runs `npx -y bun run X`;
 * the runtime that runs this file installs what is missing.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");

/** Installs the dependencies if they are not there. */
export function ensureDependencies(): void {
  if (existsSync(join(root, "node_modules", "hono", "package.json"))) return;
  run([process.execPath, "install", "--frozen-lockfile"]);
}

/** Runs a command in the project's folder; a failure ends this process with its code. */
export function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): void {
  const { exitCode } = Bun.spawnSync([...command], { cwd: root, stdio: ["inherit", "inherit", "inherit"], env: { ...process.env, ...env } });
  if (exitCode !== 0) process.exit(exitCode === null ? 1 : exitCode);
}

/** The project's folder. */
export const projectRoot: string = root;
