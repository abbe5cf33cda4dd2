/**
 * Writes src/kube/fields.ts from Kubernetes' own Go sources; run by hand when the
 * Kubernetes version changes:
 *
 *   bun src/demo/api-server/fields.generate.ts MODULE_CACHE/k8s.io 0.37.2
 *
 * The struct tags in types.go hold everything: the JSON name and its order,
 * the protobuf number, the merge key of a strategic-merge list.
 */

import { readFileSync, writeFileSync } from "node:fs";

const [root, version] = process.argv.slice(2);
if (!root || !version) throw new TypeError("usage: fields.generate.ts MODULE_CACHE/k8s.io VERSION");

const PACKAGES: Record<string, string> = {
  "": "api/core/v1",
  "meta.": "apimachinery/pkg/apis/meta/v1",
  "apps.": "api/apps/v1",
  "authentication.": "api/authentication/v1",
  "authorization.": "api/authorization/v1",
  "certificates.": "api/certificates/v1",
  "coordination.": "api/coordination/v1",
  "discovery.": "api/discovery/v1",
  "events.": "api/events/v1",
  "networking.": "api/networking/v1",
  "node.": "api/node/v1",
  "resource.": "api/resource/v1",
  "storage.": "api/storage/v1",
};

const ROOTS = (
  "Pod Node Service ConfigMap Secret Event Namespace ServiceAccount Endpoints apps.Deployment discovery.EndpointSlice coordination.Lease " +
  "PersistentVolume PersistentVolumeClaim storage.VolumeAttachment resource.ResourceClaim resource.ResourceSlice " +
  "certificates.ClusterTrustBundle certificates.PodCertificateRequest " +
  "storage.CSINode storage.CSIDriver node.RuntimeClass networking.ServiceCIDR events.Event certificates.CertificateSigningRequest " +
  "authentication.TokenRequest authentication.TokenReview authentication.SelfSubjectReview authorization.SelfSubjectAccessReview " +
  "authorization.SubjectAccessReview meta.Status meta.ListMeta meta.DeleteOptions meta.PartialObjectMetadata"
).split(" ");

const SCALARS: Record<string, string> = {
  string: "s",
  int32: "i",
  int64: "i",
  int: "i",
  bool: "b",
  "[]byte": "y",
  "metav1.Time": "t",
  "meta.Time": "t",
  "metav1.MicroTime": "u",
  "meta.MicroTime": "u",
  "resource.Quantity": "q",
  "intstr.IntOrString": "x",
  "runtime.RawExtension": "r",
  "meta.FieldsV1": "r",
  "metav1.Duration": "d",
  "types.UID": "s",
  "types.NodeName": "s",
  "authentication.ExtraValue": "e",
  "authorization.ExtraValue": "e",
  "certificates.ExtraValue": "e",
};

const structs = new Map<string, string[]>();
const aliases = new Map<string, string>();
for (const [prefix, path] of Object.entries(PACKAGES)) {
  const source = readFileSync(`${root}/${path.replace("/", `@v${version}/`)}/types.go`, "utf8");
  for (const match of source.matchAll(/^type (\w+) struct \{\n([\s\S]*?)^\}/gm))
    structs.set(prefix + match[1], match[2]!.split("\n"));
  for (const match of source.matchAll(/^type (\w+) ((?:map|\[\]|string|int)\S*)$/gm))
    aliases.set(prefix + match[1], qualify(match[2]!, prefix));
}

function qualify(type: string, prefix: string): string {
  const wrapper = /^(\*|\[\]|map\[[\w.]+\])(.+)$/.exec(type);
  if (type === "[]byte") return type;
  if (wrapper)
    return wrapper[1]!.startsWith("map")
      ? `map[string]${qualify(wrapper[2]!, prefix)}`
      : wrapper[1] + qualify(wrapper[2]!, prefix);
  if (/^(string|int|int32|int64|bool|byte|resource\.\w+|intstr\.\w+|runtime\.\w+|types\.\w+)$/.test(type)) return type;
  if (/^(v1|corev1)\./.test(type)) return type.replace(/^\w+\./, "");
  if (type.startsWith("metav1.")) return SCALARS[type] ? type : type.replace("metav1.", "meta.");
  return prefix + type;
}

function code(type: string, wanted: (name: string) => void): string {
  if (SCALARS[type]) return SCALARS[type];
  if (type.startsWith("[]")) return `*${code(type.slice(2), wanted)}`;
  if (type.startsWith("map[string]")) return `%${code(type.slice(11), wanted)}`;
  const alias = aliases.get(type);
  if (alias) return code(alias, wanted);
  if (!structs.has(type)) throw new Error(`unknown type ${type}`);
  wanted(type);
  return type;
}

const lines: string[] = [];
const seen = new Set<string>();
const queue = [...ROOTS];
for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
  if (seen.has(name)) continue;
  seen.add(name);
  const prefix = name.includes(".") ? name.slice(0, name.indexOf(".") + 1) : "";
  const fields: string[] = [];
  for (const line of structs.get(name) ?? []) {
    const match = /^\s+(?:(\w+)\s+)?(\S+)\s+`(.*)`/.exec(line);
    const number = match && /protobuf:"\w+,(\d+)/.exec(match[3]!)?.[1];
    if (!match || !number || line.trim().startsWith("//")) continue;
    const [jsonName = "", ...options] = (/json:"([^"]*)"/.exec(match[3]!)?.[1] ?? "").split(",");
    let type = qualify(match[2]!, prefix);
    // a time is a struct: omitempty alone does not omit it
    const omits = /^metav?1?\.(Micro)?Time$/.test(type) ? "omitzero" : "omit";
    let flags = jsonName === "" ? "^" : options.some((option) => option.startsWith(omits)) ? "o" : "";
    if (type.startsWith("*")) {
      type = type.slice(1);
      flags += "p";
    }
    const mergeKey = /patchMergeKey:"(\w+)"/.exec(match[3]!)?.[1];
    if (mergeKey) flags += `~${mergeKey}`;
    else if (/patchStrategy:"merge"/.test(match[3]!)) flags += "~";
    fields.push(
      `${jsonName}:${number}:${code(type, (wanted) => queue.push(wanted))}${flags === "" ? "" : `:${flags}`}`,
    );
  }
  lines.push(`${name} ${fields.join(" ")}`);
}

writeFileSync(
  new URL("../../kube/fields.ts", import.meta.url),
  `/**
 * The fields of Kubernetes' types, as its Go sources ${version} declare them.
 * Written by demo/api-server/fields.generate.ts; not by hand.
 *
 * A line is one message: its name, then its fields in the order Go's JSON has
 * them, each jsonName:number:type:flags.
 *
 *   type   s string, i integer, b bool, y bytes, t Time, u MicroTime, q Quantity,
 *          x IntOrString, r raw JSON, d Duration, e ExtraValue, else a message;
 *          * is a list of, % a map from string to
 *   flags  o left out of JSON when empty, p a Go pointer (left out of protobuf
 *          when unset), ^ inlined in JSON, ~KEY a list merged by KEY in a
 *          strategic merge (~ alone: a set of plain values)
 */
export const FIELDS = \`
${lines.join("\n")}
\`;
`,
);
