/**
 * The configuration file, read with errors that name line, field and remedy.
 */

import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { nearest } from "../base/nearest.ts";
import { ConfigError, whyUnreadable } from "./config-error.ts";
import { lineOf, repeatedField, syntaxLine } from "./lines.ts";
import { clientSchema, fileSchema, limitsSchema, type FileConfig } from "./schema.ts";

/** Where the configuration is looked for when no --config is given. */
export const DEFAULT_CONFIG_FILE = "/etc/holdfast/config.yaml";

/** Fields whose value is never shown. */
const SECRET: ReadonlySet<string | number> = new Set(["token"]);
type Mapping = v.StrictObjectSchema<v.ObjectEntries, undefined>;

/** Variables by name. */
export type Env = Readonly<Record<string, string | undefined>>;

/** What the file that is named says, or the well-known one if it is there; else nothing. @throws {ConfigError} */
export function fileOf(flag: string | undefined, env: Env): FileConfig {
  const path = flag ?? env["HOLDFAST_CONFIG"] ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  return path === undefined
    ? {}
    : withPathsFrom(dirname(resolve(path)), readStrictFile(path, fileSchema, "HoldfastConfiguration"));
}

/** Paths in the file are meant from its own folder: a unit's working directory is "/". */
function withPathsFrom(folder: string, file: FileConfig): FileConfig {
  const placed = { ...file };
  for (const field of ["kubeconfig", "stateDir", "clientCAFile", "adminSocket"] as const) {
    const path = file[field];
    if (path !== undefined) placed[field] = resolve(folder, path);
  }
  if (file.clients !== undefined)
    placed.clients = file.clients.map((client) => ({ ...client, kubeconfig: resolve(folder, client.kubeconfig) }));
  return placed;
}

/** A file of ours, of one shape. @throws {ConfigError} with its line, the field and what it should be. */
export function readStrictFile<S extends Mapping>(path: string, schema: S, kind: string): v.InferOutput<S> {
  let source: string;
  try {
    source = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigError(`Cannot read configuration "${path}": ${whyUnreadable(error)}`, { cause: error });
  }
  return readStrictText(path, source, schema, kind);
}

/** The same of a text that somebody has read. @param path for the errors. */
export function readStrictText<S extends Mapping>(
  path: string,
  source: string,
  schema: S,
  kind: string,
): v.InferOutput<S> {
  const document = mappingOf(path, source, kind);
  const repeated = repeatedField(source);
  if (repeated !== undefined)
    throw new ConfigError(
      `Cannot use configuration ${path}:${repeated.line}: field "${repeated.field}" stands there twice`,
    );
  const result = v.safeParse(schema, document);
  if (result.success) return result.output;
  throw new ConfigError(`Cannot use configuration ${path}:${complaintAbout(result.issues, source, { schema, kind })}`);
}

function mappingOf(path: string, source: string, kind: string): unknown {
  let document: unknown;
  try {
    document = Bun.YAML.parse(source);
  } catch {
    throw new ConfigError(`Cannot read configuration "${path}"${syntaxLine(source)}`);
  }
  if (document === null || typeof document !== "object" || Array.isArray(document))
    throw new ConfigError(
      `Cannot use configuration "${path}": it is ${document === null ? "empty" : "no mapping"}; expected apiVersion: holdfast.dev/v1alpha1, kind: ${kind}`,
    );
  return document;
}

/** "LINE: what is wrong", of the issue that is worth mending first. */
function complaintAbout(
  issues: readonly [v.BaseIssue<unknown>, ...v.BaseIssue<unknown>[]],
  source: string,
  { schema, kind }: { readonly schema: Mapping; readonly kind: string },
): string {
  // A misspelt name is also a missing one: the name is what to mend.
  const isUnknown = (issue: v.BaseIssue<unknown>) => issue.type === "strict_object" && issue.expected === "never";
  const issue = issues.find(isUnknown) ?? issues[0];
  const keys = issue.path?.map(({ key }) => key as string | number) ?? [];
  const line = lineOf(source, keys);
  if (isUnknown(issue))
    return `${line}: unknown field "${keys.at(-1)}" in ${dotted(keys.slice(0, -1)) || kind}${suggestion(keys, schema)}`;
  const field = `${line}: field "${dotted(keys)}"`;
  return issue.received === "undefined"
    ? `${field} is missing; expected ${expectedOf(issue)}`
    : `${field}: expected ${expectedOf(issue)}, found ${SECRET.has(keys.at(-1)!) ? "something else" : foundOf(issue.input)}`;
}

/** ["clients", 0, "name"] as "clients[0].name". */
function dotted(keys: readonly (string | number)[]): string {
  return keys
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${key}`))
    .join("")
    .replace(/^\./, "");
}

/** What a schema wanted, in words. */
export function expectedOf(issue: v.BaseIssue<unknown>): string {
  if (issue.type === "check") return issue.message;
  // A duration's own type issue says so, for `linger: 300` lacks a unit.
  if (issue.message === "duration") return 'a duration such as "45s", "5m" or "168h"';
  // A missing field's issue is the object's own: it expects the field's name.
  if (issue.received === "undefined")
    return issue.path?.at(-1)?.key === "apiVersion"
      ? '"holdfast.dev/v1alpha1"'
      : issue.path?.at(-1)?.key === "kind"
        ? '"HoldfastConfiguration"'
        : "text";
  return (issue.expected ?? "another shape")
    .replace(/^\((.*)\)$/, "$1")
    .replace("string", "text")
    .replace("Array", "a list")
    .replace("number", "a number")
    .replace("Object", "a mapping")
    .replaceAll(" | ", " or ");
}

function foundOf(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (typeof value === "object") return Array.isArray(value) ? "a list" : "a mapping";
  return JSON.stringify(value).slice(0, 64);
}

/** The known field that was probably meant, of those that may stand in the same place. */
function suggestion(keys: readonly (string | number)[], schema: Mapping): string {
  const field = String(keys.at(-1));
  const { entries } = keys.length === 1 ? schema : keys[0] === "limits" ? limitsSchema : clientSchema;
  const near = nearest(field, Object.keys(entries));
  return near === undefined ? "" : `, did you mean "${near}"`;
}
