/**
 * Objects as text: one stream of YAML, a kustomize base, or a Helm chart.
 *
 * All three come from the same objects. A chart's templates are the objects
 * rendered with marks where a value belongs, and the marks exchanged for the
 * template's own words; what a choice adds or takes away is found by rendering
 * both and comparing, so no template can differ from what `holdfast manifests`
 * prints for the same choice.
 */

import { DEFAULT_PARAMETERS } from "../guard/parameters.ts";
import { chart, documents, kustomization, yaml, type FileTree } from "./forms.ts";
import { FILES, manifests } from "./manifests.ts";
import type { KubernetesObject } from "./object.ts";
import { defaultOptions, type ManifestOptions } from "./options.ts";

/** One stream, in the order of application. */
export function asYaml(options: ManifestOptions): string {
  const files = manifests(options);
  return documents(FILES.flatMap((file) => files[file]));
}

/** A base: the same objects in files, and their list. */
export function asKustomize(options: ManifestOptions): FileTree {
  return kustomization(FILES, manifests(options));
}

/**
 * A chart. The release's namespace is the guard's.
 *
 * @param version of the program, which is the chart's too.
 */
export function asHelm(version: string): FileTree {
  const variants = CHOICES.map((choice) => manifests({ ...MARKED, ...choice.options }));
  const templates = FILES.map((file) => {
    const text = variants[0]![file]
      // Helm makes the release's namespace itself.
      .filter(({ kind }) => kind !== "Namespace")
      .map((object) =>
        template(
          object,
          variants.map((variant) => variant[file]),
        ),
      )
      .concat(extras(variants.map((variant) => variant[file])))
      .join("");
    const isAlways = file === "parameters" || file === "policies";
    return [
      `templates/${file}.yaml`,
      isAlways ? text : `{{- if not .Values.policiesOnly }}\n${text}{{- end }}\n`,
    ] as const;
  });
  return new Map([
    ["Chart.yaml", chart("holdfast-guard", "A cut node keeps its pods", version)],
    ["values.yaml", yaml(values(version))],
    ["values.schema.json", `${JSON.stringify(valuesSchema(), null, 2)}\n`],
    ...templates,
  ]);
}

const MARK = {
  namespace: "holdfast-mark-namespace",
  image: "holdfast-mark-image",
  bound: "holdfast-mark-bound",
  controller: "holdfast-mark-controller",
  replicas: 987_654_321,
} as const;

const MARKED: ManifestOptions = {
  ...defaultOptions("0"),
  namespace: MARK.namespace,
  image: MARK.image,
  bound: MARK.bound,
  replicas: MARK.replicas,
  controllers: [MARK.controller],
};

/** The first is what an `else` stands for. */
const CHOICES = [
  { when: "", options: {} },
  { when: "and .Values.approveCsrs .Values.certManager", options: { approvesCsrs: true, usesCertManager: true } },
  { when: ".Values.approveCsrs", options: { approvesCsrs: true } },
  { when: ".Values.certManager", options: { usesCertManager: true } },
] as const;

/** Parameters that a chart's user sets as they would edit the ConfigMap. */
const PLAIN_PARAMETERS = Object.keys(DEFAULT_PARAMETERS).filter((key) => key !== "bound" && key !== "controllers");

function template(object: KubernetesObject, variants: readonly (readonly KubernetesObject[])[]): string {
  const [usual, ...others] = variants.map((objects) => {
    const same = objects.find((one) => identity(one) === identity(object));
    return same === undefined ? "" : `---\n${unmarked(yaml(withParameters(same)))}`;
  });
  const differing = others
    .map((text, index) => ({ text, when: CHOICES[index + 1]!.when }))
    .filter(({ text }) => text !== usual);
  if (differing.length === 0) return usual!;
  // A choice that changes nothing by itself still stands before one that follows it.
  const branches = others.map(
    (text, index) => `{{- ${index === 0 ? "if" : "else if"} ${CHOICES[index + 1]!.when} }}\n${text}`,
  );
  return `${branches.join("")}{{- else }}\n${usual}{{- end }}\n`;
}

