/**
 * The guard's parameters: one ConfigMap, read by the policies' CEL and by the guard.
 *
 *   bound                  how long a silent node is held; Go duration, "0" for ever
 *   bound.NODE             the same for one node
 *   statusReportInterval   how old a healthy node's last status may be (kubelet's nodeStatusReportFrequency)
 *   controllers            more users, by comma, who are treated like the node controller and the cloud's
 *   openYurtAnnotations    "true": OpenYurt's annotations opt a node in too
 *   silentAfter            lease not renewed for so long: the node is silent
 *   taint                  "true": a silent node gets the NoSchedule taint
 *   witnesses              how many neighbours must have tried before "nobody hears it" counts
 *
 * Why a ConfigMap: a policy can bind to it without a CRD, and people can edit
 * it with kubectl. A value that cannot be read never ends protection: it
 * counts as for ever, here and in CEL, and is reported.
 */

import * as v from "valibot";
import { parseDurationMs } from "../base/units.ts";

/** How long a node is held: ms, or undefined for ever. */
export type Bound = number | undefined;

/** The parameters, read. */
export interface GuardParameters {
  readonly bound: Bound;
  readonly boundOf: ReadonlyMap<string, Bound>;
  readonly statusReportIntervalMs: number;
  readonly controllers: readonly string[];
  readonly readsOpenYurt: boolean;
  readonly silentAfterMs: number;
  readonly taints: boolean;
  readonly witnesses: number;
  /** What could not be read, each naming its key, the value's shape and the next step. */
  readonly problems: readonly string[];
}

/** The ConfigMap's data as it is rendered; every key with its default. */
export const DEFAULT_PARAMETERS = {
  bound: "0",
  statusReportInterval: "5m",
  controllers: "",
  openYurtAnnotations: "true",
  silentAfter: "40s",
  taint: "true",
  witnesses: "1",
} as const;

const PREFIX = "bound.";
const dataSchema = v.optional(v.record(v.string(), v.string()), {});

/**
 * Reads a ConfigMap's `data`.
 *
 * @param data undefined when the ConfigMap is not there: then the defaults hold.
 */
export function readParameters(data: unknown): GuardParameters {
  const problems: string[] = [];
  const parsed = v.safeParse(dataSchema, data);
  if (!parsed.success) problems.push("data: expected strings by key; see holdfast manifests for an example");
  const given: Record<string, string> = parsed.success ? parsed.output : {};
  const text = (key: keyof typeof DEFAULT_PARAMETERS) => given[key] ?? DEFAULT_PARAMETERS[key];
  const complain = (key: string, shape: string) =>
    problems.push(`${key}: expected ${shape}; correct it in the ConfigMap`);
  const bound = (key: string, value: string): Bound => {
    const ms = parseBound(value);
    if (ms === "unreadable") complain(key, 'a duration such as "12h30m", or "0" for ever; it counts as for ever');
    return ms === "unreadable" ? undefined : ms;
  };
  const duration = (key: "statusReportInterval" | "silentAfter") => {
    const given = parseDurationMs(text(key));
    const ms = given === undefined || given < 1_000 ? undefined : given;
    if (ms === undefined) complain(key, `a duration such as "${DEFAULT_PARAMETERS[key]}"; that is used`);
    return ms ?? parseDurationMs(DEFAULT_PARAMETERS[key])!;
  };
  const flag = (key: "openYurtAnnotations" | "taint") => {
    if (!["true", "false"].includes(text(key))) complain(key, '"true" or "false"; true is used');
    return text(key) !== "false";
  };
  const count = (key: "witnesses") => {
    const isWhole = /^[1-9][0-9]?$/.test(text(key));
    if (!isWhole) complain(key, "a number from 1 to 99; 1 is used");
    return isWhole ? Number(text(key)) : 1;
  };
  return {
    bound: bound("bound", text("bound")),
    boundOf: new Map(
      Object.entries(given)
        .filter(([key]) => key.startsWith(PREFIX))
        .map(([key, value]) => [key.slice(PREFIX.length), bound(key, value)]),
    ),
    statusReportIntervalMs: duration("statusReportInterval"),
    controllers: text("controllers")
      .split(",")
      .map((name) => name.trim())
      .filter((name) => name !== ""),
    readsOpenYurt: flag("openYurtAnnotations"),
    silentAfterMs: duration("silentAfter"),
    taints: flag("taint"),
    witnesses: count("witnesses"),
    problems,
  };
}

/** A Go duration above zero in ms; undefined for "0", which is for ever; "unreadable" for anything else. */
export function parseBound(text: string): Bound | "unreadable" {
  const ms = text === "0" ? 0 : parseDurationMs(text);
  if (ms === undefined) return "unreadable";
  return ms === 0 ? undefined : ms;
}
