/**
 * SIGHUP: the configuration is read again.
 *
 * What can change while we run changes; what cannot is named, and takes a
 * restart. A configuration that cannot be used changes nothing and is told of:
 * the former stands. Certificates, kubeconfigs and CAs are followed all the
 * time and need no signal.
 */

import { EdgeError } from "../base/errors.ts";
import type { LevelledLog } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import { effectiveFile } from "../config/effective.ts";

/** Takes up what a fresh look at the configuration says. @param load reads it as the start did. */
export function reload(log: LevelledLog, running: Config, load: () => Config): void {
  let fresh: Config;
  try {
    fresh = load();
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    log.error("the configuration cannot be used, the former stands", { reason: error.message });
    return;
  }
  log.level = fresh.logLevel;
  const before = fieldsOf(running);
  const others = Object.entries(fieldsOf(fresh))
    .filter(([name, value]) => before[name] !== value)
    .map(([name]) => name);
  if (others.length > 0) log.warn("these take a restart", { fields: others.join(",") });
  log.always("configuration read again", { logLevel: fresh.logLevel });
}

/** Field by field as text, without what has been taken up. */
function fieldsOf(config: Config): Readonly<Record<string, string>> {
  const { logLevel: _, ...fields } = effectiveFile(config, {});
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, JSON.stringify(value)]));
}
