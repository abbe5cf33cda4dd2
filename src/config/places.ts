/**
 * Where a daemon keeps its state and opens its socket: what commands beside
 * `run` need to know of its configuration. Touches no kubeconfig.
 */

import { join, resolve } from "node:path";
import { fileOf, type Env } from "./config-file.ts";
import type { FileConfig } from "./schema.ts";

/** Where state lies when nobody says otherwise. */
export const DEFAULT_STATE_DIR = "/var/lib/holdfast";
const DEFAULT_SOCKET = "/run/holdfast/admin.sock";
/** sun_path holds 108 bytes with its end. */
const MAX_SOCKET_PATH = 107;

/**
 * Where a daemon with this configuration keeps its state and opens its socket.
 *
 * @throws {ConfigError} naming what to mend.
 */
export function loadPlaces(
  flags: {
    readonly stateDir?: string | undefined;
    readonly adminSocket?: string | undefined;
    readonly config?: string | undefined;
  },
  givenEnv: Env,
): { readonly stateDir: string; readonly adminSocketPath: string | undefined } {
  const env = withoutBlanks(givenEnv);
  const file = fileOf(flags.config, env);
  const stateDir = stateDirOf(flags.stateDir, env, file);
  // A folder named by hand is another daemon's than the one the file describes.
  const isOther = flags.stateDir !== undefined && resolve(flags.stateDir) !== stateDirOf(undefined, env, file);
  const asked = flags.adminSocket ?? (isOther ? undefined : (env["HOLDFAST_ADMIN_SOCKET"] ?? file.adminSocket));
  return { stateDir, adminSocketPath: socketPath(stateDir, asked) };
}

/** The admin socket of a state folder: the well-known one for the default folder, else inside it. */
export function socketPath(stateDir: string, asked: string | undefined, warnings: string[] = []): string | undefined {
  const path =
    asked !== undefined
      ? resolve(asked)
      : stateDir === DEFAULT_STATE_DIR
        ? DEFAULT_SOCKET
        : join(stateDir, "admin.sock");
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path;
  warnings.push(
    `admin socket "${path}" is longer than ${MAX_SOCKET_PATH} bytes and is not opened; holdfast status will not work: choose adminSocket in the configuration`,
  );
  return undefined;
}

/** The variables that say something: systemd's environment files leave blank what is not set. */
export function withoutBlanks(env: Env): Env {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
}

/** The state folder. */
export function stateDirOf(flag: string | undefined, env: Env, file: FileConfig): string {
  return resolve(flag ?? env["HOLDFAST_STATE_DIR"] ?? file.stateDir ?? DEFAULT_STATE_DIR);
}