/** Objects that only a choice brings. */
function extras(variants: readonly (readonly KubernetesObject[])[]): string[] {
  const usual = new Set(variants[0]!.map(identity));
  const [, , approver = [], certManager = []] = variants;
  return (
    [
      [".Values.approveCsrs", approver],
      [".Values.certManager", certManager],
    ] as const
  ).flatMap(([when, objects]) =>
    objects
      .filter((object) => !usual.has(identity(object)))
      .map((object) => `{{- if ${when} }}\n---\n${unmarked(yaml(object))}{{- end }}\n`),
  );
}

function withParameters(object: KubernetesObject): KubernetesObject {
  if (object.kind !== "ConfigMap") return object;
  const data = object["data"] as Readonly<Record<string, string>>;
  const marked = Object.fromEntries(PLAIN_PARAMETERS.map((key) => [key, `holdfast-mark-parameter-${key}`]));
  return { ...object, data: { ...data, ...marked } };
}

function unmarked(text: string): string {
  return text
    .replaceAll(`, '${MARK.controller}'`, "{{ range .Values.controllers }}, '{{ . }}'{{ end }}")
    .replaceAll(MARK.namespace, "{{ .Release.Namespace }}")
    .replaceAll(MARK.image, "{{ .Values.image | quote }}")
    .replaceAll(String(MARK.replicas), "{{ .Values.replicas }}")
    .replaceAll(MARK.bound, "{{ .Values.bound | quote }}")
    .replaceAll(/holdfast-mark-parameter-(\w+)/g, "{{ .Values.$1 | quote }}")
    .replaceAll(MARK.controller, '{{ join "," .Values.controllers | quote }}')
    .replace(
      /^( *)(data:\n)/m,
      '$1$2{{- range $node, $bound := .Values.boundOf }}\n  {{ printf "bound.%s" $node | quote }}: {{ $bound | quote }}\n{{- end }}\n',
    );
}

function values(version: string) {
  const { image, replicas, bound } = defaultOptions(version);
  return {
    image,
    replicas,
    policiesOnly: false,
    approveCsrs: false,
    certManager: false,
    bound,
    boundOf: {},
    controllers: [],
    ...Object.fromEntries(
      PLAIN_PARAMETERS.map((key) => [key, DEFAULT_PARAMETERS[key as keyof typeof DEFAULT_PARAMETERS]]),
    ),
  };
}

function valuesSchema() {
  const duration = { type: "string", pattern: "^(0|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$" };
  const flag = { type: "string", enum: ["true", "false"] };
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    type: "object",
    additionalProperties: false,
    properties: {
      image: { type: "string", minLength: 1, description: "The guard's container image." },
      replicas: { type: "integer", minimum: 1 },
      policiesOnly: { type: "boolean", description: "Nothing but the policies and their parameters." },
      approveCsrs: { type: "boolean", description: "The guard approves the certificate requests of kubelets." },
      certManager: { type: "boolean", description: "cert-manager makes the serving certificate." },
      bound: { ...duration, description: 'How long a silent node is held, such as "72h"; "0" for ever.' },
      boundOf: { type: "object", additionalProperties: duration, description: "The same for single nodes, by name." },
      controllers: {
        type: "array",
        items: { type: "string", pattern: "^[ !-&(-+.-\\[\\]-~]+$" },
        description: "More users who are judged like the node controller.",
      },
      statusReportInterval: { ...duration, description: "kubelet's nodeStatusReportFrequency." },
      openYurtAnnotations: { ...flag, description: "OpenYurt's annotations opt a node in too." },
      silentAfter: { ...duration, description: "A lease not renewed for so long: the node is silent." },
      taint: { ...flag, description: "A silent node gets a NoSchedule taint." },
      witnesses: { type: "string", pattern: "^[1-9][0-9]?$", description: "How many neighbours must have tried." },
      global: { type: "object" },
    },
  };
}

function identity({ kind, metadata: { name, namespace = "" } }: KubernetesObject): string {
  return `${kind}/${namespace}/${name}`;
}
