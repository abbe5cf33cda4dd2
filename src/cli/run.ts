/**
 * `holdfast run`: the proxy of this node.
 *
 * SIGTERM and SIGINT end it cleanly: watches get a last bookmark, the store
 * settles. What the world does to it later (a lost link, a full disk) never
 * ends it; what is wrong with its configuration does, at once and in words.
 */

import { EdgeError } from "../base/errors.ts";
import { forgetProxies, keepMemoryOutOfCores } from "../base/environment.ts";
import { jsonLog, LevelledLog, textLog } from "../base/log.ts";
import { systemClock } from "../base/clock.ts";
import { loadConfig } from "../config/config.ts";
import { startDaemon } from "../daemon/daemon.ts";
import { VERSION } from "../base/version.ts";
import { RUN_FLAGS } from "./flag-table.ts";
import { readFlags, repeated, UsageError } from "./flags.ts";
import { reload } from "./reload.ts";
import { onStray } from "./strays.ts";
import { complain } from "./terminal.ts";
import { StateFolderLockedError } from "../store/lock.ts";

/** Runs until a signal comes. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, RUN_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  const log = new LevelledLog(process.stderr.isTTY ? textLog() : jsonLog());
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort(new Error(signal)));
  // A broken pipe or a stray rejection must not take the node's API away.
  process.on("SIGPIPE", () => {});
  onStray((error) => log.error("unexpected", { error: describe(error) }));
  try {
    const load = loaderOf(values);
    const { config, warnings } = load();
    log.level = config.logLevel;
    process.on("SIGHUP", () => reload(log, config, () => load().config));
    for (const warning of warnings) log.warn(warning);
    // The configuration has read them; the runtime must not.
    forgetProxies(process.env);
    if (!keepMemoryOutOfCores()) log.warn("core dumps may hold this process's memory: set LimitCORE=0 in its unit");
    const daemon = await startDaemon({ config, clock: systemClock, log, version: VERSION, signal: stop.signal });
    await daemon.ended;
    return 0;
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    complain(`holdfast run: ${error.message}`);
    complain(
      error instanceof StateFolderLockedError
        ? `Try: holdfast status${repeated({ "state-dir": error.stateDir })}`
        : "See: holdfast help run",
    );
    return 1;
  }
}

/** Reads the configuration by the flags and the environment as they were at the start. */
function loaderOf(
  values: ReturnType<typeof readFlags<typeof RUN_FLAGS>>["values"],
): () => ReturnType<typeof loadConfig> {
  const env = { ...process.env };
  const flags = {
    kubeconfig: values.kubeconfig,
    listen: values.listen,
    healthListen: values["health-listen"],
    stateDir: values["state-dir"],
    clientCaFile: values["client-ca-file"],
    config: values.config,
  };
  return () => loadConfig(flags, env);
}

/** An error's place and kind; its message only when it is ours, others may quote what they choked on. */
function describe(error: unknown): string {
  if (error instanceof EdgeError) return error.message;
  if (!(error instanceof Error)) return typeof error;
  const { code } = error as { code?: unknown };
  return `${error.name}${typeof code === "string" ? ` ${code}` : ""}: ${(error.stack ?? "")
    .split("\n")
    .slice(1, 4)
    .map((line) => line.trim())
    .join(" < ")}`;
}
