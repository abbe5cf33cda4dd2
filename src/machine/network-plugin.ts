/**
 * Whether this machine's CNI plugin wires a pod without the API server, by docs/cni.md.
 *
 * The runtime takes the first configuration of /etc/cni/net.d by name. What a
 * plugin must write before a pod may start decides: nothing (the reference
 * plugins), what Holdfast answers (Multus, as far as its delegates), or
 * addresses that are shared with other nodes (calico-ipam, Whereabouts), which
 * nobody may hand out alone.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import * as v from "valibot";
import type { Gap } from "../kube/pod-needs.ts";
import { placeOf, type Machine } from "./machine.ts";

const FOLDER = "/etc/cni/net.d";
const BINARIES: readonly string[] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/** They need nothing but the machine. */
const ALONE: ReadonlySet<string> = new Set([
  ...["bridge", "ptp", "macvlan", "ipvlan", "vlan", "host-device", "loopback", "dummy"],
  ...["host-local", "static", "portmap", "bandwidth", "firewall", "tuning", "sbr", "vrf"],
]);
/** They write what other nodes share. */
const SHARED: Readonly<Record<string, string>> = {
  "calico-ipam": "calico-ipam takes addresses from blocks that all nodes share; host-local would not",
  whereabouts: "Whereabouts takes addresses from a pool that all nodes share; host-local would not",
};
/** What is said of the others that docs/cni.md knows. */
const UNTRIED: Readonly<Record<string, string>> = {
  flannel: "comes back if its account is named under nodeAgents; not tried here",
  calico: "its writes are answered; the plugin itself was not tried",
};

const pluginSchema = v.looseObject({
  type: v.optional(v.string(), ""),
  ipam: v.optional(v.looseObject({ type: v.optional(v.string(), "") })),
  delegates: v.optional(v.array(v.looseObject({ type: v.optional(v.string(), "") }))),
});
const listSchema = v.looseObject({ plugins: v.optional(v.array(pluginSchema)) });
type Plugin = v.InferOutput<typeof pluginSchema>;

/** What stands in the way of a pod with a network of its own; undefined where nothing does. */
export interface NetworkVerdict {
  readonly missing: readonly Gap[];
  readonly unknown: readonly Gap[];
}

/** Judges this machine's configuration. */
export function networkVerdict(machine: Pick<Machine, "root">): NetworkVerdict {
  const folder = placeOf(machine, FOLDER);
  const file = (existsSync(folder) ? readdirSync(folder) : [])
    .filter((name) => /\.(conf|conflist|json)$/.test(name))
    .sort()[0];
  if (file === undefined) return { missing: [gap("CNI", `no configuration in ${FOLDER}`)], unknown: [] };
  let plugins: readonly Plugin[];
  try {
    const document: unknown = JSON.parse(readFileSync(`${folder}/${file}`, "utf8"));
    plugins = v.parse(listSchema, document).plugins ?? [v.parse(pluginSchema, document)];
  } catch {
    return { missing: [], unknown: [gap(file, "its configuration cannot be read")] };
  }
  const types = [...new Set(plugins.flatMap(typesOf))];
  const lacks = types.filter((type) => !hasBinary(machine, type));
  return {
    missing: [
      ...types.flatMap((type) => (Object.hasOwn(SHARED, type) ? [gap(type, SHARED[type]!)] : [])),
      ...lacks.map((type) => gap(type, `its program is not in ${BINARIES.join(", ")}`)),
    ],
    unknown: types
      .filter((type) => !ALONE.has(type) && type !== "multus" && !Object.hasOwn(SHARED, type) && !lacks.includes(type))
      .map((type) => gap(type, UNTRIED[type] ?? "this CNI plugin was not tried, see docs/cni.md")),
  };
}

/** A plugin, its address plugin, and what it delegates to. */
function typesOf({ type, ipam, delegates = [] }: Plugin): string[] {
  return [
    type,
    ...(ipam === undefined || ipam.type === "" ? [] : [ipam.type]),
    ...delegates.flatMap((one) => typesOf(v.parse(pluginSchema, one))),
  ].filter((name) => name !== "");
}

/** Where none of the folders is here nobody can tell, and nothing is said. */
function hasBinary(machine: Pick<Machine, "root">, type: string): boolean {
  const folders = BINARIES.map((folder) => placeOf(machine, folder)).filter((folder) => existsSync(folder));
  return folders.length === 0 || folders.some((folder) => existsSync(`${folder}/${type}`));
}

function gap(name: string, why: string): Gap {
  return { kind: "network", name, why };
}
