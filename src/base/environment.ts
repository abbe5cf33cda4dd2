/**
 * What the environment may not do to a process that holds a node's credentials.
 *
 *   NODE_TLS_REJECT_UNAUTHORIZED=0   the runtime verifies no server any more: ends the start
 *   BUN_CONFIG_VERBOSE_FETCH         requests are printed with their tokens: ends the start
 *   HTTPS_PROXY and its like         the runtime's `fetch` goes by them even to loopback; ours are
 *                                    read by `config/proxy-url.ts`, and taken away before anything is asked
 *
 * A core dump would hold keys and tokens: nothing of the process's own memory
 * goes into one. The runtime has no call for the limit and for "dumpable" where
 * it runs without its compiler; the unit sets the first, the kernel's filter
 * makes both needless.
 */

import { writeFileSync } from "node:fs";
import { EdgeError } from "./errors.ts";

/** A variable would switch verification off or print what must stay secret. */
export class EnvironmentError extends EdgeError {
  override readonly name = "EnvironmentError";
  readonly code = "ENVIRONMENT";
}

type Env = Readonly<Record<string, string | undefined>>;

const PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/** No kind of memory: of eight kinds of mapping none is written (core(5)). */
const NO_MEMORY = "0x0";

/** @throws {EnvironmentError} naming the variable and the remedy. */
export function refuseDangerous(env: Env): void {
  if (env["NODE_TLS_REJECT_UNAUTHORIZED"] === "0")
    throw new EnvironmentError(
      "Cannot start with NODE_TLS_REJECT_UNAUTHORIZED=0: no server would be verified, and whoever is in the way would get the node's credentials; unset it",
    );
  const verbose = env["BUN_CONFIG_VERBOSE_FETCH"] ?? "";
  if (verbose !== "" && verbose !== "0" && verbose !== "false")
    throw new EnvironmentError(
      "Cannot start with BUN_CONFIG_VERBOSE_FETCH: every request would be printed, tokens too; unset it",
    );
}

/** Takes the proxies out of an environment: from now on only those are used that are handed to a request. */
export function forgetProxies(env: Record<string, string | undefined>): void {
  for (const name of PROXIES) {
    delete env[name];
    delete env[name.toLowerCase()];
  }
}

/** Keeps this process's memory, and its children's, out of core dumps. @returns whether the kernel took it. */
export function keepMemoryOutOfCores(): boolean {
  try {
    writeFileSync("/proc/self/coredump_filter", NO_MEMORY);
    return true;
  } catch {
    return false;
  }
}
