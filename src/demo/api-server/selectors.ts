/**
 * Label and field selectors: text to predicate, with the API server's errors.
 */

import { badRequest } from "./failure.ts";
import type { Resource } from "./resources.ts";
import { child, textAt, type JsonObject } from "./schema.ts";

/** Whether an object is selected. */
export type Predicate = (object: JsonObject) => boolean;

/** Both selectors of a request. @throws {Failure} 400 for what cannot be parsed or is not supported. */
export function selector(resource: Resource, labels: string, fields: string): Predicate {
  const tests = [...labelTests(labels), ...fieldTests(resource, fields)];
  return (object) => tests.every((test) => test(object));
}

function labelTests(text: string): Predicate[] {
  if (text.trim() === "") return [];
  return splitOutsideParentheses(text).map((requirement) => {
    const test = labelTest(requirement.trim());
    return (object) => test(child(child(object, "metadata"), "labels"));
  });
}

function splitOutsideParentheses(text: string): string[] {
  const parts = [""];
  let depth = 0;
  for (const char of text) {
    if (char === "(") depth++;
    if (char === ")") depth--;
    if (char === "," && depth === 0) parts.push("");
    else parts[parts.length - 1] += char;
  }
  return parts;
}

const KEY = "[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?";
const FORMS: readonly (readonly [RegExp, (value: string | undefined, operand: string) => boolean])[] = [
  [new RegExp(`^(${KEY})$`), (value) => value !== undefined],
  [new RegExp(`^!\\s*(${KEY})$`), (value) => value === undefined],
  [new RegExp(`^(${KEY})\\s*==?\\s*([-A-Za-z0-9_.]*)$`), (value, operand) => value === operand],
  [new RegExp(`^(${KEY})\\s*!=\\s*([-A-Za-z0-9_.]*)$`), (value, operand) => value !== operand],
  [
    new RegExp(`^(${KEY})\\s+in\\s*\\(([^()]*)\\)$`),
    (value, operand) => value !== undefined && members(operand).includes(value),
  ],
  [
    new RegExp(`^(${KEY})\\s+notin\\s*\\(([^()]*)\\)$`),
    (value, operand) => value === undefined || !members(operand).includes(value),
  ],
  [new RegExp(`^(${KEY})\\s*>\\s*(\\d+)$`), (value, operand) => value !== undefined && Number(value) > Number(operand)],
  [new RegExp(`^(${KEY})\\s*<\\s*(\\d+)$`), (value, operand) => value !== undefined && Number(value) < Number(operand)],
];

const members = (list: string) => list.split(",").map((member) => member.trim());

function labelTest(requirement: string): (labels: JsonObject) => boolean {
  for (const [form, holds] of FORMS) {
    const match = form.exec(requirement);
    if (!match) continue;
    const [, key = "", operand = ""] = match;
    return (labels) => holds(typeof labels[key] === "string" ? labels[key] : undefined, operand);
  }
  throw badRequest(`unable to parse requirement: ${requirementProblem(requirement)}`);
}

function requirementProblem(requirement: string): string {
  const setForm = /\s(?:in|notin)\s*(\S?)/.exec(requirement);
  if (setForm && setForm[1] !== "(") return `found '${setForm[1] ?? ""}' expected: '('`;
  return `found '${requirement}', expected: identifier`;
}

/** The pairs of a field selector, for looking up metadata.name without a scan. */
export function fieldPairs(text: string): { field: string; isEqual: boolean; value: string }[] {
  if (text.trim() === "") return [];
  return text.split(/(?<!\\),/).map((term) => {
    const match = /^([^=!]+)(==|!=|=)(.*)$/s.exec(term);
    if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    return { field: match[1]!, isEqual: match[2] !== "!=", value: match[3]!.replace(/\\(.)/g, "$1") };
  });
}

/** Kinds with a field conversion of their own, which have their own words for what they do not know. */
const HAS_OWN_FIELDS = new Set([
  "pods",
  "nodes",
  "services",
  "secrets",
  "namespaces",
  "events",
  "certificatesigningrequests",
]);

function fieldTests(resource: Resource, text: string): Predicate[] {
  return fieldPairs(text).map(({ field, isEqual, value }) => {
    const isCommon =
      field === "metadata.name" ||
      (field === "metadata.namespace" && (resource.isNamespaced || !HAS_OWN_FIELDS.has(resource.resource)));
    if (!isCommon && !resource.fieldSelectors.includes(field)) throw badRequest(unsupportedField(resource, field));
    return (object) => (fieldValue(resource, object, field) === value) === isEqual;
  });
}

function unsupportedField(resource: Resource, field: string): string {
  return resource.isCustom || HAS_OWN_FIELDS.has(resource.resource)
    ? `field label not supported: ${field}`
    : `"${field}" is not a known field selector: only "metadata.name", "metadata.namespace"`;
}

/** Booleans read "false" when unset, as the API server's own conversion has it. */
function fieldValue(resource: Resource, object: JsonObject, field: string): string {
  const text = textAt(object, field);
  if (text === "" && (field === "spec.unschedulable" || field === "spec.hostNetwork")) return "false";
  if (resource.resource === "events" && field === "source")
    return textAt(object, "source.component") || textAt(object, "reportingComponent");
  return text;
}
