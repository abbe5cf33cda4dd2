/**
 * `holdfast get`: the node's world for the person who sits at it.
 *
 * Reads the copies that the running daemon keeps, whoever they were made for,
 * link or no link, and prints them as kubectl would, with ages of now. How old
 * the copy is stands in one line on stderr, so that pipes stay clean.
 */

import * as v from "valibot";
import { stringify } from "yaml";
import { parseLabelSelector } from "../kube/selectors.ts";
import { formatDuration } from "../base/units.ts";
import { GET_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { ageOf, columnsOf, type Shown } from "./get-columns.ts";
import { placesGiven, reachDaemon, sorry } from "./reach.ts";
import { complain, print, short, table } from "./terminal.ts";
import { counted } from "./words.ts";

const PATIENCE_MS = 60_000;
const OUTPUTS: readonly string[] = ["wide", "yaml", "json", "name"];
/** As kubectl has them. */
const SHORT_NAMES: Readonly<Record<string, string>> = {
  po: "pods",
  no: "nodes",
  svc: "services",
  cm: "configmaps",
  deploy: "deployments.apps",
  ds: "daemonsets.apps",
  sts: "statefulsets.apps",
  rs: "replicasets.apps",
  ns: "namespaces",
  sa: "serviceaccounts",
  ep: "endpoints",
  eps: "endpointslices.discovery.k8s.io",
  pv: "persistentvolumes",
  pvc: "persistentvolumeclaims",
  netpol: "networkpolicies.networking.k8s.io",
};

const headSchema = v.object({
  resource: v.string(),
  group: v.string(),
  version: v.string(),
  copies: v.number(),
  isLive: v.boolean(),
  heardAtMs: v.nullable(v.number()),
});
const lineSchema = v.union([
  v.object({ object: v.record(v.string(), v.any()) }),
  v.object({
    columns: v.array(v.object({ name: v.string(), isWide: v.boolean() })),
    cells: v.array(v.any()),
    metadata: v.record(v.string(), v.any()),
  }),
]);
type Head = v.InferOutput<typeof headSchema>;
type Line = v.InferOutput<typeof lineSchema>;

interface Asked {
  readonly resource: string;
  readonly group: string;
  readonly name: string;
  readonly namespace: string;
  readonly selector: string;
  readonly output: string;
  readonly showsSecrets: boolean;
}

/** Prints what is kept. @returns 0 found, or known to be none; 1 nothing known, or no daemon. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, GET_FLAGS);
  const asked = readAsked(values, positionals);
  const daemon = await reachDaemon(values, ["holdfast get", ...positionals].join(" "));
  if (daemon === undefined) return 1;
  const found = await ask(daemon.path, asked).catch((error: unknown) => String((error as Error).message));
  if (typeof found === "string")
    return sorry("holdfast get", {
      problem: `the daemon did not answer to the end (${short(found)})`,
      next: "See: journalctl -u holdfast -n 50",
    });
  return show(asked, found.head, found.lines, placesGiven(values));
}

function readAsked(
  values: ReturnType<typeof readFlags<typeof GET_FLAGS>>["values"],
  [type = "", second, ...rest]: readonly string[],
): Asked {
  if (type === "") throw new UsageError("Name a type: get pods, get nodes, get deploy -A");
  const [word = "", slashName] = type.split("/");
  if (rest.length > 0 || (slashName !== undefined && second !== undefined))
    throw new UsageError(`Unexpected argument '${rest.at(-1) ?? second}'`);
  const output = values.output ?? "";
  if (output !== "" && !OUTPUTS.includes(output))
    throw new UsageError(`Unknown output '${short(output)}'; expected ${OUTPUTS.join(", ")}`);
  if (parseLabelSelector(values.selector ?? "") === undefined)
    throw new UsageError(`'${short(values.selector ?? "")}' is no label selector`);
  const [resource = "", ...group] = (SHORT_NAMES[word.toLowerCase()] ?? word.toLowerCase()).split(".");
  return {
    resource,
    group: group.join("."),
    name: slashName ?? second ?? "",
    namespace: values["all-namespaces"] === true ? "" : (values.namespace ?? "default"),
    selector: values.selector ?? "",
    output,
    showsSecrets: values["show-secrets"] === true,
  };
}

async function ask(path: string, asked: Asked): Promise<{ readonly head: Head; readonly lines: readonly Line[] }> {
  const query = new URLSearchParams({
    resource: asked.resource,
    group: asked.group,
    namespace: asked.namespace,
    name: asked.name,
    labelSelector: asked.selector,
    showSecrets: String(asked.showsSecrets),
  });
  const response = await fetch(`http://holdfast/v1/objects?${query}`, {
    unix: path,
    signal: AbortSignal.timeout(PATIENCE_MS),
  } as RequestInit);
  if (!response.ok) throw new Error(`${response.status}: is its version this one's?`);
  const [first = "", ...rest] = (await response.text()).split("\n").filter((line) => line !== "");
  return {
    head: v.parse(headSchema, JSON.parse(first)),
    lines: rest.map((line) => v.parse(lineSchema, JSON.parse(line))),
  };
}

function show(asked: Asked, head: Head, lines: readonly Line[], given: string): number {
  const kind = `${head.resource}${head.group === "" ? "" : `.${head.group}`}`;
  if (head.copies === 0)
    return sorry("holdfast get", {
      problem: `nothing of ${short(kind)} is kept on this node`,
      next: `See: holdfast cache ls${given}; it is the plural, or TYPE.GROUP`,
    });
  complain(freshness(head));
  const place = asked.namespace === "" ? "" : ` in namespace "${short(asked.namespace)}"`;
  if (lines.length === 0) {
    if (asked.name === "") {
      complain(`No ${short(kind)} known${place}`);
      return 0;
    }
    return sorry("holdfast get", {
      problem: `${short(kind)} "${short(asked.name)}" is not known${place}`,
      next: "Look everywhere with -A",
    });
  }
  switch (asked.output) {
    case "name":
      print(lines.map((line) => `${nameOf(line, head)}/${metadataOf(line)["name"]}`).join("\n"));
      return 0;
    case "json":
    case "yaml":
      return showObjects(asked, lines);
    default:
      print(asTable(asked, head, lines, Date.now()));
      return 0;
  }
}

function freshness({ copies, isLive, heardAtMs }: Head): string {
  if (isLive) return `# from ${counted(copies, "copy", "copies")} that the API server keeps up to date now`;
  const atMs = heardAtMs ?? 0;
  const at = new Date(atMs).toISOString().replace(/\.\d+/, "");
  const oldest = copies === 1 ? "a copy" : `${copies} copies, the oldest`;
  return `# from ${oldest} last heard of at ${at}, ${formatDuration(Math.max(0, Date.now() - atMs))} ago`;
}

function showObjects(asked: Asked, lines: readonly Line[]): number {
  const objects = lines.flatMap((line) => ("object" in line ? [line.object] : []));
  const rows = lines.length - objects.length;
  if (rows > 0) complain(`# ${counted(rows, "object")} left out: kept as a row of a Table alone`);
  if (objects.length === 0) return 1;
  const isOne = asked.name !== "" && objects.length === 1;
  const document = isOne
    ? objects[0]
    : { apiVersion: "v1", items: objects, kind: "List", metadata: { resourceVersion: "" } };
  print(asked.output === "json" ? JSON.stringify(document, undefined, 4) : stringify(document).trimEnd());
  return 0;
}

function asTable(asked: Asked, { group, resource }: Head, lines: readonly Line[], nowMs: number): string {
  const isWide = asked.output === "wide";
  const rowColumns = lines.every((line) => "cells" in line)
    ? (lines[0] as { columns: readonly { name: string; isWide: boolean }[] }).columns
    : undefined;
  const columns = columnsOf(group, resource, isWide);
  const titles =
    rowColumns?.filter((one) => isWide || !one.isWide).map(({ name }) => name.toUpperCase()) ??
    columns.map(({ title }) => title);
  const cellsOf = (line: Line) =>
    titles.map((title) =>
      "object" in line
        ? columns.find((one) => one.title === title)!.cell(line.object, nowMs)
        : cellOfRow(line, title, nowMs),
    );
  const rows = lines.map((line) => {
    const place = String(metadataOf(line)["namespace"] ?? "");
    return asked.namespace === "" ? [place, ...cellsOf(line)] : cellsOf(line);
  });
  const isPlaced = asked.namespace === "" && rows.some(([place]) => place !== "");
  const shown = asked.namespace === "" && !isPlaced ? rows.map((row) => row.slice(1)) : rows;
  return table(isPlaced ? ["NAMESPACE", ...titles] : titles, shown);
}

function cellOfRow(line: Extract<Line, { cells: unknown[] }>, title: string, nowMs: number): string {
  if (title === "AGE" && line.metadata["creationTimestamp"] !== undefined)
    return ageOf(line.metadata["creationTimestamp"], nowMs);
  const at = line.columns.findIndex(({ name }) => name.toUpperCase() === title);
  const cell: unknown = at < 0 ? undefined : line.cells[at];
  return cell === undefined || cell === null ? "<unknown>" : String(cell);
}

function metadataOf(line: Line): Shown {
  return "object" in line ? (line.object["metadata"] ?? {}) : line.metadata;
}

/** "pod", "deployment.apps": the kind in small letters, or the resource where only a row is kept. */
function nameOf(line: Line, { group, resource }: Head): string {
  const kind = "object" in line ? String(line.object["kind"] ?? resource).toLowerCase() : resource;
  return group === "" ? kind : `${kind}.${group}`;
}
