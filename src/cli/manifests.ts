/**
 * `holdfast manifests`: the guard, or the gateway, as Kubernetes objects, on stdout or into a folder.
 */

import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { VERSION } from "../base/version.ts";
import { parseBound } from "../guard/parameters.ts";
import { parseLabelSelector } from "../kube/selectors.ts";
import { defaultOptions, type ManifestOptions } from "../manifests/options.ts";
import type { FileTree } from "../manifests/forms.ts";
import type { GatewayManifestOptions } from "../manifests/gateway.ts";
import { defaultGatewayOptions, gatewayAsHelm, gatewayAsKustomize, gatewayAsYaml } from "../manifests/gateway-print.ts";
import { asHelm, asKustomize, asYaml } from "../manifests/print.ts";
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
  "names",
  "mode",
  "nodes",
] as const;
/** They speak of one of the two alone. */
const OF_THE_GUARD = ["bound", "controllers", "approve-csrs", "policies-only"] as const;
const OF_THE_GATEWAY = ["names", "mode", "nodes"] as const;

type Values = ReturnType<typeof readFlags<typeof MANIFESTS_FLAGS>>["values"];

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
  const isGateway = values.gateway ?? false;
  const misplaced = (isGateway ? OF_THE_GUARD : OF_THE_GATEWAY).find((name) => values[name] !== undefined);
  if (misplaced !== undefined)
    throw new UsageError(`--${misplaced} ${isGateway ? "does not go with" : "goes with"} --gateway`);
  if (format === "helm") {
    const chosen = CHOSEN_IN_VALUES.find((name) => values[name] !== undefined);
    if (chosen !== undefined)
      throw new UsageError(`--${chosen} does not go with --format helm; a chart's user sets it`);
    return write(directory!, isGateway ? gatewayAsHelm(VERSION) : asHelm(VERSION));
  }
  if (isGateway) {
    const options = gatewayOptions(values);
    if (format === "kustomize") return write(directory!, gatewayAsKustomize(options));
    writeOut(gatewayAsYaml(options));
    return 0;
  }
  const options = guardOptions(values);
  if (format === "kustomize") return write(directory!, asKustomize(options));
  writeOut(asYaml(options));
  return 0;
}

function guardOptions(values: Values): ManifestOptions {
  const defaults = defaultOptions(VERSION);
  return {
    ...commonOf(values, defaults),
    bound: boundOf(values.bound) ?? defaults.bound,
    controllers: (values.controllers ?? "")
      .split(",")
      .map(userName)
      .filter((name) => name !== ""),
    approvesCsrs: values["approve-csrs"] ?? false,
    usesCertManager: values["cert-manager"] ?? false,
    isPoliciesOnly: values["policies-only"] ?? false,
  };
}

function gatewayOptions(values: Values): GatewayManifestOptions {
  const defaults = defaultGatewayOptions(VERSION);
  const names = (values.names ?? "").split(",").filter((name) => name !== "");
  if (names.length === 0)
    throw new UsageError("--gateway needs --names: by which nodes dial it, such as gateway.example");
  for (const name of names) checked("names", name, /^[0-9a-zA-Z.:-]{1,253}$/, "host names by comma");
  const { mode = defaults.mode, nodes = defaults.nodes } = values;
  if (mode !== "service" && mode !== "port") throw new UsageError(`--mode: expected service or port, got '${mode}'`);
  if (nodes !== "" && parseLabelSelector(nodes) === undefined)
    throw new UsageError(`--nodes: expected a label selector such as pool=edge, got '${nodes}'`);
  return { ...commonOf(values, defaults), names, mode, nodes, usesCertManager: values["cert-manager"] ?? false };
}

function commonOf(values: Values, defaults: Pick<ManifestOptions, "namespace" | "image" | "replicas">) {
  return {
    namespace:
      checked("namespace", values.namespace, DNS_LABEL, "a DNS label such as holdfast-system") ?? defaults.namespace,
    image: checked("image", values.image, /^[^\s"']+$/, "an image reference") ?? defaults.image,
    replicas: Number(
      checked("replicas", values.replicas, /^[1-9][0-9]?$/, "a number from 1 to 99") ?? defaults.replicas,
    ),
  };
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
