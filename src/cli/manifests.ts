/**
 * `holdfast manifests`: the guard as Kubernetes objects, on stdout or into a folder.
 */

import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { VERSION } from "../base/version.ts";
import { parseBound } from "../guard/parameters.ts";
import { defaultOptions, type ManifestOptions } from "../manifests/options.ts";
import { asHelm, asKustomize, asYaml, type FileTree } from "../manifests/print.ts";
import { MANIFESTS_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { print, writeOut } from "./terminal.ts";

const FORMATS = ["yaml", "kustomize", "helm"] as const;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
/** A chart asks for these in its values. */
const CHOSEN_IN_VALUES = [
  "namespace",
  "image",
  "replicas",
  "bound",
  "controllers",
  "approve-csrs",
  "cert-manager",
  "policies-only",
] as const;

/** Prints or writes the manifests. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, MANIFESTS_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  const format = FORMATS.find((one) => one === (values.format ?? "yaml"));
  if (format === undefined) throw new UsageError(`Unknown format '${values.format}'; expected ${FORMATS.join(", ")}`);
  const directory = values["output-dir"];
  if (format === "yaml" && directory !== undefined)
    throw new UsageError("--output-dir goes with --format kustomize or helm; yaml is printed");
  if (format !== "yaml" && directory === undefined)
    throw new UsageError(`--format ${format} needs --output-dir DIR, which must be empty or not there yet`);
  if (format === "helm") {
    const chosen = CHOSEN_IN_VALUES.find((name) => values[name] !== undefined);
    if (chosen !== undefined)
      throw new UsageError(`--${chosen} does not go with --format helm; a chart's user sets it`);
    return write(directory!, asHelm(VERSION));
  }
  const defaults = defaultOptions(VERSION);
  const options: ManifestOptions = {
    namespace:
      checked("namespace", values.namespace, DNS_LABEL, "a DNS label such as holdfast-system") ?? defaults.namespace,
    image: checked("image", values.image, /^[^\s"']+$/, "an image reference") ?? defaults.image,
    replicas: Number(
      checked("replicas", values.replicas, /^[1-9][0-9]?$/, "a number from 1 to 99") ?? defaults.replicas,
    ),
    bound: boundOf(values.bound) ?? defaults.bound,
    controllers: (values.controllers ?? "")
      .split(",")
      .map(userName)
      .filter((name) => name !== ""),
    approvesCsrs: values["approve-csrs"] ?? false,
    usesCertManager: values["cert-manager"] ?? false,
    isPoliciesOnly: values["policies-only"] ?? false,
  };
  if (format === "kustomize") return write(directory!, asKustomize(options));
  writeOut(asYaml(options));
  return 0;
}

function boundOf(bound: string | undefined): string | undefined {
  if (bound !== undefined && parseBound(bound) === "unreadable")
    throw new UsageError(`--bound: expected a duration such as 12h30m, or 0 for ever, got '${bound}'`);
  return bound;
}

function userName(given: string): string {
  const name = given.trim();
  if (!/^[\x20-\x7e]*$/.test(name) || /['\\]/.test(name))
    throw new UsageError(
      "--controllers: expected user names by comma, in printable ASCII without quotes and backslashes",
    );
  return name;
}

function checked(flag: string, value: string | undefined, pattern: RegExp, shape: string): string | undefined {
  if (value !== undefined && !pattern.test(value)) throw new UsageError(`--${flag}: expected ${shape}, got '${value}'`);
  return value;
}

function write(directory: string, files: FileTree): number {
  if (existsSync(directory) && readdirSync(directory).length > 0)
    throw new UsageError(`--output-dir: ${directory} is not empty; name another folder or empty it`);
  for (const [path, text] of files) {
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
  print(`${files.size} files in ${directory}`);
  return 0;
}
