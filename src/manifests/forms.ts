/**
 * Objects as text: documents of one stream, a kustomize base, a chart's head.
 */

import { stringify } from "yaml";
import type { KubernetesObject } from "./object.ts";
import { MINIMUM_KUBERNETES } from "./options.ts";

/** Files by their path below the output folder. */
export type FileTree = ReadonlyMap<string, string>;

/** A stream of documents. */
export function documents(objects: readonly object[]): string {
  return objects.map((object) => `---\n${yaml(object)}`).join("");
}

/** A base of those files that hold something. */
export function kustomization<Name extends string>(
  names: readonly Name[],
  files: Readonly<Record<Name, readonly KubernetesObject[]>>,
): FileTree {
  const present = names.filter((file) => files[file].length > 0);
  return new Map([
    [
      "kustomization.yaml",
      yaml({
        apiVersion: "kustomize.config.k8s.io/v1beta1",
        kind: "Kustomization",
        resources: present.map((file) => `${file}.yaml`),
      }),
    ],
    ...present.map((file) => [`${file}.yaml`, documents(files[file])] as const),
  ]);
}

/** Chart.yaml. @param version of the program, which is the chart's too. */
export function chart(name: string, description: string, version: string): string {
  return yaml({
    apiVersion: "v2",
    name,
    description,
    type: "application",
    // A program that was not built yet has no number.
    version: /^[0-9]/.test(version) ? version : `0.0.0-${version}`,
    appVersion: version,
    kubeVersion: `>=${MINIMUM_KUBERNETES}.0-0`,
  });
}

/** One document. */
export function yaml(value: object): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}
