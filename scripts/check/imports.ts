/**
 * Imports run one way, and in no circle.
 *
 *   main > cli > daemon > config > proxy, certificates, health > cache > store > kube > base
 *
 * Neighbours on one step do not import each other; the demo is loaded by its
 * command alone, when it is asked for. Types may point anywhere to the right,
 * and do not count for circles.
 */

import { dirname, join, normalize } from "node:path";
import type { Problem, SourceFile } from "./report.ts";

/** Folders and top-level files of src by step; a higher step may import lower ones. */
const STEPS: readonly (readonly string[])[] = [
  ["base"],
  ["kube"],
  ["store"],
  ["cache"],
  ["proxy", "certificates", "guard", "tunnel", "health"],
  ["config", "config-lines", "kubeconfig", "proxy-url"],
  ["daemon", "daemon-metrics", "daemon-status"],
  ["cli"],
  ["main"],
];
/** Top-level files that together are one part. */
const ONE_PART = [["config", "config-lines", "kubeconfig", "proxy-url"], ["daemon", "daemon-metrics", "daemon-status"]];
/** What may be imported from anywhere above without being a step of the path: small shared words of the store's neighbours. */
const DEMO_ENTRY = "src/cli/demo.ts";

interface Edge {
  readonly from: string;
  readonly to: string;
  readonly isDynamic: boolean;
  readonly isType: boolean;
}

/** Finds edges that run backwards or sideways, and circles. */
export function wrongImports(files: readonly SourceFile[]): Problem[] {
  const edges = files.flatMap(edgesOf);
  return [...edges.flatMap(wrongEdge), ...circles(files, edges)];
}

function edgesOf({ path, text }: SourceFile): Edge[] {
  const edges: Edge[] = [];
  const resolve = (target: string) => normalize(join(dirname(path), target));
  for (const [, type, target] of text.matchAll(/^(?:import|export) (type )?[^"';]*? ?from "(\.[^"]+)";/gm)) edges.push({ from: path, to: resolve(target!), isDynamic: false, isType: type !== undefined });
  for (const [, target] of text.matchAll(/\bimport\("(\.[^"]+)"\)/g)) edges.push({ from: path, to: resolve(target!), isDynamic: true, isType: false });
  return edges;
}

function partOf(path: string): string {
  const [, first = ""] = /^src\/([^/]+)/.exec(path) ?? [];
  return first.replace(/\.ts$/, "");
}

function wrongEdge({ from, to, isDynamic }: Edge): Problem[] {
  const [a, b] = [partOf(from), partOf(to)];
  if (a === b || a === "" || b === "") return [];
  if (b === "demo") return from === DEMO_ENTRY && isDynamic ? [] : [problem(from, to, "the demo is loaded by its command alone, with import()")];
  if (a === "demo") return ["base", "kube"].includes(b) ? [] : [problem(from, to, "the stand-in is independent evidence: it may use base and kube only")];
  if (ONE_PART.some((part) => part.includes(a) && part.includes(b))) return [];
  const [stepA, stepB] = [a, b].map((part) => STEPS.findIndex((step) => step.includes(part))) as [number, number];
  if (stepA < 0) return [problem(from, to, `"${a}" stands on no step: add it to STEPS in scripts/check/imports.ts`)];
  if (stepB < 0) return [problem(from, to, `"${b}" stands on no step: add it to STEPS in scripts/check/imports.ts`)];
  if (stepA > stepB) return [];
  return [problem(from, to, stepA === stepB ? "neighbours do not import each other: let daemon.ts hand it in" : "imports run main > cli > daemon > config > proxy > cache > store > kube > base: hand it in from above")];
}

function problem(from: string, to: string, remedy: string): Problem {
  return { file: from, problem: `imports ${to}`, remedy };
}

/** Circles among imports of values. */
function circles(files: readonly SourceFile[], edges: readonly Edge[]): Problem[] {
  const next = new Map<string, string[]>();
  for (const { from, to, isType, isDynamic } of edges) if (!isType && !isDynamic) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const found: Problem[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      found.push({ file: path, problem: `imports itself by way of ${trail.slice(at + 1).join(", ")}`, remedy: "move what both need into a file of its own" });
      return;
    }
    if (done.has(path)) return;
    for (const to of next.get(path) ?? []) visit(to, [...trail, path]);
    done.add(path);
  };
  for (const { path } of files) visit(path, []);
  return found;
}
