/**
 * Settings of the runtime that only count when they are there at the start.
 *
 * `fetch`, which goes through HTTP proxies, runs at most 256 requests at once,
 * and ends silent streams after six minutes whatever its own timeout says:
 * three hundred quiet watches would never all open, and die. Both are cured by
 * environment variables that are read once, so the process replaces itself once; the pid stays. So is the
 * memory of names: the runtime keeps an address for half a minute, and an API
 * server that has moved would be looked for in its old place that long.
 *
 * So are the engine's compilers chosen. The last tier of the just-in-time
 * compiler is off: it takes half of the anonymous memory under load and wins
 * nothing that its own work does not cost. All of it is off in the small
 * profile, for machines with little memory: on an idle node it costs a third of
 * the anonymous memory and saves a fraction of a per cent of a core.
 */

import { totalmem } from "node:os";
import { EdgeError } from "./errors.ts";

/** How memory and speed are weighed: "small" does without the just-in-time compiler. */
export type Profile = "small" | "default";

/** HOLDFAST_PROFILE is none of the profiles. */
export class ProfileError extends EdgeError {
  override readonly name = "ProfileError";
  readonly code = "PROFILE";
}

const GUARD = "HOLDFAST_REEXECUTED";
const SETTINGS: Readonly<Record<string, string>> = {
  BUN_CONFIG_MAX_HTTP_REQUESTS: "65336",
  BUN_CONFIG_HTTP_IDLE_TIMEOUT: "0",
  BUN_CONFIG_DNS_TIME_TO_LIVE_SECONDS: "0",
};
/**
 * What each profile is, to the engine. An unknown option of this kind ends the
 * process before any code runs: no other is used. Figures in docs/figures.md.
 */
const ENGINE: Readonly<Record<Profile, Readonly<Record<string, string>>>> = {
  // The last tier compiles for longer than an idle node works, on the cores that its pods want.
  default: { BUN_JSC_useFTLJIT: "0" },
  // Without a compiler the engine collects everything each time: half as often costs two tenths of a megabyte.
  small: { BUN_JSC_useJIT: "0", BUN_JSC_miniVMHeapGrowthFactor: "2" },
};
/** These would run foreign code inside this program. */
const DANGEROUS = ["BUN_OPTIONS", "BUN_BE_BUN", "BUN_INSPECT"];
/** Machines sold as 2 GB report a little less, and those with 1 GB are meant as well. */
const SMALL_MACHINE_BYTES = 2 * 2 ** 30;

/**
 * Which profile holds.
 *
 * @param asked HOLDFAST_PROFILE; undefined or "" goes by the machine.
 * @param machineBytes its memory.
 * @throws {ProfileError}
 */
export function profileOf(asked: string | undefined, machineBytes: number): Profile {
  if (asked === "small" || asked === "default") return asked;
  if (asked !== undefined && asked !== "")
    throw new ProfileError(
      `Cannot use HOLDFAST_PROFILE "${asked.slice(0, 32)}": it is "small" or "default"; leave it out to go by the machine's memory`,
    );
  return machineBytes <= SMALL_MACHINE_BYTES ? "small" : "default";
}

/** Replaces the process by itself with the settings in place; returns when they are. @throws {ProfileError} */
export function reexecWithSettings(): void {
  const { env } = process;
  if (env[GUARD] === String(process.pid)) {
    delete env[GUARD];
    return;
  }
  const profile = profileOf(env["HOLDFAST_PROFILE"], totalmem());
  const clean = Object.entries(env).filter(([name]) => !DANGEROUS.includes(name));
  const next = {
    ...ENGINE[profile],
    ...Object.fromEntries(clean),
    ...SETTINGS,
    HOLDFAST_PROFILE: profile,
    [GUARD]: String(process.pid),
  } as Record<string, string>;
  // In a compiled binary argv[1] is the embedded script, from source it is the file to run.
  const isCompiled = process.argv[1]?.startsWith("/$bunfs/") ?? true;
  const args = isCompiled ? process.argv.slice(2) : process.argv.slice(1);
  (process as unknown as { execve(path: string, args: string[], env: Record<string, string>): never }).execve(
    process.execPath,
    [process.execPath, ...args],
    next,
  );
}
