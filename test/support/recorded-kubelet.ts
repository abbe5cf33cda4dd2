/**
 * What stock kubelets were heard to ask, as `test/lab/record-kubelet.ts` writes it.
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** An object as the API server had it. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** One request of a kubelet, and the status of the answer. */
export interface RecordedRequest {
  readonly method: string;
  /** resourceVersions but 0 are written as N. */
  readonly target: string;
  /** Those that decide about the answer, in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Base64. */
  readonly body: string;
  readonly status: number;
}

/** One kubelet's life, in the order it was lived; of equal requests one or two. */
export interface Recording {
  /** As it reports itself: "v1.37.2". */
  readonly kubelet: string;
  readonly node: string;
  /** The cluster's objects while all pods were there; some of them kubelet made itself, see `isKubeletsOwn`. */
  readonly objects: readonly KubeObject[];
  readonly requests: readonly RecordedRequest[];
}

/** A line of a recording's file: its head, then objects and requests. */
type Line =
  | { readonly kubelet: string; readonly node: string }
  | { readonly object: KubeObject }
  | { readonly request: RecordedRequest };

/** The file's text: a line for each object and request, so that a new recording can be read as a difference. */
export function recordingText({ kubelet, node, objects, requests }: Recording): string {
  const lines: Line[] = [
    { kubelet, node },
    ...objects.map((object) => ({ object })),
    ...requests.map((request) => ({ request })),
  ];
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

/** Every recording, oldest kubelet first. */
export function recordings(): Recording[] {
  const folder = join(import.meta.dir, "../node/recorded");
  return readdirSync(folder)
    .sort()
    .map((name) => {
      const lines = readFileSync(join(folder, name), "utf8").trimEnd().split("\n");
      const values = lines.map((line) => JSON.parse(line) as Line);
      const head = values[0] as { readonly kubelet: string; readonly node: string };
      return {
        ...head,
        objects: values.flatMap((value) => ("object" in value ? [value.object] : [])),
        requests: values.flatMap((value) => ("request" in value ? [value.request] : [])),
      };
    });
}

/** Whether the object came into being by a request of the recording. */
export function isKubeletsOwn({ kind, metadata }: KubeObject): boolean {
  const isMirror = metadata.annotations?.["kubernetes.io/config.mirror"] !== undefined;
  return kind === "Node" || kind === "CSINode" || isMirror;
}
