/**
 * The gateway's objects as text, in the same three forms as the guard's, all
 * from the same objects. The chart's templates are the objects with marks where
 * a value belongs.
 */

import { chart, documents, kustomization, type FileTree } from "./forms.ts";
import { GATEWAY_FILES, gatewayManifests, type GatewayManifestOptions } from "./gateway.ts";
import { GUARD_NAMESPACE } from "../guard/names.ts";

/** The defaults; names have none. */
export function defaultGatewayOptions(version: string): GatewayManifestOptions {
  return {
    namespace: GUARD_NAMESPACE,
    image: `holdfast.dev/holdfast:${version}`,
    replicas: 2,
    names: [],
    mode: "service",
    nodes: "",
    usesCertManager: false,
  };
}

/** One stream, in the order of application. */
export function gatewayAsYaml(options: GatewayManifestOptions): string {
  const files = gatewayManifests(options);
  return documents(GATEWAY_FILES.flatMap((file) => files[file]));
}

/** A base: the same objects in files, and their list. */
export function gatewayAsKustomize(options: GatewayManifestOptions): FileTree {
  return kustomization(GATEWAY_FILES, gatewayManifests(options));
}

const MARKED: GatewayManifestOptions = {
  namespace: "holdfast-mark-namespace",
  image: "holdfast-mark-image",
  replicas: 987_654_321,
  names: ["holdfast-mark-names"],
  mode: "holdfast-mark-mode" as GatewayManifestOptions["mode"],
  nodes: "holdfast-mark-nodes",
  usesCertManager: true,
};

/** A chart. The release's namespace is the gateway's. */
export function gatewayAsHelm(version: string): FileTree {
  const files = gatewayManifests(MARKED);
  const templates = GATEWAY_FILES.map((file) => {
    const text = files[file]
      .filter(({ kind }) => kind !== "Namespace")
      .map((object) => {
        const one = unmarked(documents([object]));
        return object.apiVersion.startsWith("cert-manager.io/")
          ? `{{- if .Values.certManager }}\n${one}{{- end }}\n`
          : one;
      });
    return [`templates/${file}.yaml`, text.join("")] as const;
  });
  const { image, replicas, mode, nodes } = defaultGatewayOptions(version);
  return new Map([
    ["Chart.yaml", chart("holdfast-gateway", "The API server reaches nodes that only dial out", version)],
    ["values.yaml", documents([{ image, replicas, names: [], mode, nodes, certManager: false }]).replace(/^---\n/, "")],
    ["values.schema.json", `${JSON.stringify(SCHEMA, null, 2)}\n`],
    ...templates,
  ]);
}

function unmarked(text: string): string {
  return text
    .replaceAll("--names=holdfast-mark-names", '--names={{ join "," .Values.names }}')
    .replaceAll(/\n *- holdfast-mark-names\n/g, "{{ toJson .Values.names }}\n")
    .replaceAll("dnsNames:{{", "dnsNames: {{")
    .replaceAll("holdfast-mark-mode", "{{ .Values.mode }}")
    .replaceAll("holdfast-mark-nodes", "{{ .Values.nodes }}")
    .replaceAll("holdfast-mark-namespace", "{{ .Release.Namespace }}")
    .replaceAll("holdfast-mark-image", "{{ .Values.image | quote }}")
    .replaceAll("987654321", "{{ .Values.replicas }}");
}

const SCHEMA = {
  $schema: "http://json-schema.org/draft-07/schema#",
  type: "object",
  additionalProperties: false,
  required: ["names"],
  properties: {
    image: { type: "string", minLength: 1, description: "The gateway's container image." },
    replicas: { type: "integer", minimum: 1 },
    names: {
      type: "array",
      minItems: 1,
      items: { type: "string", pattern: "^[0-9a-zA-Z.:-]{1,253}$" },
      description: "The host names by which nodes dial it.",
    },
    mode: { type: "string", enum: ["service", "port"] },
    nodes: {
      type: "string",
      pattern: "^[-0-9A-Za-z_./=!,() ]*$",
      description: "Labels of nodes that may have a tunnel.",
    },
    certManager: { type: "boolean", description: "cert-manager makes the serving certificate." },
    global: { type: "object" },
  },
};
