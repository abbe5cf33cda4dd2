/**
 * Imports run one way, and in no circle.
 *
 *   main > cli > daemon, manifests > machine, tunnel, gateway, guard, witness > health > node > front > cache
 *        > callers > uplink > config > certificates > store > cluster, mux > kube, http1, http2 > base
 *
 * Neighbours on one step do not import each other; the demo is loaded by its
 * command alone, when it is asked for. Types may point anywhere to the right,
 * and do not count for circles.
 */

import { dirname, join, normalize } from "node:path";
import type { Problem, SourceFile } from "./report.ts";

/** Folders of src, and main.ts, by step; a higher step may import lower ones. */
const STEPS: readonly (readonly string[])[] = [
  ["base"],
  ["kube", "http1", "http2"],
  ["cluster", "mux"],
  ["store"],
  ["certificates"],
  ["config"],
  ["uplink"],
  ["callers"],
  ["cache"],
  ["front"],
  ["node"],
  ["health"],
  ["machine", "tunnel", "gateway", "guard", "witness"],
  ["daemon", "manifests"],
  ["cli"],
  ["main"],
];
const DEMO_ENTRY = "src/cli/demo.ts";
/** All that main.ts may load: everything else waits for its command. */
const MAIN_IMPORTS = ["src/cli/dispatch.ts", "src/base/environment.ts", "src/base/errors.ts", "src/base/reexec.ts"];
const ORDER = STEPS.toReversed()
  .map((step) => step.join(", "))
  .join(" > ");

interface Edge {
  readonly from: string;
  readonly to: string;
  readonly isDynamic: boolean;
  readonly isType: boolean;
}

/** Finds edges that run backwards or sideways, and circles. */
export function wrongImports(files: readonly SourceFile[]): Problem[] {
  const unreadable: Problem[] = [];
  const edges = files.flatMap((file) => {
    try {
      return edgesOf(file);
    } catch {
      unreadable.push({ file: file.path, problem: "cannot be parsed", remedy: "see what the type check says" });
      return [];
    }
  });
  return [...unreadable, ...edges.flatMap(wrongEdge), ...circles(files, edges)];
}

const transpiler = new Bun.Transpiler({ loader: "ts" });
/** Every way to name a file of ours, types included; the parser tells which of them remain at run time. */
const SPECIFIERS = [/^(?:import|export|\}) ?[^"'\n]*["'](\.[^"']+)["']/gm, /\bimport\(\s*["'](\.[^"']+)["']/g];

function edgesOf({ path, text }: SourceFile): Edge[] {
  const resolve = (target: string) => normalize(join(dirname(path), target));
  const values = transpiler.scanImports(text).filter((one) => one.path.startsWith("."));
  const atRunTime = new Set(values.map((one) => one.path));
  const named = SPECIFIERS.flatMap((pattern) => [...text.matchAll(pattern)].map(([, target]) => target!));
  const types = [...new Set(named)].filter((target) => !atRunTime.has(target));
  return [
    ...values.map((one) => ({
      from: path,
      to: resolve(one.path),
      isDynamic: one.kind === "dynamic-import",
      isType: false,
    })),
    ...types.map((target) => ({ from: path, to: resolve(target), isDynamic: false, isType: true })),
  ];
}

function partOf(path: string): string {
  const [, first = ""] = /^src\/([^/]+)/.exec(path) ?? [];
  return first.replace(/\.ts$/, "");
}

function wrongEdge({ from, to, isDynamic }: Edge): Problem[] {
  const [a, b] = [partOf(from), partOf(to)];
  if (b === "") return [problem(from, to, "src stands alone: move what it needs into src")];
  if (a === b) return [];
  if (b === "demo") {
    const isRight = from === DEMO_ENTRY && isDynamic;
    return isRight ? [] : [problem(from, to, "the demo is loaded by its command alone, with import()")];
  }
  if (a === "demo") {
    const isRight = ["base", "kube"].includes(b);
    return isRight ? [] : [problem(from, to, "the stand-in is independent evidence: it may use base and kube only")];
  }
  if (a === "main" && !MAIN_IMPORTS.includes(to))
    return [problem(from, to, "main.ts only dispatches: let a command load it")];
  const [stepA, stepB] = [stepOf(a), stepOf(b)];
  const homeless = [a, b].find((part) => stepOf(part) < 0);
  if (homeless !== undefined) {
    return [problem(from, to, `"${homeless}" stands on no step: add it to STEPS in scripts/check/imports.ts`)];
  }
  if (stepA > stepB) return [];
  if (stepA === stepB) return [problem(from, to, "neighbours do not import each other: let daemon.ts hand it in")];
  return [problem(from, to, `imports run ${ORDER}: hand it in from above`)];
}

function stepOf(part: string): number {
  return STEPS.findIndex((step) => step.includes(part));
}

function problem(from: string, to: string, remedy: string): Problem {
  return { file: from, problem: `imports ${to}`, remedy };
}

/** Circles among imports of values, those that are loaded when asked for included: who is loaded by a table must not know the table. */
function circles(files: readonly SourceFile[], edges: readonly Edge[]): Problem[] {
  const next = new Map<string, string[]>();
  for (const { from, to, isType } of edges) if (!isType) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const found: Problem[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      found.push({
        file: path,
        problem: `imports itself by way of ${trail.slice(at + 1).join(", ")}`,
        remedy: "move what both need into a file of its own",
      });
      return;
    }
    if (done.has(path)) return;
    for (const to of next.get(path) ?? []) visit(to, [...trail, path]);
    done.add(path);
  };
  for (const { path } of files) visit(path, []);
  return found;
}
