/**
 * `holdfast config`: whether a configuration can be used, what it amounts to,
 * and whether it is written for this version.
 */

import { existsSync, readFileSync } from "node:fs";
import { stringify } from "yaml";
import { EdgeError } from "../base/errors.ts";
import { silentLog } from "../base/log.ts";
import { loadConfig } from "../config/config.ts";
import { DEFAULT_CONFIG_FILE, fileOf } from "../config/config-file.ts";
import { effectiveFile, sourceOf } from "../config/effective.ts";
import type { FileConfig } from "../config/schema.ts";
import { CONFIG_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { sorry } from "./reach.ts";
import { complain, print, short } from "./terminal.ts";

const ACTIONS = ["validate", "show", "migrate"] as const;
/** The only form of the file so far; an older one will stand here beside how it is brought up to date. */
const VERSION = "holdfast.dev/v1alpha1";

interface Asked {
  /** Undefined where no file is named and none lies in the usual place. */
  readonly path: string | undefined;
  readonly flags: {
    readonly kubeconfig: string | undefined;
    readonly stateDir: string | undefined;
    readonly config: string | undefined;
  };
}

/** Looks at a configuration; changes nothing. @returns 0, or 1 with what to mend. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, CONFIG_FLAGS);
  const [action, named, ...more] = positionals;
  if (!ACTIONS.includes(action as (typeof ACTIONS)[number]))
    throw new UsageError(
      action === undefined
        ? `Say ${ACTIONS.join(", ")}`
        : `Unknown action '${short(action)}'; expected ${ACTIONS.join(", ")}`,
    );
  if (more.length > 0 || (named !== undefined && values.config !== undefined))
    throw new UsageError(`Unexpected argument '${short(more[0] ?? named!)}'`);
  if (values.effective === true && action !== "show") throw new UsageError("--effective belongs to show");
  const config = named ?? values.config;
  const path =
    config ?? process.env["HOLDFAST_CONFIG"] ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  const asked: Asked = { path, flags: { kubeconfig: values.kubeconfig, stateDir: values["state-dir"], config } };
  try {
    if (action === "validate") return validate(asked);
    if (action === "migrate") return migrate(asked);
    return values.effective === true ? showEffective(asked) : showFile(asked);
  } catch (error) {
    if (!(error instanceof EdgeError)) throw error;
    return sorry(`holdfast config ${action}`, { problem: error.message, next: "See the README: Use it" });
  }
}

/** All that `run` would refuse is refused here, the kubeconfig and what it names included. */
function validate({ path, flags }: Asked): number {
  const { config, warnings } = loadConfig(flags, process.env, { log: silentLog });
  for (const warning of warnings) complain(`# ${short(warning, 600)}`);
  print(
    `${path ?? "What flags and environment say"} can be used: ${config.upstream.servers.join(", ")}, listening on ${config.listen.map(({ host, port }) => `${host}:${port}`).join(", ")}`,
  );
  return 0;
}

function showFile({ path }: Asked): number {
  if (path === undefined)
    return sorry("holdfast config show", {
      problem: `there is no ${DEFAULT_CONFIG_FILE}`,
      next: "Name a file, or see what holds without one: holdfast config show --effective",
    });
  fileOf(path, {});
  print(readFileSync(path, "utf8").trimEnd());
  return 0;
}

/** A file that says everything, with each field's source behind it. */
function showEffective({ path, flags }: Asked): number {
  const file = path === undefined ? {} : fileOf(path, {});
  const { config } = loadConfig(flags, process.env, { log: silentLog });
  const { kubeconfig = file.kubeconfig } = { kubeconfig: flags.kubeconfig ?? process.env["HOLDFAST_KUBECONFIG"] };
  const clientCAFile = process.env["HOLDFAST_CLIENT_CA_FILE"] ?? file.clientCAFile;
  const whole = effectiveFile(config, {
    ...file,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(clientCAFile === undefined ? {} : { clientCAFile }),
  });
  print(annotated(whole, (field) => sourceOf(field, flags, process.env, file)));
  return 0;
}

/** YAML with a comment behind each field: a file again, if it is kept. */
function annotated(file: FileConfig, source: (field: string) => string): string {
  const { limits = {}, ...fields } = file;
  const lines = Object.entries(fields).map(([name, value]) => {
    const text = `${name}: ${stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trimEnd()}`;
    return name === "apiVersion" || name === "kind" ? text : `${text}  # ${source(name)}`;
  });
  const bounds = Object.entries(limits).map(
    ([name, value]) => `  ${name}: ${String(value)}  # ${source(`limits.${name}`)}`,
  );
  return [...lines, "limits:", ...bounds].join("\n");
}

function migrate({ path }: Asked): number {
  if (path === undefined)
    return sorry("holdfast config migrate", { problem: `there is no ${DEFAULT_CONFIG_FILE}`, next: "Name a file" });
  fileOf(path, {});
  print(`${path} is written for ${VERSION}, the only version there is: nothing to change`);
  return 0;
}
