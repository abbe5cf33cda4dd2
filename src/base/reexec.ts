/**
 * Two settings of the runtime that only count when they are there at the start.
 *
 * `fetch` runs at most 256 requests at once, and ends silent HTTP/2 streams
 * after six minutes whatever its own timeout says: three hundred quiet watches
 * would never all open, and die. Both are cured by environment variables that
 * are read once, so the process replaces itself once; the pid stays.
 */

const GUARD = "HOLDFAST_REEXECUTED";
const SETTINGS: Readonly<Record<string, string>> = {
  BUN_CONFIG_MAX_HTTP_REQUESTS: "65336",
  BUN_CONFIG_HTTP_IDLE_TIMEOUT: "0",
};
/** These would run foreign code inside this program. */
const DANGEROUS = ["BUN_OPTIONS", "BUN_BE_BUN", "BUN_INSPECT"];

/** Replaces the process by itself with the settings in place; returns when they are. */
export function reexecWithNetworkSettings(): void {
  const { env } = process;
  if (env[GUARD] === String(process.pid)) {
    delete env[GUARD];
    return;
  }
  const clean = Object.entries(env).filter(([name]) => !DANGEROUS.includes(name));
  const next = { ...Object.fromEntries(clean), ...SETTINGS, [GUARD]: String(process.pid) } as Record<string, string>;
  // In a compiled binary argv[1] is the embedded script, from source it is the file to run.
  const isCompiled = process.argv[1]?.startsWith("/$bunfs/") ?? true;
  const args = isCompiled ? process.argv.slice(2) : process.argv.slice(1);
  (process as unknown as { execve(path: string, args: string[], env: Record<string, string>): never }).execve(
    process.execPath,
    [process.execPath, ...args],
    next,
  );
}
